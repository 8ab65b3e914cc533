//! Everything that a finished (or half-finished) run says: for the terminal, for JSON and for the
//! report.

use jali::Costs;
use jali_protocol::{OperatorForecast, forecast};
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::grid::{Source, percent};
use crate::run::{CellResult, Context, Spec, read_results};
use crate::summary::{Row, summarise};

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
        let plans = points.iter().map(|&(source, leaked)| facts(context, source, leaked)).collect::<Result<_, _>>()?;
        Ok(Self {
            victim_accuracy: context.victim_accuracy(),
            chance: 1.0 / context.classes() as f64,
            layers,
            missing: cells.len() - results.len(),
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

    /// What the run says about a bound on the advantage, in words.
    pub fn verdict(&self, bound: f64) -> Vec<String> {
        let open: Vec<&Row> = self.rows.iter().filter(|r| r.policy != "nothing" && r.policy != "everything").collect();
        let Some(worst) = open.iter().max_by(|a, b| a.advantage.total_cmp(&b.advantage)) else {
            return ["Nothing has been measured yet.".into()].into_iter().chain(self.failures()).collect();
        };
        let mut policies: Vec<&str> = open.iter().map(|r| r.policy.as_str()).collect();
        policies.dedup();
        let (mut lines, mut safe_anywhere) = (vec![], false);
        for policy in policies {
            let mine: Vec<&Row> = open.iter().copied().filter(|r| r.policy == policy).collect();
            let said = OfPolicy::new(policy, &mine).verdict(bound);
            safe_anywhere |= said.within.is_some();
            lines.extend([said.within, said.beyond].into_iter().flatten());
        }
        lines.insert(0, summary_of_verdict(safe_anywhere, bound, worst));
        lines.extend(self.failures());
        lines
    }

    /// How many attacks of a command failed, and why the first did.
    pub fn failures(&self) -> Option<String> {
        let mut failed = self.results.iter().filter_map(|r| Some((&r.id, r.failure.as_ref()?)));
        let (id, why) = failed.next()?;
        let count = 1 + failed.count();
        Some(format!("{count} attack(s) of the command failed and count for nothing. The first, {id}: {why}"))
    }
}

/// A policy's rows of a summary.
struct OfPolicy<'a> {
    policy: &'a str,
    rows: &'a [&'a Row],
}

/// What is said about a policy.
struct PolicyVerdict {
    /// How much may be open.
    within: Option<String>,
    /// What goes wrong with more.
    beyond: Option<String>,
}

impl<'a> OfPolicy<'a> {
    fn new(policy: &'a str, rows: &'a [&'a Row]) -> Self {
        Self { policy, rows }
    }

    /// Returns the largest upper end of any budget's interval with this fraction open.
    fn upper(&self, leaked: f64) -> f64 {
        let ends = self.rows.iter().filter(|r| r.leaked == leaked).map(|r| r.interval.map_or(f64::INFINITY, |i| i[1]));
        ends.fold(f64::NEG_INFINITY, f64::max)
    }

    /// Says up to where the policy stays within a bound, and what the first case beyond is. A plan
    /// is within it only if every budget is.
    fn verdict(&self, bound: f64) -> PolicyVerdict {
        let policy = self.policy;
        let mut fractions: Vec<f64> = self.rows.iter().map(|r| r.leaked).collect();
        fractions.sort_by(f64::total_cmp);
        fractions.dedup();
        let within = fractions.into_iter().take_while(|&f| self.upper(f) <= bound).last();
        let beyond = self
            .rows
            .iter()
            .filter(|r| Some(r.leaked) != within)
            .filter(|r| self.upper(r.leaked) > bound)
            .min_by(|a, b| a.leaked.total_cmp(&b.leaked).then(b.advantage.total_cmp(&a.advantage)));
        PolicyVerdict {
            within: within.map(|f| {
                format!(
                    "{policy}: up to {} % open, no attacker tried gains more than {} points over its black-box twin (upper end of \
                     the 95 % interval: {}).",
                    percent(f),
                    points(bound),
                    points(self.upper(f))
                )
            }),
            beyond: beyond.map(|r| {
                format!(
                    "{policy}: with {} % open, \"{}\" with {} labelled images reaches {} %, {} points more than the best black box \
                     with the same images ({} %; {}).",
                    percent(r.leaked),
                    r.best_attacker,
                    r.budget,
                    points(r.accuracy),
                    points(r.advantage),
                    points(r.black_box),
                    between(r)
                )
            }),
        }
    }
}

/// A share of one in hundredths.
fn points(v: f64) -> String {
    format!("{:.1}", 100.0 * v)
}

/// A row's interval, in words.
fn between(r: &Row) -> String {
    match r.interval {
        Some([low, high]) => format!("95 % interval {} to {}", points(low), points(high)),
        None => "one seed only, so no interval".into(),
    }
}

/// The first sentence of a verdict.
fn summary_of_verdict(safe_anywhere: bool, bound: f64, worst: &Row) -> String {
    let case = format!(
        "{} points ({} at {} % open, {} images, \"{}\").",
        points(worst.advantage),
        worst.policy,
        percent(worst.leaked),
        worst.budget,
        worst.best_attacker
    );
    let bound = points(bound);
    if safe_anywhere {
        format!(
            "Some of the plans tried stay within {bound} points of advantage; the worst case of the others is {case}"
        )
    } else {
        format!(
            "No plan tried that opens anything can be said to stay within {bound} points of advantage: of these, only hiding everything is \
             safe. The worst case is {case}"
        )
    }
}

/// Part of every linear layer's weights that may be open.
fn exposure(operators: &[OperatorForecast]) -> Vec<f64> {
    operators.iter().map(|o| o.weights_allowed as f64 / (o.weights as f64).max(1.0)).collect()
}

fn facts(context: &Context, source: Source, leaked: f64) -> Result<PlanFacts, AuditError> {
    let plan = context.plan(source, leaked, 0)?;
    let layers = forecast(context.victim().model(), &plan, &Costs::default())?;
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jali_leak::Plan;

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
