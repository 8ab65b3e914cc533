//! An operator's key as bytes, and back. Hints are not stored: they are public, large, and can be
//! had from the server, which computes them from what it holds; they are checked before they count.
//!
//! ```text
//! key = seed of a [32] | key of the check scalars [32] | name of the sealing [32] | noise 3 x f64 | tiles of a row u32 | blocks u32 | rows u32
//!     | row* | 2 x blocks x tiles x packed element of U
//! row = 0 | key of its secret [32]      hidden
//!     | 1                               open
//! ```

use jali_ring::modulus::MAX_LAZY_PRODUCTS;
use jali_ring::sample::Key;
use jali_ring::wire::{Reader, Writer, poly_len};
use jali_ring::{Vector, Wanted};
use rayon::prelude::*;
use zeroize::Zeroizing;

use std::sync::Arc;

use crate::answer::AnswerForm;
use crate::check::SCALARS;
use crate::derive::{check_scalars, expand_public};
use crate::key::{OperatorKey, check_bound, vectors_and_check};
use crate::shape::{MatrixShape, OperatorId};
use crate::unmask::Unmasking;
use crate::{MaskError, NoiseReport, Parameters};

const ROW_HIDDEN: u8 = 0;
const ROW_OPEN: u8 = 1;

/// An operator's key without its hints: it cannot unmask anything yet.
pub struct UnhintedKey(OperatorKey);

impl std::fmt::Debug for UnhintedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnhintedKey(withheld)")
    }
}

impl OperatorKey {
    /// Bytes that [`OperatorKey::encode`] writes at most.
    pub fn encoded_len(&self) -> usize {
        132 + 33 * self.rows() + SCALARS * self.tiles() * poly_len(self.parameters.ring())
    }

    /// Writes everything but parameters, wanted coefficients and hints. Secret: the caller wipes
    /// the bytes.
    pub fn encode(&self, w: &mut Writer) {
        w.raw(&*self.a_seed);
        w.raw(&*self.check_key);
        w.raw(&*self.sealing);
        let noise = self.noise();
        [noise.bound_bits, noise.available_bits, noise.log2_failure].iter().for_each(|v| w.u64(v.to_bits()));
        w.u32(self.block_tiles() as u32);
        w.u32(self.blocks() as u32);
        w.u32(self.rows() as u32);
        for key in &self.row_keys {
            match key {
                Some(key) => {
                    w.u8(ROW_HIDDEN);
                    w.raw(&**key);
                }
                None => w.u8(ROW_OPEN),
            }
        }
        let ring = self.parameters.ring();
        for scalar in 0..SCALARS {
            let element = |tile| self.vectors.element(ring, Vector::Check(scalar), tile);
            let vector = Zeroizing::new((0..self.tiles()).into_par_iter().map(element).collect::<Vec<_>>());
            w.polys(ring, &*vector);
        }
    }
}

impl UnhintedKey {
    /// Reads what [`OperatorKey::encode`] wrote for an operator of these parameters. `shape` is its
    /// matrix's.
    ///
    /// # Errors
    /// [`MaskError::Shape`] for a key of another shape, [`MaskError::Ring`] for other bytes,
    /// [`MaskError::SmallPrime`], [`MaskError::InputRange`].
    pub fn decode(
        r: &mut Reader<'_>,
        id: OperatorId,
        parameters: Parameters,
        wanted: Wanted,
        input_bound: i64,
        shape: MatrixShape,
    ) -> Result<Self, MaskError> {
        parameters.fit_for_checking()?;
        check_bound(input_bound)?;
        let ring = parameters.ring();
        let key = |r: &mut Reader<'_>| -> Result<Key, MaskError> { Ok(Zeroizing::new(r.array()?)) };
        let (a_seed, check_key, sealing) = (key(r)?, key(r)?, key(r)?);
        let mut float = || -> Result<f64, MaskError> { Ok(f64::from_bits(r.u64()?)) };
        let noise = NoiseReport { bound_bits: float()?, available_bits: float()?, log2_failure: float()? };
        let row_tiles = r.count(MAX_LAZY_PRODUCTS, "tiles of a row")?;
        let blocks = r.count(r.remaining(), "blocks of an operator")?;
        let tiles = row_tiles.saturating_mul(blocks);
        let rows = r.count(r.remaining(), "rows of an operator")?;
        // Rows are those that the operator has, a tile takes two elements: no memory is asked for
        // beyond that.
        for (what, expected, got) in [
            ("rows of the operator", shape.rows, rows),
            ("tiles of a row", shape.tiles, row_tiles),
            ("blocks", shape.blocks, blocks),
        ] {
            if expected != got {
                return Err(MaskError::Shape { what, expected, got });
            }
        }
        let least = tiles.saturating_mul(SCALARS * poly_len(ring));
        if tiles == 0 || rows == 0 || !rows.is_multiple_of(blocks) || r.remaining() < least {
            return Err(r.malformed("tiles and rows of an operator").into());
        }
        let mut row_keys = Vec::with_capacity(rows);
        for _ in 0..rows {
            row_keys.push(match r.u8()? {
                ROW_HIDDEN => Some(key(r)?),
                ROW_OPEN => None,
                _ => return Err(r.malformed("kind of a row").into()),
            });
        }
        let [first, second] = [Zeroizing::new(r.polys(ring, tiles)?), Zeroizing::new(r.polys(ring, tiles)?)];
        let limbs = row_keys.iter().map(|key| parameters.ring_of(key.is_none()).limbs()).collect();
        let (a, alphas) = (expand_public(ring, &a_seed, 0..tiles), check_scalars(ring, &check_key, rows));
        let (vectors, check) = vectors_and_check(ring, row_tiles, (&a, [&first, &second]), alphas)?;
        Ok(Self(OperatorKey {
            vectors,
            form: Arc::new(AnswerForm::new(wanted, limbs)),
            id,
            input_bound,
            blocks,
            unmasking: None,
            check,
            sealing,
            noise,
            a_seed,
            check_key,
            row_keys,
            parameters,
        }))
    }

    /// The operator's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.0.parameters
    }

    /// Rows with the number of primes that each, and so its hint, is held modulo.
    pub fn row_limbs(&self) -> &[usize] {
        self.0.form.limbs()
    }

    /// Which rows are hidden.
    pub fn hidden_rows(&self) -> Vec<bool> {
        self.0.row_keys.iter().map(Option::is_some).collect()
    }

    /// Takes the hints `H[o] = sum_i W~[o][i]*a[i]` that a server sent, packed row by row and prime
    /// by prime, if they pass the same check as its answers, with the same scalars and on every
    /// coefficient: `sum_o alpha[o]*H[o] = sum_i U[i]*a[i]`. `a` is public, so the server knows
    /// whether its hints are right, and acceptance tells it nothing.
    ///
    /// # Errors
    /// The key itself, to try others (or once there is memory for them).
    pub fn accept(mut self, hints: &[u8]) -> Result<OperatorKey, Box<Self>> {
        let key = &self.0;
        if key.check.usable().is_err() {
            return Err(Box::new(self));
        }
        let Some(verified) = key.check.verify_hints(key.parameters.ring(), key.form.limbs(), hints) else {
            return Err(Box::new(self));
        };
        match Unmasking::of_server(&key.parameters, key.form.limbs(), &key.row_keys, &verified) {
            Ok(unmasking) => self.0.unmasking = Some(unmasking),
            Err(_) => return Err(Box::new(self)),
        }
        Ok(self.0)
    }
}
