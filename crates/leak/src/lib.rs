//! Leak plans: which weights *may* be open. No keys here, and no decision what sealing does with a
//! permission.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | one permission per weight of every linear layer |
//! | [`mod@file`] | plans as JSON files |
//! | [`policy`] | how a plan is made: an order and a unit |
#![forbid(unsafe_code)]

pub mod error;
pub mod file;
pub mod plan;
pub mod policy;

pub use error::LeakError;
pub use file::{Evidence, Origin, PlanFile};
pub use plan::Plan;
pub use policy::{Ground, Order, Policy, Unit, listed_layers, of_layers, random_rows};
