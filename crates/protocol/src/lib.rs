//! Messages and roles, without input or output: bytes go in and come out, somebody else carries them.
//!
//! | module | role |
//! |---|---|
//! | [`owner`] | chooses rings and layouts, seals a network: server bytes and a client model |
//! | [`mod@forecast`] | what a plan is going to open, save and cost, without sealing anything |
//! | [`client`] | walks the network for one image: masks, checks, unmasks, runs the non-linear part |
//! | [`server`] | applies operators to masked inputs; holds only the sealed bytes |
//! | [`bundle`] | the client's part as a file's content |
//! | [`message`] | what travels between client and server |
//! | [`awake`] | the threads that either side's parallel steps run on |
#![forbid(unsafe_code)]

pub mod awake;
pub mod bundle;
pub mod client;
pub mod error;
pub mod forecast;
pub mod message;
pub mod owner;
pub mod server;

pub use bundle::{LayerSummary, StoredClient};
pub use client::{Action, ClientModel, Inference, PreparedImage};
pub use error::ProtocolError;
pub use forecast::{LayerForecast, forecast, row_savings};
pub use owner::{
    Blueprint, ClosedClient, Estimate, LayerReport, OtherAnswer, Sealed, SealedTo, answer_kind, seal, seal_into,
    seal_to,
};
pub use server::Server;

#[cfg(test)]
mod tests;
