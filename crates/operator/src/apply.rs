//! Rows times masked inputs, cut to the wanted coefficients: all that a server ever computes.

use std::sync::Mutex;

use jali_mask::Answer;
use jali_ring::wire::poly_len;
use jali_ring::{Batch, Coefficient, Ntt, Poly, Products, RingError};
use rayon::prelude::*;

use crate::{Operator, OperatorError};

/// Products held at once while a batch is computed, in bytes: about what the second-level caches of two cores keep.
const PRODUCT_BYTES: usize = 2 << 20;

/// Images whose products are held together. Inputs are read once for as many rows as there is room for products of: fewer
/// images, more rows (measured with 4, 8, 12 and 16 of vgg3).
const IMAGES_TOGETHER: usize = 8;

/// Groups of [`IMAGES_TOGETHER`] that the matrix is read for. The inputs of more would fall out of the caches between some rows and the
/// next, and cost more than reading the matrix again (measured with 4, 8, 16 and 64 images of vgg3).
const GROUPS_AT_ONCE: usize = 2;

/// Memory that is kept for later requests, in bytes: more belongs to batches of large networks, where getting it costs little beside
/// the work.
const KEPT_BYTES: usize = 32 << 20;

/// Memory of earlier requests, shared by a model's operators: new memory would have to be cleared. All that it held came
/// from requests and is as public.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    batches: Vec<Batch>,
    products: Vec<Products>,
}

impl Spare {
    fn batch(&self) -> Batch {
        self.0.lock().ok().and_then(|mut memory| memory.batches.pop()).unwrap_or_default()
    }

    fn products(&self) -> Products {
        self.0.lock().ok().and_then(|mut memory| memory.products.pop()).unwrap_or_default()
    }

    /// Keeps what there is room for.
    fn give(&self, batches: impl Iterator<Item = Batch>, products: Products) {
        let Ok(mut memory) = self.0.lock() else { return };
        let bytes = memory.batches.iter().map(Batch::bytes).sum::<usize>();
        let mut room = KEPT_BYTES.saturating_sub(bytes + memory.products.iter().map(Products::bytes).sum::<usize>());
        if let Some(left) = room.checked_sub(products.bytes()) {
            memory.products.push(products);
            room = left;
        }
        for batch in batches {
            if let Some(left) = room.checked_sub(batch.bytes()) {
                memory.batches.push(batch);
                room = left;
            }
        }
    }
}

/// The masked inputs of a batch in the order in which an operator's rows read them.
#[derive(Debug)]
pub struct Inputs {
    images: usize,
    /// [`IMAGES_TOGETHER`] images each, and of these one for every block of rows.
    groups: Vec<Vec<Batch>>,
}

impl Operator {
    /// The masked tiles of every image, put in order.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if an input's shape does not fit or there is none.
    pub fn inputs(&self, batch: &[impl AsRef<[Poly<Ntt>]> + Sync]) -> Result<Inputs, OperatorError> {
        if let Some(x) = batch.iter().map(AsRef::as_ref).find(|x| x.len() != self.tiles()) {
            let (expected, got) = (self.tiles(), x.len());
            return Err(RingError::Length { what: "tiles of the input", expected, got }.into());
        }
        self.groups(batch, |images, block, out| {
            let tiles: Vec<_> = images.iter().map(|x| &x.as_ref()[self.block_tiles(block)]).collect();
            self.store.prepare_into(&self.ring, &tiles, out)
        })
    }

    /// As [`Operator::inputs`], from what a client's [`Writer::polys`](jali_ring::wire::Writer::polys) wrote for all of them.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if the bytes are not those of so many inputs, at least one, or hold a residue that is not below its prime.
    pub fn read_inputs(&self, bytes: &[u8], images: usize) -> Result<Inputs, OperatorError> {
        let element = poly_len(&self.ring);
        let expected = images.saturating_mul(self.tiles() * element);
        if bytes.len() != expected {
            return Err(RingError::Length { what: "bytes of the inputs", expected, got: bytes.len() }.into());
        }
        let batch: Vec<&[u8]> = bytes.chunks_exact(self.tiles() * element).collect();
        self.groups(&batch, |images, block, out| {
            let tiles = self.block_tiles(block);
            let part = element * tiles.start..element * tiles.end;
            let images: Vec<&[u8]> = images.iter().map(|x| &x[part.clone()]).collect();
            self.store.read_into(&self.ring, &images, out)
        })
    }

    fn groups<X>(
        &self,
        batch: &[X],
        fill: impl Fn(&[X], usize, &mut Batch) -> Result<(), RingError>,
    ) -> Result<Inputs, OperatorError> {
        if batch.is_empty() {
            return Err(RingError::Length { what: "images of a batch", expected: 1, got: 0 }.into());
        }
        let block = |images: &[X], block: usize| {
            let mut out = self.spare.batch();
            fill(images, block, &mut out).map(|()| out)
        };
        let group = |images: &[X]| (0..self.blocks).map(|b| block(images, b)).collect::<Result<_, _>>();
        let groups = batch.chunks(IMAGES_TOGETHER).map(group).collect::<Result<_, _>>()?;
        Ok(Inputs { images: batch.len(), groups })
    }

    /// [`Operator::inputs`] and [`Operator::answer`] in one.
    ///
    /// # Errors
    /// As [`Operator::inputs`].
    pub fn apply(&self, batch: &[impl AsRef<[Poly<Ntt>]> + Sync]) -> Result<Vec<Answer>, OperatorError> {
        self.answer(self.inputs(batch)?)
    }

    /// Rows times the inputs of a batch, cut to the wanted coefficients. The matrix is read once for every 16 images.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] for inputs of another operator.
    pub fn answer(&self, inputs: Inputs) -> Result<Vec<Answer>, OperatorError> {
        let Inputs { images, groups } = inputs;
        let mut answers: Vec<Answer> = (0..images).into_par_iter().map(|_| Answer::empty(&self.form)).collect();
        let mut products = self.spare.products();
        let at_once = answers.chunks_mut(GROUPS_AT_ONCE * IMAGES_TOGETHER).zip(groups.chunks(GROUPS_AT_ONCE));
        for (answers, groups) in at_once {
            for block in 0..self.blocks {
                self.answer_block(block, groups, answers, &mut products)?;
            }
        }
        self.spare.give(groups.into_iter().flatten(), products);
        Ok(answers)
    }

    /// One block of rows for some images of a batch.
    fn answer_block(
        &self,
        block: usize,
        groups: &[Vec<Batch>],
        answers: &mut [Answer],
        products: &mut Products,
    ) -> Result<(), OperatorError> {
        let (rows, limbs) = (self.block_rows(block), self.ring.limbs());
        let room = PRODUCT_BYTES / (8 * self.ring.degree() * answers.len().min(IMAGES_TOGETHER));
        // All primes at once if there is room for all rows, else one after the other, for more rows at a time.
        let (limb_step, row_step) = if limbs * rows.len() <= room { (limbs, rows.len()) } else { (1, room.max(1)) };
        for limb in (0..limbs).step_by(limb_step) {
            for first in rows.clone().step_by(row_step) {
                let part = (limb..limb + limb_step, first..rows.end.min(first + row_step));
                for (inputs, answers) in groups.iter().zip(answers.chunks_mut(IMAGES_TOGETHER)) {
                    let Some(inputs) = inputs.get(block) else {
                        let (expected, got) = (self.blocks, inputs.len());
                        return Err(RingError::Length { what: "blocks of the input", expected, got }.into());
                    };
                    self.store.products_into(&self.ring, inputs, part.0.clone(), part.1.clone(), products)?;
                    let back = |limb: usize, row, image, out: &mut Poly<Coefficient>| {
                        let wanted = self.form.wanted().pruning();
                        self.singles[limb].inverse_into(out, wanted, [None; 2], |out| {
                            products.copy(limb, row, image, out.limb_mut(0))
                        });
                    };
                    Answer::fill(answers, part.clone(), self.ring.degree(), back);
                }
            }
        }
        Ok(())
    }
}
