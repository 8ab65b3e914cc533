//! Rows times inputs, transformed back to the coefficients that are wanted: what a server does with its matrix, and a client with the hints and
//! secrets of the rows.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;
use zeroize::Zeroize;

use crate::aligned::AlignedWords;
use crate::kernel::{Batch, Inputs, Products};
use crate::{Pruning, Ring, RingError, RowStore};

/// Products held at once, in bytes: about what the second-level caches of two cores keep.
const PRODUCT_BYTES: usize = 2 << 20;

/// Images whose products are held together. Inputs are read once for as many rows as there is room for products of: fewer
/// images, more rows (measured with 4, 8, 12 and 16 of vgg3).
const IMAGES_TOGETHER: usize = 8;

/// Groups of [`IMAGES_TOGETHER`] that the matrix is read for. The inputs of more would fall out of the caches between some rows and the
/// next, and cost more than reading the matrix again (measured with 4, 8, 16 and 64 images of vgg3).
const GROUPS_AT_ONCE: usize = 2;

/// Memory that is kept for later, in bytes: more belongs to batches of large networks, where getting it costs little beside the work.
const KEPT_BYTES: usize = 32 << 20;

/// Memory of earlier products, used again: new memory would have to be cleared. It holds what products and inputs left there: whoever
/// multiplies secrets wipes it.
#[derive(Debug, Default)]
pub struct Workspace(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    batches: Vec<Batch>,
    products: Vec<Products>,
    /// An element's coefficients and as many words more.
    scratch: Vec<AlignedWords>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory(withheld)")
    }
}

impl Memory {
    fn bytes(&self) -> usize {
        let batches = self.batches.iter().map(Batch::bytes).sum::<usize>();
        let products = self.products.iter().map(Products::bytes).sum::<usize>();
        batches + products + self.scratch.iter().map(|s| 8 * s.capacity()).sum::<usize>()
    }
}

impl Workspace {
    /// Something that was kept, or new.
    fn take<T: Default>(&self, of: impl FnOnce(&mut Memory) -> &mut Vec<T>) -> T {
        self.0.lock().ok().and_then(|mut memory| of(&mut memory).pop()).unwrap_or_default()
    }

    /// Keeps something if there is room for it.
    fn give<T: Zeroize>(&self, mut item: T, bytes: usize, of: impl FnOnce(&mut Memory) -> &mut Vec<T>) {
        match self.0.lock() {
            Ok(mut memory) if memory.bytes() + bytes <= KEPT_BYTES => of(&mut memory).push(item),
            _ => item.zeroize(),
        }
    }
}

impl Zeroize for Workspace {
    fn zeroize(&mut self) {
        if let Ok(Memory { batches, products, scratch }) = self.0.get_mut() {
            batches.zeroize();
            products.zeroize();
            scratch.zeroize();
        }
    }
}

/// Words of a workspace for as long as a thread needs them.
struct Scratch<'w> {
    workspace: &'w Workspace,
    words: AlignedWords,
}

impl<'w> Scratch<'w> {
    fn of(workspace: &'w Workspace, len: usize) -> Self {
        let mut words = workspace.take(|memory| &mut memory.scratch);
        words.resize(len);
        Self { workspace, words }
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let words = std::mem::take(&mut self.words);
        let bytes = 8 * words.capacity();
        self.workspace.give(words, bytes, |memory| &mut memory.scratch);
    }
}

impl RowStore {
    /// Some rows times inputs, transformed back: `finish` makes of the coefficients of a row modulo one prime, of which those `wanted` are
    /// there, what belongs into its place in `outs`. An image's `outs` hold, row by row and prime by prime of the row, as many items as `lens` says
    /// for the prime. The matrix is read once for every 16 images.
    ///
    /// `finish` gets the prime's index, the coefficients, as many words of scratch, and the place.
    ///
    /// # Errors
    /// [`RingError::Length`] if shapes do not fit, [`RingError::Malformed`] for a packed residue that is not below its prime: nothing of `outs` counts
    /// then.
    pub fn apply<T: Send>(
        &self,
        ring: &Ring,
        (rows, inputs): (Range<usize>, Inputs<'_>),
        wanted: &Pruning,
        (outs, lens): (&mut [&mut [T]], &[usize]),
        workspace: &Workspace,
        finish: impl Fn(usize, &[u64], &mut [u64], &mut [T]) + Sync,
    ) -> Result<(), RingError> {
        if rows.is_empty() || rows.end > self.rows() {
            return Err(RingError::Length { what: "rows", expected: self.rows(), got: rows.end });
        }
        // Where every row's items begin, and where the last ends.
        let mut starts = vec![0];
        for row in rows.clone() {
            let len = lens.iter().take(self.limbs(row)).sum::<usize>();
            starts.push(starts[starts.len() - 1] + len);
        }
        let expected = starts[rows.len()];
        if lens.len() != ring.limbs() || outs.len() != inputs.images() {
            return Err(RingError::Length { what: "places for results", expected: inputs.images(), got: outs.len() });
        }
        if let Some(out) = outs.iter().find(|out| out.len() != expected) {
            return Err(RingError::Length { what: "items of an image's results", expected, got: out.len() });
        }
        let mut products: Products = workspace.take(|memory| &mut memory.products);
        let shape = Shape { rows, starts, lens };
        let done = outs.chunks_mut(GROUPS_AT_ONCE * IMAGES_TOGETHER).enumerate().try_for_each(|(chunk, outs)| {
            let first = chunk * GROUPS_AT_ONCE * IMAGES_TOGETHER;
            let inputs = inputs.some(first..first + outs.len());
            self.apply_some(ring, &shape, inputs, wanted, outs, (workspace, &mut products), &finish)
        });
        let bytes = products.bytes();
        workspace.give(products, bytes, |memory| &mut memory.products);
        done
    }

    /// As many images as the matrix is read for together.
    #[allow(clippy::too_many_arguments)]
    fn apply_some<T: Send>(
        &self,
        ring: &Ring,
        shape: &Shape<'_>,
        inputs: Inputs<'_>,
        wanted: &Pruning,
        outs: &mut [&mut [T]],
        (workspace, products): (&Workspace, &mut Products),
        finish: &(impl Fn(usize, &[u64], &mut [u64], &mut [T]) + Sync),
    ) -> Result<(), RingError> {
        let (images, limbs, rows) = (outs.len(), ring.limbs(), shape.rows.clone());
        let group = |index: usize| inputs.some(index * IMAGES_TOGETHER..images.min((index + 1) * IMAGES_TOGETHER));
        let mut batches: Vec<Batch> = vec![];
        // One image's inputs are put into order by whoever reads them.
        if images > 1 {
            for index in 0..images.div_ceil(IMAGES_TOGETHER) {
                let mut batch = workspace.take(|memory| &mut memory.batches);
                let filled = self.prepare_into(ring, group(index), &mut batch);
                batches.push(batch);
                filled?;
            }
        }
        let room = PRODUCT_BYTES / (8 * ring.degree() * images.min(IMAGES_TOGETHER));
        // All primes at once if there is room for all rows, else one after the other, for more rows at a time.
        let (limb_step, row_step) = if limbs * rows.len() <= room { (limbs, rows.len()) } else { (1, room.max(1)) };
        for limb in (0..limbs).step_by(limb_step) {
            for first in rows.clone().step_by(row_step) {
                let part = (limb..limb + limb_step, first..rows.end.min(first + row_step));
                for (index, outs) in outs.chunks_mut(IMAGES_TOGETHER).enumerate() {
                    match batches.get(index) {
                        Some(batch) => {
                            self.products_into(ring, batch, part.0.clone(), part.1.clone(), products)?;
                        }
                        None => self.products_of(ring, group(index), part.0.clone(), part.1.clone(), products)?,
                    }
                    self.transform_back(ring, shape, part.clone(), products, wanted, outs, workspace, finish);
                }
            }
        }
        for batch in batches {
            let bytes = batch.bytes();
            workspace.give(batch, bytes, |memory| &mut memory.batches);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn transform_back<T: Send>(
        &self,
        ring: &Ring,
        shape: &Shape<'_>,
        (limbs, rows): (Range<usize>, Range<usize>),
        products: &Products,
        wanted: &Pruning,
        outs: &mut [&mut [T]],
        workspace: &Workspace,
        finish: &(impl Fn(usize, &[u64], &mut [u64], &mut [T]) + Sync),
    ) {
        let start = |row: usize| shape.starts[row - shape.rows.start];
        let mut jobs = Vec::with_capacity(outs.len() * rows.len() * limbs.len());
        for (image, out) in outs.iter_mut().enumerate() {
            let mut left = &mut out[start(rows.start)..start(rows.end)];
            for row in rows.clone() {
                for (limb, &len) in shape.lens.iter().enumerate().take(self.limbs(row)) {
                    let (place, rest) = left.split_at_mut(len);
                    left = rest;
                    if limbs.contains(&limb) {
                        jobs.push((limb, row - rows.start, image, place));
                    }
                }
            }
        }
        let degree = ring.degree();
        jobs.into_par_iter().with_min_len(4).for_each_init(
            || Scratch::of(workspace, 2 * degree),
            |scratch, (limb, row, image, place)| {
                let (element, more) = scratch.words.split_at_mut(degree);
                if let Some(runs) = products.runs(limb, row, image) {
                    ring.plan(limb).inverse_from(runs, element, wanted);
                    finish(limb, element, more, place);
                }
            },
        );
    }
}

/// Of what is computed.
struct Shape<'a> {
    rows: Range<usize>,
    /// Where every row's items begin in an image's results, and where the last ends.
    starts: Vec<usize>,
    /// Items of a row modulo each prime.
    lens: &'a [usize],
}
