//! Clamps and max gates alike, as a party meets them.

use crate::bits::{Plane, gate_mask, planes_of, xor};
use crate::gates::clamp::Clamp;
use crate::gates::comparison::Comparison;
use crate::gates::maximum::Maximum;
use crate::gates::shares::GateStep;

/// What gates take.
pub(super) enum GateInputs {
    Clamp { sums: Vec<u32> },
    Max { level: usize, first: Vec<u32>, second: Vec<u32>, alone: Vec<u32> },
}

/// Which gate a step has.
pub(super) enum GateKind<'a> {
    Clamp(&'a Clamp),
    Max(&'a Maximum),
}

impl<'a> GateKind<'a> {
    /// How its values are compared.
    pub(super) fn comparison(&self) -> &'a Comparison {
        match self {
            Self::Clamp(gate) => &gate.comparison,
            Self::Max(gate) => &gate.comparison,
        }
    }

    /// Bits of a result's modulus.
    pub(super) fn result_bits(&self) -> u32 {
        match self {
            Self::Clamp(gate) => gate.result_bits,
            Self::Max(gate) => gate.value_bits,
        }
    }

    /// Bits of the dealt values.
    pub(super) fn widths(&self) -> Vec<u32> {
        match self {
            Self::Clamp(gate) => gate.widths().to_vec(),
            Self::Max(gate) => gate.widths().to_vec(),
        }
    }

    /// A step of so many gates.
    pub(super) fn step<'s>(&'s self, step: usize, count: usize, widths: &'s [u32]) -> GateStep<'s> {
        match self {
            Self::Clamp(gate) => gate.step(step, count, widths),
            Self::Max(gate) => gate.step(step, count, widths),
        }
    }

    /// A party's shares of the bits that it opens next.
    pub(super) fn fold(&self, is_server: bool, own: &[Plane], signs: &mut [Plane]) {
        match self {
            Self::Clamp(gate) => gate.fold(is_server, own, signs),
            Self::Max(gate) => gate.fold(is_server, own, signs),
        }
    }
}

impl GateInputs {
    /// Gates.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Clamp { sums } => sums.len(),
            Self::Max { first, .. } => first.len(),
        }
    }
}

/// Planes, `of_block` of them a block, with zeros where there is no gate.
pub(super) fn without_pads(mut planes: Vec<Plane>, of_block: usize, gates: usize) -> Vec<Plane> {
    if let Some(last) = planes.len().checked_sub(of_block) {
        let mask = gate_mask(last / of_block, gates);
        planes[last..].iter_mut().for_each(|p| crate::bits::and(p, &mask));
    }
    planes
}

/// The xor of both parties' planes; the bytes that were expected if there are others, or bits where
/// there is no gate.
pub(super) fn open_planes(
    mut own: Vec<Plane>,
    bytes: &[u8],
    of_block: usize,
    gates: usize,
) -> Result<Vec<Plane>, usize> {
    let expected = own.len() * size_of::<Plane>();
    if bytes.len() != expected {
        return Err(expected);
    }
    let theirs = planes_of(bytes);
    if without_pads(theirs.clone(), of_block, gates) != theirs {
        return Err(expected);
    }
    own.iter_mut().zip(&theirs).for_each(|(a, b)| xor(a, b));
    Ok(own)
}
