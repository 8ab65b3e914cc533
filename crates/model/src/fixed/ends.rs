//! What the guest computes in floats: before the first layer, and behind the last one.

use crate::ModelError;
use crate::error::Offence;
use crate::graph::{Graph, ValueId};
use crate::op::{Activation, Op};

/// An error that names a value.
pub(super) fn refused(graph: &Graph, value: ValueId, reason: String, remedy: &str) -> ModelError {
    let (node, operator) = match value.checked_sub(1) {
        Some(node) => (graph.nodes()[node].name.clone(), graph.nodes()[node].op.name().to_string()),
        None => ("the image".into(), "input".into()),
    };
    ModelError::Unsupported { offences: vec![Offence { node, operator, reason, remedy: remedy.into() }] }
}

/// Which values no linear layer stands before, and the one of them that the layers take: the last
/// one that something else than such a value uses.
pub(super) fn head_of(graph: &Graph) -> (Vec<bool>, ValueId) {
    let mut first = vec![true];
    for node in graph.nodes() {
        first.push(node.op.linear().is_none() && node.inputs.iter().all(|&v| first[v]));
    }
    let users = graph.nodes().iter().enumerate().filter(|(i, _)| !first[i + 1]);
    let input = users.flat_map(|(_, n)| &n.inputs).copied().filter(|&v| first[v]).max().unwrap_or(0);
    (first, input)
}

/// The graph from the image to a value.
pub(super) fn head_graph(graph: &Graph, first: &[bool], input: ValueId) -> Result<Graph, ModelError> {
    let used = |v: ValueId| graph.nodes().iter().enumerate().any(|(i, n)| !first[i + 1] && n.inputs.contains(&v));
    if let Some(other) = (0..input).find(|&v| first[v] && used(v)) {
        let reason = format!("layers take it and also \"{}\"", graph.nodes()[input - 1].name);
        return Err(refused(graph, other, reason, "let one preprocessing serve all layers"));
    }
    let mut head = Graph::new(graph.input_shape().to_vec())?;
    for node in &graph.nodes()[..input] {
        head.push(node.name.clone(), node.op.clone(), node.inputs.clone())?;
    }
    Ok(head)
}

/// The value behind which only functions follow that tell as much as they take, and these.
pub(super) fn tail_of(graph: &Graph) -> Result<(ValueId, Graph), ModelError> {
    if let [_, second, ..] = graph.outputs() {
        return Err(refused(graph, *second, "is a second output".into(), "export a network with one output"));
    }
    let tells_all = |op: &Op| {
        matches!(
            op,
            Op::Softmax { .. }
                | Op::Flatten
                | Op::Reshape(_)
                | Op::Transpose(_)
                | Op::Activation(Activation::Sigmoid | Activation::Tanh | Activation::Exp)
        )
    };
    let (mut behind, mut nodes) = (graph.output(), vec![]);
    while let Some(node) = behind.checked_sub(1).map(|i| &graph.nodes()[i]) {
        if !tells_all(&node.op) {
            break;
        }
        nodes.push(node);
        behind = node.inputs[0];
    }
    let mut tail = Graph::of_any_shape(graph.shape(behind).to_vec())?;
    for (i, node) in nodes.iter().rev().enumerate() {
        tail.push(node.name.clone(), node.op.clone(), vec![i])?;
    }
    Ok((behind, tail))
}

/// Most classes of which the largest is found.
const MAX_CLASSES: usize = 1 << 12;

/// How many classes a vector of outputs has.
pub(super) fn classes_of(graph: &Graph, behind: ValueId) -> Result<u32, ModelError> {
    let shape = graph.shape(behind);
    let n: usize = shape.iter().product();
    if shape.iter().filter(|d| **d > 1).count() == 1 && n <= MAX_CLASSES {
        return Ok(n as u32);
    }
    let reason = format!("is no vector of 2 to {MAX_CLASSES} classes, of which one could be the largest");
    Err(refused(graph, behind, reason, "seal with all outputs (--output logits)"))
}

/// Bits of the number of one of so many classes.
pub(super) fn bits_of_class(classes: u32) -> u32 {
    u32::BITS - (classes - 1).leading_zeros()
}
