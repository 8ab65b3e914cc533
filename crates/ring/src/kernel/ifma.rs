//! AVX-512 IFMA: eight 52-bit multiply-adds per instruction.
#![allow(unsafe_code)]

use crate::Modulus;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::lanes::{self, Lanes};
    use crate::Modulus;

    #[derive(Clone, Copy)]
    struct Avx512(__m512i);

    // SAFETY of every block below: the intrinsics need AVX-512F and IFMA. `Avx512` is private to this module and used
    // only inside `row`, which is compiled for these features and called only after `available` returned true.
    // Memory is reached only through `&[u64; 8]` and `&mut [u64; 8]`, 64 bytes each, with unaligned moves.
    impl Lanes for Avx512 {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: features, see above.
            Self(unsafe { _mm512_setzero_si512() })
        }
        #[inline(always)]
        fn load(words: &[u64; 8]) -> Self {
            // SAFETY: features, see above; reads exactly the 64 bytes borrowed.
            Self(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
        }
        #[inline(always)]
        fn store(self, words: &mut [u64; 8]) {
            // SAFETY: features, see above; writes exactly the 64 bytes borrowed.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) }
        }
        #[inline(always)]
        fn add_low(self, a: Self, b: Self) -> Self {
            // SAFETY: features, see above.
            Self(unsafe { _mm512_madd52lo_epu64(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn add_high(self, a: Self, b: Self) -> Self {
            // SAFETY: features, see above.
            Self(unsafe { _mm512_madd52hi_epu64(self.0, a.0, b.0) })
        }
    }

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn row(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
        lanes::row::<Avx512>(p, w, x, out);
    }
}

/// Whether this processor can run the kernel.
pub(super) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

pub(super) fn row(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `Kernel::ifma` makes the only value that leads here, and only if `available` returned true.
    unsafe {
        x86::row(p, w, x, out)
    }
    #[cfg(not(target_arch = "x86_64"))]
    super::portable::row(p, w, x, out);
}
