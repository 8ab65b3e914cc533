//! What travels: one request and one answer per linear layer.
//!
//! ```text
//! request = "JQ" | version u8 | model id [16] | operator u32 | tiles x limbs x N packed residues
//! answer  = "JA" | version u8 | operator u32 | rows x limbs x wanted packed residues
//! refusal = "JR" | version u8 | code u8
//! ```
//!
//! Lengths follow from the operator, which both sides know; nothing in a message can make a reader allocate more than
//! the operator's own size.

use jali_mask::{Answer, Wanted};
use jali_operator::ServerModel;
use jali_ring::wire::{Reader, Writer, packed_len};
use jali_ring::{Ntt, Poly, Ring, RingError};

/// Version of all messages.
pub const VERSION: u8 = 2;
const REQUEST: [u8; 2] = *b"JQ";
const ANSWER: [u8; 2] = *b"JA";
const REFUSAL: [u8; 2] = *b"JR";

/// Why a server did not answer. It learns nothing that was not in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another model, or none.
    UnknownModel,
    /// No such operator.
    UnknownOperator,
    /// The bytes do not have the operator's form.
    Malformed,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownModel => "it holds another model",
            Self::UnknownOperator => "it has no such operator",
            Self::Malformed => "it could not read the request",
        })
    }
}

/// Encodes a request.
pub fn encode_request(model: [u8; 16], operator: u32, ring: &Ring, masked: &[Poly<Ntt>]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&REQUEST);
    w.u8(VERSION);
    w.raw(&model);
    w.u32(operator);
    w.polys(ring, masked);
    w.finish()
}

/// Reads a request against the server's model.
///
/// # Errors
/// [`Refusal`].
pub fn decode_request(bytes: &[u8], model: &ServerModel) -> Result<(usize, Vec<Poly<Ntt>>), Refusal> {
    let malformed = |_: RingError| Refusal::Malformed;
    let mut r = Reader::new(bytes);
    header(&mut r, REQUEST).map_err(malformed)?;
    if r.array::<16>().map_err(malformed)? != model.id() {
        return Err(Refusal::UnknownModel);
    }
    let index = r.u32().map_err(malformed)? as usize;
    let operator = model.operators().get(index).ok_or(Refusal::UnknownOperator)?;
    let tiles = r.polys(operator.ring(), operator.tiles()).map_err(malformed)?;
    r.finish().map_err(malformed)?;
    Ok((index, tiles))
}

/// Encodes an answer.
pub fn encode_answer(operator: u32, ring: &Ring, answer: &Answer) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&ANSWER);
    w.u8(VERSION);
    w.u32(operator);
    w.residue_runs(ring.moduli(), answer.wanted(), answer.residues());
    w.finish()
}

/// Encodes a refusal.
pub fn encode_refusal(refusal: Refusal) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&REFUSAL);
    w.u8(VERSION);
    w.u8(refusal as u8);
    w.finish()
}

/// The refusal that these bytes hold, if they do.
pub fn decode_refusal(bytes: &[u8]) -> Option<Refusal> {
    let mut r = Reader::new(bytes);
    header(&mut r, REFUSAL).ok()?;
    let code = r.u8().ok()?;
    r.finish().ok()?;
    [Refusal::UnknownModel, Refusal::UnknownOperator, Refusal::Malformed].into_iter().find(|&c| c as u8 == code)
}

/// Reads an answer; `None` for anything but a well-formed answer of the expected shape with residues below their
/// primes.
pub fn decode_answer(bytes: &[u8], operator: u32, ring: &Ring, wanted: &Wanted, rows: usize) -> Option<Answer> {
    let mut r = Reader::new(bytes);
    header(&mut r, ANSWER).ok()?;
    if r.u32().ok()? != operator {
        return None;
    }
    let row_bytes: usize = ring.moduli().iter().map(|m| packed_len(m, wanted.count())).sum();
    if r.remaining() != row_bytes * rows {
        return None;
    }
    let mut residues = vec![0; rows * ring.limbs() * wanted.count()];
    r.residue_runs(ring.moduli(), wanted.count(), &mut residues).ok()?;
    r.finish().ok()?;
    Answer::new(ring, wanted, rows, residues).ok()
}

fn header(r: &mut Reader<'_>, kind: [u8; 2]) -> Result<(), RingError> {
    if r.array::<2>()? != kind || r.u8()? != VERSION {
        return Err(r.malformed("kind or version of a message"));
    }
    Ok(())
}
