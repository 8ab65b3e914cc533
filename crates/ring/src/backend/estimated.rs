//! One lane in a general register, with quotients estimated in a double: for processors that
//! multiply 64 bits to 64 and not to 128, such as WebAssembly's.
//!
//! A product `x*w` is needed modulo `p` alone, so its lower 64 bits and a quotient suffice: `x*w -
//! q*p`, modulo 2^64, is exact. The quotient is `x * (w/p)` in doubles, rounded to the next integer
//! by adding 2^52. With `x < 2^52` and `w < p` its error is below `1/4` for the factor, at most
//! `1/4` for the product and `1/2` for the rounding, so `x*w - q*p + p` is above `0` and below
//! `2p`. Only numbers from 0 on occur, so no double is denormal, and no step takes longer for some
//! values.

use super::lanes::{Block64, Lanes, UNPACK_READS};
use super::word::one_word;
use crate::Modulus;
use crate::modulus::MAX_LAZY_PRODUCTS;

/// A lazy residue below 2^52.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimated(u64);

/// A modulus with what its products need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EstimatedPrime {
    p: u64,
    inverse: f64,
    /// What a quotient's [`WHOLE`] costs, and one `p` more: added to `x*w - bits*p`, it gives `x*w
    /// - q*p + p`.
    offset: u64,
}

/// 2^52: a double of its size has no fraction.
const WHOLE: f64 = (1_u64 << 52) as f64;

/// The bits of `quotient`, rounded to an integer, on top of those of [`WHOLE`].
#[inline(always)]
fn rounded(quotient: f64) -> u64 {
    (quotient + WHOLE).to_bits()
}

/// A number below 2^63 as a double.
#[inline(always)]
fn double(x: u64) -> f64 {
    // With a sign the conversion is one instruction.
    x as i64 as f64
}

impl EstimatedPrime {
    /// Returns `product - q*p + p` for the lower 64 bits of a product and its quotient.
    #[inline(always)]
    fn rest(&self, product: u64, quotient: f64) -> u64 {
        product.wrapping_sub(rounded(quotient).wrapping_mul(self.p)).wrapping_add(self.offset)
    }
}

impl Lanes for Estimated {
    one_word!();
    const CAPACITY: u32 = 52;
    type Prime = EstimatedPrime;
    type Sum = u64;

    #[inline(always)]
    fn prime(m: &Modulus) -> EstimatedPrime {
        let p = m.value();
        let offset = WHOLE.to_bits().wrapping_mul(p).wrapping_add(p);
        EstimatedPrime { p, inverse: 1.0 / p as f64, offset }
    }
    #[inline(always)]
    fn leave_small(self, p: &EstimatedPrime, words: &mut [u64; 1]) {
        debug_assert!(self.0 < 2 * p.p);
        let d = self.0.wrapping_sub(p.p);
        words[0] = d.wrapping_add(p.p & (d >> 63).wrapping_neg());
    }
    #[inline(always)]
    fn bias(p: &EstimatedPrime, doublings: u32) -> Self {
        Self(p.p << (1 + doublings))
    }
    fn constant(m: &Modulus, value: u64) -> [u64; 2] {
        [value, (value as f64 / m.value() as f64).to_bits()]
    }
    #[inline(always)]
    fn mul_constant(self, factor: Self, quotient: Self, p: &EstimatedPrime) -> Self {
        debug_assert!(self.0 >> Self::CAPACITY == 0);
        let quotient = double(self.0) * f64::from_bits(quotient.0);
        Self(p.rest(self.0.wrapping_mul(factor.0), quotient))
    }
    #[inline(always)]
    fn settle(self, p: &EstimatedPrime) -> Self {
        // The quotient is small, and so is its error, for whatever a double holds exactly.
        debug_assert!(self.0 >> 53 == 0);
        Self(p.rest(self.0, double(self.0) * p.inverse))
    }
    #[inline(always)]
    fn mul(self, other: Self, p: &EstimatedPrime) -> Self {
        // The quotient is below 2^51, and three roundings of doubles cost less than 3/4 of it: one
        // p more makes the rest positive.
        let quotient = double(self.0) * double(other.0) * p.inverse;
        Self(p.rest(self.0.wrapping_mul(other.0), quotient) + p.p)
    }
    #[inline(always)]
    fn no_products() -> u64 {
        0
    }
    #[inline(always)]
    fn products_between_folds(m: &Modulus) -> usize {
        // Each is below 2p, and so is what was folded before; the sum stays below 2^53.
        ((1 << (52 - m.bits())) - 1).min(MAX_LAZY_PRODUCTS)
    }
    #[inline(always)]
    fn fold(sum: u64, p: &EstimatedPrime) -> u64 {
        Self(sum).settle(p).0
    }
    #[inline(always)]
    fn accumulate(sum: u64, x: Self, w: Self, p: &EstimatedPrime) -> u64 {
        // The quotient is below p, at most 2^50: three roundings of doubles cost less than 3/8 of
        // it.
        let quotient = double(x.0) * double(w.0) * p.inverse;
        sum + p.rest(x.0.wrapping_mul(w.0), quotient)
    }
    #[inline(always)]
    fn finish(sum: u64, p: &EstimatedPrime, words: &mut [u64; 1]) {
        Self(sum).settle(p).leave_small(p, words);
    }
    #[inline(always)]
    fn close(sum: u64, p: &EstimatedPrime) -> Self {
        Self(sum).settle(p)
    }
}
