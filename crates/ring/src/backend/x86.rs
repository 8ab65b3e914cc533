//! Lanes of x86-64 vector units.
//!
//! * [`Ifma`]: eight `u64`, 52-bit multiply-add (AVX-512 IFMA, VBMI to unpack). A lane's low 52
//!   bits are the value; those above hold what earlier additions carried there. Multiplications do
//!   not see them, so they are cut off only where values are compared.
//! * [`F64x8`], [`F64x4`]: integers below 2^53 held exactly in floating point, products by fused
//!   multiply-add (van der Hoeven, Lecerf, Quintin: "Modular SIMD arithmetic in Mathemagix", 2016).
//!   For machines without IFMA.
//!
//! With `h = fl(x*y)`, `l = x*y - h` (exact, one FMA), `q` the integer next to `h/p`: `h - q*p` is
//! an integer below 2^53 and so exact in one FMA, and `(h - q*p) + l` is the residue. `q` is off by
//! less than one half more than rounding makes it, so the result lies in `[-p, p]`. `q` is found by
//! adding `1.5 * 2^52`, which rounds to an integer while `|h/p| < 2^51`.
#![allow(unsafe_code)]

// SAFETY, for every block of this file:
//
// (1) Instructions. The three types are crate-private, and their values come into being only inside
// `Job::run` called by `run_ifma`, `run_avx512` or `run_avx2` below. Each of these is compiled for
// the features that its type needs. `Backend::run` calls it only for a `Backend` that was
// constructed after those features had been detected.
//
// (2) Memory. It is reached only through references to arrays, whole arrays, with unaligned moves.

use std::arch::x86_64::*;

use super::Job;
use super::bits::{MAX_PACKED_BITS, PLACES};
use super::lanes::{Block64, Lanes, UNPACK_READS, ifma_products, quotient};
use crate::Modulus;
use crate::modulus::MAX_LAZY_PRODUCTS;

/// 2^52: adding it to an integer below puts the integer into the low bits of the double.
const MAGIC: f64 = 4_503_599_627_370_496.0;
/// 1.5 * 2^52: adding and subtracting it rounds to the nearest integer.
const ROUND: f64 = 6_755_399_441_055_744.0;
const LOW52: u64 = (1 << 52) - 1;

pub(super) fn ifma_available() -> bool {
    avx512_available() && is_x86_feature_detected!("avx512ifma") && is_x86_feature_detected!("avx512vbmi")
}

pub(super) fn avx512_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && avx2_available()
}

pub(super) fn avx2_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[target_feature(enable = "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,avx512vbmi")]
pub(super) fn run_ifma<J: Job>(job: J) -> J::Out {
    job.run::<Ifma>()
}

#[target_feature(enable = "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn run_avx512<J: Job>(job: J) -> J::Out {
    job.run::<F64x8>()
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn run_avx2<J: Job>(job: J) -> J::Out {
    job.run::<F64x4>()
}

/// Turns eight rows of eight doubles to columns with 24 shuffles.
#[inline(always)]
fn transpose8(r: [__m512d; 8]) -> [__m512d; 8] {
    // SAFETY: (1), see the top.
    unsafe {
        let l0 = _mm512_unpacklo_pd(r[0], r[1]);
        let l1 = _mm512_unpacklo_pd(r[2], r[3]);
        let l2 = _mm512_unpacklo_pd(r[4], r[5]);
        let l3 = _mm512_unpacklo_pd(r[6], r[7]);
        let h0 = _mm512_unpackhi_pd(r[0], r[1]);
        let h1 = _mm512_unpackhi_pd(r[2], r[3]);
        let h2 = _mm512_unpackhi_pd(r[4], r[5]);
        let h3 = _mm512_unpackhi_pd(r[6], r[7]);
        // 0x88 takes the even 128-bit lanes of both, 0xdd the odd ones.
        let (le0, le1) = (_mm512_shuffle_f64x2::<0x88>(l0, l1), _mm512_shuffle_f64x2::<0x88>(l2, l3));
        let (lo0, lo1) = (_mm512_shuffle_f64x2::<0xdd>(l0, l1), _mm512_shuffle_f64x2::<0xdd>(l2, l3));
        let (he0, he1) = (_mm512_shuffle_f64x2::<0x88>(h0, h1), _mm512_shuffle_f64x2::<0x88>(h2, h3));
        let (ho0, ho1) = (_mm512_shuffle_f64x2::<0xdd>(h0, h1), _mm512_shuffle_f64x2::<0xdd>(h2, h3));
        [
            _mm512_shuffle_f64x2::<0x88>(le0, le1),
            _mm512_shuffle_f64x2::<0x88>(he0, he1),
            _mm512_shuffle_f64x2::<0x88>(lo0, lo1),
            _mm512_shuffle_f64x2::<0x88>(ho0, ho1),
            _mm512_shuffle_f64x2::<0xdd>(le0, le1),
            _mm512_shuffle_f64x2::<0xdd>(he0, he1),
            _mm512_shuffle_f64x2::<0xdd>(lo0, lo1),
            _mm512_shuffle_f64x2::<0xdd>(ho0, ho1),
        ]
    }
}

#[inline(always)]
fn transpose4(r: [__m256d; 4]) -> [__m256d; 4] {
    // SAFETY: (1), see the top.
    unsafe {
        let (a, b) = (_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
        let (c, d) = (_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
        [
            _mm256_permute2f128_pd::<0x20>(a, c),
            _mm256_permute2f128_pd::<0x20>(b, d),
            _mm256_permute2f128_pd::<0x31>(a, c),
            _mm256_permute2f128_pd::<0x31>(b, d),
        ]
    }
}

/// Returns the patterns that spread packed residues of `width` bytes over 64-bit lanes without
/// VBMI: first dwords to their 128-bit lane, then bytes inside it. A lane of 128 bits takes two
/// residues, which start at byte `2 * width * lane`.
fn dwords_and_bytes<const DWORDS: usize>(width: usize) -> ([u32; DWORDS], [u8; 64]) {
    let dwords = std::array::from_fn(|i| (2 * width * (i / 4) / 4 + i % 4) as u32);
    let bytes = std::array::from_fn(|i| {
        let (lane, residue, byte) = (i / 16, i % 16 / 8, i % 8);
        let at = 2 * width * lane % 4 + residue * width + byte;
        if byte < width { at as u8 } else { 0x80 }
    });
    (dwords, bytes)
}

/// Eight residues as `u64`, in the low 52 bits of each lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ifma(__m512i);

#[derive(Debug, Clone, Copy)]
pub(crate) struct IfmaPrime {
    p: __m512i,
    /// `2^52 - p`: a product with it modulo 2^52 subtracts.
    minus_p: __m512i,
    two_p: __m512i,
    /// `floor(2^52 / p)`.
    barrett: __m512i,
    low52: __m512i,
    /// `2^52 mod p` and its quotient.
    pow52: [__m512i; 2],
    /// `1/p mod 2^52`.
    inverse: __m512i,
}

impl Ifma {
    #[inline(always)]
    fn min(self, other: __m512i) -> Self {
        // SAFETY: (1), see the top.
        Self(unsafe { _mm512_min_epu64(self.0, other) })
    }

    /// Returns the value alone, without what lies above its 52 bits.
    #[inline(always)]
    fn cut(self, p: &IfmaPrime) -> Self {
        // SAFETY: (1), see the top.
        Self(unsafe { _mm512_and_si512(self.0, p.low52) })
    }

    /// Returns a value below `p` from one below `2p`. A multiple of the prime may stand in place of
    /// `p`.
    #[inline(always)]
    fn subtract_once(self, p: __m512i) -> Self {
        // SAFETY: (1), see the top. Below `p` the difference wraps to a huge number and the minimum
        // keeps the value.
        self.min(unsafe { _mm512_sub_epi64(self.0, p) })
    }

    /// Returns `high * 2^52 + low mod p` in `[0, 4p)`, both parts below 2^52.
    #[inline(always)]
    fn fold(high: __m512i, low: __m512i, p: &IfmaPrime) -> Self {
        // SAFETY: (1), see the top. As `mul_constant` and `settle` at once: the quotients are added
        // before they are multiplied.
        unsafe {
            let q = _mm512_madd52hi_epu64(_mm512_setzero_si512(), low, p.barrett);
            let q = _mm512_madd52hi_epu64(q, high, p.pow52[1]);
            let product = _mm512_madd52lo_epu64(low, high, p.pow52[0]);
            Self(_mm512_madd52lo_epu64(product, q, p.minus_p))
        }
    }
}

impl Lanes for Ifma {
    const LANES: usize = 8;
    const LEVELS: u32 = 3;
    const CAPACITY: u32 = 52;
    type Words = [u64; 8];
    type Prime = IfmaPrime;
    type Sum = (__m512i, __m512i);
    type Spread = (__m512i, __m512i, __m512i);

    #[inline(always)]
    fn prime(m: &Modulus) -> IfmaPrime {
        let constants = m.constants();
        IfmaPrime {
            p: Self::splat(m.value()).0,
            minus_p: Self::splat((1 << 52) - m.value()).0,
            two_p: Self::splat(2 * m.value()).0,
            barrett: Self::splat(constants.barrett52).0,
            low52: Self::splat(LOW52).0,
            pow52: [Self::splat(constants.pow52[0]).0, Self::splat(constants.pow52[1]).0],
            inverse: Self::splat(constants.inverse52).0,
        }
    }
    #[inline(always)]
    fn split(words: &[u64]) -> &[[u64; 8]] {
        words.as_chunks().0
    }
    #[inline(always)]
    fn split_mut(words: &mut [u64]) -> &mut [[u64; 8]] {
        words.as_chunks_mut().0
    }
    #[inline(always)]
    fn splat(word: u64) -> Self {
        // SAFETY: (1), see the top.
        Self(unsafe { _mm512_set1_epi64(word as i64) })
    }
    #[inline(always)]
    fn load(words: &[u64; 8]) -> Self {
        // SAFETY: (1), (2).
        Self(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }
    #[inline(always)]
    fn store(self, words: &mut [u64; 8]) {
        // SAFETY: (1), (2).
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    fn enter(words: &[u64; 8]) -> Self {
        Self::load(words)
    }
    #[inline(always)]
    fn leave_small(self, p: &IfmaPrime, words: &mut [u64; 8]) {
        self.cut(p).subtract_once(p.p).store(words);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: (1).
        Self(unsafe { _mm512_add_epi64(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self, bias: Self) -> Self {
        // SAFETY: (1).
        Self(unsafe { _mm512_sub_epi64(_mm512_add_epi64(self.0, bias.0), other.0) })
    }
    #[inline(always)]
    fn bias(p: &IfmaPrime, doublings: u32) -> Self {
        // SAFETY: (1).
        Self(unsafe { _mm512_sll_epi64(p.two_p, _mm_cvtsi32_si128(doublings as i32)) })
    }
    fn constant(m: &Modulus, value: u64) -> [u64; 2] {
        [value, quotient(value, m, 52)]
    }
    #[inline(always)]
    fn mul_constant(self, factor: Self, quotient: Self, p: &IfmaPrime) -> Self {
        // SAFETY: (1). x*w - floor(x*w'/2^52)*p modulo 2^52, which is the value itself: it lies in
        // [0, 2p).
        unsafe {
            let zero = _mm512_setzero_si512();
            let q = _mm512_madd52hi_epu64(zero, self.0, quotient.0);
            let low = _mm512_madd52lo_epu64(zero, self.0, factor.0);
            Self(_mm512_madd52lo_epu64(low, q, p.minus_p))
        }
    }
    #[inline(always)]
    fn settle(self, p: &IfmaPrime) -> Self {
        // SAFETY: (1). As `mul_constant` with w = 1.
        unsafe {
            let q = _mm512_madd52hi_epu64(_mm512_setzero_si512(), self.0, p.barrett);
            Self(_mm512_madd52lo_epu64(self.0, q, p.minus_p))
        }
    }
    #[inline(always)]
    fn mul(self, other: Self, p: &IfmaPrime) -> Self {
        // SAFETY: (1).
        let (high, low) = unsafe {
            let zero = _mm512_setzero_si512();
            (_mm512_madd52hi_epu64(zero, self.0, other.0), _mm512_madd52lo_epu64(zero, self.0, other.0))
        };
        Self::fold(high, low, p)
    }
    #[inline(always)]
    fn no_products() -> (__m512i, __m512i) {
        // SAFETY: (1).
        unsafe { (_mm512_setzero_si512(), _mm512_setzero_si512()) }
    }
    #[inline(always)]
    fn products_between_folds(m: &Modulus) -> usize {
        ifma_products(m)
    }
    #[inline(always)]
    fn fold(sum: (__m512i, __m512i), p: &IfmaPrime) -> (__m512i, __m512i) {
        let mut words = [0; 8];
        Self::finish(sum, p, &mut words);
        (Self::load(&words).0, Self::no_products().1)
    }
    #[inline(always)]
    fn accumulate((low, high): (__m512i, __m512i), x: Self, w: Self, _: &IfmaPrime) -> (__m512i, __m512i) {
        // SAFETY: (1). The low part grows by less than 2^52, at most 4096 times; the high one: see
        // `ifma_products`.
        unsafe { (_mm512_madd52lo_epu64(low, x.0, w.0), _mm512_madd52hi_epu64(high, x.0, w.0)) }
    }
    #[inline(always)]
    fn finish((low, high): (__m512i, __m512i), p: &IfmaPrime, words: &mut [u64; 8]) {
        // SAFETY: (1).
        unsafe {
            let high = _mm512_add_epi64(high, _mm512_srli_epi64::<52>(low));
            let rest = Self::fold(high, _mm512_and_si512(low, p.low52), p);
            // Two comparisons instead of two products more.
            rest.cut(p).subtract_once(p.two_p).subtract_once(p.p).store(words);
        }
    }
    fn held(m: &Modulus) -> u64 {
        m.constants().pow52[0]
    }
    /// Montgomery's reduction by 2^52 (Math. Comp. 44, 1985): `q = sum/p mod 2^52`, so that `sum -
    /// q*p` has no low part, and its high part is what is wanted.
    #[inline(always)]
    fn close((low, high): (__m512i, __m512i), p: &IfmaPrime) -> Self {
        // SAFETY: (1). `p` is added, and what is subtracted is below it.
        unsafe {
            let zero = _mm512_setzero_si512();
            let q = _mm512_madd52lo_epu64(zero, low, p.inverse);
            let high = _mm512_add_epi64(_mm512_add_epi64(high, p.p), _mm512_srli_epi64::<52>(low));
            Self(_mm512_sub_epi64(high, _mm512_madd52hi_epu64(zero, q, p.p)))
        }
    }
    #[inline(always)]
    fn turn(rows: [Self; 8]) -> [Self; 8] {
        let mut floats = [F64x8::splat(0).0; 8];
        for l in 0..8 {
            // SAFETY: (1); a change of type, not of bits.
            floats[l] = unsafe { _mm512_castsi512_pd(rows[l].0) };
        }
        let (floats, mut out) = (transpose8(floats), [Self::splat(0); 8]);
        for l in 0..8 {
            // SAFETY: as above.
            out[l] = Self(unsafe { _mm512_castpd_si512(floats[l]) });
        }
        out
    }
    #[inline(always)]
    fn spread(bits: usize) -> (__m512i, __m512i, __m512i) {
        let places = &PLACES[bits.min(MAX_PACKED_BITS)];
        let mask = u64::MAX >> (64 - bits.clamp(1, 64));
        // SAFETY: (1), (2).
        unsafe {
            let spread = _mm512_loadu_si512(places.spread.as_ptr().cast());
            (spread, _mm512_loadu_si512(places.shifts.as_ptr().cast()), Self::splat(mask).0)
        }
    }
    #[inline(always)]
    fn unpack(bytes: &[u8; UNPACK_READS], (spread, shifts, mask): &(__m512i, __m512i, __m512i)) -> Self {
        // SAFETY: (1), (2).
        unsafe {
            let lanes = _mm512_permutexvar_epi8(*spread, _mm512_loadu_si512(bytes.as_ptr().cast()));
            Self(_mm512_and_si512(_mm512_srlv_epi64(lanes, *shifts), *mask))
        }
    }
}

/// Implements lanes of doubles for both widths, which differ in little but the names of the
/// instructions.
macro_rules! float_lanes {
    ($name:ident, $prime:ident, $lanes:literal, $vector:ty, $doc:literal,
     $set1:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $fmadd:ident, $fmsub:ident, $fnmadd:ident,
     { $($rest:tt)* }) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name($vector);

        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $prime {
            p: $vector,
            inverse: $vector,
        }

        impl Lanes for $name {
            const LANES: usize = $lanes;
            const LEVELS: u32 = if $lanes == 8 { 3 } else { 2 };
            const CAPACITY: u32 = 51;
            type Words = [u64; $lanes];
            type Prime = $prime;
            type Sum = $vector;

            #[inline(always)]
            fn prime(m: &Modulus) -> $prime {
                let p = m.value() as f64;
                // SAFETY: (1).
                unsafe { $prime { p: $set1(p), inverse: $set1(1.0 / p) } }
            }
            #[inline(always)]
            fn split(words: &[u64]) -> &[[u64; $lanes]] {
                words.as_chunks().0
            }
            #[inline(always)]
            fn split_mut(words: &mut [u64]) -> &mut [[u64; $lanes]] {
                words.as_chunks_mut().0
            }
            #[inline(always)]
            fn splat(word: u64) -> Self {
                // SAFETY: (1).
                Self(unsafe { $set1(f64::from_bits(word)) })
            }
            #[inline(always)]
            fn load(words: &[u64; $lanes]) -> Self {
                // SAFETY: (1), (2).
                Self(unsafe { $load(words.as_ptr().cast()) })
            }
            #[inline(always)]
            fn store(self, words: &mut [u64; $lanes]) {
                // SAFETY: (1), (2).
                unsafe { $store(words.as_mut_ptr().cast(), self.0) }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: (1).
                Self(unsafe { $add(self.0, other.0) })
            }
            #[inline(always)]
            fn sub(self, other: Self, _: Self) -> Self {
                // SAFETY: (1).
                Self(unsafe { $sub(self.0, other.0) })
            }
            #[inline(always)]
            fn bias(_: &$prime, _: u32) -> Self {
                Self::splat(0)
            }
            fn constant(m: &Modulus, value: u64) -> [u64; 2] {
                // Centred: half the size is half the quotient.
                let centred = if value > m.value() / 2 { value as f64 - m.value() as f64 } else { value as f64 };
                [centred.to_bits(), (centred / m.value() as f64).to_bits()]
            }
            #[inline(always)]
            fn mul_constant(self, factor: Self, quotient: Self, p: &$prime) -> Self {
                // SAFETY: (1).
                unsafe {
                    let h = $mul(self.0, factor.0);
                    let q = $sub($fmadd(self.0, quotient.0, $set1(ROUND)), $set1(ROUND));
                    let l = $fmsub(self.0, factor.0, h);
                    Self($add($fnmadd(q, p.p, h), l))
                }
            }
            #[inline(always)]
            fn settle(self, p: &$prime) -> Self {
                // SAFETY: (1).
                unsafe {
                    let q = $sub($fmadd(self.0, p.inverse, $set1(ROUND)), $set1(ROUND));
                    Self($fnmadd(q, p.p, self.0))
                }
            }
            #[inline(always)]
            fn mul(self, other: Self, p: &$prime) -> Self {
                // SAFETY: (1).
                unsafe {
                    let h = $mul(self.0, other.0);
                    let q = $sub($fmadd(h, p.inverse, $set1(ROUND)), $set1(ROUND));
                    let l = $fmsub(self.0, other.0, h);
                    Self($add($fnmadd(q, p.p, h), l))
                }
            }
            #[inline(always)]
            fn no_products() -> $vector {
                Self::splat(0).0
            }
            #[inline(always)]
            fn products_between_folds(m: &Modulus) -> usize {
                // Each lies in [-p, p]; the sum stays below 2^52 and the settled rest.
                (1 << (52 - m.bits())).min(MAX_LAZY_PRODUCTS)
            }
            #[inline(always)]
            fn fold(sum: $vector, p: &$prime) -> $vector {
                Self(sum).settle(p).0
            }
            #[inline(always)]
            fn accumulate(sum: $vector, x: Self, w: Self, p: &$prime) -> $vector {
                x.mul(w, p).add(Self(sum)).0
            }
            #[inline(always)]
            fn finish(sum: $vector, p: &$prime, words: &mut [u64; $lanes]) {
                Self(sum).leave(p, words);
            }
            #[inline(always)]
            fn close(sum: $vector, p: &$prime) -> Self {
                Self(sum).settle(p)
            }
            $($rest)*
        }
    };
}

float_lanes!(
    F64x8,
    F64x8Prime,
    8,
    __m512d,
    "Eight residues as doubles (AVX-512 without IFMA).",
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_fmadd_pd,
    _mm512_fmsub_pd,
    _mm512_fnmadd_pd,
    {
        type Spread = (__m512i, __m512i);

        #[inline(always)]
        fn enter(words: &[u64; 8]) -> Self {
            // SAFETY: (1), (2).
            Self(unsafe { _mm512_cvtepu64_pd(_mm512_loadu_si512(words.as_ptr().cast())) })
        }
        #[inline(always)]
        fn leave_small(self, p: &F64x8Prime, words: &mut [u64; 8]) {
            let v = self.0;
            // SAFETY: (1), (2). Between -p and p: adding p where negative gives the residue.
            unsafe {
                let negative = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(v, _mm512_setzero_pd());
                let v = _mm512_cvtpd_epu64(_mm512_mask_add_pd(v, negative, v, p.p));
                _mm512_storeu_si512(words.as_mut_ptr().cast(), v);
            }
        }
        #[inline(always)]
        fn turn(rows: [Self; 8]) -> [Self; 8] {
            let [a, b, c, d, e, f, g, h] = rows;
            let [a, b, c, d, e, f, g, h] = transpose8([a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0]);
            [Self(a), Self(b), Self(c), Self(d), Self(e), Self(f), Self(g), Self(h)]
        }
        #[inline(always)]
        fn spread(bits: usize) -> (__m512i, __m512i) {
            let (dwords, bytes) = dwords_and_bytes::<16>(bits / 8);
            // SAFETY: (1), (2).
            unsafe { (_mm512_loadu_si512(dwords.as_ptr().cast()), _mm512_loadu_si512(bytes.as_ptr().cast())) }
        }
        #[inline(always)]
        fn unpack(bytes: &[u8; UNPACK_READS], spread: &(__m512i, __m512i)) -> Self {
            // SAFETY: (1), (2). Residues are below 2^52: put into the low bits of 2^52, which is
            // then taken away.
            unsafe {
                let all = _mm512_loadu_si512(bytes.as_ptr().cast());
                let word = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(spread.0, all), spread.1);
                let magic = _mm512_set1_pd(MAGIC);
                Self(_mm512_sub_pd(_mm512_or_pd(_mm512_castsi512_pd(word), magic), magic))
            }
        }
    }
);

float_lanes!(
    F64x4,
    F64x4Prime,
    4,
    __m256d,
    "Four residues as doubles (AVX2 and FMA).",
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_fmadd_pd,
    _mm256_fmsub_pd,
    _mm256_fnmadd_pd,
    {
        type Spread = (__m256i, __m256i);

        #[inline(always)]
        fn enter(words: &[u64; 4]) -> Self {
            // SAFETY: (1), (2). As in `unpack`.
            unsafe {
                let magic = _mm256_set1_pd(MAGIC);
                Self(_mm256_sub_pd(_mm256_or_pd(_mm256_loadu_pd(words.as_ptr().cast()), magic), magic))
            }
        }
        #[inline(always)]
        fn leave_small(self, p: &F64x4Prime, words: &mut [u64; 4]) {
            let v = self.0;
            // SAFETY: (1), (2). Between -p and p: adding p where negative gives the residue.
            unsafe {
                let negative = _mm256_cmp_pd::<_CMP_LT_OQ>(v, _mm256_setzero_pd());
                let v = _mm256_add_pd(v, _mm256_and_pd(negative, p.p));
                let magic = _mm256_set1_pd(MAGIC);
                _mm256_storeu_pd(words.as_mut_ptr().cast(), _mm256_xor_pd(_mm256_add_pd(v, magic), magic));
            }
        }
        #[inline(always)]
        fn columns(block: &Block64, part: usize) -> [Self; 8] {
            let halves = &block.as_chunks::<4>().0[8 * part..8 * part + 8];
            let mut v = [Self::splat(0).0; 8];
            for i in 0..8 {
                v[i] = Self::load(&halves[i]).0;
            }
            let [a, b, c, d] = transpose4([v[0], v[2], v[4], v[6]]);
            let [e, f, g, h] = transpose4([v[1], v[3], v[5], v[7]]);
            [Self(a), Self(b), Self(c), Self(d), Self(e), Self(f), Self(g), Self(h)]
        }
        #[inline(always)]
        fn rows(columns: [Self; 8], part: usize, block: &mut Block64) {
            let [a, b, c, d, e, f, g, h] = columns;
            let (left, right) = (transpose4([a.0, b.0, c.0, d.0]), transpose4([e.0, f.0, g.0, h.0]));
            let halves = &mut block.as_chunks_mut::<4>().0[8 * part..8 * part + 8];
            for i in 0..4 {
                Self(left[i]).store(&mut halves[2 * i]);
                Self(right[i]).store(&mut halves[2 * i + 1]);
            }
        }
        #[inline(always)]
        fn spread(bits: usize) -> (__m256i, __m256i) {
            let (dwords, bytes) = dwords_and_bytes::<8>(bits / 8);
            // SAFETY: (1), (2): the first 32 of 64 bytes.
            unsafe { (_mm256_loadu_si256(dwords.as_ptr().cast()), _mm256_loadu_si256(bytes.as_ptr().cast())) }
        }
        #[inline(always)]
        fn unpack(bytes: &[u8; UNPACK_READS], spread: &(__m256i, __m256i)) -> Self {
            // SAFETY: (1), (2): the first 32 of 64 bytes.
            unsafe {
                let all = _mm256_loadu_si256(bytes.as_ptr().cast());
                let word = _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(all, spread.0), spread.1);
                let magic = _mm256_set1_pd(MAGIC);
                Self(_mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(word), magic), magic))
            }
        }
    }
);
