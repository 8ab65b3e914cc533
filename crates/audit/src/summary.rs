//! What the cells say together: the best attacker beside the best of the twins, with an interval.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::attack::Attacker;
use crate::grid::Source;
use crate::run::{CellResult, unpack};

/// One point of the grid: what was open, to whom, with how many images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What made the plan.
    pub policy: String,
    /// Fraction of the weights that was asked to be open.
    pub leaked: f64,
    /// Fraction that the plans permit, mean over seeds.
    pub opened: f64,
    /// Labelled images.
    pub budget: usize,
    /// Accuracy of the best black-box twin of each seed, mean over seeds.
    pub black_box: f64,
    /// Which twin that is most often.
    pub black_box_attacker: String,
    /// Which attacker is most often the best of a seed.
    pub best_attacker: String,
    /// Accuracy of the best attacker of each seed, mean over seeds; that of the twins where it is
    /// higher, since an attacker may ignore what is open.
    pub accuracy: f64,
    /// Its agreement with the victim.
    pub fidelity: f64,
    /// `accuracy - black_box`, never below 0.
    pub advantage: f64,
    /// 95 % interval, over seeds and scoring images, of what the best attacker gains on the best
    /// twin. Its lower end lies below 0 where open weights may harm the attacker; its upper end
    /// does not. `None` with fewer than two seeds.
    pub interval: Option<[f64; 2]>,
    /// The highest upper end of such intervals of single attackers, each beside the twin of its own
    /// name: what is open may help one that the best twin still beats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paired_upper: Option<f64>,
    /// Seeds that both have.
    pub seeds: usize,
    /// Whether any training of the best attacker was cut off before its plateau.
    pub cut_off: bool,
}

impl Row {
    /// The highest advantage that its intervals leave open, also of a single attacker beside its
    /// own twin; infinite without an interval.
    pub fn upper(&self) -> f64 {
        self.interval.map_or(f64::INFINITY, |[_, end]| end.max(self.paired_upper.unwrap_or(end)))
    }
}

/// Whether any copy is better than guessing: attackers that learn nothing say nothing.
pub fn has_learned(rows: &[Row], chance: f64, bound: f64) -> bool {
    rows.iter().any(|r| r.policy != "everything" && r.accuracy > chance + bound)
}

/// Whether rows can tell a safe plan from another: something was learned, and at some budget the
/// black box is not as good as the network to within the bound anyhow.
pub fn can_tell(rows: &[Row], victim_accuracy: f64, chance: f64, bound: f64) -> bool {
    let may_gain = |r: &Row| r.policy == "nothing" && victim_accuracy - r.black_box > bound;
    has_learned(rows, chance, bound) && rows.iter().any(may_gain)
}

type Seeds<'a> = BTreeMap<u64, &'a CellResult>;
/// Results by what made the plan, its fraction times 10^9, the budget and the attacker.
type ByCell<'a> = BTreeMap<(Source, u64, usize, Attacker), Seeds<'a>>;
/// An attacker's result beside its seed's twin.
type Pair<'a> = (&'a CellResult, &'a CellResult);

/// Summarises results. `budgets` are those of the grid; attackers that need no images stand for all
/// of them. With `expected` attackers a seed counts only when all of them are done on both sides,
/// so that a half-finished run compares like with like; points without such a seed are left out.
///
/// # Errors
/// [`AuditError::UnknownAttacker`] for results of another program.
pub fn summarise(
    results: &[CellResult],
    budgets: &[usize],
    expected: &[Attacker],
    scoring: usize,
) -> Result<Vec<Row>, AuditError> {
    let mut points: BTreeMap<(Source, u64), f64> = BTreeMap::new();
    let mut by_cell: ByCell<'_> = BTreeMap::new();
    // Where a command has failed there is no copy to speak of.
    for r in results.iter().filter(|r| r.failure.is_none()) {
        let (source, attacker): (Source, Attacker) = (r.policy.parse()?, r.attacker.parse()?);
        let leaked = (r.leaked * 1e9).round() as u64;
        points.insert((source, leaked), r.leaked);
        by_cell.entry((source, leaked, r.budget, attacker)).or_default().insert(r.seed, r);
    }
    let mut budgets = budgets.to_vec();
    budgets.sort_unstable();
    budgets.dedup();
    let measured = Measured { by_cell, expected };
    let mut rows = vec![];
    for (&(source, key), &leaked) in &points {
        for &budget in &budgets {
            let point = Point { source, key, leaked, budget };
            rows.extend(measured.row(&point, scoring));
        }
    }
    Ok(rows)
}

/// What was measured, and what is expected of a seed that counts.
struct Measured<'a> {
    by_cell: ByCell<'a>,
    expected: &'a [Attacker],
}

/// A row of the summary to be.
struct Point {
    source: Source,
    /// `leaked` times 10^9.
    key: u64,
    leaked: f64,
    budget: usize,
}

impl<'a> Measured<'a> {
    /// Returns the attackers that count at a point; those that need no images count at all budgets.
    fn attackers_at(&self, source: Source, leaked: u64, budget: usize) -> impl Iterator<Item = (Attacker, &Seeds<'a>)> {
        self.by_cell
            .iter()
            .filter(move |((s, l, b, a), _)| {
                (*s, *l) == (source, leaked) && (*b == budget || (*b == 0 && !a.uses_images()))
            })
            .map(|((_, _, _, a), seeds)| (*a, seeds))
    }

    /// Whether all that is expected of a seed is there.
    fn is_complete(&self, source: Source, leaked: u64, budget: usize, seed: u64) -> bool {
        self.expected.iter().all(|&a| {
            let budget = if a.uses_images() { budget } else { 0 };
            let runs = a.works_without_images() || budget > 0;
            let runs = runs && (a.uses_weights() || source == Source::Nothing);
            !runs || self.by_cell.get(&(source, leaked, budget, a)).is_some_and(|seeds| seeds.contains_key(&seed))
        })
    }

    /// Returns the best result of a seed. With everything open there is nothing to draw: one result
    /// stands for every seed.
    fn best(&self, source: Source, key: u64, budget: usize, seed: u64) -> Option<&'a CellResult> {
        let one = if source == Source::Everything { 0 } else { seed };
        self.attackers_at(source, key, budget)
            .filter_map(|(_, seeds)| seeds.get(&one).copied())
            .max_by(|a, b| a.accuracy.total_cmp(&b.accuracy).then_with(|| b.id.cmp(&a.id)))
    }

    /// Returns the best on either side, seed by seed: both sides choose with the same hindsight.
    fn pairs(&self, &Point { source, key, budget, .. }: &Point) -> Vec<Pair<'a>> {
        let seeds: BTreeSet<u64> =
            self.attackers_at(Source::Nothing, 0, budget).flat_map(|(_, seeds)| seeds.keys().copied()).collect();
        seeds
            .into_iter()
            .filter(|&seed| self.is_complete(Source::Nothing, 0, budget, seed))
            .filter(|&seed| source == Source::Everything || self.is_complete(source, key, budget, seed))
            .filter_map(|seed| {
                let attacker = self.best(source, key, budget, seed)?;
                Some((attacker, self.best(Source::Nothing, 0, budget, seed)?))
            })
            .collect()
    }

    /// Returns the highest upper end of any attacker's interval beside its own twin.
    fn paired_upper(&self, &Point { source, key, budget, .. }: &Point, scoring: usize) -> Option<f64> {
        let one = |seed: u64| if source == Source::Everything { 0 } else { seed };
        let twins: BTreeMap<Attacker, &Seeds<'a>> = self.attackers_at(Source::Nothing, 0, budget).collect();
        let ends = self.attackers_at(source, key, budget).filter_map(|(attacker, seeds)| {
            let twin = twins.get(&attacker)?;
            let pairs: Vec<Pair<'a>> =
                twin.iter().filter_map(|(seed, twin)| Some((*seeds.get(&one(*seed))?, *twin))).collect();
            interval(&pairs, source == Source::Nothing, scoring).map(|[_, upper]| upper.min(1.0))
        });
        ends.max_by(f64::total_cmp)
    }

    /// Returns the row of a point, if a seed is complete there.
    fn row(&self, point: &Point, scoring: usize) -> Option<Row> {
        let &Point { source, key, leaked, budget } = point;
        let pairs = self.pairs(point);
        if pairs.is_empty() {
            return None;
        }
        // No two accuracies differ by more than 1.
        let interval = interval(&pairs, source == Source::Nothing, scoring)
            .map(|[low, high]| [low.max(-1.0), high.clamp(0.0, 1.0)]);
        let black_box = mean(pairs.iter().map(|(_, t)| t.accuracy));
        let black_box_attacker = most_often(pairs.iter().map(|(_, t)| t.attacker.clone()));
        // The mean decides, not each seed: to choose by the outcome of each would be a gain by
        // itself.
        let ignores = mean(pairs.iter().map(|(a, _)| a.accuracy)) < black_box;
        let best: Vec<&CellResult> = pairs.iter().map(|(a, t)| if ignores { *t } else { *a }).collect();
        let of = |f: fn(&CellResult) -> f64| mean(best.iter().map(|r| f(r)));
        let accuracy = of(|r| r.accuracy);
        let best_attacker = match ignores {
            true => format!("{black_box_attacker}, ignoring what is open"),
            false => most_often(best.iter().map(|r| r.attacker.clone())),
        };
        let opened = self.attackers_at(source, key, budget).flat_map(|(_, s)| s.values()).map(|r| r.opened);
        Some(Row {
            policy: source.to_string(),
            leaked,
            opened: mean(opened),
            budget,
            black_box,
            black_box_attacker,
            best_attacker,
            accuracy,
            fidelity: of(|r| r.fidelity),
            advantage: accuracy - black_box,
            interval,
            paired_upper: self.paired_upper(point, scoring),
            seeds: pairs.len(),
            cut_off: best.iter().any(|r| !r.plateau),
        })
    }
}

/// The most frequent name; of equals the first in the alphabet.
fn most_often(names: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    names.for_each(|n| *counts.entry(n).or_default() += 1);
    counts.into_iter().rev().max_by_key(|c| c.1).map(|c| c.0).unwrap_or_default()
}

/// Mean; 0 of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for v in values {
        sum += v;
        count += 1.0;
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

/// 95 % interval of the mean paired difference: Student's t over seeds, and the normal error of a
/// finite scoring set (the same images score both sides, so their per-image differences count),
/// added as independent errors.
fn interval(pairs: &[Pair<'_>], same: bool, scoring: usize) -> Option<[f64; 2]> {
    let n = pairs.len();
    if n < 2 {
        return None;
    }
    let differences: Vec<f64> = pairs.iter().map(|(a, t)| a.accuracy - t.accuracy).collect();
    let middle = mean(differences.iter().copied());
    let over_seeds = student(n - 1) * deviation(&differences) / (n as f64).sqrt();
    let mut images = vec![0.0; scoring];
    for (a, t) in pairs {
        for (d, (a, t)) in images.iter_mut().zip(unpack(&a.right).into_iter().zip(unpack(&t.right))) {
            *d += (f64::from(u8::from(a)) - f64::from(u8::from(t))) / n as f64;
        }
    }
    let count = scoring.max(1) as f64;
    // Where hardly any image tells the two apart, the rule of three says how rare such images may
    // still be. A twin beside itself is exact.
    let rare = if same { 0.0 } else { 3.0 / count };
    let over_images = (1.96 * deviation(&images) / count.sqrt()).max(rare);
    let half = over_seeds.hypot(over_images);
    Some([middle - half, middle + half])
}

/// Standard deviation of a sample.
fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let middle = mean(values.iter().copied());
    (values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// Two-sided 95 % quantiles of Student's t.
fn student(degrees: usize) -> f64 {
    const TABLE: [f64; 15] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131];
    match degrees {
        0 => f64::INFINITY,
        1..=15 => TABLE[degrees - 1],
        // Never below the true value.
        16..=30 => 2.131,
        _ => 2.042,
    }
}

#[cfg(test)]
pub(crate) mod tests;
