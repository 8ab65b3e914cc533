//! The guests' mode: commands about tickets, ways to carry messages, and what a network takes.

pub(crate) mod commands;
pub(crate) mod deal;
pub(crate) mod forecast;
pub(crate) mod layers;
mod listen;
pub(crate) mod ways;
