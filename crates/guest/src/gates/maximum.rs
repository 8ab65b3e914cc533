//! The max gate: the larger of two masked values, as MaxPool needs it.
//!
//! Both parties know `a^ = a + r_a` and `c^ = c + r_c` modulo `2^k`, and `a - c` has `b` bits with
//! its sign. The sign of `u - r` with `u = a^ - c^` and `r = r_a - r_c` modulo `2^b` is compared;
//! `w = not sign` is opened as `w^ = w ^ rho`, and with `D = a^ - c^`
//!
//! ```text
//! m + r_m = a^ - D*rho + other  where w^ is 1,   c^ + D*rho + base  elsewhere
//! base = r_m - r_c - rho*r,    other = r_m - r_a + rho*r
//! ```
//!
//! `base` comes from both parties' keys and so defines `r_m`; `rho` and `other` are dealt.

use super::comparison::Comparison;
use super::shares::{BothKeys, Drawn, GateShares, GateStep, append};
use crate::backend::{Backend, wide};
use crate::bits::{GATES, LANES, ONES, Plane, bit, low_mask, xor};

/// Dealt values of a gate.
pub(crate) const VALUES: usize = 2;

/// Max gates of one step, all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Maximum {
    /// How differences are compared.
    pub(crate) comparison: Comparison,
    /// Bits of the modulus of the values.
    pub(crate) value_bits: u32,
}

/// The masks of the two values of every gate.
#[derive(Clone, Copy)]
pub(crate) struct PairMasks<'a> {
    /// Masks of the first values.
    pub(crate) first: &'a [u32],
    /// Masks of the second values.
    pub(crate) second: &'a [u32],
}

impl Maximum {
    /// Maxima of values modulo `2^value_bits` that differ by less than `2^(bits - 1)`.
    pub(crate) fn new(bits: u32, value_bits: u32, chunks: &[usize]) -> Self {
        assert!(bits <= value_bits && value_bits <= 32, "differences of {bits} bits modulo 2^{value_bits}");
        Self { comparison: Comparison::new(bits, None, chunks), value_bits }
    }

    /// Bits of the dealt values.
    pub(crate) fn widths(&self) -> [u32; VALUES] {
        [self.value_bits; VALUES]
    }

    /// A step of so many of these gates; `widths` are [`Self::widths`].
    pub(crate) fn step<'a>(&'a self, step: usize, count: usize, widths: &'a [u32]) -> GateStep<'a> {
        GateStep { step, comparison: &self.comparison, count, result_bits: self.value_bits, widths }
    }

    /// Deals gates for values with these masks: appends the guest's shares to its ticket and
    /// returns the results' masks.
    pub(crate) fn deal(
        &self,
        backend: Backend,
        keys: &BothKeys<'_>,
        step: usize,
        masks: PairMasks<'_>,
        ticket: &mut Vec<u8>,
    ) -> Vec<u32> {
        let widths = self.widths();
        let gates = self.step(step, masks.first.len(), &widths);
        self.deal_drawn(backend, gates, gates.draw(keys), masks, ticket)
    }

    /// Deals the gates of a step from what was drawn for it.
    pub(crate) fn deal_drawn(
        &self,
        backend: Backend,
        gates: GateStep<'_>,
        drawn: Drawn,
        masks: PairMasks<'_>,
        ticket: &mut Vec<u8>,
    ) -> Vec<u32> {
        let difference: Vec<u32> = masks.first.iter().zip(masks.second).map(|(a, c)| a.wrapping_sub(*c)).collect();
        let mut dealt = gates.deal(backend, drawn, &difference);
        let bits = self.comparison.bits;
        deal_values(backend, bits, masks, &dealt.final_masks, &mut dealt.base, &mut dealt.shares.values);
        append(backend, &dealt.shares, gates.widths, ticket);
        dealt.base.iter().map(|r| r & low_mask(self.value_bits)).collect()
    }

    /// Turns a party's signs into its shares of `w^`, a plane a block.
    pub(crate) fn fold(&self, is_server: bool, own: &[Plane], signs: &mut [Plane]) {
        let own = own.chunks_exact(self.comparison.own_planes());
        for (sign, own) in signs.iter_mut().zip(own) {
            xor(sign, &own[self.comparison.variables]);
            if is_server {
                xor(sign, &ONES);
            }
        }
    }

    /// A party's share of `m + r_m`, once `w^` is open.
    pub(crate) fn value(
        &self,
        backend: Backend,
        is_server: bool,
        first: &[u32],
        second: &[u32],
        bits: &[Plane],
        shares: &GateShares,
    ) -> Vec<u32> {
        values(backend, u32::from(is_server), first, second, bits, &shares.base, &shares.values)
    }
}

wide! {
    /// Makes the guest's shares of the dealt values of the server's, and turns `base` into the
    /// results' masks. `rhos` lacks the top bit of the difference's mask.
    fn deal_values(bits: u32, masks: PairMasks<'_>, rhos: &[Plane], base: &mut [u32], dealt: &mut [Vec<u32>]) {
        let [rho_share, other] = dealt else { return };
        for (i, base) in base.iter_mut().enumerate() {
            let (a, c) = (masks.first[i], masks.second[i]);
            let r = a.wrapping_sub(c);
            let place = i % GATES;
            let rho = bit(&rhos[i / GATES], place / LANES, place % LANES) ^ (r >> (bits - 1) & 1);
            *base = base.wrapping_add(c).wrapping_add(rho * r);
            rho_share[i] = rho.wrapping_sub(rho_share[i]);
            other[i] = base.wrapping_sub(a).wrapping_add(rho * r).wrapping_sub(other[i]);
        }
    }

    fn values(
        server: u32, first: &[u32], second: &[u32], opened: &[Plane], base: &[u32], dealt: &[Vec<u32>]
    ) -> Vec<u32> {
        let mut out = vec![0; first.len()];
        let [rho, other] = dealt else { return out };
        for (i, out) in out.iter_mut().enumerate() {
            let place = i % GATES;
            let is_first = 0_u32.wrapping_sub(bit(&opened[i / GATES], place / LANES, place % LANES));
            let (a, c) = (first[i], second[i]);
            let product = a.wrapping_sub(c).wrapping_mul(rho[i]);
            let of_first = (server * a).wrapping_sub(product).wrapping_add(other[i]);
            let of_second = (server * c).wrapping_add(product).wrapping_add(base[i]);
            *out = (of_first & is_first) | (of_second & !is_first);
        }
        out
    }
}
