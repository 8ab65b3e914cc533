//! What takes the masks off rows, and the client's last step: `V = r + s*H + s'*z`.

use jali_ring::{Crt, Inputs, Ntt, Poly, RowStore, Workspace};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::check::{Verified, VerifiedHints};
use crate::request::PendingRequest;
use crate::seal::row_secret;
use crate::{LayerKey, MaskError, Parameters};

/// Rows whose hints and secrets are made before they are put into place.
const ROWS_TOGETHER: usize = 16;

/// Hints and secrets of a layer's rows, side by side and in the order in which they are read: `H[o]`, and where anything is hidden `s'[o]`, zero for an
/// open row. As a matrix of two tiles its product with `(s, z)` is what the answers lack.
pub(crate) struct Unmasking(Zeroizing<RowStore>);

impl Unmasking {
    /// Room for rows modulo so many primes each, and for secrets if any row is hidden.
    pub(crate) fn room(parameters: &Parameters, limbs: &[usize], hidden: bool) -> Result<Self, MaskError> {
        Ok(Self(Zeroizing::new(RowStore::new(parameters.ring(), limbs, 1 + usize::from(hidden))?)))
    }

    pub(crate) fn put(&mut self, row: usize, hint: &Poly<Ntt>, secret: &Option<Zeroizing<Poly<Ntt>>>) {
        self.0.set(row, 0, hint);
        if let Some(secret) = secret {
            self.0.set(row, 1, secret);
        }
    }

    /// Of hints that a server sent.
    ///
    /// # Errors
    /// [`MaskError::Ring`] if there is no memory for them.
    pub(crate) fn of_server(key: &LayerKey, hints: &VerifiedHints<'_>) -> Result<Self, MaskError> {
        let (ring, limbs) = (key.parameters.ring(), key.form.limbs());
        let mut all = Self::room(&key.parameters, limbs, key.row_keys.iter().any(Option::is_some))?;
        for first in (0..limbs.len()).step_by(ROWS_TOGETHER) {
            let some = first..limbs.len().min(first + ROWS_TOGETHER);
            let row = |row: usize| {
                let mut hint = ring.zero();
                hints.read(ring, row, &mut hint);
                let secret = key.row_keys[row].as_ref().map(|key| row_secret(ring, key));
                (hint, secret)
            };
            let made: Vec<_> = some.clone().into_par_iter().map(row).collect();
            some.zip(&made).for_each(|(row, (hint, secret))| all.put(row, hint, secret));
        }
        Ok(all)
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

/// Where the hints of a layer's rows are.
pub(crate) enum Hints<'a> {
    /// With the client, beside the secrets.
    Kept(&'a Unmasking),
    /// In an answer.
    Brought(VerifiedHints<'a>),
}

impl LayerKey {
    /// `V` at the wanted coefficients of every request, `[row][limb]`, the first of as many places as the answer had residues. Taking [`Verified`] is what
    /// keeps this behind the check. The memory of `workspace` holds secrets afterwards.
    pub(crate) fn unmask(
        &self,
        hints: &Hints<'_>,
        batch: Vec<(PendingRequest<'_>, Verified)>,
        workspace: &Workspace,
    ) -> Result<Vec<Zeroizing<Vec<u64>>>, MaskError> {
        let (requests, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        // The answer's residues become those of `V` in place.
        let mut values: Vec<_> = answers.into_iter().map(|answer| Zeroizing::new(answer.into_residues())).collect();
        let left: Vec<&mut [u64]> = values.iter_mut().map(|values| &mut values[..]).collect();
        match hints {
            Hints::Kept(unmasking) => self.unmask_by_matrix(unmasking, &requests, left, workspace)?,
            Hints::Brought(rows) => self.unmask_by_rows(rows, &requests, left),
        }
        Ok(values)
    }

    /// What a row's residues modulo one prime lack is added to them; what is wanted takes the first places. Scratch has a word for every coefficient.
    fn add_pads(&self, limb: usize, pads: &[u64], scratch: &mut [u64], values: &mut [u64]) {
        let (ring, wanted) = (self.parameters.ring(), self.form.wanted());
        let count = wanted.count();
        if self.form.kind().whole_rows {
            // Everything is added up in the NTT domain.
            scratch.copy_from_slice(values);
            ring.add_residues(limb, scratch, pads);
            ring.inverse_some(limb, scratch, wanted.pruning());
            wanted.pick(scratch, &mut values[..count]);
        } else {
            let picked = &mut scratch[..count];
            wanted.pick(pads, picked);
            ring.add_residues(limb, values, picked);
        }
    }

    fn unmask_by_matrix(
        &self,
        unmasking: &Unmasking,
        requests: &[PendingRequest<'_>],
        mut left: Vec<&mut [u64]>,
        workspace: &Workspace,
    ) -> Result<(), MaskError> {
        let ring = self.parameters.ring();
        let add = |limb: usize, pads: &[u64], scratch: &mut [u64], values: &mut [u64]| {
            self.add_pads(limb, pads, scratch, values);
        };
        let back = (!self.form.kind().whole_rows).then(|| self.form.wanted().pruning());
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
        Ok(())
    }

    /// The same with hints that are read from their bytes and secrets that are drawn again, a row at a time: a client that keeps no hints has no room for
    /// all of them in one form or another.
    fn unmask_by_rows(&self, hints: &VerifiedHints<'_>, requests: &[PendingRequest<'_>], mut left: Vec<&mut [u64]>) {
        let (all, count) = (self.parameters.ring(), self.form.count());
        let mut jobs = Vec::with_capacity(self.rows());
        for (row, (limbs, key)) in self.form.limbs().iter().zip(&self.row_keys).enumerate() {
            let outs: Vec<&mut [u64]> = left.iter_mut().filter_map(|out| out.split_off_mut(..limbs * count)).collect();
            jobs.push((row, key, outs));
        }
        let scratch = || (all.zero::<Ntt>(), Zeroizing::new([all.zero::<Ntt>(), all.zero()]));
        jobs.into_par_iter().for_each_init(scratch, |(hint, secrets), (row, key, outs)| {
            let [pads, more] = &mut **secrets;
            let (ring, block) = (self.parameters.ring_of(key.is_none()), row / self.block_rows());
            hints.read(all, row, hint);
            let secret = key.as_ref().map(|key| row_secret(ring, key));
            for (request, values) in requests.iter().zip(outs) {
                match (&secret, request.z.get(block)) {
                    (Some(secret), Some(z)) => ring.sum_of_products(pads, [[&*request.s, hint], [&**z, &**secret]]),
                    _ => ring.sum_of_products(pads, [[&*request.s, hint]]),
                }
                for (l, values) in values.chunks_exact_mut(count).enumerate() {
                    if !self.form.kind().whole_rows {
                        ring.inverse_some(l, pads.limb_mut(l), self.form.wanted().pruning());
                    }
                    self.add_pads(l, pads.limb(l), more.limb_mut(l), values);
                }
            }
        });
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
