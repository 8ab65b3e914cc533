//! The grid of a run: which cells there are. A cell is one attacker with one budget and one seed
//! against one plan; cells are independent of each other, so that any scheduler can spread them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jali_leak::Policy;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::attack::Attacker;

/// What made a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nothing is open: the black box, the twin of every other cell.
    Nothing,
    /// A policy at a fraction.
    Policy(Policy),
    /// A plan from a file.
    File,
    /// Everything is open: the white box.
    Everything,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Policy(p) => p.fmt(f),
            Self::File => f.write_str("plan"),
            Self::Everything => f.write_str("everything"),
        }
    }
}

impl FromStr for Source {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        Ok(match text {
            "nothing" => Self::Nothing,
            "plan" => Self::File,
            "everything" => Self::Everything,
            _ => Self::Policy(text.parse()?),
        })
    }
}

/// One attack to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What made the plan.
    pub source: Source,
    /// Fraction of the weights that was asked to be open.
    pub leaked: f64,
    /// Labelled images.
    pub budget: usize,
    /// Who attacks.
    pub attacker: Attacker,
    /// Of plan, budget images, draws and training.
    pub seed: u64,
}

impl Cell {
    /// A name that is also a file name.
    pub fn id(&self) -> String {
        let Self { source, leaked, budget, attacker, seed } = self;
        match source {
            Source::Policy(_) => format!("{source}-{}-b{budget}-{attacker}-s{seed}", percent(*leaked)),
            _ => format!("{source}-b{budget}-{attacker}-s{seed}"),
        }
    }

    /// What it costs beside others, about: for the bar's time left.
    pub fn weight(&self) -> u64 {
        match self.attacker {
            Attacker::Zero | Attacker::Statistics => 1,
            Attacker::BestOf => 3,
            _ => 8 + (self.budget as u64) / 12,
        }
    }
}

/// Per cent without trailing zeros.
pub fn percent(fraction: f64) -> String {
    format!("{}", (fraction * 1e4).round() / 1e2)
}

/// Returns a policy, and the fraction that its name may carry: `random-rows@0.8`.
///
/// # Errors
/// [`AuditError::Leak`] for an unknown policy, [`AuditError::Usage`] for a fraction outside of 0 to
/// 1.
pub fn split(name: &str) -> Result<(Policy, Option<f64>), AuditError> {
    let Some((policy, fraction)) = name.split_once('@') else { return Ok((name.parse()?, None)) };
    let got = fraction.parse().ok().filter(|f| (0.0..=1.0).contains(f));
    let why = || format!("\"{name}\": behind the @ stands a fraction from 0 to 1, such as random-rows@0.8");
    Ok((policy.parse()?, Some(got.ok_or_else(|| AuditError::Usage { what: why() })?)))
}

/// Most cells of a grid.
const MAX_CELLS: usize = 10_000_000;

/// What a run varies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Names of policies; `NAME@F` is one at this fraction alone.
    pub policies: Vec<String>,
    /// Fractions of weights open for policies without one of their own; 0 and 1 are always there.
    pub fractions: Vec<f64>,
    /// Labelled images of an attacker.
    pub budgets: Vec<usize>,
    /// Names of attackers.
    pub attackers: Vec<String>,
    /// Seeds 0 to this, exclusive.
    pub seeds: u64,
    /// The fraction that a plan from a file permits, if one is audited.
    pub plan: Option<f64>,
}

impl Grid {
    /// All cells, those of the first seed first, so that a run that is cut short still says
    /// something about everything.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttacker`], [`AuditError::Leak`] for unknown names.
    pub fn cells(&self) -> Result<Vec<Cell>, AuditError> {
        let sizes = [self.policies.len(), self.fractions.len() + 2, self.budgets.len() + 1, self.attackers.len()];
        let most = sizes.iter().try_fold(self.seeds as usize, |n, s| n.checked_mul((*s).max(1)));
        if most.is_none_or(|n| n > MAX_CELLS) {
            return Err(AuditError::Usage { what: format!("the grid has more than {MAX_CELLS} cells: ask for fewer") });
        }
        let mut attackers = self.attackers.iter().map(|a| a.parse()).collect::<Result<Vec<Attacker>, _>>()?;
        let mut seen = BTreeSet::new();
        attackers.retain(|a| seen.insert(*a));
        let points = self.points()?;
        let mut cells = vec![];
        for seed in 0..self.seeds {
            if seed == 0 {
                // Nothing is left to guess: one cell is enough.
                cells.push(Cell { source: Source::Everything, leaked: 1.0, budget: 0, attacker: Attacker::Zero, seed });
            }
            for &budget in &self.budgets_with_zero() {
                for &(source, leaked) in &points {
                    for &attacker in &attackers {
                        let images = if budget == 0 { attacker.works_without_images() } else { attacker.uses_images() };
                        if images && (attacker.uses_weights() || source == Source::Nothing) {
                            cells.push(Cell { source, leaked, budget, attacker, seed });
                        }
                    }
                }
            }
        }
        Ok(cells)
    }

    /// What is open to whom, each once: nothing, a plan from a file, and policies at fractions.
    fn points(&self) -> Result<Vec<(Source, f64)>, AuditError> {
        let mut points: Vec<(Source, f64)> = vec![(Source::Nothing, 0.0)];
        points.extend(self.plan.map(|leaked| (Source::File, leaked)));
        for name in &self.policies {
            let (policy, own) = split(name)?;
            let fractions = own.map_or(self.fractions.clone(), |f| vec![f]);
            for fraction in fractions.into_iter().filter(|f| *f > 0.0 && *f < 1.0) {
                let source = Source::Policy(policy);
                let same = |p: &&(Source, f64)| p.0 == source && percent(p.1) == percent(fraction);
                match points.iter().find(same) {
                    None => points.push((source, fraction)),
                    Some((_, other)) if *other == fraction => {}
                    Some((_, other)) => {
                        let what = format!(
                            "{policy} at {other} and at {fraction}: fractions of one run differ by 0.0001 or more"
                        );
                        return Err(AuditError::Usage { what });
                    }
                }
            }
        }
        Ok(points)
    }

    /// Attackers without images always run.
    fn budgets_with_zero(&self) -> Vec<usize> {
        let mut budgets = self.budgets.clone();
        budgets.push(0);
        budgets.sort_unstable();
        budgets.dedup();
        budgets
    }

    /// Everything that either of two grids has.
    pub fn union(&self, other: &Self) -> Self {
        let names = |a: &[String], b: &[String]| {
            let mut all = a.to_vec();
            all.extend(b.iter().filter(|n| !a.contains(n)).cloned());
            all
        };
        let mut fractions = [self.fractions.clone(), other.fractions.clone()].concat();
        fractions.sort_by(f64::total_cmp);
        fractions.dedup();
        let mut budgets = [self.budgets.clone(), other.budgets.clone()].concat();
        budgets.sort_unstable();
        budgets.dedup();
        Self {
            policies: names(&self.policies, &other.policies),
            fractions,
            budgets,
            attackers: names(&self.attackers, &other.attackers),
            seeds: self.seeds.max(other.seeds),
            plan: other.plan.or(self.plan),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(policies: &[&str], fractions: &[f64]) -> Grid {
        Grid {
            policies: policies.iter().map(|p| (*p).into()).collect(),
            fractions: fractions.to_vec(),
            budgets: vec![50, 50],
            attackers: vec!["tune-all".into(), "tune-all".into()],
            seeds: 1,
            plan: None,
        }
    }

    #[test]
    fn a_grid_has_every_cell_once() {
        let cells = grid(&["random-rows@0.5", "random-rows"], &[0.5, 0.5, 0.8]).cells().unwrap();
        let ids: BTreeSet<String> = cells.iter().map(Cell::id).collect();
        assert_eq!(ids.len(), cells.len());
        // Everything open; nothing, half and 80 % with images.
        assert_eq!(cells.len(), 1 + 3, "{ids:?}");
    }

    #[test]
    fn fractions_of_one_name_are_refused() {
        let said = grid(&["random-rows"], &[0.99996, 0.99999]).cells().unwrap_err().to_string();
        assert!(said.contains("0.99996") && said.contains("0.99999"), "{said}");
    }
}
