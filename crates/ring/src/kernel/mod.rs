//! Row multiply-accumulate: `r = sum_i x[i] * w[i]` in the NTT domain, all that the server ever does.
//!
//! Every kernel computes the same canonical residues; [`Kernel::NAIVE`] is the oracle that the others are compared
//! with. Nothing is reduced until a row ends: [`crate::modulus::MAX_LAZY_PRODUCTS`] products fit.

mod ifma;
mod lanes;
mod naive;
mod portable;
mod split;
mod store;
#[cfg(test)]
mod tests;

pub use store::RowStore;

use crate::{Modulus, RingError};

/// Coefficients that a kernel handles together; a row is stored as blocks of so many per tile.
pub const BLOCK: usize = 32;

/// A way to compute rows, available on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ifma,
    Avx512,
    Avx2,
    Portable,
    Naive,
}

impl Kernel {
    /// The reference: one product and one division at a time.
    pub const NAIVE: Self = Self(Kind::Naive);
    /// 64 x 64 -> 128 bit products; runs everywhere.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// AVX-512 IFMA, if this processor has it. No other constructor exists (nor for the next two), so
    /// holding one proves that it has.
    pub fn ifma() -> Option<Self> {
        ifma::available().then_some(Self(Kind::Ifma))
    }

    /// AVX-512F without IFMA, if this processor has it.
    pub fn avx512() -> Option<Self> {
        split::avx512_available().then_some(Self(Kind::Avx512))
    }

    /// AVX2, if this processor has it.
    pub fn avx2() -> Option<Self> {
        split::avx2_available().then_some(Self(Kind::Avx2))
    }

    /// The fastest kernel of this machine.
    pub fn fastest() -> Self {
        Self::ifma().or_else(Self::avx512).or_else(Self::avx2).unwrap_or(Self::PORTABLE)
    }

    /// Every kernel of this machine, fastest first.
    pub fn available() -> Vec<Self> {
        let vector = [Self::ifma(), Self::avx512(), Self::avx2()];
        vector.into_iter().flatten().chain([Self::PORTABLE, Self::NAIVE]).collect()
    }

    /// The fastest kernel, or the one named (`ifma`, `avx512`, `avx2`, `portable`, `naive`).
    ///
    /// # Errors
    /// [`RingError::Kernel`] if the name is unknown or the processor lacks what it needs.
    pub fn choose(name: Option<&str>) -> Result<Self, RingError> {
        let all = Self::available();
        let found = match name {
            None => return Ok(Self::fastest()),
            Some(name) => all.iter().find(|k| k.name() == name),
        };
        found.copied().ok_or_else(|| RingError::Kernel {
            name: name.unwrap_or_default().into(),
            available: all.iter().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Its name as [`Kernel::choose`] takes it.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Kind::Ifma => "ifma",
            Kind::Avx512 => "avx512",
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
            Kind::Naive => "naive",
        }
    }

    /// One row modulo one prime. `w` is stored `[N / BLOCK][tiles][BLOCK]`, `x` holds one slice of `N` residues per
    /// tile, `out` receives `N` residues. The lengths are checked by [`RowStore`], the only caller.
    fn row(self, p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
        match self.0 {
            Kind::Ifma => ifma::row(p, w, x, out),
            Kind::Avx512 => split::row_avx512(p, w, x, out),
            Kind::Avx2 => split::row_avx2(p, w, x, out),
            Kind::Portable => portable::row(p, w, x, out),
            Kind::Naive => naive::row(p, w, x, out),
        }
    }
}
