//! Multiplies rows with masked inputs and picks the wanted coefficients; besides hints, a server
//! computes nothing else.

use jali_mask::{Answer, expand_public};
use jali_ring::wire::{Writer, pack_residues, packed_len, poly_len, rows_len};
use jali_ring::{Inputs, Ntt, Poly, RingError, RowProduct, Workspace};

use crate::{Operator, OperatorError};

/// The part of a row product that is given out.
#[derive(Debug, Clone, Copy)]
enum Back {
    /// The wanted coefficients.
    Wanted,
    /// Everything, as it is in the NTT domain.
    Whole,
}

impl Operator {
    /// Returns the bytes of an answer to one input, all rows together.
    pub fn rows_len(&self) -> usize {
        rows_len(self.ring.moduli(), self.form.limbs(), self.form.count())
    }

    /// Returns the bytes of memory that answering `images` inputs takes at most, the answers among
    /// them.
    pub fn work_bytes(&self, images: usize) -> usize {
        let rows = images.saturating_mul(self.rows_len());
        rows.saturating_add(Workspace::bytes_needed(&self.ring, self.store.tiles(), images))
    }

    /// Answers a batch of `images` inputs. `inputs` holds what a client's [`Writer::polys`] wrote
    /// for all of them. `out` gets [`Operator::rows_len`] bytes for each: the wanted coefficients,
    /// packed, row by row and prime by prime. The matrix is read once for every 16 inputs.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if the bytes are not those of `images` inputs, at least one, or hold
    /// a residue that is not below its prime. The content of `out` means nothing then.
    pub fn answer(&self, inputs: &[u8], images: usize, out: &mut [u8]) -> Result<(), OperatorError> {
        let element = poly_len(&self.ring);
        let unfit = |what, expected, got| Err(OperatorError::Ring(RingError::Length { what, expected, got }));
        let expected = images.saturating_mul(self.tiles() * element);
        if images == 0 || inputs.len() != expected {
            return unfit("bytes of the inputs", expected, inputs.len());
        }
        let image_len = self.rows_len();
        if out.len() != images.saturating_mul(image_len) {
            return unfit("bytes for the answers", images.saturating_mul(image_len), out.len());
        }
        let images: Vec<&[u8]> = inputs.chunks_exact(self.tiles() * element).collect();
        let mut left: Vec<&mut [u8]> = out.chunks_exact_mut(image_len).collect();
        for block in 0..self.blocks {
            let tiles = self.block_tiles(block);
            let part: Vec<&[u8]> = images.iter().map(|x| &x[element * tiles.start..element * tiles.end]).collect();
            self.block_into(Back::Wanted, block, Inputs::Packed(&part), &mut left)?;
        }
        Ok(())
    }

    /// Multiplies the rows of a block with some inputs and packs what `back` says to the front of
    /// `left`. `left` has a place for each input, with room for the rows of this block and of all
    /// that follow; it is left with the rest.
    fn block_into(
        &self,
        back: Back,
        block: usize,
        inputs: Inputs<'_>,
        left: &mut [&mut [u8]],
    ) -> Result<(), RingError> {
        let (moduli, wanted, rows) = (self.ring.moduli(), self.form.wanted(), self.block_rows(block));
        let (count, back) = match back {
            Back::Wanted => (wanted.count(), Some(wanted)),
            Back::Whole => (self.ring.degree(), None),
        };
        let lens: Vec<usize> = moduli.iter().map(|m| packed_len(m, count)).collect();
        let len = rows_len(moduli, &self.form.limbs()[rows.clone()], count);
        let mut outs: Vec<&mut [u8]> = left.iter_mut().filter_map(|out| out.split_off_mut(..len)).collect();
        let pack = |limb: usize, all: &[u64], residues: &mut [u64], out: &mut [u8]| {
            let residues = match back {
                None => all,
                Some(_) => {
                    let residues = &mut residues[..count];
                    wanted.pick(all, residues);
                    residues
                }
            };
            pack_residues(self.ring.backend(), &moduli[limb], residues, out);
        };
        let product = RowProduct { rows, inputs, wanted: back, lens: &lens };
        self.store.apply(&self.ring, product, &mut outs, &self.workspace, pack)
    }

    /// The hints of all rows, `H[o] = sum_i W~[o][i]*a[i]`, packed, with all coefficients of every
    /// product. Computed from what the server holds, so they need no place in a bundle. A row's
    /// hint is held modulo as many primes as the row.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if `out` does not have [`Operator::hints_len`] bytes.
    pub fn hints(&self, mut out: &mut [u8]) -> Result<(), OperatorError> {
        if out.len() != self.hints_len() {
            let what = "bytes for the hints";
            return Err(RingError::Length { what, expected: self.hints_len(), got: out.len() }.into());
        }
        for block in 0..self.blocks {
            let a = expand_public(&self.ring, &self.a_seed, self.block_tiles(block));
            let inputs = [a.iter().collect()];
            self.block_into(Back::Whole, block, Inputs::Elements(&inputs), std::slice::from_mut(&mut out))?;
        }
        Ok(())
    }

    /// Returns the bytes of all hints, packed.
    pub fn hints_len(&self) -> usize {
        rows_len(self.ring.moduli(), self.form.limbs(), self.ring.degree())
    }

    /// Returns the bytes of memory that computing all hints takes at most, the hints among them.
    pub fn hint_work_bytes(&self) -> usize {
        let (element, tiles) = (8 * self.ring.limbs() * self.ring.degree(), self.store.tiles());
        let a = tiles.saturating_mul(element);
        self.hints_len().saturating_add(a).saturating_add(Workspace::bytes_needed(&self.ring, tiles, 1))
    }

    /// Answers a batch as [`Operator::answer`] does, but takes ring elements and returns decoded
    /// answers.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] as for [`Operator::answer`].
    pub fn apply(&self, batch: &[impl AsRef<[Poly<Ntt>]>]) -> Result<Vec<Answer>, OperatorError> {
        let mut w = Writer::new();
        batch.iter().for_each(|x| w.polys(&self.ring, x.as_ref()));
        let mut out = vec![0; batch.len() * self.rows_len()];
        self.answer(&w.finish(), batch.len(), &mut out)?;
        let answers = out.chunks_exact(self.rows_len()).map(|bytes| Answer::decode(&self.ring, &self.form, bytes));
        Ok(answers.collect::<Result<_, _>>()?)
    }
}
