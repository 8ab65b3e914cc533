//! The guests' mode: commands about tickets, ways to carry messages, and what a network takes.

pub(crate) mod commands;
pub(crate) mod forecast;
pub(crate) mod layers;
pub(crate) mod ways;
