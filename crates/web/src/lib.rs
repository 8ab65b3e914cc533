//! The client of the keyed mode for browsers, in WebAssembly. It does no input or output: whoever
//! has it brings the bundle, carries requests (`fetch`), and draws what comes of it.
#![forbid(unsafe_code)]

mod keyed;

pub use keyed::KeyedClient;
