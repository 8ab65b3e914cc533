//! CNN graphs: read from ONNX, checked, quantised, and run in the clear in two ways.
//!
//! | module | what it holds |
//! |---|---|
//! | [`graph`] | nodes, operators, shape inference |
//! | [`onnx`] | ONNX files to graphs, batch norm folded |
//! | [`execution`] | walks a graph and stops at every linear layer; everybody who runs one uses it |
//! | [`nonlinear`] | what the client computes in the clear, in f32 |
//! | [`float`](mod@float) | the float reference |
//! | [`quant`] | calibration, quantisation, rounding |
//! | [`outline`] | a quantised network without its weights: what the client holds |
//! | [`integer`] | the integer reference: plain convolution, shares no code with packing or masking |
//!
//! No keys, no ring, no randomness in this crate.
#![forbid(unsafe_code)]

pub mod error;
pub mod execution;
pub mod float;
pub mod graph;
pub mod integer;
pub mod nonlinear;
pub mod onnx;
pub mod outline;
pub mod quant;
pub mod tensor;

pub use error::ModelError;
pub use execution::{Execution, Step};
pub use graph::{Conv, Gemm, Graph, Linear, Node, Op, Pool};
pub use outline::Outline;
pub use quant::{QuantConfig, QuantLayer, QuantModel, Scaling};
pub use tensor::Tensor;

#[cfg(test)]
mod tests;
