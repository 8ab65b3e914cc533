//! Everything that a finished (or half-finished) run says: for the terminal, for JSON and for the
//! report.

use jali::parts::guest::Counts;
use jali_protocol::OperatorForecast;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::cost::Pricing;
use crate::grid::Source;
use crate::run::{CellResult, Context, Spec, read_results};
use crate::summary::{Row, summarise};
use crate::words;

/// A plan of the grid: what it exposes and what it saves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// What made it.
    pub policy: String,
    /// Fraction that was asked to be open.
    pub leaked: f64,
    /// Fraction that the plan permits (seed 0).
    pub opened: f64,
    /// Fraction that sealing really opens: whole rows.
    pub really_open: f64,
    /// Part of every layer's weights that may be open.
    pub exposure: Vec<f64>,
    /// Bytes of the matrices on the server.
    pub bytes: usize,
    /// Products of ring elements for an image.
    pub products: usize,
    /// Predicted milliseconds for an image, both sides, by the built-in cost model.
    pub predicted_ms: f64,
    /// Bytes of a guest's ticket, in a run about guests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ticket_bytes: Option<usize>,
    /// Predicted milliseconds of a guest for an image, in a run about guests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guest_ms: Option<f64>,
}

impl PlanFacts {
    /// Names it in words: `last 3 layers hidden`.
    pub fn name(&self) -> String {
        words::plan(&self.policy, self.leaked, &self.exposure)
    }

    /// Predicted milliseconds for an image: of client and server, or of the guest in a run about
    /// guests.
    pub fn milliseconds(&self) -> f64 {
        self.guest_ms.unwrap_or(self.predicted_ms)
    }
}

/// One linear layer of the victim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Name of its node.
    pub name: String,
    /// `conv3x3`, `fc`.
    pub kind: String,
    /// Number of weights.
    pub weights: usize,
}

/// All that a run says.
#[derive(Debug)]
pub struct Findings {
    /// What it is about.
    pub spec: Spec,
    /// The victim's accuracy on the scoring images.
    pub victim_accuracy: f64,
    /// Accuracy of guessing.
    pub chance: f64,
    /// The victim's linear layers.
    pub layers: Vec<LayerFacts>,
    /// Cells of the grid that have no result yet.
    pub missing: usize,
    /// Results of the grid's cells.
    pub results: Vec<CellResult>,
    /// Their summary.
    pub rows: Vec<Row>,
    /// The plans.
    pub plans: Vec<PlanFacts>,
}

impl Findings {
    /// Reads what there is.
    ///
    /// # Errors
    /// [`AuditError`] for damaged results.
    pub fn of(context: &Context) -> Result<Self, AuditError> {
        let cells = context.cells()?;
        let ids: std::collections::BTreeSet<String> = cells.iter().map(|c| c.id()).collect();
        let mut results = read_results(context.folder())?;
        results.retain(|r| ids.contains(&r.id));
        let spec = context.spec().clone();
        let expected = spec.grid.attackers.iter().map(|a| a.parse()).collect::<Result<Vec<_>, _>>()?;
        let rows = summarise(&results, &spec.grid.budgets, &expected, spec.scoring)?;
        let graph = context.victim().graph();
        let linear = graph.linear_nodes();
        let layer = |(n, l): (usize, jali_model::Linear<'_>)| LayerFacts {
            name: graph.nodes()[n].name.clone(),
            kind: l.kind(),
            weights: l.weights().len(),
        };
        let layers = linear.map(layer).collect();
        let mut points: Vec<(Source, f64)> = vec![];
        for cell in &cells {
            if !points.contains(&(cell.source, cell.leaked)) {
                points.push((cell.source, cell.leaked));
            }
        }
        let pricing = Pricing::new(context);
        let plans = points
            .iter()
            .map(|&(source, leaked)| facts(context, &pricing, source, leaked))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            victim_accuracy: context.victim_accuracy(),
            chance: 1.0 / context.classes() as f64,
            layers,
            missing: ids.len() - results.len(),
            results,
            rows,
            plans,
            spec,
        })
    }

    /// The plan of a summary's row.
    pub fn plan_of(&self, row: &Row) -> Option<&PlanFacts> {
        self.plans.iter().find(|p| p.policy == row.policy && p.leaked == row.leaked)
    }

    /// Whether a command was to attack and no attack of it has a copy.
    pub fn is_without_copies(&self) -> bool {
        let mut attacks = self.results.iter().filter(|r| r.policy != "everything").peekable();
        attacks.peek().is_some() && attacks.all(|r| r.failure.is_some())
    }

    /// How many attacks of a command failed, and why the first did.
    pub fn failures(&self) -> Option<String> {
        let mut failed = self.results.iter().filter_map(|r| Some((&r.id, r.failure.as_ref()?)));
        let (id, why) = failed.next()?;
        let count = 1 + failed.count();
        Some(format!(
            "{count} attack(s) of the command failed and count for nothing. The first, {id}: {why} (all that it printed is in \
             attacks/{id}/attacker.log; remove cells/{id}.json to have it tried again)"
        ))
    }
}

/// Part of every linear layer's weights that may be open.
fn exposure(operators: &[OperatorForecast]) -> Vec<f64> {
    operators.iter().map(|o| o.weights_allowed as f64 / (o.weights as f64).max(1.0)).collect()
}

fn facts(context: &Context, pricing: &Pricing<'_>, source: Source, leaked: f64) -> Result<PlanFacts, AuditError> {
    let plan = context.plan(source, leaked, 0)?;
    let layers = pricing.keyed(&plan)?;
    let guest = context.spec().guests.map(|_| pricing.guest(&plan)).transpose()?;
    let weights: usize = layers.iter().map(|l| l.weights).sum();
    Ok(PlanFacts {
        policy: source.to_string(),
        leaked,
        opened: plan.fraction_permitted(),
        really_open: layers.iter().map(|l| l.weights_open).sum::<usize>() as f64 / weights.max(1) as f64,
        exposure: exposure(&layers),
        bytes: layers.iter().map(|l| l.bytes).sum(),
        products: layers.iter().map(|l| l.products).sum(),
        predicted_ms: layers.iter().map(|l| l.prediction.total_ms()).sum(),
        ticket_bytes: guest.as_ref().map(|g| g.ticket_bytes),
        guest_ms: guest.as_ref().map(Counts::predicted_guest_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jali::Costs;
    use jali_leak::Plan;
    use jali_protocol::forecast;

    #[test]
    fn exposure_is_what_a_plan_permits_of_every_layer() {
        let model = jali::Network::Mnist.quantised(Default::default()).unwrap();
        let of = |plan: &Plan| exposure(&forecast(&model, plan, &Costs::default()).unwrap());
        assert_eq!(of(&Plan::hide_all(model.graph())), [0.0; 4]);
        let rows: Vec<Vec<std::ops::Range<usize>>> =
            [0..0, 0..4800, 0..0, 0..0].map(|r| (!r.is_empty()).then_some(r).into_iter().collect()).to_vec();
        let quarter = jali_leak::random_rows(model.graph(), &rows, 0.011, 1).unwrap();
        let got = of(&quarter);
        assert!(got[0] == 0.0 && got[1] > 0.0 && got[2..] == [0.0, 0.0], "{got:?}");
    }
}
