//! Printing. Results go to standard output, notes and progress to standard error.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use jali::terminal_text::{visible, visible_json};

/// A line of the result.
pub(super) fn say(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", visible(&line.to_string()))
}

/// A result as one JSON object.
pub(super) fn say_json(result: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", visible_json(&serde_json::to_string_pretty(result)?))?)
}

/// A line for the person who watches.
pub(super) fn note(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{}", visible(&line.to_string()))
}

/// A bar on standard error, silent when that is not a terminal.
pub(super) fn progress(steps: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// A table whose first `left` columns are text and the others numbers.
pub(super) fn table(header: &[&str], left: usize, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn ms(d: Duration) -> f64 {
    // Microseconds are all that a clock on a busy machine can tell.
    (d.as_secs_f64() * 1e6).round() / 1e3
}

pub(super) fn median<T: Copy + Ord + Default>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Milliseconds of several runs.
#[derive(serde::Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(times: &[Duration]) -> Self {
        let ends = (times.iter().min().copied(), times.iter().max().copied());
        let (min, max) = (ms(ends.0.unwrap_or_default()), ms(ends.1.unwrap_or_default()));
        Self { median: ms(median(times.iter().copied())), min, max }
    }
}

/// Sizes of primes as tables show them.
pub(super) fn primes(bits: &[u32]) -> String {
    bits.iter().map(u32::to_string).collect::<Vec<_>>().join("+")
}

/// Bytes for a person.
pub(super) fn bytes(n: usize) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.2} MB", n as f64 / 1e6),
    }
}

pub(super) fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}
