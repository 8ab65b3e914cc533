//! Randomness at the public edge: 256 bits from the operating system, each value used for one
//! purpose.
//!
//! There is no way to pass a seed in (condition 1). Tests may, through the feature `test-doors`,
//! which the architecture check refuses outside `[dev-dependencies]`.

use zeroize::Zeroizing;

use crate::MaskError;

fn from_os() -> Result<Zeroizing<[u8; 32]>, MaskError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|e| MaskError::Entropy(e.to_string()))?;
    Ok(bytes)
}

/// The owner's sealing secret. Everything that a seal draws is derived from it together with what
/// is sealed, so an unchanged row stays byte-identical when a model is sealed again, and a changed
/// one is drawn anew.
///
/// The check scalars do not depend on it: [`crate::seal()`] draws them from the operating system at
/// every sealing.
pub struct SealEntropy {
    pub(crate) rows: Zeroizing<[u8; 32]>,
    /// What check scalars are drawn from instead, for tests.
    fixed: Option<Zeroizing<[u8; 32]>>,
}

/// Randomness for one request; consumed by [`crate::OperatorKey::mask`], so it cannot serve twice.
///
/// ```compile_fail,E0382
/// # fn f(key: &jali_mask::OperatorKey, context: jali_mask::RequestContext) -> Result<(), jali_mask::MaskError> {
/// let entropy = jali_mask::RequestEntropy::from_os()?;
/// key.mask(&[], entropy, context)?;
/// key.mask(&[], entropy, context)?; // moved: does not compile
/// # Ok(())
/// # }
/// ```
pub struct RequestEntropy(pub(crate) Zeroizing<[u8; 32]>);

impl SealEntropy {
    /// From the operating system.
    ///
    /// # Errors
    /// [`MaskError::Entropy`] if it has none.
    pub fn from_os() -> Result<Self, MaskError> {
        Ok(Self { rows: from_os()?, fixed: None })
    }

    /// Fixed bytes, for tests.
    #[cfg(any(test, feature = "test-doors"))]
    pub fn fixed(bytes: [u8; 32]) -> Self {
        Self { rows: Zeroizing::new(bytes), fixed: Some(Zeroizing::new(bytes)) }
    }

    /// Randomness for the check scalars of one sealing of one operator.
    pub(crate) fn fresh(&self) -> Result<Zeroizing<[u8; 32]>, MaskError> {
        self.fixed.clone().map_or_else(from_os, Ok)
    }

    /// A public name for the sealed model. Random: a hash of the model would let the server confirm
    /// guesses of hidden weights.
    pub fn model_id(&self) -> [u8; 16] {
        let key = jali_ring::sample::derive_key("jali 1 model id", &[&*self.rows]);
        let mut id = [0; 16];
        id.copy_from_slice(&key[..16]);
        id
    }
}

impl RequestEntropy {
    /// From the operating system.
    ///
    /// # Errors
    /// [`MaskError::Entropy`] if it has none.
    pub fn from_os() -> Result<Self, MaskError> {
        from_os().map(Self)
    }

    /// Fixed bytes, for tests.
    #[cfg(any(test, feature = "test-doors"))]
    pub fn fixed(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for SealEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealEntropy(withheld)")
    }
}

impl std::fmt::Debug for RequestEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestEntropy(withheld)")
    }
}
