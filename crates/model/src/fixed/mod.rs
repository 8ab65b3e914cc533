//! Fixed-point form of a network, for guests: integers whose scales stand in the weights.
//!
//! Every value is an integer, and `value = number * scale`. A layer multiplies by `W' = round(W *
//! scale out / scale in * 2^drop)`, and the `drop` lowest bits of its sums go: what is left has the
//! scale of the output. Clamps bound every value that another layer takes, so that exact ranges of
//! all sums follow from the weights. From these come the moduli: nothing ever wraps.
//!
//! | module | what it holds |
//! |---|---|
//! | `lower` | graphs to steps: sums of layers, clamps, maxima, copies |
//! | `draft` | steps before they have numbers |
//! | `ends` | what is computed in floats before and behind the steps |
//! | `scale` | which values share a scale, and which scale |
//! | `bound` | exact ranges of sums, and the moduli that hold them |
//! | `stored` | networks without weights as bytes, and the checks that make them safe to run |
//! | `reference` | the integer reference, with a ticket's roundings |

mod bound;
mod draft;
mod ends;
mod lower;
pub mod reference;
mod scale;
mod stored;

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::op::{Op, Pool};
use crate::tensor::Tensor;
use crate::{ModelError, nonlinear};

/// Names a value: 0 is the input, `i + 1` the result of step `i`.
pub type FixedId = usize;

/// What a guest learns of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outputs {
    /// All numbers of it.
    #[default]
    All,
    /// Which of them is the largest, and nothing else.
    Largest,
}

/// How a network becomes fixed-point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedConfig {
    /// Bits of a clamped value.
    pub activation_bits: u32,
    /// Bits of an output that the guest learns.
    pub output_bits: u32,
    /// What the guest learns of the output.
    pub outputs: Outputs,
}

impl Default for FixedConfig {
    fn default() -> Self {
        Self { activation_bits: 9, output_bits: 16, outputs: Outputs::All }
    }
}

/// A linear layer in integers.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FixedLinear {
    /// What it is applied to.
    pub input: FixedId,
    /// The layer without its weights.
    pub op: Op,
    /// Shape of its input.
    pub input_shape: Vec<usize>,
    /// Shape of its output.
    pub output_shape: Vec<usize>,
    /// Weights in the order of the graph; empty in what [`FixedNetwork::from_bytes`] reads.
    #[serde(skip)]
    pub weights: Vec<i32>,
    /// One for every output channel, in units of the sums; half of what is dropped is in it, which
    /// rounds to the nearest.
    #[serde(skip)]
    pub bias: Vec<i64>,
    /// Bits that are dropped of a sum.
    pub drop: u32,
    /// Bits of the modulus of its sums.
    pub bits: u32,
    /// Which of the graph's linear layers it is; `None` for one that scales channels.
    pub layer: Option<usize>,
}

impl std::fmt::Debug for FixedLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FixedLinear").field("op", &self.op.name()).field("bits", &self.bits).finish_non_exhaustive()
    }
}

impl FixedLinear {
    /// Rows, one for each output channel, and the weights of each.
    pub fn size(&self) -> (usize, usize) {
        self.op.linear().map_or((0, 0), |l| (l.outputs(), l.fan_in()))
    }
}

/// What a step computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FixedOp {
    /// Sums of products, their lowest bits dropped. Only a clamp or the output may take them.
    Linear(FixedLinear),
    /// `min(max(sum of the terms, low), low + span)`.
    Clamp {
        /// What is summed: linear layers and other values of one scale.
        terms: Vec<FixedId>,
        /// Smallest result.
        low: i64,
        /// Largest result, from `low` on.
        span: u32,
        /// Bits of the modulus of the sum.
        bits: u32,
    },
    /// Largest value of a window.
    Max {
        /// Of which value.
        input: FixedId,
        /// The window.
        pool: Pool,
    },
    /// Sum of a window.
    Sum {
        /// Of which value.
        input: FixedId,
        /// The window.
        pool: Pool,
    },
    /// `value * 2^shift + add`, number by number.
    Affine {
        /// Of which value.
        input: FixedId,
        /// By how many bits it is shifted up.
        shift: u32,
        /// What is added to each number.
        add: Vec<u32>,
    },
    /// Elements of other values in another order.
    Copy {
        /// The values, one after the other.
        inputs: Vec<FixedId>,
        /// For every place of the result one more than the place of its source, or 0 for a zero.
        places: Vec<u32>,
    },
}

/// A step with what is known of its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FixedStep {
    /// Name of the node that it comes from.
    pub name: String,
    /// What it computes.
    pub op: FixedOp,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Smallest and largest result.
    pub range: [i64; 2],
    /// Bits of the modulus that its users need; of a linear layer those of a term.
    pub bits: u32,
}

/// The integers that the network takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FixedInput {
    /// Units of a number.
    pub scale: f64,
    /// Smallest and largest integer.
    pub range: [i64; 2],
    /// Bits of the modulus that its users need.
    pub bits: u32,
}

/// What the guest learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FixedOutput {
    /// The value.
    pub source: FixedId,
    /// Bits that are dropped of it, beside those that a linear layer drops.
    pub drop: u32,
    /// Bits of an output, its sign among them; the number of a class has none.
    pub bits: u32,
    /// How many classes there are, if the guest learns the number of one alone, counted from the
    /// last class.
    pub classes: Option<u32>,
    /// Units of a number.
    pub scale: f64,
    /// Shape of the output.
    pub shape: Vec<usize>,
}

/// A network in fixed-point numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedNetwork {
    /// What the guest computes of its image in floats: scales that the network begins with.
    pub head: Graph,
    /// How the head's output becomes integers.
    pub input: FixedInput,
    /// In an order in which they can run.
    pub steps: Vec<FixedStep>,
    /// What the guest learns.
    pub output: FixedOutput,
    /// What the guest computes of the output in floats: softmax and the like.
    pub tail: Graph,
}

impl FixedNetwork {
    /// Calibrates on images; `range` is the smallest and largest number of an input.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] with every node that guests cannot run, why, and what to do;
    /// [`ModelError::NoCalibration`] without images; [`ModelError::Shape`] if one does not fit.
    pub fn calibrate(
        graph: &Graph,
        config: FixedConfig,
        images: &[Tensor],
        range: Option<(f32, f32)>,
    ) -> Result<Self, ModelError> {
        if images.is_empty() {
            return Err(ModelError::NoCalibration);
        }
        let draft = lower::lower(graph, config.outputs)?;
        let scales = scale::choose(graph, &draft, config, images, range)?;
        bound::fix(graph, draft, &scales, config)
    }

    /// The integers of an image.
    ///
    /// # Errors
    /// [`ModelError::Shape`] for an image of the wrong shape.
    pub fn quantise(&self, image: &Tensor) -> Result<Vec<i32>, ModelError> {
        let outputs = crate::execution::run(&self.head, image.clone(), |node, _| Err(ModelError::not_linear(node)))?;
        let [low, high] = self.input.range.map(|v| v as f64);
        let integer = |&x: &f32| (f64::from(x) * self.input.scale).round().clamp(low, high) as i32;
        Ok(outputs[0].data.iter().map(integer).collect())
    }

    /// The network's output as numbers, of the integers that the guest learns.
    ///
    /// # Errors
    /// [`ModelError::Shape`] for another number of integers.
    pub fn numbers(&self, output: &[i64]) -> Result<Tensor, ModelError> {
        let data = match (self.output.classes, output) {
            // One number instead of many: that class for certain.
            (Some(classes), &[from_last]) => {
                let class = i64::from(classes) - 1 - from_last;
                (0..i64::from(classes)).map(|i| if i == class { CERTAIN } else { 0.0 }).collect()
            }
            _ => output.iter().map(|y| (*y as f64 / self.output.scale) as f32).collect(),
        };
        let mut value = Tensor::new("the guest's output", self.output.shape.clone(), data)?;
        for node in self.tail.nodes() {
            value = nonlinear::apply(node, &[&value])?;
        }
        Ok(value)
    }

    /// The linear layer of a step, if it is one.
    pub fn layer(&self, step: usize) -> Option<&FixedLinear> {
        match &self.steps.get(step)?.op {
            FixedOp::Linear(linear) => Some(linear),
            _ => None,
        }
    }

    /// Shape of a value.
    pub fn shape(&self, id: FixedId) -> &[usize] {
        match id.checked_sub(1) {
            None => self.head.shape(self.head.output()),
            Some(step) => &self.steps[step].shape,
        }
    }

    /// Bits that an inference tells the guest.
    pub fn output_bits(&self) -> usize {
        let numbers = if self.output.classes.is_some() { 1 } else { self.output.shape.iter().product() };
        numbers * self.output.bits as usize
    }
}

/// The number that stands for a class of which the guest knows nothing but that it is the largest.
const CERTAIN: f32 = 100.0;
