//! Rows in the order in which the kernels read them.

use super::{BLOCK, Kernel};
use crate::modulus::MAX_LAZY_PRODUCTS;
use crate::{Ntt, Poly, Ring, RingError};

/// The matrix `W~`: rows of `tiles` ring elements, stored `[row][limb][N / BLOCK][tile][BLOCK]`.
#[derive(Debug, Clone)]
pub struct RowStore {
    tiles: usize,
    row_words: usize,
    words: Vec<u64>,
}

impl RowStore {
    /// Room for `rows` rows; the content is zero.
    ///
    /// # Errors
    /// [`RingError::Length`] for 0 or more than 4096 tiles, or if the memory cannot be had.
    pub fn new(ring: &Ring, rows: usize, tiles: usize) -> Result<Self, RingError> {
        if !(1..=MAX_LAZY_PRODUCTS).contains(&tiles) {
            return Err(RingError::Length { what: "tiles of a row", expected: MAX_LAZY_PRODUCTS, got: tiles });
        }
        let row_words = ring.limbs() * ring.degree() * tiles;
        let mut words = Vec::new();
        let total = row_words.saturating_mul(rows);
        if words.try_reserve_exact(total).is_err() {
            return Err(RingError::Length {
                what: "words of memory for the rows",
                expected: words.capacity(),
                got: total,
            });
        }
        words.resize(total, 0);
        Ok(Self { tiles, row_words, words })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.words.len() / self.row_words
    }

    /// Ring elements per row.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    #[cfg(test)]
    pub(super) fn words_for_tests(&self) -> &[u64] {
        &self.words
    }

    /// The rows one by one, for filling in parallel.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = RowMut<'_>> {
        let tiles = self.tiles;
        self.words.chunks_exact_mut(self.row_words).map(move |words| RowMut { words, tiles })
    }

    /// Row `row` times the vector `x` of `tiles` elements.
    ///
    /// # Errors
    /// [`RingError::Length`] if `row` or the shape of `x` does not fit.
    pub fn product(&self, kernel: Kernel, ring: &Ring, row: usize, x: &[Poly<Ntt>]) -> Result<Poly<Ntt>, RingError> {
        if row >= self.rows() {
            return Err(RingError::Length { what: "row index", expected: self.rows(), got: row });
        }
        if x.len() != self.tiles || !x.iter().all(|p| ring.holds(p)) {
            return Err(RingError::Length { what: "tiles of the input", expected: self.tiles, got: x.len() });
        }
        let words = &self.words[row * self.row_words..][..self.row_words];
        let mut out = ring.zero();
        let limb_words = self.tiles * ring.degree();
        for (l, (m, w)) in ring.moduli().iter().zip(words.chunks_exact(limb_words)).enumerate() {
            let x: Vec<&[u64]> = x.iter().map(|p| p.limb(l)).collect();
            kernel.row(m, w, &x, out.limb_mut(l));
        }
        Ok(out)
    }
}

impl zeroize::Zeroize for RowStore {
    fn zeroize(&mut self) {
        self.words.zeroize();
    }
}

/// One row to be filled.
#[derive(Debug)]
pub struct RowMut<'a> {
    words: &'a mut [u64],
    tiles: usize,
}

impl RowMut<'_> {
    /// Puts a ring element into place.
    pub fn set(&mut self, tile: usize, p: &Poly<Ntt>) {
        let blocks = p.degree() / BLOCK;
        for l in 0..p.limbs() {
            for (b, source) in p.limb(l).as_chunks::<BLOCK>().0.iter().enumerate() {
                let at = ((l * blocks + b) * self.tiles + tile) * BLOCK;
                self.words[at..at + BLOCK].copy_from_slice(source);
            }
        }
    }
}
