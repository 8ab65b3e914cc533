//! What sealing a network row by row looks like: which weights stand in a row, and what hiding it costs.

use std::ops::Range;

use jali_model::QuantModel;
use jali_pack::Costs;
use jali_protocol::Blueprint;

use crate::AuditError;

/// For every linear layer the weights of each row, and what hiding the row costs in bytes on the server.
///
/// # Errors
/// [`AuditError::Protocol`] if a layer cannot be lowered.
#[allow(clippy::type_complexity, reason = "two tables of the same shape")]
pub fn row_savings(model: &QuantModel, costs: &Costs) -> Result<(Vec<Vec<Range<usize>>>, Vec<Vec<f64>>), AuditError> {
    let (mut rows, mut savings) = (vec![], vec![]);
    for (node, linear) in model.graph().linear_nodes() {
        let blueprint = Blueprint::choose(model, node, true, costs)?;
        let counts = blueprint.counts();
        let ranges = blueprint.row_weights(linear);
        let sealed = (counts.tiles * counts.degree * counts.modulus_bits as usize) as f64 / 8.0;
        // An open weight takes a byte.
        savings.push(ranges.iter().map(|r| sealed - r.len() as f64).collect());
        rows.push(ranges);
    }
    Ok((rows, savings))
}
