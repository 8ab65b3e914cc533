//! A line for each layer: what it takes, and what was measured.

use std::ops::Range;
use std::time::Duration;

use comfy_table::Table;
use jali_guest::{Circuit, Hidden, Part};
use serde::Serialize;

use super::ways::Inferred;
use crate::text::{bytes, median, ms, table};

/// Bytes of the server's half of a ticket.
pub(crate) const SERVER_KEY: usize = 32;

/// A linear layer with the gates behind it.
#[derive(Serialize)]
pub(crate) struct Layer {
    name: String,
    kind: &'static str,
    /// `clear`: the guest computes it alone; `shared`: both parties do, on masked values.
    #[serde(rename = "where")]
    place: &'static str,
    weights: usize,
    weights_hidden: f64,
    k: u32,
    b: u32,
    clamps: usize,
    maxima: usize,
    ticket_bytes: usize,
    exchanges: usize,
    guest_ms: f64,
    server_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
}

/// Time of some steps.
fn of_steps(computing: &[Duration], steps: &Range<usize>) -> Duration {
    computing.iter().enumerate().filter(|(step, _)| steps.contains(step)).map(|(_, t)| *t).sum()
}

/// All layers with the medians of some inferences.
pub(crate) fn layers_of(circuit: &Circuit, weights: &[Hidden], runs: &[Inferred]) -> Vec<Layer> {
    let layer = |part: Part| {
        let all: Hidden = weights[part.steps.clone()].iter().copied().sum();
        Layer {
            guest_ms: ms(median(runs.iter().map(|run| of_steps(&run.guest, &part.steps)))),
            server_ms: ms(median(runs.iter().map(|run| of_steps(&run.server, &part.steps)))),
            name: part.name,
            kind: part.kind,
            place: if part.is_clear { "clear" } else { "shared" },
            weights: all.of,
            weights_hidden: all.fraction(),
            k: part.sum_bits,
            b: part.opened_bits,
            clamps: part.counts.clamps,
            maxima: part.counts.maxima,
            ticket_bytes: part.counts.ticket_bytes,
            exchanges: part.counts.exchanges,
            bytes_up: part.counts.bytes_up,
            bytes_down: part.counts.bytes_down,
        }
    };
    circuit.parts().into_iter().map(layer).collect()
}

/// The layers as people see them.
pub(crate) fn layers_table(layers: &[Layer]) -> Table {
    let header = [
        "layer",
        "kind",
        "where",
        "hidden",
        "k",
        "b",
        "clamps",
        "maxima",
        "ticket",
        "exchanges",
        "guest ms",
        "server ms",
        "up",
        "down",
    ];
    let rows = layers.iter().map(|l| {
        vec![
            l.name.clone(),
            l.kind.to_string(),
            l.place.to_string(),
            format!("{:.0} %", 100.0 * l.weights_hidden),
            l.k.to_string(),
            l.b.to_string(),
            l.clamps.to_string(),
            l.maxima.to_string(),
            bytes(l.ticket_bytes),
            l.exchanges.to_string(),
            format!("{:.2}", l.guest_ms),
            format!("{:.2}", l.server_ms),
            bytes(l.bytes_up),
            bytes(l.bytes_down),
        ]
    });
    table(&header, 3, rows)
}
