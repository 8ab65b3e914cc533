//! The hot loops: transforms, products of rows, pointwise products. Written once over lanes
//! (`lanes.rs`), compiled for every vector unit, chosen at run time. This folder is the only place
//! of this crate with `unsafe`.
//!
//! Every backend computes the same canonical residues. Rows are compared with one product and one
//! division at a time, transforms with the definition and with another implementation (tests).

#[cfg(target_arch = "x86_64")]
mod bits;
#[cfg(test)]
mod emulated;
#[cfg(any(test, target_arch = "wasm32"))]
mod estimated;
mod inputs;
pub(crate) mod lanes;
pub(crate) mod masking;
mod multiply;
mod peak;
pub(crate) mod pointwise;
pub(crate) mod recompose;
mod rows;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod transform;
pub(crate) mod wanted_runs;
mod word;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use inputs::{Batch, Inputs};
pub use masking::{MaskSums, MaskVectors, Vector};
pub use rows::RowStore;
pub(crate) use rows::{GROUP, Part, product_words};
pub(crate) use wanted_runs::WantedRuns;

use crate::{Modulus, RingError};
use lanes::Lanes;

/// Coefficients that are worked on together. A row is stored in blocks of so many coefficients of
/// each tile, each in two halves.
pub const BLOCK: usize = 64;

/// Work that is written over lanes. `run` must be inlined into the function that is compiled for
/// the vector unit.
pub(crate) trait Job {
    /// The result of the work.
    type Out;
    /// Does the work with the lanes `V`.
    fn run<V: Lanes>(self) -> Self::Out;
}

/// A vector unit of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ifma,
    Avx512,
    Avx2,
    Portable,
    #[cfg(any(test, target_arch = "wasm32"))]
    Estimated,
    /// IFMA in plain integers, every bound asserted.
    #[cfg(test)]
    Emulated,
}

#[cfg(target_arch = "x86_64")]
fn available(kind: Kind) -> bool {
    match kind {
        Kind::Ifma => x86::ifma_available(),
        Kind::Avx512 => x86::avx512_available(),
        Kind::Avx2 => x86::avx2_available(),
        Kind::Portable => true,
        #[cfg(test)]
        Kind::Emulated | Kind::Estimated => true,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn available(kind: Kind) -> bool {
    !matches!(kind, Kind::Ifma | Kind::Avx512 | Kind::Avx2)
}

impl Backend {
    /// General registers, 64 x 64 -> 128 bit products; runs everywhere.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// Returns the backend if this processor has what it needs. No other constructor exists (but
    /// for the portable one), so holding a backend proves that it may run.
    fn of(kind: Kind) -> Option<Self> {
        available(kind).then_some(Self(kind))
    }

    /// Returns the backend of AVX-512 IFMA, if this processor has it.
    pub fn ifma() -> Option<Self> {
        Self::of(Kind::Ifma)
    }

    /// Returns the fastest backend of this machine.
    pub fn fastest() -> Self {
        Self::available().first().copied().unwrap_or(Self::PORTABLE)
    }

    /// Returns every backend of this machine, fastest first.
    pub fn available() -> Vec<Self> {
        let kinds = [
            Kind::Ifma,
            Kind::Avx512,
            Kind::Avx2,
            #[cfg(target_arch = "wasm32")]
            Kind::Estimated,
            Kind::Portable,
            #[cfg(all(test, not(target_arch = "wasm32")))]
            Kind::Estimated,
            #[cfg(test)]
            Kind::Emulated,
        ];
        kinds.into_iter().filter_map(Self::of).collect()
    }

    /// Returns the fastest backend, or the one named (`ifma`, `avx512`, `avx2`, `portable`).
    ///
    /// # Errors
    /// [`RingError::Backend`] if the name is unknown or the processor lacks what it needs.
    pub fn choose(name: Option<&str>) -> Result<Self, RingError> {
        let all = Self::available();
        let found = match name {
            None => return Ok(Self::fastest()),
            Some(name) => all.iter().find(|k| k.name() == name),
        };
        found.copied().ok_or_else(|| RingError::Backend {
            name: name.unwrap_or_default().into(),
            available: all.iter().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Returns the backend's name as [`Backend::choose`] takes it.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Kind::Ifma => "ifma",
            Kind::Avx512 => "avx512",
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
            #[cfg(any(test, target_arch = "wasm32"))]
            Kind::Estimated => "estimated",
            #[cfg(test)]
            Kind::Emulated => "emulated",
        }
    }

    /// Returns this backend, or the portable one for primes so large that lazy values would not fit
    /// vector lanes.
    pub(crate) fn for_modulus(self, m: &Modulus) -> Self {
        if m.bits() > transform::MAX_LANE_BITS { Self::PORTABLE } else { self }
    }

    /// Returns the bits that a residue takes in rows, if its prime has `bits` bits: just these
    /// where the backend reads lanes from any bit on, else whole bytes.
    pub fn held_bits(self, bits: u32) -> usize {
        match self.0 {
            Kind::Ifma => bits.max(8) as usize,
            #[cfg(test)]
            Kind::Emulated => bits.max(8) as usize,
            _ => 8 * (bits.div_ceil(8) as usize).max(5),
        }
    }

    /// Unpacks residues of `bits` bits from the front of `bytes` by this backend's own means, as
    /// many as it can. Returns how many these are, and whether one of them is not below `p`. The
    /// caller unpacks the others.
    #[allow(unsafe_code)]
    pub(crate) fn unpack_bits(self, bits: u32, p: u64, bytes: &[u8], out: &mut [u64]) -> (usize, bool) {
        match self.0 {
            // SAFETY: as in `run`; VBMI is among what `ifma_available` asks for.
            #[cfg(target_arch = "x86_64")]
            Kind::Ifma => unsafe { bits::unpack_bits(bits, p, bytes, out) },
            _ => {
                let _ = (bits, p, bytes, out);
                (0, false)
            }
        }
    }

    /// Packs residues of `bits` bits to the front of `out` by this backend's own means, as many as
    /// it can, and returns how many these are. Bytes behind them may become anything.
    #[allow(unsafe_code)]
    pub(crate) fn pack_bits(self, bits: u32, values: &[u64], out: &mut [u8]) -> usize {
        match self.0 {
            // SAFETY: as in `unpack_bits`.
            #[cfg(target_arch = "x86_64")]
            Kind::Ifma => unsafe { bits::pack_bits(bits, values, out) },
            _ => {
                let _ = (bits, values, out);
                0
            }
        }
    }

    /// Runs a job in this backend's lanes.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    pub(crate) fn run<J: Job>(self, job: J) -> J::Out {
        match self.0 {
            // SAFETY: `Backend::of` is the only constructor and has seen that the processor has
            // every feature that the function is compiled for; so for the next two.
            Kind::Ifma => unsafe { x86::run_ifma(job) },
            // SAFETY: as above.
            Kind::Avx512 => unsafe { x86::run_avx512(job) },
            // SAFETY: as above.
            Kind::Avx2 => unsafe { x86::run_avx2(job) },
            Kind::Portable => job.run::<word::Word>(),
            #[cfg(test)]
            Kind::Estimated => job.run::<estimated::Estimated>(),
            #[cfg(test)]
            Kind::Emulated => job.run::<emulated::Emulated>(),
        }
    }

    /// Runs a job in this backend's lanes.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn run<J: Job>(self, job: J) -> J::Out {
        match self.0 {
            #[cfg(any(test, target_arch = "wasm32"))]
            Kind::Estimated => job.run::<estimated::Estimated>(),
            #[cfg(test)]
            Kind::Emulated => job.run::<emulated::Emulated>(),
            _ => job.run::<word::Word>(),
        }
    }
}
