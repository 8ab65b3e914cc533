//! The client takes the masks off what the check has accepted.
//!
//! A row's answer lacks `s*H + s'*z` (see the crate's front page). Hints `H` and secrets `s'` of
//! all rows form a matrix of two tiles; its product with the inputs `(s, z)` of a request is what
//! is missing, and is computed as a server computes a product: [`RowStore::apply`].

use jali_ring::sample::Key;
use jali_ring::{Crt, Inputs, Ntt, Poly, Ring, RowProduct, RowStore, Workspace};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::answer::AnswerForm;
use crate::check::{Verified, VerifiedHints};
use crate::derive::row_secret;
use crate::{MaskError, Parameters};

/// Rows whose hints and secrets are made before they are put into place.
const ROWS_TOGETHER: usize = 16;

/// Hints and secrets of all rows, side by side and in the order in which they are read: `H[o]`, and
/// where anything is hidden `s'[o]`, zero for an open row.
pub(crate) struct Unmasking(Zeroizing<RowStore>);

/// What one request keeps to take its masks off.
pub(crate) struct Secrets {
    /// `s`.
    pub(crate) s: Zeroizing<Poly<Ntt>>,
    /// `sum_i a[i]*(x[i] + t*e[i])` over the tiles of each block; none when no row is hidden.
    pub(crate) z: Vec<Zeroizing<Poly<Ntt>>>,
}

impl Unmasking {
    /// Makes room for rows modulo so many primes each, and for secrets if any row is hidden.
    ///
    /// # Errors
    /// [`MaskError::Ring`] if there is no memory.
    pub(crate) fn room(parameters: &Parameters, limbs: &[usize], hidden: bool) -> Result<Self, MaskError> {
        Ok(Self(Zeroizing::new(RowStore::new(parameters.ring(), limbs, 1 + usize::from(hidden))?)))
    }

    pub(crate) fn put(&mut self, row: usize, hint: &Poly<Ntt>, secret: &Option<Zeroizing<Poly<Ntt>>>) {
        self.0.set(row, 0, hint);
        if let Some(secret) = secret {
            self.0.set(row, 1, secret);
        }
    }

    /// Takes hints that a server sent, for rows whose secrets are drawn from these keys.
    ///
    /// # Errors
    /// [`MaskError::Ring`] if there is no memory for them.
    pub(crate) fn of_server(
        parameters: &Parameters,
        limbs: &[usize],
        row_keys: &[Option<Key>],
        hints: &VerifiedHints<'_>,
    ) -> Result<Self, MaskError> {
        let ring = parameters.ring();
        let mut all = Self::room(parameters, limbs, row_keys.iter().any(Option::is_some))?;
        for first in (0..limbs.len()).step_by(ROWS_TOGETHER) {
            let some = first..limbs.len().min(first + ROWS_TOGETHER);
            let row = |row: usize| {
                let mut hint = ring.zero();
                hints.read(ring, row, &mut hint);
                let secret = row_keys[row].as_ref().map(|key| row_secret(ring, key));
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

    /// Returns `V` at the wanted coefficients of every request, `[row][limb][wanted]`; the matrix
    /// has so many blocks. Taking [`Verified`] is what keeps this behind the check. The memory of
    /// `workspace` holds secrets afterwards.
    ///
    /// # Errors
    /// [`MaskError::Ring`] if shapes do not fit, which the check has seen to.
    pub(crate) fn unmask(
        &self,
        ring: &Ring,
        form: &AnswerForm,
        blocks: usize,
        batch: Vec<(Secrets, Verified)>,
        workspace: &Workspace,
    ) -> Result<Vec<Zeroizing<Vec<u64>>>, MaskError> {
        let (secrets, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        // The answer's residues become those of `V` in place.
        let mut values: Vec<_> = answers.into_iter().map(|answer| Zeroizing::new(answer.into_residues())).collect();
        let mut left: Vec<&mut [u64]> = values.iter_mut().map(|values| &mut values[..]).collect();
        let wanted = form.wanted();
        // Adds the mask terms `s*H + s'*z` of one row and prime to the answer's residues.
        let add = |limb: usize, terms: &[u64], scratch: &mut [u64], values: &mut [u64]| {
            let picked = &mut scratch[..wanted.count()];
            wanted.pick(terms, picked);
            ring.add_residues(limb, values, picked);
        };
        let block_rows = form.rows() / blocks;
        for block in 0..blocks {
            let rows = block * block_rows..(block + 1) * block_rows;
            let len = form.limbs()[rows.clone()].iter().sum::<usize>() * form.count();
            let mut outs: Vec<&mut [u64]> = left.iter_mut().filter_map(|out| out.split_off_mut(..len)).collect();
            let masks = secrets.iter().map(|secrets| {
                let z = secrets.z.get(block).filter(|_| self.has_secrets());
                [Some(&*secrets.s), z.map(|z| &**z)].into_iter().flatten().collect()
            });
            let inputs: Vec<Vec<&Poly<Ntt>>> = masks.collect();
            let (inputs, lens) = (Inputs::Elements(&inputs), vec![form.count(); ring.limbs()]);
            let product = RowProduct { rows, inputs, wanted: Some(wanted), lens: &lens };
            self.0.apply(ring, product, &mut outs, workspace, add)?;
        }
        Ok(values)
    }
}

/// Returns residues `[row][limb][wanted]` as numbers `[row][wanted]`, row by row by `read`.
pub(crate) fn recompose<T: Default + Copy + Send>(
    parameters: &Parameters,
    form: &AnswerForm,
    residues: &[u64],
    read: impl Fn(&Crt, &[&[u64]], &mut [T]) + Sync,
) -> Vec<T> {
    let count = form.count();
    let mut values = vec![T::default(); form.rows() * count];
    let (mut left, mut rows) = (residues, Vec::with_capacity(form.rows()));
    for (&limbs, out) in form.limbs().iter().zip(values.chunks_exact_mut(count)) {
        let (row, rest) = left.split_at(limbs * count);
        left = rest;
        rows.push((row, out));
    }
    rows.into_par_iter().with_min_len(2).for_each(|(row, out)| {
        let residues: Vec<&[u64]> = row.chunks_exact(count).collect();
        // A row that is held modulo the first primes only is a number modulo these.
        let ring = parameters.ring_of(residues.len() < parameters.ring().limbs());
        read(ring.crt(), &residues, out);
    });
    values
}
