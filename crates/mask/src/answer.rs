//! What a server sends back: the residues of every row's wanted coefficients.

use std::sync::Arc;

use jali_ring::wire::{Reader, rows_len};
use jali_ring::{Ring, Wanted};
use rayon::prelude::*;

use crate::MaskError;

/// The form of an operator's answers: which coefficients, and modulo how many of the first primes
/// each row is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerForm {
    wanted: Wanted,
    /// Row by row.
    limbs: Vec<usize>,
    /// Where every row's residues begin, and where the last ends.
    starts: Vec<usize>,
}

impl AnswerForm {
    /// The wanted coefficients of rows modulo as many primes as `limbs` says.
    pub fn new(wanted: Wanted, limbs: Vec<usize>) -> Self {
        let mut starts = vec![0];
        let ends = limbs.iter().scan(0, |end, limbs| {
            *end += limbs * wanted.count();
            Some(*end)
        });
        starts.extend(ends);
        Self { wanted, limbs, starts }
    }

    /// Residues of a row modulo one prime.
    pub fn count(&self) -> usize {
        self.wanted.count()
    }

    /// The wanted coefficients.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.limbs.len()
    }

    /// Number of primes of every row.
    pub fn limbs(&self) -> &[usize] {
        &self.limbs
    }

    /// Number of residues of an answer.
    pub fn residues(&self) -> usize {
        self.starts[self.limbs.len()]
    }
}

/// A decoded answer to one input: the residues of every row. They are below their primes, which the
/// decoder has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    form: Arc<AnswerForm>,
    /// `[row][limb][count]`.
    residues: Vec<u64>,
}

impl Answer {
    /// Takes residues in the order `[row][limb]`, as many for each as the form has.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`] if their number does not fit or one is not below its prime
    /// (condition 6).
    pub fn new(ring: &Ring, form: &Arc<AnswerForm>, residues: Vec<u64>) -> Result<Self, MaskError> {
        if residues.len() != form.residues() || form.limbs.iter().any(|&limbs| limbs > ring.limbs()) {
            return Err(MaskError::AnswerRejected);
        }
        let answer = Self { form: form.clone(), residues };
        let too_large = |row: usize| {
            let mut parts = ring.moduli()[..form.limbs[row]].iter().enumerate();
            parts.any(|(l, m)| !m.are_residues(answer.part(row, l)))
        };
        if (0..form.rows()).into_par_iter().any(too_large) { Err(MaskError::AnswerRejected) } else { Ok(answer) }
    }

    /// Reads what a server's operator wrote: residues in the same order, those of a row and prime
    /// packed together.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`] for any other bytes.
    pub fn decode(ring: &Ring, form: &Arc<AnswerForm>, bytes: &[u8]) -> Result<Self, MaskError> {
        let fits = form.limbs.iter().all(|&limbs| limbs <= ring.limbs());
        if !fits || bytes.len() != rows_len(ring.moduli(), &form.limbs, form.count()) {
            return Err(MaskError::AnswerRejected);
        }
        let (mut r, mut residues) = (Reader::new(bytes), vec![0; form.residues()]);
        let read = r.residue_rows(ring, &form.limbs, form.count(), &mut residues);
        read.map_err(|_| MaskError::AnswerRejected)?;
        Ok(Self { form: form.clone(), residues })
    }

    /// The form.
    pub fn form(&self) -> &AnswerForm {
        &self.form
    }

    /// The residues themselves.
    pub(crate) fn into_residues(self) -> Vec<u64> {
        self.residues
    }

    /// All residues, `[row][limb]`.
    pub fn residues(&self) -> &[u64] {
        &self.residues
    }

    /// The residues of one row and limb.
    pub fn part(&self, row: usize, limb: usize) -> &[u64] {
        let width = self.form.count();
        &self.residues[self.form.starts[row] + limb * width..][..width]
    }
}
