//! Inference for guests: people who may use a model and must not have it.
//!
//! Every value of the network is known to both parties as `x + r` modulo a power of two. The mask
//! `r` is known to the owner alone, who deals *tickets* ahead of time: one for each inference.
//!
//! | module | what it holds |
//! |---|---|
//! | `backend` | loops compiled for several vector units |
//! | `bits` | planes of bits, and values packed side by side |
//! | `stream` | a party's randomness, in streams separate by type |
//! | `linear` | products of matrices and masked values, 32 bits |
//! | `winograd` | convolutions of three by three taps with fewer products |
//! | `gathering` | large products that several sessions ask for at a time |
//! | `gates` | clamps and maxima |
//! | `circuit` | what both parties compute, step by step; public |
//! | `cost` | gates, exchanges and bytes of a circuit |
//! | `setup` | which rows are hidden, which tables are dealt |
//! | `sealing` | what owner, server and guest hold of a network |
//! | `dealer`, `ticket` | tickets: how the owner makes them, how the guest reads them |
//! | `party`, `session` | the way through a circuit, message by message |
//! | `trace` | comparison with the reference, wire by wire |
#![deny(unsafe_code)]

pub mod backend;
mod bits;
pub mod circuit;
mod cost;
mod dealer;
mod error;
mod gates;
mod gathering;
pub mod linear;
mod party;
pub mod sealing;
mod session;
mod setup;
mod stream;
mod ticket;
mod trace;
mod winograd;

pub use backend::Backend;
pub use circuit::Circuit;
pub use cost::{Counts, Part};
pub use dealer::{Masks, deal, deal_traced};
pub use error::GuestError;
pub use jali_leak::Plan;

pub use sealing::{GuestModel, Original, OwnerModel, SealedForGuests, ServerModel, seal};
pub use session::{GuestSession, GuestStart, Output, Served, ServerSession, Turn};
pub use setup::{Hidden, Setup, Tables};
pub use stream::StreamKey;
pub use ticket::GuestTicket;
pub use trace::{Difference, Trace, difference};

#[cfg(test)]
mod tests;
