//! Everything that can go wrong in this crate.

use jali_mask::MaskError;
use jali_ring::RingError;

use crate::container::Kind;

/// Errors of the server's side.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// From the ring or a decoder.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// From the masked product's types.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The bytes are not a bundle of this version.
    #[error("not a Jali bundle of version {expected}: {got}")]
    Format {
        /// The version that this build reads.
        expected: u8,
        /// What was found.
        got: String,
    },
    /// A bundle for the other side.
    #[error("this is a {got} bundle, a {expected} bundle is needed here")]
    Kind {
        /// What is needed.
        expected: Kind,
        /// What it is.
        got: Kind,
    },
    /// One section of a bundle is damaged, missing or too long.
    #[error("section \"{section}\": {why}")]
    Section {
        /// Its name.
        section: String,
        /// What is wrong.
        why: String,
    },
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
    /// The model would take more memory than allowed.
    #[error("operator {index} would take {needed} bytes of memory in all, {limit} are allowed")]
    Memory {
        /// Which operator passed the limit.
        index: usize,
        /// Bytes needed so far.
        needed: usize,
        /// Bytes allowed.
        limit: usize,
    },
}
