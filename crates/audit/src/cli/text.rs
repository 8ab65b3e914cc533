//! Printing. Results go to standard output, notes and progress to standard error.

use std::fmt::Display;
use std::io::Write;

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

/// A bar on standard error that counts work, silent when that is not a terminal.
pub(super) fn progress(work: u64) -> ProgressBar {
    let bar = ProgressBar::new(work);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent} %, {eta} left") {
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
