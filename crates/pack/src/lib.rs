//! Lowers linear layers to sparse ring matrices: *packed outputs = W x packed inputs*.
//!
//! | module | what it holds |
//! |---|---|
//! | [`conv`] | convolutions: tiles of channels, rows of filters, blocks of groups, strips of planes |
//! | [`fc`] | fully connected layers: runs of inputs, runs of outputs |
//! | [`layout`] | either of them behind one type |
//! | [`costs`] | what a layer costs on a machine and a link |
//!
//! A layout says where inputs, weights and outputs stand in ring elements. [`conv`] and [`fc`] show
//! why no other product reaches a wanted coefficient. No keys, no ring arithmetic, no randomness
//! here.
#![forbid(unsafe_code)]

pub mod conv;
pub mod costs;
pub mod error;
pub mod fc;
pub mod layout;

pub use conv::{ConvChoice, ConvLayout};
pub use costs::{ClientTerms, Costs, Link, OperatorCounts, Prediction, ServerTerms, Terms, Work};
pub use error::PackError;
pub use fc::FcLayout;
pub use layout::{Layout, LayoutChoice, Tile};

#[cfg(test)]
mod tests;
