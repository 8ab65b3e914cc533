//! ONNX files to [`crate::Graph`].
//!
//! The messages are declared here with `prost`'s derive, a subset of `onnx.proto` (fields that are not listed are skipped
//! by the decoder). A full inference framework would bring a hundred crates for what is, for our operators, a few
//! hundred lines.

mod import;
pub(crate) mod proto;

pub use import::import;
