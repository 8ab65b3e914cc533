//! Sealed layers to the server's bundle.
//!
//! ```text
//! section "operators" = operators u32 | operator*
//! operator  = degree u32 | limbs u8 | bits of each prime u8* | primes of open rows u8 | tiles of a row u32 | blocks u32 | rows u32 | wanted [28]
//!           | seed of a [32] | kinds of rows u8*
//! sections "rows O R" = rows of operator O from row R on, about a million bytes together
//! row       = tiles x limbs x N packed residues          kind 0: hidden
//!           | tiles x (terms, (index step, value)*)      kind 1: open, varints; values in zigzag form
//! ```

use std::io::Write;

use jali_mask::{SealedLayer, SealedRow, Tile};
use jali_ring::wire::Writer;

use crate::OperatorError;
use crate::container::{BundleWriter, Kind};

pub(crate) const ROW_HIDDEN: u8 = 0;
pub(crate) const ROW_OPEN: u8 = 1;
/// Bytes after which the rows of an operator go on in a new section.
const SECTION_BYTES: usize = 1_000_000;

/// Name of the section that describes all operators.
pub(crate) const OPERATORS: &str = "operators";

/// Name of the section that starts with this row.
pub(crate) fn rows_section(operator: usize, row: usize) -> String {
    format!("rows {operator} {row}")
}

/// A sealed layer as it goes into a bundle: half the memory of its ring elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedLayer {
    description: Vec<u8>,
    /// First row of each section, and the section.
    rows: Vec<(usize, Vec<u8>)>,
}

impl EncodedLayer {
    /// How many bytes it takes in a bundle, headers apart.
    pub fn bytes(&self) -> usize {
        self.description.len() + self.rows.iter().map(|(_, section)| section.len()).sum::<usize>()
    }

    /// Of a sealed layer.
    pub fn of(layer: &SealedLayer) -> Self {
        let mut description = Writer::new();
        describe(&mut description, layer);
        let (mut w, mut first, mut rows) = (Writer::new(), 0, vec![]);
        for (row, sealed) in layer.rows.iter().enumerate() {
            encode_row(&mut w, layer, sealed);
            if w.len() >= SECTION_BYTES || row + 1 == layer.rows.len() {
                let mut section = std::mem::take(&mut w).finish();
                section.shrink_to_fit();
                rows.push((first, section));
                first = row + 1;
            }
        }
        Self { description: description.finish(), rows }
    }

    /// Bytes that it takes in a bundle.
    pub fn len(&self) -> usize {
        self.description.len() + self.rows.iter().map(|(_, r)| r.len()).sum::<usize>()
    }

    /// Never: a layer has rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes everything that the server gets, for all layers of one model. Returns the sink and the content hash.
///
/// # Errors
/// [`OperatorError::Io`] if the sink fails.
pub fn write_model<W: Write>(
    sink: W,
    model: [u8; 16],
    layers: &[EncodedLayer],
) -> Result<(W, [u8; 32]), OperatorError> {
    let mut out = BundleWriter::new(sink, Kind::Server, model)?;
    let mut w = Writer::new();
    w.u32(layers.len() as u32);
    layers.iter().for_each(|layer| w.raw(&layer.description));
    out.section(OPERATORS, &w.finish())?;
    for (operator, layer) in layers.iter().enumerate() {
        for (first, bytes) in &layer.rows {
            out.section(&rows_section(operator, *first), bytes)?;
        }
    }
    out.finish()
}

/// As [`write_model`], into memory.
///
/// # Errors
/// [`OperatorError::Io`] never in practice.
pub fn encode_model(model: [u8; 16], layers: &[SealedLayer]) -> Result<Vec<u8>, OperatorError> {
    let layers: Vec<EncodedLayer> = layers.iter().map(EncodedLayer::of).collect();
    Ok(write_model(vec![], model, &layers)?.0)
}

fn describe(w: &mut Writer, layer: &SealedLayer) {
    let literal = layer.parameters.literal();
    w.u32(literal.degree as u32);
    w.u8(literal.prime_bits.len() as u8);
    literal.prime_bits.iter().for_each(|&bits| w.u8(bits as u8));
    w.u8(literal.open_primes as u8);
    w.u32(layer.tiles as u32);
    w.u32(layer.blocks as u32);
    w.u32(layer.rows.len() as u32);
    layer.wanted.encode(w);
    w.raw(&layer.a_seed);
    for row in &layer.rows {
        w.u8(if matches!(row, SealedRow::Hidden(_)) { ROW_HIDDEN } else { ROW_OPEN });
    }
}

fn encode_row(w: &mut Writer, layer: &SealedLayer, row: &SealedRow) {
    match row {
        SealedRow::Hidden(tiles) => w.polys(layer.parameters.ring(), tiles),
        SealedRow::Open(tiles) => tiles.iter().for_each(|t| encode_tile(w, t)),
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
