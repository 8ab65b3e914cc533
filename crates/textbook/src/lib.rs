//! What others do, for comparison: never part of the product.
//!
//! [`textbook`] is BGV as the SECRYPT 2022 paper uses its library: one value per ciphertext, every
//! product of two ciphertexts relinearised and rescaled at once.
#![forbid(unsafe_code)]

pub mod textbook;
