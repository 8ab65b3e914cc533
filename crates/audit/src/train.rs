//! Training of a surrogate to a validation plateau. One procedure for every attacker and every
//! black-box twin.

mod augment;
mod normal;
mod schedule;

use augment::augment;
use burn::optim::{Adam, AdamConfig, Optimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use chacha20::ChaCha20Rng;
use jali_model::Graph;
use rand::RngExt;
use rand_distr::StandardNormal;
pub use schedule::Schedule;
use serde::{Deserialize, Serialize};

use crate::fill::generator;
use crate::network::{self, Layer, forward, vector};

/// Images with what the victim said about them.
#[derive(Debug, Clone)]
pub struct Examples {
    /// Pixels of every image.
    pub images: Vec<Vec<f32>>,
    /// Probabilities of every class for every image: all on one class for hard labels.
    pub targets: Vec<Vec<f32>>,
}

/// What training may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    /// Hidden weights.
    Hidden,
    /// All weights and biases.
    Everything,
    /// A gain and a bias per output channel.
    Scales,
    /// For hidden weights of a layer, a matrix by which they are combinations of what its rows have
    /// open in the same place; and all biases.
    Combinations,
}

/// What was seen at one look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps so far.
    pub step: usize,
    /// Mean loss of the training steps since the last look; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub train_loss: Option<f32>,
    /// Loss on the validation images.
    pub validation_loss: f32,
    /// Part of the validation images on which it agrees with the labels.
    pub validation_agreement: f32,
}

/// A trained surrogate.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Its layers.
    pub layers: Vec<Layer>,
    /// The learning rate that was chosen.
    pub rate: f64,
    /// Which start was.
    pub start: usize,
    /// All looks of the chosen learning rate.
    pub curve: Vec<Point>,
    /// Whether it stopped because validation did not improve any more.
    pub plateau: bool,
}

/// Most training images whose statistics normalise a copy.
const STATISTICS: usize = 128;

/// Everything that does not change during training.
struct Trainer<'a> {
    graph: &'a Graph,
    starts: &'a [Vec<Layer>],
    hidden: Vec<Tensor<1>>,
    free: Free,
    /// Where weights train behind normalisation: for every start, its layers with that.
    normal: Option<Vec<Vec<Layer>>>,
    training: Examples,
    /// Of these images the statistics serve outside of training.
    typical: Tensor<4>,
    validation: Batch,
    schedule: &'a Schedule,
    device: &'a Device,
    adam: Adam,
}

struct Batch {
    pixels: Tensor<4>,
    targets: Tensor<2>,
    classes: Vec<usize>,
}

type AdamState = <Adam as Optimizer>::State<1>;

/// A run with one learning rate, under way.
struct Run {
    start: usize,
    chosen: f64,
    rate: f64,
    decayed: bool,
    rng: ChaCha20Rng,
    parameters: Vec<Tensor<1>>,
    states: Vec<Option<AdamState>>,
    step: usize,
    order: Vec<usize>,
    best: Vec<Layer>,
    best_score: (f32, f32),
    waiting: usize,
    curve: Vec<Point>,
}

/// What is trained, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Architecture.
    pub graph: &'a Graph,
    /// Where training may start: the best start is found like the best learning rate.
    pub starts: &'a [Vec<Layer>],
    /// 1 where a weight is hidden.
    pub hidden: &'a [Vec<f32>],
    /// What may change.
    pub free: Free,
}

/// Trains on labelled images. Fewer than two leave the first start as it is.
pub fn train(task: &Task<'_>, examples: Examples, schedule: &Schedule, seed: u64, device: &Device) -> Trained {
    let Task { graph, starts, hidden, free } = *task;
    let mut examples = examples;
    let untrained = || Trained {
        layers: starts.first().cloned().unwrap_or_default(),
        rate: 0.0,
        start: 0,
        curve: vec![],
        plateau: true,
    };
    if examples.images.len() < 2 {
        return untrained();
    }
    // They come in random order already.
    let kept = schedule.validation_count(examples.images.len());
    let at = examples.images.len() - kept;
    let held = Examples { images: examples.images.split_off(at), targets: examples.targets.split_off(at) };
    let typical = examples.images[..at.min(STATISTICS)].concat();
    let typical = network::images(graph, typical, device);
    let normalises = schedule.normal && free == Free::Everything;
    let normal = |start: &Vec<Layer>| normal::insert(graph, start, hidden, typical.clone());
    let trainer = Trainer {
        graph,
        starts,
        hidden: hidden.iter().map(|h| vector(h, device)).collect(),
        free,
        normal: normalises.then(|| starts.iter().map(normal).collect()),
        typical: typical.clone(),
        validation: batch(graph, held.images.concat(), &held.targets, device),
        training: examples,
        schedule,
        device,
        adam: AdamConfig::new().build(),
    };
    let mut best: Option<Run> = None;
    for start in 0..starts.len() {
        for &rate in &schedule.rates {
            // The same order and augmentation for every start and learning rate.
            let mut run = trainer.begin(start, rate, generator("training", seed));
            for _ in 0..schedule.probe {
                trainer.round(&mut run, schedule.steps);
            }
            if best.as_ref().is_none_or(|b| run.best_score > b.best_score) {
                best = Some(run);
            }
        }
    }
    let Some(mut run) = best else { return untrained() };
    let pass = trainer.training.images.len().div_ceil(schedule.batch.max(1));
    let (steps, mut ended) = (schedule.steps.max(pass), false);
    while run.curve.len() <= schedule.rounds && !ended {
        ended = trainer.round(&mut run, steps);
    }
    Trained { layers: run.best, rate: run.chosen, start: run.start, plateau: ended, curve: run.curve }
}

fn batch(graph: &Graph, pixels: Vec<f32>, targets: &[Vec<f32>], device: &Device) -> Batch {
    let classes = targets.first().map_or(1, Vec::len);
    let data = TensorData::new(targets.concat(), [targets.len(), classes]);
    Batch {
        pixels: network::images(graph, pixels, device),
        targets: Tensor::from_data(data, device),
        classes: targets.iter().map(|t| argmax(t)).collect(),
    }
}

/// Index of the largest value.
pub fn argmax(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

fn values(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().try_to_vec().unwrap_or_default()
}

/// Cross entropy with probabilities, mean over images.
fn loss(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let images = targets.dims()[0] as f32;
    (log_softmax(logits, 1) * targets).sum().neg() / images
}

fn scalar(t: Tensor<1>) -> f32 {
    values(t.into_data()).first().copied().unwrap_or(f32::INFINITY)
}

impl Trainer<'_> {
    /// A start as it is trained: with normalisation if there is one.
    fn from(&self, start: usize) -> &[Layer] {
        &self.normal.as_deref().unwrap_or(self.starts)[start]
    }

    fn begin(&self, start: usize, rate: f64, rng: ChaCha20Rng) -> Run {
        let from = self.from(start);
        let weights = from.iter().map(|l| l.weight.clone());
        let biases = from.iter().map(|l| l.bias.clone());
        let gains = from.iter().filter_map(|l| l.gain.clone());
        let parameters: Vec<Tensor<1>> = match self.free {
            Free::Hidden => weights.collect(),
            Free::Everything => weights.chain(biases).chain(gains).collect(),
            Free::Scales => from.iter().map(|l| l.bias.ones_like()).chain(biases).collect(),
            Free::Combinations => {
                let matrix = |(l, layer): (usize, &Layer)| vector(&self.combinations(l, layer), self.device);
                from.iter().enumerate().map(matrix).chain(biases).collect()
            }
        };
        let mut run = Run {
            start,
            chosen: rate,
            rate,
            decayed: false,
            rng,
            states: vec![None; parameters.len()],
            best: self.starts[start].clone(),
            parameters,
            step: 0,
            order: vec![],
            best_score: (-1.0, 0.0),
            waiting: 0,
            curve: vec![],
        };
        // The start counts: training must not make anything worse.
        self.look(&mut run, self.starts[start].clone(), None);
        run
    }

    /// Where the combinations of a layer's rows start: at random, so that no unit is dead, and so
    /// that a combination is about as large as a row.
    fn combinations(&self, index: usize, layer: &Layer) -> Vec<f32> {
        let rows = layer.bias.dims()[0];
        let mut rng = generator(&format!("combinations of layer {index}"), 0);
        let size = 1.0 / (rows.max(1) as f32).sqrt();
        (0..rows * rows).map(|_| rng.sample::<f32, _>(StandardNormal) * size).collect()
    }

    /// The network with these parameters.
    fn layers(&self, start: usize, parameters: &[Tensor<1>]) -> Vec<Layer> {
        let from = self.from(start);
        let count = from.len();
        // All layers but the last normalise, or none does: gains are numbered like layers.
        let gain = |l: usize| parameters.get(2 * count + l).cloned();
        let layer = |(l, start): (usize, &Layer)| match self.free {
            Free::Hidden => {
                let hidden = &self.hidden[l];
                // Plus zero times the parameter at open places: no gradient reaches them.
                let open = hidden.clone().neg().add_scalar(1.0);
                let weight = start.weight.clone() * open + parameters[l].clone() * hidden.clone();
                Layer { weight, ..start.clone() }
            }
            Free::Everything => {
                let bias = parameters[count + l].clone();
                Layer { weight: parameters[l].clone(), bias, gain: gain(l), normal: start.normal }
            }
            Free::Combinations => {
                let rows = start.bias.dims()[0];
                let hidden = self.hidden[l].clone();
                let open = start.weight.clone() * (hidden.clone().neg().add_scalar(1.0));
                let combined = parameters[l].clone().reshape([rows, rows]).matmul(open.reshape([rows as i32, -1]));
                let weight = start.weight.clone() + combined.reshape([-1]) * hidden;
                Layer::plain(weight, parameters[count + l].clone())
            }
            Free::Scales => Layer {
                weight: start.weight.clone(),
                gain: Some(parameters[l].clone()),
                bias: parameters[count + l].clone(),
                normal: false,
            },
        };
        from.iter().enumerate().map(layer).collect()
    }

    /// Steps and a look; whether the plateau is reached.
    fn round(&self, run: &mut Run, steps: usize) -> bool {
        let batch_size = self.schedule.batch.min(self.training.images.len());
        let mut sum = 0.0;
        for _ in 0..steps {
            sum += self.step(run, batch_size);
        }
        let mut layers = self.layers(run.start, &run.parameters);
        if self.normal.is_some() {
            layers = normal::fold(self.graph, &layers, self.typical.clone());
        }
        self.look(run, layers, Some(sum / steps as f32))
    }

    fn step(&self, run: &mut Run, size: usize) -> f32 {
        let mut pixels = vec![];
        let mut targets = vec![];
        for _ in 0..size {
            if run.order.is_empty() {
                run.order = (0..self.training.images.len()).collect();
                for i in (1..run.order.len()).rev() {
                    run.order.swap(i, run.rng.random_range(0..=i));
                }
            }
            let Some(i) = run.order.pop() else { continue };
            augment(self.graph.input_shape(), self.schedule, &self.training.images[i], &mut pixels, &mut run.rng);
            targets.push(self.training.targets[i].clone());
        }
        let batch = batch(self.graph, pixels, &targets, self.device);
        let leaves: Vec<Tensor<1>> = run.parameters.iter().map(|p| p.clone().autodiff().require_grad()).collect();
        let logits = forward(self.graph, &self.layers(run.start, &leaves), batch.pixels.autodiff());
        let loss = loss(logits, batch.targets.autodiff());
        let mut gradients = loss.backward();
        let value = scalar(loss.inner());
        if value.is_finite() {
            for ((p, leaf), state) in run.parameters.iter_mut().zip(&leaves).zip(&mut run.states) {
                if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                    let (next, s) = self.adam.step(run.rate, p.clone(), gradient, state.take());
                    (*p, *state) = (next, s);
                }
            }
        }
        run.step += 1;
        value
    }

    /// Looks at what the run has come to and keeps the best on the validation images; whether there
    /// is no hope of better.
    fn look(&self, run: &mut Run, layers: Vec<Layer>, train_loss: Option<f32>) -> bool {
        let logits = forward(self.graph, &layers, self.validation.pixels.clone());
        let validation_loss = scalar(loss(logits.clone(), self.validation.targets.clone()));
        let agree = predictions(logits).iter().zip(&self.validation.classes).filter(|(a, b)| a == b).count();
        let validation_agreement = agree as f32 / self.validation.classes.len() as f32;
        run.curve.push(Point { step: run.step, train_loss, validation_loss, validation_agreement });
        let score = (validation_agreement, -validation_loss);
        // On few images agreement is coarse and the loss of a copy that is too sure of itself
        // misleads (it rises while accuracy still does): of equals the one that has trained longer
        // is kept.
        if validation_agreement >= run.best_score.0 {
            run.best = layers;
        }
        if score > run.best_score {
            run.best_score = score;
            run.waiting = 0;
            return false;
        }
        run.waiting += 1;
        if run.waiting < self.schedule.patience {
            return false;
        }
        if !run.decayed {
            run.rate = run.chosen / 3.0;
            run.decayed = true;
            run.waiting = self.schedule.patience / 2;
            return false;
        }
        true
    }
}

/// Classes with the largest logits.
pub fn predictions(logits: Tensor<2>) -> Vec<usize> {
    let classes = logits.dims()[1];
    values(logits.into_data()).chunks_exact(classes.max(1)).map(argmax).collect()
}

/// What a surrogate says about images.
pub fn classify(graph: &Graph, layers: &[Layer], images: &[Vec<f32>], device: &Device) -> Vec<usize> {
    const BATCH: usize = 64;
    let run = |part: &[Vec<f32>]| predictions(forward(graph, layers, network::images(graph, part.concat(), device)));
    images.chunks(BATCH).flat_map(run).collect()
}
