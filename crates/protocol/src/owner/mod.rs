//! The owner: chooses a ring and a layout for every linear layer, and seals the network.
//!
//! | module | what it holds |
//! |---|---|
//! | [`choose`] | the cheapest ring and layout of a layer: [`Blueprint`], and [`Estimate`] for shapes alone |
//! | [`build`] | which rows of a layer a plan leaves open: `PlannedOperator` |
//! | [`seal`] | [`Owner`], who seals a network into memory, into a sink, or to be stored |
//! | [`report`] | [`OperatorReport`]: what sealing did |

pub mod build;
pub mod choose;
pub mod report;
pub mod seal;

pub use choose::{Blueprint, Estimate};
pub use report::OperatorReport;
pub use seal::{ClosedClient, Owner, Sealed, SealedTo};
