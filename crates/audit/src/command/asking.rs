//! The view of a guest: what lies before the first hidden layer is open, so a guest computes it
//! itself, and may put any value in its place. Each answer costs a ticket.
//!
//! ```text
//! ask/1.npy        written by the attacker (aside, then renamed): f32 [n, ...], n values
//! answer/1.npy     written by us: logits, f32 [n, classes], or the classes alone, i64 [n]
//! ask/2.npy        ..
//! ```

use std::path::{Path, PathBuf};

use jali::files::{Readers, read_bounded, write_aside};
use jali::image_file::{floats_of_npy, npy_bytes, npy_of_integers};
use jali_model::graph::ValueId;
use jali_model::{Graph, Tensor};
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::train::argmax;
use crate::victim::Victim;

/// What a guest is told for a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// All logits.
    Logits,
    /// The class alone.
    Top1,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Logits => "logits",
            Self::Top1 => "top1",
        })
    }
}

/// What a guest may ask about.
#[derive(Debug, Clone, Copy)]
pub struct Guests {
    /// What it is told.
    pub told: Told,
    /// The value that it may choose: what the open beginning gives.
    pub value: ValueId,
}

/// Returns the last value that everything hidden lies behind and that nothing behind it looks past:
/// where a guest may cheat.
pub fn last_open_value(graph: &Graph, hidden: &[Vec<f32>]) -> ValueId {
    let is_hidden = |weights: &[f32]| weights.iter().any(|h| *h > 0.0);
    let mut layers = graph.linear_nodes().zip(hidden);
    let first = layers.find(|(_, h)| is_hidden(h)).map_or(graph.output(), |((node, _), _)| node);
    // Value `v` is what node `v - 1` gives: the nodes from `v` on lie behind it.
    let is_cut = |v: &usize| graph.nodes()[*v..].iter().all(|node| node.inputs.iter().all(|input| input >= v));
    (0..=first).rev().find(is_cut).unwrap_or(0)
}

/// Most bytes of what is asked at once.
const MAX_FILE: u64 = 1 << 31;

/// Answers one attacker.
pub(super) struct Oracle<'a> {
    folder: PathBuf,
    victim: &'a Victim,
    guests: Guests,
    tickets: usize,
    /// Number of the next file.
    next: usize,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(folder: &Path, victim: &'a Victim, guests: Guests, tickets: usize) -> Self {
        Self { folder: folder.into(), victim, guests, tickets, next: 1 }
    }

    /// Makes the folders that it asks and is answered in.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(self.folder.join("ask"))?;
        std::fs::create_dir_all(self.folder.join("answer"))
    }

    /// Answers what is asked by now. The inner error is the attacker's fault.
    ///
    /// # Errors
    /// [`AuditError`] if an answer cannot be written.
    pub(super) fn answer(&mut self) -> Result<Result<(), String>, AuditError> {
        let name = format!("{}.npy", self.next);
        let path = self.folder.join("ask").join(&name);
        if !path.is_file() {
            return Ok(Ok(()));
        }
        let values = match self.read(&path) {
            Ok(values) => values,
            Err(why) => return Ok(Err(format!("ask/{name}: {why}"))),
        };
        self.tickets -= values.len();
        self.next += 1;
        let logits = self.victim.answer_behind(self.guests.value, &values)?;
        let bytes = match self.guests.told {
            Told::Logits => {
                let classes = logits.first().map_or(0, Vec::len);
                npy_bytes(&Tensor { shape: vec![logits.len(), classes], data: logits.concat() })
            }
            Told::Top1 => npy_of_integers(&logits.iter().map(|l| argmax(l) as i64).collect::<Vec<_>>()),
        };
        write_aside(&self.folder.join("answer").join(name), &bytes, Readers::Owner)?;
        Ok(Ok(()))
    }

    /// The values of a file, no more than there are tickets for.
    fn read(&self, path: &Path) -> Result<Vec<Tensor>, String> {
        let bytes = read_bounded(path, MAX_FILE).map_err(|e| e.to_string())?;
        let asked = floats_of_npy(&bytes).map_err(|fault| fault.to_string())?;
        let shape = self.victim.graph().shape(self.guests.value);
        let Some((&count, rest)) = asked.shape.split_first().filter(|(_, rest)| *rest == shape) else {
            return Err(format!("its shape is {:?}, it must be the number of values and then {shape:?}", asked.shape));
        };
        if count > self.tickets {
            return Err(format!("it asks about {count} values and has {} tickets left", self.tickets));
        }
        let size = rest.iter().product::<usize>().max(1);
        Ok(asked.data.chunks_exact(size).map(|v| Tensor { shape: shape.to_vec(), data: v.to_vec() }).collect())
    }
}
