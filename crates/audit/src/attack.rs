//! The attackers. Each is one procedure that is told what is open; its black-box twin is the same
//! procedure told nothing.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use jali_leak::Policy;
use jali_model::Tensor;

use crate::AuditError;
use crate::fill::{statistics, zeros};
use crate::network::{Layer, vector};
use crate::train::{Examples, Free, Point, Schedule, Task, argmax, classify, train};
use crate::victim::Victim;

/// What an attacker does with hidden weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attacker {
    /// Zeros.
    Zero,
    /// Draws with the layer's statistics, cut to what the policy implies.
    Statistics,
    /// The best of several such draws on the budget's images.
    BestOf,
    /// Statistics, then a gain and a bias per channel fitted.
    Rescale,
    /// Statistics, then the hidden weights trained with the open ones frozen.
    TuneHidden,
    /// Statistics, then everything trained.
    TuneAll,
    /// Hidden weights of a public model of the same architecture, then everything trained.
    Public,
    /// As [`Attacker::TuneAll`] on the victim's logits instead of its labels.
    Distil,
    /// As [`Attacker::TuneAll`], but what is hidden of a row is first a trained combination of what
    /// the layer's other rows have open there.
    Span,
    /// A network of the attacker's own architecture, trained on the images alone.
    Own,
    /// A command that somebody else wrote ([`crate::command`]), by its own choice of procedure.
    Command,
}

/// Numbers as the documentation counts attackers, and names.
const NAMES: [(Attacker, u8, &str, &str); 11] = [
    (Attacker::Zero, 1, "zero", "hidden weights zero"),
    (Attacker::Statistics, 2, "statistics", "hidden weights drawn with the layer's statistics"),
    (Attacker::BestOf, 3, "best-of", "best of 16 such draws on the labelled images"),
    (Attacker::Rescale, 4, "rescale", "such a draw, then gains and biases fitted"),
    (Attacker::TuneHidden, 5, "tune-hidden", "such a draw, then hidden weights trained, open ones frozen"),
    (Attacker::TuneAll, 6, "tune-all", "such a draw, then everything trained"),
    (Attacker::Public, 7, "public", "hidden weights of a public model, then everything trained"),
    (Attacker::Distil, 8, "distil", "such a draw, then everything trained on the victim's logits"),
    (Attacker::Span, 9, "span", "what is hidden as a combination of the layer's open rows, then everything trained"),
    (Attacker::Own, 10, "own", "a network of its own architecture, trained on the images alone"),
    (Attacker::Command, 11, "command", "the command of --attacker"),
];

/// Draws of [`Attacker::BestOf`].
const DRAWS: usize = 16;
/// Most images that [`Attacker::BestOf`] compares its draws on.
const DRAW_IMAGES: usize = 200;
/// Softens logits before they serve as targets (Hinton et al. 2015): the small ones carry
/// information too.
const TEMPERATURE: f32 = 2.0;

impl Attacker {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|n| n.0)
    }

    /// 1 to 11.
    pub fn number(self) -> u8 {
        NAMES.iter().find(|n| n.0 == self).map_or(0, |n| n.1)
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        NAMES.iter().find(|n| n.0 == self).map_or("", |n| n.3)
    }

    /// Whether it can do something without a labelled image.
    pub fn works_without_images(self) -> bool {
        matches!(self, Self::Zero | Self::Statistics | Self::Public | Self::Command)
    }

    /// Whether what is open changes what it does. Where not, the attacker is its own twin.
    pub fn uses_weights(self) -> bool {
        self != Self::Own
    }

    /// Whether only a command can do it ([`crate::command`]).
    pub fn needs_command(self) -> bool {
        matches!(self, Self::Own | Self::Command)
    }

    /// Whether images change what it does.
    pub fn uses_images(self) -> bool {
        !matches!(self, Self::Zero | Self::Statistics)
    }
}

impl fmt::Display for Attacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|n| n.0 == *self).map_or("", |n| n.2))
    }
}

impl FromStr for Attacker {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        let known = NAMES.iter().find(|n| n.2 == text || text.parse() == Ok(n.1));
        known.map(|n| n.0).ok_or_else(|| AuditError::UnknownAttacker {
            got: text.into(),
            known: NAMES.iter().map(|n| n.2).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Images of the budget with the victim's answers.
#[derive(Debug, Clone)]
pub struct Queries {
    /// Images.
    pub images: Vec<Tensor>,
    /// The victim's logits for each.
    pub logits: Vec<Vec<f32>>,
}

impl Queries {
    /// Labels, of which a part is spread over all classes.
    fn hard(&self, smoothing: f64) -> Examples {
        self.examples(|logits| {
            let mut one = vec![(smoothing / logits.len() as f64) as f32; logits.len()];
            one[argmax(logits)] += (1.0 - smoothing) as f32;
            one
        })
    }

    fn soft(&self) -> Examples {
        self.examples(|logits| {
            let data = logits.iter().map(|v| v / TEMPERATURE).collect();
            Tensor { shape: vec![logits.len()], data }.softmax()
        })
    }

    fn examples(&self, target: impl Fn(&[f32]) -> Vec<f32>) -> Examples {
        Examples {
            images: self.images.iter().map(|i| i.data.clone()).collect(),
            targets: self.logits.iter().map(|l| target(l)).collect(),
        }
    }
}

/// What an attacker has.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// Architecture, scales and biases, and (only where `hidden` is 0) weights.
    pub victim: &'a Victim,
    /// 1 where a weight is hidden.
    pub hidden: &'a [Vec<f32>],
    /// What made the plan.
    pub policy: Option<Policy>,
    /// Labelled images.
    pub queries: &'a Queries,
    /// Weights of a public model of the same architecture, layer by layer; `None` for layers of
    /// another shape.
    pub public: Option<&'a [Option<Vec<f32>>]>,
}

/// What an attacker ends with.
#[derive(Debug, Clone)]
pub struct Surrogate {
    /// Its copy of the network.
    pub layers: Vec<Layer>,
    /// The learning rate that it chose, if it trained.
    pub rate: Option<f64>,
    /// Its learning curve.
    pub curve: Vec<Point>,
    /// Whether training ended on a plateau.
    pub plateau: bool,
}

/// What combinations of open rows are added to: draws in layers that have nothing open, zeros
/// elsewhere.
fn span_start(victim: &Victim, hidden: &[Vec<f32>], draws: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let all_hidden = |h: &Vec<f32>| h.iter().all(|h| *h > 0.0);
    let zeros = zeros(victim, hidden).into_iter();
    zeros.zip(draws).zip(hidden).map(|((zeros, draws), h)| if all_hidden(h) { draws } else { zeros }).collect()
}

/// Runs an attacker.
///
/// # Errors
/// [`AuditError::NoPublicModel`] for [`Attacker::Public`] without one, [`AuditError::NoCommand`] for
/// attackers that need a command: they are not run here.
pub fn attack(
    attacker: Attacker,
    knows: &Knowledge<'_>,
    schedule: &Schedule,
    seed: u64,
    device: &Device,
) -> Result<Surrogate, AuditError> {
    let Knowledge { victim, hidden, policy, queries, public } = *knows;
    let layers = |weights: Vec<Vec<f32>>| -> Vec<Layer> {
        let layer = |(w, known): (&Vec<f32>, &crate::victim::Layer)| {
            Layer::plain(vector(w, device), vector(&known.bias, device))
        };
        weights.iter().zip(victim.layers()).map(layer).collect()
    };
    let done = |layers| Surrogate { layers, rate: None, curve: vec![], plateau: true };
    // Draws of one seed are far from those of the next.
    let draw = |n: usize| statistics(victim, hidden, policy, seed * DRAWS as u64 + n as u64);
    // Both fills are tried: zeros are the better start where what is hidden is large and its signs
    // are a guess.
    let starts = || vec![layers(draw(0)), layers(zeros(victim, hidden))];
    let (begin, free) = match attacker {
        Attacker::Zero => return Ok(done(layers(zeros(victim, hidden)))),
        Attacker::Statistics => return Ok(done(layers(draw(0)))),
        Attacker::Own | Attacker::Command => return Err(AuditError::NoCommand),
        Attacker::BestOf => {
            let examples = queries.hard(0.0);
            let count = examples.images.len().min(DRAW_IMAGES);
            let classes: Vec<usize> = examples.targets[..count].iter().map(|t| argmax(t)).collect();
            let mut best: Option<(usize, Vec<Layer>)> = None;
            for n in 0..DRAWS {
                let candidate = layers(draw(n));
                let said = classify(victim.graph(), &candidate, &examples.images[..count], device);
                let right = said.iter().zip(&classes).filter(|(a, b)| a == b).count();
                if best.as_ref().is_none_or(|b| right > b.0) {
                    best = Some((right, candidate));
                }
            }
            return Ok(done(best.map(|b| b.1).unwrap_or_default()));
        }
        Attacker::Rescale => (starts(), Free::Scales),
        Attacker::TuneHidden => (starts(), Free::Hidden),
        Attacker::TuneAll | Attacker::Distil => (starts(), Free::Everything),
        Attacker::Span => (vec![layers(span_start(victim, hidden, draw(0)))], Free::Combinations),
        Attacker::Public => {
            let public = public.ok_or(AuditError::NoPublicModel)?;
            let mut weights = draw(0);
            for ((w, h), p) in weights.iter_mut().zip(hidden).zip(public) {
                let Some(p) = p else { continue };
                w.iter_mut().zip(h).zip(p).filter(|((_, h), _)| **h == 1.0).for_each(|((w, _), p)| *w = *p);
            }
            (vec![layers(weights)], Free::Everything)
        }
    };
    let is_soft = matches!(attacker, Attacker::Distil | Attacker::Span);
    let examples = if is_soft { queries.soft() } else { queries.hard(schedule.smoothing) };
    let task = Task { graph: victim.graph(), starts: &begin, hidden, free };
    let mut trained = train(&task, examples.clone(), schedule, seed, device);
    if free == Free::Combinations {
        let starts = [trained.layers];
        let task = Task { graph: victim.graph(), starts: &starts, hidden, free: Free::Everything };
        trained = train(&task, examples, schedule, seed, device);
    }
    let rate = (!trained.curve.is_empty()).then_some(trained.rate);
    Ok(Surrogate { layers: trained.layers, rate, curve: trained.curve, plateau: trained.plateau })
}
