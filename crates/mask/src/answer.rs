//! What a server sends back: residues of the wanted coefficients, row by row.

use std::ops::Range;
use std::sync::Arc;

use jali_ring::{Coefficient, Poly, Ring};
use rayon::prelude::*;

use crate::MaskError;
use crate::wanted::Wanted;

/// The form of a layer's answers: which coefficients, and modulo how many of the first primes each row is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerForm {
    wanted: Wanted,
    /// Row by row.
    limbs: Vec<usize>,
    /// Where every row's residues begin, and where the last ends.
    starts: Vec<usize>,
}

impl AnswerForm {
    /// Rows modulo as many primes as `limbs` says.
    pub fn new(wanted: Wanted, limbs: Vec<usize>) -> Self {
        let mut starts = vec![0];
        starts.extend(limbs.iter().scan(0, |end, limbs| {
            *end += limbs * wanted.count();
            Some(*end)
        }));
        Self { wanted, limbs, starts }
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

/// A decoded answer: the wanted residues of every row. Residues are below their primes, which the decoder has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    form: Arc<AnswerForm>,
    /// `[row][limb][wanted]`.
    residues: Vec<u64>,
}

impl Answer {
    /// Takes residues in the order `[row][limb][wanted]`.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`] if their number does not fit or one is not below its prime (condition 6).
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

    /// Room for an answer of this form.
    pub fn empty(form: &Arc<AnswerForm>) -> Self {
        Self { form: form.clone(), residues: vec![0; form.residues()] }
    }

    /// Fills in some rows of the answers of a batch modulo some of the primes, in parallel: `part(limb, index within the range, image, element)`
    /// leaves a row's coefficients modulo that prime in an element of `degree` residues whose content before is anything.
    pub fn fill(
        answers: &mut [Self],
        (limbs, rows): (Range<usize>, Range<usize>),
        degree: usize,
        part: impl Fn(usize, usize, usize, &mut Poly<Coefficient>) + Sync,
    ) {
        let mut outs = Vec::with_capacity(answers.len() * rows.len() * limbs.len());
        for (image, answer) in answers.iter_mut().enumerate() {
            let Self { form, residues } = answer;
            let mut left = &mut residues[form.starts[rows.start]..form.starts[rows.end]];
            for (o, held) in form.limbs[rows.clone()].iter().enumerate() {
                for limb in 0..*held {
                    let (out, rest) = left.split_at_mut(form.wanted.count());
                    left = rest;
                    if limbs.contains(&limb) {
                        outs.push((limb, o, image, &form.wanted, out));
                    }
                }
            }
        }
        // Several for each element that is allocated.
        outs.into_par_iter().with_min_len(8).for_each_init(
            || Poly::zero(1, degree),
            |element, (limb, o, image, wanted, out)| {
                part(limb, o, image, element);
                wanted.pick(element.limb(0), out);
            },
        );
    }

    /// The form.
    pub fn form(&self) -> &AnswerForm {
        &self.form
    }

    /// All residues, `[row][limb][wanted]`.
    pub fn residues(&self) -> &[u64] {
        &self.residues
    }

    /// The wanted residues of one row and limb.
    pub fn part(&self, row: usize, limb: usize) -> &[u64] {
        let width = self.form.wanted.count();
        &self.residues[self.form.starts[row] + limb * width..][..width]
    }
}
