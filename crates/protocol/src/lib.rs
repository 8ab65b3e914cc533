//! Messages and roles, without input or output: bytes go in and come out, somebody else carries
//! them.
//!
//! | module | role |
//! |---|---|
//! | [`owner`] | chooses rings and layouts, seals a network: server bytes and a client model |
//! | [`mod@forecast`] | what a plan is going to open, save and cost, without sealing anything |
//! | [`client`] | what a client holds: keys and layouts |
//! | [`inference`] | walks the network for a batch: masks, checks, unmasks, runs the non-linear part |
//! | [`server`] | applies operators to masked inputs; holds only the sealed bytes |
//! | [`bundle`] | the client's part as a file's content |
//! | [`message`] | what travels between client and server |
//! | [`thread_pool`] | the threads that either side's parallel steps run on |
#![forbid(unsafe_code)]

pub mod bundle;
pub mod client;
pub mod error;
pub mod forecast;
pub mod inference;
pub mod message;
pub mod owner;
pub mod server;
pub mod thread_pool;

pub use bundle::{KeySummary, StoredClient};
pub use client::{ClientModel, ClientOperator};
pub use error::ProtocolError;
pub use forecast::{OperatorForecast, forecast, row_savings};
pub use inference::{Action, Inference, Trace};
pub use owner::choose::LayerShape;
pub use owner::{Blueprint, ClosedClient, Estimate, OperatorReport, Owner, Sealed, SealedTo};
pub use server::Server;

#[cfg(test)]
mod tests;
