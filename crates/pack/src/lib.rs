//! Lowering of linear layers to sparse ring matrices: *packed outputs = W x packed inputs*.
//!
//! | module | what it holds |
//! |---|---|
//! | [`conv`] | convolutions: tiles of channels, rows of filters, blocks of groups, strips of planes |
//! | [`fc`] | fully connected layers: runs of inputs, runs of outputs |
//! | [`layout`] | either of them behind one type |
//! | [`columns`] | layers cut into parts that take some of the inputs each |
//! | [`costs`] | what a layer costs on a machine and a link |
//!
//! A layout says where inputs, weights and outputs stand in ring elements and why no other product reaches a wanted
//! coefficient. No keys, no ring arithmetic, no randomness here.
#![forbid(unsafe_code)]

pub mod columns;
pub mod conv;
pub mod costs;
pub mod error;
pub mod fc;
pub mod layout;

pub use columns::{Columns, Part};
pub use conv::{ConvChoice, ConvLayout};
pub use costs::{ANY_HINTS, Answer, Costs, LayerCounts, Link, Prediction, Work};
pub use error::PackError;
pub use fc::FcLayout;
pub use layout::{Choice, Layout, Tile, WantedPattern};

#[cfg(test)]
mod tests;
