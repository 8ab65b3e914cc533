//! Carries the protocol over HTTP/1.1, with paths named after the Open Inference Protocol. Nothing
//! else that is part of the product opens sockets.
//!
//! | method and path | what it gives |
//! |---|---|
//! | `GET /v2/health/live`, `/v2/health/ready` | 200, or 503 while stopping |
//! | `GET /v2` | name and version |
//! | `GET /v2/models/{model}` | metadata as JSON: operators with their shapes |
//! | `GET /v2/models/{model}/ready` | 200 if it is served |
//! | `POST /v2/models/{model}/operators/{index}` | a request of [`jali_protocol::message`] in, its answer out |
//! | `GET /v2/models/{model}/operators/{index}/hints` | the operator's hints |
//! | `GET /v2/models/{model}/guests` | a WebSocket: [`guests`] |
//! | `POST /v2/batches/{batch}/tickets` | a block of tickets, from an owner: [`dealing`] |
//! | `GET /metrics` | counters for Prometheus |
//! | `GET` anything else | a file of [`pages`], if there are any |
//!
//! `{model}` is the sealed model's public id in hexadecimal digits. The server keeps nothing
//! between requests, but for which tickets of guests are used.
//!
//! | module | what it holds |
//! |---|---|
//! | `connections` | places, and how long a connection may wait or take |
//! | [`server`] | sockets, TLS, limits, graceful stop |
//! | [`app`] | the paths above |
//! | `answers` | refusals, and metadata as JSON |
//! | [`budget`] | memory that requests may take together |
//! | `compute` | work on the computing threads, and answers that give their memory back |
//! | [`auth`] | bearer tokens |
//! | [`guests`] | inferences of guests |
//! | [`dealing`] | tickets for guests, from their owner |
//! | [`metrics`] | counters |
//! | [`pages`] | static files for browsers, and other origins' pages |
//! | `pem` | certificates and keys as files |
//! | `target` | which server a URL names |
//! | [`client`] | requests to a server |
#![forbid(unsafe_code)]

mod answers;
pub mod app;
pub mod auth;
pub mod budget;
pub mod client;
mod compute;
mod connections;
pub mod dealing;
pub mod error;
pub mod guests;
pub mod metrics;
pub mod pages;
mod pem;
pub mod server;
mod target;

pub use auth::Tokens;
pub use client::{Client, ClientConfig};
pub use error::NetError;
pub use pages::{PageOrigin, Pages};
pub use server::{Config, Running, Signal, TlsFiles, wait_for_signals};

/// Returns the name of a model in paths: its public id in hexadecimal digits.
pub fn model_name(id: [u8; 16]) -> String {
    jali_bundle::hex(&id)
}

/// Returns the path of a model's operator; its hints are at `/hints` behind that.
pub fn operator_path(model: &str, operator: usize) -> String {
    format!("/v2/models/{model}/operators/{operator}")
}
