//! ONNX files to [`crate::Graph`].
//!
//! The messages are declared here with `prost`'s derive, a subset of `onnx.proto` (fields that are not listed are skipped
//! by the decoder). `docs/onnx.md` says why no inference framework reads them.
//!
//! | module | what it holds |
//! |---|---|
//! | `guard` | a look at the bytes before they are decoded |
//! | `constant` | weights, shapes, and what follows from constants alone |
//! | `import` | the file: inputs, outputs, the order of nodes, a list of what is not supported |
//! | `nodes`, `shapes` | node by node: what computes, and what only moves values |

mod constant;
mod guard;
mod import;
mod nodes;
pub(crate) mod proto;
mod shapes;

pub use constant::{External, ReadExternal};
pub use import::{Imported, import, import_with};

#[cfg(test)]
mod tests;
