//! The ciphertext check: is the answer what the sealed operator gives for this request?
//!
//! `r[o] = sum_i W~[o][i]*x~[i]` is a deterministic function of what the server holds, so the
//! client compares `sum_o alpha[o]*r[o]` with `sum_i U[i]*x~[i]`, `U[i] = sum_o alpha[o]*W~[o][i]`,
//! on every returned coefficient and limb; and hints in the same way with `sum_i U[i]*a[i]`. The
//! scalars are secret; a deviation passes with probability `1/p` per scalar and limb it touches,
//! two scalars per limb are used (at most 2^-64 with the primes that sealing takes). Whether it
//! deviated the server knows already: accepting or rejecting tells nothing. Nothing here depends on
//! `s`, `s'`, `z` or `V` (condition 5).

use std::sync::atomic::{AtomicU32, Ordering};

use jali_ring::wire::{Reader, rows_len};
use jali_ring::{Ntt, Poly, Ring};
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use crate::MaskError;
use crate::answer::{Answer, AnswerForm};
use crate::shape::MatrixShape;

/// Independent scalars per limb.
pub const SCALARS: usize = 2;
/// Answers that failed the linear check in one process, after which its key goes on no more: each
/// was a guess that succeeds with a probability of at most 2^-64. The count begins anew with every
/// process; n lies in all of them together pass with a probability of at most n * 2^-64, and `jali
/// infer` ends at the first.
pub const MAX_REJECTS: u32 = 1 << 16;

/// An answer that has passed the check. Only [`CheckKey::verify`] makes one, and unmasking takes
/// nothing else.
#[derive(Debug)]
pub(crate) struct Verified(Answer);

impl Verified {
    pub(crate) fn into_residues(self) -> Vec<u64> {
        self.0.into_residues()
    }
}

/// Hints that have passed the check, row by row the number of primes and the packed hint. Only
/// [`CheckKey::verify_hints`] makes them, and nothing else that a server sent takes masks off.
#[derive(Debug)]
pub(crate) struct VerifiedHints<'b>(Vec<(usize, &'b [u8])>);

impl VerifiedHints<'_> {
    /// The hint of a row in the leading limbs of `out`.
    pub(crate) fn read(&self, ring: &Ring, row: usize, out: &mut Poly<Ntt>) {
        let (limbs, bytes) = self.0[row];
        // The check has read it before, so this never fails.
        if read_row(ring, limbs, bytes, out).is_none() {
            out.zeroize();
        }
    }
}

/// A packed row in the leading limbs of `out`; `None` for residues that are not below their primes.
fn read_row(ring: &Ring, limbs: usize, bytes: &[u8], out: &mut Poly<Ntt>) -> Option<()> {
    let mut r = Reader::new(bytes);
    let mut moduli = ring.moduli().iter().enumerate().take(limbs);
    moduli.try_for_each(|(l, m)| r.residues(ring.backend(), m, out.limb_mut(l)).ok())
}

/// What one request's answer must satisfy: `sum_i U[i]*x~[i]` where something comes back,
/// `[scalar][limb][count]`. As secret as the scalars: the server knows the rows, so enough of these
/// values would give the scalars away.
pub(crate) struct Expected(Zeroizing<Vec<Vec<Vec<u64>>>>);

/// Secret scalars and what hints must satisfy; the same for all requests until the model is sealed
/// again. The vectors `U` stand with the public vector in `OperatorKey`, where masking reads them
/// together.
pub struct CheckKey {
    /// `[scalar][limb][row]`.
    alphas: [Vec<Vec<u64>>; SCALARS],
    /// `sum_i U[i]*a[i]` for either scalar: what hints must satisfy.
    hints: [Poly<Ntt>; SCALARS],
    rejects: AtomicU32,
}

impl std::fmt::Debug for CheckKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckKey(withheld)")
    }
}

impl Drop for CheckKey {
    fn drop(&mut self) {
        self.alphas.zeroize();
        self.hints.zeroize();
    }
}

/// The vectors `U` of a matrix while its rows are being sealed: `U[i] = sum_o alpha[o]*W~[o][i]`,
/// one element for every tile.
pub(crate) struct CheckVectors {
    /// `[scalar][tile]`.
    sums: [Zeroizing<Vec<Poly<Ntt>>>; SCALARS],
    block_tiles: usize,
    block_rows: usize,
}

impl CheckVectors {
    /// Of a matrix without rows so far.
    pub(crate) fn new(ring: &Ring, shape: MatrixShape) -> Self {
        let zeros = || Zeroizing::new((0..shape.blocks * shape.tiles).map(|_| ring.zero()).collect());
        Self { sums: [(); SCALARS].map(|()| zeros()), block_tiles: shape.tiles, block_rows: shape.rows / shape.blocks }
    }

    /// Adds rows from `first` on, each with its tiles, under the scalars `[scalar][limb][row]` of
    /// all rows. A row that is held modulo the first primes only has no part in the other limbs,
    /// here and in [`CheckKey::verify`]: nothing of it comes back there.
    pub(crate) fn add(
        &mut self,
        ring: &Ring,
        alphas: &[Vec<Vec<u64>>; SCALARS],
        first: usize,
        rows: &[Vec<Poly<Ntt>>],
    ) {
        let (block_tiles, block_rows) = (self.block_tiles, self.block_rows);
        for (sums, alpha) in self.sums.iter_mut().zip(alphas) {
            // Blocks that these rows belong to.
            let blocks = first / block_rows..(first + rows.len()).div_ceil(block_rows);
            let tiles = &mut sums[blocks.start * block_tiles..blocks.end * block_tiles];
            tiles.par_iter_mut().enumerate().for_each(|(i, sum)| {
                let (block, tile) = (blocks.start + i / block_tiles, i % block_tiles);
                let own = (block * block_rows).max(first)..((block + 1) * block_rows).min(first + rows.len());
                for row in own {
                    let element = &rows[row - first][tile];
                    for l in 0..element.limbs() {
                        ring.add_scaled(l, sum.limb_mut(l), element.limb(l), alpha[l][row]);
                    }
                }
            });
        }
    }

    /// For either scalar the whole vector.
    pub(crate) fn vectors(&self) -> [&[Poly<Ntt>]; SCALARS] {
        self.sums.each_ref().map(|sums| &sums[..])
    }
}

impl CheckKey {
    /// Of the scalars `[scalar][limb][row]`, the vectors `U` that belong to them, and the public
    /// vector `a`.
    pub(crate) fn new(
        ring: &Ring,
        alphas: [Vec<Vec<u64>>; SCALARS],
        vectors: [&[Poly<Ntt>]; SCALARS],
        a: &[Poly<Ntt>],
    ) -> Self {
        let hints = vectors.map(|u| std::mem::take(&mut *inner_product(ring, u, a)));
        Self { alphas, hints, rejects: AtomicU32::new(0) }
    }

    /// Hints of all rows, packed, each modulo as many primes as `limbs` says, if they are right:
    /// `sum_o alpha[o]*H[o] = sum_i U[i]*a[i]` on every coefficient. Residues that are not below
    /// their primes are not (condition 6). `a` is public, so whoever sent them knows whether they
    /// are right.
    pub(crate) fn verify_hints<'b>(
        &self,
        ring: &Ring,
        limbs: &[usize],
        mut bytes: &'b [u8],
    ) -> Option<VerifiedHints<'b>> {
        let mut rows = Vec::with_capacity(limbs.len());
        for &limbs in limbs {
            rows.push((limbs, bytes.split_off(..rows_len(ring.moduli(), &[limbs], ring.degree()))?));
        }
        let zero = || [(); SCALARS].map(|()| Zeroizing::new(ring.zero::<Ntt>()));
        let some = |(first, rows): (usize, &[(usize, &[u8])])| {
            let (mut sums, mut values) = (zero(), ring.zero::<Ntt>());
            for (row, &(limbs, bytes)) in rows.iter().enumerate() {
                read_row(ring, limbs, bytes, &mut values)?;
                for (sum, alphas) in sums.iter_mut().zip(&self.alphas) {
                    for l in 0..limbs {
                        ring.add_scaled(l, sum.limb_mut(l), values.limb(l), alphas[l][first + row]);
                    }
                }
            }
            Some(sums)
        };
        let together = rows.len().div_ceil(rayon::current_num_threads()).max(1);
        let parts = rows.par_chunks(together).enumerate().map(|(i, rows)| some((i * together, rows)));
        let added = parts.reduce(
            || Some(zero()),
            |a, b| {
                let mut a = a?;
                a.iter_mut().zip(&b?).for_each(|(a, b)| ring.add_assign(a, b));
                Some(a)
            },
        )?;
        let limbs = added.iter().zip(&self.hints);
        let limbs = limbs.flat_map(|(got, want)| (0..ring.limbs()).map(|l| (got.limb(l), want.limb(l))));
        let different = limbs.flat_map(|(got, want)| got.iter().zip(want)).fold(0, |d, (g, w)| d | (g ^ w));
        if different != 0 {
            self.count_guess();
        }
        (bytes.is_empty() && different == 0).then_some(VerifiedHints(rows))
    }

    /// What the answer must satisfy, from the sums `sum_i U[i]*x~[i]`: these, at the wanted
    /// coefficients.
    ///
    /// # Errors
    /// [`MaskError::CheckKeyExhausted`] after 2^16 rejected answers.
    pub(crate) fn expect(
        &self,
        ring: &Ring,
        form: &AnswerForm,
        sums: [Zeroizing<Poly<Ntt>>; SCALARS],
    ) -> Result<Expected, MaskError> {
        self.usable()?;
        let one = |mut sum: Zeroizing<Poly<Ntt>>| -> Vec<Vec<u64>> {
            let picked = |l| {
                ring.inverse_wanted(l, sum.limb_mut(l), form.wanted());
                let mut out = vec![0; form.count()];
                form.wanted().pick(sum.limb(l), &mut out);
                out
            };
            (0..ring.limbs()).map(picked).collect()
        };
        let [first, second] = sums;
        let (first, second) = rayon::join(|| one(first), || one(second));
        Ok(Expected(Zeroizing::new(vec![first, second])))
    }

    /// Whether the scalars may still be used.
    pub(crate) fn usable(&self) -> Result<(), MaskError> {
        let rejects = self.rejects.load(Ordering::Relaxed);
        if rejects >= MAX_REJECTS { Err(MaskError::CheckKeyExhausted(rejects)) } else { Ok(()) }
    }

    /// Accepts the answer or counts a rejection.
    pub(crate) fn verify(
        &self,
        ring: &Ring,
        form: &AnswerForm,
        expected: &Expected,
        answer: Answer,
    ) -> Result<Verified, MaskError> {
        // Requests may have been under way when the limit was reached.
        self.usable()?;
        if !std::ptr::eq(answer.form(), form) && answer.form() != form {
            return Err(MaskError::AnswerRejected);
        }
        let jobs: Vec<(usize, usize)> = (0..SCALARS).flat_map(|c| (0..ring.limbs()).map(move |l| (c, l))).collect();
        let different = jobs
            .into_par_iter()
            .map(|(c, l)| {
                let (m, want) = (&ring.moduli()[l], &expected.0[c][l]);
                // Whole groups of lanes by the ring's backend, the rest one by one.
                let whole = want.len() / 8 * 8;
                let mut sums = Zeroizing::new(vec![0u64; want.len()]);
                let held = |row: usize| form.limbs()[row] > l;
                for (row, &alpha) in self.alphas[c][l].iter().enumerate().filter(|(row, _)| held(*row)) {
                    let part = answer.part(row, l);
                    ring.add_scaled(l, &mut sums[..whole], &part[..whole], alpha);
                    for (s, &r) in sums[whole..].iter_mut().zip(&part[whole..]) {
                        *s = m.add(*s, m.mul(alpha, r));
                    }
                }
                sums.iter().zip(want).fold(0, |d, (&s, &w)| d | (s ^ w))
            })
            .reduce(|| 0, |a, b| a | b);
        if different == 0 { Ok(Verified(answer)) } else { Err(self.count_guess()) }
    }

    /// How many answers were counted.
    #[cfg(test)]
    pub(crate) fn guesses(&self) -> u32 {
        self.rejects.load(Ordering::Relaxed)
    }

    /// Counts an answer, or hints, that failed the linear check: a guess at the scalars. What did
    /// not come that far (refusals, missing or malformed answers) has tested no scalar.
    pub(crate) fn count_guess(&self) -> MaskError {
        self.rejects.fetch_add(1, Ordering::Relaxed);
        MaskError::AnswerRejected
    }
}

/// Returns `sum_i u[i]*x[i]`.
fn inner_product(ring: &Ring, u: &[Poly<Ntt>], x: &[Poly<Ntt>]) -> Zeroizing<Poly<Ntt>> {
    let mut sum = Zeroizing::new(ring.zero());
    u.iter().zip(x).for_each(|(u, x)| ring.mul_add(&mut sum, u, x));
    sum
}
