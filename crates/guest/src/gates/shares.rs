//! What a party holds for one step of gates.

use super::comparison::Comparison;
use super::thermometer::deal;
use crate::backend::Backend;
use crate::bits::{Plane, blocks, pack, wipe, xor};
use crate::stream::{Purpose, StreamKey};

/// A party's shares for the gates of one step. The server derives all of them from its key; the
/// guest derives some and reads the others from its ticket.
pub(crate) struct GateShares {
    /// Tables, then derivatives, by block of 512 gates.
    pub(crate) tables: Vec<Plane>,
    /// Masks of opened bits, by block.
    pub(crate) own: Vec<Plane>,
    /// Defines, with the other party's, the mask of the result.
    pub(crate) base: Vec<u32>,
    /// Shares of the values that the dealer computes.
    pub(crate) values: Vec<Vec<u32>>,
}

impl Drop for GateShares {
    fn drop(&mut self) {
        wipe(&mut self.tables);
        wipe(&mut self.own);
        wipe(&mut self.base);
        self.values.iter_mut().for_each(|v| wipe(v));
    }
}

/// One step of gates as far as its shares are concerned.
#[derive(Clone, Copy)]
pub(crate) struct GateStep<'a> {
    /// Which step of the circuit.
    pub(crate) step: usize,
    /// How values are compared.
    pub(crate) comparison: &'a Comparison,
    /// Gates.
    pub(crate) count: usize,
    /// Bits of the results' modulus.
    pub(crate) result_bits: u32,
    /// Bits of the dealt values.
    pub(crate) widths: &'a [u32],
}

impl GateStep<'_> {
    fn blocks(&self) -> usize {
        blocks(self.count)
    }

    /// Planes of the guest's tables and derivatives.
    pub(crate) fn table_planes(&self) -> usize {
        self.blocks() * self.comparison.dealt_planes()
    }

    /// The part that either party derives from its key.
    pub(crate) fn derived(&self, key: &StreamKey) -> GateShares {
        GateShares {
            tables: vec![],
            own: key.planes(self.step, Purpose::OwnBits, self.blocks() * self.comparison.own_planes()),
            base: key.values(self.step, Purpose::Base, self.count, self.result_bits),
            values: vec![],
        }
    }

    /// The server's shares.
    pub(crate) fn of_server(&self, key: &StreamKey) -> GateShares {
        let mut shares = self.derived(key);
        shares.tables = key.planes(self.step, Purpose::Tables, self.table_planes());
        let value = |(i, &bits): (usize, &u32)| match bits {
            0 => vec![0; self.count],
            _ => key.values(self.step, Purpose::Share(i as u8), self.count, bits),
        };
        shares.values = self.widths.iter().enumerate().map(value).collect();
        shares
    }
}

/// Both parties' keys of a ticket: what the dealer draws from.
pub(crate) struct BothKeys<'a> {
    /// The server's.
    pub(crate) server: &'a StreamKey,
    /// The guest's.
    pub(crate) guest: &'a StreamKey,
}

/// What dealing a step of gates starts with.
pub(crate) struct Dealt {
    /// The guest's tables and the server's values; the latter become the guest's.
    pub(crate) shares: GateShares,
    /// What masks the bits that the gate opens after the comparison: the xor of both parties' own
    /// bits and `P(rho)` of the point, a plane for every point of a block.
    pub(crate) final_masks: Vec<Plane>,
    /// `base` of both parties, summed.
    pub(crate) base: Vec<u32>,
}

/// What both parties draw from their keys: all that dealing a step of gates depends on beside the
/// masks.
pub(crate) struct Drawn {
    /// All shares of the server.
    pub(crate) server: GateShares,
    /// What the guest derives.
    pub(crate) guest: GateShares,
}

impl GateStep<'_> {
    /// Draws what dealing needs.
    pub(crate) fn draw(&self, keys: &BothKeys<'_>) -> Drawn {
        Drawn { server: self.of_server(keys.server), guest: self.derived(keys.guest) }
    }

    /// Deals the comparison with these masks.
    pub(crate) fn deal(&self, backend: Backend, drawn: Drawn, masks: &[u32]) -> Dealt {
        let Drawn { server: mut shares, guest } = drawn;
        for (own, other) in shares.own.iter_mut().zip(&guest.own) {
            xor(own, other);
        }
        let mut final_masks = deal(backend, self.comparison, masks, &mut shares.tables, &shares.own);
        let points = self.comparison.points();
        let own = shares.own.chunks_exact(self.comparison.own_planes());
        for (constants, own) in final_masks.chunks_exact_mut(points).zip(own) {
            for (constant, own) in constants.iter_mut().zip(&own[self.comparison.variables..]) {
                xor(constant, own);
            }
        }
        let base = shares.base.iter().zip(&guest.base).map(|(a, b)| a.wrapping_add(*b)).collect();
        Dealt { shares, final_masks, base }
    }
}

/// Appends the guest's tables and values to a ticket; `widths` are the values' bits.
pub(crate) fn append(backend: Backend, shares: &GateShares, widths: &[u32], out: &mut Vec<u8>) {
    out.extend_from_slice(bytemuck::cast_slice(&shares.tables));
    for (values, &bits) in shares.values.iter().zip(widths).filter(|(_, bits)| **bits > 0) {
        pack(backend, values, bits, out);
    }
}
