//! What every vector unit gives: residues in lanes. The transforms and products are written once
//! over this trait (`transform.rs`, `multiply.rs`, `pointwise.rs`) and compiled for each
//! implementation.
//!
//! Values in lanes are *lazy*: congruent to the residue, not reduced. The bounds, with `b` the bit
//! length of `p`:
//!
//! | after | `u64` lanes (IFMA, portable) | `f64` lanes (AVX-512, AVX2) |
//! |---|---|---|
//! | `enter` | `[0, p)` | `[0, p)` |
//! | `mul_constant`, `settle` | `[0, 2p)` | `[-p, p]` |
//! | `mul` | `[0, 4p)` | `[-p, p]` |
//! | `close`, `t` products | `[0, p + t*2^(2b - 52)]` | `[-p, p]` |
//! | `sub(y, bias)` | `x - y + bias`, `bias` a multiple of `p` not below `y` | `x - y` |
//!
//! Every value must stay below `2^CAPACITY` in absolute value.
#![allow(unsafe_code)]

use crate::Modulus;
use crate::modulus::MAX_LAZY_PRODUCTS;

/// `64` words: eight rows of eight, turned into columns by the last pass of a transform.
pub(crate) type Block64 = [u64; 64];

/// Bytes that unpacking may read from the start of a group of packed residues.
pub(crate) const UNPACK_READS: usize = 64;

/// Residues in lanes. Methods (and jobs) must be inlined into the function that is compiled for the
/// vector unit, and hold no closures around instructions: a closure is compiled without the unit's
/// features, and every instruction in it becomes a call.
pub(crate) trait Lanes: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// Levels of a transform that one pass over memory takes, 2 or 3: as many as there are
    /// registers for.
    const LEVELS: u32;
    /// Lazy values stay below two to this.
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
    /// A slice as groups of lanes; a rest is left out.
    fn split(words: &[u64]) -> &[Self::Words];
    /// The same, mutable.
    fn split_mut(words: &mut [u64]) -> &mut [Self::Words];
    /// The same word in every lane, not interpreted.
    fn splat(word: u64) -> Self;
    /// Words as they were stored.
    fn load(words: &Self::Words) -> Self;
    /// Lazy values in this unit's own form.
    fn store(self, words: &mut Self::Words);
    /// Residues below `p`.
    fn enter(words: &Self::Words) -> Self;
    /// Canonical residues.
    #[inline(always)]
    fn leave(self, p: &Self::Prime, words: &mut Self::Words) {
        self.settle(p).leave_small(p, words);
    }
    /// The same of what [`Lanes::close`] or [`Lanes::settle`] gave, if that is below `2p`.
    fn leave_small(self, p: &Self::Prime, words: &mut Self::Words);

    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other + bias`.
    fn sub(self, other: Self, bias: Self) -> Self;
    /// `2p * 2^doublings`, the bias that makes a difference positive where lanes are unsigned.
    fn bias(p: &Self::Prime, doublings: u32) -> Self;
    /// A public constant factor and its quotient, as words for [`Lanes::splat`] and
    /// [`Lanes::load`]. Takes time that depends on it.
    fn constant(m: &Modulus, value: u64) -> [u64; 2];
    /// `self * factor` for a prepared constant (Shoup's method).
    fn mul_constant(self, factor: Self, quotient: Self, p: &Self::Prime) -> Self;
    /// The same residue, smaller.
    fn settle(self, p: &Self::Prime) -> Self;
    /// `self * other`; one of the two below `2p`, the other below `2^50`.
    fn mul(self, other: Self, p: &Self::Prime) -> Self;

    /// The empty sum.
    fn no_products() -> Self::Sum;
    /// Products that may be added before [`Lanes::fold`].
    fn products_between_folds(m: &Modulus) -> usize;
    /// Makes room for more products.
    fn fold(sum: Self::Sum, p: &Self::Prime) -> Self::Sum;
    /// Adds `x * w`, both from [`Lanes::enter`] or [`Lanes::unpack`].
    fn accumulate(sum: Self::Sum, x: Self, w: Self, p: &Self::Prime) -> Self::Sum;
    /// The sum as canonical residues.
    fn finish(sum: Self::Sum, p: &Self::Prime, words: &mut Self::Words);
    /// What residues of rows are multiplied with where they are held, so that their sums of
    /// products [close](Lanes::close) fast.
    fn held(_: &Modulus) -> u64 {
        1
    }
    /// The sum of products with values that are [held](Lanes::held) so: the residue, lazy, below
    /// `2^CAPACITY`.
    fn close(sum: Self::Sum, p: &Self::Prime) -> Self;

    /// The eight columns of a block, lanes `part * LANES..` of them, where lanes hold no whole row.
    fn columns(block: &Block64, part: usize) -> [Self; 8] {
        let _ = (block, part);
        debug_assert!(false, "eight lanes turn in registers");
        [Self::splat(0); 8]
    }
    /// Columns back to rows `part * LANES..` of the block, where lanes hold no whole row.
    fn rows(columns: [Self; 8], part: usize, block: &mut Block64) {
        let _ = (columns, part, block);
        debug_assert!(false, "eight lanes turn in registers");
    }
    /// Where eight lanes hold a whole row: rows to columns, or back, in registers.
    fn turn(rows: [Self; 8]) -> [Self; 8] {
        debug_assert!(false, "these lanes hold no whole row");
        rows
    }

    /// The pattern for residues of `bits` bits each as
    /// [`Backend::held_bits`](super::Backend::held_bits) says for these lanes.
    fn spread(bits: usize) -> Self::Spread;
    /// Packed residues from the front of `bytes`, which holds at least [`UNPACK_READS`].
    fn unpack(bytes: &[u8; UNPACK_READS], spread: &Self::Spread) -> Self;
}

/// `value * 2^bits / p`, rounded down: the quotient of a constant for lanes that multiply 52 or 64
/// bits.
pub(crate) fn quotient(value: u64, m: &Modulus, bits: u32) -> u64 {
    ((u128::from(value) << bits) / u128::from(m.value())) as u64
}

/// Products that IFMA's lanes may add before their upper halves, and what the lower ones carry into
/// them, no longer fit 52 bits: each is below `2^(2*bits - 52)`.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn ifma_products(m: &Modulus) -> usize {
    (1 << (103 - 2 * m.bits()).min(12)).min(MAX_LAZY_PRODUCTS)
}

/// `items[at]` in a hot loop, where a bounds check costs as much as the work.
#[inline(always)]
pub(crate) fn item_at<T>(items: &[T], at: usize) -> &T {
    debug_assert!(at < items.len());
    // SAFETY: callers compute `at` from the lengths that they have checked before their loop
    // (`RowGroup::run` and `end`, `SumOfProducts::run`, `forward_pass`, `inverse_pass`,
    // `inverse_pruned`, `Tables::go_on`, `Inverse::run`); the tests run with debug assertions.
    unsafe { items.get_unchecked(at) }
}

/// As [`item_at`], mutable.
#[inline(always)]
pub(crate) fn item_at_mut<T>(items: &mut [T], at: usize) -> &mut T {
    debug_assert!(at < items.len());
    // SAFETY: as in `item_at`.
    unsafe { items.get_unchecked_mut(at) }
}

/// Bytes between what is used of a stream and what is asked for: from 8 to 16 KiB there is no
/// difference, with 4 a seventh less comes to one thread.
pub(crate) const AHEAD: usize = 8192;

/// Asks the memory for `items[at]`, inside the slice or beyond it, ahead of its use. Streams that
/// are read once want it: a processor's own guesses end at every page, and where a hypervisor has
/// switched them off there are none.
#[inline(always)]
pub(crate) fn prefetch<T>(items: &[T], at: usize) {
    prefetch_to::<T, false>(items, at);
}

/// As [`prefetch`], into the second-level cache: for what is read later, while the first-level
/// cache is full.
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

/// The bytes from `at` on that unpacking may read.
#[inline(always)]
pub(crate) fn array_at(bytes: &[u8], at: usize) -> &[u8; UNPACK_READS] {
    debug_assert!(at + UNPACK_READS <= bytes.len());
    // SAFETY: an array of bytes has no alignment, and callers compute `at` from lengths that they
    // have checked before their loop: `RowGroup::run` for its rows, `Chunk::run` in `masking.rs` by
    // its assertion about the last that is read.
    unsafe { &*bytes.as_ptr().add(at).cast() }
}
