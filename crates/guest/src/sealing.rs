//! Sealing for guests: what the owner, the server and the guest hold of a network.
//!
//! A hidden row `W` of a layer is sealed as `W~ = W + A` modulo `2^32`, where `A` comes from a
//! seed. The server has `W~`, the guest the seed. Open rows have `A = 0`. The two together are the
//! model: server and guest must not collude.

use jali_leak::Plan;
use jali_model::Graph;
use jali_model::fixed::{FixedLinear, FixedNetwork};

use crate::GuestError;
use crate::circuit::{Circuit, Step, StepOp};
use crate::linear::Matrix;
use crate::setup::{Hidden, Setup, Tables};
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

/// What the owner keeps of a network: its weights, what is hidden of them, and the seed of the
/// masks.
#[derive(Clone)]
pub struct Original {
    network: FixedNetwork,
    setup: Setup,
    mask: StreamKey,
}

impl std::fmt::Debug for Original {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Original").field("steps", &self.network.steps.len()).finish_non_exhaustive()
    }
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
        let setup = Setup::of(&network, plan, Tables::default());
        Self::from_stored(network, setup, mask)
    }

    /// As it was stored; the network has its weights.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if it lacks some.
    pub fn from_stored(network: FixedNetwork, setup: Setup, mask: StreamKey) -> Result<Self, GuestError> {
        for step in 0..network.steps.len() {
            let Some(linear) = network.layer(step) else { continue };
            let (outputs, fan_in) = linear.size();
            if linear.weights.len() != outputs * fan_in || linear.bias.len() != outputs {
                return Err(GuestError::Weights { step });
            }
        }
        Ok(Self { network, setup, mask })
    }

    /// The network with its weights.
    pub fn network(&self) -> &FixedNetwork {
        &self.network
    }

    /// Deals other tables from now on.
    #[must_use]
    pub fn with_tables(self, tables: Tables) -> Self {
        Self { setup: self.setup.with(tables), ..self }
    }

    /// What is public about how it is shared.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The seed of the masks.
    pub fn mask(&self) -> &StreamKey {
        &self.mask
    }

    /// What both parties compute.
    pub fn circuit(&self) -> Circuit {
        self.setup.circuit(&self.network)
    }

    /// By step: how many weights are hidden, of how many.
    pub fn weights(&self) -> Vec<Hidden> {
        let circuit = self.circuit();
        let mut weights = vec![Hidden::default(); circuit.steps.len()];
        for (step, s, linear) in self.layers(&circuit) {
            let ((outputs, fan_in), rows) = (linear.size(), &self.setup.rows()[step]);
            let hidden = if s.is_clear { 0 } else { rows.iter().filter(|hidden| **hidden).count() };
            weights[step] = Hidden { hidden: fan_in * hidden, of: fan_in * outputs };
        }
        weights
    }

    /// The layers that both parties compute, by step: `W~` as the server has it.
    pub fn masked(&self, circuit: &Circuit) -> Vec<(usize, Vec<u32>)> {
        let layers = self.layers(circuit).filter(|(_, s, _)| !s.is_clear);
        let of = |(step, _, linear): (usize, &Step, &FixedLinear)| {
            let masks = masks_of(step, linear, &self.setup.rows()[step], &self.mask);
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
        let steps = circuit.steps.iter().enumerate();
        steps.filter_map(|(step, s)| Some((step, s, self.network.layer(step)?)))
    }

    /// What all three parties hold.
    ///
    /// # Errors
    /// [`GuestError::Weights`] never in practice: the weights were checked.
    pub fn seal(&self) -> Result<SealedForGuests, GuestError> {
        let circuit = self.circuit();
        let (masked, clear) = (self.masked(&circuit), self.clear(&circuit));
        Ok(SealedForGuests {
            server: ServerModel::new(&self.network, circuit, masked)?,
            guest: GuestModel::new(&self.network, &self.setup, &self.mask, clear)?,
            owner: self.owner(),
            weights: self.weights(),
        })
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
            let linear = network.layer(step).ok_or(GuestError::Weights { step })?;
            let (outputs, fan_in) = linear.size();
            if weights.len() != outputs * fan_in || circuit.steps[step].is_clear {
                return Err(GuestError::Weights { step });
            }
            matrices[step] = Some(matrix_of(linear, &weights).shared());
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

impl GuestModel {
    /// A guest's part of a network without weights: from the seed of the masks, the hidden rows,
    /// and weights and biases of the layers that it computes alone.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if such a layer is missing or has another size.
    pub fn new(
        network: &FixedNetwork,
        setup: &Setup,
        mask: &StreamKey,
        open: Vec<(usize, Vec<u32>, Vec<u32>)>,
    ) -> Result<Self, GuestError> {
        let circuit = setup.circuit(network);
        let n = circuit.steps.len();
        let (mut matrices, mut clear) = (vec![None; n], vec![None; n]);
        for (step, weights, bias) in open {
            let linear = network.layer(step).ok_or(GuestError::Weights { step })?;
            let (outputs, fan_in) = linear.size();
            if weights.len() != outputs * fan_in || bias.len() != outputs {
                return Err(GuestError::Weights { step });
            }
            let range = linear.input.checked_sub(1).map_or(network.input.range, |step| network.steps[step].range);
            let matrix = match linear.op.linear() {
                Some(of) => {
                    Matrix::in_the_clear(of, &linear.input_shape, &linear.output_shape, &weights, (linear.bits, range))
                }
                None => matrix_of(linear, &weights),
            };
            clear[step] = Some(ClearLayer { matrix, bias });
        }
        for (step, s) in circuit.steps.iter().enumerate() {
            let Some(linear) = network.layer(step) else { continue };
            if s.is_clear {
                if clear[step].is_none() {
                    return Err(GuestError::Weights { step });
                }
            } else if setup.rows()[step].contains(&true) {
                let masks = masks_of(step, linear, &setup.rows()[step], mask);
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
    Original::new(network.clone(), graph, plan, mask.clone())?.seal()
}

fn matrix_of(linear: &FixedLinear, weights: &[u32]) -> Matrix {
    match linear.op.linear() {
        Some(of) => Matrix::new(of, &linear.input_shape, &linear.output_shape, weights, linear.bits),
        None => unreachable!("a layer of a fixed-point network is linear"),
    }
}

/// `A`: uniform in hidden rows, 0 in open ones.
fn masks_of(step: usize, linear: &FixedLinear, hidden: &[bool], mask: &StreamKey) -> Vec<u32> {
    let (outputs, fan_in) = linear.size();
    let mut masks = mask.words(step, Purpose::Weights, outputs * fan_in);
    for (masks, hidden) in masks.chunks_mut(fan_in.max(1)).zip(hidden) {
        if !hidden {
            masks.fill(0);
        }
    }
    masks
}
