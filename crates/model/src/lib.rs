//! Graphs of CNNs: reads them from ONNX, checks and quantises them, and runs them in the clear in
//! two ways.
//!
//! | module | what it holds |
//! |---|---|
//! | [`op`] | operators |
//! | [`graph`], [`shape_inference`] | nodes in order, shapes of their outputs |
//! | [`onnx`] | ONNX files to graphs, batch norm folded |
//! | [`execution`] | walks a graph and stops at every linear layer; everybody who runs one uses it |
//! | [`nonlinear`] | what the client computes in the clear, in f32 |
//! | [`preprocess`] | pixels to inputs |
//! | [`float`](mod@float) | the float reference |
//! | [`quant`] | calibration, quantisation, rounding |
//! | [`outline`] | a quantised network without its weights: what the client holds |
//! | [`fixed`] | fixed-point form for guests, and its integer reference |
//! | [`integer`] | the integer reference: plain convolution, shares no code with packing or masking |
//!
//! No keys, no ring, no randomness in this crate.
#![forbid(unsafe_code)]

mod branchless;
pub mod error;
pub mod execution;
pub mod fixed;
pub mod float;
pub mod graph;
pub mod integer;
pub mod linear;
pub mod nonlinear;
pub mod onnx;
pub mod op;
pub mod outline;
pub mod preprocess;
pub mod quant;
pub mod shape_inference;
pub mod tensor;
mod training_range;

pub use error::{ModelError, Offence};
pub use execution::{Execution, Step};
pub use fixed::{FixedConfig, FixedNetwork};
pub use graph::{Graph, Node};
pub use op::{
    Activation, Arithmetic, Constant, Conv, Gemm, Linear, Op, Pool, ReduceKind, Resample, ResampleAxis, Select,
    SelectKind,
};
pub use outline::Outline;
pub use preprocess::{Colours, ImageLayout, Preprocess, Resize};
pub use quant::{QuantConfig, QuantLayer, QuantModel, Scaling};
pub use tensor::Tensor;
pub use training_range::FirstActivations;

#[cfg(test)]
mod tests;
