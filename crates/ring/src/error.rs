//! Everything that can go wrong in this crate.

/// Errors of the ring crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The degree is not a power of two in the supported range.
    #[error("ring degree must be a power of two from {min} to {max}, got {got}")]
    Degree {
        /// Smallest supported degree.
        min: usize,
        /// Largest supported degree.
        max: usize,
        /// What was asked for.
        got: usize,
    },
    /// The modulus is unusable.
    #[error("modulus {got} is unusable: {why}")]
    Modulus {
        /// The modulus asked for.
        got: u64,
        /// What it violates.
        why: &'static str,
    },
    /// There are not enough primes of that size.
    #[error("no {count} primes of {bits} bits are 1 modulo {step}")]
    NoPrimes {
        /// How many were asked for.
        count: usize,
        /// Their size in bits.
        bits: u32,
        /// The residue condition: `p = 1 (mod step)`.
        step: u64,
    },
    /// A number of elements does not fit.
    #[error("{what}: expected {expected}, got {got}")]
    Length {
        /// Which quantity.
        what: &'static str,
        /// The only acceptable (or largest acceptable) value.
        expected: usize,
        /// What was found.
        got: usize,
    },
    /// The system has no memory left.
    #[error("the system has no memory for {bytes} more bytes")]
    NoMemory {
        /// How many were asked for.
        bytes: usize,
    },
    /// A backend that this machine or build does not have.
    #[error("backend \"{name}\" is not available here; available: {available}")]
    Backend {
        /// The name asked for.
        name: String,
        /// Names that would work.
        available: String,
    },
    /// Encoded bytes do not have the announced form.
    #[error("malformed bytes at offset {offset}: {what}")]
    Malformed {
        /// Position of the offending byte or field.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl RingError {
    /// Returns the error with its offset moved by `start`: the bytes begin there in something
    /// larger.
    pub(crate) fn moved(self, start: usize) -> Self {
        match self {
            Self::Malformed { offset, what } => Self::Malformed { offset: start + offset, what },
            other => other,
        }
    }
}
