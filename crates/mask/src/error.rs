//! Everything that can go wrong in this crate.

use jali_ring::RingError;

/// Errors of the masked product.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// From the ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The parameters would have less than 128 bits of security.
    #[error("degree {degree} with log2 q = {got} bits is below 128-bit security: at most {limit} bits are allowed")]
    Insecure {
        /// Ring degree.
        degree: usize,
        /// Size of the modulus asked for, in bits.
        got: u32,
        /// Largest size that the 2024 guidelines allow, in bits.
        limit: u32,
    },
    /// The plaintext modulus does not fit.
    #[error("a plaintext modulus of {got} bits is outside {min}..={max}")]
    Plaintext {
        /// Bits asked for.
        got: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// No modulus is large enough for the noise and small enough for security.
    #[error(
        "no parameters: degree {degree} with {tiles} tiles and {plaintext_bits}-bit sums needs {needed} bits of modulus, security allows {limit}"
    )]
    NoParameters {
        /// Ring degree.
        degree: usize,
        /// Tiles per row.
        tiles: usize,
        /// Bits of the plaintext modulus.
        plaintext_bits: u32,
        /// Bits of modulus that the noise needs.
        needed: u32,
        /// Bits of modulus that security allows.
        limit: u32,
    },
    /// A shape does not fit the operator.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// Which quantity.
        what: &'static str,
        /// What the operator needs.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// A prime too small for the ciphertext check.
    #[error("a prime of {got} bits is too small for the ciphertext check, at least {min} are needed")]
    SmallPrime {
        /// Its size.
        got: u32,
        /// Smallest size.
        min: u32,
    },
    /// An input outside the range that the failure bound assumes.
    #[error("an input value lies outside the declared range -{bound}..={bound}")]
    InputRange {
        /// Largest absolute value.
        bound: i64,
    },
    /// The operating system gave no randomness.
    #[error("the operating system's random generator failed: {0}")]
    Entropy(String),
    /// The server's answer is not what its sealed operator gives for this request: wrong, malformed
    /// or missing. One error for all of them, on purpose.
    #[error("the server's answer was rejected by the ciphertext check")]
    AnswerRejected,
    /// A key that was sealed to be stored has no hints: it takes them from a server first.
    #[error("this key has no hints: it was sealed to be stored")]
    NoHints,
    /// Too many rejected answers for one set of check scalars.
    #[error("this operator's check key has seen {0} rejected answers; seal the model again to draw a new one")]
    CheckKeyExhausted(u32),
}
