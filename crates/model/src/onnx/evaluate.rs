//! Computes other nodes that depend on no input: each is read like any node, with the constant as
//! its image, and run by the client's own code.

use std::collections::HashMap;
use std::rc::Rc;

use super::constant::{Constant, Values};
use super::importer::Importer;
use super::reading::{Outcome, Reading};
use super::refusal::{FOLD, Refusal};
use crate::execution;
use crate::graph::{Graph, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::{ModelError, float};

/// Most products and additions that the constants of one node may take.
const MAX_WORK: u64 = 1 << 33;
/// Largest integer up to which all are exact as floats.
const EXACT: i64 = 1 << 24;

impl Importer<'_, '_> {
    /// Computes a node whose inputs are all constants.
    pub(super) fn evaluated(&self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        let refuse = |why: String| Refusal::new(format!("computes from constants, and {why}"), FOLD);
        let named = |name: &String| Some((name.clone(), self.constants.get(name)?.clone()));
        let constants: HashMap<String, Rc<Constant>> = r.node.input.iter().filter_map(named).collect();
        let name = r.input(0).ok_or_else(|| refuse("its first input is missing".into()))?;
        let first = constants.get(name).ok_or_else(|| refuse("its first input is missing".into()))?.clone();
        let data = first.floats().filter(|v| !v.is_empty());
        let data = data.ok_or_else(|| refuse("they are empty or of a type that is not read".into()))?;
        let of_ints = first.as_ints().is_some();
        if first.as_ints().is_some_and(|ints| ints.iter().any(|v| v.abs() > EXACT)) {
            return Err(refuse("they are integers too large for it".into()));
        }
        let graph = Graph::of_any_shape(first.dims.clone())?;
        let mut external = |_: &super::External| Err("is not read here".to_string());
        let mut inner = Importer::of_constant(graph, self, name, &mut external);
        inner.constants = constants;
        inner.constants.remove(name);
        let outcome = inner.compute(r).map_err(|e| refuse(e.reason))?;
        let values = match outcome {
            Outcome::Value(v) => vec![v],
            Outcome::Values(values) => values,
            constants => return Ok(constants),
        };
        // The file's shape, a batch dimension in front included.
        let values: Vec<ValueId> = values.into_iter().map(|v| inner.whole(r, v)).collect::<Result<_, _>>()?;
        let dims: Vec<Vec<usize>> = values.iter().map(|&v| inner.dims(v)).collect();
        let mut graph = inner.graph;
        if work(&graph) as u64 > MAX_WORK || !graph.set_outputs(values) {
            return Err(refuse("that is too much work".into()));
        }
        let image = Tensor { shape: first.dims.clone(), data };
        let run = execution::run(&graph, image, |node, x| float::linear(&graph, node, x));
        let tensors = run.map_err(|e: ModelError| refuse(e.to_string()))?;
        let exact = |t: &Tensor| t.data.iter().all(|v| v.fract() == 0.0 && v.abs() <= EXACT as f32);
        let constant = |(t, dims): (Tensor, Vec<usize>)| {
            // Operators of integers give integers; what is no integer any more is a float.
            let values = if of_ints && exact(&t) || r.node.op_type == "ArgMax" {
                Values::Int(t.data.iter().map(|&v| v as i64).collect())
            } else {
                Values::Float(t.data)
            };
            Constant { dims, values }
        };
        let mut all: Vec<Constant> = tensors.into_iter().zip(dims).map(constant).collect();
        Ok(if all.len() == 1 { Outcome::Constant(all.swap_remove(0)) } else { Outcome::Constants(all) })
    }
}

/// Returns the products and additions that a graph takes.
fn work(graph: &Graph) -> usize {
    let of = |op: &Op| match op {
        Op::MaxPool(p) | Op::AveragePool(p) => p.kernel.iter().product(),
        op => op.linear().map_or(1, |l| l.fan_in()),
    };
    graph.nodes().iter().fold(0, |sum: usize, n| {
        let outputs: usize = n.shape.iter().product();
        let inputs: usize = n.inputs.iter().map(|&v| graph.shape(v).iter().product::<usize>()).sum();
        sum.saturating_add(outputs.saturating_mul(of(&n.op)).saturating_add(inputs))
    })
}
