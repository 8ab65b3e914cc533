//! Attackers that somebody else wrote: a command that is given a folder with an attacker's view,
//! and writes its copy of the network there.
//!
//! ```text
//! view.onnx        the network with what is open; hidden weights are NaN. Input "image"
//!                  [batch, ...], output "logits" [batch, classes]
//! mask.npz         by layer, "0", "1", ..: 1 where a weight is hidden, in the weights' shape
//! scales.npz       by layer: the largest weight that each output can hold
//! images.npy       the budget's images, f32 [n, ...]
//! labels.npy       the victim's classes of them, i64 [n]
//! logits.npy       the victim's logits, f32 [n, classes]
//! task.json        who attacks, what made the plan, budget, seed, layers
//!
//! surrogate.onnx   to be written: takes images of the same shape, gives as many logits
//! ```
//!
//! A guest's view has no answers: [`asking`] says how it gets them.
//!
//! | module | what it holds |
//! |---|---|
//! | `view` | writes the view |
//! | [`asking`] | answers to what a guest asks |
//! | `process` | the command, while it runs |

pub mod asking;
mod process;
mod view;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use jali::JaliError;
use jali::model_file::read_model;
use jali_model::{Graph, Tensor, float};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::asking::{Guests, Oracle};
use self::process::Process;
use self::view::write_view;
use crate::AuditError;
use crate::attack::Knowledge;
use crate::grid::Cell;
use crate::train::argmax;

/// A command that attacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What a shell runs, in the folder of the view.
    pub line: String,
    /// How long it may take, in seconds.
    pub seconds: u64,
}

/// One attack: by whom on what, and what it sees.
#[derive(Debug, Clone, Copy)]
pub struct Assignment<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// What it sees.
    pub knows: &'a Knowledge<'a>,
    /// What it may ask, if it is a guest.
    pub guests: Option<Guests>,
}

/// How often the command is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes at the end of what it printed that a failure quotes.
const QUOTED: u64 = 400;
/// What it printed.
const LOG: &str = "attacker.log";
const SURROGATE: &str = "surrogate.onnx";

impl Command {
    /// Has it attack, and returns the classes that its copy gives to images; or, as the inner
    /// error, why there is no copy: that is a cell's result.
    ///
    /// # Errors
    /// [`AuditError`] if the view cannot be written.
    pub fn attack(
        &self,
        folder: &Path,
        asked: &Assignment<'_>,
        images: &[Tensor],
    ) -> Result<Result<Vec<usize>, String>, AuditError> {
        let fail = |e: std::io::Error| JaliError::Write { path: folder.into(), why: e.to_string() };
        if folder.exists()
            && let Err(e) = std::fs::remove_dir_all(folder)
        {
            return Ok(Err(format!(
                "what an earlier attack left cannot be removed ({e}): remove {}",
                folder.display()
            )));
        }
        std::fs::create_dir_all(folder).map_err(fail)?;
        write_view(folder, asked)?;
        let victim = asked.knows.victim;
        let mut oracle = asked.guests.map(|guests| Oracle::new(folder, victim, guests, asked.cell.budget));
        oracle.as_ref().map_or(Ok(()), Oracle::open).map_err(fail)?;
        let classes = self.run(folder, oracle.as_mut())?.and_then(|()| score(folder, victim.graph(), images));
        if classes.is_ok() {
            // What cannot be removed, files of a container's root perhaps, costs no copy.
            let _ = std::fs::remove_dir_all(folder);
        }
        Ok(classes)
    }

    /// Runs it to its end, or to the end of its time, and answers what it asks.
    fn run(&self, folder: &Path, mut oracle: Option<&mut Oracle<'_>>) -> Result<Result<(), String>, AuditError> {
        let started = File::create(folder.join(LOG)).and_then(|log| Process::start(&self.line, folder, log));
        let mut process = match started {
            Ok(process) => process,
            Err(e) => return Ok(Err(format!("it does not start: {e}"))),
        };
        let begun = Instant::now();
        loop {
            let ended = match process.ended() {
                Ok(status) => status,
                Err(e) => return Ok(Err(e.to_string())),
            };
            if let Err(why) = oracle.as_mut().map_or(Ok(Ok(())), |oracle| oracle.answer())? {
                return Ok(Err(why));
            }
            match ended {
                Some(status) if status.success() => return Ok(Ok(())),
                Some(status) => return Ok(Err(format!("it ended with {status}{}", quoted(folder)))),
                None if begun.elapsed() > Duration::from_secs(self.seconds) => {
                    return Ok(Err(format!("it took longer than {} s{}", self.seconds, quoted(folder))));
                }
                None => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// The end of what it printed.
fn quoted(folder: &Path) -> String {
    let mut text = vec![];
    let read = File::open(folder.join(LOG)).and_then(|mut log| {
        let from = log.metadata()?.len().saturating_sub(QUOTED);
        log.seek(SeekFrom::Start(from))?;
        log.take(QUOTED).read_to_end(&mut text)
    });
    let text = String::from_utf8_lossy(&text);
    match read.is_ok() && !text.trim().is_empty() {
        true => format!("; it printed last: {}", text.trim()),
        false => String::new(),
    }
}

/// The classes that its copy gives.
fn score(folder: &Path, victim: &Graph, images: &[Tensor]) -> Result<Vec<usize>, String> {
    let path = folder.join(SURROGATE);
    if !path.is_file() {
        return Err(format!("it wrote no {SURROGATE}{}", quoted(folder)));
    }
    let graph = read_model(&path).map_err(|e| e.to_string())?;
    let size = |graph: &Graph| graph.shape(graph.output()).iter().product::<usize>();
    let (expected, got) = ((victim.input_shape().to_vec(), size(victim)), (graph.input_shape().to_vec(), size(&graph)));
    if expected != got {
        return Err(format!(
            "{SURROGATE} takes images {:?} and gives {} logits, the network takes {:?} and gives {}",
            got.0, got.1, expected.0, expected.1
        ));
    }
    // None where it gives no numbers: that is no answer, and not the first class either.
    let class = |image: &Tensor| {
        float::run(&graph, image.clone()).map(|o| o.data.iter().all(|v| v.is_finite()).then(|| argmax(&o.data)))
    };
    let said: Vec<Option<usize>> =
        images.par_iter().map(class).collect::<Result<_, _>>().map_err(|e| format!("{SURROGATE}: {e}"))?;
    match said.iter().filter(|class| class.is_none()).count() {
        0 => Ok(said.into_iter().flatten().collect()),
        none => Err(format!("{SURROGATE} gives NaN or infinity for {none} of {} scoring images", said.len())),
    }
}
