//! Whether an inference equals the integer reference, wire by wire.
//!
//! Whoever knows the masks of a ticket, which is whoever dealt it, can say what every opened value
//! means. A sum is split into two summands, whose dropped bits do not carry; where they would have,
//! the result is one less. So the roundings are the ticket's, and the reference takes them from it.

use jali_model::fixed::FixedNetwork;
use jali_model::fixed::reference::{self, Dropping};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bits::low_mask;
use crate::circuit::{Circuit, StepOp};
use crate::dealer::Masks;
use crate::session::Output;

/// What one party kept of an inference.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Trace {
    /// By step: its whole summands of a layer; behind the last step that of the output.
    pub(crate) summands: Vec<Vec<u32>>,
    /// By value: what both parties know.
    pub(crate) wires: Vec<Vec<u32>>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("wires", &self.wires.len()).finish_non_exhaustive()
    }
}

/// Where an inference and the reference differ first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the step, or `output`.
    pub step: String,
    /// Which number of its result.
    pub place: usize,
}

/// Compares every opened wire and the output of an inference with the reference. Returns the first
/// difference.
///
/// `server` is what [`crate::ServerSession::traced`] kept, `output` the guest's, with what
/// [`crate::GuestStart::traced`] kept.
pub fn difference(
    network: &FixedNetwork,
    circuit: &Circuit,
    masks: &Masks,
    server: &Trace,
    output: &Output,
    input: &[i32],
) -> Option<Difference> {
    let trace = reference::run(network, input, |dropping| rounded(circuit, masks, server, dropping));
    let wires = output.trace.as_ref().map(|t| t.wires.as_slice()).unwrap_or_default();
    for (step, s) in circuit.shared() {
        if matches!(s.op, StepOp::Linear(_)) {
            // A layer's sum is opened by the clamp that takes it.
            continue;
        }
        let (wire, own, mask) = (wires.get(step + 1), &masks.0[step + 1], low_mask(s.bits));
        let is_same = |i: usize, want: i64| {
            let got = wire.and_then(|w| w.get(i)).map(|w| w.wrapping_sub(own[i]) & mask);
            got == Some(want as u32 & mask)
        };
        let differing = trace.values[step].iter().enumerate().find(|(i, want)| !is_same(*i, **want));
        if let Some((place, _)) = differing {
            return Some(Difference { step: s.name.clone(), place });
        }
    }
    let same = |i: usize| output.integers.get(i) == trace.output.get(i);
    let longest = output.integers.len().max(trace.output.len());
    (0..longest).find(|&i| !same(i)).map(|place| Difference { step: "output".into(), place })
}

/// A sum without its lowest bits, as the two summands give it.
fn rounded(circuit: &Circuit, masks: &Masks, server: &Trace, dropping: Dropping) -> i64 {
    let Dropping { step, index, sum, drop } = dropping;
    let is_output = step == circuit.steps.len();
    let is_shared = |s: &crate::circuit::Step| !s.is_clear && matches!(s.op, StepOp::Linear(_));
    if !is_output && !circuit.steps.get(step).is_some_and(is_shared) {
        // In the clear sums are rounded down.
        return sum >> drop;
    }
    // The last layer and the output have no mask: the guest's summand completes them.
    let is_last = is_output || circuit.last_layer() == Some(step);
    let mask = if is_last { 0 } else { i64::from(masks.0[step + 1][index]) };
    let low = |v: i64| v & ((1 << drop) - 1);
    let masked = sum + mask;
    let of_server = server.summands[step].get(index).copied().unwrap_or_default();
    let lost_carry = i64::from(low(i64::from(of_server)) > low(masked));
    (masked >> drop) - lost_carry - (mask >> drop)
}
