//! The ciphertext check: is the answer what the sealed operator gives for this request?
//!
//! `r[o] = sum_i W~[o][i]*x~[i]` is a deterministic function of what the server holds, so the client compares
//! `sum_o alpha[o]*r[o]` with `sum_i U[i]*x~[i]`, `U[i] = sum_o alpha[o]*W~[o][i]`, on every returned coefficient and
//! limb. The scalars are secret; a deviation passes with probability `1/p` per scalar and limb it touches, two scalars
//! per limb are used (at most 2^-64 with the primes that sealing takes). Whether it deviated the server knows already: accepting or rejecting tells nothing.
//! Nothing here depends on `s`, `s'`, `z` or `V` (condition 5).

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use jali_ring::{Coefficient, Ntt, Poly, Ring};
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use crate::MaskError;
use crate::wanted::Wanted;

/// Independent scalars per limb.
pub const SCALARS: usize = 2;
/// Rejections after which the scalars must be drawn anew: each costs an attacker one guess in at least 2^64.
pub const MAX_REJECTS: u32 = 1 << 16;

/// A decoded answer: the wanted residues of every row. Residues are below their primes, which the decoder has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    rows: usize,
    limbs: usize,
    /// `[row][limb][wanted]`.
    residues: Vec<u64>,
}

impl Answer {
    /// Takes residues in the order `[row][limb][wanted]`.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`] if their number does not fit or one is not below its prime (condition 6).
    pub fn new(ring: &Ring, wanted: &Wanted, rows: usize, residues: Vec<u64>) -> Result<Self, MaskError> {
        let limbs = ring.limbs();
        if residues.len() != rows * limbs * wanted.count() {
            return Err(MaskError::AnswerRejected);
        }
        let too_large = residues.chunks_exact(wanted.count()).enumerate().any(|(i, part)| {
            let p = ring.moduli()[i % limbs].value();
            part.iter().any(|&v| v >= p)
        });
        if too_large { Err(MaskError::AnswerRejected) } else { Ok(Self { rows, limbs, residues }) }
    }

    /// Room for the wanted coefficients of so many rows.
    pub fn empty(ring: &Ring, wanted: &Wanted, rows: usize) -> Self {
        Self { rows, limbs: ring.limbs(), residues: vec![0; rows * ring.limbs() * wanted.count()] }
    }

    /// Fills in some rows of the answers of a batch, each computed by `row(index within the range, image)`, in parallel.
    pub fn fill(
        answers: &mut [Self],
        ring: &Ring,
        wanted: &Wanted,
        rows: Range<usize>,
        row: impl Fn(usize, usize) -> Poly<Coefficient> + Sync,
    ) {
        let (limbs, count) = (ring.limbs(), wanted.count());
        let run = limbs * count;
        answers.par_iter_mut().enumerate().for_each(|(image, answer)| {
            let out = &mut answer.residues[rows.start * run..rows.end * run];
            out.par_chunks_exact_mut(run).enumerate().for_each(|(o, out)| {
                let row = row(o, image);
                for (l, out) in out.chunks_exact_mut(count).enumerate() {
                    let row = row.limb(l);
                    out.iter_mut().zip(wanted.indices()).for_each(|(o, &k)| *o = row[k as usize]);
                }
            });
        });
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Wanted coefficients per row.
    pub fn wanted(&self) -> usize {
        self.residues.len() / (self.rows * self.limbs)
    }

    /// All residues, `[row][limb][wanted]`.
    pub fn residues(&self) -> &[u64] {
        &self.residues
    }

    /// The wanted residues of one row and limb.
    pub fn part(&self, row: usize, limb: usize) -> &[u64] {
        let width = self.wanted();
        &self.residues[(row * self.limbs + limb) * width..][..width]
    }
}

/// An answer that has passed the check. Only [`CheckKey::verify`] makes one, and unmasking takes nothing else.
#[derive(Debug)]
pub(crate) struct Verified(Answer);

impl Verified {
    pub(crate) fn answer(&self) -> &Answer {
        &self.0
    }
}

/// What one request's answer must satisfy: `sum_i U[i]*x~[i]` at the wanted coefficients, `[scalar][limb][wanted]`.
/// As secret as the scalars: the server knows the rows, so enough of these values would give the scalars away.
pub(crate) struct Expected(Zeroizing<Vec<Vec<Vec<u64>>>>);

/// Secret scalars and the vectors `U`; the same for all requests until the model is sealed again.
pub struct CheckKey {
    /// `[scalar][limb][row]`.
    alphas: [Vec<Vec<u64>>; SCALARS],
    /// `U`, one element per tile, for either scalar.
    vectors: [Vec<Poly<Ntt>>; SCALARS],
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
        self.vectors.zeroize();
    }
}

impl CheckKey {
    /// `U` for the rows `W~` and scalars `[scalar][limb][row]`.
    pub(crate) fn new(ring: &Ring, rows: &[Vec<Poly<Ntt>>], alphas: [Vec<Vec<u64>>; SCALARS]) -> Self {
        let tiles = rows.first().map_or(0, Vec::len);
        let combine = |alpha: &[Vec<u64>]| -> Vec<Poly<Ntt>> {
            let one = |i: usize| {
                let mut sum = ring.zero();
                for l in 0..ring.limbs() {
                    for (row, &alpha) in rows.iter().zip(&alpha[l]) {
                        ring.add_scaled(l, sum.limb_mut(l), row[i].limb(l), alpha);
                    }
                }
                sum
            };
            (0..tiles).into_par_iter().map(one).collect()
        };
        let vectors = [combine(&alphas[0]), combine(&alphas[1])];
        Self { alphas, vectors, rejects: AtomicU32::new(0) }
    }

    /// `U`, what a request's masking pass sums the masked tiles with.
    pub(crate) fn vectors(&self) -> [&[Poly<Ntt>]; SCALARS] {
        [&self.vectors[0], &self.vectors[1]]
    }

    /// What the answer must satisfy, from the sums `sum_i U[i]*x~[i]`.
    ///
    /// # Errors
    /// [`MaskError::CheckKeyExhausted`] after 2^16 rejected answers.
    pub(crate) fn expect(
        &self,
        ring: &Ring,
        wanted: &Wanted,
        sums: [Zeroizing<Poly<Ntt>>; SCALARS],
    ) -> Result<Expected, MaskError> {
        self.usable()?;
        let one = |mut sum: Zeroizing<Poly<Ntt>>| -> Vec<Vec<u64>> {
            let sum = Zeroizing::new(ring.inverse(std::mem::replace(&mut *sum, Poly::zero(0, 1))));
            let wanted = wanted.indices();
            (0..ring.limbs()).map(|l| wanted.iter().map(|&k| sum.limb(l)[k as usize]).collect()).collect()
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
    pub(crate) fn verify(&self, ring: &Ring, expected: &Expected, answer: Answer) -> Result<Verified, MaskError> {
        // Requests may have been under way when the limit was reached.
        self.usable()?;
        let (rows, limbs) = (self.alphas[0][0].len(), ring.limbs());
        let words = expected.0[0][0].len() * rows * limbs;
        if answer.rows != rows || answer.limbs != limbs || answer.residues.len() != words {
            return Err(self.reject());
        }
        let jobs: Vec<(usize, usize)> = (0..SCALARS).flat_map(|c| (0..answer.limbs).map(move |l| (c, l))).collect();
        let different = jobs
            .into_par_iter()
            .map(|(c, l)| {
                let (m, want) = (&ring.moduli()[l], &expected.0[c][l]);
                // Whole groups of lanes by the ring's kernel, the rest one by one.
                let whole = want.len() / 8 * 8;
                let mut sums = Zeroizing::new(vec![0u64; want.len()]);
                for (row, &alpha) in self.alphas[c][l].iter().enumerate() {
                    let part = answer.part(row, l);
                    ring.add_scaled(l, &mut sums[..whole], &part[..whole], alpha);
                    for (s, &r) in sums[whole..].iter_mut().zip(&part[whole..]) {
                        *s = m.add(*s, m.mul(alpha, r));
                    }
                }
                sums.iter().zip(want).fold(0, |d, (&s, &w)| d | (s ^ w))
            })
            .reduce(|| 0, |a, b| a | b);
        if different == 0 { Ok(Verified(answer)) } else { Err(self.reject()) }
    }

    /// Counts a rejected (or undecodable) answer.
    pub(crate) fn reject(&self) -> MaskError {
        self.rejects.fetch_add(1, Ordering::Relaxed);
        MaskError::AnswerRejected
    }
}
