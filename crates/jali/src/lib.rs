//! Partially oblivious neural-network inference: an untrusted server runs the linear layers of a
//! trained CNN on masked inputs; the client, which holds the keys, runs the rest. The owner chooses
//! which weights are masked too. Results equal the quantised network's bit for bit; an inference
//! fails to do so with a probability below 2^-64.
//!
//! ```text
//!      owner                        client                           server (untrusted)
//!   trained network          keys; image in, answer out      sealed network, no key
//!        │ seal                      │                                    │
//!        ├── keys, biases, scales ─► │                                    │
//!        ├── hidden weights (masked), open weights (in the clear) ──────► │
//!        │             for every     │  ── the layer's inputs, masked ──► │
//!        │             linear layer: │  ◄─ sums of products, masked ───── │
//!        │                           │  checks, unmasks, bias, ReLU       │
//! ```
//!
//! # Three steps
//!
//! 1. A network becomes integers: [`Model::open`], [`Model::calibrate`].
//! 2. The owner seals it: [`Sealing`]. Rows of which a [`Plan`] allows every weight to be open stay
//!    open; all others are hidden. A row is the weights of one filter, or of the filters that share
//!    a place in a layout.
//! 3. A [`Client`] infers: with a server in this process ([`Sealed::in_process`]), over [`Http`],
//!    or over a [`Transport`] of your own.
//!
//! ```
//! use jali::{Network, Plan, Sealing};
//! # fn main() -> Result<(), jali::JaliError> {
//! let model = Network::Mnist.quantised(Default::default())?;
//! let sealed = Sealing::of(&model).plan(&Plan::hide_all(model.graph())).seal()?;
//! let mut client = sealed.in_process()?;
//! let sample = &Network::Mnist.dataset().bundled_test()?[0];
//! let answer = client.infer(&sample.image)?;
//! assert_eq!(answer.output().argmax(), sample.label);
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not for
//!
//! * Users who must not have the model: **whoever holds the client's keys can recover it.** For
//!   them there are [`guests`].
//! * Hiding how the network is built: shapes, layers and which rows are hidden are public.
//! * Saving the client work: it spends more time than the plain network takes.
//!
//! `SECURITY.md` in the repository states the threat model, the leakage and the argument for each
//! assumption.
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`], [`model_file`], [`network`] | networks from files, and the bundled ones |
//! | [`sealing`] | the owner's side |
//! | [`client`], [`answer`] | the client's side |
//! | [`transport`], [`http`] | ways to a server |
//! | [`guests`] | the other mode: users who must not have the model |
//! | [`bundle`] | sealed networks as files |
//! | [`calibration`] | the cost model of this machine |
//! | [`inspection`] | what will become of a model |
//! | [`memory`] | memory that a network needs, and the check against what is free |
//! | `serving` | what a server serves, from files (feature `http`) |
//! | [`error`], [`error_kind`] | everything that can go wrong |
//! | [`dataset`], [`image_file`], [`classes`] | samples, images as inputs, outputs as classes |
//! | [`files`], [`terminal_text`] | bounded reads and atomic writes; control characters escaped |
//! | [`parts`] | the crates below, for whoever builds something else of them |
#![forbid(unsafe_code)]

pub mod answer;
pub mod bundle;
pub mod calibration;
pub mod classes;
pub mod client;
#[cfg(feature = "bundled")]
pub mod dataset;
pub mod error;
pub mod error_kind;
pub mod files;
pub mod guests;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "images")]
pub mod image_file;
pub mod inspection;
pub mod memory;
pub mod model;
pub mod model_file;
#[cfg(feature = "bundled")]
pub mod network;
pub mod sealing;
#[cfg(feature = "http")]
pub mod serving;
pub mod terminal_text;
pub mod transport;

pub use answer::{Answer, BatchAnswer, OperatorRun, Traced};
pub use classes::Reading;
pub use client::{Client, OpenedClient, Opening};
#[cfg(feature = "bundled")]
pub use dataset::{Dataset, Records, Sample};
pub use error::JaliError;
pub use error_kind::ErrorKind;
#[cfg(feature = "http")]
pub use http::Http;
pub use jali_leak::{Origin, Plan, PlanFile, Policy};
pub use jali_model::{Graph, Outline, Preprocess, QuantConfig, QuantModel, Tensor};
pub use jali_pack::{Costs, Link};
pub use jali_protocol::{OperatorReport, Server};
pub use jali_ring::Backend;
pub use model::Model;
#[cfg(feature = "bundled")]
pub use network::Network;
pub use sealing::{Sealed, Sealing};
pub use transport::{Delivery, InProcess, Request, Transport};

/// The crates that this one is made of.
pub mod parts {
    pub use jali_bundle as bundle;
    pub use jali_guest as guest;
    pub use jali_leak as leak;
    pub use jali_mask as mask;
    pub use jali_model as model;
    #[cfg(feature = "http")]
    pub use jali_net as net;
    pub use jali_operator as operator;
    pub use jali_pack as pack;
    pub use jali_protocol as protocol;
    pub use jali_ring as ring;
    pub use jali_tickets as tickets;
}
