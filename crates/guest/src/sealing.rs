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

/// What the owner keeps of a network: its weights, what is hidden of them, and the seed of the
/// masks.
#[derive(Clone)]
pub struct Original {
    network: FixedNetwork,
    rows: HiddenRows,
    mask: StreamKey,
}

impl std::fmt::Debug for Original {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Original").field("steps", &self.network.steps.len()).finish_non_exhaustive()
    }
}

/// Which rows of a network's layers are hidden, by step; public.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HiddenRows(Vec<Vec<bool>>);

impl HiddenRows {
    /// Of a network under a plan: rows of which it allows every weight to be open stay open.
    fn of(network: &FixedNetwork, plan: &Plan) -> Self {
        let rows = network.steps.iter().map(|s| match &s.op {
            FixedOp::Linear(linear) => {
                let (outputs, fan_in) = size_of_rows(linear);
                // Constants between layers are hidden unless everything before them is open.
                let may_open =
                    |row| linear.layer.is_some_and(|layer| plan.may_open(layer, row * fan_in..(row + 1) * fan_in));
                (0..outputs).map(|row| !may_open(row)).collect()
            }
            _ => vec![],
        });
        Self(rows.collect())
    }

    /// As they were stored, by step.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if they are another network's.
    pub fn from_stored(network: &FixedNetwork, rows: Vec<Vec<bool>>) -> Result<Self, GuestError> {
        for (step, s) in network.steps.iter().enumerate() {
            let expected = match &s.op {
                FixedOp::Linear(linear) => size_of_rows(linear).0,
                _ => 0,
            };
            if rows.get(step).map(Vec::len) != Some(expected) {
                return Err(GuestError::Weights { step });
            }
        }
        Ok(Self(rows))
    }

    /// By step: whether each row is hidden.
    pub fn by_step(&self) -> &[Vec<bool>] {
        &self.0
    }

    /// The circuit of a network with these rows.
    pub fn circuit(&self, network: &FixedNetwork) -> Circuit {
        let mut open = vec![];
        for (s, rows) in network.steps.iter().zip(&self.0) {
            if let FixedOp::Linear(FixedLinear { layer: Some(layer), .. }) = &s.op {
                open.resize(open.len().max(layer + 1), false);
                open[*layer] = !rows.contains(&true);
            }
        }
        Circuit::new(network, &open)
    }
}

/// Rows of a layer, and the weights of each.
fn size_of_rows(linear: &FixedLinear) -> (usize, usize) {
    linear.op.linear().map_or((0, 0), |l| (l.outputs(), l.fan_in()))
}

impl Original {
    /// A network under a plan. `mask` is the seed of what hides the weights: whoever has it and the
    /// server's part has the model.
    ///
    /// # Errors
    /// [`GuestError::Plan`] for a plan of another network.
    pub fn new(network: FixedNetwork, graph: &Graph, plan: &Plan, mask: StreamKey) -> Result<Self, GuestError> {
        if plan.validate(graph).is_err() {
            return Err(GuestError::Plan { expected: graph.linear_nodes().count() });
        }
        let rows = HiddenRows::of(&network, plan);
        Self::from_stored(network, rows, mask)
    }

    /// As it was stored; the network has its weights.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if it lacks some.
    pub fn from_stored(network: FixedNetwork, rows: HiddenRows, mask: StreamKey) -> Result<Self, GuestError> {
        for (step, s) in network.steps.iter().enumerate() {
            let FixedOp::Linear(linear) = &s.op else { continue };
            let (outputs, fan_in) = size_of_rows(linear);
            if linear.weights.len() != outputs * fan_in || linear.bias.len() != outputs {
                return Err(GuestError::Weights { step });
            }
        }
        Ok(Self { network, rows, mask })
    }

    /// The network with its weights.
    pub fn network(&self) -> &FixedNetwork {
        &self.network
    }

    /// Which rows are hidden.
    pub fn rows(&self) -> &HiddenRows {
        &self.rows
    }

    /// The seed of the masks.
    pub fn mask(&self) -> &StreamKey {
        &self.mask
    }

    /// What both parties compute.
    pub fn circuit(&self) -> Circuit {
        self.rows.circuit(&self.network)
    }

    /// By step: how many weights are hidden, of how many.
    pub fn weights(&self) -> Vec<Hidden> {
        let circuit = self.circuit();
        let mut weights = vec![Hidden::default(); circuit.steps.len()];
        for (step, s, linear) in self.layers(&circuit) {
            let ((outputs, fan_in), rows) = (size_of_rows(linear), &self.rows.0[step]);
            let hidden = if s.is_clear { 0 } else { rows.iter().filter(|hidden| **hidden).count() };
            weights[step] = Hidden { hidden: fan_in * hidden, of: fan_in * outputs };
        }
        weights
    }

    /// The layers that both parties compute, by step: `W~` as the server has it.
    pub fn masked(&self, circuit: &Circuit) -> Vec<(usize, Vec<u32>)> {
        let layers = self.layers(circuit).filter(|(_, s, _)| !s.is_clear);
        let of = |(step, _, linear): (usize, &Step, &FixedLinear)| {
            let masks = masks_of(step, linear, &self.rows.0[step], &self.mask);
            (step, linear.weights.iter().zip(&masks).map(|(w, a)| (*w as u32).wrapping_add(*a)).collect())
        };
        layers.map(of).collect()
    }

    /// The layers that the guest computes alone, by step: weights and biases.
    pub fn clear(&self, circuit: &Circuit) -> Vec<(usize, Vec<u32>, Vec<u32>)> {
        let layers = self.layers(circuit).filter(|(_, s, _)| s.is_clear);
        layers.map(|(step, _, linear)| (step, words(&linear.weights), bias_words(linear))).collect()
    }

    fn layers<'a>(&'a self, circuit: &'a Circuit) -> impl Iterator<Item = (usize, &'a Step, &'a FixedLinear)> {
        let linear = |((step, s), fixed): ((usize, &'a Step), &'a jali_model::fixed::FixedStep)| match &fixed.op {
            FixedOp::Linear(linear) => Some((step, s, linear)),
            _ => None,
        };
        circuit.steps.iter().enumerate().zip(&self.network.steps).filter_map(linear)
    }

    /// What tickets are dealt from.
    pub fn owner(&self) -> OwnerModel {
        let circuit = self.circuit();
        let n = circuit.steps.len();
        let (mut matrices, mut biases) = (vec![None; n], vec![vec![]; n]);
        for (step, s, linear) in self.layers(&circuit) {
            if !s.is_clear {
                matrices[step] = Some(matrix_of(linear, &words(&linear.weights)));
                biases[step] = bias_words(linear);
            }
        }
        OwnerModel { circuit, matrices, biases }
    }
}

fn words(weights: &[i32]) -> Vec<u32> {
    weights.iter().map(|&w| w as u32).collect()
}

fn bias_words(linear: &FixedLinear) -> Vec<u32> {
    linear.bias.iter().map(|&b| b as u32).collect()
}

impl ServerModel {
    /// A server's part of a network without weights, from `W~` of its shared layers.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if a layer is missing or has another size.
    pub fn new(network: &FixedNetwork, circuit: Circuit, masked: Vec<(usize, Vec<u32>)>) -> Result<Self, GuestError> {
        let mut matrices = vec![None; circuit.steps.len()];
        for (step, weights) in masked {
            let linear = layer_at(network, step).ok_or(GuestError::Weights { step })?;
            let (outputs, fan_in) = size_of_rows(linear);
            if weights.len() != outputs * fan_in || circuit.steps[step].is_clear {
                return Err(GuestError::Weights { step });
            }
            matrices[step] = Some(matrix_of(linear, &weights));
        }
        let is_missing =
            |(step, s): (usize, &Step)| !s.is_clear && matches!(s.op, StepOp::Linear(_)) && matrices[step].is_none();
        match circuit.steps.iter().enumerate().find(|(step, s)| is_missing((*step, s))) {
            Some((step, _)) => Err(GuestError::Weights { step }),
            None => Ok(Self { circuit, matrices }),
        }
    }

    /// Bytes that the masked weights take.
    pub fn memory(&self) -> usize {
        self.matrices.iter().flatten().map(Matrix::bytes).sum()
    }
}

fn layer_at(network: &FixedNetwork, step: usize) -> Option<&FixedLinear> {
    match &network.steps.get(step)?.op {
        FixedOp::Linear(linear) => Some(linear),
        _ => None,
    }
}

impl GuestModel {
    /// A guest's part of a network without weights: from the seed of the masks, the hidden rows,
    /// and weights and biases of the layers that it computes alone.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if such a layer is missing or has another size.
    pub fn new(
        network: &FixedNetwork,
        rows: &HiddenRows,
        mask: &StreamKey,
        open: Vec<(usize, Vec<u32>, Vec<u32>)>,
    ) -> Result<Self, GuestError> {
        let circuit = rows.circuit(network);
        let n = circuit.steps.len();
        let (mut matrices, mut clear) = (vec![None; n], vec![None; n]);
        for (step, weights, bias) in open {
            let linear = layer_at(network, step).ok_or(GuestError::Weights { step })?;
            let (outputs, fan_in) = size_of_rows(linear);
            if weights.len() != outputs * fan_in || bias.len() != outputs {
                return Err(GuestError::Weights { step });
            }
            clear[step] = Some(ClearLayer { matrix: matrix_of(linear, &weights), bias });
        }
        for (step, s) in circuit.steps.iter().enumerate() {
            let Some(linear) = layer_at(network, step) else { continue };
            if s.is_clear {
                if clear[step].is_none() {
                    return Err(GuestError::Weights { step });
                }
            } else if rows.0[step].contains(&true) {
                let masks = masks_of(step, linear, &rows.0[step], mask);
                let negated: Vec<u32> = masks.iter().map(|a| a.wrapping_neg()).collect();
                matrices[step] = Some(matrix_of(linear, &negated));
            }
        }
        Ok(Self { circuit, matrices, clear })
    }
}

/// Seals a network for all three parties. Rows of which the plan allows every weight to be open
/// stay open; a layer that is wholly open, and has none before it that is not, is computed by the
/// guest in the clear.
///
/// # Errors
/// [`GuestError::Plan`] for a plan of another network.
pub fn seal(
    network: &FixedNetwork,
    graph: &Graph,
    plan: &Plan,
    mask: &StreamKey,
) -> Result<SealedForGuests, GuestError> {
    let original = Original::new(network.clone(), graph, plan, mask.clone())?;
    let circuit = original.circuit();
    let (masked, clear) = (original.masked(&circuit), original.clear(&circuit));
    Ok(SealedForGuests {
        server: ServerModel::new(network, circuit, masked)?,
        guest: GuestModel::new(network, &original.rows, mask, clear)?,
        owner: original.owner(),
        weights: original.weights(),
    })
}

fn matrix_of(linear: &FixedLinear, weights: &[u32]) -> Matrix {
    match linear.op.linear() {
        Some(of) => Matrix::new(of, &linear.input_shape, &linear.output_shape, weights),
        None => unreachable!("a layer of a fixed-point network is linear"),
    }
}

/// `A`: uniform in hidden rows, 0 in open ones.
fn masks_of(step: usize, linear: &FixedLinear, hidden: &[bool], mask: &StreamKey) -> Vec<u32> {
    let (outputs, fan_in) = size_of_rows(linear);
    let mut masks = mask.words(step, Purpose::Weights, outputs * fan_in);
    for (masks, hidden) in masks.chunks_mut(fan_in.max(1)).zip(hidden) {
        if !hidden {
            masks.fill(0);
        }
    }
    masks
}
