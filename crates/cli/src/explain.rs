//! `jali explain`: what was chosen for every layer, what it should take and what it takes.

use std::path::PathBuf;

use jali::model_file::read_model;
use jali::{Network, OperatorReport, OperatorRun, QuantModel, Tensor, calibration};
use serde::Serialize;

use super::local::Local;
use super::text::{bytes, median, ms, primes, say, say_json, table};
use super::{Common, Leak, NetworkName, Over};

/// Show the ring and layout chosen for every layer, with predicted and measured cost side by side.
///
/// The prediction comes from a cost model that is measured on this machine once, in a second or
/// two, and kept in the user's cache folder. The measurement seals the network and runs it several
/// times in this process.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali explain\n  jali explain --network mnist --leak 1\n  jali explain net.onnx --link wan --json"
)]
pub(super) struct ExplainArgs {
    /// The network as an ONNX file; without it, a bundled one
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    /// The network as an ONNX file, as an option
    #[arg(long = "model", id = "model_file", value_name = "FILE.onnx", conflicts_with = "model")]
    model_file: Option<PathBuf>,
    /// Which bundled network
    #[arg(long, value_enum, default_value = "vgg3", conflicts_with_all = ["model", "model_file"])]
    network: NetworkName,
    /// Inferences to measure; the median counts
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Measure the cost model anew even if one is kept
    #[arg(long)]
    recalibrate: bool,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    common: Common,
}

/// The object that `--json` prints. Times are milliseconds per image (medians), bytes are per
/// image.
#[derive(Serialize)]
struct Report {
    network: String,
    backend: &'static str,
    threads: usize,
    link_rtt_ms: f64,
    link_mbit_per_s: f64,
    predicted_ms: f64,
    measured_ms: f64,
    /// Both without the link, which an inference in one process does not have.
    link_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
    server_memory: usize,
    /// Whether the machine was as fast after measuring as when it was calibrated, within 15 %.
    calibration_held: bool,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: String,
    ring_degree: usize,
    primes_bits: Vec<u32>,
    layout: String,
    tiles: usize,
    rows: usize,
    predicted_client_ms: f64,
    measured_client_ms: f64,
    predicted_server_ms: f64,
    measured_server_ms: f64,
    /// Predicted over measured, both sides together.
    ratio: f64,
    link_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
}

/// A shared machine may change its speed between calibration and measurement: then both are done
/// again, so often in all.
const ATTEMPTS: usize = 3;

/// A quantised network and an image for it: bundled, or read from a file. Times do not depend on
/// what the image shows, so a model from a file gets a made-up one.
pub(super) fn load(
    model: Option<&PathBuf>,
    bundled: NetworkName,
    common: &Common,
) -> anyhow::Result<(String, QuantModel, Vec<Tensor>)> {
    let Some(path) = model else {
        let bundled = Network::from(bundled);
        let images = bundled.dataset().bundled_test()?.into_iter().map(|s| s.image).collect();
        return Ok((bundled.name().into(), bundled.quantised(common.bits)?, images));
    };
    let graph = read_model(path)?;
    let shape = graph.input_shape().to_vec();
    let count: usize = shape.iter().product();
    let image = |i: usize| {
        Tensor::new("image", shape.clone(), (0..count).map(|k| ((k * 7919 + i) % 256) as f32 / 255.0).collect())
    };
    let images = (0..4).map(image).collect::<Result<Vec<_>, _>>()?;
    let model = QuantModel::calibrate(graph, common.bits, &images, Some((0.0, 1.0)))?;
    Ok((path.display().to_string(), model, images))
}

/// Returns what was predicted of a layer beside the medians of its runs.
fn layer_of<'a>(l: &OperatorReport, runs: impl Iterator<Item = &'a OperatorRun> + Clone) -> Layer {
    let client = ms(median(runs.clone().map(|r| r.client)));
    let server = ms(median(runs.clone().map(|r| r.server)));
    let p = l.prediction;
    Layer {
        name: l.name.clone(),
        kind: l.kind.clone(),
        ring_degree: l.ring_degree,
        primes_bits: l.primes_bits.clone(),
        layout: l.layout.clone(),
        tiles: l.tiles,
        rows: l.rows,
        predicted_client_ms: p.client_ms,
        measured_client_ms: client,
        predicted_server_ms: p.server_ms,
        measured_server_ms: server,
        ratio: (p.client_ms + p.server_ms) / (client + server),
        link_ms: p.link_ms,
        bytes_up: median(runs.clone().map(|r| r.bytes_up)),
        bytes_down: median(runs.map(|r| r.bytes_down)),
    }
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    let (name, model, images) = load(args.model.as_ref().or(args.model_file.as_ref()), args.network, &args.common)?;
    let mut costs =
        if args.recalibrate { calibration::recalibrate(backend)? } else { calibration::of_this_machine(backend)? };
    let mut attempt = 1;
    let (local, runs, calibration_held) = loop {
        costs = costs.over(args.over.link);
        let plan = args.leak.plan(&model, &costs)?;
        let mut local = Local::start(model.clone(), &plan, &costs, backend)?;
        let mut runs = vec![];
        for i in 0..usize::from(args.runs) {
            runs.push(local.client.infer(&images[i % images.len()])?);
        }
        let held = calibration::still_true(&costs, backend)?;
        if held || attempt == ATTEMPTS {
            break (local, runs, held);
        }
        attempt += 1;
        costs = calibration::recalibrate(backend)?;
    };
    let layer = |(i, l)| layer_of(l, runs.iter().map(|r| &r.operators[i]));
    let layers: Vec<Layer> = local.report.iter().enumerate().map(layer).collect();
    let sum = |f: &dyn Fn(&Layer) -> f64| layers.iter().map(f).sum::<f64>();
    let report = Report {
        network: name,
        backend: backend.name(),
        threads: rayon::current_num_threads(),
        link_rtt_ms: args.over.link.rtt_ms,
        link_mbit_per_s: args.over.link.mbit_per_s,
        predicted_ms: sum(&|l| l.predicted_client_ms + l.predicted_server_ms),
        measured_ms: sum(&|l| l.measured_client_ms + l.measured_server_ms),
        link_ms: sum(&|l| l.link_ms),
        bytes_up: layers.iter().map(|l| l.bytes_up).sum(),
        bytes_down: layers.iter().map(|l| l.bytes_down).sum(),
        server_memory: local.server_memory(),
        calibration_held,
        layers,
    };
    if args.common.json { say_json(&report) } else { print(&report) }
}

fn print(r: &Report) -> anyhow::Result<()> {
    let header = [
        "layer",
        "kind",
        "layout",
        "N",
        "primes",
        "tiles",
        "rows",
        "client ms",
        "measured",
        "server ms",
        "measured",
        "ratio",
        "up",
        "down",
    ];
    let rows = r.layers.iter().map(|l| {
        vec![
            l.name.clone(),
            l.kind.clone(),
            l.layout.clone(),
            l.ring_degree.to_string(),
            primes(&l.primes_bits),
            l.tiles.to_string(),
            l.rows.to_string(),
            format!("{:.2}", l.predicted_client_ms),
            format!("{:.2}", l.measured_client_ms),
            format!("{:.2}", l.predicted_server_ms),
            format!("{:.2}", l.measured_server_ms),
            format!("{:.2}", l.ratio),
            bytes(l.bytes_up),
            bytes(l.bytes_down),
        ]
    });
    say(format!("{}, backend {}, {} thread(s)\n", r.network, r.backend, r.threads))?;
    say(format!("{}\n", table(&header, 3, rows)))?;
    say(format!("work      {:.1} ms predicted, {:.1} ms measured in this process", r.predicted_ms, r.measured_ms))?;
    if r.link_mbit_per_s > 0.0 {
        say(format!(
            "link      {:.0} ms predicted at {} ms and {} Mbit/s",
            r.link_ms, r.link_rtt_ms, r.link_mbit_per_s
        ))?;
    }
    say(format!("traffic   {} up, {} down per image", bytes(r.bytes_up), bytes(r.bytes_down)))?;
    say(format!("memory    {} for the server's matrices", bytes(r.server_memory)))?;
    if !r.calibration_held {
        say(
            "note      this machine changed its speed by more than 15 % while it was measured: predictions are off by as much",
        )?;
    }
    Ok(())
}
