//! What open weights give away.
//!
//! | module | what it holds |
//! |---|---|
//! | [`victim`] | the network under attack, and what the worst-case attacker is granted |
//! | [`fill`] | guesses for hidden weights |
//! | [`network`] | a graph as a differentiable function |
//! | [`train`] | training to a plateau, the same for all |
//! | [`attack`] | the attackers |
//! | [`command`] | attackers that somebody else wrote |
//! | [`grid`] | cells: attacker, budget, seed, plan |
//! | [`pool`] | cells on several threads |
//! | [`run`] | a run in a folder, resumable |
//! | [`planner`] | the cheapest plan within a bound |
//! | [`summary`], [`findings`] | what the cells say together |
//! | [`report`], [`svg`](mod@svg) | the page with the curves |
//! | [`sensitivity`] | what the sensitive policies order by |
#![forbid(unsafe_code)]

pub mod attack;
pub mod command;
pub mod cost;
pub mod error;
pub mod fill;
pub mod findings;
pub mod grid;
pub mod network;
pub mod planner;
pub mod pool;
pub mod report;
pub mod results;
pub mod run;
pub mod sensitivity;
pub mod summary;
pub mod svg;
pub mod train;
pub mod verdict;
pub mod victim;
pub mod words;

pub use error::AuditError;
pub use findings::Findings;
pub use grid::{Cell, Grid, Source};
