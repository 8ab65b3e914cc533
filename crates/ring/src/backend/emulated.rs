//! IFMA lanes in plain integers, every bound asserted (what real lanes hold above their 52 bits is
//! cut off at once): the logic of the IFMA path on machines without it. The real instructions are
//! compared where they exist (`tests.rs`), and in an emulated processor by `scripts/emulate-ifma`.

use super::lanes::{Lanes, UNPACK_READS, ifma_products, quotient};
use crate::Modulus;

const LOW52: u64 = (1 << 52) - 1;

#[derive(Debug, Clone, Copy)]
pub(super) struct Emulated([u64; 8]);

fn product(a: u64, b: u64) -> u128 {
    assert!(a <= LOW52 && b <= LOW52, "an operand of more than 52 bits is cut");
    u128::from(a) * u128::from(b)
}

impl Emulated {
    fn each(f: impl Fn(usize) -> u64) -> Self {
        Self(std::array::from_fn(f))
    }
    fn add_low(self, a: Self, b: Self) -> Self {
        Self::each(|i| self.0[i].checked_add(product(a.0[i], b.0[i]) as u64 & LOW52).expect("a lane overflows"))
    }
    fn add_high(self, a: Self, b: Self) -> Self {
        Self::each(|i| self.0[i].checked_add((product(a.0[i], b.0[i]) >> 52) as u64).expect("a lane overflows"))
    }
    fn cut(self) -> Self {
        Self::each(|i| self.0[i] & LOW52)
    }
    fn subtract_once(self, p: u64) -> Self {
        Self::each(|i| self.0[i].min(self.0[i].wrapping_sub(p)))
    }
    fn fold_parts(high: Self, low: Self, p: &Modulus) -> Self {
        let [c, q] = p.constants().pow52.map(Self::splat);
        let q = Self::splat(0).add_high(low, Self::splat(p.constants().barrett52)).add_high(high, q);
        let r = low.add_low(high, c).add_low(q, Self::splat((1 << 52) - p.value())).cut();
        assert!(r.0.iter().all(|&v| v < 4 * p.value()), "a folded product is not below 4p");
        r
    }
}

impl Lanes for Emulated {
    const LANES: usize = 8;
    const LEVELS: u32 = 3;
    const CAPACITY: u32 = 52;
    type Words = [u64; 8];
    type Prime = Modulus;
    type Sum = (Self, Self);
    type Spread = usize;

    fn prime(m: &Modulus) -> Modulus {
        *m
    }
    fn split(words: &[u64]) -> &[[u64; 8]] {
        words.as_chunks().0
    }
    fn split_mut(words: &mut [u64]) -> &mut [[u64; 8]] {
        words.as_chunks_mut().0
    }
    fn splat(word: u64) -> Self {
        Self([word; 8])
    }
    fn load(words: &[u64; 8]) -> Self {
        Self(*words)
    }
    fn store(self, words: &mut [u64; 8]) {
        *words = self.0;
    }
    fn enter(words: &[u64; 8]) -> Self {
        Self(*words)
    }
    fn leave_small(self, p: &Modulus, words: &mut [u64; 8]) {
        *words = self.subtract_once(p.value()).0;
        assert!(words.iter().all(|&v| v < p.value()), "not canonical");
    }
    fn add(self, other: Self) -> Self {
        Self::each(|i| self.0[i].checked_add(other.0[i]).expect("a lane overflows"))
    }
    fn sub(self, other: Self, bias: Self) -> Self {
        Self::each(|i| (self.0[i] + bias.0[i]).checked_sub(other.0[i]).expect("the bias is too small"))
    }
    fn bias(p: &Modulus, doublings: u32) -> Self {
        Self::splat((2 * p.value()) << doublings)
    }
    fn constant(m: &Modulus, value: u64) -> [u64; 2] {
        [value, quotient(value, m, 52)]
    }
    fn mul_constant(self, factor: Self, quotient: Self, p: &Modulus) -> Self {
        let zero = Self::splat(0);
        let q = zero.add_high(self, quotient);
        let r = zero.add_low(self, factor).add_low(q, Self::splat((1 << 52) - p.value())).cut();
        assert!(r.0.iter().all(|&v| v < 2 * p.value()), "a product is not below 2p");
        r
    }
    fn settle(self, p: &Modulus) -> Self {
        let q = Self::splat(0).add_high(self, Self::splat(p.constants().barrett52));
        let r = self.add_low(q, Self::splat((1 << 52) - p.value())).cut();
        assert!(r.0.iter().all(|&v| v < 2 * p.value()), "a settled value is not below 2p");
        r
    }
    fn mul(self, other: Self, p: &Modulus) -> Self {
        let zero = Self::splat(0);
        Self::fold_parts(zero.add_high(self, other), zero.add_low(self, other), p)
    }
    fn no_products() -> (Self, Self) {
        (Self::splat(0), Self::splat(0))
    }
    fn products_between_folds(m: &Modulus) -> usize {
        ifma_products(m)
    }
    fn fold(sum: (Self, Self), p: &Modulus) -> (Self, Self) {
        let mut words = [0; 8];
        Self::finish(sum, p, &mut words);
        (Self(words), Self::splat(0))
    }
    fn accumulate((low, high): (Self, Self), x: Self, w: Self, _: &Modulus) -> (Self, Self) {
        (low.add_low(x, w), high.add_high(x, w))
    }
    fn finish((low, high): (Self, Self), p: &Modulus, words: &mut [u64; 8]) {
        let high = Self::each(|i| high.0[i] + (low.0[i] >> 52));
        let rest = Self::fold_parts(high, low.cut(), p).subtract_once(2 * p.value());
        rest.subtract_once(p.value()).store(words);
        assert!(words.iter().all(|&v| v < p.value()), "not canonical");
    }
    fn held(m: &Modulus) -> u64 {
        m.constants().pow52[0]
    }
    fn close((low, high): (Self, Self), p: &Modulus) -> Self {
        let zero = Self::splat(0);
        let q = zero.add_low(low.cut(), Self::splat(p.constants().inverse52)).cut();
        // The product that is subtracted ends in the same 52 bits as the sum.
        assert!((0..8).all(|i| (product(q.0[i], p.value()) as u64 ^ low.0[i]) & LOW52 == 0));
        let high = Self::each(|i| high.0[i] + (low.0[i] >> 52) + p.value());
        let r = Self::each(|i| high.0[i] - zero.add_high(q, Self::splat(p.value())).0[i]);
        assert!(r.0.iter().all(|&v| v <= LOW52), "a sum is too large to close");
        r
    }
    fn turn(rows: [Self; 8]) -> [Self; 8] {
        std::array::from_fn(|l| Self::each(|j| rows[j].0[l]))
    }
    fn spread(bits: usize) -> usize {
        bits
    }
    fn unpack(bytes: &[u8; UNPACK_READS], bits: &usize) -> Self {
        let bit = |at: usize| u64::from(bytes[at / 8] >> (at % 8) & 1);
        Self::each(|i| (0..*bits).map(|b| bit(i * bits + b) << b).sum())
    }
}
