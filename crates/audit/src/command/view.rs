//! Writes what an attacker sees into its folder.

use std::io::Write;
use std::path::Path;

use jali::files::{Readers, write_aside};
use jali::image_file::{npy_bytes, npy_of_integers};
use jali_model::graph::ValueId;
use jali_model::op::{Conv, Gemm, Op};
use jali_model::{Graph, Tensor, onnx};
use serde::Serialize;

use super::Assignment;
use super::asking::Told;
use crate::AuditError;
use crate::train::argmax;

#[derive(Serialize)]
struct Task<'a> {
    attacker: String,
    policy: String,
    leaked: f64,
    budget: usize,
    seed: u64,
    input: &'a [usize],
    classes: usize,
    layers: Vec<Layer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guests: Option<Guests<'a>>,
}

#[derive(Serialize)]
struct Layer<'a> {
    name: &'a str,
    kind: String,
    shape: Vec<usize>,
    hidden: usize,
}

#[derive(Serialize)]
struct Guests<'a> {
    tickets: usize,
    told: Told,
    /// Shape of a value that may be asked about.
    shape: &'a [usize],
    /// How many of the linear layers come before that value, all of them open.
    open_layers: usize,
}

/// Writes all files of a view.
///
/// # Errors
/// [`AuditError`] if a file cannot be written, or a network not as ONNX.
pub(super) fn write_view(folder: &Path, asked: &Assignment<'_>) -> Result<(), AuditError> {
    let write = |name: &str, bytes: &[u8]| Ok::<_, AuditError>(write_aside(&folder.join(name), bytes, Readers::Owner)?);
    let (knows, graph) = (asked.knows, asked.knows.victim.graph());
    let seen = seen(asked)?;
    write("view.onnx", &onnx::export(&seen)?)?;
    let shapes: Vec<Vec<usize>> = graph.linear_nodes().map(|(node, _)| shape(&graph.nodes()[node].op)).collect();
    let masks = knows.hidden.iter().zip(&shapes);
    write("mask.npz", &npz(masks.map(|(hidden, shape)| tensor(shape.clone(), hidden.clone())))?)?;
    let scales = knows.victim.layers().iter().map(|layer| tensor(vec![layer.limit.len()], layer.limit.clone()));
    write("scales.npz", &npz(scales)?)?;
    let queries = knows.queries;
    let count = queries.images.len();
    let all = queries.images.iter().flat_map(|image| image.data.iter().copied()).collect();
    write("images.npy", &npy_bytes(&tensor([&[count], graph.input_shape()].concat(), all)))?;
    match asked.guests {
        // What it is told, it has to ask for.
        Some(guests) if guests.value > 0 => {
            write("prefix.onnx", &onnx::export(&part(&seen, 0, guests.value)?)?)?;
            write("suffix.onnx", &onnx::export(&part(&seen, guests.value, seen.output())?)?)?;
        }
        Some(_) => write("suffix.onnx", &onnx::export(&seen)?)?,
        None => {
            let classes = graph.shape(graph.output()).iter().product();
            write("logits.npy", &npy_bytes(&tensor(vec![count, classes], queries.logits.concat())))?;
            let labels: Vec<i64> = queries.logits.iter().map(|logits| argmax(logits) as i64).collect();
            write("labels.npy", &npy_of_integers(&labels))?;
        }
    }
    let text =
        serde_json::to_vec_pretty(&task(asked, &shapes)).map_err(|e| AuditError::Usage { what: e.to_string() })?;
    write("task.json", &text)
}

fn task<'a>(asked: &'a Assignment<'_>, shapes: &[Vec<usize>]) -> Task<'a> {
    let (knows, graph, cell) = (asked.knows, asked.knows.victim.graph(), asked.cell);
    let layers = graph.linear_nodes().zip(shapes).zip(knows.hidden).map(|(((node, linear), shape), hidden)| {
        let hidden = hidden.iter().filter(|h| **h > 0.0).count();
        Layer { name: &graph.nodes()[node].name, kind: linear.kind(), shape: shape.clone(), hidden }
    });
    let guests = asked.guests.map(|guests| Guests {
        tickets: cell.budget,
        told: guests.told,
        shape: graph.shape(guests.value),
        open_layers: graph.linear_nodes().filter(|(node, _)| *node < guests.value).count(),
    });
    Task {
        attacker: cell.attacker.to_string(),
        policy: cell.source.to_string(),
        leaked: cell.leaked,
        budget: cell.budget,
        seed: cell.seed,
        input: graph.input_shape(),
        classes: graph.shape(graph.output()).iter().product(),
        layers: layers.collect(),
        guests,
    }
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
fn seen(asked: &Assignment<'_>) -> Result<Graph, AuditError> {
    let (knows, graph) = (asked.knows, asked.knows.victim.graph());
    let mut seen = Graph::new(graph.input_shape().to_vec())?;
    let mut layers = knows.victim.layers().iter().zip(knows.hidden);
    for node in graph.nodes().iter().take(knows.victim.logits()) {
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

/// The nodes between two values, as a network of its own.
fn part(graph: &Graph, from: ValueId, to: ValueId) -> Result<Graph, AuditError> {
    let mut part = Graph::new(graph.shape(from).to_vec())?;
    for node in &graph.nodes()[from..to] {
        part.push(node.name.clone(), node.op.clone(), node.inputs.iter().map(|value| value - from).collect())?;
    }
    Ok(part)
}
