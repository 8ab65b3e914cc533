//! Client and guest for browsers, in WebAssembly. They do no input or output: whoever has them
//! brings files, carries messages (`fetch`, WebSockets), stores what must outlast a crash, and
//! draws what comes of it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`keyed`] | a client of the keyed mode |
//! | [`guest`] | a guest |
//! | [`input`] | image files as inputs |
//! | [`file`] | a page's file, read piece by piece |
//! | [`failure`] | errors |
//! | `plain` | a network in the clear, for a benchmark: behind a feature |
#![forbid(unsafe_code)]

mod failure;
mod file;
mod guest;
mod input;
mod keyed;
#[cfg(feature = "plain")]
mod plain;

pub use guest::{Guest, batch_of};
pub use keyed::KeyedClient;
#[cfg(feature = "plain")]
pub use plain::Plain;
