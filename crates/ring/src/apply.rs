//! Rows times inputs, transformed back to the coefficients that are wanted or not at all: what a server does with its matrix, and a client with the hints and
//! secrets of the rows.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use zeroize::Zeroize;

use crate::aligned::AlignedWords;
use crate::kernel::{Batch, GROUP, Inputs, Part, product_words};
use crate::{Pruning, Ring, RingError, RowStore};

/// Images that are computed together: their products of a group of rows are about what a second-level cache keeps.
const IMAGES_TOGETHER: usize = 8;

/// Groups of [`IMAGES_TOGETHER`] that the matrix is read for. The inputs of more would fall out of the caches between some rows and the
/// next, and cost more than reading the matrix again (measured with 4, 8, 16 and 64 images of vgg3).
const GROUPS_AT_ONCE: usize = 2;

/// Bytes of the next rows that are asked for while a product of one image is transformed back: as many as come meanwhile.
const ASKED_AHEAD: usize = 32 << 10;

/// Memory that is kept for later, in bytes: more belongs to batches of large networks, where getting it costs little beside the work.
const KEPT_BYTES: usize = 32 << 20;

/// Memory of earlier products, used again: new memory would have to be cleared. It holds what products and inputs left there: whoever
/// multiplies secrets wipes it.
#[derive(Debug, Default)]
pub struct Workspace(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    batches: Vec<Batch>,
    /// As many words as an element has, and products of a group of rows.
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
        batches + self.scratch.iter().map(|s| 8 * s.capacity()).sum::<usize>()
    }
}

impl Workspace {
    /// Bytes that [`RowStore::apply`] takes at most for rows of so many tiles and so many images, beside its results.
    pub fn bytes_needed(ring: &Ring, tiles: usize, images: usize) -> usize {
        let (limbs, element) = (ring.limbs(), 8 * ring.degree());
        let inputs = images.min(GROUPS_AT_ONCE * IMAGES_TOGETHER).saturating_mul(tiles).saturating_mul(limbs * element);
        let products = GROUP * images.min(IMAGES_TOGETHER) * 8 * product_words(ring.degree());
        inputs.saturating_add(rayon::current_num_threads() * (products + element))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Zeroize for Workspace {
    fn zeroize(&mut self) {
        let Memory { batches, scratch } = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        batches.zeroize();
        scratch.zeroize();
    }
}

/// Something that a workspace keeps.
trait Kept: Default + Zeroize {
    fn of(memory: &mut Memory) -> &mut Vec<Self>;
    fn bytes(&self) -> usize;
}

impl Kept for Batch {
    fn of(memory: &mut Memory) -> &mut Vec<Self> {
        &mut memory.batches
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl Kept for AlignedWords {
    fn of(memory: &mut Memory) -> &mut Vec<Self> {
        &mut memory.scratch
    }

    fn bytes(&self) -> usize {
        8 * self.capacity()
    }
}

/// Memory of a workspace for as long as it is needed: given back if there is room for it, wiped else.
struct Borrowed<'w, T: Kept> {
    workspace: &'w Workspace,
    item: T,
}

impl<'w, T: Kept> Borrowed<'w, T> {
    /// Something that was kept, or new.
    fn of(workspace: &'w Workspace) -> Self {
        let item = T::of(&mut workspace.memory()).pop().unwrap_or_default();
        Self { workspace, item }
    }
}

impl<T: Kept> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        let mut memory = self.workspace.memory();
        match memory.bytes() + self.item.bytes() <= KEPT_BYTES {
            true => T::of(&mut memory).push(std::mem::take(&mut self.item)),
            false => self.item.zeroize(),
        }
    }
}

impl RowStore {
    /// Some rows times inputs, transformed back if any coefficients are `wanted`: `finish` makes of the coefficients of a row modulo one prime, of which
    /// those wanted are there, or of its values in the NTT domain, what belongs into its place in `outs`. An image's `outs` hold, row by row and prime by prime of the row, as many items as `lens` says
    /// for the prime. The matrix is read once for every 16 images.
    ///
    /// `finish` gets the prime's index, coefficients or values, as many words of scratch, and the place.
    ///
    /// # Errors
    /// [`RingError::Length`] if shapes do not fit, [`RingError::Malformed`] for a packed residue that is not below its prime: nothing of `outs` counts
    /// then.
    pub fn apply<T: Send>(
        &self,
        ring: &Ring,
        (rows, inputs): (Range<usize>, Inputs<'_>),
        wanted: Option<&Pruning>,
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
        let at_once = GROUPS_AT_ONCE * IMAGES_TOGETHER;
        for (chunk, outs) in outs.chunks_mut(at_once).enumerate() {
            let mut batches = vec![];
            for first in (0..outs.len()).step_by(IMAGES_TOGETHER) {
                let images = chunk * at_once + first..chunk * at_once + outs.len().min(first + IMAGES_TOGETHER);
                let mut batch = Borrowed::<Batch>::of(workspace);
                self.prepare_into(ring, inputs.some(images), &mut batch.item)?;
                self.fits(ring, &batch.item, &rows)?;
                batches.push(batch);
            }
            let jobs = self.jobs(rows.clone(), (outs, &starts, lens));
            self.apply_jobs(ring, &batches, jobs, wanted, workspace, &finish);
        }
        Ok(())
    }

    /// What can be computed independently: parts of the rows, and the places of their results, image by image and row by row.
    fn jobs<'o, T>(
        &self,
        rows: Range<usize>,
        (outs, starts, lens): (&'o mut [&mut [T]], &[usize], &[usize]),
    ) -> Vec<(Part, Vec<&'o mut [T]>)> {
        let parts = self.parts(rows.clone());
        // Which part a row modulo a prime belongs to.
        let mut part_of = vec![vec![0; rows.len()]; lens.len()];
        for (index, part) in parts.iter().enumerate() {
            part.matrix_rows.iter().for_each(|row| part_of[part.limb][row - rows.start] = index);
        }
        let room = |part: Part| {
            let places = Vec::with_capacity(part.matrix_rows.len() * outs.len());
            (part, places)
        };
        let mut jobs: Vec<_> = parts.into_iter().map(room).collect();
        for out in outs {
            let mut left = &mut **out;
            for (row, start) in starts.windows(2).enumerate() {
                let (mut of_row, rest) = left.split_at_mut(start[1] - start[0]);
                left = rest;
                for (limb, &len) in lens.iter().enumerate().take(self.limbs(rows.start + row)) {
                    let (place, rest) = of_row.split_at_mut(len);
                    of_row = rest;
                    jobs[part_of[limb][row]].1.push(place);
                }
            }
        }
        jobs
    }

    fn apply_jobs<T: Send>(
        &self,
        ring: &Ring,
        batches: &[Borrowed<'_, Batch>],
        jobs: Vec<(Part, Vec<&mut [T]>)>,
        wanted: Option<&Pruning>,
        workspace: &Workspace,
        finish: &(impl Fn(usize, &[u64], &mut [u64], &mut [T]) + Sync),
    ) {
        let images: usize = batches.iter().map(|batch| batch.item.images()).sum();
        let (degree, most) = (ring.degree(), batches.first().map_or(0, |batch| batch.item.images()));
        let scratch = || {
            let mut words = Borrowed::<AlignedWords>::of(workspace);
            words.item.resize(GROUP * most * product_words(degree) + degree);
            words
        };
        // One by one: whoever is done first takes the next, and nobody waits for more than one of them.
        jobs.into_par_iter().with_max_len(1).for_each_init(scratch, |scratch, (part, places)| {
            let (more, products) = scratch.item.split_at_mut(degree);
            let (plan, behind, rows) = (ring.plan(part.limb), self.behind(&part), part.matrix_rows.len());
            let back = plan.begins(ring.kernel()).filter(|_| wanted.is_some());
            let mut places = places.into_iter();
            for Borrowed { item: batch, .. } in batches {
                self.multiply(ring, batch, &part, back, products);
                for image in 0..batch.images() {
                    for (row, place) in (0..rows).zip(&mut places) {
                        let product = &mut products[(row * batch.images() + image) * product_words(degree)..][..degree];
                        // Several images have work enough to wait for memory.
                        let ahead = match images {
                            1 => behind.get(row * ASKED_AHEAD..(row + 1) * ASKED_AHEAD).unwrap_or_default(),
                            _ => &[],
                        };
                        if let Some(wanted) = wanted {
                            plan.inverse_some(product, back.is_some(), wanted, ahead);
                        }
                        finish(part.limb, product, more, place);
                    }
                }
            }
        });
    }
}
