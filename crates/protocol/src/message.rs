//! Messages between client and server: one request and one answer for each operator, and the hints.
//!
//! ```text
//! request = "JQ" | version u8 | model id [16] | operator u32 | inputs u32 | inputs x tiles x limbs x N packed residues
//! answer  = "JA" | version u8 | operator u32 | inputs u32 | inputs x rows x limbs of the row x wanted packed residues
//! refusal = "JR" | version u8 | code u8
//! hints   = "JH" | version u8 | operator u32 | rows x limbs of the row x N packed residues
//! ```
//!
//! Every image of a batch is one input of the operator's matrix, or as many inputs as its layout
//! has strips: the server sees no difference.
//!
//! Lengths follow from the operator, which both sides know, and the number of inputs. No message
//! can make a server allocate more than the message's own bytes and 4 GiB for inputs and answers.

use std::sync::Arc;

use jali_mask::{Answer, AnswerForm};
use jali_operator::{Operator, OperatorError, ServerModel};
use jali_ring::wire::{Reader, Writer, poly_len, rows_len};
use jali_ring::{Ntt, Poly, Ring, RingError};
use rayon::prelude::*;

/// Most bytes before the residues.
const HEADER: usize = 32;
/// Version of all messages.
pub const VERSION: u8 = 6;
const REQUEST: [u8; 2] = *b"JQ";
const ANSWER: [u8; 2] = *b"JA";
const REFUSAL: [u8; 2] = *b"JR";
const HINTS: [u8; 2] = *b"JH";

/// Why a server did not answer. It learns nothing that was not in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The server holds another model, or none.
    UnknownModel,
    /// The model has no such operator.
    UnknownOperator,
    /// The bytes do not have the operator's form.
    Malformed,
    /// A batch of this size would take too much memory.
    TooLarge,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownModel => "it holds another model",
            Self::UnknownOperator => "it has no such operator",
            Self::Malformed => "it could not read the request",
            Self::TooLarge => "the batch is too large for it: send fewer images at once",
        })
    }
}

/// Most inputs of one request.
pub const MAX_IMAGES: usize = 4096;
/// Most bytes of memory that a request's inputs and answers may take on the server: 4 GiB.
const MAX_BATCH_BYTES: u64 = 1 << 32;

/// Encodes a request to apply an operator of a model to a batch: the masked tiles of every input,
/// which are elements of `ring`.
pub fn encode_request<X: AsRef<[Poly<Ntt>]>>(model: [u8; 16], operator: u32, ring: &Ring, batch: &[X]) -> Vec<u8> {
    let elements: usize = batch.iter().map(|masked| masked.as_ref().len()).sum();
    let mut w = Writer::with_capacity(HEADER + elements * poly_len(ring));
    w.raw(&REQUEST);
    w.u8(VERSION);
    w.raw(&model);
    w.u32(operator);
    w.u32(batch.len() as u32);
    w.polys(ring, batch.iter().flat_map(AsRef::as_ref));
    w.finish()
}

/// Returns the operator that a request names, whatever else it holds.
pub fn operator_of(bytes: &[u8]) -> Option<usize> {
    let mut r = Reader::new(bytes);
    header(&mut r, REQUEST).ok()?;
    r.array::<16>().ok()?;
    Some(r.u32().ok()? as usize)
}

/// A request as the server reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'b> {
    /// Index of the operator.
    pub operator: usize,
    /// Number of inputs.
    pub images: usize,
    /// Their packed tiles, of the right length.
    pub inputs: &'b [u8],
}

/// Reads a request against the server's model.
///
/// # Errors
/// The [`Refusal`] to answer with: another model, no such operator, bytes of another form, or too
/// large a batch.
pub fn decode_request<'b>(bytes: &'b [u8], model: &ServerModel) -> Result<Asked<'b>, Refusal> {
    let malformed = |_: RingError| Refusal::Malformed;
    let mut r = Reader::new(bytes);
    header(&mut r, REQUEST).map_err(malformed)?;
    if r.array::<16>().map_err(malformed)? != model.id() {
        return Err(Refusal::UnknownModel);
    }
    let index = r.u32().map_err(malformed)? as usize;
    let operator = model.operators().get(index).ok_or(Refusal::UnknownOperator)?;
    let images = r.count(MAX_IMAGES, "images of a request").map_err(malformed)?;
    if operator.work_bytes(images) as u64 > MAX_BATCH_BYTES {
        return Err(Refusal::TooLarge);
    }
    // All lengths are known now: they are compared before inputs are read or memory is asked for.
    let inputs = r.raw(r.remaining()).map_err(malformed)?;
    if inputs.len() != images * operator.tiles() * poly_len(operator.ring()) {
        return Err(Refusal::Malformed);
    }
    Ok(Asked { operator: index, images, inputs })
}

/// Encodes the answers of an operator to a batch of packed inputs.
///
/// # Errors
/// [`Refusal::Malformed`] for inputs whose residues are not below their primes.
pub fn encode_answer(asked: &Asked<'_>, operator: &Operator) -> Result<Vec<u8>, Refusal> {
    let Asked { operator: index, images, inputs } = *asked;
    let len = images.saturating_mul(operator.rows_len());
    let mut w = Writer::with_capacity(len.saturating_add(HEADER));
    w.raw(&ANSWER);
    w.u8(VERSION);
    w.u32(index as u32);
    w.u32(images as u32);
    operator.answer(inputs, images, w.space(len)).map_err(|_| Refusal::Malformed)?;
    Ok(w.finish())
}

/// Encodes a refusal.
pub fn encode_refusal(refusal: Refusal) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&REFUSAL);
    w.u8(VERSION);
    w.u8(refusal as u8);
    w.finish()
}

/// Returns the refusal that these bytes hold, or `None` if they hold none.
pub fn decode_refusal(bytes: &[u8]) -> Option<Refusal> {
    let mut r = Reader::new(bytes);
    header(&mut r, REFUSAL).ok()?;
    let code = r.u8().ok()?;
    r.finish().ok()?;
    [Refusal::UnknownModel, Refusal::UnknownOperator, Refusal::Malformed, Refusal::TooLarge]
        .into_iter()
        .find(|&c| c as u8 == code)
}

/// Reads the answers to a batch of `images` inputs, with the `form` that the `operator` of this
/// `ring` gives them. Returns `None` for anything but well-formed answers of the expected shape
/// with residues below their primes.
pub fn decode_answer(
    bytes: &[u8],
    operator: u32,
    ring: &Ring,
    form: &Arc<AnswerForm>,
    images: usize,
) -> Option<Vec<Answer>> {
    let mut r = Reader::new(bytes);
    header(&mut r, ANSWER).ok()?;
    if r.u32().ok()? != operator || r.u32().ok()? as usize != images {
        return None;
    }
    let len = rows_len(ring.moduli(), form.limbs(), form.count());
    if images == 0 || r.remaining() != len * images {
        return None;
    }
    let one = |bytes: &[u8]| Answer::decode(ring, form, bytes).ok();
    r.raw(len * images).ok()?.par_chunks_exact(len).map(one).collect()
}

/// Returns the bytes of a message with hints, at most; `limbs` says for every row how many primes
/// it is held modulo.
pub fn hints_len(ring: &Ring, limbs: &[usize]) -> usize {
    rows_len(ring.moduli(), limbs, ring.degree()).saturating_add(HEADER)
}

/// Returns the bytes of a message with the answers to a batch, at most.
pub fn answer_len(ring: &Ring, form: &AnswerForm, images: usize) -> usize {
    let len = rows_len(ring.moduli(), form.limbs(), form.count());
    len.saturating_mul(images).saturating_add(HEADER)
}

/// Encodes the hints of an operator, row by row.
///
/// # Errors
/// [`OperatorError::Ring`] never in practice.
pub fn encode_hints(index: u32, operator: &Operator) -> Result<Vec<u8>, OperatorError> {
    let mut w = Writer::with_capacity(HEADER + operator.hints_len());
    w.raw(&HINTS);
    w.u8(VERSION);
    w.u32(index);
    operator.hints(w.space(operator.hints_len()))?;
    Ok(w.finish())
}

/// Returns the packed hints in a message, or `None` for bytes of another form; `limbs` says for
/// every row how many primes it is held modulo. The residues are not read yet: whoever checks the
/// hints does that.
pub fn decode_hints<'b>(bytes: &'b [u8], operator: u32, ring: &Ring, limbs: &[usize]) -> Option<&'b [u8]> {
    let mut r = Reader::new(bytes);
    header(&mut r, HINTS).ok()?;
    if r.u32().ok()? != operator || r.remaining() != rows_len(ring.moduli(), limbs, ring.degree()) {
        return None;
    }
    r.raw(r.remaining()).ok()
}

fn header(r: &mut Reader<'_>, kind: [u8; 2]) -> Result<(), RingError> {
    if r.array::<2>()? != kind || r.u8()? != VERSION {
        return Err(r.malformed("kind or version of a message"));
    }
    Ok(())
}
