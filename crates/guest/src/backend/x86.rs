//! Products of several filters and several outputs, for AVX2 and AVX-512.
//!
//! The compiler does not keep so many sums in registers by itself; these loops say which.

use std::arch::x86_64::*;

/// What a loop over the taps of a convolution reads.
#[derive(Clone, Copy)]
pub(crate) struct Taps<'a> {
    /// Planes of the inputs.
    pub(crate) planes: &'a [u32],
    /// Where every tap finds the input of the first output.
    pub(crate) places: &'a [usize],
    /// Weights, `[tap][filter]`.
    pub(crate) weights: &'a [u32],
}

/// Sixteen words from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(words: &[u32], at: usize) -> __m512i {
    let words = &words[at..at + 16];
    // SAFETY: the slice has the sixteen words, and the instruction takes any address.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_512(value: __m512i, words: &mut [u32]) {
    let words = &mut words[..16];
    // SAFETY: the slice has the sixteen words, and the instruction takes any address.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_256(words: &[u32], at: usize) -> __m256i {
    let words = &words[at..at + 8];
    // SAFETY: the slice has the eight words, and the instruction takes any address.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_256(value: __m256i, words: &mut [u32]) {
    let words = &mut words[..8];
    // SAFETY: the slice has the eight words, and the instruction takes any address.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), value) }
}

/// Adds products of weights and inputs to sums: of words, or of pairs of 16-bit numbers in words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add_512<const PAIRS: bool>(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
    _mm512_add_epi32(sum, if PAIRS { _mm512_madd_epi16(w, x) } else { _mm512_mullo_epi32(w, x) })
}

/// Does as [`add_512`] with half as many words.
#[inline]
#[target_feature(enable = "avx2")]
fn add_256<const PAIRS: bool>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    _mm256_add_epi32(sum, if PAIRS { _mm256_madd_epi16(w, x) } else { _mm256_mullo_epi32(w, x) })
}

/// Writes the sums of 8 filters, each a run of `out.len() / 8` outputs, which is a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn eight_filters_512<const PAIRS: bool>(taps: Taps<'_>, out: &mut [u32]) {
    let run = out.len() / 8;
    let whole = run / 32 * 32;
    if whole < run {
        // Half a tile is left.
        let mut sums = [_mm512_setzero_si512(); 8];
        for (&place, weights) in taps.places.iter().zip(taps.weights.chunks_exact(8)) {
            let x = load_512(taps.planes, place + whole);
            for f in 0..8 {
                sums[f] = add_512::<PAIRS>(sums[f], _mm512_set1_epi32(weights[f] as i32), x);
            }
        }
        for f in 0..8 {
            store_512(sums[f], &mut out[f * run + whole..]);
        }
    }
    for at in (0..whole).step_by(32) {
        let mut sums = [[_mm512_setzero_si512(); 2]; 8];
        for (&place, weights) in taps.places.iter().zip(taps.weights.chunks_exact(8)) {
            let x = [load_512(taps.planes, place + at), load_512(taps.planes, place + at + 16)];
            for f in 0..8 {
                let w = _mm512_set1_epi32(weights[f] as i32);
                for v in 0..2 {
                    sums[f][v] = add_512::<PAIRS>(sums[f][v], w, x[v]);
                }
            }
        }
        for f in 0..8 {
            for v in 0..2 {
                store_512(sums[f][v], &mut out[f * run + at + 16 * v..]);
            }
        }
    }
}

/// Writes the sums of 8 filters, each a run of `out.len() / 8` outputs, 16 outputs and four filters
/// at a time: what sixteen registers hold.
#[target_feature(enable = "avx2")]
pub(crate) fn eight_filters_256<const PAIRS: bool>(taps: Taps<'_>, out: &mut [u32]) {
    let run = out.len() / 8;
    for at in (0..run).step_by(16) {
        for half in 0..2 {
            let mut sums = [[_mm256_setzero_si256(); 2]; 4];
            for (&place, weights) in taps.places.iter().zip(taps.weights.chunks_exact(8)) {
                let mut x = [_mm256_setzero_si256(); 2];
                for (v, x) in x.iter_mut().enumerate() {
                    *x = load_256(taps.planes, place + at + 8 * v);
                }
                for f in 0..4 {
                    let w = _mm256_set1_epi32(weights[4 * half + f] as i32);
                    for v in 0..2 {
                        sums[f][v] = add_256::<PAIRS>(sums[f][v], w, x[v]);
                    }
                }
            }
            for f in 0..4 {
                for v in 0..2 {
                    store_256(sums[f][v], &mut out[(4 * half + f) * run + at + 8 * v..]);
                }
            }
        }
    }
}

/// Writes the sums of one filter, 32 outputs at a time.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn one_filter_512<const PAIRS: bool>(taps: Taps<'_>, out: &mut [u32]) {
    for at in (0..out.len()).step_by(32) {
        let mut sums = [_mm512_setzero_si512(); 2];
        for (&place, &weight) in taps.places.iter().zip(taps.weights) {
            let w = _mm512_set1_epi32(weight as i32);
            for v in 0..2 {
                let x = load_512(taps.planes, place + at + 16 * v);
                sums[v] = add_512::<PAIRS>(sums[v], w, x);
            }
        }
        for v in 0..2 {
            store_512(sums[v], &mut out[at + 16 * v..]);
        }
    }
}

/// The sum of products of two slices of one length.
#[target_feature(enable = "avx512f")]
pub(crate) fn dot_512(a: &[u32], b: &[u32]) -> u32 {
    let whole = a.len().min(b.len()) / 64 * 64;
    let mut sums = [_mm512_setzero_si512(); 4];
    for at in (0..whole).step_by(64) {
        for (v, sum) in sums.iter_mut().enumerate() {
            let product = _mm512_mullo_epi32(load_512(a, at + 16 * v), load_512(b, at + 16 * v));
            *sum = _mm512_add_epi32(*sum, product);
        }
    }
    let all = sums.into_iter().fold(_mm512_setzero_si512(), |all, sum| _mm512_add_epi32(all, sum));
    let rest = a[whole..].iter().zip(&b[whole..]).fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
    (_mm512_reduce_add_epi32(all) as u32).wrapping_add(rest)
}

/// The sums of products of four rows with four inputs, `[row][input]`, all of one length.
#[target_feature(enable = "avx512f")]
pub(crate) fn four_by_four_512(rows: [&[u32]; 4], inputs: [&[u32]; 4]) -> [[u32; 4]; 4] {
    let n = rows.iter().chain(&inputs).map(|s| s.len()).min().unwrap_or(0);
    let whole = n / 16 * 16;
    let mut sums = [[_mm512_setzero_si512(); 4]; 4];
    for at in (0..whole).step_by(16) {
        let x = [0, 1, 2, 3].map(|i| load_512(inputs[i], at));
        for r in 0..4 {
            let w = load_512(rows[r], at);
            for i in 0..4 {
                sums[r][i] = _mm512_add_epi32(sums[r][i], _mm512_mullo_epi32(w, x[i]));
            }
        }
    }
    let mut out = [[0; 4]; 4];
    for r in 0..4 {
        for i in 0..4 {
            let rest = rows[r][whole..n].iter().zip(&inputs[i][whole..n]);
            let rest = rest.fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
            out[r][i] = (_mm512_reduce_add_epi32(sums[r][i]) as u32).wrapping_add(rest);
        }
    }
    out
}
