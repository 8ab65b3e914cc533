//! One lane in a general register: the backend that runs everywhere.

use super::lanes::{Block64, Lanes, UNPACK_READS, quotient};
use crate::Modulus;
use crate::modulus::MAX_LAZY_PRODUCTS;

/// What one word in a general register does, whichever way it multiplies.
macro_rules! one_word {
    () => {
        const LANES: usize = 1;
        const LEVELS: u32 = 2;
        type Words = [u64; 1];
        type Spread = u64;

        #[inline(always)]
        fn split(words: &[u64]) -> &[[u64; 1]] {
            words.as_chunks().0
        }
        #[inline(always)]
        fn split_mut(words: &mut [u64]) -> &mut [[u64; 1]] {
            words.as_chunks_mut().0
        }
        #[inline(always)]
        fn splat(word: u64) -> Self {
            Self(word)
        }
        #[inline(always)]
        fn load(words: &[u64; 1]) -> Self {
            Self(words[0])
        }
        #[inline(always)]
        fn store(self, words: &mut [u64; 1]) {
            words[0] = self.0;
        }
        #[inline(always)]
        fn enter(words: &[u64; 1]) -> Self {
            Self(words[0])
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(self.0 + other.0)
        }
        #[inline(always)]
        fn sub(self, other: Self, bias: Self) -> Self {
            Self(self.0 + bias.0 - other.0)
        }
        #[inline(always)]
        fn columns(block: &Block64, part: usize) -> [Self; 8] {
            std::array::from_fn(|l| Self(block[8 * part + l]))
        }
        #[inline(always)]
        fn rows(columns: [Self; 8], part: usize, block: &mut Block64) {
            columns.iter().enumerate().for_each(|(l, v)| block[8 * part + l] = v.0);
        }
        #[inline(always)]
        fn spread(bits: usize) -> u64 {
            u64::MAX >> (64 - bits)
        }
        #[inline(always)]
        fn unpack(bytes: &[u8; UNPACK_READS], mask: &u64) -> Self {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[..8]);
            Self(u64::from_le_bytes(word) & mask)
        }
    };
}
#[cfg(any(test, target_arch = "wasm32"))]
pub(super) use one_word;

/// A lazy residue below 2^63.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word(u64);

impl Lanes for Word {
    one_word!();
    const CAPACITY: u32 = 62;
    type Prime = Modulus;
    type Sum = u128;

    #[inline(always)]
    fn prime(m: &Modulus) -> Modulus {
        *m
    }
    #[inline(always)]
    fn leave_small(self, p: &Modulus, words: &mut [u64; 1]) {
        let d = self.0.wrapping_sub(p.value());
        words[0] = d.wrapping_add(p.value() & (d >> 63).wrapping_neg());
    }
    #[inline(always)]
    fn bias(p: &Modulus, doublings: u32) -> Self {
        Self(p.value() << (1 + doublings))
    }
    fn constant(m: &Modulus, value: u64) -> [u64; 2] {
        [value, quotient(value, m, 64)]
    }
    #[inline(always)]
    fn mul_constant(self, factor: Self, quotient: Self, p: &Modulus) -> Self {
        let q = ((u128::from(self.0) * u128::from(quotient.0)) >> 64) as u64;
        Self(self.0.wrapping_mul(factor.0).wrapping_sub(q.wrapping_mul(p.value())))
    }
    #[inline(always)]
    fn settle(self, p: &Modulus) -> Self {
        self.mul_constant(Self(1), Self(p.constants().barrett64), p)
    }
    #[inline(always)]
    fn mul(self, other: Self, p: &Modulus) -> Self {
        Self(p.reduce(u128::from(self.0) * u128::from(other.0)))
    }
    #[inline(always)]
    fn no_products() -> u128 {
        0
    }
    #[inline(always)]
    fn products_between_folds(_: &Modulus) -> usize {
        MAX_LAZY_PRODUCTS
    }
    #[inline(always)]
    fn fold(sum: u128, p: &Modulus) -> u128 {
        u128::from(p.reduce(sum))
    }
    #[inline(always)]
    fn accumulate(sum: u128, x: Self, w: Self, _: &Modulus) -> u128 {
        sum + u128::from(x.0) * u128::from(w.0)
    }
    #[inline(always)]
    fn finish(sum: u128, p: &Modulus, words: &mut [u64; 1]) {
        words[0] = p.reduce(sum);
    }
    #[inline(always)]
    fn close(sum: u128, p: &Modulus) -> Self {
        Self(p.reduce(sum))
    }
}
