//! Steps before they have numbers.

use super::FixedId;
use crate::graph::{Graph, ValueId};
use crate::op::{Conv, Pool};

/// Where a layer's weights are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Weights {
    /// In this node, which is this linear layer of the graph.
    Node {
        /// The node.
        node: usize,
        /// Which of the linear layers.
        layer: usize,
    },
    /// Here: one product and one summand for each channel.
    Scaling(Conv),
}

/// Smallest and largest result of a clamp, in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bounds {
    /// From 0 up: ReLU.
    Positive,
    /// As calibration sees it.
    Seen,
    /// As calibration sees it, in finer steps: what is compared at the end.
    Fine,
    /// As the node says.
    Given {
        /// Smallest.
        low: f32,
        /// Largest.
        high: f32,
    },
}

/// A step without numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DraftOp {
    Linear {
        input: FixedId,
        weights: Weights,
        input_shape: Vec<usize>,
        more_bias: Vec<f32>,
    },
    /// `seen` is the value of the graph that the result stands for.
    Clamp {
        terms: Vec<FixedId>,
        bounds: Bounds,
        seen: ValueId,
    },
    Max {
        input: FixedId,
        pool: Pool,
    },
    Sum {
        input: FixedId,
        pool: Pool,
        count: usize,
    },
    Copy {
        inputs: Vec<FixedId>,
        places: Vec<u32>,
    },
    Affine {
        input: FixedId,
        shift: u32,
        add: Vec<u32>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct DraftStep {
    pub(super) name: String,
    pub(super) op: DraftOp,
    pub(super) shape: Vec<usize>,
}

/// A network without numbers.
pub(super) struct Draft {
    /// Computed in floats before everything else; its output is the integers' input.
    pub(super) head: Graph,
    /// The value of the graph that the input stands for.
    pub(super) input: ValueId,
    pub(super) steps: Vec<DraftStep>,
    /// The output.
    pub(super) output: FixedId,
    /// How many classes there are, if only the number of one is the output.
    pub(super) classes: Option<u32>,
    /// Computed in floats behind everything else.
    pub(super) tail: Graph,
}
