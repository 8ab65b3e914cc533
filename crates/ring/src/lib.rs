//! Arithmetic in `R_q = Z_q[X]/(X^N + 1)`, `N` a power of two, `q` a product of NTT-friendly primes
//! below 2^50.
//!
//! | module | what it holds |
//! |---|---|
//! | [`modulus`] | one prime `p`: reduction and modular arithmetic without secret-dependent branches |
//! | [`primes`] | primes `p = 1 (mod 2N)` |
//! | [`ntt`] | the negacyclic number-theoretic transform |
//! | [`poly`] | polynomials typed by their domain (coefficient or NTT) |
//! | [`ring`] | degree, moduli and transforms together; pointwise products |
//! | [`backend`] | the hot loops for every vector unit: transforms, rows, pointwise products (the only place of this crate with `unsafe`) |
//! | [`wanted`] | which coefficients of a product carry results |
//! | `row_product`, `workspace` | rows times inputs, transformed back, and the memory for it |
//! | `pages`, `aligned` | memory in large pages, words on cache lines |
//! | [`crt`] | residues back to centred integers |
//! | [`sample`] | uniform, ternary and centred binomial sampling from a seeded stream |
//! | [`wire`] | length-checked reading and writing, residues packed to their bit width |
#![deny(unsafe_code)]

mod aligned;
pub mod backend;
pub mod crt;
pub mod error;
pub mod modulus;
pub mod ntt;
mod pages;
pub mod poly;
pub mod primes;
pub mod ring;
mod row_product;
pub mod sample;
pub mod wanted;
pub mod wire;
mod workspace;

pub use backend::{Backend, Batch, Inputs, MaskSums, MaskVectors, RowStore, Vector};
pub use crt::Crt;
pub use error::RingError;
pub use modulus::Modulus;
pub use poly::{Coefficient, Domain, Ntt, Poly};
pub use ring::Ring;
pub use row_product::RowProduct;
pub use wanted::{Steps, Wanted, WantedPattern};
pub use workspace::Workspace;
