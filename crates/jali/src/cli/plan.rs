//! `jali plan`: which weights may be open, as a file.

use std::path::PathBuf;

use jali::bundle::write_aside;
use jali::network::{read_model, read_plan};
use jali::{JaliError, Network, Plan};
use jali_model::Graph;
use jali_protocol::{Blueprint, ProtocolError};
use serde::Serialize;

use super::text::{say, say_json, table};
use super::{NetworkName, Over};

/// Make a plan, or say what is in one.
#[derive(clap::Subcommand)]
pub(super) enum PlanCommand {
    /// Draw random rows to be left open
    Create(CreateArgs),
    /// Say what a plan opens; fails if it is not for this model
    Show(ShowArgs),
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  jali plan create --network vgg3 --leak 0.8 --seed 7 --out plan.json\n  jali seal --network vgg3 --plan plan.json --out sealed"
)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    of: Of,
    /// Fraction of the weights to leave open, by random rows
    #[arg(long, value_name = "F")]
    leak: f64,
    /// Which random rows are open
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where to write the plan
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    over: Over,
}

#[derive(clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    of: Of,
    /// The plan
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Of which network.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// The network as an ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    /// A bundled network
    #[arg(long, value_enum)]
    network: Option<NetworkName>,
}

impl Of {
    fn graph(&self) -> Result<Graph, JaliError> {
        match (&self.model, self.network) {
            (Some(path), _) => read_model(path),
            (None, network) => Network::from(network.unwrap_or(NetworkName::Vgg3)).graph(),
        }
    }
}

#[derive(Serialize)]
struct Report {
    made: String,
    weights: usize,
    fraction_open: f64,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: String,
    weights: usize,
    open: usize,
}

pub(super) fn run(command: &PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Create(args) => create(args),
        PlanCommand::Show(args) => show(args),
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    // The rows that sealing on this machine is going to make.
    let costs = args.over.costs(super::start_threads(None)?);
    let graph = args.of.graph()?;
    // They depend on shapes, quantisation bits and costs; a calibration on zeros is enough.
    let zero =
        jali::Tensor::new("zero", graph.input_shape().to_vec(), vec![0.0; graph.input_shape().iter().product()])?;
    let model = jali::QuantModel::calibrate(graph, Default::default(), &[zero], Some(1.0))?;
    let rows = Blueprint::rows_of_all(&model, &costs).map_err(JaliError::from)?;
    let wrong = |e| JaliError::from(ProtocolError::from(e));
    let plan = jali_leak::random_rows(model.graph(), &rows, args.leak, args.seed).map_err(wrong)?;
    let made = format!("random rows, fraction {}, seed {}", args.leak, args.seed);
    write_aside(&args.out, plan.to_json(model.graph(), &made).map_err(wrong)?.as_bytes())?;
    say(format!(
        "{}: {:.1} % of {} weights may be open",
        args.out.display(),
        100.0 * plan.fraction_open(),
        model.graph().weights()
    ))?;
    Ok(())
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let graph = args.of.graph()?;
    let (plan, made): (Plan, String) = read_plan(&args.plan, &graph)?;
    let layers = graph.linear_nodes().enumerate().map(|(l, (node, linear))| Layer {
        name: graph.nodes()[node].name.clone(),
        kind: linear.kind(),
        weights: linear.weights().len(),
        open: plan.open_ranges(l).iter().map(|[start, end]| end - start).sum(),
    });
    let report =
        Report { made, weights: graph.weights(), fraction_open: plan.fraction_open(), layers: layers.collect() };
    if args.json {
        return say_json(&report);
    }
    let rows =
        report.layers.iter().map(|l| vec![l.name.clone(), l.kind.clone(), l.weights.to_string(), l.open.to_string()]);
    say(format!("made by {}\n\n{}\n", report.made, table(&["layer", "kind", "weights", "may be open"], 2, rows)))?;
    say(format!("{:.1} % of {} weights may be open", 100.0 * report.fraction_open, report.weights))?;
    Ok(())
}
