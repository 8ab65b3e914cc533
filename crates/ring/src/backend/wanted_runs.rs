//! The last pass of a transform back where few coefficients are wanted: what only the others need
//! is left out ("pruned" transforms: Markel, IEEE Trans. Audio Electroacoust. 19(4), 1971).
//!
//! The last pass of an inverse combines eight values, one from each eighth of the element, to eight
//! coefficients at the same places. One of these alone takes 1 to 7 multiplications, all eight take
//! 16.

use super::lanes::{Lanes, item_at_mut};
use crate::ring::MAX_DEGREE;

/// Coefficients that are decided on together, as many as the widest vectors have lanes.
const TOGETHER: usize = 8;

/// Multiplications for output `a` alone: four where the first level's difference is wanted, two for
/// the second's, one for the third's or for the scale.
const COST: [u32; 8] = [1, 5, 3, 7, 1, 5, 3, 7];

/// Multiplications from which on all eight outputs are computed together.
const ALL_TOGETHER: u32 = 14;

/// All eight outputs.
pub(super) const ALL: u8 = 0xff;

/// The outputs that the last pass has to compute for some wanted coefficients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedRuns {
    degree: usize,
    /// Runs of columns of the last pass, counted in eights of neighbours, with the same outputs: a
    /// mask with bit `a` for output `a`, the first eight, and the one after the last.
    runs: Vec<(u8, u16, u16)>,
}

impl WantedRuns {
    /// Finds what the last pass has to compute for the coefficients at `wanted` of an element of
    /// `degree` coefficients; some of their neighbours are computed with them. Indices beyond the
    /// degree are ignored. For a degree that no ring has, the result fits no ring.
    pub(crate) fn new(degree: usize, wanted: &[u32]) -> Self {
        if !degree.is_multiple_of(8 * TOGETHER) || degree > MAX_DEGREE {
            return Self { degree: 0, runs: vec![] };
        }
        let columns = degree / (8 * TOGETHER);
        let mut masks = vec![0u8; columns];
        for &index in wanted.iter().filter(|&&index| (index as usize) < degree) {
            let group = index as usize / TOGETHER;
            masks[group % columns] |= 1 << (group / columns);
        }
        let mut runs: Vec<(u8, u16, u16)> = vec![];
        for (column, wanted) in masks.into_iter().enumerate() {
            let cost: u32 = (0..8).filter(|a| wanted >> a & 1 == 1).map(|a| COST[a]).sum();
            let (mask, column) = (if cost < ALL_TOGETHER { wanted } else { ALL }, column as u16);
            match runs.last_mut() {
                Some(run) if run.0 == mask => run.2 = column + 1,
                _ => runs.push((mask, column, column + 1)),
            }
        }
        runs.retain(|&(mask, ..)| mask != 0);
        Self { degree, runs }
    }

    /// Returns the degree of the elements that it is for.
    pub(crate) fn degree(&self) -> usize {
        self.degree
    }

    /// Returns the runs: the mask of outputs, and the columns in groups of eight.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u8, std::ops::Range<usize>)> {
        self.runs.iter().map(|&(mask, first, end)| (mask, usize::from(first)..usize::from(end)))
    }
}

/// Factors of the last pass, in lanes.
pub(super) struct Last<V: Lanes> {
    /// Roots of the nodes 1 to 7, the first with `1/N`.
    pub(super) roots: [(V, V); 8],
    /// `1/N` for sums.
    pub(super) scale: (V, V),
    /// The bias of differences, level by level.
    pub(super) bias: [V; 3],
}

impl<V: Lanes> Last<V> {
    /// Computes the outputs that `mask` names from `x` and writes them, canonical, to column `i` of
    /// eight runs of `run` groups of lanes in `words`.
    #[inline(always)]
    pub(super) fn some(&self, mask: u8, x: &[V; 8], words: &mut [V::Words], (i, run): (usize, usize), p: &V::Prime) {
        macro_rules! one {
            ($a:literal) => {
                if mask >> $a & 1 == 1 {
                    self.one::<$a>(x, p).leave(p, item_at_mut(words, $a * run + i));
                }
            };
        }
        one!(0);
        one!(1);
        one!(2);
        one!(3);
        one!(4);
        one!(5);
        one!(6);
        one!(7);
    }

    /// Computes output `A`, whose bits say whether it is a sum or a difference, level by level.
    #[inline(always)]
    fn one<const A: usize>(&self, x: &[V; 8], p: &V::Prime) -> V {
        let mut y = [V::splat(0); 4];
        for b in 0..4 {
            y[b] = self.half::<A, 0>([x[2 * b], x[2 * b + 1]], 4 + b, p);
        }
        let z = [self.half::<A, 1>([y[0], y[1]], 2, p), self.half::<A, 1>([y[2], y[3]], 3, p)];
        let last = self.half::<A, 2>(z, 1, p);
        if A >= 4 { last } else { last.mul_constant(self.scale.0, self.scale.1, p) }
    }

    /// Computes one half of a butterfly: the sum or, with the root of `node`, the difference.
    #[inline(always)]
    fn half<const A: usize, const LEVEL: usize>(&self, [u, v]: [V; 2], node: usize, p: &V::Prime) -> V {
        if A >> LEVEL & 1 == 0 {
            u.add(v)
        } else {
            let (root, quotient) = self.roots[node];
            u.sub(v, self.bias[LEVEL]).mul_constant(root, quotient, p)
        }
    }
}
