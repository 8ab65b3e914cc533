//! Writes sealed operators to the server's bundle.
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

use jali_bundle::{BundleWriter, Kind};
use jali_mask::{Parameters, SealedHead, SealedOperator, SealedRow, Tile};
use jali_ring::wire::Writer;

use crate::OperatorError;

pub(crate) const ROW_HIDDEN: u8 = 0;
pub(crate) const ROW_OPEN: u8 = 1;
/// Bytes of a section after which the rows of an operator go on in a new one.
const SECTION_BYTES: usize = 1_000_000;

/// Name of the section that describes all operators.
pub(crate) const OPERATORS: &str = "operators";

/// Returns the name of the section that starts with this row of an operator.
pub(crate) fn rows_section(operator: usize, row: usize) -> String {
    format!("rows {operator} {row}")
}

/// Writes a server's bundle while its rows are being sealed, and holds only one section in memory.
#[derive(Debug)]
pub struct ModelWriter<W: Write> {
    out: BundleWriter<W>,
    operators: Vec<Shape>,
    /// The operator whose rows come next, and how many of them have been written.
    at: (usize, usize),
    /// First row of the section that is being filled, and its bytes so far.
    section: (usize, Writer),
}

/// All that is needed to write an operator's rows.
#[derive(Debug)]
struct Shape {
    parameters: Parameters,
    rows: usize,
}

impl<W: Write> ModelWriter<W> {
    /// Begins the bundle of the model with id `model`: writes what is known of all operators before
    /// their rows, with a flag for each row that says whether it is open.
    ///
    /// # Errors
    /// [`OperatorError::Bundle`] if the sink fails.
    pub fn new(sink: W, model: [u8; 16], operators: &[(SealedHead, Vec<bool>)]) -> Result<Self, OperatorError> {
        let mut out = BundleWriter::new(sink, Kind::Server, model)?;
        let mut w = Writer::new();
        w.u32(operators.len() as u32);
        operators.iter().for_each(|(head, open)| describe(&mut w, head, open));
        out.section(OPERATORS, &w.finish())?;
        let shape =
            |(head, open): &(SealedHead, Vec<bool>)| Shape { parameters: head.parameters.clone(), rows: open.len() };
        Ok(Self { out, operators: operators.iter().map(shape).collect(), at: (0, 0), section: (0, Writer::new()) })
    }

    /// Writes the next rows; those of an operator follow those of the operator before.
    ///
    /// # Errors
    /// [`OperatorError::Bundle`] if the sink fails, [`OperatorError::Rows`] for more rows than all
    /// operators have.
    pub fn rows(&mut self, rows: &[SealedRow]) -> Result<(), OperatorError> {
        for row in rows {
            let (operator, written) = self.at;
            let shape = self.operators.get(operator);
            let shape = shape.ok_or(OperatorError::Rows { operator, rows: written })?;
            encode_row(&mut self.section.1, &shape.parameters, row);
            let last = written + 1 == shape.rows;
            if self.section.1.len() >= SECTION_BYTES || last {
                let bytes = std::mem::take(&mut self.section.1).finish();
                self.out.section(&rows_section(operator, self.section.0), &bytes)?;
                self.section.0 = written + 1;
            }
            self.at = (operator, written + 1);
            if last {
                self.at = (operator + 1, 0);
                self.section.0 = 0;
            }
        }
        Ok(())
    }

    /// Ends the bundle and returns the sink and the content hash, once all rows have been written.
    ///
    /// # Errors
    /// [`OperatorError::Bundle`] if the sink fails, [`OperatorError::Rows`] if rows are missing.
    pub fn finish(self) -> Result<(W, [u8; 32]), OperatorError> {
        if self.at != (self.operators.len(), 0) {
            let (operator, rows) = self.at;
            return Err(OperatorError::Rows { operator, rows });
        }
        Ok(self.out.finish()?)
    }
}

/// Returns everything that the server gets of these operators, in memory.
///
/// # Errors
/// [`OperatorError::Bundle`] never in practice.
pub fn encode_model(model: [u8; 16], operators: &[SealedOperator]) -> Result<Vec<u8>, OperatorError> {
    let head = |operator: &SealedOperator| {
        let open = operator.rows.iter().map(|row| matches!(row, SealedRow::Open(_))).collect();
        (operator.head(), open)
    };
    let mut out = ModelWriter::new(vec![], model, &operators.iter().map(head).collect::<Vec<_>>())?;
    operators.iter().try_for_each(|operator| out.rows(&operator.rows))?;
    Ok(out.finish()?.0)
}

fn describe(w: &mut Writer, head: &SealedHead, open: &[bool]) {
    let literal = head.parameters.literal();
    w.u32(literal.degree as u32);
    w.u8(literal.prime_bits.len() as u8);
    literal.prime_bits.iter().for_each(|&bits| w.u8(bits as u8));
    w.u8(literal.open_primes as u8);
    w.u32(head.shape.tiles as u32);
    w.u32(head.shape.blocks as u32);
    w.u32(open.len() as u32);
    head.wanted.pattern().encode(w);
    w.raw(&head.a_seed);
    open.iter().for_each(|&open| w.u8(if open { ROW_OPEN } else { ROW_HIDDEN }));
}

fn encode_row(w: &mut Writer, parameters: &Parameters, row: &SealedRow) {
    match row {
        SealedRow::Hidden(tiles) => w.polys(parameters.ring(), tiles),
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
