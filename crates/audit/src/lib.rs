//! What open weights give away.
//!
//! | module | what it holds |
//! |---|---|
//! | [`victim`] | the network under attack, and what the worst-case attacker is granted |
//! | [`fill`] | guesses for hidden weights |
//! | [`network`] | a graph as a differentiable function |
//! | [`train`] | training to a plateau, the same for all |
//! | [`attack`] | the attackers |
//! | [`grid`] | cells: attacker, budget, seed, plan |
//! | [`pool`] | cells on several threads |
//! | [`run`] | a run in a folder, resumable |
//! | [`ground`], [`sensitivity`] | what policies order by |
#![forbid(unsafe_code)]

pub mod attack;
pub mod error;
pub mod fill;
pub mod grid;
pub mod ground;
pub mod network;
pub mod pool;
pub mod run;
pub mod sensitivity;
pub mod train;
pub mod victim;

pub use error::AuditError;
pub use grid::{Cell, Grid, Source};
