//! ONNX files to [`crate::Graph`], and back.
//!
//! The messages are declared here with `prost`'s derive, a subset of `onnx.proto` (fields that are
//! not listed are skipped by the decoder). `docs/onnx.md` says why no inference framework reads
//! them.
//!
//! | module | what it holds |
//! |---|---|
//! | `guard` | a look at the bytes before they are decoded |
//! | `import` | the file: inputs, outputs, the order of nodes, a list of what is not supported |
//! | `importer` | what is known while nodes are read: values, constants, the batch dimension |
//! | `refusal` | why a node cannot be run, and what to do about it |
//! | `constant`, `fold*`, `evaluate` | weights; little programs over constants; whatever else depends on no input |
//! | `activation`, `linear`, `einsum`, `window`, `transposed`, `normalise`, `along` | node by node: what computes |
//! | `export` | the other way: a file of a network |
//! | `shapes`, `place`, `resize` | node by node: what only moves values |

mod activation;
mod along;
mod constant;
mod dims;
mod einsum;
mod evaluate;
mod export;
mod fold;
mod fold_arithmetic;
mod fold_places;
mod guard;
mod import;
mod importer;
mod linear;
mod normalise;
mod place;
pub(crate) mod proto;
mod reading;
mod refusal;
mod resize;
mod shapes;
mod transposed;
mod window;

pub use constant::{External, ReadExternal};
pub use export::export;
pub use import::{Imported, import, import_owned, import_with};

#[cfg(test)]
mod tests;
