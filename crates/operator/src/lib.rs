//! The server's side: writes and reads sealed operators as bytes, and applies them to masked
//! inputs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`encode`] | the owner writes sealed operators: hidden rows as packed residues, open rows as small integers |
//! | [`load`] | the server reads them into the order in which the backend runs |
//! | [`answer`] | masked tiles in, wanted coefficients out |
//!
//! This crate never sees a secret: no scale, bias or key reaches it, and the plaintext modulus,
//! which the parameters in a [`jali_mask::SealedHead`] hold, is not written.
#![forbid(unsafe_code)]

pub mod answer;
pub mod encode;
pub mod error;
pub mod load;

pub use encode::{ModelWriter, encode_model};
pub use error::OperatorError;
pub use load::{Operator, OperatorSummary, ServerModel};

#[cfg(test)]
mod tests;
