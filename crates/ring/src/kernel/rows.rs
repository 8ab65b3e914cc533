//! Rows of ring elements in the order in which they are read, and their product with masked inputs.
//!
//! `W~` is stored `[limb][block of 32 coefficients][row][tile][32 residues]`, residues in as many bits as their prime has, or in whole bytes where
//! the kernel cannot read any bits. For one block of coefficients the inputs of all tiles (and of all images of a batch) fit the first-level
//! cache; `W~` streams past them once, in storage order, whatever the batch. Accumulators stay in registers until a
//! row ends. A row may be held modulo the first primes only: the other limbs go without it.

use std::ops::Range;

use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use super::inputs::{Batch, Inputs, PREPARED, Source};
use super::lanes::{AHEAD, Lanes, UNPACK_READS, array_at, item_at, prefetch, prefetch_outer};
use super::transform::Runs;
use super::{BLOCK, Job, Kernel};
use crate::aligned::AlignedWords;
use crate::modulus::MAX_LAZY_PRODUCTS;
use crate::pages::Pages;
use crate::wire::pack;
use crate::{Modulus, Ntt, Poly, Ring, RingError};

/// The matrix `W~`: rows of `tiles` ring elements.
pub struct RowStore {
    tiles: usize,
    rows: usize,
    limbs: Vec<LimbRows>,
    /// Who can read them.
    kernel: Kernel,
    /// Of every limb `[block][row of this limb][tile][32]`, and [`UNPACK_READS`] bytes to read beyond the last.
    bytes: Pages,
}

/// All rows modulo one prime.
struct LimbRows {
    /// Bits per residue.
    bits: usize,
    /// Rows of this limb before each row of the matrix, and all of them.
    before: Vec<u32>,
    /// Where it lies.
    bytes: Range<usize>,
}

impl std::fmt::Debug for RowStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowStore<{} rows of {} tiles, content withheld>", self.rows, self.tiles)
    }
}

impl RowStore {
    /// Bytes of memory of all rows modulo one prime.
    fn limb_bytes(ring: &Ring, bits: u32, rows: usize, tiles: usize) -> usize {
        // A degree is a multiple of 8.
        let element = ring.degree() / 8 * ring.kernel().held_bits(bits);
        // Whole cache lines, so that the next limb begins with one.
        let bytes = element.saturating_mul(rows).saturating_mul(tiles);
        bytes.checked_next_multiple_of(UNPACK_READS).unwrap_or(usize::MAX)
    }

    /// Bytes of memory that rows of so many tiles take; `limbs` says for every row how many primes it is held modulo.
    pub fn bytes_needed(ring: &Ring, limbs: &[usize], tiles: usize) -> usize {
        let bytes = |(l, m): (usize, &Modulus)| {
            let rows = limbs.iter().filter(|&&limbs| limbs > l).count();
            Self::limb_bytes(ring, m.bits(), rows, tiles)
        };
        ring.moduli().iter().enumerate().map(bytes).fold(UNPACK_READS, usize::saturating_add)
    }

    /// Room for rows; `limbs` says for every one how many of the first primes it is held modulo. The content is zero.
    ///
    /// # Errors
    /// [`RingError::Length`] for 0 or more than 4096 tiles, for a row of 0 primes or of more than the ring has, or if the memory
    /// cannot be had.
    pub fn new(ring: &Ring, limbs: &[usize], tiles: usize) -> Result<Self, RingError> {
        if !(1..=MAX_LAZY_PRODUCTS).contains(&tiles) {
            return Err(RingError::Length { what: "tiles of a row", expected: MAX_LAZY_PRODUCTS, got: tiles });
        }
        if let Some(&got) = limbs.iter().find(|limbs| !(1..=ring.limbs()).contains(*limbs)) {
            return Err(RingError::Length { what: "primes of a row", expected: ring.limbs(), got });
        }
        let got = Self::bytes_needed(ring, limbs, tiles);
        let Some(bytes) = Pages::zero(got) else {
            return Err(RingError::Length { what: "bytes of memory for the rows", expected: 0, got });
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
            LimbRows { bits: ring.kernel().held_bits(m.bits()), before, bytes }
        };
        let held = ring.moduli().iter().enumerate().map(limb).collect();
        Ok(Self { tiles, rows: limbs.len(), limbs: held, kernel: ring.kernel(), bytes })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Modulo how many primes a row is held.
    pub(crate) fn limbs(&self, row: usize) -> usize {
        self.limbs.iter().take_while(|limb| limb.holds(row)).count()
    }

    /// Ring elements per row.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The memory held, for benchmarks: what it takes to read it all is the limit of what products may take.
    pub fn memory(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts a ring element into place: of the whole ring or of the row's primes. Nothing happens outside the matrix.
    pub fn set(&mut self, row: usize, tile: usize, p: &Poly<Ntt>) {
        if row >= self.rows || tile >= self.tiles {
            return;
        }
        for (l, limb) in self.limbs.iter().enumerate().filter(|(_, limb)| limb.holds(row)) {
            let (run, rows, row) = (limb.run(), limb.rows(), limb.before[row] as usize);
            for (b, source) in p.limb(l).as_chunks::<BLOCK>().0.iter().enumerate() {
                let at = limb.bytes.start + ((b * rows + row) * self.tiles + tile) * run;
                pack(self.kernel, limb.bits as u32, source, &mut self.bytes[at..at + run]);
            }
        }
    }

    /// Inputs in the order in which rows read them; an input has `tiles` elements.
    ///
    /// # Errors
    /// [`RingError::Length`] if the shape of an input does not fit, or for an empty batch; [`RingError::Malformed`] for a packed residue that is
    /// not below its prime.
    pub fn prepare(&self, ring: &Ring, inputs: Inputs<'_>) -> Result<Batch, RingError> {
        let mut out = Batch::default();
        self.prepare_into(ring, inputs, &mut out)?;
        Ok(out)
    }

    /// As [`RowStore::prepare`], into memory that an earlier call has used.
    ///
    /// # Errors
    /// As [`RowStore::prepare`].
    pub fn prepare_into(&self, ring: &Ring, inputs: Inputs<'_>, out: &mut Batch) -> Result<(), RingError> {
        out.fill(&Source::new(ring, inputs, self.tiles)?)
    }

    /// Some rows times every input of a batch, `[row][image]`, each modulo as many primes as the row is held modulo.
    ///
    /// # Errors
    /// As [`RowStore::products_into`].
    pub fn products(&self, ring: &Ring, batch: &Batch, rows: Range<usize>) -> Result<Vec<Vec<Poly<Ntt>>>, RingError> {
        let mut all = Products::default();
        self.products_into(ring, batch, 0..ring.limbs(), rows.clone(), &mut all)?;
        let poly = |row: usize, image: usize| {
            let limbs = (0..ring.limbs()).filter(|&l| self.limbs[l].holds(rows.start + row)).count();
            let mut out = Poly::zero(limbs, ring.degree());
            for (l, runs) in (0..limbs).filter_map(|l| Some((l, all.runs(l, row, image)?))) {
                let outs = out.limb_mut(l).as_chunks_mut::<BLOCK>().0;
                outs.iter_mut()
                    .enumerate()
                    .for_each(|(b, out)| out.copy_from_slice(&runs.words[b * runs.stride..][..BLOCK]));
            }
            out
        };
        Ok((0..rows.len()).map(|row| (0..batch.images).map(|image| poly(row, image)).collect()).collect())
    }

    /// Some rows times every input of a batch modulo some of the primes, into memory that an earlier call has used.
    ///
    /// # Errors
    /// [`RingError::Length`] if there are no such rows or primes or the batch was prepared for another shape or kernel.
    pub fn products_into(
        &self,
        ring: &Ring,
        batch: &Batch,
        limbs: Range<usize>,
        rows: Range<usize>,
        out: &mut Products,
    ) -> Result<(), RingError> {
        let (images, blocks) = (batch.images, ring.degree() / BLOCK);
        let inputs = self.tiles * images * BLOCK;
        if batch.words.len() != ring.limbs() * blocks * inputs || batch.kernel != ring.kernel() {
            let got = batch.words.len() / (ring.limbs() * blocks * images * BLOCK);
            return Err(RingError::Length { what: "tiles of the input", expected: self.tiles, got });
        }
        let jobs = self.jobs(ring, (limbs, rows.clone()), images, 1, out)?;
        let least = (65_536 / (rows.len() * images * BLOCK * self.tiles)).max(1);
        jobs.into_par_iter().with_min_len(least).for_each(|(limb, block, out)| {
            let x = &batch.words[(limb * blocks + block) * inputs..][..inputs];
            self.block(ring, (limb, block), &rows, images, x, out);
        });
        Ok(())
    }

    /// The same for inputs as they come: each part of them is put into order where it is used. For few inputs, whose order is not worth a pass of
    /// its own over all of them.
    ///
    /// # Errors
    /// As [`RowStore::products_into`] and [`RowStore::prepare`].
    pub fn products_of(
        &self,
        ring: &Ring,
        inputs: Inputs<'_>,
        limbs: Range<usize>,
        rows: Range<usize>,
        out: &mut Products,
    ) -> Result<(), RingError> {
        let (source, images) = (Source::new(ring, inputs, self.tiles)?, inputs.images());
        let jobs = self.jobs(ring, (limbs, rows.clone()), images, PREPARED, out)?;
        let words = || Zeroizing::new(AlignedWords::zero(source.words()));
        jobs.into_par_iter().try_for_each_init(words, |words, (limb, first, out)| {
            source.arrange(limb, first, words)?;
            let part = out.len() / PREPARED;
            let parts = words.chunks_exact(source.block_words()).zip(out.chunks_exact_mut(part));
            for (block, (x, out)) in parts.enumerate() {
                self.block(ring, (limb, first + block), &rows, images, x, out);
            }
            Ok(())
        })
    }

    /// What can be computed independently: some blocks of one limb, from which on and where to.
    fn jobs<'o>(
        &self,
        ring: &Ring,
        (limbs, rows): (Range<usize>, Range<usize>),
        images: usize,
        blocks: usize,
        out: &'o mut Products,
    ) -> Result<Vec<BlockJob<'o>>, RingError> {
        if rows.is_empty() || rows.end > self.rows {
            return Err(RingError::Length { what: "rows", expected: self.rows, got: rows.end });
        }
        if limbs.is_empty() || limbs.end > self.limbs.len() || self.limbs.len() != ring.limbs() {
            return Err(RingError::Length { what: "primes", expected: self.limbs.len(), got: limbs.end });
        }
        if self.kernel != ring.kernel() {
            return Err(RingError::Kernel { name: ring.kernel().name().into(), available: self.kernel.name().into() });
        }
        out.take(self, limbs.clone(), rows.clone(), images, ring.degree());
        let all = ring.degree() / BLOCK;
        let mut jobs = Vec::with_capacity(limbs.len() * all / blocks);
        let mut words = &mut out.words[..];
        for (limb, held) in self.limbs.iter().enumerate().take(limbs.end).skip(limbs.start) {
            let run = held.count(&rows) * images * BLOCK;
            let (part, rest) = words.split_at_mut(run * all);
            words = rest;
            if run > 0 {
                let parts = part.chunks_exact_mut(run * blocks).enumerate();
                jobs.extend(parts.map(|(part, out)| (limb, part * blocks, out)));
            }
        }
        Ok(jobs)
    }

    /// Some rows of one block of one limb.
    fn block(
        &self,
        ring: &Ring,
        (limb, block): (usize, usize),
        rows: &Range<usize>,
        images: usize,
        x: &[u64],
        out: &mut [u64],
    ) {
        let held = &self.limbs[limb];
        let row_bytes = self.tiles * held.run();
        let at = |row: usize| (block * held.rows() + held.before[row] as usize) * row_bytes;
        let bytes = &self.bytes[held.bytes.start..held.bytes.end + UNPACK_READS];
        let w = &bytes[at(rows.start)..at(rows.end) + UNPACK_READS];
        // Its own rows of the next block are what the same thread reads then.
        let next = bytes.get(at(rows.start) + held.rows() * row_bytes..).unwrap_or_default();
        let shape = Shape { tiles: self.tiles, bits: held.bits, images };
        ring.kernel().run(RowBlock { modulus: &ring.moduli()[limb], shape, w, next, x, out });
    }
}

impl LimbRows {
    /// Bytes of a block of one tile.
    fn run(&self) -> usize {
        BLOCK / 8 * self.bits
    }

    /// Number of rows that this limb has.
    fn rows(&self) -> usize {
        self.before.last().map_or(0, |&rows| rows as usize)
    }

    /// How many of a range it has.
    fn count(&self, rows: &Range<usize>) -> usize {
        (self.before[rows.end] - self.before[rows.start]) as usize
    }

    /// Whether it has this row.
    fn holds(&self, row: usize) -> bool {
        self.before[row + 1] > self.before[row]
    }
}

impl Zeroize for RowStore {
    fn zeroize(&mut self) {
        self.bytes.zeroize();
    }
}

/// Some rows times inputs, `[limb][block][row of this limb][image][32]`.
#[derive(Default)]
pub struct Products {
    images: usize,
    /// The first limb that is there.
    first: usize,
    /// For every limb from there on where it begins, how many rows it has, and for every row how many of them come before.
    limbs: Vec<(usize, usize, Vec<u32>)>,
    words: AlignedWords,
}

impl std::fmt::Debug for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Products<{} limbs, {} images, content withheld>", self.limbs.len(), self.images)
    }
}

impl Products {
    /// Room for the products of some rows, whose content is about to be overwritten.
    fn take(&mut self, store: &RowStore, limbs: Range<usize>, rows: Range<usize>, images: usize, degree: usize) {
        (self.first, self.images) = (limbs.start, images);
        self.limbs.clear();
        let mut len = 0;
        for held in &store.limbs[limbs] {
            let (first, count) = (held.before[rows.start], held.count(&rows));
            let before = held.before[rows.start..=rows.end].iter().map(|b| b - first).collect();
            self.limbs.push((len, count, before));
            len += count * images * degree;
        }
        self.words.resize(len);
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        8 * self.words.capacity()
    }

    /// Where the product of one row, counted from the first of these, and one image modulo one prime lies. `None` if the row is not held
    /// modulo it.
    pub(crate) fn runs(&self, limb: usize, row: usize, image: usize) -> Option<Runs<'_>> {
        let (start, rows, before) = self.limbs.get(limb.checked_sub(self.first)?)?;
        if *before.get(row + 1)? == before[row] {
            return None;
        }
        let at = start + (before[row] as usize * self.images + image) * BLOCK;
        Some(Runs { words: self.words.get(at..)?, stride: rows * self.images * BLOCK })
    }
}

impl Zeroize for Products {
    fn zeroize(&mut self) {
        self.words.zeroize();
    }
}

/// Some blocks of one limb, the index of the first, and where their products belong.
type BlockJob<'o> = (usize, usize, &'o mut [u64]);

#[derive(Clone, Copy)]
struct Shape {
    tiles: usize,
    bits: usize,
    images: usize,
}

/// One block of coefficients of one limb, some rows, all images.
struct RowBlock<'a> {
    modulus: &'a Modulus,
    shape: Shape,
    w: &'a [u8],
    /// What is read after `w`.
    next: &'a [u8],
    x: &'a [u64],
    out: &'a mut [u64],
}

/// Coefficients `BLOCK` at a time in groups of lanes.
const fn groups<V: Lanes>() -> usize {
    BLOCK / V::LANES
}

impl Job for RowBlock<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Shape { tiles, bits, images } = self.shape;
        let (group_bytes, row_bytes) = (V::LANES * bits / 8, tiles * BLOCK / 8 * bits);
        let (p, spread, fold_every) =
            (V::prime(self.modulus), V::spread(bits), V::products_between_folds(self.modulus));
        // Two lengths that `RowJob` relies on: that of a row of `w` by this slice, that of `x` by `RowStore::block`.
        let job = |row: usize, group: usize| {
            let w = &self.w[row * row_bytes..(row + 1) * row_bytes + UNPACK_READS];
            let (at, end) = (row * row_bytes + AHEAD, self.w.len() - UNPACK_READS);
            let ahead = match images {
                1 if at < end => (self.w, at),
                1 => (self.next, at - end),
                // Several images go through a block group by group, so that it comes from memory with the first group and from the cache
                // with the others: each group asks for its share of the next block.
                _ => (self.next, row * row_bytes + group * (row_bytes / groups::<V>())),
            };
            RowJob::<V> { tiles, images, group_bytes, w, ahead, x: V::split(self.x), spread, p, fold_every }
        };
        let count = self.out.len() / (images * BLOCK);
        let rows = self.out.chunks_exact_mut(images * BLOCK).enumerate();
        // Inputs come from an outer cache for every few rows: each row asks for its share of the group of lanes (one image: of the block)
        // that follows in memory.
        let at_once = if images == 1 { groups::<V>() } else { 1 };
        let words = at_once * tiles * images * V::LANES;
        let share = words.div_ceil(count);
        let ask = |group: usize, row: usize| {
            for at in (row * share..(row + 1) * share).step_by(8) {
                prefetch::<V, _>(self.x, (group + at_once) * (words / at_once) + at);
            }
        };
        if images == 1 {
            for (row, out) in rows {
                ask(0, row);
                // As many sums at once as hide the latency of a multiply-add.
                match groups::<V>() {
                    4 => job(row, 0).one_image::<4>(0, out),
                    _ => {
                        for g in 0..groups::<V>() / 8 {
                            job(row, 0).one_image::<8>(8 * g, out);
                        }
                    }
                }
            }
            return;
        }
        // One group of lanes after the other: its inputs, of all images, stay in the first-level cache for all rows.
        let mut rows: Vec<_> = rows.collect();
        for g in 0..groups::<V>() {
            for (row, out) in &mut rows {
                ask(g, *row);
                let (job, mut image) = (job(*row, g), 0);
                while image + 8 <= images {
                    job.some_images::<8>(g, image, out);
                    image += 8;
                }
                while image + 4 <= images {
                    job.some_images::<4>(g, image, out);
                    image += 4;
                }
                while image + 2 <= images {
                    job.some_images::<2>(g, image, out);
                    image += 2;
                }
                if image < images {
                    job.some_images::<1>(g, image, out);
                }
            }
        }
    }
}

struct RowJob<'a, V: Lanes> {
    tiles: usize,
    images: usize,
    /// Bytes of a group of lanes.
    group_bytes: usize,
    w: &'a [u8],
    /// What the memory is asked for while this row is read, and where it begins.
    ahead: (&'a [u8], usize),
    x: &'a [V::Words],
    fold_every: usize,
    spread: V::Spread,
    p: V::Prime,
}

impl<V: Lanes> RowJob<'_, V> {
    /// Sums over all tiles of `S` groups of one image, put into place. The tiles come in runs between which sums are folded.
    #[inline(always)]
    fn one_image<const S: usize>(&self, group: usize, out: &mut [u64]) {
        let (mut sums, step) = ([V::no_products(); S], self.group_bytes);
        let (run, tiles) = (groups::<V>() * step, self.tiles);
        let (mut at, mut from, mut ahead) = (group * step, group * tiles, self.ahead.1);
        let mut left = tiles;
        loop {
            for _ in 0..left.min(self.fold_every) {
                // The lines of a tile; what it ends with is asked for with the next.
                prefetch_outer::<V, _>(self.ahead.0, ahead);
                prefetch_outer::<V, _>(self.ahead.0, ahead + 64);
                if run > 144 {
                    prefetch_outer::<V, _>(self.ahead.0, ahead + 128);
                }
                for n in 0..S {
                    let (x, w) = (V::load(item_at(self.x, from + n * tiles)), array_at(self.w, at + n * step));
                    sums[n] = V::accumulate(sums[n], x, V::unpack(w, &self.spread), &self.p);
                }
                (at, from, ahead) = (at + run, from + 1, ahead + run);
            }
            if left <= self.fold_every {
                break;
            }
            left -= self.fold_every;
            for s in &mut sums {
                *s = V::fold(*s, &self.p);
            }
        }
        for (sum, out) in sums.into_iter().zip(&mut V::split_mut(out)[group..]) {
            V::finish(sum, &self.p, out);
        }
    }

    /// The same for one group of `S` images, `[image][32]`.
    #[inline(always)]
    fn some_images<const S: usize>(&self, group: usize, image: usize, out: &mut [u64]) {
        let (mut sums, step, images) = ([V::no_products(); S], self.group_bytes, self.images);
        let run = groups::<V>() * step;
        let (mut at, mut from, mut ahead) = (group * step, group * self.tiles * images + image, self.ahead.1);
        let mut left = self.tiles;
        loop {
            for _ in 0..left.min(self.fold_every) {
                prefetch::<V, _>(self.ahead.0, ahead);
                let w = V::unpack(array_at(self.w, at), &self.spread);
                for n in 0..S {
                    sums[n] = V::accumulate(sums[n], V::load(item_at(self.x, from + n)), w, &self.p);
                }
                (at, from, ahead) = (at + run, from + images, ahead + step);
            }
            if left <= self.fold_every {
                break;
            }
            left -= self.fold_every;
            for s in &mut sums {
                *s = V::fold(*s, &self.p);
            }
        }
        let out = V::split_mut(out);
        for (n, sum) in sums.into_iter().enumerate() {
            V::finish(sum, &self.p, &mut out[(image + n) * groups::<V>() + group]);
        }
    }
}

/// The oracle: no blocking, no lazy reduction, the machine's own division.
impl RowStore {
    /// One row times one input, one product and one division at a time.
    pub fn product_naive(&self, ring: &Ring, row: usize, x: &[Poly<Ntt>]) -> Poly<Ntt> {
        let held = self.limbs.iter().take_while(|limb| limb.holds(row));
        let mut out = Poly::zero(held.clone().count(), ring.degree());
        for (l, limb) in held.enumerate() {
            let (p, first) = (u128::from(ring.moduli()[l].value()), limb.before[row] as usize);
            for (k, o) in out.limb_mut(l).iter_mut().enumerate() {
                for (tile, x) in x.iter().enumerate() {
                    let run = ((k / BLOCK * limb.rows() + first) * self.tiles + tile) * limb.run();
                    let bit = k % BLOCK * limb.bits;
                    let mut bytes = [0; 16];
                    bytes.copy_from_slice(&self.bytes[limb.bytes.start + run + bit / 8..][..16]);
                    let w = u128::from_le_bytes(bytes) >> (bit % 8) & ((1 << limb.bits) - 1);
                    let product = u128::from(x.limb(l)[k]) * w;
                    *o = ((u128::from(*o) + product) % p) as u64;
                }
            }
        }
        out
    }
}
