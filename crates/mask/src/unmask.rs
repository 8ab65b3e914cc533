//! What takes the masks off rows, and the client's last step: `V = r + s*H + s'*z`.

use jali_ring::{Crt, Inputs, Ntt, Poly, RowStore, Workspace};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::check::Verified;
use crate::request::PendingRequest;
use crate::{LayerKey, MaskError, Parameters};

/// Hints and secrets of a layer's rows, side by side and in the order in which they are read: `H[o]`, and where anything is hidden `s'[o]`, zero for an
/// open row. As a matrix of two tiles its product with `(s, z)` is what the answers lack.
pub(crate) struct Unmasking(Zeroizing<RowStore>);

impl Unmasking {
    /// `H[o]` and `s'[o]` of every row, modulo as many primes as the row is held modulo.
    ///
    /// # Errors
    /// [`MaskError::Ring`] if there is no memory for them.
    pub(crate) fn new(
        parameters: &Parameters,
        hints: &[Poly<Ntt>],
        secrets: &[Option<Zeroizing<Poly<Ntt>>>],
    ) -> Result<Self, MaskError> {
        let limbs: Vec<usize> = hints.iter().map(Poly::limbs).collect();
        let tiles = 1 + usize::from(secrets.iter().any(Option::is_some));
        let mut rows = Zeroizing::new(RowStore::new(parameters.ring(), &limbs, tiles)?);
        for (row, (hint, secret)) in hints.iter().zip(secrets).enumerate() {
            rows.set(row, 0, hint);
            if let Some(secret) = secret {
                rows.set(row, 1, secret);
            }
        }
        Ok(Self(rows))
    }

    /// Bytes that the hints take in memory.
    pub(crate) fn hint_bytes(&self) -> usize {
        self.0.bytes() / self.0.tiles()
    }

    /// Whether secrets stand beside the hints.
    fn has_secrets(&self) -> bool {
        self.0.tiles() > 1
    }
}

impl LayerKey {
    /// `V` at the wanted coefficients of every request, `[row][limb]`, the first of as many places as the answer had residues. Taking [`Verified`] is what
    /// keeps this behind the check. The memory of `workspace` holds secrets afterwards.
    pub(crate) fn unmask(
        &self,
        unmasking: &Unmasking,
        batch: Vec<(PendingRequest<'_>, Verified)>,
        workspace: &Workspace,
    ) -> Result<Vec<Zeroizing<Vec<u64>>>, MaskError> {
        let (ring, wanted, whole) = (self.parameters.ring(), self.form.wanted(), self.form.kind().whole_rows);
        let (requests, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        // The answer's residues become those of `V` in place.
        let mut values: Vec<_> = answers.into_iter().map(|answer| Zeroizing::new(answer.into_residues())).collect();
        let mut left: Vec<&mut [u64]> = values.iter_mut().map(|values| &mut values[..]).collect();
        let count = wanted.count();
        let add = |limb: usize, pads: &[u64], scratch: &mut [u64], values: &mut [u64]| {
            if whole {
                // Everything is added up in the NTT domain; what is wanted of the sum takes the first places.
                scratch.copy_from_slice(values);
                ring.add_residues(limb, scratch, pads);
                ring.inverse_some(limb, scratch, wanted.pruning());
                wanted.pick(scratch, &mut values[..count]);
            } else {
                let picked = &mut scratch[..count];
                wanted.pick(pads, picked);
                ring.add_residues(limb, values, picked);
            }
        };
        let back = (!whole).then(|| wanted.pruning());
        for block in 0..self.blocks {
            let rows = block * self.block_rows()..(block + 1) * self.block_rows();
            let len = self.form.limbs()[rows.clone()].iter().sum::<usize>() * self.form.count();
            let mut outs: Vec<&mut [u64]> = left.iter_mut().filter_map(|out| out.split_off_mut(..len)).collect();
            let masks = requests.iter().map(|request| {
                let z = request.z.get(block).filter(|_| unmasking.has_secrets());
                [Some(&*request.s), z.map(|z| &**z)].into_iter().flatten().collect()
            });
            let inputs: Vec<Vec<&Poly<Ntt>>> = masks.collect();
            let (inputs, lens) = ((rows, Inputs::Elements(&inputs)), vec![self.form.count(); ring.limbs()]);
            unmasking.0.apply(ring, inputs, back, (&mut outs, &lens), workspace, add)?;
        }
        Ok(values)
    }

    /// Residues as [`LayerKey::unmask`] leaves them as numbers, `[row][wanted]`, row by row by `read`.
    pub(crate) fn recompose<T: Default + Copy + Send>(
        &self,
        residues: &[u64],
        read: impl Fn(&Crt, &[&[u64]], &mut [T]) + Sync,
    ) -> Vec<T> {
        let (places, count) = (self.form.count(), self.form.wanted().count());
        let mut values = vec![T::default(); self.rows() * count];
        let (mut left, mut rows) = (residues, Vec::with_capacity(self.rows()));
        for (&limbs, out) in self.form.limbs().iter().zip(values.chunks_exact_mut(count)) {
            let (row, rest) = left.split_at(limbs * places);
            left = rest;
            rows.push((row, out));
        }
        rows.into_par_iter().with_min_len(2).for_each(|(row, out)| {
            let residues: Vec<&[u64]> = row.chunks_exact(places).map(|limb| &limb[..count]).collect();
            // A row that is held modulo the first primes only is a number modulo these.
            let ring = self.parameters.ring_of(residues.len() < self.parameters.ring().limbs());
            read(ring.crt(), &residues, out);
        });
        values
    }
}
