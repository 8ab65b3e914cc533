//! Everything that can go wrong in this crate.

use jali_mask::MaskError;
use jali_ring::RingError;

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
    /// The bytes are not a sealed model of this version.
    #[error("not a sealed Jali model of version {expected}: {got}")]
    Format {
        /// The version that this build reads.
        expected: u8,
        /// What was found.
        got: String,
    },
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
