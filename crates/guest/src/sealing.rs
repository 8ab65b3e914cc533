//! Sealing for guests: what the owner, the server and the guest hold of a network.
//!
//! A hidden row `W` of a layer is sealed as `W~ = W + A` modulo `2^32`, where `A` comes from a
//! seed. The server has `W~`, the guest the seed. Open rows have `A = 0`. The two together are the
//! model: server and guest must not collude.

use jali_leak::Plan;
use jali_model::Graph;
use jali_model::fixed::{FixedLinear, FixedNetwork, FixedOp};

use crate::GuestError;
use crate::circuit::{Circuit, Step, StepOp};
use crate::linear::Matrix;
use crate::stream::{Purpose, StreamKey};

/// Matrices of a circuit's layers, by step.
pub(crate) type Matrices = Vec<Option<Matrix>>;

/// What the server holds of a network: hidden weights masked, open ones as they are.
#[derive(Debug, Clone)]
pub struct ServerModel {
    pub(crate) circuit: Circuit,
    pub(crate) matrices: Matrices,
}

impl ServerModel {
    /// What both parties compute.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }
}

/// What the guest holds of a network: the masks of hidden weights, and the layers that are computed
/// in the clear.
#[derive(Debug, Clone)]
pub struct GuestModel {
    pub(crate) circuit: Circuit,
    /// `-A` of the shared layers; nothing where a layer has no hidden row.
    pub(crate) matrices: Matrices,
    pub(crate) clear: Vec<Option<ClearLayer>>,
}

impl GuestModel {
    /// What both parties compute.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }
}

/// An open layer that the guest computes alone.
#[derive(Debug, Clone)]
pub(crate) struct ClearLayer {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Vec<u32>,
}

/// What the owner deals tickets from: the weights themselves.
#[derive(Clone)]
pub struct OwnerModel {
    pub(crate) circuit: Circuit,
    pub(crate) matrices: Matrices,
    /// Biases of the shared layers, by step and output channel.
    pub(crate) biases: Vec<Vec<u32>>,
}

impl OwnerModel {
    /// What both parties compute.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }
}

impl std::fmt::Debug for OwnerModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnerModel").field("steps", &self.circuit.steps.len()).finish_non_exhaustive()
    }
}

/// A network sealed for guests.
#[derive(Debug, Clone)]
pub struct SealedForGuests {
    /// The server's part.
    pub server: ServerModel,
    /// The guest's part.
    pub guest: GuestModel,
    /// The owner's part.
    pub owner: OwnerModel,
    /// By step: how many weights are hidden, of how many.
    pub weights: Vec<Hidden>,
}

/// How much of a layer is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Weights in hidden rows.
    pub hidden: usize,
    /// Weights of the layer.
    pub of: usize,
}

/// Seals a network. Rows of which the plan allows every weight to be open stay open; a layer that
/// is wholly open, and has none before it that is not, is computed by the guest in the clear.
///
/// # Errors
/// [`GuestError::Plan`] for a plan of another network.
pub fn seal(
    network: &FixedNetwork,
    graph: &Graph,
    plan: &Plan,
    mask: &StreamKey,
) -> Result<SealedForGuests, GuestError> {
    let layers = graph.linear_nodes().count();
    if plan.validate(graph).is_err() {
        return Err(GuestError::Plan { expected: layers, got: layers });
    }
    let open: Vec<bool> = (0..layers).map(|layer| plan.may_open_layer(layer)).collect();
    let circuit = Circuit::new(network, &open);
    let n = circuit.steps.len();
    let (mut server, mut guest, mut owner) = (vec![None; n], vec![None; n], vec![None; n]);
    let (mut clear, mut biases) = (vec![None; n], vec![vec![]; n]);
    let mut counts = vec![Hidden::default(); n];
    for (step, (s, fixed)) in circuit.steps.iter().zip(&network.steps).enumerate() {
        let (StepOp::Linear(_), FixedOp::Linear(linear)) = (&s.op, &fixed.op) else { continue };
        let weights: Vec<u32> = linear.weights.iter().map(|&w| w as u32).collect();
        let bias: Vec<u32> = linear.bias.iter().map(|&b| b as u32).collect();
        let matrix = matrix_of(linear, &weights);
        counts[step] = Hidden { hidden: 0, of: weights.len() };
        if s.is_clear {
            clear[step] = Some(ClearLayer { matrix, bias });
            continue;
        }
        let (masks, hidden) = masks_of(s, step, linear, plan, mask);
        counts[step].hidden = hidden;
        let masked: Vec<u32> = weights.iter().zip(&masks).map(|(w, a)| w.wrapping_add(*a)).collect();
        server[step] = Some(matrix_of(linear, &masked));
        if hidden > 0 {
            let negated: Vec<u32> = masks.iter().map(|a| a.wrapping_neg()).collect();
            guest[step] = Some(matrix_of(linear, &negated));
        }
        (owner[step], biases[step]) = (Some(matrix), bias);
    }
    Ok(SealedForGuests {
        server: ServerModel { circuit: circuit.clone(), matrices: server },
        guest: GuestModel { circuit: circuit.clone(), matrices: guest, clear },
        owner: OwnerModel { circuit, matrices: owner, biases },
        weights: counts,
    })
}

fn matrix_of(linear: &FixedLinear, weights: &[u32]) -> Matrix {
    match linear.op.linear() {
        Some(of) => Matrix::new(of, &linear.input_shape, &linear.output_shape, weights),
        None => unreachable!("a layer of a fixed-point network is linear"),
    }
}

/// `A`, uniform in hidden rows and 0 in open ones, and how many weights are in hidden rows.
fn masks_of(s: &Step, step: usize, linear: &FixedLinear, plan: &Plan, mask: &StreamKey) -> (Vec<u32>, usize) {
    debug_assert!(!s.is_clear);
    let mut masks = mask.words(step, Purpose::Weights, linear.weights.len());
    let fan_in = linear.weights.len() / linear.bias.len().max(1);
    let mut hidden = masks.len();
    for (row, masks) in masks.chunks_mut(fan_in.max(1)).enumerate() {
        let weights = row * fan_in..(row + 1) * fan_in;
        if linear.layer.is_some_and(|layer| plan.may_open(layer, weights)) {
            masks.fill(0);
            hidden -= fan_in;
        }
    }
    (masks, hidden)
}
