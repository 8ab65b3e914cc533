//! Polynomials whose domain is part of their type, so that a product in the wrong domain does not
//! compile.

use std::marker::PhantomData;

use zeroize::Zeroize;

use crate::aligned::AlignedWords;

/// Marker of a polynomial's domain.
pub trait Domain: Copy + Send + Sync + std::fmt::Debug + 'static {}

/// Coefficients of `1, X, .., X^(N-1)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coefficient;

/// Values at the odd powers of a primitive `2N`-th root of unity, in the order that `ntt.rs`
/// describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ntt;

impl Domain for Coefficient {}
impl Domain for Ntt {}

/// One ring element: for every limb (prime) `N` residues, limb after limb.
///
/// Deliberately without `Debug` of its content: a polynomial may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Poly<D: Domain> {
    residues: AlignedWords,
    degree: usize,
    domain: PhantomData<D>,
}

impl<D: Domain> std::fmt::Debug for Poly<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Poly<{}x{}, content withheld>", self.limbs(), self.degree)
    }
}

/// Returns an element without residues, which stays where an element was taken from.
impl<D: Domain> Default for Poly<D> {
    fn default() -> Self {
        Self { residues: AlignedWords::default(), degree: 1, domain: PhantomData }
    }
}

impl<D: Domain> Zeroize for Poly<D> {
    fn zeroize(&mut self) {
        self.residues.zeroize();
    }
}

impl<D: Domain> Poly<D> {
    /// Returns the zero element with `limbs` limbs of `degree` coefficients.
    pub fn zero(limbs: usize, degree: usize) -> Self {
        Self { residues: AlignedWords::zero(limbs * degree), degree, domain: PhantomData }
    }

    /// Builds an element whose residues `fill` appends, limb after limb.
    pub(crate) fn build(limbs: usize, degree: usize, fill: impl FnOnce(&mut Vec<u64>)) -> Self {
        Self { residues: AlignedWords::build(limbs * degree, fill), degree, domain: PhantomData }
    }

    /// Returns the ring degree `N`.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Returns the number of limbs, one for each prime.
    pub fn limbs(&self) -> usize {
        self.residues.len() / self.degree
    }

    /// Returns the residues modulo the `limb`-th prime.
    pub fn limb(&self, limb: usize) -> &[u64] {
        &self.residues[limb * self.degree..][..self.degree]
    }

    /// Returns the residues modulo the `limb`-th prime, mutable.
    pub fn limb_mut(&mut self, limb: usize) -> &mut [u64] {
        &mut self.residues[limb * self.degree..][..self.degree]
    }

    /// Returns all residues in chunks of `size` words, limb after limb.
    pub(crate) fn chunks_mut(&mut self, size: usize) -> std::slice::ChunksExactMut<'_, u64> {
        self.residues.chunks_exact_mut(size)
    }

    /// Gives the residues to another domain's type: only the transforms may say so.
    pub(crate) fn retype<E: Domain>(self) -> Poly<E> {
        Poly { residues: self.residues, degree: self.degree, domain: PhantomData }
    }
}
