//! The 52-bit multiply-add kernel, written once over "eight lanes" so that its logic is tested on every machine: with
//! lanes of AVX-512 IFMA where there are any (`ifma.rs`), with plain integers in the tests.

use super::BLOCK;
use crate::Modulus;

/// Eight 64-bit lanes with the two IFMA operations.
pub(super) trait Lanes: Copy {
    /// All zero.
    fn zero() -> Self;
    /// The next eight words.
    fn load(words: &[u64; 8]) -> Self;
    /// Into eight words.
    fn store(self, words: &mut [u64; 8]);
    /// `self + (a * b mod 2^52)`, factors taken modulo 2^52.
    fn add_low(self, a: Self, b: Self) -> Self;
    /// `self + floor(a * b / 2^52)`, factors taken modulo 2^52.
    fn add_high(self, a: Self, b: Self) -> Self;
}

/// One row. With residues below 2^50 the high parts stay below 2^48: 4096 of either fit a lane.
#[inline(always)]
pub(super) fn row<V: Lanes>(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    const GROUPS: usize = BLOCK / 8;
    let blocks = w.chunks_exact(x.len() * BLOCK).zip(out.as_chunks_mut::<BLOCK>().0);
    for (block, (w, out)) in blocks.enumerate() {
        let (mut low, mut high) = ([V::zero(); GROUPS], [V::zero(); GROUPS]);
        for (w, x) in w.as_chunks::<BLOCK>().0.iter().zip(x) {
            let x = &x[block * BLOCK..][..BLOCK];
            for (g, (w, x)) in w.as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0).enumerate() {
                let (w, x) = (V::load(w), V::load(x));
                low[g] = low[g].add_low(x, w);
                high[g] = high[g].add_high(x, w);
            }
        }
        for (g, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (mut l, mut h) = ([0; 8], [0; 8]);
            low[g].store(&mut l);
            high[g].store(&mut h);
            for (o, (&l, &h)) in out.iter_mut().zip(l.iter().zip(&h)) {
                *o = p.reduce(u128::from(l) + (u128::from(h) << 52));
            }
        }
    }
}
