//! Rows times masked inputs, cut to the wanted coefficients: all that a server ever computes.

use jali_mask::Answer;
use jali_ring::wire::{Writer, pack_residues, packed_len, poly_len, rows_len};
use jali_ring::{Inputs, Ntt, Poly, RingError, Workspace};

use crate::{Operator, OperatorError};

impl Operator {
    /// Bytes of the answer to one input.
    pub fn answer_len(&self) -> usize {
        rows_len(self.ring.moduli(), self.form.limbs(), self.form.wanted().count())
    }

    /// Bytes of memory that answering so many inputs takes at most, the answers among them.
    pub fn work_bytes(&self, images: usize) -> usize {
        let answers = images.saturating_mul(self.answer_len());
        answers.saturating_add(Workspace::bytes_needed(&self.ring, self.store.tiles(), images))
    }

    /// Answers a batch: `inputs` holds what a client's [`Writer::polys`] wrote for all of them, `out` gets [`Operator::answer_len`] bytes for each,
    /// row by row and prime by prime the wanted coefficients, packed. The matrix is read once for every 16 images.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if the bytes are not those of so many inputs, at least one, or hold a residue that is not below its prime: nothing
    /// of `out` counts then.
    pub fn answer(&self, inputs: &[u8], images: usize, out: &mut [u8]) -> Result<(), OperatorError> {
        let element = poly_len(&self.ring);
        let unfit = |what, expected, got| Err(OperatorError::Ring(RingError::Length { what, expected, got }));
        let expected = images.saturating_mul(self.tiles() * element);
        if images == 0 || inputs.len() != expected {
            return unfit("bytes of the inputs", expected, inputs.len());
        }
        if out.len() != images.saturating_mul(self.answer_len()) {
            return unfit("bytes for the answers", images.saturating_mul(self.answer_len()), out.len());
        }
        let (moduli, wanted) = (self.ring.moduli(), self.form.wanted());
        let lens: Vec<usize> = moduli.iter().map(|m| packed_len(m, wanted.count())).collect();
        let images: Vec<&[u8]> = inputs.chunks_exact(self.tiles() * element).collect();
        let mut left: Vec<&mut [u8]> = out.chunks_exact_mut(self.answer_len()).collect();
        for block in 0..self.blocks {
            let (rows, tiles) = (self.block_rows(block), self.block_tiles(block));
            let part: Vec<&[u8]> = images.iter().map(|x| &x[element * tiles.start..element * tiles.end]).collect();
            let len = rows_len(moduli, &self.form.limbs()[rows.clone()], wanted.count());
            let mut outs: Vec<&mut [u8]> = left.iter_mut().filter_map(|out| out.split_off_mut(..len)).collect();
            let pack = |limb: usize, all: &[u64], residues: &mut [u64], out: &mut [u8]| {
                let residues = &mut residues[..wanted.count()];
                wanted.pick(all, residues);
                pack_residues(self.ring.kernel(), &moduli[limb], residues, out);
            };
            let inputs = (rows, Inputs::Packed(&part));
            self.store.apply(&self.ring, inputs, wanted.pruning(), (&mut outs, &lens), &self.workspace, pack)?;
        }
        Ok(())
    }

    /// As [`Operator::answer`], from elements to decoded answers.
    ///
    /// # Errors
    /// As [`Operator::answer`].
    pub fn apply(&self, batch: &[impl AsRef<[Poly<Ntt>]>]) -> Result<Vec<Answer>, OperatorError> {
        let mut w = Writer::new();
        batch.iter().for_each(|x| w.polys(&self.ring, x.as_ref()));
        let mut out = vec![0; batch.len() * self.answer_len()];
        self.answer(&w.finish(), batch.len(), &mut out)?;
        let answers = out.chunks_exact(self.answer_len()).map(|bytes| Answer::decode(&self.ring, &self.form, bytes));
        Ok(answers.collect::<Result<_, _>>()?)
    }
}
