//! What a run says about plans: for people who decide, in sentences, and as data.

use serde::{Deserialize, Serialize};

use crate::findings::{Findings, PlanFacts};
use crate::summary::Row;
use crate::words::points;

/// Bounds on the advantage that a run speaks about, the first of which is recommended.
pub const BOUNDS: [f64; 3] = [0.02, 0.05, 0.1];
/// A plan that saves less than this part of the time is not worth an open weight.
const WORTH: f64 = 0.05;

/// The cheapest plan that was shown to stay within a bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Largest advantage that is accepted.
    pub bound: f64,
    /// What made the plan; `nothing` where everything should stay hidden.
    pub policy: String,
    /// Fraction of the weights that was asked to be open.
    pub leaked: f64,
    /// The plan in words.
    pub plan: String,
    /// Part of the predicted time of an image that it saves beside hiding everything.
    pub saves: f64,
    /// Its worst advantage over all budgets.
    pub advantage: f64,
    /// The worst upper end of its 95 % intervals.
    pub upper: f64,
}

/// A plan with what was measured of it.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    /// The plan.
    pub plan: &'a PlanFacts,
    /// The budget at which the advantage is largest.
    pub worst: &'a Row,
    /// The worst upper end of the intervals of all budgets, and of the policy's plans that open
    /// less: who sees more knows no less. Infinite where seeds or a budget are missing.
    pub upper: f64,
    /// The highest lower end.
    pub lower: f64,
}

impl Findings {
    /// Judges every plan of which something was measured, in the order of the grid.
    pub fn judged(&self) -> Vec<Judged<'_>> {
        let mut all: Vec<Judged<'_>> = self.plans.iter().filter_map(|plan| self.judge(plan)).collect();
        let own: Vec<(String, f64, f64)> =
            all.iter().map(|j| (j.plan.policy.clone(), j.plan.leaked, j.upper)).collect();
        for j in &mut all {
            let less = own.iter().filter(|(policy, leaked, _)| *policy == j.plan.policy && *leaked <= j.plan.leaked);
            j.upper = less.fold(j.upper, |most, (_, _, upper)| most.max(*upper));
        }
        all
    }

    fn judge<'a>(&'a self, plan: &'a PlanFacts) -> Option<Judged<'a>> {
        let rows = || self.rows.iter().filter(|r| r.policy == plan.policy && r.leaked == plan.leaked);
        let worst = rows().max_by(|a, b| a.advantage.total_cmp(&b.advantage))?;
        let is_whole = rows().count() >= self.spec.grid.budgets.len();
        let end = |r: &Row| r.interval.map_or(f64::INFINITY, |i| i[1]);
        let upper = if is_whole { rows().map(end).fold(f64::NEG_INFINITY, f64::max) } else { f64::INFINITY };
        let lower = rows().filter_map(|r| r.interval).map(|i| i[0]).fold(f64::NEG_INFINITY, f64::max);
        Some(Judged { plan, worst, upper, lower })
    }

    /// The cheapest plan within each of [`BOUNDS`]; nothing before the black box is measured.
    pub fn recommendations(&self) -> Vec<Recommendation> {
        let judged = self.judged();
        let Some(hidden) = judged.iter().find(|j| j.plan.policy == "nothing") else { return vec![] };
        let saves = |plan: &PlanFacts| 1.0 - plan.milliseconds() / hidden.plan.milliseconds().max(1e-12);
        let of = |bound: f64| {
            let within = judged.iter().filter(|j| j.upper <= bound && saves(j.plan) >= WORTH);
            let best = within.min_by(|a, b| a.plan.milliseconds().total_cmp(&b.plan.milliseconds()));
            let &Judged { plan, worst, upper, .. } = best.unwrap_or(hidden);
            let (saves, upper) = if best.is_some() { (saves(plan), upper) } else { (0.0, 0.0) };
            Recommendation {
                bound,
                policy: plan.policy.clone(),
                leaked: plan.leaked,
                plan: plan.name(),
                saves,
                advantage: worst.advantage,
                upper,
            }
        };
        BOUNDS.into_iter().map(of).collect()
    }

    /// Says what should be done, what that saves and gives away, and how sure it is.
    pub fn verdict(&self) -> Vec<String> {
        let judged = self.judged();
        let recommendations = self.recommendations();
        let (Some(first), Some(hidden)) = (recommendations.first(), judged.iter().find(|j| j.plan.policy == "nothing"))
        else {
            return ["Nothing has been measured yet.".into()].into_iter().chain(self.failures()).collect();
        };
        let chosen = judged.iter().find(|j| (&j.plan.policy, j.plan.leaked) == (&first.policy, first.leaked));
        let chosen = chosen.unwrap_or(hidden);
        let open: Vec<&Judged<'_>> =
            judged.iter().filter(|j| !["nothing", "everything"].contains(&j.plan.policy.as_str())).collect();
        let mut lines = vec![self.recommended(first, &open)];
        lines.extend(self.saves(chosen, hidden));
        lines.extend(self.copies(chosen));
        lines.extend(otherwise(&recommendations));
        lines.extend(worst_of(&open));
        lines.extend(undecided(&open, first.bound));
        lines.push(self.certainty());
        lines.extend(self.failures());
        lines
    }

    /// The first sentence.
    fn recommended(&self, first: &Recommendation, open: &[&Judged<'_>]) -> String {
        let bound = points(first.bound);
        if first.policy != "nothing" {
            return format!(
                "Recommended: {}. No attacker tried gains more than {bound} points of accuracy by what is open (at most {} at 95 %).",
                first.plan,
                points(first.upper)
            );
        }
        match open.len() {
            0 => "Hide everything, until plans that open weights have been measured.".into(),
            1 => format!(
                "Recommended: hide everything. The plan tried was not shown to save time and give away at most {bound} points of accuracy."
            ),
            n => format!(
                "Recommended: hide everything. None of the {n} plans tried was shown to save time and give away at most {bound} points of \
                 accuracy."
            ),
        }
    }

    /// What the chosen plan costs beside its neighbours.
    fn saves(&self, chosen: &Judged<'_>, hidden: &Judged<'_>) -> Option<String> {
        let who = if self.spec.guests.is_some() { "A guest's part of an image" } else { "An image" };
        let ratio = |a: &PlanFacts, b: &PlanFacts| a.milliseconds() / b.milliseconds().max(1e-12);
        if chosen.plan.policy != "nothing" {
            let part = 100.0 * (1.0 - ratio(chosen.plan, hidden.plan));
            return Some(format!("{who} takes {part:.0} % less time than with everything hidden (predicted)."));
        }
        let white = self.plans.iter().find(|p| p.policy == "everything")?;
        Some(format!(
            "{who} takes {:.1} times as long then as with everything open (predicted).",
            ratio(hidden.plan, white)
        ))
    }

    /// How good copies are.
    fn copies(&self, chosen: &Judged<'_>) -> Option<String> {
        let images = if self.spec.guests.is_some() { "tickets" } else { "labelled images" };
        let mut rows: Vec<&Row> =
            self.rows.iter().filter(|r| r.policy == chosen.plan.policy && r.leaked == chosen.plan.leaked).collect();
        rows.sort_by_key(|r| r.budget);
        let with = |r: &Row| match chosen.plan.policy.as_str() {
            "nothing" => format!("{} % with {}", points(r.black_box), r.budget),
            _ => format!(
                "{} % with {} ({} % without the open weights)",
                points(r.accuracy),
                r.budget,
                points(r.black_box)
            ),
        };
        let list = rows.iter().map(|r| with(r)).collect::<Vec<_>>().join(", ");
        (!list.is_empty()).then(|| {
            format!(
                "Whoever has {images} with the network's answers can make a copy that is right on {list}. The network itself is right on {} %.",
                points(self.victim_accuracy)
            )
        })
    }

    /// How sure all of that is.
    fn certainty(&self) -> String {
        let engines: std::collections::BTreeSet<&str> =
            self.results.iter().filter(|r| r.policy != "everything").map(|r| r.engine.as_str()).collect();
        let seeds = self.rows.iter().map(|r| r.seeds).min().unwrap_or(0);
        let sure = match seeds {
            0 | 1 => "With one seed there is no interval: this is a first impression.".into(),
            n => format!("Intervals are for 95 %, over {n} seeds or more and {} scoring images.", self.spec.scoring),
        };
        format!(
            "{sure} The attackers ({}; {}) are the strongest that this run had. An attack that nobody here thought of can only give away \
             more.",
            self.spec.grid.attackers.join(", "),
            engines.into_iter().collect::<Vec<_>>().join(", ")
        )
    }
}

/// What larger bounds would allow, where that is something else.
fn otherwise(all: &[Recommendation]) -> Option<String> {
    let mut said: Vec<String> = vec![];
    for pair in all.windows(2) {
        if let [before, r] = pair
            && (&before.policy, before.leaked) != (&r.policy, r.leaked)
        {
            said.push(format!(
                "whoever accepts {} points may use \"{}\", which saves {:.0} % of the time",
                points(r.bound),
                r.plan,
                100.0 * r.saves
            ));
        }
    }
    let text = said.join("; ");
    let mut letters = text.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// The plan that gives away most.
fn worst_of(open: &[&Judged<'_>]) -> Option<String> {
    let worst = open.iter().max_by(|a, b| a.worst.advantage.total_cmp(&b.worst.advantage))?;
    let r = worst.worst;
    Some(format!(
        "Most is given away by \"{}\": {} points ({}), a copy that is right on {} % with {} images instead of {} %.",
        worst.plan.name(),
        points(r.advantage),
        between(r),
        points(r.accuracy),
        r.budget,
        points(r.black_box)
    ))
}

/// Plans of which the run cannot say on which side of the bound they are.
fn undecided(open: &[&Judged<'_>], bound: f64) -> Option<String> {
    let names: Vec<String> = open
        .iter()
        // With one seed nothing is decided.
        .filter(|j| j.worst.interval.is_some() && j.upper > bound && j.lower <= bound)
        .map(|j| {
            let end = if j.upper.is_finite() { format!(" (at most {})", points(j.upper)) } else { String::new() };
            format!("\"{}\"{end}", j.plan.name())
        })
        .collect();
    let bound = points(bound);
    (!names.is_empty()).then(|| {
        format!("Not decided with these seeds, whether less or more than {bound} points: {}.", names.join(", "))
    })
}

/// A row's interval, in words.
fn between(r: &Row) -> String {
    match r.interval {
        Some([low, high]) => format!("95 % interval {} to {}", points(low), points(high)),
        None => "one seed only, so no interval".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;
    use crate::run::{METHOD, Spec};

    fn spec() -> Spec {
        let grid = Grid {
            policies: vec!["random-rows".into(), "last-layers".into()],
            fractions: vec![],
            budgets: vec![50],
            attackers: vec!["distil".into()],
            seeds: 3,
            plan: None,
        };
        Spec {
            method: METHOD,
            model: "net.onnx".into(),
            model_hash: String::new(),
            data: None,
            dataset: "mnist".into(),
            scoring: 1000,
            schedule: None,
            plan: None,
            plan_hash: None,
            public_model: None,
            public_hash: None,
            command: None,
            guests: None,
            grid,
        }
    }

    /// Findings of plans with a time in ms and an interval of the advantage.
    fn findings(plans: &[(&str, f64, f64, Option<[f64; 2]>)]) -> Findings {
        let fact = |&(policy, leaked, ms, _): &(&str, f64, f64, Option<[f64; 2]>)| PlanFacts {
            policy: policy.into(),
            leaked,
            opened: leaked,
            really_open: leaked,
            exposure: vec![leaked],
            bytes: 0,
            products: 0,
            predicted_ms: ms,
            ticket_bytes: None,
            guest_ms: None,
        };
        let row = |&(policy, leaked, _, interval): &(&str, f64, f64, Option<[f64; 2]>)| {
            let advantage = interval.map_or(0.0, |[low, high]| (low + high) / 2.0);
            Row {
                policy: policy.into(),
                leaked,
                opened: leaked,
                budget: 50,
                black_box: 0.5,
                black_box_attacker: "distil".into(),
                best_attacker: "distil".into(),
                accuracy: 0.5 + advantage,
                fidelity: 0.5,
                advantage,
                interval,
                seeds: 3,
                cut_off: false,
            }
        };
        Findings {
            spec: spec(),
            victim_accuracy: 0.9,
            chance: 0.1,
            layers: vec![],
            missing: 0,
            results: vec![],
            rows: plans.iter().map(row).collect(),
            plans: plans.iter().map(fact).collect(),
        }
    }

    const HIDDEN: (&str, f64, f64, Option<[f64; 2]>) = ("nothing", 0.0, 10.0, Some([0.0, 0.0]));

    #[test]
    fn the_cheapest_plan_within_the_bound_is_recommended() {
        let f = findings(&[
            HIDDEN,
            ("last-layers", 0.1, 8.0, Some([0.0, 0.01])),
            ("last-layers", 0.3, 6.0, Some([0.0, 0.015])),
            ("last-layers", 0.5, 4.0, Some([0.02, 0.045])),
            ("random-rows", 0.5, 5.0, Some([0.1, 0.3])),
            ("everything", 1.0, 2.0, Some([0.4, 0.4])),
        ]);
        let got: Vec<(f64, f64)> = f.recommendations().iter().map(|r| (r.bound, r.leaked)).collect();
        assert_eq!(got, [(0.02, 0.3), (0.05, 0.5), (0.1, 0.5)]);
        let said = f.verdict();
        assert!(
            said[0].starts_with("Recommended: last layers hidden, 30 % open. No attacker tried gains more than 2.0")
        );
        assert!(said[1].contains("40 % less time"), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("Whoever accepts 5.0 points may use")), "{said:?}");
        assert!(said.iter().any(|line| line.contains("\"random rows, 50 % open\": 20.0 points")), "{said:?}");
    }

    #[test]
    fn no_plan_is_safer_than_one_that_opens_less() {
        // The larger fraction was lucky.
        let f = findings(&[
            HIDDEN,
            ("random-rows", 0.5, 8.0, Some([0.01, 0.09])),
            ("random-rows", 0.8, 6.0, Some([0.0, 0.01])),
        ]);
        let got: Vec<f64> = f.recommendations().iter().map(|r| r.leaked).collect();
        assert_eq!(got, [0.0, 0.0, 0.8]);
        assert!(f.verdict()[0].contains("hide everything. None of the 2 plans"));
    }

    #[test]
    fn what_saves_nothing_or_has_one_seed_is_not_recommended() {
        let f = findings(&[HIDDEN, ("last-layers", 0.5, 9.9, Some([0.0, 0.001])), ("random-rows", 0.5, 5.0, None)]);
        assert!(f.recommendations().iter().all(|r| r.policy == "nothing" && r.saves == 0.0));
        assert!(findings(&[]).recommendations().is_empty());
        assert_eq!(findings(&[]).verdict(), ["Nothing has been measured yet."]);
    }
}
