//! Products of filters and outputs, by the backend's own loops.

use super::{Backend, Kind, wide};
use crate::bits::LANES;

#[cfg(target_arch = "x86_64")]
pub(crate) use super::x86::Taps;

/// What a loop over the taps of a convolution reads.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy)]
pub(crate) struct Taps<'a> {
    /// Planes of the inputs.
    pub(crate) planes: &'a [u32],
    /// Where every tap finds the input of the first output.
    pub(crate) places: &'a [usize],
    /// Weights, `[tap][filter]`.
    pub(crate) weights: &'a [u32],
}

/// Outputs of a filter that are computed together: runs are multiples of it, or of half of it for
/// [`eight_filters`].
pub(crate) const TILE: usize = 32;
/// Filters that are computed together.
pub(crate) const TOGETHER: usize = 8;

/// Writes the sums of [`TOGETHER`] filters, one run of outputs after the other. With `PAIRS` every
/// word holds two numbers of 16 bits, and two products are added for each.
pub(crate) fn eight_filters<const PAIRS: bool>(backend: Backend, taps: Taps<'_>, out: &mut [u32]) {
    match backend.kind() {
        Kind::Portable => several::<PAIRS, TOGETHER>(taps, out),
        // SAFETY: only `Backend::all` makes a `Backend` of this kind, and only after the processor
        // said that it has these instructions.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { super::x86::eight_filters_256::<PAIRS>(taps, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { super::x86::eight_filters_512::<PAIRS>(taps, out) },
    }
}

/// Writes the sums of one filter, of words or of pairs as [`eight_filters`].
pub(crate) fn one_filter<const PAIRS: bool>(backend: Backend, taps: Taps<'_>, out: &mut [u32]) {
    match backend.kind() {
        // SAFETY: only `Backend::all` makes a `Backend` of this kind, and only after the processor
        // said that it has these instructions.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { super::x86::one_filter_512::<PAIRS>(taps, out) },
        _ if PAIRS => wide_filter_of_pairs(backend, taps, out),
        _ => wide_filter(backend, taps, out),
    }
}

/// The sum of products of two slices of one length.
pub(crate) fn dot(backend: Backend, a: &[u32], b: &[u32]) -> u32 {
    match backend.kind() {
        // SAFETY: only `Backend::all` makes a `Backend` of this kind, and only after the processor
        // said that it has these instructions.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { super::x86::dot_512(a, b) },
        _ => wide_dot(backend, a, b),
    }
}

/// The sums of products of four rows with four inputs, `[row][input]`, all of one length.
pub(crate) fn four_by_four(backend: Backend, rows: [&[u32]; 4], inputs: [&[u32]; 4]) -> [[u32; 4]; 4] {
    match backend.kind() {
        // SAFETY: only `Backend::all` makes a `Backend` of this kind, and only after the processor
        // said that it has these instructions.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { super::x86::four_by_four_512(rows, inputs) },
        _ => rows.map(|row| inputs.map(|x| wide_dot(backend, row, x))),
    }
}

/// A product of two words, or the sum of the two products of their halves.
#[inline(always)]
fn product<const PAIRS: bool>(w: u32, x: u32) -> u32 {
    if !PAIRS {
        return w.wrapping_mul(x);
    }
    let half = |w: u32, x: u32| i32::from(w as i16).wrapping_mul(i32::from(x as i16)) as u32;
    half(w, x).wrapping_add(half(w >> 16, x >> 16))
}

/// Sums of `F` filters, one vector of sixteen outputs at a time.
#[inline(always)]
fn several<const PAIRS: bool, const F: usize>(taps: Taps<'_>, out: &mut [u32]) {
    let run = out.len() / F;
    for at in (0..run).step_by(LANES) {
        let mut sums = [[0_u32; LANES]; F];
        for (&place, weights) in taps.places.iter().zip(taps.weights.chunks_exact(F)) {
            let x = &taps.planes[place + at..place + at + LANES];
            for f in 0..F {
                for l in 0..LANES {
                    sums[f][l] = sums[f][l].wrapping_add(product::<PAIRS>(weights[f], x[l]));
                }
            }
        }
        for f in 0..F {
            out[f * run + at..][..LANES].copy_from_slice(&sums[f]);
        }
    }
}

wide! {
    fn wide_filter(taps: Taps<'_>, out: &mut [u32]) {
        several::<false, 1>(taps, out);
    }

    fn wide_filter_of_pairs(taps: Taps<'_>, out: &mut [u32]) {
        several::<true, 1>(taps, out);
    }

    fn wide_dot(a: &[u32], b: &[u32]) -> u32 {
        a.iter().zip(b).fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)))
    }
}
