//! What a server sends back, row by row: residues of the wanted coefficients, or of all values in the NTT domain.

use std::sync::Arc;

use jali_ring::Ring;
use jali_ring::wire::{Reader, rows_len};
use rayon::prelude::*;

use crate::MaskError;
use crate::wanted::Wanted;

/// What a client asks a server for, in the clear. It may ask differently every time: what is sealed is the same for all kinds, and so are the masked inputs. Which
/// kind is cheapest depends on machines, link and the client's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AnswerKind {
    /// All values of a row as they are in the NTT domain instead of its wanted coefficients: no transform for the server, more residues for both.
    pub whole_rows: bool,
    /// With the rows a second component `H[o] = sum_i W~[o][i]*a[i]`, once for all inputs of a request: the client keeps no hints of this layer. It could be
    /// computed with another public vector for every request; with the sealed one it is the same for a whole batch, and the check needs no more vectors.
    pub second_component: bool,
}

impl AnswerKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::of(0), Self::of(1), Self::of(2), Self::of(3)];

    const fn of(bits: u8) -> Self {
        Self { whole_rows: bits & 1 != 0, second_component: bits & 2 != 0 }
    }

    /// As it stands in requests and bundles.
    pub fn byte(self) -> u8 {
        u8::from(self.whole_rows) | u8::from(self.second_component) << 1
    }

    /// The kind that a byte stands for, if any.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// The form of a layer's answers: which residues, and modulo how many of the first primes each row is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerForm {
    wanted: Wanted,
    kind: AnswerKind,
    /// Row by row.
    limbs: Vec<usize>,
    /// Where every row's residues begin, and where the last ends.
    starts: Vec<usize>,
}

impl AnswerForm {
    /// The wanted coefficients of rows modulo as many primes as `limbs` says.
    pub fn new(wanted: Wanted, limbs: Vec<usize>) -> Self {
        Self::of_kind(AnswerKind::default(), wanted, limbs)
    }

    /// The same rows in an answer of another kind.
    pub fn with_kind(&self, kind: AnswerKind) -> Self {
        Self::of_kind(kind, self.wanted.clone(), self.limbs.clone())
    }

    fn of_kind(kind: AnswerKind, wanted: Wanted, limbs: Vec<usize>) -> Self {
        let mut form = Self { wanted, kind, limbs, starts: vec![0] };
        let count = form.count();
        let ends = form.limbs.iter().scan(0, |end, limbs| {
            *end += limbs * count;
            Some(*end)
        });
        form.starts.extend(ends);
        form
    }

    /// What is asked for.
    pub fn kind(&self) -> AnswerKind {
        self.kind
    }

    /// Residues of a row modulo one prime.
    pub fn count(&self) -> usize {
        self.count_of(self.kind)
    }

    /// The same in an answer of another kind.
    pub fn count_of(&self, kind: AnswerKind) -> usize {
        if kind.whole_rows { self.wanted.degree() } else { self.wanted.count() }
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

/// A decoded answer to one input: the residues of every row. They are below their primes, which the decoder has checked.
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

    /// Reads what a server's operator wrote: residues in the same order, those of a row and prime packed together.
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
