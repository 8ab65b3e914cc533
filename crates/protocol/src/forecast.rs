//! Forecasts what a plan opens, saves and costs without sealing anything, by the choices that
//! [`crate::Owner`] makes.

use jali_leak::Plan;
use jali_model::QuantModel;
use jali_pack::{Costs, OperatorCounts, Prediction};
use jali_ring::ring::TABLE_BYTES;
use jali_ring::{MaskVectors, Ring, RowStore};

use crate::ProtocolError;
use crate::owner::Blueprint;
use crate::owner::build::PlannedOperator;

/// One operator under a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorForecast {
    /// Node name.
    pub name: String,
    /// `conv3x3`, `fc`.
    pub kind: String,
    /// Weights of the layer.
    pub weights: usize,
    /// How many of these the plan allows to be open.
    pub weights_allowed: usize,
    /// How many sealing will open: those in rows of which the plan allows every weight.
    pub weights_open: usize,
    /// Index of the node in the graph.
    pub node: usize,
    /// Sizes of the primes, in bits.
    pub prime_bits: Vec<u32>,
    /// Words for what a tile and a row hold.
    pub layout: String,
    /// Counts that the cost follows from.
    pub counts: OperatorCounts,
    /// Bytes of the server's memory while it serves.
    pub server_memory: usize,
    /// Bytes of the client's memory: hints and secrets of the rows, check vectors, the public
    /// vector.
    pub client_memory: usize,
    /// Bytes of the key without hints: what the owner holds of an operator that has been sealed to
    /// be stored.
    pub key_memory: usize,
    /// Bytes more while the operator is being sealed: the public vector and the check vectors.
    pub vector_memory: usize,
    /// Bytes of the rows that are sealed together, before the key is made.
    pub row_memory: usize,
    /// Bytes of the tables of the operator's ring.
    pub ring_memory: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// How many of these will be open.
    pub rows_open: usize,
    /// Ring elements of the matrix in hidden and in open rows.
    pub tiles: [usize; 2],
    /// Products of ring elements modulo one prime that the server computes for an image.
    pub products: usize,
    /// Bytes of the matrix on the server.
    pub bytes: usize,
    /// Expected times for an image.
    pub prediction: Prediction,
}

/// Bytes of keys, digests and norms that a row takes.
const KEY_BYTES: usize = 200;

/// Returns the bytes of the rows that are sealed together, with one of them packed and a section
/// that is being filled.
fn row_memory(ring: &Ring, counts: &OperatorCounts) -> usize {
    let row = 8 * ring.limbs() * ring.degree() * counts.row_tiles;
    let rows = jali_mask::rows_together(ring, counts.row_tiles, counts.rows);
    rows * row + counts.hidden_bytes(1) + SECTION
}

/// Most bytes of a section with rows, its last row left out.
const SECTION: usize = 1 << 20;

/// Forecasts all operators of a network under a plan, in the order of its linear layers.
///
/// # Errors
/// [`ProtocolError::Leak`] for a plan of another network, [`ProtocolError::Layer`] if a layer
/// cannot be lowered. Too much noise is not found out: that needs the weights.
pub fn forecast(model: &QuantModel, plan: &Plan, costs: &Costs) -> Result<Vec<OperatorForecast>, ProtocolError> {
    let operator = |operator: PlannedOperator<'_>| {
        let (hint_bytes, limbs) = (operator.hint_bytes(), operator.row_limbs());
        let PlannedOperator { node, name, linear, blueprint, allowed, ranges, open } = operator;
        let counts = blueprint.counts();
        let rows_open = open.iter().filter(|o| **o).count();
        let hidden_rows = counts.rows - rows_open;
        let weights_open = ranges.iter().zip(&open).filter(|(_, o)| **o).map(|(r, _)| r.len()).sum();
        let ring = blueprint.parameters.ring();
        let vectors = MaskVectors::bytes_needed(ring, counts.row_tiles, counts.tiles);
        OperatorForecast {
            node,
            prime_bits: blueprint.parameters.literal().prime_bits.clone(),
            layout: blueprint.layout.describe(),
            counts,
            server_memory: RowStore::bytes_needed(ring, &limbs, counts.row_tiles),
            // Hints and secrets of the rows, and for every tile an element of the public vector and
            // of both check vectors.
            client_memory: hint_bytes + vectors,
            key_memory: vectors + KEY_BYTES * counts.rows,
            vector_memory: 3 * counts.tiles * 8 * ring.limbs() * ring.degree(),
            row_memory: row_memory(ring, &counts),
            ring_memory: ring.limbs() * ring.degree() * TABLE_BYTES,
            name: name.into(),
            kind: linear.kind(),
            weights: allowed.len(),
            weights_allowed: allowed.iter().filter(|a| **a).count(),
            weights_open,
            rows: counts.rows,
            rows_open,
            tiles: [counts.row_tiles * hidden_rows, counts.row_tiles * rows_open],
            products: counts.products(),
            // Hidden coefficients as residues, open weights as a byte each.
            bytes: counts.hidden_bytes(hidden_rows) + weights_open,
            prediction: blueprint.prediction,
        }
    };
    Ok(PlannedOperator::all(model, plan, costs)?.into_iter().map(operator).collect())
}

/// Returns what hiding each row costs, in bytes on the server, as `[layer][row]`: for the policy
/// that opens first what saves most.
///
/// # Errors
/// [`ProtocolError::Layer`] if a layer cannot be lowered.
pub fn row_savings(model: &QuantModel, costs: &Costs) -> Result<Vec<Vec<f64>>, ProtocolError> {
    let layer = |(node, linear)| {
        let blueprint = Blueprint::choose(model, node, true, costs)?;
        let counts = blueprint.counts();
        let sealed = counts.hidden_bytes(1) as f64;
        // An open weight takes a byte.
        Ok(blueprint.row_weights(linear).iter().map(|r| sealed - r.len() as f64).collect())
    };
    model.graph().linear_nodes().map(layer).collect()
}
