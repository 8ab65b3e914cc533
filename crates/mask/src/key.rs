//! The client's key of one operator.

use std::sync::Arc;

use jali_ring::sample::Key;
use jali_ring::{MaskVectors, Ntt, Poly, Ring};

use crate::answer::AnswerForm;
use crate::check::{CheckKey, SCALARS};
use crate::noise::NoiseReport;
use crate::shape::OperatorId;
use crate::unmask::Unmasking;
use crate::{MaskError, Parameters};

/// The client's part of one operator: secret.
pub struct OperatorKey {
    pub(crate) id: OperatorId,
    pub(crate) parameters: Parameters,
    pub(crate) form: Arc<AnswerForm>,
    pub(crate) input_bound: i64,
    /// The public vector and those of the check, an element of each for every tile.
    pub(crate) vectors: MaskVectors,
    /// Blocks of equally many rows and tiles.
    pub(crate) blocks: usize,
    /// `H[o]` and `s'[o]`; none in a key that is to be stored.
    pub(crate) unmasking: Option<Unmasking>,
    pub(crate) check: CheckKey,
    /// Differs between sealings that differ in anything.
    pub(crate) sealing: Key,
    pub(crate) noise: NoiseReport,
    /// What `a`, the check scalars and the secrets of hidden rows are drawn from: all that is
    /// stored of them.
    pub(crate) a_seed: Key,
    pub(crate) check_key: Key,
    pub(crate) row_keys: Vec<Option<Key>>,
}

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorKey").field("id", &self.id).field("rows", &self.rows()).finish_non_exhaustive()
    }
}

impl OperatorKey {
    /// The parameter set.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The form of answers.
    pub fn form(&self) -> &Arc<AnswerForm> {
        &self.form
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.row_keys.len()
    }

    /// Ring elements per request.
    pub fn tiles(&self) -> usize {
        self.vectors.tiles()
    }

    /// Blocks of equally many rows and tiles: a row meets the tiles of its block only.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Tiles of every block.
    pub(crate) fn block_tiles(&self) -> usize {
        self.vectors.width()
    }

    /// Noise bound and room, computed exactly from the rows that were drawn.
    pub fn noise(&self) -> NoiseReport {
        self.noise
    }

    /// Bytes that the hints take in memory: none in a key that is to be stored.
    pub fn hint_bytes(&self) -> usize {
        self.unmasking.as_ref().map_or(0, Unmasking::hint_bytes)
    }
}

/// The vectors of an operator whose blocks have so many tiles as masking reads them, and the check
/// that belongs to them.
///
/// # Errors
/// [`MaskError::Ring`] if there is no memory for them.
pub(crate) fn vectors_and_check(
    ring: &Ring,
    width: usize,
    (a, u): (&[Poly<Ntt>], [&[Poly<Ntt>]; SCALARS]),
    alphas: [Vec<Vec<u64>>; SCALARS],
) -> Result<(MaskVectors, CheckKey), MaskError> {
    Ok((MaskVectors::new(ring, width, a, u)?, CheckKey::new(ring, alphas, u, a)))
}

/// Inputs are digested as 32-bit numbers at most.
///
/// # Errors
/// [`MaskError::InputRange`] for a bound that these do not reach, or a negative one.
pub(crate) fn check_bound(input_bound: i64) -> Result<(), MaskError> {
    if (0..=i64::from(i32::MAX)).contains(&input_bound) {
        Ok(())
    } else {
        Err(MaskError::InputRange { bound: input_bound })
    }
}
