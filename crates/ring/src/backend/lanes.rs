//! The trait that every backend implements: residues in lanes. The transforms and products are
//! written once over this trait (`transform.rs`, `multiply.rs`, `pointwise.rs`) and compiled for
//! each implementation.
//!
//! Values in lanes are *lazy*: congruent to the residue, not reduced. The bounds, with `b` the bit
//! length of `p`:
//!
//! | after | `u64` lanes (IFMA, portable, estimated) | `f64` lanes (AVX-512, AVX2) |
//! |---|---|---|
//! | `enter` | `[0, p)` | `[0, p)` |
//! | `mul_constant`, `settle` | `[0, 2p)` | `[-p, p]` |
//! | `mul` | `[0, 4p)` | `[-p, p]` |
//! | `close`, `t` products | `[0, p + t*2^(2b - 52)]`, estimated `[0, 2p)` | `[-p, p]` |
//! | `sub(y, bias)` | `x - y + bias`, `bias` a multiple of `p` not below `y` | `x - y` |
//!
//! Every value must stay below `2^CAPACITY` in absolute value.
#![allow(unsafe_code)]

use crate::Modulus;
use crate::modulus::MAX_LAZY_PRODUCTS;

/// 64 words: eight rows of eight, turned into columns by the last pass of a transform.
pub(crate) type Block64 = [u64; 64];

/// Bytes that unpacking may read from the start of a group of packed residues.
pub(crate) const UNPACK_READS: usize = 64;

/// Residues in lanes. Methods (and jobs) must be inlined into the function that is compiled for the
/// vector unit, and hold no closures around instructions: a closure is compiled without the unit's
/// features, and every instruction in it becomes a call.
pub(crate) trait Lanes: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// Levels of a transform that one pass over memory computes, 2 or 3: as many as there are
    /// registers for.
    const LEVELS: u32;
    /// Lazy values stay below `2^CAPACITY` in absolute value.
    const CAPACITY: u32;
    /// `[u64; LANES]`.
    type Words: Copy;
    /// A modulus, broadcast.
    type Prime: Copy;
    /// A sum of products.
    type Sum: Copy;
    /// How packed residues are spread over lanes.
    type Spread: Copy;

    /// Broadcasts a modulus.
    fn prime(m: &Modulus) -> Self::Prime;
    /// Returns a slice as groups of lanes; a rest is left out.
    fn split(words: &[u64]) -> &[Self::Words];
    /// Returns a mutable slice as groups of lanes; a rest is left out.
    fn split_mut(words: &mut [u64]) -> &mut [Self::Words];
    /// Puts one word into every lane, not interpreted.
    fn splat(word: u64) -> Self;
    /// Loads words as [`Lanes::store`] wrote them.
    fn load(words: &Self::Words) -> Self;
    /// Stores lazy values in this unit's own form.
    fn store(self, words: &mut Self::Words);
    /// Loads residues below `p`.
    fn enter(words: &Self::Words) -> Self;
    /// Stores lazy values as canonical residues.
    #[inline(always)]
    fn leave(self, p: &Self::Prime, words: &mut Self::Words) {
        self.settle(p).leave_small(p, words);
    }
    /// Stores canonical residues of values from [`Lanes::close`] or [`Lanes::settle`] that are
    /// below `2p`.
    fn leave_small(self, p: &Self::Prime, words: &mut Self::Words);

    /// Returns `self + other`.
    fn add(self, other: Self) -> Self;
    /// Returns `self - other + bias`.
    fn sub(self, other: Self, bias: Self) -> Self;
    /// Returns `2p * 2^doublings`, the bias that makes a difference positive where lanes are
    /// unsigned.
    fn bias(p: &Self::Prime, doublings: u32) -> Self;
    /// Prepares a public constant: returns the factor and its quotient as words for
    /// [`Lanes::splat`] and [`Lanes::load`]. The time depends on the constant.
    fn constant(m: &Modulus, value: u64) -> [u64; 2];
    /// Returns `self * factor` for a prepared constant (Shoup's method).
    fn mul_constant(self, factor: Self, quotient: Self, p: &Self::Prime) -> Self;
    /// Returns values that are congruent to `self` and within the bounds above.
    fn settle(self, p: &Self::Prime) -> Self;
    /// Returns `self * other`; one of the two is below `2p`, the other below `2^50`.
    fn mul(self, other: Self, p: &Self::Prime) -> Self;

    /// Returns the empty sum.
    fn no_products() -> Self::Sum;
    /// Returns how many products may be added before [`Lanes::fold`].
    fn products_between_folds(m: &Modulus) -> usize;
    /// Reduces a sum to make room for more products.
    fn fold(sum: Self::Sum, p: &Self::Prime) -> Self::Sum;
    /// Adds `x * w` to a sum, both from [`Lanes::enter`] or [`Lanes::unpack`].
    fn accumulate(sum: Self::Sum, x: Self, w: Self, p: &Self::Prime) -> Self::Sum;
    /// Stores a sum as canonical residues.
    fn finish(sum: Self::Sum, p: &Self::Prime, words: &mut Self::Words);
    /// Returns the factor that residues of rows are multiplied with where they are held, so that
    /// their sums of products [close](Lanes::close) fast.
    fn held(_: &Modulus) -> u64 {
        1
    }
    /// Returns the residue of a sum of products with values that are [held](Lanes::held) so. It is
    /// lazy, below `2^CAPACITY`.
    fn close(sum: Self::Sum, p: &Self::Prime) -> Self;

    /// Returns the eight columns of a block, or rather lanes `part * LANES..` of them, where lanes
    /// hold no whole row.
    fn columns(block: &Block64, part: usize) -> [Self; 8] {
        let _ = (block, part);
        debug_assert!(false, "eight lanes turn in registers");
        [Self::splat(0); 8]
    }
    /// Writes columns back to rows `part * LANES..` of the block, where lanes hold no whole row.
    fn rows(columns: [Self; 8], part: usize, block: &mut Block64) {
        let _ = (columns, part, block);
        debug_assert!(false, "eight lanes turn in registers");
    }
    /// Turns rows to columns, or back, in registers, where eight lanes hold a whole row.
    fn turn(rows: [Self; 8]) -> [Self; 8] {
        debug_assert!(false, "these lanes hold no whole row");
        rows
    }

    /// Returns the pattern for residues of `bits` bits each, as
    /// [`Backend::held_bits`](super::Backend::held_bits) says for these lanes.
    fn spread(bits: usize) -> Self::Spread;
    /// Unpacks residues from the front of `bytes`.
    fn unpack(bytes: &[u8; UNPACK_READS], spread: &Self::Spread) -> Self;
}

/// Returns `value * 2^bits / p`, rounded down: the quotient of a constant for lanes that multiply
/// 52 or 64 bits.
pub(crate) fn quotient(value: u64, m: &Modulus, bits: u32) -> u64 {
    ((u128::from(value) << bits) / u128::from(m.value())) as u64
}

/// Returns how many products IFMA's lanes may add. Of each, the upper half is below `2^(2*bits -
/// 52)`; the sum of these, with what the lower halves carry into it, has to fit 52 bits.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn ifma_products(m: &Modulus) -> usize {
    (1 << (103 - 2 * m.bits()).min(12)).min(MAX_LAZY_PRODUCTS)
}

/// Returns `items[at]` in a hot loop, where a bounds check would cost as much as the work.
#[inline(always)]
pub(crate) fn item_at<T>(items: &[T], at: usize) -> &T {
    debug_assert!(at < items.len());
    // SAFETY: callers compute `at` from the lengths that they have checked before their loop
    // (`RowGroup::run` and `end`, `SumOfProducts::run`, `forward_pass`, `inverse_pass`,
    // `inverse_pruned`, `Tables::go_on`, `Inverse::run`); the tests run with debug assertions.
    unsafe { items.get_unchecked(at) }
}

/// Returns `items[at]` mutable, for loops as [`item_at`] is for.
#[inline(always)]
pub(crate) fn item_at_mut<T>(items: &mut [T], at: usize) -> &mut T {
    debug_assert!(at < items.len());
    // SAFETY: as in `item_at`.
    unsafe { items.get_unchecked_mut(at) }
}

/// Bytes from what is used of a stream to what is prefetched. From 8 to 16 KiB there is no
/// difference; with 4 KiB one thread reads a seventh less.
pub(crate) const AHEAD: usize = 8192;

/// Prefetches `items[at]`, inside the slice or beyond it. Streams that are read once need it: a
/// processor's own guesses end at every page, and where a hypervisor has switched them off there
/// are none.
#[inline(always)]
pub(crate) fn prefetch<T>(items: &[T], at: usize) {
    prefetch_to::<T, false>(items, at);
}

/// Prefetches `items[at]`, as [`prefetch`] does, but into the second-level cache: for what is read
/// later, while the first-level cache is full.
#[inline(always)]
pub(crate) fn prefetch_outer<T>(items: &[T], at: usize) {
    prefetch_to::<T, true>(items, at);
}

#[inline(always)]
fn prefetch_to<T, const OUTER: bool>(items: &[T], at: usize) {
    // SAFETY: a prefetch of any address reads nothing that the program could see, and never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let place = items.as_ptr().wrapping_add(at).cast();
        if OUTER { _mm_prefetch::<_MM_HINT_T1>(place) } else { _mm_prefetch::<_MM_HINT_T0>(place) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, at);
}

/// Returns the bytes from `at` on that unpacking may read.
#[inline(always)]
pub(crate) fn array_at(bytes: &[u8], at: usize) -> &[u8; UNPACK_READS] {
    debug_assert!(at + UNPACK_READS <= bytes.len());
    // SAFETY: an array of bytes has no alignment, and callers compute `at` from lengths that they
    // have checked before their loop: `RowGroup::run` for its rows, `Chunk::run` in `masking.rs` by
    // its assertion about the last that is read.
    unsafe { &*bytes.as_ptr().add(at).cast() }
}
