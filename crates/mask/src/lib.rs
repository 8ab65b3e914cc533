//! The masked product: both operands of a linear layer under ring-LWE, one modular multiplication
//! per coefficient for the server, exact integers for the client.
//!
//! With one public vector `a` per operator, plaintext modulus `t = 2^k`, fresh `s`, `e` per
//! request:
//!
//! ```text
//! sealed once   W~[o][i] = W[o][i] - a[i]*s'[o] + t*e'[o][i]    hidden row, own secret s'[o]   (seal)
//!               W~[o][i] = W[o][i]                              open row
//!               H[o] = sum_i W~[o][i]*a[i]                      hint
//! request       x~[i] = x[i] - a[i]*s + t*e[i]                                                 (request)
//!               z = sum_i a[i]*(x[i] + t*e[i])                  stays with the client
//! server        r[o] = sum_i W~[o][i]*x~[i]                                                    (jali-operator)
//! check         sum_o alpha[o]*r[o] = sum_i U[i]*x~[i]          before anything secret is used (check)
//! client        V = r[o] + s*H[o] + s'[o]*z, centred mod q, mod t, centred                     (unmask)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`params`] | literal -> checked parameters, the 128-bit table, the choice of primes from shapes |
//! | [`entropy`] | where randomness comes from: the operating system, used once |
//! | [`noise`] | the rigorous failure bound |
//! | [`mod@seal`] | the owner: rows to sealed rows, hints and check vectors |
//! | [`sealed`] | what the server gets |
//! | [`answer`] | what comes back from a server, row by row |
//! | [`check`] | the ciphertext check and the evidence that it ran |
//! | [`key`] | the client's key of one operator; [`shape`]: which operator, and of which shape |
//! | `derive` | what is drawn from keys: the public vector, secrets of rows, check scalars |
//! | [`key_bytes`] | an operator's key as bytes; hints are checked before they count |
//! | [`request`] | the client: mask, then finish once |
//! | `unmask` | hints and secrets of rows as a matrix and its product with a request's secrets |
//!
//! This crate does not know about networks, files or sockets. Conditions 1 to 8 of the design are
//! quoted where they are enforced; `SECURITY.md` lists the places.
#![forbid(unsafe_code)]

pub mod answer;
pub mod check;
mod derive;
pub mod entropy;
pub mod error;
pub mod key;
pub mod key_bytes;
pub mod noise;
pub mod params;
pub mod request;
pub mod seal;
pub mod sealed;
pub mod shape;
mod unmask;

pub use answer::{Answer, AnswerForm};
pub use check::CheckKey;
pub use derive::expand_public;
pub use entropy::{RequestEntropy, SealEntropy};
pub use error::MaskError;
pub use key::OperatorKey;
pub use key_bytes::UnhintedKey;
pub use noise::NoiseReport;
pub use params::{Parameters, ParametersLiteral};
pub use request::{Masked, PendingRequest, RequestContext};
pub use seal::{KeepHints, OperatorSetting, PlainMatrix, PlainRow, rows_together, seal, seal_matrix};
pub use sealed::{SealedHead, SealedOperator, SealedRow, Tile};
pub use shape::{MatrixShape, OperatorId};

#[cfg(test)]
mod tests;
