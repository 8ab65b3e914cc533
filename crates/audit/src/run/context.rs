//! A run under way: everything that its cells need, in memory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::Device;
use jali::files::read_bounded;
use jali::model_file::{read_model, read_plan};
use jali::{Costs, Dataset, Sample};
use jali_leak::file::model_hash;
use jali_leak::{Ground, Order, Plan, Policy, of_layers};
use jali_model::{Graph, QuantModel, Tensor};
use jali_protocol::{Blueprint, row_savings};

use super::answers::Answers;
use super::cells::{CellResult, cell_path, has_result, make_cells};
use super::data::{
    BUNDLED_SCORING, Pool, check_labelled, dataset_for, enough, images_hash, public_weights, victim_and_data,
};
use super::held::Held;
use super::spec::{MAX_FILE, METHOD, SPEC, Spec, read_json, read_spec, write_json};
use crate::AuditError;
use crate::attack::Attacker;
use crate::command::Command;
use crate::command::asking::Told;
use crate::cost::Pricing;
use crate::grid::{Cell, Grid, Source};
use crate::sensitivity;
use crate::train::{Schedule, argmax};
use crate::victim::Victim;

/// Everything that cells need, in memory.
pub struct Context {
    pub(super) folder: PathBuf,
    pub(super) spec: Spec,
    pub(super) victim: Victim,
    pub(super) answers: Answers,
    pub(super) pool: Pool,
    pub(super) test: Vec<Sample>,
    pub(super) test_pixels: Vec<Vec<f32>>,
    /// The victim's classes for the scoring images.
    pub(super) said: Vec<usize>,
    pub(super) plan: Option<Plan>,
    pub(super) public: Option<Vec<Option<Vec<f32>>>>,
    pub(super) scores: OnceLock<Vec<Vec<f32>>>,
    pub(super) device: Device,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("folder", &self.folder).field("spec", &self.spec).finish_non_exhaustive()
    }
}

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
    /// The command that attacks in place of this program's attackers.
    pub command: Option<Command>,
    /// What guests are told, if they are who attacks.
    pub guests: Option<Told>,
    /// A first impression only.
    pub quick: bool,
    /// What varies.
    pub grid: Grid,
}

impl Request {
    /// The grid for a network, with fractions in place of numbers of layers.
    fn grid_for(&self, graph: &Graph) -> Result<Grid, AuditError> {
        let mut grid = self.grid.clone();
        for name in &mut grid.policies {
            if let Some((policy, fraction)) = of_layers(graph, name)? {
                *name = format!("{policy}@{fraction}");
            }
        }
        let public = |cell: &Cell| cell.attacker == Attacker::Public;
        if self.public_model.is_none() && grid.cells()?.iter().any(public) {
            return Err(AuditError::NoPublicModel);
        }
        let needs_command = |name: &String| name.parse().is_ok_and(Attacker::needs_command);
        if self.command.is_none() && grid.attackers.iter().any(needs_command) {
            return Err(AuditError::NoCommand);
        }
        Ok(grid)
    }
}

impl Context {
    /// Starts a run in a folder, or goes on with the one that is there: its grid grows by the new
    /// one.
    ///
    /// # Errors
    /// [`AuditError`] for files and data that do not fit, [`AuditError::OtherRun`] for a folder
    /// with another run.
    pub fn create(folder: &Path, request: &Request, device: Device) -> Result<Self, AuditError> {
        let graph = read_model(&request.model)?;
        let dataset = dataset_for(graph.input_shape())?;
        if let Some(data) = &request.data {
            check_labelled(data, dataset)?;
        }
        let mut grid = request.grid_for(&graph)?;
        let text = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
        let mut plan_hash = None;
        if let Some(path) = &request.plan {
            plan_hash = Some(blake3::hash(&read_bounded(path, MAX_FILE)?).to_hex().to_string());
            grid.plan = Some(read_plan(path, &graph)?.plan.fraction_permitted());
        }
        let public_hash = match &request.public_model {
            Some(path) => Some(model_hash(&read_model(path)?)),
            None => None,
        };
        let spec = Spec {
            method: METHOD,
            model: request.model.display().to_string(),
            model_hash: model_hash(&graph),
            data: text(&request.data),
            data_hash: None,
            dataset: dataset.name().into(),
            scoring: if request.data.is_some() { request.scoring } else { request.scoring.min(BUNDLED_SCORING) },
            schedule: request.command.is_none().then(|| Schedule::new(request.quick, dataset == Dataset::Cifar10)),
            plan: text(&request.plan),
            plan_hash,
            public_model: text(&request.public_model),
            public_hash,
            command: request.command.clone(),
            guests: request.guests,
            grid,
        };
        let mut context = Self::load(folder, spec.joined_to(folder)?, device)?;
        if context.spec.guests.is_some() {
            // Guests cannot use every network: that is to be said before hours of attacks.
            Pricing::new(&context).guest(&Plan::hide_all(context.victim.graph()))?;
        }
        context.keep()?;
        Ok(context)
    }

    /// Writes down what the run is about. Others may have begun one in the folder meanwhile.
    fn keep(&mut self) -> Result<(), AuditError> {
        let _held = Held::wait(&make_cells(&self.folder)?.join(SPEC))?;
        self.spec = self.spec.clone().joined_to(&self.folder)?;
        write_json(&self.folder.join(SPEC), &self.spec)
    }

    /// Reads again what the run is about: another process may have made its grid larger.
    ///
    /// # Errors
    /// [`AuditError::File`] if that can no longer be read.
    pub fn look_again(&mut self) -> Result<(), AuditError> {
        self.spec = self.spec.clone().joined_to(&self.folder)?;
        Ok(())
    }

    /// Opens the run in a folder.
    ///
    /// # Errors
    /// [`AuditError::File`] if there is none, and those of its files.
    pub fn open(folder: &Path, device: Device) -> Result<Self, AuditError> {
        Self::load(folder, read_spec(folder)?, device)
    }

    fn load(folder: &Path, mut spec: Spec, device: Device) -> Result<Self, AuditError> {
        let (model, hash, pool, mut test) =
            victim_and_data(Path::new(&spec.model), spec.data.as_deref().map(Path::new), spec.scoring)?;
        if hash != spec.model_hash {
            let why = format!("the model has changed since the run began (it was {})", spec.model_hash);
            return Err(AuditError::File { path: spec.model.clone().into(), why });
        }
        enough("scoring images", spec.scoring, test.len(), "take --scoring as many or fewer")?;
        test.truncate(spec.scoring);
        spec.keep_images(images_hash(&pool, &test)?, folder)?;
        let more = if spec.data.is_none() { "--data DIR with the full data set has more" } else { "take fewer" };
        enough("labelled images", spec.grid.budgets.iter().copied().max().unwrap_or(0), pool.len(), more)?;
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
        let answers = Answers::new(folder, &spec.model_hash);
        let said = answers.of("scoring", &victim, &images)?.iter().map(|l| argmax(l)).collect();
        let test_pixels = images.into_iter().map(|i| i.data).collect();
        let folder = folder.into();
        let scores = OnceLock::new();
        Ok(Self { folder, spec, victim, answers, pool, test, test_pixels, said, plan, public, scores, device })
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

    /// Runs a cell and keeps its result, unless that is there already. Waits for another process
    /// that has begun with it.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn run(&self, cell: &Cell) -> Result<CellResult, AuditError> {
        match self.done(cell) {
            true => read_json(&cell_path(&self.folder, cell)),
            false => self.run_held(cell, Held::wait(&cell_path(&self.folder, cell))?),
        }
    }

    /// Runs a cell as [`Self::run`] does; returns nothing where another process has begun with it.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn run_if_free(&self, cell: &Cell) -> Result<Option<CellResult>, AuditError> {
        match Held::try_now(&cell_path(&self.folder, cell))? {
            Some(held) => self.run_held(cell, held).map(Some),
            None => Ok(None),
        }
    }

    fn run_held(&self, cell: &Cell, held: Held) -> Result<CellResult, AuditError> {
        let path = cell_path(&self.folder, cell);
        // Who held it before may have done it.
        let result = if self.done(cell) {
            read_json(&path)?
        } else {
            let result = self.compute(cell)?;
            write_json(&path, &result)?;
            result
        };
        held.release();
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
        let images = self.some_images(sensitivity::IMAGES)?;
        let scores = sensitivity::scores(&self.victim, &images, &self.device)?;
        Ok(self.scores.get_or_init(|| scores))
    }

    /// The first images that attackers could have, at most so many.
    ///
    /// # Errors
    /// [`AuditError`] if they cannot be read.
    pub fn some_images(&self, most: usize) -> Result<Vec<Tensor>, AuditError> {
        (0..self.pool.len().min(most)).map(|i| self.pool.image(i)).collect()
    }
}
