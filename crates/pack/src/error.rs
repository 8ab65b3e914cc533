//! Everything that can go wrong in this crate.

/// Errors of lowering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A linear layer of a kind that is not lowered yet.
    #[error("{what} is not supported yet, got {got}")]
    Unsupported {
        /// Which property.
        what: &'static str,
        /// Its value.
        got: String,
    },
    /// The layer does not fit a ring of this degree.
    #[error("{what} needs {needed} coefficients, the ring has {degree}")]
    TooLarge {
        /// What does not fit.
        what: &'static str,
        /// Coefficients needed.
        needed: usize,
        /// Ring degree.
        degree: usize,
    },
    /// A number of a choice does not fit the layer.
    #[error("{what}: expected {expected}, got {got}")]
    Choice {
        /// What.
        what: &'static str,
        /// What the layer has.
        expected: usize,
        /// What was given.
        got: usize,
    },
}
