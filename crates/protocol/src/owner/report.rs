//! Reports what sealing did to one linear layer.

use jali_mask::{NoiseReport, OperatorKey};
use jali_pack::{OperatorCounts, Prediction};

use super::build::PlannedOperator;

/// What sealing made of one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorReport {
    /// Name of the layer's node.
    pub name: String,
    /// `conv3x3`, `fc`.
    pub kind: String,
    /// `N`.
    pub ring_degree: usize,
    /// Size of every prime, in bits.
    pub primes_bits: Vec<u32>,
    /// Ring elements of a row.
    pub tiles: usize,
    /// Blocks of the matrix, each with tiles of its own.
    pub blocks: usize,
    /// Inputs of the matrix that one image becomes.
    pub strips: usize,
    /// Rows of the matrix, all blocks together.
    pub rows: usize,
    /// How many of these are computed modulo the first prime alone: open rows of a layer that has
    /// hidden ones.
    pub short_rows: usize,
    /// Weights of the layer.
    pub weights: usize,
    /// How many of them are sealed.
    pub weights_hidden: usize,
    /// How many of these the plan would have allowed to be open.
    pub weights_allowed_but_hidden: usize,
    /// The noise bound and the room for it.
    pub noise: NoiseReport,
    /// Words for what a tile and a row hold.
    pub layout: String,
    /// Counts that the operator's cost follows from.
    pub counts: OperatorCounts,
    /// Times that the costs expect for one image.
    pub prediction: Prediction,
}

impl OperatorReport {
    pub(super) fn of(operator: &PlannedOperator<'_>, key: &OperatorKey) -> Self {
        let (blueprint, layout) = (&operator.blueprint, &operator.blueprint.layout);
        let counts = blueprint.counts();
        let rows = operator.ranges.iter().zip(&operator.open);
        let sealed = || rows.clone().filter(|(_, open)| !**open).flat_map(|(range, _)| range.clone());
        Self {
            name: operator.name.into(),
            kind: operator.linear.kind(),
            ring_degree: blueprint.parameters.ring().degree(),
            primes_bits: blueprint.parameters.literal().prime_bits.clone(),
            tiles: layout.row_tiles(),
            blocks: layout.blocks(),
            strips: layout.strips(),
            rows: layout.rows(),
            short_rows: counts.short_rows,
            weights: operator.allowed.len(),
            weights_hidden: sealed().count(),
            weights_allowed_but_hidden: sealed().filter(|&weight| operator.allowed[weight]).count(),
            noise: key.noise(),
            layout: layout.describe(),
            counts,
            prediction: blueprint.prediction,
        }
    }
}
