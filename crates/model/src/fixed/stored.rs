//! Networks in fixed point without their weights, as bytes.
//!
//! What is read comes from a file: everything that a later computation relies on is checked here,
//! so that no circuit panics and none takes more memory than its network is allowed.

use serde::{Deserialize, Serialize};

use super::bound::MAX_LIFT;
use super::ends::bits_of_class;
use super::{FixedId, FixedInput, FixedLinear, FixedNetwork, FixedOp, FixedOutput, FixedStep};
use crate::ModelError;
use crate::graph::{Graph, ValueId};
use crate::op::{Op, Pool};
use crate::shape_inference::infer;

/// Most numbers of all values of a network together.
const MAX_NUMBERS: usize = 1 << 28;
/// Most places of all windows together: circuits hold them.
const MAX_PLACES: usize = 1 << 23;
/// Largest integer that a value may be said to hold.
const MAX_RANGE: i64 = 1 << 40;

/// A node as it is stored.
type StoredNode = (String, Op, Vec<ValueId>);

#[derive(Serialize, Deserialize)]
struct Stored {
    head: (Vec<usize>, Vec<StoredNode>),
    input: FixedInput,
    steps: Vec<FixedStep>,
    output: FixedOutput,
    tail: (Vec<usize>, Vec<StoredNode>),
}

fn stored(graph: &Graph) -> (Vec<usize>, Vec<StoredNode>) {
    let nodes = graph.nodes().iter().map(|n| (n.name.clone(), n.op.clone(), n.inputs.clone()));
    (graph.input_shape().to_vec(), nodes.collect())
}

fn graph((shape, nodes): (Vec<usize>, Vec<StoredNode>)) -> Result<Graph, ModelError> {
    let mut graph = Graph::of_any_shape(shape)?;
    for (name, op, inputs) in nodes {
        if op.linear().is_some() {
            return Err(fail("a linear layer among what is computed in floats"));
        }
        check_name(&name)?;
        graph.push(name, op, inputs)?;
    }
    Ok(graph)
}

fn fail(why: &str) -> ModelError {
    ModelError::Outline(why.into())
}

fn check_name(name: &str) -> Result<(), ModelError> {
    match name.contains(char::is_control) {
        true => Err(fail("the name of a step holds control characters")),
        false => Ok(()),
    }
}

impl FixedNetwork {
    /// Encodes the network without its weights.
    ///
    /// # Errors
    /// [`ModelError::Outline`] never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let parts = Stored {
            head: stored(&self.head),
            input: self.input.clone(),
            steps: self.steps.clone(),
            output: self.output.clone(),
            tail: stored(&self.tail),
        };
        postcard::to_stdvec(&parts).map_err(|e| ModelError::Outline(e.to_string()))
    }

    /// Reads and checks what [`FixedNetwork::to_bytes`] wrote. Its layers have no weights.
    ///
    /// # Errors
    /// [`ModelError::Outline`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let (parts, rest): (Stored, _) =
            postcard::take_from_bytes(bytes).map_err(|e| ModelError::Outline(e.to_string()))?;
        if !rest.is_empty() {
            return Err(fail("bytes follow its end"));
        }
        let Stored { head, input, steps, output, tail } = parts;
        let network = Self { head: graph(head)?, input, steps, output, tail: graph(tail)? };
        network.check()?;
        Ok(network)
    }

    /// Checks what circuits rely on.
    fn check(&self) -> Result<(), ModelError> {
        check_bits(self.input.bits)?;
        check_range(self.input.range)?;
        check_scale(self.input.scale)?;
        let (mut total, mut places) = (self.shape(0).iter().product::<usize>(), 0);
        for (step, s) in self.steps.iter().enumerate() {
            let count = numbers(&s.shape)?;
            check_name(&s.name)?;
            check_bits(s.bits)?;
            check_range(s.range)?;
            if s.op_inputs().iter().any(|&id| id > step) {
                return Err(fail("a step takes what does not stand before it"));
            }
            total = total.saturating_add(count);
            places = self.check_step(s, count)?.saturating_add(places);
            if total > MAX_NUMBERS || places > MAX_PLACES {
                return Err(fail("its values are too many"));
            }
        }
        self.check_output()
    }

    /// Checks a step and returns how many places its windows have.
    fn check_step(&self, s: &FixedStep, count: usize) -> Result<usize, ModelError> {
        match &s.op {
            FixedOp::Linear(linear) => self.check_linear(linear, s).map(|()| 0),
            FixedOp::Clamp { terms, low, span, bits } => {
                let fits = terms.iter().all(|&t| self.shape(t).iter().product::<usize>() == count);
                let wide = s.bits.saturating_sub(*bits) <= MAX_LIFT;
                if terms.is_empty() || !fits || !(2..32).contains(bits) || *span >= 1 << 31 || !wide {
                    return Err(fail("a clamp that nothing can compute"));
                }
                check_range([*low, low.saturating_add(i64::from(*span))]).map(|()| 0)
            }
            FixedOp::Max { input, pool } => {
                // Differences of two values have one bit more than the values.
                let most = s.range[1] - s.range[0];
                if s.bits < 2 || most >= 1 << (s.bits - 1) {
                    return Err(fail("a maximum of values that are too wide for it"));
                }
                self.check_pool(*input, pool, s, Op::MaxPool(pool.clone()))
            }
            FixedOp::Sum { input, pool } => self.check_pool(*input, pool, s, Op::AveragePool(pool.clone())),
            FixedOp::Affine { input, shift, add } => {
                let fits = add.len() == count && self.shape(*input).iter().product::<usize>() == count;
                match fits && *shift < 32 {
                    true => Ok(0),
                    false => Err(fail("a sum of numbers that are not there")),
                }
            }
            FixedOp::Copy { inputs, places } => {
                let all: usize = inputs.iter().map(|&i| self.shape(i).iter().product::<usize>()).sum();
                match places.len() == count && places.iter().all(|&p| p as usize <= all) {
                    true => Ok(0),
                    false => Err(fail("a copy of places that are not there")),
                }
            }
        }
    }

    fn check_linear(&self, linear: &FixedLinear, s: &FixedStep) -> Result<(), ModelError> {
        let input = self.shape(linear.input);
        let is_bare = match &linear.op {
            Op::Conv(conv) => conv.weight.is_empty() && conv.bias.is_empty(),
            Op::Gemm(gemm) => gemm.weight.is_empty() && gemm.bias.is_empty(),
            _ => false,
        };
        if !is_bare {
            return Err(fail("a layer that is none, or that has its weights with it"));
        }
        // Layers may take a value in another shape of the same numbers.
        let same = numbers(&linear.input_shape)? == input.iter().product::<usize>();
        let output = infer(&linear.op, &[&linear.input_shape]).map_err(ModelError::Outline)?;
        let fits = output == linear.output_shape && numbers(&output)? == numbers(&s.shape)?;
        if !same || !fits || linear.drop >= linear.bits || linear.bits > 32 || linear.drop > 30 {
            return Err(fail("a layer that nothing can compute"));
        }
        let weights = linear.op.linear().map_or(0, |l| l.fan_in().saturating_mul(l.outputs()));
        match weights <= MAX_NUMBERS {
            true => Ok(()),
            false => Err(fail("a layer with too many weights")),
        }
    }

    fn check_pool(&self, input: FixedId, pool: &Pool, s: &FixedStep, op: Op) -> Result<usize, ModelError> {
        let shape = infer(&op, &[self.shape(input)]).map_err(ModelError::Outline)?;
        let [height, width] = pool.kernel;
        let places = numbers(&shape)?.saturating_mul(height).saturating_mul(width);
        match shape == s.shape && places <= MAX_PLACES {
            true => Ok(places),
            false => Err(fail("a pool that nothing can compute")),
        }
    }

    fn check_output(&self) -> Result<(), ModelError> {
        let FixedOutput { source, drop, bits, classes, scale, ref shape } = self.output;
        let n = numbers(shape)?;
        if source > self.steps.len() {
            return Err(fail("an output that no step has"));
        }
        check_bits(bits)?;
        // The number of a class stands for all numbers.
        let sent = match classes {
            Some(classes) if classes as usize == n && classes >= 2 && bits >= bits_of_class(classes) && drop == 0 => 1,
            Some(_) => return Err(fail("classes that its output does not have")),
            None => n,
        };
        if sent != self.shape(source).iter().product::<usize>() {
            return Err(fail("an output that no step has"));
        }
        let of_layer = source.checked_sub(1).and_then(|step| match &self.steps[step].op {
            FixedOp::Linear(linear) => Some(linear.bits - linear.drop),
            _ => None,
        });
        // The last layer's sums are the output as they are; another value is rounded first.
        let wide = match of_layer {
            Some(most) => drop == 0 && bits <= most,
            None => drop < 32 && bits + drop <= 32,
        };
        check_scale(scale)?;
        if !wide || self.tail.input_shape() != shape {
            return Err(fail("an output of bits that nothing has"));
        }
        Ok(())
    }
}

impl FixedStep {
    /// What it takes.
    fn op_inputs(&self) -> Vec<FixedId> {
        match &self.op {
            FixedOp::Linear(FixedLinear { input, .. })
            | FixedOp::Max { input, .. }
            | FixedOp::Affine { input, .. }
            | FixedOp::Sum { input, .. } => vec![*input],
            FixedOp::Clamp { terms, .. } => terms.clone(),
            FixedOp::Copy { inputs, .. } => inputs.clone(),
        }
    }
}

/// Numbers of a shape, from 1 up to the most that is allowed.
fn numbers(shape: &[usize]) -> Result<usize, ModelError> {
    let product = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    match product.filter(|n| (1..=MAX_NUMBERS).contains(n) && shape.len() <= 8) {
        Some(n) => Ok(n),
        None => Err(fail("a value that is empty or too large")),
    }
}

fn check_bits(bits: u32) -> Result<(), ModelError> {
    match (1..=32).contains(&bits) {
        true => Ok(()),
        false => Err(fail("a modulus that is no word's")),
    }
}

fn check_range([low, high]: [i64; 2]) -> Result<(), ModelError> {
    match low <= high && low >= -MAX_RANGE && high <= MAX_RANGE {
        true => Ok(()),
        false => Err(fail("a range that nothing has")),
    }
}

fn check_scale(scale: f64) -> Result<(), ModelError> {
    match scale.is_finite() && scale > 0.0 {
        true => Ok(()),
        false => Err(fail("a scale that is no positive number")),
    }
}
