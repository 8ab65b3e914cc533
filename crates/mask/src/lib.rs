//! The masked product: both operands of a linear layer under ring-LWE, one modular multiplication per coefficient for
//! the server, exact integers for the client.
//!
//! With one public vector `a` per layer, plaintext modulus `t = 2^k`, fresh `s`, `e` per request:
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
//! | [`wanted`] | which coefficients of an answer are asked for |
//! | [`noise`] | the rigorous failure bound |
//! | [`mod@seal`] | the owner: rows to sealed rows, hints and check vectors |
//! | [`answer`] | what is asked of a server, and what comes back, row by row |
//! | [`check`] | the ciphertext check and the evidence that it ran |
//! | [`store`] | a layer's key as bytes; hints are checked before they count |
//! | [`request`] | the client: mask, then finish once |
//! | `unmask` | hints and secrets of rows as a matrix and its product with a request's secrets, or row by row |
//!
//! This crate does not know about networks, files or sockets. Conditions 1 to 8 of the design are quoted where they
//! are enforced; `SECURITY.md` lists the places.
#![forbid(unsafe_code)]

pub mod answer;
pub mod check;
pub mod entropy;
pub mod error;
pub mod noise;
pub mod params;
pub mod request;
pub mod seal;
pub mod store;
mod unmask;
pub mod wanted;

pub use answer::{Answer, AnswerForm, AnswerKind};
pub use check::CheckKey;
pub use entropy::{RequestEntropy, SealEntropy};
pub use error::MaskError;
pub use noise::NoiseReport;
pub use params::{Parameters, ParametersLiteral};
pub use request::{Masked, PendingRequest, Prepared, RequestContext};
pub use seal::{
    KeepHints, LayerId, LayerKey, LayerSetting, MatrixShape, PlainMatrix, PlainRow, SealedHead, SealedLayer, SealedRow,
    Tile, expand_public, rows_together, seal, seal_matrix,
};
pub use store::UnhintedKey;
pub use wanted::{Wanted, WantedDims};

#[cfg(test)]
mod tests;
