//! How long and how fast attackers train.

use serde::{Deserialize, Serialize};

/// How training goes: the same for all attackers of a run, so that no side is tuned better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Images of a step.
    pub batch: usize,
    /// Least steps between two looks at the validation images; a look comes after a whole pass if
    /// that is longer.
    pub steps: usize,
    /// Looks (after `steps` steps each) that every start and learning rate gets before the best
    /// goes on.
    pub probe: usize,
    /// Most rounds in all of the chosen learning rate.
    pub rounds: usize,
    /// Rounds without a better validation result before the learning rate falls to a third; after
    /// half as many more it ends.
    pub patience: usize,
    /// Learning rates tried in every cell.
    pub rates: Vec<f64>,
    /// Part of the budget kept for validation.
    pub validation: f64,
    /// Random shifts of training images, in pixels either way.
    pub shift: usize,
    /// Whether training images are mirrored at random.
    pub mirror: bool,
    /// Side of the square that is cut out of training images, in pixels; 0 cuts nothing.
    #[serde(default)]
    pub hole: usize,
    /// Part of a label that is spread over all classes.
    #[serde(default)]
    pub smoothing: f64,
    /// Whether batch normalisation stands behind every layer but the last where everything trains.
    #[serde(default)]
    pub normal: bool,
}

impl Schedule {
    /// Of a run: for a first impression, or in full.
    pub fn new(quick: bool, mirror: bool) -> Self {
        if quick { Self::quick(mirror) } else { Self::full(mirror) }
    }

    /// To a plateau.
    pub fn full(mirror: bool) -> Self {
        let rates = vec![1e-2, 2e-3, 4e-4];
        let hole = if mirror { 8 } else { 0 };
        Self {
            batch: 16,
            steps: 10,
            probe: 2,
            rounds: 60,
            patience: 6,
            rates,
            validation: 0.2,
            shift: 2,
            mirror,
            hole,
            smoothing: 0.1,
            normal: true,
        }
    }

    /// A first impression in minutes.
    pub fn quick(mirror: bool) -> Self {
        let rates = vec![5e-3, 1e-3];
        Self { probe: 2, rounds: 12, patience: 4, rates, ..Self::full(mirror) }
    }

    /// What makes a schedule from a file unusable, if anything does.
    pub fn unusable(&self) -> Option<String> {
        let within = |what: &str, got: usize, most: usize| {
            (got == 0 || got > most)
                .then(|| format!("\"{what}\" of the schedule is {got}, it must be from 1 to {most}"))
        };
        if self.rates.is_empty() || self.rates.len() > 100 || !self.rates.iter().all(|r| *r > 0.0 && *r < 1e3) {
            return Some("\"rates\" of the schedule must be 1 to 100 positive numbers".into());
        }
        if !(self.validation > 0.0 && self.validation < 1.0) || self.shift > 1000 {
            return Some("\"validation\" of the schedule must be between 0 and 1, \"shift\" at most 1000".into());
        }
        if !(0.0..1.0).contains(&self.smoothing) || self.hole > 1000 {
            return Some("\"smoothing\" of the schedule must be at least 0 and below 1, \"hole\" at most 1000".into());
        }
        within("batch", self.batch, 1 << 16)
            .or_else(|| within("steps", self.steps, 1 << 20))
            .or_else(|| within("rounds", self.rounds, 1 << 20))
            .or_else(|| within("probe", self.probe, 1 << 20))
            .or_else(|| within("patience", self.patience, 1 << 20))
    }

    pub(super) fn validation_count(&self, images: usize) -> usize {
        ((images as f64 * self.validation).round() as usize).clamp(1, images.saturating_sub(1).max(1))
    }
}
