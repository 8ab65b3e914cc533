//! The multiplication of rows: `r[o] = sum_i W~[o][i] * x~[i]` for some rows of a
//! [`RowStore`](super::RowStore), block by block, reading `W~` once and in the order in which it
//! lies.
//!
//! Sums stay in registers until a row ends. Where a product is to be transformed back, the
//! transform begins before the product's block leaves the first-level cache.

use super::lanes::{AHEAD, Lanes, UNPACK_READS, array_at, item_at, item_at_mut, prefetch};
use super::rows::product_words;
use super::transform::{Tables, holds_rows, load_runs, store_runs};
use super::{BLOCK, Job};
use crate::Modulus;

/// Some rows of one group of one limb, all blocks, all images.
pub(super) struct RowGroup<'a> {
    pub(super) modulus: &'a Modulus,
    pub(super) tiles: usize,
    pub(super) bits: usize,
    pub(super) images: usize,
    pub(super) rows: usize,
    pub(super) w: &'a [u8],
    /// Bytes from one block of the group to the next.
    pub(super) block_bytes: usize,
    pub(super) x: &'a [u64],
    /// The tables if products are transformed back: the transform begins while a block is in the
    /// first-level cache.
    pub(super) back: Option<&'a Tables>,
    pub(super) out: &'a mut [u64],
}

/// Returns the groups of lanes of a block.
const fn groups<V: Lanes>() -> usize {
    BLOCK / V::LANES
}

impl Job for RowGroup<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { tiles, bits, images, rows, block_bytes, .. } = self;
        let (group_bytes, row_bytes) = (V::LANES * bits / 8, tiles * BLOCK / 8 * bits);
        let (p, spread, fold_every) =
            (V::prime(self.modulus), V::spread(bits), V::products_between_folds(self.modulus));
        let back = self.back.filter(|_| holds_rows::<V>());
        // Whether a sum may be above 2p when it is closed.
        let wide = tiles > 1 << 51u32.saturating_sub(self.modulus.bits());
        let inputs = tiles * images * BLOCK;
        // Inputs come from an outer cache: each row prefetches its share of those of the next pass.
        let passes = if images == 1 { 1 } else { groups::<V>() };
        let (share, slice) = (inputs.div_ceil(rows * passes), inputs / passes);
        let stride = product_words(self.x.len() / (tiles * images));
        for (block, x) in self.x.chunks_exact(inputs).enumerate() {
            let start = block * block_bytes;
            for g in 0..passes {
                for (row, out) in self.out.chunks_exact_mut(images * stride).enumerate() {
                    let at = start + row * row_bytes;
                    // `RowJob` relies on three lengths: this slice fixes that of a row of `w`, the
                    // chunks fix that of `x`, and the slice of `out` is cut below.
                    let w = &self.w[at..at + row_bytes + UNPACK_READS];
                    // With several images a block is gone through once for each group of lanes. It
                    // comes from memory with the first group and from the cache with the others, so
                    // each group prefetches its share of the rows' next block.
                    let ahead = match images {
                        1 => at + AHEAD,
                        _ => at + block_bytes + g * (row_bytes / groups::<V>()),
                    };
                    let asks = g * rows + row;
                    for word in (asks * share..(asks + 1) * share).step_by(8) {
                        prefetch(x, slice + word);
                    }
                    let (ahead, then) = ((self.w, ahead), (back, block, wide));
                    // From the first image's block to the last image's.
                    let out = &mut out[block * BLOCK..(images - 1) * stride + (block + 1) * BLOCK];
                    let x = V::split(x);
                    let job = RowJob::<V> { tiles, images, group_bytes, w, ahead, x, spread, p, fold_every, then };
                    match images {
                        1 => job.one_image(out),
                        _ => job.all_images(g, out, stride),
                    }
                }
            }
            // A single image's blocks were ended while they were in registers.
            let several = if images > 1 { &mut *self.out } else { &mut [] };
            for product in several.chunks_exact_mut(stride) {
                let words = V::split_mut(&mut product[block * BLOCK..][..BLOCK]);
                for words in words.as_chunks_mut::<8>().0 {
                    end::<V>(load_runs(words, 0, 1, false), (back, block, wide), words, &p);
                }
            }
            if let Some(tables) = back {
                tables.go_on::<V>((&mut *self.out, stride), block, &p);
            }
        }
    }
}

/// Ends the sums of eight groups of lanes of a block and writes them to `out`. Without `back` they
/// become canonical. With it, the eight groups are the whole block, and it is written as
/// [`Tables::begin_inverse`] leaves it. `wide` says whether sums may be above 2p.
#[inline(always)]
fn end<V: Lanes>(
    mut sums: [V; 8],
    (back, block, wide): (Option<&Tables>, usize, bool),
    out: &mut [V::Words; 8],
    p: &V::Prime,
) {
    if wide {
        for sum in &mut sums {
            *sum = sum.settle(p);
        }
    }
    match back {
        Some(tables) => store_runs(out, 0, 1, &tables.begin_inverse(sums, block, p)),
        None => {
            for n in 0..8 {
                sums[n].leave_small(p, &mut out[n]);
            }
        }
    }
}

struct RowJob<'a, V: Lanes> {
    tiles: usize,
    images: usize,
    /// Bytes of a packed group of lanes.
    group_bytes: usize,
    w: &'a [u8],
    /// The bytes that are prefetched while this row is read, and where in them that begins.
    ahead: (&'a [u8], usize),
    x: &'a [V::Words],
    fold_every: usize,
    spread: V::Spread,
    p: V::Prime,
    /// The second argument of [`end`] for the sums of one image.
    then: (Option<&'a Tables>, usize, bool),
}

impl<V: Lanes> RowJob<'_, V> {
    /// Returns the byte at which a group of lanes of the first tile begins, and the bytes from a
    /// tile to the next.
    #[inline(always)]
    fn place(&self, group: usize) -> (usize, usize) {
        let half = groups::<V>() / 2;
        ((group / half * self.tiles * half + group % half) * self.group_bytes, half * self.group_bytes)
    }

    /// Multiplies one block of the row with a single image and ends its sums.
    #[inline(always)]
    fn one_image(&self, out: &mut [u64]) {
        for (eight, out) in V::split_mut(out).as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut x = [V::splat(0); 8];
            if groups::<V>() == 8 {
                // Only as many sums at a time as hide the latency of a multiply-add: so one thread
                // reads a twentieth more from memory than with eight.
                x[..4].copy_from_slice(&self.sums::<4>(0));
                x[4..].copy_from_slice(&self.sums::<4>(4));
            } else {
                x = self.sums::<8>(8 * eight);
            }
            end::<V>(x, self.then, out, &self.p);
        }
    }

    /// Sums over all tiles for `S` groups of lanes of a single image, from `group` on. Sums are
    /// folded after every run of `fold_every` tiles.
    #[inline(always)]
    fn sums<const S: usize>(&self, group: usize) -> [V; S] {
        let (mut sums, step, tiles) = ([V::no_products(); S], self.group_bytes, self.tiles);
        let ((mut at, run), mut from) = (self.place(group), group * tiles);
        let (mut ahead, asks) = (self.ahead.1 + at, group.is_multiple_of(groups::<V>() / 2));
        let mut left = tiles;
        loop {
            for _ in 0..left.min(self.fold_every) {
                // The cache lines of half a block of a tile; a last line that is not full is
                // prefetched with the next half.
                if asks {
                    prefetch(self.ahead.0, ahead);
                    prefetch(self.ahead.0, ahead + 64);
                    if run > 144 {
                        prefetch(self.ahead.0, ahead + 128);
                    }
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
        let mut x = [V::splat(0); S];
        for n in 0..S {
            x[n] = V::close(sums[n], &self.p);
        }
        x
    }

    /// Multiplies one group of lanes of the row's block with all images, up to eight at a time. The
    /// sums of an image go to `out`, `stride` words after those of the image before.
    #[inline(always)]
    fn all_images(&self, group: usize, out: &mut [u64], stride: usize) {
        let mut image = 0;
        while image + 8 <= self.images {
            self.some_images::<8>(group, image, out, stride);
            image += 8;
        }
        while image + 4 <= self.images {
            self.some_images::<4>(group, image, out, stride);
            image += 4;
        }
        while image + 2 <= self.images {
            self.some_images::<2>(group, image, out, stride);
            image += 2;
        }
        if image < self.images {
            self.some_images::<1>(group, image, out, stride);
        }
    }

    /// Does the part of [`RowJob::all_images`] for `S` images from `image` on, and closes their
    /// sums without ending them.
    #[inline(always)]
    fn some_images<const S: usize>(&self, group: usize, image: usize, out: &mut [u64], stride: usize) {
        let (mut sums, step, images) = ([V::no_products(); S], self.group_bytes, self.images);
        let ((mut at, run), mut from) = (self.place(group), group * self.tiles * images + image);
        let mut ahead = self.ahead.1;
        let mut left = self.tiles;
        loop {
            for _ in 0..left.min(self.fold_every) {
                prefetch(self.ahead.0, ahead);
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
        for n in 0..S {
            V::close(sums[n], &self.p).store(item_at_mut(out, (image + n) * (stride / V::LANES) + group));
        }
    }
}
