//! Everything that can go wrong in this crate.

use jali_ring::RingError;

use crate::Kind;

/// Errors of bundles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Bytes that end too early, or are too many.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The bytes are not a bundle of this version.
    #[error("not a Jali bundle of version {expected}: {got}; seal the model again with this version of jali")]
    Format {
        /// The version that this build reads.
        expected: u8,
        /// What the bytes are instead.
        got: String,
    },
    /// A bundle for the other side.
    #[error("this is a {got} bundle, a {expected} bundle is needed here")]
    Kind {
        /// The kind that is needed.
        expected: Kind,
        /// The kind that it is.
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
}
