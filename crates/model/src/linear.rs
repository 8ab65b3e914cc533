//! Linear layers, which the server computes.

use serde::{Deserialize, Serialize};

/// A convolution, weights `[out][in / groups][kh][kw]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Weights.
    pub weight: Vec<f32>,
    /// One per output channel.
    pub bias: Vec<f32>,
    /// Output channels.
    pub filters: usize,
    /// Input channels of one group.
    pub channels: usize,
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal.
    pub stride: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Vertical and horizontal.
    pub dilation: [usize; 2],
    /// Groups.
    pub groups: usize,
}

/// A fully connected layer, weights `[outputs][inputs]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gemm {
    /// Weights.
    pub weight: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// A linear layer, whichever kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Linear<'a> {
    /// Convolution.
    Conv(&'a Conv),
    /// Fully connected layer.
    Gemm(&'a Gemm),
}

impl<'a> Linear<'a> {
    /// Returns the weights, one output after the other.
    pub fn weights(&self) -> &'a [f32] {
        match self {
            Self::Conv(c) => &c.weight,
            Self::Gemm(g) => &g.weight,
        }
    }

    /// Returns the biases, one per output channel.
    pub fn bias(&self) -> &'a [f32] {
        match self {
            Self::Conv(c) => &c.bias,
            Self::Gemm(g) => &g.bias,
        }
    }

    /// Returns the number of output channels or features.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Conv(c) => c.filters,
            Self::Gemm(g) => g.outputs,
        }
    }

    /// Returns the number of products of one output value.
    pub fn fan_in(&self) -> usize {
        match self {
            Self::Conv(c) => c.channels * c.kernel[0] * c.kernel[1],
            Self::Gemm(g) => g.inputs,
        }
    }

    /// Returns the kind of layer in words: `conv3x3`, `depthwise3x3` or `fc`.
    pub fn kind(&self) -> String {
        match self {
            Self::Conv(c) if c.groups > 1 && c.channels == 1 => format!("depthwise{}x{}", c.kernel[0], c.kernel[1]),
            Self::Conv(c) => format!("conv{}x{}", c.kernel[0], c.kernel[1]),
            Self::Gemm(_) => "fc".into(),
        }
    }
}
