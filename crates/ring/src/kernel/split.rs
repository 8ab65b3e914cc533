//! Products of 25-bit halves for vector units without 52-bit multiply-add: AVX-512F and AVX2.
//!
//! With `x = x0 + 2^25*x1`, `w = w0 + 2^25*w1` (all parts below 2^25) the four part products stay below 2^50; 4096 of
//! them, or 8192 for the two middle ones, fit a 64-bit lane. The body is plain Rust over fixed-size arrays; compiled for
//! a vector unit it becomes 32 x 32 -> 64 bit multiplies.
#![allow(unsafe_code)]

use super::BLOCK;
use crate::Modulus;

const HALF: u32 = 25;
const LOW: u64 = (1 << HALF) - 1;

/// `LANES` coefficients at a time, as many as keep the three sums in registers.
#[inline(always)]
fn body<const LANES: usize>(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    let blocks = w.chunks_exact(x.len() * BLOCK).zip(out.as_chunks_mut::<BLOCK>().0);
    for (block, (w, out)) in blocks.enumerate() {
        for (part, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let start = part * LANES;
            let (mut low, mut middle, mut high) = ([0u64; LANES], [0u64; LANES], [0u64; LANES]);
            for (w, x) in w.as_chunks::<BLOCK>().0.iter().zip(x) {
                let (w, x) = (&w[start..start + LANES], &x[block * BLOCK + start..][..LANES]);
                for k in 0..LANES {
                    let (w0, w1) = (w[k] & LOW, u64::from((w[k] >> HALF) as u32));
                    let (x0, x1) = (x[k] & LOW, u64::from((x[k] >> HALF) as u32));
                    low[k] += x0 * w0;
                    middle[k] += x0 * w1 + x1 * w0;
                    high[k] += x1 * w1;
                }
            }
            for (k, o) in out.iter_mut().enumerate() {
                let sum = u128::from(low[k]) + (u128::from(middle[k]) << HALF) + (u128::from(high[k]) << (2 * HALF));
                *o = p.reduce(sum);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::Modulus;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
        super::body::<32>(p, w, x, out);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
        super::body::<8>(p, w, x, out);
    }
}

/// Whether this processor has AVX-512F.
pub(super) fn avx512_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Whether this processor has AVX2.
pub(super) fn avx2_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

pub(super) fn row_avx512(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `Kernel::avx512` makes the only value that leads here, and only if `avx512_available` returned true.
    unsafe {
        x86::avx512(p, w, x, out)
    }
    #[cfg(not(target_arch = "x86_64"))]
    body::<4>(p, w, x, out);
}

pub(super) fn row_avx2(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `Kernel::avx2` makes the only value that leads here, and only if `avx2_available` returned true.
    unsafe {
        x86::avx2(p, w, x, out)
    }
    #[cfg(not(target_arch = "x86_64"))]
    body::<4>(p, w, x, out);
}
