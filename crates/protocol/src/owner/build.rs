//! Works out which rows of every linear layer a plan leaves open, and the ring and layout that
//! follow.

use std::ops::Range;

use jali_leak::Plan;
use jali_model::{Linear, QuantModel};
use jali_pack::Costs;
use jali_ring::RowStore;

use super::choose::Blueprint;
use crate::ProtocolError;

/// How a linear layer will be sealed under a plan.
pub(crate) struct PlannedOperator<'a> {
    /// Index of the layer's node in the graph.
    pub(crate) node: usize,
    /// Name of the node.
    pub(crate) name: &'a str,
    pub(crate) linear: Linear<'a>,
    pub(crate) blueprint: Blueprint,
    /// Which of its weights the plan allows to be open.
    pub(crate) allowed: &'a [bool],
    /// The range of weights that each row holds.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Which rows are open: those of which the plan allows every weight.
    pub(crate) open: Vec<bool>,
}

impl<'a> PlannedOperator<'a> {
    /// Plans all linear layers of a network, in the graph's order.
    ///
    /// # Errors
    /// [`ProtocolError::Leak`] for a plan of another network, [`ProtocolError::Layer`] if a layer
    /// cannot be lowered, [`ProtocolError::Mask`] never in practice.
    pub(crate) fn all(model: &'a QuantModel, plan: &'a Plan, costs: &Costs) -> Result<Vec<Self>, ProtocolError> {
        plan.validate(model.graph())?;
        let layers = model.graph().linear_nodes().enumerate();
        layers.map(|(layer, node)| Self::of(model, plan.permissions(layer), node, costs)).collect()
    }

    fn of(
        model: &'a QuantModel,
        allowed: &'a [bool],
        (node, linear): (usize, Linear<'a>),
        costs: &Costs,
    ) -> Result<Self, ProtocolError> {
        let hidden = allowed.contains(&false);
        let mut blueprint = Blueprint::choose(model, node, hidden, costs)?;
        let ranges = blueprint.row_weights(linear);
        let open: Vec<bool> = ranges.iter().map(|range| !allowed[range.clone()].contains(&false)).collect();
        if hidden {
            blueprint = blueprint.with_open_rows(open.iter().filter(|open| **open).count(), costs)?;
        }
        Ok(Self { node, name: &model.graph().nodes()[node].name, linear, blueprint, allowed, ranges, open })
    }

    /// Returns for every row how many primes it is held modulo.
    pub(crate) fn row_limbs(&self) -> Vec<usize> {
        let parameters = &self.blueprint.parameters;
        self.open.iter().map(|&open| parameters.ring_of(open).limbs()).collect()
    }

    /// Returns the bytes of the hints that the client keeps and of the rows' secrets beside them,
    /// as this machine's backend holds them.
    pub(crate) fn hint_bytes(&self) -> usize {
        let secrets = usize::from(self.open.contains(&false));
        RowStore::bytes_needed(self.blueprint.parameters.ring(), &self.row_limbs(), 1 + secrets)
    }
}
