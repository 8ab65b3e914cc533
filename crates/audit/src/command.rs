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
//! task.json        what made the plan, budget, seed, layers
//!
//! surrogate.onnx   to be written: takes images of the same shape, gives as many logits
//! ```

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jali::JaliError;
use jali::files::{Readers, write_aside};
use jali::image_file::{npy_bytes, npy_of_integers};
use jali::model_file::read_model;
use jali_model::op::{Conv, Gemm, Op};
use jali_model::{Graph, Tensor, float, onnx};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

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

/// How often the command is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes at the end of what it printed that a failure quotes.
const QUOTED: u64 = 400;
/// What it printed.
const LOG: &str = "attacker.log";
const SURROGATE: &str = "surrogate.onnx";

#[derive(Serialize)]
struct Task<'a> {
    policy: String,
    leaked: f64,
    budget: usize,
    seed: u64,
    input: &'a [usize],
    classes: usize,
    layers: Vec<LayerOfTask<'a>>,
}

#[derive(Serialize)]
struct LayerOfTask<'a> {
    name: &'a str,
    kind: String,
    shape: Vec<usize>,
    hidden: usize,
}

impl Command {
    /// Has it attack, and returns the classes that its copy gives to images; or, as the inner
    /// error, why there is no copy: that is a cell's result.
    ///
    /// # Errors
    /// [`AuditError`] if the view cannot be written.
    pub fn attack(
        &self,
        folder: &Path,
        cell: &Cell,
        knows: &Knowledge<'_>,
        images: &[Tensor],
    ) -> Result<Result<Vec<usize>, String>, AuditError> {
        let fail = |e: std::io::Error| JaliError::Write { path: folder.into(), why: e.to_string() };
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(fail)?;
        }
        std::fs::create_dir_all(folder).map_err(fail)?;
        write_view(folder, cell, knows)?;
        let graph = knows.victim.graph();
        let classes = self.run(folder).and_then(|()| score(folder, graph, images));
        if classes.is_ok() {
            std::fs::remove_dir_all(folder).map_err(fail)?;
        }
        Ok(classes)
    }

    /// Runs it to its end, or to the end of its time.
    fn run(&self, folder: &Path) -> Result<(), String> {
        let log = File::create(folder.join(LOG)).map_err(|e| e.to_string())?;
        let both = log.try_clone().map_err(|e| e.to_string())?;
        let mut shell = shell(&self.line);
        shell.current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(both);
        let mut child = shell.spawn().map_err(|e| format!("it does not start: {e}"))?;
        let begun = Instant::now();
        loop {
            match child.try_wait().map_err(|e| e.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("it ended with {status}{}", quoted(folder))),
                None if begun.elapsed() > Duration::from_secs(self.seconds) => {
                    kill(&mut child);
                    return Err(format!("it took longer than {} s{}", self.seconds, quoted(folder)));
                }
                None => std::thread::sleep(PAUSE),
            }
        }
    }
}

#[cfg(unix)]
fn shell(line: &str) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let mut shell = std::process::Command::new("sh");
    // A group of its own, so that all that it starts ends with it.
    shell.args(["-c", line]).process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(line: &str) -> std::process::Command {
    let mut shell = std::process::Command::new("cmd");
    shell.args(["/C", line]);
    shell
}

fn kill(child: &mut Child) {
    #[cfg(unix)]
    let _ = std::process::Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
    let _ = child.kill();
    let _ = child.wait();
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
    let class = |image: &Tensor| float::run(&graph, image.clone()).map(|output| argmax(&output.data));
    images.par_iter().map(class).collect::<Result<_, _>>().map_err(|e| format!("{SURROGATE}: {e}"))
}

fn write_view(folder: &Path, cell: &Cell, knows: &Knowledge<'_>) -> Result<(), AuditError> {
    let write = |name: &str, bytes: &[u8]| Ok::<_, AuditError>(write_aside(&folder.join(name), bytes, Readers::Owner)?);
    let graph = knows.victim.graph();
    write("view.onnx", &onnx::export(&view(knows)?)?)?;
    let shapes: Vec<Vec<usize>> = graph.linear_nodes().map(|(node, _)| shape(&graph.nodes()[node].op)).collect();
    let masks = knows.hidden.iter().zip(&shapes);
    write("mask.npz", &npz(masks.map(|(hidden, shape)| tensor(shape.clone(), hidden.clone())))?)?;
    let scales = knows.victim.layers().iter().map(|layer| tensor(vec![layer.limit.len()], layer.limit.clone()));
    write("scales.npz", &npz(scales)?)?;
    let queries = knows.queries;
    let count = queries.images.len();
    let all = queries.images.iter().flat_map(|image| image.data.iter().copied()).collect();
    write("images.npy", &npy_bytes(&tensor([&[count], graph.input_shape()].concat(), all)))?;
    let classes = graph.shape(graph.output()).iter().product();
    write("logits.npy", &npy_bytes(&tensor(vec![count, classes], queries.logits.concat())))?;
    let labels: Vec<i64> = queries.logits.iter().map(|logits| argmax(logits) as i64).collect();
    write("labels.npy", &npy_of_integers(&labels))?;
    let layers = graph.linear_nodes().zip(&shapes).zip(knows.hidden).map(|(((node, linear), shape), hidden)| {
        let hidden = hidden.iter().filter(|h| **h > 0.0).count();
        LayerOfTask { name: &graph.nodes()[node].name, kind: linear.kind(), shape: shape.clone(), hidden }
    });
    let task = Task {
        policy: cell.source.to_string(),
        leaked: cell.leaked,
        budget: cell.budget,
        seed: cell.seed,
        input: graph.input_shape(),
        classes,
        layers: layers.collect(),
    };
    let text = serde_json::to_vec_pretty(&task).map_err(|e| AuditError::Usage { what: e.to_string() })?;
    write("task.json", &text)
}

fn tensor(shape: Vec<usize>, data: Vec<f32>) -> Tensor {
    Tensor { shape, data }
}

fn shape(op: &Op) -> Vec<usize> {
    match op {
        Op::Conv(c) => vec![c.filters, c.channels, c.kernel[0], c.kernel[1]],
        Op::Gemm(g) => vec![g.outputs, g.inputs],
        _ => vec![],
    }
}

/// Arrays as one file of NumPy's, "0", "1", ..: not compressed.
fn npz(arrays: impl Iterator<Item = Tensor>) -> Result<Vec<u8>, AuditError> {
    let fail = |e: &dyn std::fmt::Display| AuditError::Usage { what: format!("no .npz can be made: {e}") };
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (index, array) in arrays.enumerate() {
        zip.start_file(format!("{index}.npy"), stored).map_err(|e| fail(&e))?;
        zip.write_all(&npy_bytes(&array)).map_err(|e| fail(&e))?;
    }
    Ok(zip.finish().map_err(|e| fail(&e))?.into_inner())
}

/// The network as the attacker sees it.
fn view(knows: &Knowledge<'_>) -> Result<Graph, AuditError> {
    let graph = knows.victim.graph();
    let mut seen = Graph::new(graph.input_shape().to_vec())?;
    let mut layers = knows.victim.layers().iter().zip(knows.hidden);
    for node in graph.nodes().iter().take(graph.output()) {
        let mut op = node.op.clone();
        if let Op::Conv(Conv { weight, bias, .. }) | Op::Gemm(Gemm { weight, bias, .. }) = &mut op
            && let Some((layer, hidden)) = layers.next()
        {
            let known = layer.weights.iter().zip(hidden).map(|(w, h)| if *h > 0.0 { f32::NAN } else { *w });
            *weight = known.collect();
            bias.clone_from(&layer.bias);
        }
        seen.push(node.name.clone(), op, node.inputs.clone())?;
    }
    Ok(seen)
}
