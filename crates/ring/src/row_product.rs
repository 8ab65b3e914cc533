//! The product of rows and inputs: what a server computes with its matrix, and a client with the
//! hints and secrets of the rows.

use std::ops::Range;

use rayon::prelude::*;

use crate::aligned::AlignedWords;
use crate::backend::{Batch, GROUP, Inputs, Part, product_words};
use crate::workspace::{Borrowed, GROUPS_AT_ONCE, IMAGES_TOGETHER, Workspace};
use crate::{Ring, RingError, RowStore, Wanted};

/// Bytes of the next rows that are prefetched while a product of one image is transformed back:
/// about as many as arrive in that time.
const ASKED_AHEAD: usize = 32 << 10;

/// The product that a [`RowStore`] is asked for: which rows times which inputs, and which
/// coefficients of the result.
#[derive(Debug, Clone)]
pub struct RowProduct<'p> {
    /// Rows that are multiplied.
    pub rows: Range<usize>,
    /// The inputs that they are multiplied with, image by image.
    pub inputs: Inputs<'p>,
    /// Coefficients that products are transformed back to; `None` leaves them in the NTT domain.
    pub wanted: Option<&'p Wanted>,
    /// Items that a row's result has for each prime.
    pub lens: &'p [usize],
}

impl RowStore {
    /// Multiplies rows with inputs and hands every product to `finish`, which writes the results to
    /// `outs`. The matrix is read once for every 16 images.
    ///
    /// * `ring`: the ring that the rows were made for.
    /// * `product`: the rows, the inputs and the wanted coefficients.
    /// * `outs`: the results, one slice for each image. A slice holds, row by row and prime by
    ///   prime of the row, as many items as [`RowProduct::lens`] says.
    /// * `workspace`: memory of earlier calls, used again.
    /// * `finish`: called for each row, image and prime. It gets the prime's index, the product
    ///   modulo it, as many words of scratch, and the place of its items in `outs`.
    ///
    /// # Errors
    /// [`RingError::Length`] if shapes do not fit, [`RingError::Malformed`] for a packed residue
    /// that is not below its prime. After an error the content of `outs` means nothing.
    pub fn apply<T: Send>(
        &self,
        ring: &Ring,
        product: RowProduct<'_>,
        outs: &mut [&mut [T]],
        workspace: &Workspace,
        finish: impl Fn(usize, &[u64], &mut [u64], &mut [T]) + Sync,
    ) -> Result<(), RingError> {
        let RowProduct { rows, inputs, wanted, lens } = product;
        if rows.is_empty() || rows.end > self.rows() {
            return Err(RingError::Length { what: "rows", expected: self.rows(), got: rows.end });
        }
        // Where every row's items begin; the last entry is where the last row's end.
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
            let jobs = self.jobs(rows.clone(), outs, &starts, lens);
            self.apply_jobs(ring, &batches, jobs, wanted, workspace, &finish);
        }
        Ok(())
    }

    /// Returns jobs that can run independently of each other: parts of the rows with the places of
    /// their results, image by image and row by row. `outs` has a slice of results for each image,
    /// `starts` says where every row's items begin in it, and `lens` how many items a row has for
    /// each prime.
    fn jobs<'o, T>(
        &self,
        rows: Range<usize>,
        outs: &'o mut [&mut [T]],
        starts: &[usize],
        lens: &[usize],
    ) -> Vec<(Part, Vec<&'o mut [T]>)> {
        let parts = self.parts(rows.clone());
        // The part that a row modulo a prime belongs to, as `[limb][row]`.
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

    /// Runs the jobs of [`RowStore::jobs`] in parallel: multiplies the rows of each with all
    /// `batches`, transforms products back to the `wanted` coefficients if there are any, and calls
    /// `finish` as [`RowStore::apply`] describes. Scratch memory comes from `workspace`.
    fn apply_jobs<T: Send>(
        &self,
        ring: &Ring,
        batches: &[Borrowed<'_, Batch>],
        jobs: Vec<(Part, Vec<&mut [T]>)>,
        wanted: Option<&Wanted>,
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
        // Jobs are taken one by one: whichever thread is done first takes the next, and at the end
        // no thread waits longer than one job takes.
        jobs.into_par_iter().with_max_len(1).for_each_init(scratch, |scratch, (part, places)| {
            let (more, products) = scratch.item.split_at_mut(degree);
            let (plan, behind, rows) = (ring.plan(part.limb), self.behind(&part), part.matrix_rows.len());
            let back = plan.begins(ring.backend()).filter(|_| wanted.is_some());
            let mut places = places.into_iter();
            for Borrowed { item: batch, .. } in batches {
                self.multiply(ring, batch, &part, back, products);
                for image in 0..batch.images() {
                    for (row, place) in (0..rows).zip(&mut places) {
                        let product = &mut products[(row * batch.images() + image) * product_words(degree)..][..degree];
                        // With several images there is enough work to hide the wait for memory.
                        let ahead = match images {
                            1 => behind.get(row * ASKED_AHEAD..(row + 1) * ASKED_AHEAD).unwrap_or_default(),
                            _ => &[],
                        };
                        if let Some(wanted) = wanted {
                            plan.inverse_some(product, back.is_some(), wanted.runs(), ahead);
                        }
                        finish(part.limb, product, more, place);
                    }
                }
            }
        });
    }
}
