//! `jali demo`: the main job on bundled images.

use std::time::{Duration, Instant};

use jali::{ImageRun, JaliError, Network, Session, Tensor};
use jali_model::float;
use jali_net::server::Limits;
use jali_net::{Client, ClientConfig, Config, Running, model_name};
use jali_protocol::LayerReport;
use serde::Serialize;

use super::text::{Spread, bytes, median, ms, percent, primes, progress, say, say_json, table};
use super::{Common, DIFFERENT, Leak, NetworkName, Over, conclude, start_session};

/// Classify bundled test images with a bundled network and show what every layer costs.
///
/// The server half holds only the sealed model and sees only masked inputs; client and server exchange encoded messages
/// over HTTP on loopback. Every layer's integers are compared with a plaintext run.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali demo\n  jali demo --network mnist --images 100\n  jali demo --leak 0.8 --seed 7 --json"
)]
pub(super) struct DemoArgs {
    /// Which bundled network
    #[arg(long, value_enum, default_value = "vgg3")]
    network: NetworkName,
    /// How many of the 1000 bundled test images
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    images: u16,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    over: Over,
    /// Hand messages over inside the process instead of over HTTP on loopback
    #[arg(long)]
    in_process: bool,
    #[command(flatten)]
    common: Common,
}

/// The object that `--json` prints. Times are milliseconds per image, medians over images; bytes are per image, the
/// lengths of buffers that the other side decoded. Field names are stable.
#[derive(Serialize)]
struct Report {
    network: &'static str,
    dataset: &'static str,
    images: usize,
    /// `loopback` (HTTP) or `in-process`.
    transport: &'static str,
    weights_hidden: f64,
    exact: bool,
    correct: usize,
    latency_ms: Spread,
    client_ms: f64,
    server_ms: f64,
    plain_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
    sealed_bytes: usize,
    hint_bytes: usize,
    kernel: &'static str,
    threads: usize,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: String,
    ring_degree: usize,
    primes_bits: Vec<u32>,
    tiles: usize,
    rows: usize,
    products: usize,
    weights: usize,
    weights_hidden: f64,
    client_ms: f64,
    server_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
    noise_bound_bits: f64,
    noise_bits_available: f64,
}

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let kernel = args.common.start()?;
    let network = Network::from(args.network);
    let dataset = network.dataset();
    let samples = dataset.bundled_test()?;
    let samples = &samples[..usize::from(args.images)];
    let model = network.quantised(args.common.bits)?;
    let costs = args.over.costs(kernel);
    let plan = args.leak.plan(&model, &costs)?;
    let mut session = start_session(model, &plan, &costs, kernel)?;
    let hidden = hidden_fraction(session.report());
    let text = !args.common.json;
    if text {
        introduce(network, &session, hidden)?;
    }

    let line = if args.in_process { None } else { Some(Loopback::start(&session)?) };
    let bar = progress(samples.len(), "classifying");
    let (mut runs, mut plain, mut correct, mut exact) = (vec![], vec![], 0, 0);
    for (i, sample) in samples.iter().enumerate() {
        let run = match &line {
            None => session.infer(sample.image.clone())?,
            Some(line) => line.infer(&mut session, sample.image.clone())?,
        };
        let start = Instant::now();
        float::run(session.model().graph(), sample.image.clone())?;
        plain.push(start.elapsed());
        exact += usize::from(run.is_exact(session.model(), sample.image.clone())?);
        let predicted = run.output.argmax();
        correct += usize::from(predicted == sample.label);
        if text {
            let confidence = 100.0 * run.output.softmax()[predicted];
            let (label, guess) = (dataset.classes()[sample.label], dataset.classes()[predicted]);
            let mark = if predicted == sample.label { ' ' } else { 'x' };
            let latency = ms(run.latency);
            let line = format!("{mark} image {i:4}  {label:>10}: {guess:<10} {confidence:5.1} %  {latency:7.1} ms");
            if let Err(e) = bar.suspend(|| say(line)) {
                return conclude(Err(e.into()), (exact <= i).then_some(DIFFERENT));
            }
        }
        runs.push(run);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut report = summarise(network, &session, &runs, &plain, (correct, exact == runs.len(), hidden), kernel.name());
    if args.in_process {
        report.transport = "in-process";
    }
    let printed = if text { print(&report, exact) } else { say_json(&report) };
    conclude(printed, (!report.exact).then_some(DIFFERENT))
}

/// Longest time for a request over loopback.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The server behind a socket of this machine.
struct Loopback {
    model: String,
    client: Client,
    /// Ends with this value.
    _server: Running,
}

impl Loopback {
    fn start(session: &Session) -> anyhow::Result<Self> {
        let listen = ([127, 0, 0, 1], 0).into();
        let config = Config { listen, tls: None, tokens: None, insecure: false, limits: Limits::default() };
        let server = session.server();
        let model = model_name(server.model().id());
        let running = Running::start(config).map_err(JaliError::from)?;
        running.serve(vec![server]);
        let url = format!("http://{}", running.addr());
        let config = ClientConfig { url, ca_cert: None, token: None, timeout: TIMEOUT, insecure: false };
        let client = Client::new(&config).map_err(JaliError::from)?;
        Ok(Self { model, client, _server: running })
    }

    fn infer(&self, session: &mut Session, image: Tensor) -> Result<ImageRun, JaliError> {
        let carry = |layer, request: &[u8]| {
            self.client.apply(&self.model, layer, request, usize::MAX, TIMEOUT).map_err(std::io::Error::other)
        };
        session.infer_through(vec![image], carry)?.into_single()
    }
}

pub(super) fn hidden_fraction(layers: &[LayerReport]) -> f64 {
    let sealed: usize = layers.iter().map(|l| l.weights_sealed).sum();
    sealed as f64 / layers.iter().map(|l| l.weights).sum::<usize>() as f64
}

fn introduce(network: Network, session: &Session, hidden: f64) -> anyhow::Result<()> {
    let weights: usize = session.report().iter().map(|l| l.weights).sum();
    say(format!(
        "The owner has sealed {} ({weights} weights): {:.1} % hidden, {:.1} % open.",
        network.name(),
        100.0 * hidden,
        100.0 * (1.0 - hidden)
    ))?;
    say(format!(
        "The server holds the sealed model ({}) and no key; it will see masked inputs and do every linear layer.",
        bytes(session.sealed_bytes())
    ))?;
    say(format!(
        "The client holds the keys and {} of hints; it masks, checks every answer, unmasks, and does the rest.",
        bytes(session.hint_bytes())
    ))?;
    say(format!("The images are from the {} test set: the network has not seen them.\n", network.dataset().name()))?;
    Ok(())
}

fn summarise(
    network: Network,
    session: &Session,
    runs: &[ImageRun],
    plain: &[Duration],
    (correct, exact, weights_hidden): (usize, bool, f64),
    kernel: &'static str,
) -> Report {
    let layers = session.report().iter().enumerate().map(|(i, l)| {
        let of = |f: &dyn Fn(&jali::LayerRun) -> Duration| ms(median(runs.iter().map(|r| f(&r.layers[i]))));
        Layer {
            name: l.name.clone(),
            kind: l.kind.clone(),
            ring_degree: l.ring_degree,
            primes_bits: l.primes_bits.clone(),
            tiles: l.tiles,
            rows: l.rows,
            products: l.tiles * l.rows,
            weights: l.weights,
            weights_hidden: l.weights_sealed as f64 / l.weights as f64,
            client_ms: of(&|l| l.client),
            server_ms: of(&|l| l.server),
            bytes_up: median(runs.iter().map(|r| r.layers[i].bytes_up)),
            bytes_down: median(runs.iter().map(|r| r.layers[i].bytes_down)),
            noise_bound_bits: l.noise.bound_bits,
            noise_bits_available: l.noise.available_bits,
        }
    });
    let server = |r: &ImageRun| r.layers.iter().map(|l| l.server).sum::<Duration>();
    Report {
        network: network.name(),
        dataset: network.dataset().name(),
        images: runs.len(),
        transport: "loopback",
        weights_hidden,
        exact,
        correct,
        latency_ms: Spread::of(&runs.iter().map(|r| r.latency).collect::<Vec<_>>()),
        client_ms: ms(median(runs.iter().map(|r| r.latency.saturating_sub(server(r))))),
        server_ms: ms(median(runs.iter().map(server))),
        plain_ms: ms(median(plain.iter().copied())),
        bytes_up: median(runs.iter().map(|r| r.layers.iter().map(|l| l.bytes_up).sum::<usize>())),
        bytes_down: median(runs.iter().map(|r| r.layers.iter().map(|l| l.bytes_down).sum::<usize>())),
        sealed_bytes: session.sealed_bytes(),
        hint_bytes: session.hint_bytes(),
        kernel,
        threads: rayon::current_num_threads(),
        layers: layers.collect(),
    }
}

fn print(r: &Report, exact: usize) -> anyhow::Result<()> {
    let header = [
        "layer",
        "kind",
        "N",
        "primes",
        "tiles",
        "rows",
        "products",
        "hidden",
        "client ms",
        "server ms",
        "up",
        "down",
        "noise bound",
    ];
    let rows = r.layers.iter().map(|l| {
        vec![
            l.name.clone(),
            l.kind.clone(),
            l.ring_degree.to_string(),
            primes(&l.primes_bits),
            l.tiles.to_string(),
            l.rows.to_string(),
            l.products.to_string(),
            format!("{:.0} %", 100.0 * l.weights_hidden),
            format!("{:.2}", l.client_ms),
            format!("{:.2}", l.server_ms),
            bytes(l.bytes_up),
            bytes(l.bytes_down),
            format!("{:.1} of {:.1} bits", l.noise_bound_bits, l.noise_bits_available),
        ]
    });
    say(format!("\n{}\n", table(&header, 2, rows)))?;
    say(format!("accuracy       {} of {} ({:.1} %)", r.correct, r.images, percent(r.correct, r.images)))?;
    say(if r.exact {
        "correctness    encrypted = plaintext: exact on every layer".to_string()
    } else {
        format!(
            "correctness    ENCRYPTED AND PLAINTEXT DIFFER: only {exact} of {} images are exact on every layer",
            r.images
        )
    })?;
    say(format!(
        "latency        {:.1} ms median ({:.1} to {:.1}): client {:.1}, server {:.1}; kernel {}, {} thread(s)",
        r.latency_ms.median, r.latency_ms.min, r.latency_ms.max, r.client_ms, r.server_ms, r.kernel, r.threads
    ))?;
    say(format!(
        "unencrypted    {:.1} ms for the same network in the clear (Jali's float path, one thread; onnxruntime took 0.4 to 0.6 of that: docs/performance.md)",
        r.plain_ms
    ))?;
    say(format!("traffic        {} up, {} down per image", bytes(r.bytes_up), bytes(r.bytes_down)))?;
    say(format!(
        "sealed model   {} on the server, {} of hints with the client",
        bytes(r.sealed_bytes),
        bytes(r.hint_bytes)
    ))?;
    Ok(())
}
