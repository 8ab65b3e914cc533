//! What one cell computes: an attack, and how good its copy is.

use std::time::Instant;

use jali_model::Tensor;
use rand::RngExt;

use super::cells::{CellResult, burn, pack};
use super::context::Context;
use crate::AuditError;
use crate::attack::{Attacker, Knowledge, Queries, Surrogate, attack};
use crate::command::asking::{Guests, last_open_value};
use crate::command::{Assignment, Command};
use crate::fill::generator;
use crate::grid::{Cell, Source};
use crate::train::{Schedule, classify};

/// Folder of commands' views, and of what those printed that failed.
const ATTACKS: &str = "attacks";

/// What an attacker came to.
struct Trained {
    /// Its classes of the scoring images; none if it failed.
    got: Vec<usize>,
    surrogate: Option<Surrogate>,
    engine: String,
    failure: Option<String>,
}

impl Context {
    /// The labelled images of a budget and seed, with the victim's answers. Smaller budgets are the
    /// beginnings of larger ones.
    fn queries(&self, budget: usize, seed: u64) -> Result<Queries, AuditError> {
        let mut rng = generator("budget", seed);
        let mut all: Vec<usize> = (0..self.pool.len()).collect();
        for i in 0..budget.min(all.len()) {
            let j = rng.random_range(i..all.len());
            all.swap(i, j);
        }
        let images = all.iter().take(budget).map(|&i| self.pool.image(i)).collect::<Result<Vec<_>, _>>()?;
        if images.is_empty() || self.spec.guests.is_some() {
            return Ok(Queries { images, logits: vec![] });
        }
        let logits = self.answers.of(&format!("{budget}-images-of-seed-{seed}"), &self.victim, &images)?;
        Ok(Queries { images, logits })
    }

    /// Attacks as a cell says, and scores the copy.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) fn compute(&self, cell: &Cell) -> Result<CellResult, AuditError> {
        let begin = Instant::now();
        let plan = self.plan(cell.source, cell.leaked, cell.seed)?;
        let hidden = self.victim.hidden(&plan);
        let queries = self.queries(cell.budget, cell.seed)?;
        let policy = match cell.source {
            Source::Policy(p) => Some(p),
            _ => None,
        };
        let knows = Knowledge {
            victim: &self.victim,
            hidden: &hidden,
            policy,
            queries: &queries,
            public: self.public.as_deref(),
        };
        // With everything open there is nothing to attack.
        let is_attack = hidden.iter().flatten().any(|hidden| *hidden > 0.0);
        let trained = match &self.spec.command {
            Some(command) if is_attack => self.commanded(command, cell, &knows)?,
            Some(_) => self.trained(Attacker::Zero, cell, &knows)?,
            None => self.trained(cell.attacker, cell, &knows)?,
        };
        let Trained { got, surrogate, engine, failure } = trained;
        let right: Vec<bool> = got.iter().zip(&self.test).map(|(g, s)| *g == s.label).collect();
        let agree = got.iter().zip(&self.said).filter(|(g, s)| g == s).count();
        let count = self.test.len().max(1) as f64;
        Ok(CellResult {
            id: cell.id(),
            policy: cell.source.to_string(),
            leaked: cell.leaked,
            opened: plan.fraction_permitted(),
            budget: cell.budget,
            attacker: cell.attacker.to_string(),
            seed: cell.seed,
            accuracy: right.iter().filter(|r| **r).count() as f64 / count,
            fidelity: agree as f64 / count,
            right: pack(&right),
            rate: surrogate.as_ref().and_then(|s| s.rate),
            // Whether a command's training had ended, nobody here can tell.
            plateau: surrogate.as_ref().is_none_or(|s| s.plateau),
            curve: surrogate.map(|s| s.curve).unwrap_or_default(),
            seconds: (begin.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            engine,
            failure,
        })
    }

    /// Has an attacker of this program attack.
    fn trained(&self, attacker: Attacker, cell: &Cell, knows: &Knowledge<'_>) -> Result<Trained, AuditError> {
        let schedule = self.spec.schedule.clone().unwrap_or_else(|| Schedule::quick(false));
        let surrogate = attack(attacker, knows, &schedule, cell.seed, &self.device)?;
        let got = classify(self.victim.graph(), &surrogate.layers, &self.test_pixels, &self.device);
        Ok(Trained { got, surrogate: Some(surrogate), engine: burn(), failure: None })
    }

    /// Has a command attack.
    fn commanded(&self, command: &Command, cell: &Cell, knows: &Knowledge<'_>) -> Result<Trained, AuditError> {
        let images: Vec<Tensor> = self.test.iter().map(|sample| sample.image.clone()).collect();
        let value = last_open_value(self.victim.graph(), knows.hidden);
        let guests = self.spec.guests.map(|told| Guests { told, value });
        let assignment = Assignment { cell, knows, guests };
        let attacked = command.attack(&self.folder.join(ATTACKS).join(cell.id()), &assignment, &images)?;
        let (got, failure) = attacked.map_or_else(|why| (vec![], Some(why)), |got| (got, None));
        Ok(Trained { got, surrogate: None, engine: command.line.clone(), failure })
    }
}
