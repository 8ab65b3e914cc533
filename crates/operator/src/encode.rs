//! Sealed layers to bytes.
//!
//! ```text
//! "JALIMODL" | version u8 | model id [16] | operators u32 | operator*
//! operator = degree u32 | limbs u8 | bits of each prime u8* | primes of open rows u8 | tiles u32 | rows u32 | wanted [28]
//!          | kinds of rows u8* | row*
//! row      = tiles x limbs x N packed residues          kind 0: hidden
//!          | tiles x (terms, (index step, value)*)      kind 1: open, varints; values in zigzag form
//! ```

use jali_mask::{SealedLayer, SealedRow, Tile};
use jali_ring::wire::Writer;

/// First bytes of a sealed model.
pub const MAGIC: [u8; 8] = *b"JALIMODL";
/// Version that this build writes and reads.
pub const VERSION: u8 = 3;

pub(crate) const ROW_HIDDEN: u8 = 0;
pub(crate) const ROW_OPEN: u8 = 1;

/// Everything that the server gets, for all layers of one model.
pub fn encode_model(model: [u8; 16], layers: &[SealedLayer]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&MAGIC);
    w.u8(VERSION);
    w.raw(&model);
    w.u32(layers.len() as u32);
    layers.iter().for_each(|layer| encode_operator(&mut w, layer));
    w.finish()
}

fn encode_operator(w: &mut Writer, layer: &SealedLayer) {
    let ring = layer.parameters.ring();
    w.u32(ring.degree() as u32);
    w.u8(ring.limbs() as u8);
    layer.parameters.literal().prime_bits.iter().for_each(|&bits| w.u8(bits as u8));
    w.u8(layer.parameters.literal().open_primes as u8);
    w.u32(layer.tiles as u32);
    w.u32(layer.rows.len() as u32);
    layer.wanted.encode(w);
    for row in &layer.rows {
        w.u8(if matches!(row, SealedRow::Hidden(_)) { ROW_HIDDEN } else { ROW_OPEN });
    }
    for row in &layer.rows {
        match row {
            SealedRow::Hidden(tiles) => tiles.iter().for_each(|p| w.poly(ring, p)),
            SealedRow::Open(tiles) => tiles.iter().for_each(|t| encode_tile(w, t)),
        }
    }
}

fn encode_tile(w: &mut Writer, tile: &Tile) {
    w.varint(tile.len() as u64);
    let mut next = 0;
    for &(index, value) in tile {
        w.varint(u64::from(index - next));
        w.varint(u64::from(((value << 1) ^ (value >> 31)) as u32));
        next = index + 1;
    }
}
