//! `jali explain`: what was chosen for every layer, what it should take and what it takes.

use std::path::PathBuf;

use jali::{Network, QuantModel, Tensor, calibration, network};
use jali_pack::Answer;
use jali_protocol::answer_kind;
use serde::Serialize;

use super::text::{answer, bytes, kind_of_answer, median, ms, primes, say, say_json, table};
use super::{Common, Leak, NetworkName, Over, start_session};

/// Show the ring and layout chosen for every layer, with predicted and measured cost side by side.
///
/// The prediction comes from a cost model that is measured on this machine once, in a second or two, and kept in the user's
/// cache folder. The measurement seals the network and runs it several times in this process.
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
    /// What to ask the server for: the coefficients that are wanted, whole rows in the NTT domain, or what is cheapest for each layer
    #[arg(long, value_enum, default_value = "cheapest")]
    answer: Rows,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    common: Common,
}

/// What comes back of a row.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Rows {
    /// What was chosen.
    Cheapest,
    /// Wanted coefficients.
    Wanted,
    /// Everything, in the NTT domain.
    Whole,
}

impl Rows {
    fn of(self, chosen: Answer) -> Answer {
        match self {
            Self::Cheapest => chosen,
            Self::Wanted => Answer { whole_rows: false, ..chosen },
            Self::Whole => Answer { whole_rows: true, ..chosen },
        }
    }
}

/// The object that `--json` prints. Times are milliseconds per image (medians), bytes are per image.
#[derive(Serialize)]
struct Report {
    network: String,
    kernel: &'static str,
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
    /// What comes back: "wanted" coefficients or "whole rows" in the NTT domain.
    answer: &'static str,
    /// Whether hints come with every answer.
    second_component: bool,
    /// What other answers would take more than the one that was chosen (whatever `--answer` says), with the ring and layout that would be best for them, before open
    /// rows are counted; 0 for the one that was chosen.
    whole_rows_more_ms: f64,
    whole_rows_more_bytes: i64,
    second_component_more_ms: f64,
    second_component_more_bytes: i64,
}

/// A shared machine may change its speed between calibration and measurement: then both are done again, so often in all.
const ATTEMPTS: usize = 3;

/// A quantised network and an image for it: bundled, or read from a file. Times do not depend on what the image shows, so a
/// model from a file gets a made-up one.
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
    let graph = network::read_model(path)?;
    let shape = graph.input_shape().to_vec();
    let count: usize = shape.iter().product();
    let image = |i: usize| {
        Tensor::new("image", shape.clone(), (0..count).map(|k| ((k * 7919 + i) % 256) as f32 / 255.0).collect())
    };
    let images = (0..4).map(image).collect::<Result<Vec<_>, _>>()?;
    let model = QuantModel::calibrate(graph, common.bits, &images, Some((0.0, 1.0)))?;
    Ok((path.display().to_string(), model, images))
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let kernel = args.common.start()?;
    let (name, model, images) = load(args.model.as_ref().or(args.model_file.as_ref()), args.network, &args.common)?;
    let mut costs =
        if args.recalibrate { calibration::recalibrate(kernel)? } else { calibration::of_this_machine(kernel)? };
    let mut attempt = 1;
    let (session, runs, calibration_held) = loop {
        costs = args.over.put(costs);
        let plan = args.leak.plan(&model, &costs)?;
        let mut session = start_session(model.clone(), &plan, &costs, kernel)?;
        let kinds: Vec<_> = session.report().iter().map(|l| answer_kind(args.answer.of(l.counts.answer))).collect();
        session.ask_for(&kinds)?;
        let mut runs = vec![];
        for i in 0..usize::from(args.runs) {
            runs.push(session.infer(images[i % images.len()].clone())?);
        }
        let held = calibration::still_true(&costs, kernel)?;
        if held || attempt == ATTEMPTS {
            break (session, runs, held);
        }
        attempt += 1;
        costs = calibration::recalibrate(kernel)?;
    };
    let layers: Vec<Layer> = session
        .report()
        .iter()
        .enumerate()
        .map(|(i, l)| {
            let client = ms(median(runs.iter().map(|r| r.layers[i].client)));
            let server = ms(median(runs.iter().map(|r| r.layers[i].server)));
            let other = |is: fn(&Answer) -> bool| {
                l.others.iter().find(|o| is(&o.answer)).map_or((0.0, 0), |o| (o.more_ms, o.more_bytes))
            };
            let (whole_rows, second_component) = (other(|a| a.whole_rows), other(|a| a.second_component));
            let (counts, hidden) = (l.counts.answered(args.answer.of(l.counts.answer)), l.weights_sealed > 0);
            // As it was chosen, or as it was asked to be.
            let p = if counts == l.counts { l.prediction } else { costs.predict(&counts, hidden) };
            Layer {
                answer: answer(counts.answer.whole_rows),
                second_component: counts.answer.second_component,
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
                bytes_up: median(runs.iter().map(|r| r.layers[i].bytes_up)),
                bytes_down: median(runs.iter().map(|r| r.layers[i].bytes_down)),
                whole_rows_more_ms: whole_rows.0,
                whole_rows_more_bytes: whole_rows.1,
                second_component_more_ms: second_component.0,
                second_component_more_bytes: second_component.1,
            }
        })
        .collect();
    let sum = |f: &dyn Fn(&Layer) -> f64| layers.iter().map(f).sum::<f64>();
    let report = Report {
        network: name,
        kernel: kernel.name(),
        threads: rayon::current_num_threads(),
        link_rtt_ms: args.over.link.rtt_ms,
        link_mbit_per_s: args.over.link.mbit_per_s,
        predicted_ms: sum(&|l| l.predicted_client_ms + l.predicted_server_ms),
        measured_ms: sum(&|l| l.measured_client_ms + l.measured_server_ms),
        link_ms: sum(&|l| l.link_ms),
        bytes_up: layers.iter().map(|l| l.bytes_up).sum(),
        bytes_down: layers.iter().map(|l| l.bytes_down).sum(),
        server_memory: session.server_memory(),
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
        "answer",
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
            kind_of_answer(l.answer, l.second_component),
            format!("{:.2}", l.predicted_client_ms),
            format!("{:.2}", l.measured_client_ms),
            format!("{:.2}", l.predicted_server_ms),
            format!("{:.2}", l.measured_server_ms),
            format!("{:.2}", l.ratio),
            bytes(l.bytes_up),
            bytes(l.bytes_down),
        ]
    });
    say(format!("{}, kernel {}, {} thread(s)\n", r.network, r.kernel, r.threads))?;
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
    let sum = |chosen: fn(&Layer) -> bool, more: fn(&Layer) -> (f64, i64)| {
        let others = r.layers.iter().filter(|l| !chosen(l));
        let (ms, bytes) = others.map(more).fold((0.0, 0), |(a, b), (ms, bytes)| (a + ms, b + bytes));
        let count = r.layers.iter().filter(|l| chosen(l)).count();
        format!("{count} of {} layers; for the others {ms:+.2} ms, {:+.2} MB", r.layers.len(), bytes as f64 / 1e6)
    };
    let whole = sum(|l| l.answer != "wanted", |l| (l.whole_rows_more_ms, l.whole_rows_more_bytes));
    let second = sum(|l| l.second_component, |l| (l.second_component_more_ms, l.second_component_more_bytes));
    say(format!("answers   whole rows in the NTT domain: {whole}"))?;
    say(format!("          a second component instead of hints: {second}"))?;
    if !r.calibration_held {
        say(
            "note      this machine changed its speed by more than 15 % while it was measured: predictions are off by as much",
        )?;
    }
    Ok(())
}
