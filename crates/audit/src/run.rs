//! A run: the network, the data and the grid in a folder, and the results of its cells beside them. Every cell is a file of
//! its own, written aside and renamed: what is there is done and is not computed again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use burn::tensor::Device;
use jali::bundle::{Readers, write_aside};
use jali::image_file::read_bounded;
use jali::network::{read_model, read_plan};
use jali::{Costs, Dataset, JaliError, Network, Records, Sample};
use jali_leak::file::model_hash;
use jali_leak::{Ground, Order, Plan, Policy};
use jali_model::{Linear, QuantConfig, QuantModel, Tensor};
use jali_protocol::{Blueprint, row_savings};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::attack::{Attacker, Knowledge, Queries, attack};
use crate::fill::generator;
use crate::grid::{Cell, Grid, Source};
use crate::sensitivity;
use crate::train::{Point, Schedule, argmax, classify};
use crate::victim::Victim;

/// Changes when results of before are no longer comparable.
pub const METHOD: u32 = 1;
const SPEC: &str = "run.json";
const CELLS: &str = "cells";
/// Most bytes of any of our files.
const MAX_FILE: u64 = 1 << 28;

/// What a run is about: two runs whose specifications agree (the grid aside) can be joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// [`METHOD`].
    pub method: u32,
    /// The model as it was named.
    pub model: String,
    /// Its hash.
    pub model_hash: String,
    /// Folder of the full data set, if not the bundled images.
    pub data: Option<String>,
    /// `cifar10` or `mnist`: the form of the data.
    pub dataset: String,
    /// Images that score.
    pub scoring: usize,
    /// Training.
    pub schedule: Schedule,
    /// A plan from a file, as named.
    pub plan: Option<String>,
    /// BLAKE3 of that file.
    pub plan_hash: Option<String>,
    /// A public model, as named.
    pub public_model: Option<String>,
    /// Its hash.
    pub public_hash: Option<String>,
    /// What varies.
    pub grid: Grid,
}

impl Spec {
    /// What differs from a run in a folder, if it cannot be continued with this one.
    fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let text = |o: &Option<String>| o.clone().unwrap_or_else(|| "none".into());
        let pairs = [
            ("the method", self.method.to_string(), other.method.to_string()),
            ("the model", self.model_hash.clone(), other.model_hash.clone()),
            ("the data", source_name(&self.data), source_name(&other.data)),
            ("scoring images", self.scoring.to_string(), other.scoring.to_string()),
            ("the schedule", format!("{:?}", self.schedule), format!("{:?}", other.schedule)),
            ("the plan", text(&self.plan_hash), text(&other.plan_hash)),
            ("the public model", text(&self.public_hash), text(&other.public_hash)),
        ];
        pairs.into_iter().find(|(_, a, b)| a != b)
    }
}

/// Folders differ between machines; whether the data are bundled does not.
fn source_name(data: &Option<String>) -> String {
    if data.is_some() { "a folder".into() } else { "the bundled images".into() }
}

/// The result of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellResult {
    /// [`Cell::id`].
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
    /// Which images it classifies rightly, four a hexadecimal digit.
    pub right: String,
    /// Learning rate chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// Learning curve.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub curve: Vec<Point>,
    /// Whether training ended on a plateau.
    pub plateau: bool,
    /// Wall time.
    pub seconds: f64,
}

/// Where labelled images for attackers come from.
#[derive(Debug)]
pub enum Pool {
    /// A training set.
    Full(Records),
    /// A few images, for example bundled test images that do not score.
    Bundled(Vec<Sample>),
}

impl Pool {
    fn len(&self) -> usize {
        match self {
            Self::Full(r) => r.len(),
            Self::Bundled(s) => s.len(),
        }
    }

    fn image(&self, i: usize) -> Result<Tensor, AuditError> {
        Ok(match self {
            Self::Full(r) => r.get(i)?.image,
            Self::Bundled(s) => s.get(i).map(|s| s.image.clone()).ok_or_else(|| AuditError::Data {
                what: "the bundled images".into(),
                why: format!("there is no image {i}"),
            })?,
        })
    }
}

/// Everything that cells need, in memory.
pub struct Context {
    folder: PathBuf,
    spec: Spec,
    victim: Victim,
    pool: Pool,
    test: Vec<Sample>,
    test_pixels: Vec<Vec<f32>>,
    /// The victim's classes for the scoring images.
    said: Vec<usize>,
    plan: Option<Plan>,
    public: Option<Vec<Option<Vec<f32>>>>,
    scores: OnceLock<Vec<Vec<f32>>>,
    device: Device,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("folder", &self.folder).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The bundled network that a graph is, if it is one: then bundled images may serve.
fn bundled(hash: &str) -> Result<Option<Network>, AuditError> {
    for network in [Network::Mnist, Network::Vgg3] {
        if model_hash(&network.graph()?) == hash {
            return Ok(Some(network));
        }
    }
    Ok(None)
}

/// The data set whose form fits a network's input.
pub fn dataset_for(shape: &[usize]) -> Result<Dataset, AuditError> {
    [Dataset::Cifar10, Dataset::Mnist].into_iter().find(|d| d.shape() == shape).ok_or_else(|| AuditError::Data {
        what: format!("a model with inputs {shape:?}"),
        why: "labelled images are read in the forms of CIFAR-10 (3x32x32, data_batch_*.bin) and MNIST (1x28x28, idx \
              files) only: convert yours to one of them"
            .into(),
    })
}

/// What a network says of its files, before anything is loaded.
fn check_labelled(folder: &Path, dataset: Dataset) -> Result<(), AuditError> {
    let needed: &[&str] = match dataset {
        Dataset::Cifar10 => &["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"],
        Dataset::Mnist => {
            &["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
        }
    };
    match needed.iter().find(|name| !folder.join(name).is_file()) {
        None => Ok(()),
        Some(missing) => Err(AuditError::Data {
            what: folder.display().to_string(),
            why: format!(
                "{missing} is missing: a labelled data set in the form of {} consists of {} (scripts/fetch-data gets it); images \
                 without labels cannot score an attacker",
                dataset.name(),
                needed.join(", ")
            ),
        }),
    }
}

/// Reads a model's quantised form: a bundled one as the command quantises it, another calibrated on training images.
fn quantise(path: &Path, pool: Option<&Records>) -> Result<(QuantModel, String, Option<Network>), AuditError> {
    let graph = read_model(path)?;
    crate::network::check(&graph)?;
    let hash = model_hash(&graph);
    let network = bundled(&hash)?;
    let config = QuantConfig::default();
    let model = match (network, pool) {
        (Some(network), _) => network.quantised(config)?,
        (None, Some(pool)) => {
            let images =
                (0..pool.len().min(100)).map(|i| Ok(pool.get(i)?.image)).collect::<Result<Vec<_>, JaliError>>()?;
            QuantModel::calibrate(graph, config, &images, Some((0.0, 1.0)))?
        }
        (None, None) => return Err(needs_data(path)),
    };
    Ok((model, hash, network))
}

/// The quantised model with its hash, the attackers' images and the scoring images.
fn victim_and_data(
    path: &Path,
    data: Option<&Path>,
    scoring: usize,
) -> Result<(QuantModel, String, Pool, Vec<Sample>), AuditError> {
    let shape = read_model(path)?.input_shape().to_vec();
    let dataset = dataset_for(&shape)?;
    let full = match data {
        Some(data) => {
            check_labelled(data, dataset)?;
            Some((dataset.full_train(data)?, dataset.full_test(data)?))
        }
        None => None,
    };
    let (model, hash, network) = quantise(path, full.as_ref().map(|f| &f.0))?;
    Ok(match (full, network) {
        (Some((train, test)), _) => (model, hash, Pool::Full(train), test),
        (None, Some(network)) => {
            let mut test = network.dataset().bundled_test()?;
            let rest = test.split_off(scoring.min(test.len()));
            (model, hash, Pool::Bundled(rest), test)
        }
        (None, None) => return Err(needs_data(path)),
    })
}

fn needs_data(path: &Path) -> AuditError {
    let why = "this is none of the bundled networks: give --data DIR with labelled images".into();
    AuditError::Data { what: path.display().to_string(), why }
}

/// Sensitivity of every weight of a model on the first images that attackers could have.
///
/// # Errors
/// [`AuditError`] for files and data that do not fit.
pub fn sensitivities(path: &Path, data: Option<&Path>, device: Device) -> Result<Vec<Vec<f32>>, AuditError> {
    let (model, _, pool, _) = victim_and_data(path, data, BUNDLED_SCORING)?;
    let images = (0..pool.len().min(sensitivity::IMAGES)).map(|i| pool.image(i)).collect::<Result<Vec<_>, _>>()?;
    sensitivity::scores(&Victim::new(model)?, &images, &device)
}

/// Bundled scoring images; the others are the attackers'.
const BUNDLED_SCORING: usize = 500;

/// What a new run is asked to be.
#[derive(Debug, Clone)]
pub struct Request {
    /// The victim.
    pub model: PathBuf,
    /// Folder of labelled images.
    pub data: Option<PathBuf>,
    /// A plan to audit.
    pub plan: Option<PathBuf>,
    /// A public model.
    pub public_model: Option<PathBuf>,
    /// Images that score, at most.
    pub scoring: usize,
    /// A first impression only.
    pub quick: bool,
    /// What varies.
    pub grid: Grid,
}

impl Context {
    /// Starts a run in a folder, or goes on with the one that is there: its grid grows by the new one.
    ///
    /// # Errors
    /// [`AuditError`] for files and data that do not fit, [`AuditError::OtherRun`] for a folder with another run.
    pub fn create(folder: &Path, request: &Request, device: Device) -> Result<Self, AuditError> {
        let graph = read_model(&request.model)?;
        let dataset = dataset_for(graph.input_shape())?;
        if let Some(data) = &request.data {
            check_labelled(data, dataset)?;
        }
        let mut grid = request.grid.clone();
        let public = |cell: &Cell| cell.attacker == Attacker::Public;
        if request.public_model.is_none() && grid.cells()?.iter().any(public) {
            return Err(AuditError::NoPublicModel);
        }
        let text = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
        let mut plan_hash = None;
        if let Some(path) = &request.plan {
            plan_hash = Some(blake3::hash(&read_bounded(path, MAX_FILE)?).to_hex().to_string());
            grid.plan = Some(read_plan(path, &graph)?.plan.fraction_open());
        }
        let public_hash = match &request.public_model {
            Some(path) => Some(model_hash(&read_model(path)?)),
            None => None,
        };
        let mirror = dataset == Dataset::Cifar10;
        let spec = Spec {
            method: METHOD,
            model: request.model.display().to_string(),
            model_hash: model_hash(&graph),
            data: text(&request.data),
            dataset: dataset.name().into(),
            scoring: if request.data.is_some() { request.scoring } else { request.scoring.min(BUNDLED_SCORING) },
            schedule: if request.quick { Schedule::quick(mirror) } else { Schedule::full(mirror) },
            plan: text(&request.plan),
            plan_hash,
            public_model: text(&request.public_model),
            public_hash,
            grid,
        };
        let path = folder.join(SPEC);
        let spec = if path.exists() {
            let old = read_spec(folder)?;
            if let Some((what, expected, got)) = old.difference(&spec) {
                return Err(AuditError::OtherRun { path: folder.into(), what, expected, got });
            }
            let grid = old.grid.union(&spec.grid);
            Spec { grid, ..spec }
        } else {
            spec
        };
        let context = Self::load(folder, spec, device)?;
        let cells = folder.join(CELLS);
        std::fs::create_dir_all(&cells).map_err(|e| JaliError::Write { path: cells.clone(), why: e.to_string() })?;
        write_json(&path, &context.spec)?;
        Ok(context)
    }

    /// Opens the run in a folder.
    ///
    /// # Errors
    /// [`AuditError::File`] if there is none, and those of its files.
    pub fn open(folder: &Path, device: Device) -> Result<Self, AuditError> {
        Self::load(folder, read_spec(folder)?, device)
    }

    fn load(folder: &Path, spec: Spec, device: Device) -> Result<Self, AuditError> {
        let (model, hash, pool, mut test) =
            victim_and_data(Path::new(&spec.model), spec.data.as_deref().map(Path::new), spec.scoring)?;
        if hash != spec.model_hash {
            let why = format!("the model has changed since the run began (it was {})", spec.model_hash);
            return Err(AuditError::File { path: spec.model.clone().into(), why });
        }
        test.truncate(spec.scoring);
        if let Some(&most) = spec.grid.budgets.iter().max().filter(|most| **most > pool.len()) {
            return Err(AuditError::Data {
                what: "the budget".into(),
                why: format!(
                    "{most} labelled images are asked for, there are {}{}",
                    pool.len(),
                    if spec.data.is_none() { ": --data DIR with the full data set has more" } else { "" }
                ),
            });
        }
        Self::assemble(folder, spec, model, pool, test, device)
    }

    /// From parts: a network that is in no file, or images of one's own.
    ///
    /// # Errors
    /// [`AuditError`] for images or plans that do not fit the network.
    pub fn assemble(
        folder: &Path,
        spec: Spec,
        model: QuantModel,
        pool: Pool,
        test: Vec<Sample>,
        device: Device,
    ) -> Result<Self, AuditError> {
        let victim = Victim::new(model)?;
        let plan = match &spec.plan {
            Some(path) => Some(read_plan(Path::new(path), victim.graph())?.plan),
            None => None,
        };
        let public = match &spec.public_model {
            Some(path) => Some(public_weights(&victim, Path::new(path))?),
            None => None,
        };
        let images: Vec<Tensor> = test.iter().map(|s| s.image.clone()).collect();
        let said = answers(folder, &spec, &victim, &images)?;
        let test_pixels = images.into_iter().map(|i| i.data).collect();
        let folder = folder.into();
        let scores = OnceLock::new();
        Ok(Self { folder, spec, victim, pool, test, test_pixels, said, plan, public, scores, device })
    }

    /// What the run is about.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Folder of the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.victim.graph().shape(self.victim.graph().output()).iter().product::<usize>().max(1)
    }

    /// The network under attack.
    pub fn victim(&self) -> &Victim {
        &self.victim
    }

    /// The victim's accuracy on the scoring images.
    pub fn victim_accuracy(&self) -> f64 {
        let right = self.said.iter().zip(&self.test).filter(|(a, s)| **a == s.label).count();
        right as f64 / self.test.len().max(1) as f64
    }

    /// All cells of the grid.
    ///
    /// # Errors
    /// As [`Grid::cells`].
    pub fn cells(&self) -> Result<Vec<Cell>, AuditError> {
        self.spec.grid.cells()
    }

    /// Whether a cell is done.
    pub fn done(&self, cell: &Cell) -> bool {
        has_result(&self.folder, cell)
    }

    /// Runs a cell and keeps its result, unless that is there already.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn run(&self, cell: &Cell) -> Result<CellResult, AuditError> {
        let path = cell_path(&self.folder, cell);
        if path.is_file() {
            return read_json(&path);
        }
        let result = self.compute(cell)?;
        write_json(&path, &result)?;
        Ok(result)
    }

    /// The plan of a cell.
    ///
    /// # Errors
    /// [`AuditError::Leak`], [`AuditError::Protocol`].
    pub fn plan(&self, source: Source, leaked: f64, seed: u64) -> Result<Plan, AuditError> {
        let graph = self.victim.graph();
        Ok(match source {
            Source::Nothing => Plan::hide_all(graph),
            Source::Everything => Plan::open_all(graph),
            Source::File => self.plan.clone().unwrap_or_else(|| Plan::hide_all(graph)),
            Source::Policy(policy) => self.policy_plan(policy, leaked, seed)?,
        })
    }

    fn policy_plan(&self, policy: Policy, leaked: f64, seed: u64) -> Result<Plan, AuditError> {
        // The built-in costs, so that a plan does not depend on the machine that audits it.
        let (model, costs) = (self.victim.model(), Costs::default());
        let (rows, savings) = (Blueprint::rows_of_all(model, &costs)?, row_savings(model, &costs)?);
        let scores: &[Vec<f32>] = if policy.order() == Order::Sensitive { self.scores()? } else { &[] };
        let ground = Ground { rows: &rows, savings: &savings, scores };
        Ok(policy.plan(self.victim.graph(), &ground, leaked, seed)?)
    }

    fn scores(&self) -> Result<&[Vec<f32>], AuditError> {
        if let Some(scores) = self.scores.get() {
            return Ok(scores);
        }
        let images =
            (0..self.pool.len().min(sensitivity::IMAGES)).map(|i| self.pool.image(i)).collect::<Result<Vec<_>, _>>()?;
        let scores = sensitivity::scores(&self.victim, &images, &self.device)?;
        Ok(self.scores.get_or_init(|| scores))
    }

    /// The labelled images of a budget and seed, with the victim's answers. Smaller budgets are the beginnings of larger ones.
    fn queries(&self, budget: usize, seed: u64) -> Result<Queries, AuditError> {
        let mut rng = generator("budget", seed);
        let mut all: Vec<usize> = (0..self.pool.len()).collect();
        for i in 0..budget.min(all.len()) {
            let j = rng.random_range(i..all.len());
            all.swap(i, j);
        }
        let images = all.iter().take(budget).map(|&i| self.pool.image(i)).collect::<Result<Vec<_>, _>>()?;
        let logits = self.victim.answer(&images)?;
        Ok(Queries { images, logits })
    }

    fn compute(&self, cell: &Cell) -> Result<CellResult, AuditError> {
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
        let surrogate = attack(cell.attacker, &knows, &self.spec.schedule, cell.seed, &self.device)?;
        let got = classify(self.victim.graph(), &surrogate.layers, &self.test_pixels, &self.device);
        let right: Vec<bool> = got.iter().zip(&self.test).map(|(g, s)| *g == s.label).collect();
        let agree = got.iter().zip(&self.said).filter(|(g, s)| g == s).count();
        let count = self.test.len().max(1) as f64;
        Ok(CellResult {
            id: cell.id(),
            policy: cell.source.to_string(),
            leaked: cell.leaked,
            opened: plan.fraction_open(),
            budget: cell.budget,
            attacker: cell.attacker.to_string(),
            seed: cell.seed,
            accuracy: right.iter().filter(|r| **r).count() as f64 / count,
            fidelity: agree as f64 / count,
            right: pack(&right),
            rate: surrogate.rate,
            curve: surrogate.curve,
            plateau: surrogate.plateau,
            seconds: (begin.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        })
    }
}

/// Four images a hexadecimal digit, the first in the highest bit.
fn pack(right: &[bool]) -> String {
    let digit = |four: &[bool]| four.iter().enumerate().map(|(i, r)| u32::from(*r) << (3 - i)).sum::<u32>();
    right.chunks(4).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}

/// Reads [`CellResult::right`]; the last digit may give up to three images too many.
pub fn unpack(right: &str) -> Vec<bool> {
    let digits = right.chars().filter_map(|c| c.to_digit(16));
    digits.flat_map(|d| (0..4).map(move |i| d >> (3 - i) & 1 == 1)).collect()
}

fn cell_path(folder: &Path, cell: &Cell) -> PathBuf {
    folder.join(CELLS).join(cell.id() + ".json")
}

/// Whether the run in a folder has a cell's result.
pub fn has_result(folder: &Path, cell: &Cell) -> bool {
    cell_path(folder, cell).is_file()
}

/// The specification of the run in a folder.
///
/// # Errors
/// [`AuditError::File`].
pub fn read_spec(folder: &Path) -> Result<Spec, AuditError> {
    let path = folder.join(SPEC);
    if !path.is_file() {
        let why = "there is no run here: `jali-audit run` begins one".into();
        return Err(AuditError::File { path, why });
    }
    let spec: Spec = read_json(&path)?;
    if spec.method != METHOD {
        let why = format!("made by method {}, this program has method {METHOD}: begin a new run", spec.method);
        return Err(AuditError::File { path, why });
    }
    if let Some(why) = spec.schedule.unusable() {
        return Err(AuditError::File { path, why });
    }
    Ok(spec)
}

/// All results in a folder, in the order of their names.
///
/// # Errors
/// [`AuditError::File`] for a damaged one.
pub fn read_results(folder: &Path) -> Result<Vec<CellResult>, AuditError> {
    let cells = folder.join(CELLS);
    let fail = |e: std::io::Error| JaliError::Read { path: cells.clone(), why: e.to_string() };
    let mut paths = vec![];
    for entry in std::fs::read_dir(&cells).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|p| read_json(p)).collect()
}

/// Joins the results of a run in another folder (from another machine) to this one's. Returns how many were new.
///
/// # Errors
/// [`AuditError::OtherRun`] if the two runs are not about the same.
pub fn merge(from: &Path, into: &Path) -> Result<usize, AuditError> {
    let spec = read_spec(from)?;
    let path = into.join(SPEC);
    let joined = if path.is_file() {
        let old = read_spec(into)?;
        if let Some((what, expected, got)) = old.difference(&spec) {
            return Err(AuditError::OtherRun { path: into.into(), what, expected, got });
        }
        Spec { grid: old.grid.union(&spec.grid), ..old }
    } else {
        spec
    };
    // Names come from the grid, not from the other machine's files.
    let ids: BTreeSet<String> = joined.grid.cells()?.iter().map(Cell::id).collect();
    let results: Vec<CellResult> = read_results(from)?.into_iter().filter(|r| ids.contains(&r.id)).collect();
    let cells = into.join(CELLS);
    std::fs::create_dir_all(&cells).map_err(|e| JaliError::Write { path: cells.clone(), why: e.to_string() })?;
    write_json(&path, &joined)?;
    let mut new = 0;
    for result in results {
        let path = cells.join(format!("{}.json", result.id));
        if !path.exists() {
            write_json(&path, &result)?;
            new += 1;
        }
    }
    Ok(new)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, AuditError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    serde_json::from_slice(&bytes).map_err(|e| AuditError::File {
        path: path.into(),
        why: format!("not what jali-audit writes there ({e}); remove it to have it made again"),
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), AuditError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|e| AuditError::File { path: path.into(), why: e.to_string() })?;
    Ok(write_aside(path, &text, Readers::Owner)?)
}

/// The victim's classes for the scoring images: computed once and kept, because every cell needs them.
fn answers(folder: &Path, spec: &Spec, victim: &Victim, images: &[Tensor]) -> Result<Vec<usize>, AuditError> {
    #[derive(Serialize, Deserialize)]
    struct Kept {
        key: String,
        classes: Vec<usize>,
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(spec.model_hash.as_bytes());
    images.iter().flat_map(|i| &i.data).for_each(|v| {
        hasher.update(&v.to_le_bytes());
    });
    let key = hasher.finalize().to_hex().to_string();
    let path = folder.join("victim.json");
    if let Ok(kept) = read_json::<Kept>(&path)
        && kept.key == key
        && kept.classes.len() == images.len()
    {
        return Ok(kept.classes);
    }
    let classes: Vec<usize> = victim.answer(images)?.iter().map(|l| argmax(l)).collect();
    std::fs::create_dir_all(folder).map_err(|e| JaliError::Write { path: folder.into(), why: e.to_string() })?;
    write_json(&path, &Kept { key, classes: classes.clone() })?;
    Ok(classes)
}

/// Weights of a public model, for the layers whose shape is the victim's.
fn public_weights(victim: &Victim, path: &Path) -> Result<Vec<Option<Vec<f32>>>, AuditError> {
    let graph = read_model(path)?;
    let (theirs, ours): (Vec<_>, Vec<_>) = (graph.linear_nodes().collect(), victim.graph().linear_nodes().collect());
    if theirs.len() != ours.len() {
        return Err(AuditError::Data {
            what: path.display().to_string(),
            why: format!(
                "the public model has {} linear layers, the victim {}: it must have the same architecture (the last layer may differ)",
                theirs.len(),
                ours.len()
            ),
        });
    }
    let fit = |((_, theirs), (_, ours)): (&(usize, Linear<'_>), &(usize, Linear<'_>))| {
        let same =
            theirs.kind() == ours.kind() && theirs.outputs() == ours.outputs() && theirs.fan_in() == ours.fan_in();
        same.then(|| theirs.weights().to_vec())
    };
    let layers: Vec<Option<Vec<f32>>> = theirs.iter().zip(&ours).map(fit).collect();
    if layers.iter().all(Option::is_none) {
        let why = "no layer of the public model has the shape of the victim's".into();
        return Err(AuditError::Data { what: path.display().to_string(), why });
    }
    Ok(layers)
}
