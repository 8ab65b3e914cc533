//! Files of named sections, each with a checksum, under one hash that covers every byte. Either
//! side of Jali keeps its part of a sealed model in one: the server's may be seen by anybody, the
//! client's is secret.
//!
//! | module | what it holds |
//! |---|---|
//! | [`container`] | the format: [`BundleWriter`] and [`Bundle`] |
//! | [`error`] | what can go wrong |
//!
//! This crate knows nothing of what is in a section.
#![forbid(unsafe_code)]

pub mod container;
pub mod error;

pub use container::{Bundle, BundleWriter, Kind, MAX_SECTION, Section, VERSION};
pub use error::BundleError;

/// Returns bytes as hexadecimal digits: public ids and content hashes are shown so.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Returns the bytes of exactly `2 N` hexadecimal digits, or `None` for anything else.
pub fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let bytes: Vec<u8> =
        pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect::<Option<_>>()?;
    bytes.try_into().ok()
}
