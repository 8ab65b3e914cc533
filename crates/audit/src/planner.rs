//! The cheapest plan whose worst attacker stays within a bound.
//!
//! Candidates (a policy at a fraction) are tried from the cheapest on. A candidate is given up as
//! soon as the mean over the seeds so far is far beyond the bound, and with it all larger fractions
//! of its policy. The first whose worst upper interval end lies within the bound is checked again
//! on seeds that neither the search nor another check has seen; that check alone is the evidence.
//! Giving up too early can only cost size or time, never safety.

use jali_leak::file::Evidence;
use jali_leak::{Order, Plan, Policy};

use crate::AuditError;
use crate::attack::Attacker;
use crate::cost::Pricing;
use crate::grid::{Cell, Source, percent};
use crate::run::{CellResult, Context};
use crate::summary::{Row, can_tell, has_learned, summarise};

/// What is to be small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Minimise {
    /// Bytes of the matrices on the server.
    Size,
    /// Predicted milliseconds for an image.
    Time,
    /// Bytes of a guest's ticket.
    Tickets,
    /// Predicted milliseconds of a guest for an image.
    GuestTime,
}

impl Minimise {
    /// What a plan costs, in bytes or ms.
    fn of(self, pricing: &Pricing<'_>, plan: &Plan) -> Result<f64, AuditError> {
        Ok(match self {
            Self::Size => pricing.keyed(plan)?.iter().map(|l| l.bytes as f64).sum(),
            Self::Time => pricing.keyed(plan)?.iter().map(|l| l.prediction.total_ms()).sum(),
            Self::Tickets => pricing.guest(plan)?.ticket_bytes as f64,
            Self::GuestTime => pricing.guest(plan)?.predicted_guest_ms(),
        })
    }
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Goal {
    /// Largest advantage, in parts of one.
    pub max_advantage: f64,
    /// What is to be small.
    pub minimise: Minimise,
    /// Policies tried; their plans must not depend on a seed.
    pub policies: Vec<Policy>,
    /// Fractions tried.
    pub fractions: Vec<f64>,
    /// Budgets, all of which the bound must hold for.
    pub budgets: Vec<usize>,
    /// Attackers tried.
    pub attackers: Vec<Attacker>,
    /// Seeds of the search, and as many fresh ones of the check.
    pub seeds: u64,
}

/// A plan that may be chosen.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What makes it.
    pub policy: Policy,
    /// How much may be open.
    pub leaked: f64,
    /// In the unit of the goal.
    pub cost: f64,
    plan: Plan,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The best attacker was far beyond the bound in the seeds until then.
    Hopeless {
        /// Its advantage.
        advantage: f64,
    },
    /// The worst upper interval end was beyond the bound.
    TooRisky {
        /// That end.
        upper: f64,
    },
    /// Good in the search, not on fresh seeds.
    NotConfirmed {
        /// The worst upper end there.
        upper: f64,
    },
    /// Attacks that should have run have no result.
    Unknown {
        /// At which budget, and why.
        why: String,
    },
    /// Within the bound on fresh seeds.
    Safe {
        /// The worst upper end there.
        upper: f64,
    },
}

/// What the planner found.
#[derive(Debug)]
pub struct Choice {
    /// The plan; everything hidden if nothing else is safe.
    pub plan: Plan,
    /// Where it came from; `None` if everything is hidden.
    pub chosen: Option<Candidate>,
    /// For the file, if something is open.
    pub evidence: Option<Evidence>,
    /// Candidates tried, in order.
    pub tried: Vec<(Policy, f64, Verdict)>,
    /// Cost with everything hidden, in the unit of the goal.
    pub hidden_cost: f64,
}

/// How far beyond the bound the mean of the seeds so far must be to give a candidate up.
fn hopeless(bound: f64) -> f64 {
    2.0 * bound + 0.01
}

/// Searches. `run` computes (or looks up) cells; `report` hears what becomes of each candidate.
///
/// # Errors
/// [`AuditError::Usage`] for a goal that cannot be checked, and those of `run`.
pub fn search(
    context: &Context,
    goal: &Goal,
    mut run: impl FnMut(&[Cell]) -> Result<Vec<CellResult>, AuditError>,
    mut report: impl FnMut(&Candidate, &Verdict),
) -> Result<Choice, AuditError> {
    if goal.seeds < 2 {
        return Err(AuditError::Usage { what: "the planner needs at least 2 seeds for an interval".into() });
    }
    if let Some(p) = goal.policies.iter().find(|p| p.order() == Order::Random) {
        let what = format!(
            "the policy {p} makes another plan for every seed; the planner judges one plan: name an ordered policy"
        );
        return Err(AuditError::Usage { what });
    }
    let pricing = Pricing::new(context);
    let hide = Plan::hide_all(context.victim().graph());
    let hidden_cost = goal.minimise.of(&pricing, &hide)?;
    let mut candidates: Vec<Candidate> = vec![];
    for &policy in &goal.policies {
        for &leaked in goal.fractions.iter().filter(|f| **f > 0.0 && **f < 1.0) {
            let plan = context.plan(Source::Policy(policy), leaked, 0)?;
            let cost = goal.minimise.of(&pricing, &plan)?;
            // What saves nothing is not worth a weight.
            if cost < hidden_cost && !candidates.iter().any(|c| c.plan == plan) {
                candidates.push(Candidate { policy, leaked, cost, plan });
            }
        }
    }
    candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let mut tried: Vec<(Policy, f64, Verdict)> = vec![];
    let mut checks = 0;
    for candidate in candidates {
        // More open gives an attacker no less: a larger fraction than one that failed needs no
        // test. Candidates come from the cheapest on, so this rarely saves more than the fractions
        // whose rows do not nest.
        if tried
            .iter()
            .any(|(p, f, v)| *p == candidate.policy && *f <= candidate.leaked && !matches!(v, Verdict::Safe { .. }))
        {
            continue;
        }
        let (verdict, rows) = judge(goal, context, &candidate, checks + 1, &mut run)?;
        checks += u64::from(matches!(verdict, Verdict::NotConfirmed { .. } | Verdict::Safe { .. }));
        report(&candidate, &verdict);
        tried.push((candidate.policy, candidate.leaked, verdict.clone()));
        if let Verdict::Safe { upper } = verdict {
            let evidence = evidence(goal, context, &candidate, checks, upper, &rows);
            return Ok(Choice {
                plan: candidate.plan.clone(),
                chosen: Some(candidate),
                evidence: Some(evidence),
                tried,
                hidden_cost,
            });
        }
    }
    Ok(Choice { plan: hide, chosen: None, evidence: None, tried, hidden_cost })
}

fn cells(goal: &Goal, source: Source, leaked: f64, seeds: std::ops::Range<u64>) -> Vec<Cell> {
    let mut budgets = goal.budgets.clone();
    budgets.push(0);
    budgets.sort_unstable();
    budgets.dedup();
    let mut all = vec![];
    for seed in seeds {
        for &budget in &budgets {
            for &attacker in &goal.attackers {
                let images = if budget == 0 { attacker.works_without_images() } else { attacker.uses_images() };
                if images && (attacker.uses_weights() || source == Source::Nothing) {
                    all.push(Cell { source, leaked, budget, attacker, seed });
                }
            }
        }
    }
    all
}

fn judge(
    goal: &Goal,
    context: &Context,
    candidate: &Candidate,
    check: u64,
    run: &mut impl FnMut(&[Cell]) -> Result<Vec<CellResult>, AuditError>,
) -> Result<(Verdict, Vec<Row>), AuditError> {
    let source = Source::Policy(candidate.policy);
    let bound = goal.max_advantage;
    let scoring = context.spec().scoring;
    let mut results: Vec<CellResult> = vec![];
    for seed in 0..goal.seeds {
        results.extend(run(&cells(goal, Source::Nothing, 0.0, seed..seed + 1))?);
        // Without one of the twins every gain would look larger.
        if let Some(why) = first_failure(results.iter()) {
            return Ok((Verdict::Unknown { why: format!("a black box has no copy ({why})") }, vec![]));
        }
        // Cheap attackers first: most hopeless plans fall to them.
        let mut mine = cells(goal, source, candidate.leaked, seed..seed + 1);
        mine.sort_by_key(Cell::weight);
        for cell in mine {
            results.extend(run(std::slice::from_ref(&cell))?);
            // What is there of it counts: the twins are complete.
            let rows = summarise(&results, &goal.budgets, &[], scoring)?;
            let most =
                rows.iter().filter(|r| r.policy != "nothing").map(|r| r.advantage).fold(f64::NEG_INFINITY, f64::max);
            if most > hopeless(bound) {
                return Ok((Verdict::Hopeless { advantage: most }, rows));
            }
        }
    }
    let rows = summarise(&results, &goal.budgets, &goal.attackers, scoring)?;
    let upper = match worst(goal, context, &rows, &results) {
        Ok(upper) => upper,
        Err(unknown) => return Ok((unknown, vec![])),
    };
    if upper > bound {
        return Ok((Verdict::TooRisky { upper }, vec![]));
    }
    // Twins that were lucky in one check must not vouch for the next candidate as well.
    let fresh = check * goal.seeds..(check + 1) * goal.seeds;
    let mut results = run(&cells(goal, Source::Nothing, 0.0, fresh.clone()))?;
    results.extend(run(&cells(goal, source, candidate.leaked, fresh))?);
    let rows = summarise(&results, &goal.budgets, &goal.attackers, scoring)?;
    let upper = match worst(goal, context, &rows, &results) {
        Ok(upper) => upper,
        Err(unknown) => return Ok((unknown, vec![])),
    };
    Ok((if upper > bound { Verdict::NotConfirmed { upper } } else { Verdict::Safe { upper } }, rows))
}

/// Says at which budget not every seed has all its attacks on both sides, and why. What was not
/// measured is not safe.
fn unmeasured(goal: &Goal, rows: &[Row], results: &[CellResult]) -> Option<String> {
    let without = goal.attackers.iter().any(|a| a.works_without_images());
    let counts = |budget: &&usize| **budget > 0 || without;
    if !goal.budgets.iter().any(|b| counts(&b)) {
        return Some("none of the attackers can do anything without images".into());
    }
    let whole = |budget: usize| {
        rows.iter().any(|r| r.policy != "nothing" && r.budget == budget && r.seeds as u64 == goal.seeds)
    };
    let budget = goal.budgets.iter().filter(counts).find(|b| !whole(**b))?;
    let failed = results.iter().filter(|r| r.budget == *budget || r.budget == 0);
    let why = first_failure(failed).unwrap_or_else(|| "results are missing".into());
    Some(format!("with a budget of {budget} not every attack has a copy ({why})"))
}

fn first_failure<'a>(mut results: impl Iterator<Item = &'a CellResult>) -> Option<String> {
    results.find_map(|r| Some(format!("{}: {}", r.id, r.failure.as_ref()?)))
}

/// The worst upper end of all budgets ([`Row::upper`]), or why it is not known: attacks without a
/// result, or attackers that could not have told a safe plan from another.
fn worst(goal: &Goal, context: &Context, rows: &[Row], results: &[CellResult]) -> Result<f64, Verdict> {
    if let Some(why) = unmeasured(goal, rows, results) {
        return Err(Verdict::Unknown { why });
    }
    let (chance, bound) = (1.0 / context.classes() as f64, goal.max_advantage);
    if !has_learned(rows, chance, bound) {
        return Err(Verdict::Unknown {
            why: "no copy is better than guessing: these attackers learned nothing".into(),
        });
    }
    if !can_tell(rows, context.victim_accuracy(), chance, bound) {
        let why = "a copy is as good as the network to within the bound without any open weight: try smaller budgets";
        return Err(Verdict::Unknown { why: why.into() });
    }
    let open = rows.iter().filter(|r| r.policy != "nothing");
    Ok(open.map(Row::upper).reduce(f64::max).unwrap_or(f64::INFINITY))
}

fn evidence(goal: &Goal, context: &Context, candidate: &Candidate, checks: u64, upper: f64, rows: &[Row]) -> Evidence {
    let open: Vec<&Row> = rows.iter().filter(|r| r.policy != "nothing").collect();
    let most = open.iter().copied().max_by(|a, b| a.advantage.total_cmp(&b.advantage));
    // The statement must not be finer than what was measured.
    let after = match checks {
        0 | 1 => String::new(),
        more => format!(" It is the candidate of check {more}; those before were not confirmed."),
    };
    let claim = format!(
        "With {} % of the weights permitted open ({}), the best of {} attackers gained {:.1} points of accuracy over the best black-box \
         twin on {} fresh seeds; the 95 % interval ends at {:.1} points, within the bound of {:.1}.{after}",
        percent(candidate.plan.fraction_permitted()),
        candidate.policy,
        goal.attackers.len(),
        100.0 * most.map_or(0.0, |r| r.advantage),
        goal.seeds,
        100.0 * upper,
        100.0 * goal.max_advantage
    );
    Evidence {
        claim,
        bound: goal.max_advantage,
        upper,
        advantage: most.map_or(0.0, |r| r.advantage),
        budgets: goal.budgets.clone(),
        attackers: goal.attackers.iter().map(ToString::to_string).collect(),
        seeds: goal.seeds,
        scoring: context.spec().scoring,
        method: context.spec().method,
        plan: candidate.plan.digest(context.victim().graph()),
    }
}
