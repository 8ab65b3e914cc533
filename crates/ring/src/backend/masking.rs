//! The client's pass over all tiles of a request: `x[i] -= a[i]*s`, and with it the sums `z = sum_i
//! a[i]*x[i]` (of the values before) and `sum_i u[i]*x[i]` (of the values after). Every word is
//! touched once. What does not change from request to request is held like the rows of a server:
//! for IFMA in about half of the bytes that its residues would take as words.

use std::ops::Range;

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::lanes::{AHEAD, Lanes, UNPACK_READS, array_at, prefetch};
use super::rows::Place;
use super::{BLOCK, Job};
use crate::modulus::MAX_LAZY_PRODUCTS;
use crate::{Modulus, Ntt, Poly, Ring, RingError, RowStore};

/// Coefficients that one job masks.
const CHUNK: usize = 4 * BLOCK;

/// The sums of one masking pass.
pub struct MaskSums {
    /// `sum_i a[i]*x[i]` before masking, over the tiles of each block of the matrix.
    pub z: Vec<Zeroizing<Poly<Ntt>>>,
    /// `sum_i u[c][i]*x[i]` after masking, over all tiles.
    pub checks: [Zeroizing<Poly<Ntt>>; 2],
}

impl std::fmt::Debug for MaskSums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskSums(withheld)")
    }
}

/// One of the vectors of [`MaskVectors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vector {
    /// `a`.
    Public,
    /// `u[0]` or `u[1]`.
    Check(usize),
}

impl Vector {
    /// Returns the vector's row in a store.
    fn row(self) -> usize {
        match self {
            Self::Public => 0,
            Self::Check(c) => 1 + c.min(1),
        }
    }
}

/// The vectors `a`, `u[0]`, `u[1]` of an operator, an element of each for every tile, in the order
/// in which [`MaskVectors::mask`] reads them. Wiped on drop.
pub struct MaskVectors {
    /// Stores of three rows `a`, `u[0]`, `u[1]`, each for the tiles of some blocks.
    stores: Vec<Zeroizing<RowStore>>,
    /// Tiles of a block of the matrix.
    width: usize,
    /// All tiles.
    tiles: usize,
}

impl std::fmt::Debug for MaskVectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MaskVectors<{} tiles, content withheld>", self.tiles)
    }
}

impl MaskVectors {
    /// Returns the number of blocks, of `width` tiles each, that one store holds.
    fn together(width: usize) -> usize {
        (MAX_LAZY_PRODUCTS / width.max(1)).max(1)
    }

    /// Returns the bytes of memory that the vectors for `tiles` tiles take, in blocks of `width`
    /// tiles.
    pub fn bytes_needed(ring: &Ring, width: usize, tiles: usize) -> usize {
        let most = Self::together(width) * width;
        let of = |tiles| if tiles == 0 { 0 } else { RowStore::bytes_needed(ring, &[ring.limbs(); 3], tiles) };
        (tiles / most.max(1)).saturating_mul(of(most)).saturating_add(of(tiles % most.max(1)))
    }

    /// Makes the vectors for a matrix in blocks of `width` tiles: `a` and `u` have an element for
    /// each tile of every block.
    ///
    /// # Errors
    /// [`RingError::Length`] if their numbers differ or are no multiple of `width`, an element
    /// belongs to another ring, or there is no memory for them.
    pub fn new(ring: &Ring, width: usize, a: &[Poly<Ntt>], u: [&[Poly<Ntt>]; 2]) -> Result<Self, RingError> {
        let tiles = a.len();
        let lists = [a, u[0], u[1]];
        if let Some(list) = lists.iter().find(|list| list.len() != tiles || !list.iter().all(|p| ring.holds(p))) {
            return Err(RingError::Length { what: "tiles of a vector", expected: tiles, got: list.len() });
        }
        if width == 0 || tiles == 0 || !tiles.is_multiple_of(width) {
            return Err(RingError::Length { what: "tiles of equal blocks", expected: width, got: tiles });
        }
        let most = Self::together(width) * width;
        let mut stores = Vec::with_capacity(tiles.div_ceil(most));
        for first in (0..tiles).step_by(most) {
            let some = first..tiles.min(first + most);
            let mut store = Zeroizing::new(RowStore::new(ring, &[ring.limbs(); 3], some.len())?);
            for (row, list) in lists.iter().enumerate() {
                list[some.clone()].iter().enumerate().for_each(|(tile, p)| store.set(row, tile, p));
            }
            stores.push(store);
        }
        Ok(Self { stores, width, tiles })
    }

    /// Returns the number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Tiles of a block of the matrix.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns an element as it was put in, or zero if there is no such tile.
    pub fn element(&self, ring: &Ring, vector: Vector, tile: usize) -> Poly<Ntt> {
        let most = Self::together(self.width) * self.width;
        let store = self.stores.get(tile / most).filter(|_| tile < self.tiles);
        store.map_or_else(|| ring.zero(), |store| store.get(ring, vector.row(), tile % most))
    }

    /// Masks all tiles of a request in place with its secret `s`.
    ///
    /// # Errors
    /// [`RingError::Length`] if the numbers of tiles differ or an element belongs to another ring.
    pub fn mask(&self, ring: &Ring, x: &mut [Poly<Ntt>], s: &Poly<Ntt>) -> Result<MaskSums, RingError> {
        let tiles = self.tiles;
        if x.len() != tiles || !x.iter().all(|p| ring.holds(p)) {
            return Err(RingError::Length { what: "tiles to mask", expected: tiles, got: x.len() });
        }
        if !ring.holds(s) {
            return Err(RingError::Length {
                what: "residues of a secret",
                expected: ring.limbs() * ring.degree(),
                got: 0,
            });
        }
        let zero = || Zeroizing::new(ring.zero::<Ntt>());
        let mut sums = MaskSums { z: (0..tiles / self.width).map(|_| zero()).collect(), checks: [zero(), zero()] };
        let (mut left, mut z) = (x, &mut sums.z[..]);
        for (i, store) in self.stores.iter().enumerate() {
            let (x, rest) = std::mem::take(&mut left).split_at_mut(store.tiles());
            let (sums_of, more) = std::mem::take(&mut z).split_at_mut(store.tiles() / self.width);
            (left, z) = (rest, more);
            if i == 0 {
                self.mask_some(ring, store, x, s, sums_of, &mut sums.checks)?;
            } else {
                let mut checks = [zero(), zero()];
                self.mask_some(ring, store, x, s, sums_of, &mut checks)?;
                sums.checks.iter_mut().zip(&checks).for_each(|(sum, more)| ring.add_assign(sum, more));
            }
        }
        Ok(sums)
    }

    /// Masks the tiles `x` of one `store` with the secret `s`. Writes the sums of its blocks to `z`
    /// and those over its tiles to `checks`.
    fn mask_some(
        &self,
        ring: &Ring,
        store: &RowStore,
        x: &mut [Poly<Ntt>],
        s: &Poly<Ntt>,
        z: &mut [Zeroizing<Poly<Ntt>>],
        checks: &mut [Zeroizing<Poly<Ntt>>; 2],
    ) -> Result<(), RingError> {
        store.holds_ring(ring)?;
        let per_limb = ring.degree() / CHUNK;
        let [first, second] = checks;
        let mut chunks: Vec<Chunk<'_>> = first
            .chunks_mut(CHUNK)
            .zip(second.chunks_mut(CHUNK))
            .enumerate()
            .map(|(i, (first, second))| {
                let (limb, at) = (i / per_limb, i % per_limb * CHUNK);
                Chunk {
                    modulus: &ring.moduli()[limb],
                    width: self.width,
                    place: store.place(limb),
                    blocks: at / BLOCK..(at + CHUNK) / BLOCK,
                    w: store.memory(),
                    tiles: Vec::with_capacity(x.len()),
                    secret: &s.limb(limb)[at..at + CHUNK],
                    z: Vec::with_capacity(z.len()),
                    checks: [first, second],
                }
            })
            .collect();
        for x in x {
            x.chunks_mut(CHUNK).zip(&mut chunks).for_each(|(x, chunk)| chunk.tiles.push(x));
        }
        for z in z {
            z.chunks_mut(CHUNK).zip(&mut chunks).for_each(|(z, chunk)| chunk.z.push(z));
        }
        chunks.into_par_iter().with_min_len(2).for_each(|chunk| ring.backend().run(chunk));
        Ok(())
    }
}

/// A chunk of coefficients of one limb, of all tiles of a store.
struct Chunk<'a> {
    modulus: &'a Modulus,
    /// Tiles of a block of the matrix.
    width: usize,
    /// Where the vectors lie in `w`.
    place: Place,
    /// Blocks of coefficients.
    blocks: Range<usize>,
    w: &'a [u8],
    /// The chunk of each tile, which becomes masked.
    tiles: Vec<&'a mut [u64]>,
    secret: &'a [u64],
    z: Vec<&'a mut [u64]>,
    checks: [&'a mut [u64]; 2],
}

impl Job for Chunk<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { modulus, width, place, blocks, w, mut tiles, secret, mut z, checks: [first, second] } = self;
        let (p, spread) = (V::prime(modulus), V::spread(place.bits()));
        let (bias, fold_every) = (V::bias(&p, 0), V::products_between_folds(modulus));
        let (group_bytes, halves) = (V::LANES * place.bits() / 8, BLOCK / 2 / V::LANES);
        // The end of what is read: `array_at` below relies on it.
        let last = place.at(2, blocks.end - 1, 1, tiles.len() - 1) + (halves - 1) * group_bytes + UNPACK_READS;
        assert!(last <= w.len(), "the vectors' memory ends behind what is read of it");
        for i in 0..CHUNK / V::LANES {
            let (block, half) = (blocks.start + i / (2 * halves), i / halves % 2);
            let mut at = [0; 3];
            for row in 0..3 {
                at[row] = place.at(row, block, half, 0) + i % halves * group_bytes;
            }
            let run = place.at(0, block, half, 1) - place.at(0, block, half, 0);
            let secret = V::enter(&V::split(secret)[i]);
            // The bytes that follow half a block of all vectors are prefetched once.
            let asks = i % halves == 0;
            let (mut checks, mut since) = ([V::no_products(); 2], 0);
            for (tiles, z) in tiles.chunks_mut(width).zip(&mut z) {
                let mut sum = V::no_products();
                for x in tiles {
                    prefetch(x, (i + 1) * V::LANES);
                    if asks {
                        for row in 0..3 {
                            prefetch(w, at[row] + AHEAD);
                            prefetch(w, at[row] + AHEAD + 64);
                            if run > 144 {
                                prefetch(w, at[row] + AHEAD + 128);
                            }
                        }
                    }
                    if since == fold_every {
                        sum = V::fold(sum, &p);
                        checks = [V::fold(checks[0], &p), V::fold(checks[1], &p)];
                        since = 0;
                    }
                    let x = &mut V::split_mut(x)[i];
                    let (noisy, a) = (V::enter(x), V::unpack(array_at(w, at[0]), &spread));
                    sum = V::accumulate(sum, noisy, a, &p);
                    let masked = noisy.sub(V::close(V::accumulate(V::no_products(), secret, a, &p), &p), bias);
                    masked.leave(&p, x);
                    let masked = V::enter(x);
                    for c in 0..2 {
                        let u = V::unpack(array_at(w, at[1 + c]), &spread);
                        checks[c] = V::accumulate(checks[c], masked, u, &p);
                    }
                    since += 1;
                    for at in &mut at {
                        *at += run;
                    }
                }
                V::close(sum, &p).leave(&p, &mut V::split_mut(z)[i]);
            }
            V::close(checks[0], &p).leave(&p, &mut V::split_mut(first)[i]);
            V::close(checks[1], &p).leave(&p, &mut V::split_mut(second)[i]);
        }
    }
}
