//! `jali plan`: which weights may be open, as a file.

mod asked;
mod diff;

use std::path::{Path, PathBuf};

use jali::files::read_bounded;
use jali::files::{Readers, write_aside};
use jali::model_file::{read_model, read_plan, read_preprocess};
use jali::{Costs, JaliError, Network, Plan, Preprocess, QuantConfig, QuantModel};
use jali_leak::{Ground, LeakError, Order, Origin, Policy, Unit, listed_layers};
use jali_model::Graph;
use jali_protocol::{Blueprint, ProtocolError, forecast as forecast_keyed};
use serde::Serialize;

use self::asked::Asked;
use super::guests::forecast;
use super::text::{bytes, say, say_json, table};
use super::{NetworkName, Over};

/// Make plans, look into them, compare them.
#[derive(clap::Subcommand)]
pub(super) enum PlanCommand {
    /// Make a plan by a policy
    Create(CreateArgs),
    /// Say what a plan permits, and what sealing is going to open and save by it
    #[command(alias = "show")]
    Inspect(InspectArgs),
    /// Say what changes from one plan to another; weights that were open stay known to whoever saw
    /// them
    Diff(diff::DiffArgs),
    /// Check that a file is a plan for this model
    Validate(Given),
}

#[derive(clap::Args)]
#[command(
    after_help = "Policies: random-weights, random-kernels, random-rows; magnitude-weights, magnitude-kernels, magnitude-rows (the largest stay\nhidden); sensitive-weights, sensitive-kernels, sensitive-rows (the most sensitive stay hidden; scores by `jali-audit sensitivity`);\ncost-rows (what saves most opens); first-layers, last-layers (these stay hidden); last-3-layers (three of them, without --leak).\nOnly whole rows save anything.\n\nExamples:\n  jali plan create --network vgg3 --leak 0.8 --seed 7 --out plan.json\n  jali plan create --network vgg3 --policy magnitude-rows --leak 0.5 --out plan.json\n  jali plan create --network vgg3 --policy last-3-layers --out plan.json\n  jali plan create net.onnx --layers /fc1/Gemm --out plan.json\n  jali seal --network vgg3 --plan plan.json --out sealed"
)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    of: Of,
    /// Fraction of the weights to leave open; not for policies that name a number of layers
    #[arg(long, value_name = "F")]
    leak: Option<f64>,
    /// What opens first, and in which units
    #[arg(long, value_name = "NAME", default_value = "random-rows", conflicts_with = "layers")]
    policy: Asked,
    /// Of random policies
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Open these layers, by name, and nothing else
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "leak")]
    layers: Option<Vec<String>>,
    /// Sensitivity of every weight, as `jali-audit sensitivity` writes it
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Where to write the plan
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    over: Over,
}

#[derive(clap::Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    given: Given,
    /// What it takes and saves for guests, who must not have the model
    #[arg(long)]
    guest: bool,
}

/// A plan and its network.
#[derive(clap::Args)]
pub(super) struct Given {
    #[command(flatten)]
    of: Of,
    /// The plan
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    over: Over,
}

/// Of which network.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// The network as an ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    /// The network as an ONNX file, as an option
    #[arg(long = "model", id = "model_file", value_name = "FILE.onnx")]
    model_file: Option<PathBuf>,
    /// A bundled network
    #[arg(long, value_enum)]
    network: Option<NetworkName>,
}

impl Of {
    fn file(&self) -> Option<&PathBuf> {
        self.model.as_ref().or(self.model_file.as_ref())
    }

    /// What people call it.
    fn name(&self) -> String {
        match (self.file().and_then(|path| path.file_name()), self.network) {
            (Some(name), _) => name.to_string_lossy().replace(char::is_control, "?"),
            (None, network) => Network::from(network.unwrap_or(NetworkName::Vgg3)).name().into(),
        }
    }

    /// How images become its inputs.
    fn preprocess(&self) -> Result<Preprocess, JaliError> {
        let found = self.file().map(|path| read_preprocess(path)).transpose()?.flatten();
        Ok(found.map(|(_, preprocess)| preprocess).unwrap_or_default())
    }

    fn graph(&self) -> Result<Graph, JaliError> {
        match (self.file(), self.network) {
            (Some(path), _) => read_model(path),
            (None, network) => Network::from(network.unwrap_or(NetworkName::Vgg3)).graph(),
        }
    }
}

/// Rows and costs depend on shapes and quantisation bits alone; a calibration on zeros is enough to
/// ask for them.
pub(super) fn shapes_of(graph: Graph, bits: QuantConfig) -> Result<QuantModel, JaliError> {
    Ok(QuantModel::uncalibrated(graph, bits)?)
}

#[derive(Serialize)]
struct Report {
    made: String,
    evidence: Option<jali_leak::Evidence>,
    weights: usize,
    fraction_permitted: f64,
    fraction_open: f64,
    rows: usize,
    rows_open: usize,
    tiles_hidden: usize,
    tiles_open: usize,
    bytes: usize,
    bytes_saved: usize,
    products: usize,
    products_saved: usize,
    predicted_ms: f64,
    predicted_ms_saved: f64,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: String,
    weights: usize,
    permitted: usize,
    open: usize,
    rows: usize,
    rows_open: usize,
    tiles_open: usize,
    bytes: usize,
    products: usize,
    predicted_ms: f64,
}

pub(super) fn run(command: &PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Create(args) => create(args),
        PlanCommand::Inspect(args) => inspect(args),
        PlanCommand::Diff(args) => diff::run(args),
        PlanCommand::Validate(args) => validate(args),
    }
}

fn wrong(e: LeakError) -> JaliError {
    ProtocolError::from(e).into()
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let costs = args.over.costs(super::start_threads(None)?);
    let model = shapes_of(args.of.graph()?, QuantConfig::default())?;
    let graph = model.graph();
    let (plan, made) = match &args.layers {
        Some(names) => (listed_layers(graph, names).map_err(wrong)?, format!("layers {}", names.join(", "))),
        None => {
            let (policy, leak) = args.policy.of(graph, args.leak).map_err(wrong)?;
            let plan = by_policy(args, policy, &model, leak, &costs)?;
            let seed = if policy.order() == Order::Random { format!(", seed {}", args.seed) } else { String::new() };
            (plan, format!("{policy}, fraction {leak}{seed}"))
        }
    };
    let origin = Origin { made, network: Some(args.of.name()), evidence: None };
    write_aside(&args.out, plan.to_json_with(graph, &origin).map_err(wrong)?.as_bytes(), Readers::Owner)?;
    let layers = forecast_keyed(&model, &plan, &costs).map_err(JaliError::from)?;
    let open: usize = layers.iter().map(|l| l.weights_open).sum();
    say(format!(
        "{}: {:.1} % of {} weights may be open; sealing is going to open {:.1} % (whole rows)",
        args.out.display(),
        100.0 * plan.fraction_permitted(),
        graph.weights(),
        100.0 * open as f64 / graph.weights().max(1) as f64
    ))?;
    Ok(())
}

/// Largest file of scores, in bytes.
const MAX_SCORES: u64 = 1 << 31;

fn by_policy(args: &CreateArgs, policy: Policy, model: &QuantModel, leak: f64, costs: &Costs) -> anyhow::Result<Plan> {
    // The rows that sealing on this machine is going to make.
    let rows = if policy.unit() == Unit::Rows {
        Blueprint::rows_of_all(model, costs).map_err(JaliError::from)?
    } else {
        vec![]
    };
    let savings = match policy.order() {
        Order::Cost => jali_protocol::row_savings(model, costs).map_err(JaliError::from)?,
        _ => vec![],
    };
    let scores = match (&args.scores, policy.order()) {
        (Some(path), _) => read_scores(path)?,
        (None, Order::Sensitive) => {
            let what = "--scores FILE, which `jali-audit sensitivity MODEL.onnx --out FILE` writes";
            return Err(wrong(LeakError::Needs { policy: policy.to_string(), what }).into());
        }
        (None, _) => vec![],
    };
    let ground = Ground { rows: &rows, savings: &savings, scores: &scores };
    Ok(policy.plan(model.graph(), &ground, leak, args.seed).map_err(wrong)?)
}

fn read_scores(path: &Path) -> Result<Vec<Vec<f32>>, JaliError> {
    let bytes = read_bounded(path, MAX_SCORES)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| JaliError::Read { path: path.into(), why: format!("not a file of scores: {e}") })
}

fn report(args: &Given) -> anyhow::Result<Report> {
    let costs = args.over.costs(super::start_threads(None)?);
    let model = shapes_of(args.of.graph()?, QuantConfig::default())?;
    let file = read_plan(&args.plan, model.graph())?;
    let hidden = forecast_keyed(&model, &Plan::hide_all(model.graph()), &costs).map_err(JaliError::from)?;
    let layers = forecast_keyed(&model, &file.plan, &costs).map_err(JaliError::from)?;
    let sum = |f: fn(&jali_protocol::OperatorForecast) -> usize| layers.iter().map(f).sum::<usize>();
    let saved =
        |f: fn(&jali_protocol::OperatorForecast) -> usize| hidden.iter().map(f).sum::<usize>().saturating_sub(sum(f));
    let ms = |layers: &[jali_protocol::OperatorForecast]| layers.iter().map(|l| l.prediction.total_ms()).sum::<f64>();
    let Origin { made, evidence, .. } = file.origin;
    Ok(Report {
        made,
        evidence,
        weights: model.graph().weights(),
        fraction_permitted: file.plan.fraction_permitted(),
        fraction_open: sum(|l| l.weights_open) as f64 / model.graph().weights().max(1) as f64,
        rows: sum(|l| l.rows),
        rows_open: sum(|l| l.rows_open),
        tiles_hidden: sum(|l| l.tiles[0]),
        tiles_open: sum(|l| l.tiles[1]),
        bytes: sum(|l| l.bytes),
        bytes_saved: saved(|l| l.bytes),
        products: sum(|l| l.products),
        products_saved: saved(|l| l.products),
        predicted_ms: ms(&layers),
        predicted_ms_saved: ms(&hidden) - ms(&layers),
        layers: layers
            .into_iter()
            .map(|l| Layer {
                name: l.name,
                kind: l.kind,
                weights: l.weights,
                permitted: l.weights_allowed,
                open: l.weights_open,
                rows: l.rows,
                rows_open: l.rows_open,
                tiles_open: l.tiles[1],
                bytes: l.bytes,
                products: l.products,
                predicted_ms: l.prediction.total_ms(),
            })
            .collect(),
    })
}

fn inspect(InspectArgs { given: args, guest }: &InspectArgs) -> anyhow::Result<()> {
    if *guest {
        let (graph, preprocess) = (args.of.graph()?, args.of.preprocess()?);
        let plan = read_plan(&args.plan, &graph)?.plan;
        return forecast::of_plan(args.of.name(), &graph, &preprocess, &plan, (args.over.link, args.json));
    }
    let report = report(args)?;
    if args.json {
        return say_json(&report);
    }
    let rows = report.layers.iter().map(|l| {
        vec![
            l.name.clone(),
            l.kind.clone(),
            l.weights.to_string(),
            l.permitted.to_string(),
            l.open.to_string(),
            format!("{} of {}", l.rows_open, l.rows),
            l.tiles_open.to_string(),
            bytes(l.bytes),
            l.products.to_string(),
            format!("{:.2}", l.predicted_ms),
        ]
    });
    let header = [
        "layer",
        "kind",
        "weights",
        "may be open",
        "will be",
        "open rows",
        "open tiles",
        "bytes",
        "products",
        "predicted ms",
    ];
    say(format!("made by {}\n\n{}\n", report.made, table(&header, 2, rows)))?;
    say(format!(
        "permitted   {:.1} % of {} weights; sealing is going to open {:.1} %, because only whole rows save anything",
        100.0 * report.fraction_permitted,
        report.weights,
        100.0 * report.fraction_open
    ))?;
    say(format!(
        "saved       {} of {} on the server, {} of {} products, {:.1} of {:.1} ms for an image (predicted)",
        bytes(report.bytes_saved),
        bytes(report.bytes + report.bytes_saved),
        report.products_saved,
        report.products + report.products_saved,
        // Not "-0.0".
        (report.predicted_ms_saved * 10.0).round() / 10.0 + 0.0,
        report.predicted_ms + report.predicted_ms_saved
    ))?;
    match &report.evidence {
        Some(e) => say(format!("evidence    {}", e.claim))?,
        None => {
            say("evidence    none: `jali-audit run MODEL.onnx --plan FILE` measures what the open weights give away")?
        }
    }
    Ok(())
}

fn validate(args: &Given) -> anyhow::Result<()> {
    let file = read_plan(&args.plan, &args.of.graph()?)?;
    if args.json {
        #[derive(Serialize)]
        struct Valid {
            valid: bool,
            made: String,
            fraction_permitted: f64,
            evidence: bool,
        }
        let Origin { made, evidence, .. } = file.origin;
        let fraction_permitted = file.plan.fraction_permitted();
        return say_json(&Valid { valid: true, made, fraction_permitted, evidence: evidence.is_some() });
    }
    Ok(say(format!("{} is a plan for this model: {}", args.plan.display(), file.origin.made))?)
}
