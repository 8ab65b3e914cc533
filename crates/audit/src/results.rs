//! `results.json`: all that a run says, in one file. `report.html` is made of it and of nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jali::files::read_bounded;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::findings::{Findings, LayerFacts, PlanFacts};
use crate::grid::Cell;
use crate::run::{BURN, CellResult, Spec, burn, unpack};
use crate::summary::Row;
use crate::train::Point;
use crate::verdict::Recommendation;

/// Most bytes of such a file.
const MAX_FILE: u64 = 1 << 28;

/// What `results.json` holds, and what `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The model as it was named.
    pub model: String,
    /// Its hash.
    pub model_hash: String,
    /// `cifar10` or `mnist`: the form of the data.
    pub dataset: String,
    /// Images that score.
    pub scoring: usize,
    /// The victim's accuracy on them.
    pub victim_accuracy: f64,
    /// Accuracy of guessing.
    pub chance: f64,
    /// Cells of the grid that have no result yet.
    pub missing_cells: usize,
    /// What the run says, in words.
    pub verdict: Vec<String>,
    /// The cheapest plan within each of a few bounds on the advantage.
    #[serde(default)]
    pub recommended: Vec<Recommendation>,
    /// What the run is about.
    pub spec: Spec,
    /// The victim's linear layers.
    pub layers: Vec<LayerFacts>,
    /// Results of the cells.
    pub cells: Vec<CellLine>,
    /// Their summary.
    pub summary: Vec<Row>,
    /// The plans.
    pub plans: Vec<PlanFacts>,
}

/// The result of one cell, without the learning curves of all seeds but the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellLine {
    /// Name of the cell.
    pub id: String,
    /// What made the plan.
    pub policy: String,
    /// Fraction of weights that was asked to be open.
    pub leaked: f64,
    /// Fraction that the plan permits.
    pub opened: f64,
    /// Labelled images.
    pub budget: usize,
    /// Who attacked.
    pub attacker: String,
    /// Of plan, images, draws and training.
    pub seed: u64,
    /// Part of the scoring images that the surrogate classifies rightly.
    pub accuracy: f64,
    /// Part on which it agrees with the victim.
    pub fidelity: f64,
    /// Which images it classifies rightly, four a hexadecimal digit; empty after a failure.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub right: String,
    /// Steps of training.
    pub steps: usize,
    /// Learning rate chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// Learning curve, of seed 0 alone.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub curve: Vec<Point>,
    /// Whether training ended on a plateau.
    pub plateau: bool,
    /// Wall time in seconds.
    pub seconds: f64,
    /// What trained: `burn`, or the command.
    #[serde(default = "burn")]
    pub engine: String,
    /// Why there is no copy, if a command failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

impl CellLine {
    /// What is wrong with it as the result of a cell, if anything is.
    fn damage(&self, cell: &Cell, spec: &Spec) -> Option<&'static str> {
        let named = (self.policy.clone(), self.leaked, self.budget, self.attacker.clone(), self.seed);
        if named != (cell.source.to_string(), cell.leaked, cell.budget, cell.attacker.to_string(), cell.seed) {
            return Some("its fields are those of another cell");
        }
        // Where nothing is hidden no command attacks.
        let is_ours = self.engine == BURN && (spec.command.is_none() || self.opened >= 1.0);
        if !is_ours && spec.command.as_ref().is_none_or(|command| command.line != self.engine) {
            return Some("its engine is not that of the run");
        }
        if self.failure.is_some() {
            return None;
        }
        if self.right.is_empty() {
            return Some("it does not say which images are classified correctly (written by an earlier version)");
        }
        let digits = self.right.chars().all(|c| c.is_ascii_hexdigit());
        let right = unpack(&self.right).iter().filter(|right| **right).count() as f64 / spec.scoring.max(1) as f64;
        if !digits || self.right.len() != spec.scoring.div_ceil(4) || (right - self.accuracy).abs() > 1e-9 {
            return Some("\"right\" and \"accuracy\" do not say the same");
        }
        (!(0.0..=1.0).contains(&self.fidelity)).then_some("\"fidelity\" is not from 0 to 1")
    }
}

impl From<&CellResult> for CellLine {
    fn from(r: &CellResult) -> Self {
        Self {
            id: r.id.clone(),
            policy: r.policy.clone(),
            leaked: r.leaked,
            opened: r.opened,
            budget: r.budget,
            attacker: r.attacker.clone(),
            seed: r.seed,
            accuracy: r.accuracy,
            fidelity: r.fidelity,
            right: r.right.clone(),
            steps: r.curve.last().map_or(0, |p| p.step),
            rate: r.rate,
            // The page draws these.
            curve: if r.seed == 0 { r.curve.clone() } else { vec![] },
            plateau: r.plateau,
            seconds: r.seconds,
            engine: r.engine.clone(),
            failure: r.failure.clone(),
        }
    }
}

impl From<CellLine> for CellResult {
    fn from(line: CellLine) -> Self {
        let CellLine {
            id,
            policy,
            leaked,
            opened,
            budget,
            attacker,
            seed,
            accuracy,
            fidelity,
            right,
            rate,
            curve,
            plateau,
            seconds,
            engine,
            failure,
            ..
        } = line;
        Self {
            id,
            policy,
            leaked,
            opened,
            budget,
            attacker,
            seed,
            accuracy,
            fidelity,
            right,
            rate,
            curve,
            plateau,
            seconds,
            engine,
            failure,
        }
    }
}

impl From<&Findings> for Results {
    fn from(f: &Findings) -> Self {
        Self {
            model: f.spec.model.clone(),
            model_hash: f.spec.model_hash.clone(),
            dataset: f.spec.dataset.clone(),
            scoring: f.spec.scoring,
            victim_accuracy: f.victim_accuracy,
            chance: f.chance,
            missing_cells: f.missing,
            verdict: f.verdict(),
            recommended: f.recommendations(),
            spec: f.spec.clone(),
            layers: f.layers.clone(),
            cells: f.results.iter().map(CellLine::from).collect(),
            summary: f.rows.clone(),
            plans: f.plans.clone(),
        }
    }
}

impl Results {
    /// Reads a file that `jali-audit run` or `jali-audit report` wrote.
    ///
    /// # Errors
    /// [`AuditError::File`] for anything else, also of earlier versions.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let bytes = read_bounded(path, MAX_FILE)?;
        let results: Self = serde_json::from_slice(&bytes).map_err(|e| AuditError::File {
            path: path.into(),
            why: format!("not a results.json of this version ({e}); `jali-audit report --out DIR` writes one of a run"),
        })?;
        results.spec.check(path)?;
        Ok(results)
    }

    /// What the run is about, and the results of its cells.
    ///
    /// # Errors
    /// [`AuditError::File`] for results that are damaged, or of earlier versions: without the images
    /// that a copy classifies rightly there are no intervals.
    pub fn into_run(self, path: &Path) -> Result<(Spec, Vec<CellResult>), AuditError> {
        let cells: BTreeMap<String, Cell> = self.spec.grid.cells()?.into_iter().map(|c| (c.id(), c)).collect();
        let mut seen = BTreeSet::new();
        for line in &self.cells {
            let why = match cells.get(&line.id) {
                None => Some("its grid has no such cell"),
                Some(_) if !seen.insert(&line.id) => Some("it is there twice"),
                Some(cell) => line.damage(cell, &self.spec),
            };
            if let Some(why) = why {
                let why = format!(
                    "cells: {}: {why}. `jali-audit report --out DIR` writes the file again where the folder of the run is left",
                    line.id
                );
                return Err(AuditError::File { path: path.into(), why });
            }
        }
        Ok((self.spec, self.cells.into_iter().map(CellResult::from).collect()))
    }

    /// What the report is made of.
    pub fn into_findings(self) -> Findings {
        Findings {
            spec: self.spec,
            victim_accuracy: self.victim_accuracy,
            chance: self.chance,
            layers: self.layers,
            missing: self.missing_cells,
            results: self.cells.into_iter().map(CellResult::from).collect(),
            rows: self.summary,
            plans: self.plans,
        }
    }
}
