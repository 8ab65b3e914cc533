//! What a run says about plans: for people who decide, in sentences, and as data.

use std::collections::{BTreeMap, BTreeSet};

use jali_leak::{Order, Policy};
use serde::{Deserialize, Serialize};

use crate::attack::Attacker;
use crate::findings::{Findings, PlanFacts};
use crate::summary::{Row, can_tell, has_learned};
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

impl Judged<'_> {
    /// Whether it is one plan that opens something and hides something: a random policy makes
    /// another for every seed.
    fn is_one_plan(&self) -> bool {
        let policy = self.plan.policy.as_str();
        let is_random = policy.parse().is_ok_and(|p: Policy| p.order() == Order::Random);
        !["nothing", "everything"].contains(&policy) && !is_random
    }
}

impl Findings {
    /// Judges every plan of which something was measured, in the order of the grid.
    pub fn judged(&self) -> Vec<Judged<'_>> {
        let mut all: Vec<Judged<'_>> = self.plans.iter().filter_map(|plan| self.judge(plan)).collect();
        // Of a plan without any complete seed nothing is known.
        let end = |plan: &PlanFacts| {
            let same = |j: &&Judged<'_>| (&j.plan.policy, j.plan.leaked) == (&plan.policy, plan.leaked);
            all.iter().find(same).map_or(f64::INFINITY, |j| j.upper)
        };
        let ends: Vec<f64> = self.plans.iter().map(end).collect();
        for j in &mut all {
            let less =
                self.plans.iter().zip(&ends).filter(|(p, _)| p.policy == j.plan.policy && p.leaked <= j.plan.leaked);
            j.upper = less.fold(j.upper, |most, (_, upper)| most.max(*upper));
        }
        all
    }

    /// The budgets at which any attacker runs.
    fn budgets(&self) -> BTreeSet<usize> {
        let without = |name: &String| name.parse().is_ok_and(Attacker::works_without_images);
        let zero = self.spec.grid.attackers.iter().any(without);
        self.spec.grid.budgets.iter().copied().filter(|b| *b > 0 || zero).collect()
    }

    /// Whether anything can be gained beyond a bound: at a budget where the black box is not as
    /// good as the network anyhow.
    fn can_tell(&self, bound: f64) -> bool {
        can_tell(&self.rows, self.victim_accuracy, self.chance, bound)
    }

    fn judge<'a>(&'a self, plan: &'a PlanFacts) -> Option<Judged<'a>> {
        let rows = || self.rows.iter().filter(|r| r.policy == plan.policy && r.leaked == plan.leaked);
        let worst = rows().max_by(|a, b| a.advantage.total_cmp(&b.advantage))?;
        let is_whole = rows().map(|r| r.budget).collect::<BTreeSet<_>>().is_superset(&self.budgets());
        let upper = if is_whole { rows().map(Row::upper).fold(f64::NEG_INFINITY, f64::max) } else { f64::INFINITY };
        let lower = rows().filter_map(|r| r.interval).map(|i| i[0]).fold(f64::NEG_INFINITY, f64::max);
        Some(Judged { plan, worst, upper, lower })
    }

    /// The cheapest plan within each of [`BOUNDS`]; nothing before the black box is measured.
    pub fn recommendations(&self) -> Vec<Recommendation> {
        let judged = self.judged();
        let Some(hidden) = judged.iter().find(|j| j.plan.policy == "nothing") else { return vec![] };
        let of = |bound: f64| {
            let tells = self.can_tell(bound);
            let within = judged.iter().filter(|j| tells && j.is_one_plan() && j.upper <= bound && self.is_worth(j));
            let best = within.min_by(|a, b| a.plan.milliseconds().total_cmp(&b.plan.milliseconds()));
            let &Judged { plan, worst, upper, .. } = best.unwrap_or(hidden);
            let (saves, upper) = if best.is_some() { (self.saved(plan), upper) } else { (0.0, 0.0) };
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
        lines.extend(worst_of(&open, self.unit()));
        lines.extend(undecided(&open, first.bound));
        lines.extend(self.silent(first.bound));
        lines.push(self.certainty());
        if self.missing > 0 {
            lines.push(format!("The run is not finished: {} attacks have no result yet.", self.missing));
        }
        lines.extend(self.failures());
        lines
    }

    /// The first sentence.
    fn recommended(&self, first: &Recommendation, open: &[&Judged<'_>]) -> String {
        let bound = points(first.bound);
        if first.policy != "nothing" {
            return format!(
                "Recommended: {}. The best attacker tried gains {} points of accuracy by what is open, at 95 % not more than {}. It was \
                 chosen on these seeds: `jali-audit plan` confirms it on fresh ones.",
                first.plan,
                points(first.advantage),
                points(first.upper)
            );
        }
        if open.is_empty() {
            return "Hide everything, until plans that open weights have been measured.".into();
        }
        let (mut little, mut more, mut drawn, mut unsure) = (0, 0, 0, 0);
        for j in open {
            match j {
                j if !self.is_worth(j) => little += 1,
                j if j.lower > first.bound => more += 1,
                j if j.upper <= first.bound && !j.is_one_plan() => drawn += 1,
                _ => unsure += 1,
            }
        }
        let mut why = vec![];
        let mut count = |n: usize, one: &str, many: &str, what: String| {
            if n > 0 {
                why.push(format!("{n} {} {what}", if n == 1 { one } else { many }));
            }
        };
        count(more, "gives", "give", format!("away more than {bound} points of accuracy"));
        count(unsure, "may give", "may give", format!("away more than {bound} points, as far as this run can tell"));
        count(drawn, "is", "are", "drawn at random, so another plan for every seed".into());
        count(little, "saves", "save", format!("less than {:.0} % of the time", 100.0 * WORTH));
        let tried = if open.len() == 1 { "the one plan".into() } else { format!("the {} plans", open.len()) };
        format!("Recommended: hide everything. Of {tried} tried, {}.", why.join(", "))
    }

    /// Part of the predicted time that a plan saves beside hiding everything.
    fn saved(&self, plan: &PlanFacts) -> f64 {
        let hidden = self.plans.iter().find(|p| p.policy == "nothing");
        hidden.map_or(0.0, |hidden| 1.0 - plan.milliseconds() / hidden.milliseconds().max(1e-12))
    }

    /// Whether a plan saves enough to be worth an open weight.
    fn is_worth(&self, j: &Judged<'_>) -> bool {
        self.saved(j.plan) >= WORTH
    }

    /// What the chosen plan costs beside its neighbours.
    fn saves(&self, chosen: &Judged<'_>, hidden: &Judged<'_>) -> Option<String> {
        let who = if self.spec.guests.is_some() { "A guest's part of an image" } else { "An image" };
        if chosen.plan.policy != "nothing" {
            let part = 100.0 * self.saved(chosen.plan);
            return Some(format!("{who} takes {part:.0} % less time than with everything hidden (predicted)."));
        }
        let white = self.plans.iter().find(|p| p.policy == "everything")?;
        let times = hidden.plan.milliseconds() / white.milliseconds().max(1e-12);
        Some(format!("{who} takes {times:.1} times as long then as with everything open (predicted)."))
    }

    /// What a budget counts.
    pub fn unit(&self) -> &'static str {
        if self.spec.guests.is_some() { "tickets" } else { "images" }
    }

    /// How good copies are.
    fn copies(&self, chosen: &Judged<'_>) -> Option<String> {
        let unit = self.unit();
        let mut rows: Vec<&Row> =
            self.rows.iter().filter(|r| r.policy == chosen.plan.policy && r.leaked == chosen.plan.leaked).collect();
        rows.sort_by_key(|r| r.budget);
        let with = |r: &Row| match chosen.plan.policy.as_str() {
            "nothing" => format!("{} % with {} {unit}", points(r.black_box), r.budget),
            _ => format!(
                "{} % with {} {unit} ({} % without the open weights)",
                points(r.accuracy),
                r.budget,
                points(r.black_box)
            ),
        };
        let list = rows.iter().map(|r| with(r)).collect::<Vec<_>>().join(", ");
        let whose = if unit == "images" { "images and the network's answers to them" } else { unit };
        (!list.is_empty()).then(|| {
            format!(
                "Whoever has {whose} can make a copy that is right on {list}. The network itself is right on {} %.",
                points(self.victim_accuracy)
            )
        })
    }

    /// Budgets that condemn no plan, since copies are as good without open weights.
    fn silent(&self, bound: f64) -> Option<String> {
        if !has_learned(&self.rows, self.chance, bound) {
            let nothing =
                "These attackers learned nothing: no copy is better than guessing. That tells nothing about plans.";
            return Some(nothing.into());
        }
        let is_silent = |r: &&Row| r.policy == "nothing" && self.victim_accuracy - r.black_box <= bound;
        let budgets: Vec<String> = self.rows.iter().filter(is_silent).map(|r| r.budget.to_string()).collect();
        (!budgets.is_empty()).then(|| {
            format!(
                "With {} {} a copy is as good as the network to within {} points without any open weight: that tells nothing about plans.",
                budgets.join(" and "),
                self.unit(),
                points(bound)
            )
        })
    }

    /// How sure all of that is.
    fn certainty(&self) -> String {
        let attacks = || self.results.iter().filter(|r| r.policy != "everything");
        let engines: BTreeSet<&str> = attacks().map(|r| r.engine.as_str()).collect();
        let ran: BTreeSet<Attacker> = attacks().filter_map(|r| r.attacker.parse().ok()).collect();
        let mut names: Vec<&str> = self.spec.grid.attackers.iter().map(String::as_str).collect();
        names.retain(|name| name.parse().is_ok_and(|attacker| ran.contains(&attacker)));
        let mut seeds: BTreeMap<usize, usize> = BTreeMap::new();
        for r in &self.rows {
            let fewest = seeds.entry(r.budget).or_insert(r.seeds);
            *fewest = r.seeds.min(*fewest);
        }
        let single: Vec<String> = seeds.iter().filter(|(_, n)| **n < 2).map(|(b, _)| b.to_string()).collect();
        let sure = match seeds.values().filter(|n| **n > 1).min() {
            None => "With one seed there is no interval: this is a first impression.".into(),
            Some(n) => {
                let scoring = self.spec.scoring;
                let but = match single.is_empty() {
                    true => String::new(),
                    false => format!(" With {} {} there is one seed, and no interval.", single.join(", "), self.unit()),
                };
                format!("Intervals are for 95 %, over {n} seeds or more and {scoring} scoring images.{but}")
            }
        };
        format!(
            "{sure} These attackers ran: {} ({}). Nothing is said about others: a better one may gain more from open weights, or less.",
            names.join(", "),
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
fn worst_of(open: &[&Judged<'_>], unit: &str) -> Option<String> {
    let worst = open.iter().max_by(|a, b| a.worst.advantage.total_cmp(&b.worst.advantage))?;
    let r = worst.worst;
    Some(format!(
        "Most is given away by \"{}\": {} points ({}), a copy that is right on {} % with {} {unit} instead of {} %.",
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
pub(crate) mod tests;
