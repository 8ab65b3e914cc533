//! The server's rows of ring elements in the order in which they are read, and their products with
//! masked inputs.
//!
//! `W~` is stored `[limb][group of rows][block of 64 coefficients][row][half][tile][32 residues]`,
//! residues in as many bits as their prime has, or in whole bytes where the backend cannot read
//! lanes from any bit on. One thread reads a group from end to end and finds the products in its
//! own cache when it transforms them back. For one block of coefficients, the inputs of all tiles
//! fit the first-level cache; of several images, those of one group of lanes do. A row may be held
//! modulo the first primes only: the other limbs go without it. The multiplication itself stands in
//! `multiply.rs`.

use std::ops::Range;

use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use super::inputs::{Batch, Inputs, Source};
use super::lanes::{AHEAD, Lanes, UNPACK_READS};
use super::multiply::RowGroup;
use super::pointwise::AddScaled;
use super::transform::Tables;
use super::{BLOCK, Backend, Job};
use crate::aligned::AlignedWords;
use crate::modulus::MAX_LAZY_PRODUCTS;
use crate::pages::Pages;
use crate::wire::pack;
use crate::{Modulus, Ntt, Poly, Ring, RingError};

/// Rows that lie together. Their products for one image take an eighth of a second-level cache, and
/// inputs are read once for all of them.
pub(crate) const GROUP: usize = 4;

/// Returns the words from one product of a group to the next. At a distance of just the degree, the
/// words that are written at a time for all products would fall into the same few sets of a cache;
/// nine cache lines more spread them over all sets.
pub(crate) const fn product_words(degree: usize) -> usize {
    degree + 9 * 8
}

/// The matrix `W~`: rows of `tiles` ring elements.
pub struct RowStore {
    degree: usize,
    tiles: usize,
    rows: usize,
    limbs: Vec<LimbRows>,
    /// The backend whose form they have.
    backend: Backend,
    /// For every limb `[group][block][row of the group][half][tile][32]`, and [`UNPACK_READS`]
    /// bytes that may be read beyond the last.
    bytes: Pages,
}

/// All rows modulo one prime.
struct LimbRows {
    modulus: Modulus,
    /// Bits per residue.
    bits: usize,
    /// The factor that residues are multiplied with where they are held, from [`Lanes::held`].
    factor: u64,
    /// How many rows of this limb lie before each row of the matrix; the last entry counts all.
    before: Vec<u32>,
    /// Where the limb lies in the store's bytes.
    bytes: Range<usize>,
}

impl std::fmt::Debug for RowStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowStore<{} rows of {} tiles, content withheld>", self.rows, self.tiles)
    }
}

impl RowStore {
    /// Returns the bytes of memory of `rows` rows modulo one prime of `bits` bits.
    fn limb_bytes(ring: &Ring, bits: u32, rows: usize, tiles: usize) -> usize {
        // A degree is a multiple of 8.
        let element = ring.degree() / 8 * ring.backend().held_bits(bits);
        // Whole cache lines, so that the next limb begins with one.
        let bytes = element.saturating_mul(rows).saturating_mul(tiles);
        bytes.checked_next_multiple_of(UNPACK_READS).unwrap_or(usize::MAX)
    }

    /// Returns the bytes of memory that rows of `tiles` tiles take; `limbs` says for every row how
    /// many primes it is held modulo.
    pub fn bytes_needed(ring: &Ring, limbs: &[usize], tiles: usize) -> usize {
        let bytes = |(l, m): (usize, &Modulus)| {
            let rows = limbs.iter().filter(|&&limbs| limbs > l).count();
            Self::limb_bytes(ring, m.bits(), rows, tiles)
        };
        ring.moduli().iter().enumerate().map(bytes).fold(UNPACK_READS, usize::saturating_add)
    }

    /// Makes room for rows of `tiles` tiles, all zero; `limbs` says for every row how many of the
    /// first primes it is held modulo.
    ///
    /// # Errors
    /// [`RingError::Length`] for 0 or more than 4096 tiles, for a row of 0 primes or of more than
    /// the ring has; [`RingError::NoMemory`].
    pub fn new(ring: &Ring, limbs: &[usize], tiles: usize) -> Result<Self, RingError> {
        if !(1..=MAX_LAZY_PRODUCTS).contains(&tiles) {
            return Err(RingError::Length { what: "tiles of a row", expected: MAX_LAZY_PRODUCTS, got: tiles });
        }
        if let Some(&got) = limbs.iter().find(|limbs| !(1..=ring.limbs()).contains(*limbs)) {
            return Err(RingError::Length { what: "primes of a row", expected: ring.limbs(), got });
        }
        let got = Self::bytes_needed(ring, limbs, tiles);
        let Some(bytes) = Pages::zero(got) else {
            return Err(RingError::NoMemory { bytes: got });
        };
        let mut end = 0;
        let limb = |(l, m): (usize, &Modulus)| {
            let mut before = Vec::with_capacity(limbs.len() + 1);
            let mut rows = 0;
            for &limbs in limbs {
                before.push(rows);
                rows += u32::from(limbs > l);
            }
            before.push(rows);
            let bytes = end..end + Self::limb_bytes(ring, m.bits(), rows as usize, tiles);
            end = bytes.end;
            let (bits, factor) = (ring.backend().held_bits(m.bits()), ring.backend().run(Held(m)));
            LimbRows { modulus: *m, bits, factor, before, bytes }
        };
        let held = ring.moduli().iter().enumerate().map(limb).collect();
        Ok(Self { degree: ring.degree(), tiles, rows: limbs.len(), limbs: held, backend: ring.backend(), bytes })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of primes that a row is held modulo.
    pub(crate) fn limbs(&self, row: usize) -> usize {
        self.limbs.iter().take_while(|limb| limb.holds(row)).count()
    }

    /// Returns the number of tiles of a row, each a ring element.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Returns the bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the memory held. The masking pass reads it as `Place` says; benchmarks read it
    /// because no product can take less time than reading all of it.
    pub fn memory(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts an element of the matrix into place. It has the limbs of the whole ring or those of the
    /// row. Nothing happens if there is no such row or tile.
    pub fn set(&mut self, row: usize, tile: usize, p: &Poly<Ntt>) {
        if row >= self.rows || tile >= self.tiles {
            return;
        }
        let mut held = Zeroizing::new([0; BLOCK]);
        for (l, limb) in self.limbs.iter().enumerate().filter(|(_, limb)| limb.holds(row)) {
            let (run, row, place) = (limb.run() / 2, limb.before[row] as usize, self.place(l));
            for (b, source) in p.limb(l).as_chunks::<BLOCK>().0.iter().enumerate() {
                // A product added to zero has room for primes of any size.
                held.fill(0);
                let (modulus, scalar) = (&limb.modulus, limb.factor);
                match scalar {
                    1 => held.copy_from_slice(source),
                    _ => self.backend.run(AddScaled { modulus, acc: &mut *held, a: source, scalar }),
                }
                for (half, held) in held.as_chunks::<{ BLOCK / 2 }>().0.iter().enumerate() {
                    let at = place.at(row, b, half, tile);
                    pack(self.backend, limb.bits as u32, held, &mut self.bytes[at..at + run]);
                }
            }
        }
    }

    /// Returns an element as it was [put into place](RowStore::set), modulo all primes that the row
    /// is held modulo.
    pub(crate) fn get(&self, ring: &Ring, row: usize, tile: usize) -> Poly<Ntt> {
        let mut out = Poly::zero(self.limbs(row), self.degree);
        for (l, limb) in self.limbs.iter().enumerate().take(self.limbs(row)) {
            let (m, unheld, place) = (&ring.moduli()[l], limb.modulus.invert(limb.factor), self.place(l));
            for (k, out) in out.limb_mut(l).iter_mut().enumerate() {
                let run = place.at(limb.before[row] as usize, k / BLOCK, k % BLOCK / (BLOCK / 2), tile);
                *out = m.mul(self.bits_at(run, k % (BLOCK / 2), limb.bits), unheld);
            }
        }
        out
    }

    /// Returns the residue number `k` of those that begin at byte `run`, as it is held.
    fn bits_at(&self, run: usize, k: usize, bits: usize) -> u64 {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.bytes[run + k * bits / 8..][..16]);
        (u128::from_le_bytes(bytes) >> (k * bits % 8)) as u64 & ((1 << bits) - 1)
    }

    /// Where the elements of a limb's rows lie.
    pub(crate) fn place(&self, limb: usize) -> Place {
        let held = &self.limbs[limb];
        let (start, blocks) = (held.bytes.start, self.degree / BLOCK);
        Place { start, bits: held.bits, tiles: self.tiles, rows: held.rows(), blocks }
    }

    /// # Errors
    /// [`RingError::Length`] for another ring than the rows were made for, or another backend.
    pub(crate) fn holds_ring(&self, ring: &Ring) -> Result<(), RingError> {
        let same = self.degree == ring.degree() && self.backend == ring.backend();
        match same && ring.moduli().iter().eq(self.limbs.iter().map(|limb| &limb.modulus)) {
            true => Ok(()),
            false => Err(RingError::Length { what: "primes", expected: self.limbs.len(), got: ring.limbs() }),
        }
    }

    /// Puts inputs into the order in which rows read them; an input has [`RowStore::tiles`]
    /// elements.
    ///
    /// # Errors
    /// [`RingError::Length`] if the shape of an input does not fit, or for an empty batch;
    /// [`RingError::Malformed`] for a packed residue that is not below its prime.
    pub fn prepare(&self, ring: &Ring, inputs: Inputs<'_>) -> Result<Batch, RingError> {
        let mut out = Batch::default();
        self.prepare_into(ring, inputs, &mut out)?;
        Ok(out)
    }

    /// Puts inputs into order as [`RowStore::prepare`] does, in the memory of an earlier batch.
    ///
    /// # Errors
    /// [`RingError::Length`] and [`RingError::Malformed`] as for [`RowStore::prepare`].
    pub fn prepare_into(&self, ring: &Ring, inputs: Inputs<'_>, out: &mut Batch) -> Result<(), RingError> {
        out.fill(&Source::new(ring, inputs, self.tiles)?)
    }

    /// Multiplies some rows with every input of a batch. Returns the products as `[row][image]`,
    /// each modulo as many primes as the row is held modulo.
    ///
    /// # Errors
    /// [`RingError::Length`] if there are no such rows or the batch was prepared for another shape
    /// or backend.
    #[cfg(test)]
    pub(crate) fn products(
        &self,
        ring: &Ring,
        batch: &Batch,
        rows: Range<usize>,
    ) -> Result<Vec<Vec<Poly<Ntt>>>, RingError> {
        self.fits(ring, batch, &rows)?;
        let (images, degree) = (batch.images(), ring.degree());
        let none = |row: usize| vec![Poly::zero(self.limbs(row), degree); images];
        let mut products: Vec<Vec<Poly<Ntt>>> = rows.clone().map(none).collect();
        // As many parts at a time as there are threads, each into words of its own.
        for parts in self.parts(rows.clone()).chunks(rayon::current_num_threads()) {
            let multiply = |part: &Part| {
                let mut words = AlignedWords::zero(part.matrix_rows.len() * images * product_words(degree));
                self.multiply(ring, batch, part, None, &mut words);
                words
            };
            let all: Vec<AlignedWords> = parts.par_iter().map(multiply).collect();
            for (part, words) in parts.iter().zip(&all) {
                let places =
                    part.matrix_rows.iter().flat_map(|row| (0..images).map(move |image| (row - rows.start, image)));
                for ((row, image), words) in places.zip(words.chunks_exact(product_words(degree))) {
                    products[row][image].limb_mut(part.limb).copy_from_slice(&words[..degree]);
                }
            }
        }
        Ok(products)
    }

    /// Multiplies all rows with every input of some batches in parallel and drops the products: for
    /// benchmarks.
    ///
    /// # Errors
    /// [`RingError::Length`] if a batch was prepared for another shape or backend.
    pub fn multiply_all(&self, ring: &Ring, batches: &[Batch]) -> Result<(), RingError> {
        batches.iter().try_for_each(|batch| self.fits(ring, batch, &(0..self.rows)))?;
        let most = batches.iter().map(Batch::images).max().unwrap_or(0);
        let words = || AlignedWords::zero(GROUP * most * product_words(ring.degree()));
        self.parts(0..self.rows).into_par_iter().for_each_init(words, |words, part| {
            for batch in batches {
                self.multiply(ring, batch, &part, None, words);
                std::hint::black_box(&mut *words);
            }
        });
        Ok(())
    }

    /// # Errors
    /// [`RingError::Length`] if there are no such rows or the batch was prepared for another shape
    /// or backend.
    pub(crate) fn fits(&self, ring: &Ring, batch: &Batch, rows: &Range<usize>) -> Result<(), RingError> {
        if rows.is_empty() || rows.end > self.rows {
            return Err(RingError::Length { what: "rows", expected: self.rows, got: rows.end });
        }
        let bits = ring.moduli().iter().map(|m| ring.backend().held_bits(m.bits()));
        if self.degree != ring.degree() || !bits.eq(self.limbs.iter().map(|limb| limb.bits)) {
            return Err(RingError::Length { what: "primes", expected: self.limbs.len(), got: ring.limbs() });
        }
        let element = ring.limbs() * ring.degree() * batch.images();
        if element == 0
            || batch.words.len() != self.tiles * element
            || batch.backend != ring.backend()
            || self.backend != batch.backend
        {
            let got = batch.words.len() / element.max(1);
            return Err(RingError::Length { what: "tiles of the input", expected: self.tiles, got });
        }
        Ok(())
    }

    /// Cuts some rows into parts, each of one group modulo one prime, in the order in which they
    /// lie. Parts are smaller than groups where there are more threads than groups.
    pub(crate) fn parts(&self, rows: Range<usize>) -> Vec<Part> {
        let mut parts: Vec<Part> = vec![];
        let most = (rows.len() * self.limbs.len() / rayon::current_num_threads()).clamp(1, GROUP);
        for (limb, held) in self.limbs.iter().enumerate() {
            for row in rows.clone().filter(|&row| held.holds(row)) {
                let at = held.before[row] as usize;
                match parts.last_mut() {
                    Some(part)
                        if part.limb == limb && part.first / GROUP == at / GROUP && part.matrix_rows.len() < most =>
                    {
                        part.matrix_rows.push(row);
                    }
                    _ => parts.push(Part { limb, first: at, matrix_rows: vec![row] }),
                }
            }
        }
        parts
    }

    /// Returns the bytes that lie behind a part of the rows, which its thread most likely reads
    /// next.
    pub(crate) fn behind(&self, part: &Part) -> &[u8] {
        let limb = &self.limbs[part.limb];
        let group = limb.group(part.first);
        let element = self.degree / BLOCK * limb.run() * self.tiles;
        self.bytes.get(limb.bytes.start + group.end * element + AHEAD..).unwrap_or_default()
    }

    /// Multiplies a part of the rows with every input of a batch that [fits](RowStore::fits). The
    /// front of `out` becomes `[row][image][`[`product_words`]`]`: canonical values, or, with
    /// `back`, blocks as [`Tables::go_on`] leaves them.
    pub(crate) fn multiply(&self, ring: &Ring, batch: &Batch, part: &Part, back: Option<&Tables>, out: &mut [u64]) {
        let (limb, rows) = (&self.limbs[part.limb], part.matrix_rows.len());
        let (images, blocks) = (batch.images(), ring.degree() / BLOCK);
        let row_bytes = self.tiles * limb.run();
        let block_bytes = limb.group(part.first).len() * row_bytes;
        let start = self.place(part.limb).at(part.first, 0, 0, 0);
        let words = self.tiles * images * ring.degree();
        ring.backend().run(RowGroup {
            modulus: &ring.moduli()[part.limb],
            tiles: self.tiles,
            bits: limb.bits,
            images,
            rows,
            w: &self.bytes[start..start + (blocks - 1) * block_bytes + rows * row_bytes + UNPACK_READS],
            block_bytes,
            x: &batch.words[part.limb * words..][..words],
            back,
            out: &mut out[..rows * images * product_words(ring.degree())],
        });
    }
}

/// Some rows of one group modulo one prime.
pub(crate) struct Part {
    pub(crate) limb: usize,
    /// Index of the first of them among the rows of the limb; the others follow.
    first: usize,
    /// Their indices in the matrix.
    pub(crate) matrix_rows: Vec<usize>,
}

/// Returns the rows, among `rows`, of the group that `row` lies in.
fn group(row: usize, rows: usize) -> Range<usize> {
    let first = row / GROUP * GROUP;
    first..rows.min(first + GROUP)
}

/// Where the elements of one limb's rows lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    start: usize,
    bits: usize,
    tiles: usize,
    rows: usize,
    blocks: usize,
}

impl Place {
    /// Bits per residue.
    pub(crate) fn bits(&self) -> usize {
        self.bits
    }

    /// Returns the byte at which one half of a block begins, for a tile of a row of this limb.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize, block: usize, half: usize, tile: usize) -> usize {
        let group = group(row, self.rows);
        // Blocks that lie before this row's: in earlier groups, and in its own.
        let before = group.start * self.blocks + block * group.len() + (row - group.start);
        self.start + ((2 * before + half) * self.tiles + tile) * (BLOCK / 16 * self.bits)
    }
}

impl LimbRows {
    /// Returns the bytes of a block of one tile.
    fn run(&self) -> usize {
        BLOCK / 8 * self.bits
    }

    /// Returns the rows of this limb that lie in one group with `row`.
    fn group(&self, row: usize) -> Range<usize> {
        group(row, self.rows())
    }

    /// Returns the number of rows that this limb has.
    fn rows(&self) -> usize {
        self.before.last().map_or(0, |&rows| rows as usize)
    }

    /// Returns whether the limb has this row of the matrix.
    fn holds(&self, row: usize) -> bool {
        self.before[row + 1] > self.before[row]
    }
}

impl Zeroize for RowStore {
    fn zeroize(&mut self) {
        self.bytes.zeroize();
    }
}

/// Returns [`Lanes::held`] for a backend's lanes.
struct Held<'a>(&'a Modulus);

impl Job for Held<'_> {
    type Out = u64;

    fn run<V: Lanes>(self) -> u64 {
        V::held(self.0)
    }
}

/// The oracle: no blocking, no lazy reduction, the machine's own division.
impl RowStore {
    /// Multiplies one row with one input, one product and one division at a time.
    pub fn product_naive(&self, ring: &Ring, row: usize, x: &[Poly<Ntt>]) -> Poly<Ntt> {
        let held = self.limbs.iter().take_while(|limb| limb.holds(row));
        let mut out = Poly::zero(held.clone().count(), ring.degree());
        for (l, limb) in held.enumerate() {
            let (m, row, place) = (&ring.moduli()[l], limb.before[row] as usize, self.place(l));
            let (p, unheld) = (u128::from(m.value()), u128::from(m.invert(limb.factor)));
            for (k, o) in out.limb_mut(l).iter_mut().enumerate() {
                for (tile, x) in x.iter().enumerate() {
                    let run = place.at(row, k / BLOCK, k % BLOCK / (BLOCK / 2), tile);
                    let w = u128::from(self.bits_at(run, k % (BLOCK / 2), limb.bits));
                    let product = u128::from(x.limb(l)[k]) * (w * unheld % p);
                    *o = ((u128::from(*o) + product) % p) as u64;
                }
            }
        }
        out
    }
}
