//! Everything that can go wrong in this crate.

use jali_bundle::BundleError;
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
    /// From the server's bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// More or fewer rows were written than the operators have.
    #[error("the rows that were sealed are not those of the operators: operator {operator} has {rows} of them")]
    Rows {
        /// Index of the operator whose rows come next.
        operator: usize,
        /// How many of them were written.
        rows: usize,
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
