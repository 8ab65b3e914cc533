//! The clamp gate: `z = min(max(y, 0), span)` of a masked `y`, as ReLU, ReLU6, Clip and
//! requantisation need it.
//!
//! Both parties know `u = y + r` modulo `2^b`. With
//!
//! ```text
//! d = not sign(u - r)      e = not sign(u - (span + 1) - r)      g = d ^ e
//! ```
//!
//! `z = g*y + span*e`, which is exact if `span + 1 - 2^(b-1) <= y < 2^(b-1)`. Two bits are opened,
//! `g^ = g ^ rho_g` and `e^ = e ^ rho_e`. Let `s` be the top bit of `r`, which cancels in `g`, and
//! `h` that of `u`. Where `g` is 1, `y = u - r + 2^b*s*(1 - h)` over the integers. So with `G = 1 -
//! rho_g` where `g^` is 1 and `rho_g` elsewhere, and `E` likewise,
//!
//! ```text
//! z + r_z = G*u + base + g^*(2 rho_g - 1)*r
//!           + (1 - h)*2^b*(s - rho_g*s where g^ is 1, else rho_g*s)
//!           + span*E,          r_z = base + rho_g*r
//! ```
//!
//! is a linear form in four dealt values: `rho_g`, `rho_e`, `(2 rho_g - 1)*r`, and the pair
//! `rho_g*s`, `s - rho_g*s`. `base` comes from both parties' keys, and so is not dealt.

use super::comparison::Comparison;
use super::shares::{BothKeys, Drawn, GateShares, GateStep, append};
use crate::backend::{Backend, wide};
use crate::bits::{GATES, LANES, ONES, Plane, bit, low_mask, xor};

/// Most bits by which a result may be wider than the input: a pair of such values is one word.
pub(crate) const MAX_LIFT: u32 = 16;
/// Dealt values of a gate.
pub(crate) const VALUES: usize = 4;

/// Clamps of one step, all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clamp {
    /// How the two thresholds are compared, `b` bits.
    pub(crate) comparison: Comparison,
    /// Largest result; the smallest is 0.
    pub(crate) span: u32,
    /// Bits of the result's modulus.
    pub(crate) result_bits: u32,
}

impl Clamp {
    /// Clamps of `bits` bits to `0..=span`, with results modulo `2^result_bits`.
    pub(crate) fn new(bits: u32, span: u32, result_bits: u32, chunks: &[usize]) -> Self {
        assert!(bits < 32 && result_bits <= 32 && result_bits.saturating_sub(bits) <= MAX_LIFT);
        Self { comparison: Comparison::new(bits, Some(span + 1), chunks), span, result_bits }
    }

    /// Bits of the four dealt values.
    pub(crate) fn widths(&self) -> [u32; VALUES] {
        let bits = self.result_bits;
        [bits, bits, bits, 2 * self.lift()]
    }

    /// Bits by which the result is wider than the input.
    pub(crate) fn lift(&self) -> u32 {
        self.result_bits.saturating_sub(self.comparison.bits)
    }

    /// A step of so many of these gates; `widths` are [`Self::widths`].
    pub(crate) fn step<'a>(&'a self, step: usize, count: usize, widths: &'a [u32]) -> GateStep<'a> {
        GateStep { step, comparison: &self.comparison, count, result_bits: self.result_bits, widths }
    }

    /// Deals gates for inputs with these masks: appends the guest's shares to its ticket and
    /// returns the results' masks.
    pub(crate) fn deal(
        &self,
        backend: Backend,
        keys: &BothKeys<'_>,
        step: usize,
        masks: &[u32],
        ticket: &mut Vec<u8>,
    ) -> Vec<u32> {
        let widths = self.widths();
        let gates = self.step(step, masks.len(), &widths);
        self.deal_drawn(backend, gates, gates.draw(keys), masks, ticket)
    }

    /// Deals the gates of a step from what was drawn for it.
    pub(crate) fn deal_drawn(
        &self,
        backend: Backend,
        gates: GateStep<'_>,
        drawn: Drawn,
        masks: &[u32],
        ticket: &mut Vec<u8>,
    ) -> Vec<u32> {
        let mut dealt = gates.deal(backend, drawn, masks);
        // g is the xor of both signs, so its mask has the constants of both points; the own bits of
        // the second point mask e alone.
        let own = dealt.shares.own.chunks_exact(self.comparison.own_planes());
        for (pair, own) in dealt.final_masks.chunks_exact_mut(2).zip(own) {
            let second = pair[1];
            xor(&mut pair[0], &second);
            xor(&mut pair[0], &own[self.comparison.variables + 1]);
        }
        let shape = ClampShape::of(self);
        deal_values(backend, &shape, masks, &dealt.final_masks, &mut dealt.base, &mut dealt.shares.values);
        append(backend, &dealt.shares, gates.widths, ticket);
        dealt.base.iter().map(|r| r & low_mask(self.result_bits)).collect()
    }

    /// Turns a party's signs into its shares of `g^` and `e^`, two planes a block.
    pub(crate) fn fold(&self, is_server: bool, own: &[Plane], signs: &mut [Plane]) {
        let own = own.chunks_exact(self.comparison.own_planes());
        for (pair, own) in signs.chunks_exact_mut(2).zip(own) {
            let second = pair[1];
            xor(&mut pair[0], &second);
            xor(&mut pair[0], &own[self.comparison.variables]);
            xor(&mut pair[1], &own[self.comparison.variables + 1]);
            if is_server {
                xor(&mut pair[1], &ONES);
            }
        }
    }

    /// A party's share of `z + r_z`, once `g^` and `e^` are open.
    pub(crate) fn value(
        &self,
        backend: Backend,
        is_server: bool,
        u: &[u32],
        bits: &[Plane],
        shares: &GateShares,
    ) -> Vec<u32> {
        values(backend, &ClampShape::of(self), u32::from(is_server), u, bits, &shares.base, &shares.values)
    }
}

/// The numbers of a clamp that its loops use.
struct ClampShape {
    bits: u32,
    lift: u32,
    span: u32,
}

impl ClampShape {
    fn of(clamp: &Clamp) -> Self {
        Self { bits: clamp.comparison.bits, lift: clamp.lift(), span: clamp.span }
    }
}

/// A block's inputs and shares.
struct Values<'a> {
    u: &'a [u32],
    base: &'a [u32],
    rho_g: &'a [u32],
    rho_e: &'a [u32],
    product: &'a [u32],
    pair: &'a [u32],
}

impl Values<'_> {
    /// The share of gate `i`, whose opened bits stand in a row's lane.
    #[inline(always)]
    fn value(&self, shape: &ClampShape, server: u32, i: usize, bits: &[Plane], row: usize, lane: usize) -> u32 {
        let (g, e) = (bit(&bits[0], row, lane), bit(&bits[1], row, lane));
        // All ones where the opened bit is 1.
        let (not_g, not_e) = (0_u32.wrapping_sub(g), 0_u32.wrapping_sub(e));
        let big_g = (self.rho_g[i] ^ not_g).wrapping_add(g).wrapping_add(server & not_g);
        let big_e = (self.rho_e[i] ^ not_e).wrapping_add(e).wrapping_add(server & not_e);
        let lift = (self.pair[i] >> (shape.lift & not_g)) << shape.bits;
        let below = (self.u[i] >> (shape.bits - 1) & 1).wrapping_sub(1);
        big_g
            .wrapping_mul(self.u[i])
            .wrapping_add(big_e.wrapping_mul(shape.span))
            .wrapping_add(self.base[i])
            .wrapping_add(self.product[i] & not_g)
            .wrapping_add(lift & below)
    }
}

wide! {
    /// Makes the guest's shares of the dealt values of the server's, and adds `rho_g*r` to `base`.
    /// `masks_of_bits` holds `rho_g` and `rho_e` without `s`.
    fn deal_values(
        shape: &ClampShape, masks: &[u32], masks_of_bits: &[Plane], base: &mut [u32], dealt: &mut [Vec<u32>]
    ) {
        let [rho_g, rho_e, product, pair] = dealt else { return };
        for (block, bits) in masks_of_bits.chunks_exact(2).enumerate() {
            let first = block * GATES;
            let n = GATES.min(masks.len() - first);
            let (masks, base) = (&masks[first..][..n], &mut base[first..][..n]);
            let (rho_g, rho_e) = (&mut rho_g[first..][..n], &mut rho_e[first..][..n]);
            let (product, pair) = (&mut product[first..][..n], &mut pair[first..][..n]);
            for i in 0..n {
                let (g, e) = (bit(&bits[0], i / LANES, i % LANES), bit(&bits[1], i / LANES, i % LANES));
                let (r, top) = (masks[i], masks[i] >> (shape.bits - 1) & 1);
                base[i] = base[i].wrapping_add(g * r);
                rho_g[i] = g.wrapping_sub(rho_g[i]);
                rho_e[i] = (e ^ top).wrapping_sub(rho_e[i]);
                product[i] = (2 * g).wrapping_sub(1).wrapping_mul(r).wrapping_sub(product[i]);
                let (low, high) = ((g & top).wrapping_sub(pair[i]), (top & !g).wrapping_sub(pair[i] >> shape.lift));
                let mask = low_mask(shape.lift);
                pair[i] = (low & mask) | ((high & mask) << shape.lift);
            }
        }
    }

    fn values(
        shape: &ClampShape, server: u32, u: &[u32], opened: &[Plane], base: &[u32], dealt: &[Vec<u32>]
    ) -> Vec<u32> {
        let mut out = vec![0; u.len()];
        let [rho_g, rho_e, product, pair] = dealt else { return out };
        for (block, bits) in opened.chunks_exact(2).enumerate() {
            let first = block * GATES;
            let n = GATES.min(u.len() - first);
            let (u, out, base) = (&u[first..][..n], &mut out[first..][..n], &base[first..][..n]);
            let (rho_g, rho_e) = (&rho_g[first..][..n], &rho_e[first..][..n]);
            let (product, pair) = (&product[first..][..n], &pair[first..][..n]);
            let all = Values { u, base, rho_g, rho_e, product, pair };
            let rows = n / LANES;
            for row in 0..rows {
                for l in 0..LANES {
                    out[row * LANES + l] = all.value(shape, server, row * LANES + l, bits, row, l);
                }
            }
            for l in 0..n % LANES {
                out[rows * LANES + l] = all.value(shape, server, rows * LANES + l, bits, rows, l);
            }
        }
        out
    }
}
