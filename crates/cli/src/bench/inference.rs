//! Whole inferences, one image at a time and in batches.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jali::{
    Backend, BatchAnswer, Client, Costs, InProcess, Link, Plan, QuantModel, Tensor, Traced, Transport, calibration,
};
use jali_model::float;
use jali_protocol::Server;
use jali_protocol::thread_pool::in_pool;
use serde::Serialize;

use super::shaped::{Carried, Shaped};
use super::sweep_svg::plot;
use crate::explain::load;
use crate::local::{Local, hidden_fraction};
use crate::text::{Spread, bytes, median, ms, progress, say, say_json, table};
use crate::{Common, DIFFERENT, Leak, NetworkName, conclude};

/// Measure latency and throughput: everything hidden, 80 % open, all open, and the same network in
/// the clear.
///
/// The four are run in turn, so that other load on the machine meets all of them alike. Every
/// encrypted result is compared with the plaintext integer reference. With a link other than
/// loopback, requests and answers cross a local proxy that has the link's round-trip time and
/// capacity.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali bench inference\n  jali bench inference --network mnist --runs 200 --json\n  jali bench inference --link wan --runs 5 --batches 1\n  jali bench inference --sweep curve.svg"
)]
pub(crate) struct InferenceArgs {
    /// The network as an ONNX file; without it, a bundled one
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    /// The network as an ONNX file, as an option
    #[arg(long = "model", id = "model_file", value_name = "FILE.onnx", conflicts_with = "model")]
    model_file: Option<PathBuf>,
    /// Which bundled network
    #[arg(long, value_enum, default_value = "vgg3", conflicts_with_all = ["model", "model_file"])]
    network: NetworkName,
    /// Images for each of the four, one at a time
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Sizes of the batches whose throughput is measured, everything hidden
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,4,16,64",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    batches: Vec<u16>,
    /// Also measure 0, 10, .. 100 % open and write the curve as SVG
    #[arg(long, value_name = "FILE.svg")]
    sweep: Option<PathBuf>,
    /// Which random rows are open
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// loopback, lan (0.3 ms, 1 Gbit/s), wan (40 ms, 100 Mbit/s) or RTT,MBPS
    #[arg(long, value_name = "LINK", default_value = "loopback")]
    link: Link,
    #[command(flatten)]
    common: Common,
}

/// The object that `--json` prints. Times are milliseconds per image, bytes are per image. Field
/// names are stable.
#[derive(Serialize)]
struct Report {
    network: String,
    backend: &'static str,
    threads: usize,
    link_rtt_ms: f64,
    link_mbit_per_s: f64,
    runs: usize,
    exact: bool,
    hidden: Figures,
    leaked_80: Figures,
    leaked: Figures,
    clear: Figures,
    hidden_over_leaked: f64,
    hidden_over_clear: f64,
    /// What reading the matrices, a request and an answer for one image would take, all hidden, at
    /// the speed at which the matrices can be read.
    server_bus_ms: f64,
    /// The server's time as a multiple of that; none with a link, which its time includes then.
    server_over_bus: Option<f64>,
    batches: Vec<Batch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sweep: Vec<Point>,
    /// The server's matrices with everything hidden, in memory and as they are sent.
    server_memory: usize,
    sealed_bytes: usize,
}

#[derive(Serialize)]
struct Figures {
    latency_ms: Spread,
    server_ms: f64,
    client_ms: f64,
    images_per_s: f64,
    bytes_up: usize,
    bytes_down: usize,
}

#[derive(Serialize)]
struct Batch {
    images: usize,
    images_per_s: f64,
    server_ms: f64,
    client_ms: f64,
}

#[derive(Serialize)]
pub(super) struct Point {
    pub(super) leak: f64,
    weights_open: f64,
    pub(super) latency_ms: f64,
    sealed_bytes: usize,
}

/// Which of the subjects has everything hidden.
const HIDDEN: usize = 0;

/// One image's times and bytes.
#[derive(Clone, Copy, Default)]
struct One {
    latency: Duration,
    server: Duration,
    up: usize,
    down: usize,
}

/// A sealed network and how to reach its server.
struct Subject {
    model: QuantModel,
    client: Client<Box<dyn Transport>>,
    server: Arc<Server>,
    /// Counts what crosses the link, if there is one.
    carried: Option<Carried>,
    weights_hidden: f64,
    sealed_bytes: usize,
    runs: Vec<One>,
    exact: bool,
}

impl Subject {
    fn new(model: &QuantModel, plan: &Plan, costs: &Costs, backend: Backend) -> anyhow::Result<Self> {
        let Local { model, client, server, report, sealed_bytes } = Local::start(model.clone(), plan, costs, backend)?;
        let line = (costs.link != Link::LOOPBACK).then(|| Shaped::start(server.clone(), costs.link)).transpose()?;
        let carried = line.as_ref().map(Shaped::carried);
        let transport: Box<dyn Transport> = match line {
            Some(line) => Box::new(line),
            None => Box::new(InProcess::new(server.clone())),
        };
        let client = client.over(transport)?;
        let weights_hidden = hidden_fraction(&report);
        Ok(Self { model, client, server, carried, weights_hidden, sealed_bytes, runs: vec![], exact: true })
    }

    fn infer(&mut self, images: &[Tensor]) -> anyhow::Result<Traced<BatchAnswer>> {
        Ok(self.client.infer_batch_traced(images)?)
    }

    fn run(&mut self, image: &Tensor) -> anyhow::Result<()> {
        let before = self.carried.as_ref().map(Carried::bytes);
        let images = std::slice::from_ref(image);
        let run = self.infer(images)?;
        self.exact &= run.are_exact(&self.model, images)? == [true];
        let run = run.answer;
        let (mut up, mut down) = run.operators.iter().fold((0, 0), |s, l| (s.0 + l.bytes_up, s.1 + l.bytes_down));
        if let (Some(before), Some(carried)) = (before, &self.carried) {
            // What the proxy saw, framing included.
            let after = carried.bytes();
            (up, down) = ((after.0 - before.0) as usize, (after.1 - before.1) as usize);
        }
        let server = run.operators.iter().map(|o| o.server).sum();
        self.runs.push(One { latency: run.latency, server, up, down });
        Ok(())
    }

    fn figures(&self) -> Figures {
        figures(&self.runs)
    }
}

fn figures(runs: &[One]) -> Figures {
    let latencies: Vec<Duration> = runs.iter().map(|r| r.latency).collect();
    Figures {
        images_per_s: 1.0 / median(latencies.iter().copied()).as_secs_f64(),
        latency_ms: Spread::of(&latencies),
        server_ms: ms(median(runs.iter().map(|r| r.server))),
        client_ms: ms(median(runs.iter().map(|r| r.latency.saturating_sub(r.server)))),
        bytes_up: median(runs.iter().map(|r| r.up)),
        bytes_down: median(runs.iter().map(|r| r.down)),
    }
}

/// What is measured once for all subjects, image by image.
#[derive(Default)]
struct Beside {
    /// The network in the clear.
    clear: Vec<One>,
    /// Reading all matrices.
    reading: Vec<Duration>,
}

/// Runs all subjects in turn. The first round warms up and does not count.
fn in_turn(args: &InferenceArgs, subjects: &mut [Subject], images: &[Tensor]) -> anyhow::Result<Beside> {
    let bar = progress(usize::from(args.runs), "inferring");
    let mut beside = Beside::default();
    for i in 0..=usize::from(args.runs) {
        let image = &images[i % images.len()];
        for subject in &mut *subjects {
            subject.run(image)?;
        }
        let server = subjects[HIDDEN].server.clone();
        beside.reading.push(in_pool(|| {
            let start = Instant::now();
            std::hint::black_box(server.model().read_all());
            start.elapsed()
        }));
        let start = Instant::now();
        float::run(subjects[HIDDEN].model.graph(), image.clone())?;
        beside.clear.push(One { latency: start.elapsed(), ..One::default() });
        bar.inc(1);
    }
    bar.finish_and_clear();
    for subject in subjects {
        subject.runs.remove(0);
    }
    beside.clear.remove(0);
    beside.reading.remove(0);
    Ok(beside)
}

/// Measures 0, 10, .. 100 % open.
fn sweep(
    args: &InferenceArgs,
    images: &[Tensor],
    seal: impl Fn(f64) -> anyhow::Result<Subject>,
) -> anyhow::Result<Vec<Point>> {
    let bar = progress(11, "sweep");
    let mut points = vec![];
    for leak in (0..=10).map(|tenth| f64::from(tenth) / 10.0) {
        let mut subject = seal(leak)?;
        for i in 0..=usize::from(args.runs).min(15) {
            subject.run(&images[i % images.len()])?;
        }
        subject.runs.remove(0);
        points.push(Point {
            leak,
            weights_open: 1.0 - subject.weights_hidden,
            latency_ms: subject.figures().latency_ms.median,
            sealed_bytes: subject.sealed_bytes,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(points)
}

pub(super) fn run(args: &InferenceArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    if let Some(folder) = args.sweep.as_ref().and_then(|p| p.parent()).filter(|f| !f.as_os_str().is_empty()) {
        // Said now, not after minutes of measuring.
        anyhow::ensure!(folder.is_dir(), "--sweep: {} is not a folder", folder.display());
    }
    let (network, model, images) = load(args.model.as_ref().or(args.model_file.as_ref()), args.network, &args.common)?;
    let costs = calibration::of_this_machine(backend)?.over(args.link);
    let seal = |leak: f64| -> anyhow::Result<Subject> {
        let plan = Leak { leak, seed: args.seed, plan: None }.plan(&model, &costs)?;
        Subject::new(&model, &plan, &costs, backend)
    };
    let mut subjects = [seal(0.0)?, seal(0.8)?, seal(1.0)?];
    let Beside { clear, reading } = in_turn(args, &mut subjects, &images)?;
    let [hidden, leaked_80, leaked] = &mut subjects;
    let bar = progress(args.batches.len(), "batches");
    let mut batches = vec![];
    for &size in &args.batches {
        batches.push(batch(hidden, &images, size.into(), usize::from(args.runs))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut points = vec![];
    if let Some(path) = &args.sweep {
        points = sweep(args, &images, seal)?;
        std::fs::write(path, plot(&network, &points, median(clear.iter().map(|c| c.latency))))
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    let one = &hidden.runs[0];
    let (matrices, carried) = (hidden.server.model().memory() as f64, (one.up + one.down) as f64);
    let server_bus_ms = ms(median(reading)) * (1.0 + carried / matrices);
    let (hidden_figures, leaked_figures, clear) = (hidden.figures(), leaked.figures(), figures(&clear));
    let report = Report {
        network,
        backend: backend.name(),
        threads: rayon::current_num_threads(),
        link_rtt_ms: args.link.rtt_ms,
        link_mbit_per_s: args.link.mbit_per_s,
        runs: args.runs.into(),
        exact: hidden.exact && leaked_80.exact && leaked.exact,
        hidden_over_leaked: hidden_figures.latency_ms.median / leaked_figures.latency_ms.median,
        hidden_over_clear: hidden_figures.latency_ms.median / clear.latency_ms.median,
        server_bus_ms,
        server_over_bus: (args.link == Link::LOOPBACK).then_some(hidden_figures.server_ms / server_bus_ms),
        hidden: hidden_figures,
        leaked_80: leaked_80.figures(),
        leaked: leaked_figures,
        clear,
        batches,
        sweep: points,
        server_memory: hidden.server.model().memory(),
        sealed_bytes: hidden.sealed_bytes,
    };
    let printed = if args.common.json { say_json(&report) } else { print(&report) };
    conclude(printed, (!report.exact).then_some(DIFFERENT))
}

/// Median throughput of batches of one size.
fn batch(subject: &mut Subject, images: &[Tensor], size: usize, runs: usize) -> anyhow::Result<Batch> {
    let batch: Vec<Tensor> = (0..size).map(|i| images[i % images.len()].clone()).collect();
    let (mut latency, mut server) = (vec![], vec![]);
    for _ in 0..(runs / size).max(3) {
        let run = subject.infer(&batch)?.answer;
        latency.push(run.latency);
        server.push(run.operators.iter().map(|o| o.server).sum::<Duration>());
    }
    let (latency, server) = (median(latency), median(server));
    Ok(Batch {
        images: size,
        images_per_s: size as f64 / latency.as_secs_f64(),
        server_ms: ms(server) / size as f64,
        client_ms: ms(latency.saturating_sub(server)) / size as f64,
    })
}

fn print(r: &Report) -> anyhow::Result<()> {
    let link = match r.link_mbit_per_s {
        0.0 => "in one process".to_string(),
        rate => format!("over {} ms and {rate} Mbit/s", r.link_rtt_ms),
    };
    say(format!("{}, backend {}, {} thread(s), {link}, {} images each\n", r.network, r.backend, r.threads, r.runs))?;
    let header = ["weights", "median ms", "min", "max", "client ms", "server ms", "images/s", "up", "down"];
    let all = [
        ("all hidden", &r.hidden),
        ("80 % open", &r.leaked_80),
        ("all open", &r.leaked),
        ("in the clear (float, one thread)", &r.clear),
    ];
    let rows = all.iter().map(|(name, f)| {
        vec![
            name.to_string(),
            format!("{:.1}", f.latency_ms.median),
            format!("{:.1}", f.latency_ms.min),
            format!("{:.1}", f.latency_ms.max),
            format!("{:.1}", f.client_ms),
            format!("{:.1}", f.server_ms),
            format!("{:.1}", f.images_per_s),
            bytes(f.bytes_up),
            bytes(f.bytes_down),
        ]
    });
    say(format!("{}\n", table(&header, 1, rows)))?;
    say(format!("hidden / open {:.2}, hidden / clear {:.1}", r.hidden_over_leaked, r.hidden_over_clear))?;
    if let Some(times) = r.server_over_bus {
        say(format!(
            "server, all hidden: {times:.2} x the {:.2} ms that reading the matrices, a request and an answer takes",
            r.server_bus_ms
        ))?;
    }
    for b in &r.batches {
        say(format!(
            "batch of {:3}  {:6.1} images/s all hidden; per image {:.1} ms client, {:.1} ms server",
            b.images, b.images_per_s, b.client_ms, b.server_ms
        ))?;
    }
    for p in &r.sweep {
        let (allowed, open) = (100.0 * p.leak, 100.0 * p.weights_open);
        let sealed = bytes(p.sealed_bytes);
        say(format!("{allowed:3.0} % allowed open, {open:5.1} % opened: {:6.1} ms, sealed {sealed}", p.latency_ms))?;
    }
    say(format!("server memory {}, sealed {}", bytes(r.server_memory), bytes(r.sealed_bytes)))?;
    say(if r.exact { "exact on every layer of every image" } else { "ENCRYPTED AND PLAINTEXT DIFFER" })?;
    Ok(())
}
