//! `jali demo`: the main job on bundled images.

mod browser;
mod guest;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jali::{
    Answer, Client, Dataset, Http, InProcess, JaliError, Network, OperatorRun, QuantModel, Sample, Server, Transport,
};
use jali_model::float;
use jali_net::{Config, Running};
use serde::Serialize;

use super::local::{Local, hidden_fraction};
use super::options::GuestOutput;
use super::text::{Spread, bytes, median, ms, percent, primes, progress, say, say_json, table};
use super::{Common, DIFFERENT, Leak, NetworkName, Over, conclude};

/// Classify bundled test images with a bundled network and show what every layer costs.
///
/// The server half holds only the sealed model and sees only masked inputs; client and server
/// exchange encoded messages over HTTP on loopback. Every layer's integers are compared with a
/// plaintext run.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali demo\n  jali demo --network mnist --images 100\n  jali demo --leak 0.8 --seed 7 --json\n  jali demo --guest                       owner, server and guest: nobody sees the model but its owner\n  jali demo --browser                     a page on which you drop a picture"
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
    /// Infer as a guest, who may use the network and must not have it
    #[arg(long)]
    guest: bool,
    /// What the guest learns of an output
    #[arg(long, value_enum, default_value = "logits", requires = "guest")]
    output: GuestOutput,
    /// Serve a page on this machine, on which a person drops a picture, and open it in a browser;
    /// the first --images test images are its samples
    #[arg(long, conflicts_with_all = ["guest", "in_process"])]
    browser: bool,
    /// Folder of the page [default: web/dist, which scripts/build-web makes, here or above]
    #[arg(long, value_name = "DIR", requires = "browser")]
    pages: Option<std::path::PathBuf>,
    /// Print the page's address and start no browser
    #[arg(long, requires = "browser")]
    no_open: bool,
    /// Hand messages over inside the process instead of over HTTP on loopback
    #[arg(long)]
    in_process: bool,
    #[command(flatten)]
    common: Common,
}

/// The object that `--json` prints. Times are milliseconds per image, medians over images; bytes
/// are per image, the lengths of buffers that the other side decoded. Field names are stable.
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
    backend: &'static str,
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
    let backend = args.common.start()?;
    if args.browser {
        return browser::run(args, backend);
    }
    if args.guest {
        return guest::run(args, backend);
    }
    let network = Network::from(args.network);
    let samples = network.dataset().bundled_test()?;
    let model = network.quantised(args.common.bits)?;
    let costs = args.over.costs(backend);
    let plan = args.leak.plan(&model, &costs)?;
    let mut local = Local::start(model, &plan, &costs, backend)?;
    let text = !args.common.json;
    if text {
        introduce(network, &local)?;
    }
    let samples = &samples[..usize::from(args.images)];
    let measured = match args.in_process {
        true => classify(&mut local.client, &local.model, network.dataset(), samples, text)?,
        false => {
            let (http, _server) = loopback(local.server.clone())?;
            let mut client = local.client.over(http)?;
            let measured = classify(&mut client, &local.model, network.dataset(), samples, text)?;
            local.client = client.over(InProcess::new(local.server.clone()))?;
            measured
        }
    };
    let mut report = summarise(network, &local, &measured, backend.name());
    if args.in_process {
        report.transport = "in-process";
    }
    let printed = if text { print(&report, measured.exact) } else { say_json(&report) };
    conclude(printed, (!report.exact).then_some(DIFFERENT))
}

/// What classifying gave.
#[derive(Default)]
struct Measured {
    answers: Vec<Answer>,
    /// The network in the clear.
    plain: Vec<Duration>,
    correct: usize,
    exact: usize,
}

/// Classifies samples one by one and compares every layer with a plaintext run.
fn classify<T: Transport>(
    client: &mut Client<T>,
    model: &QuantModel,
    dataset: Dataset,
    samples: &[Sample],
    text: bool,
) -> anyhow::Result<Measured> {
    let bar = progress(samples.len(), "classifying");
    let mut m = Measured::default();
    for (i, Sample { image, label }) in samples.iter().enumerate() {
        let run = client.infer_traced(image)?;
        let start = Instant::now();
        float::run(model.graph(), image.clone())?;
        m.plain.push(start.elapsed());
        m.exact += usize::from(run.is_exact(model, image)?);
        let predicted = run.answer.output().argmax();
        m.correct += usize::from(predicted == *label);
        if text {
            let confidence = 100.0 * run.answer.output().softmax()[predicted];
            let (label, guess) = (dataset.classes()[*label], dataset.classes()[predicted]);
            let mark = if label == guess { ' ' } else { 'x' };
            let latency = ms(run.answer.latency);
            let line = format!("{mark} image {i:4}  {label:>10}: {guess:<10} {confidence:5.1} %  {latency:7.1} ms");
            if let Err(e) = bar.suspend(|| say(line)) {
                conclude(Err(e.into()), (m.exact <= i).then_some(DIFFERENT))?;
            }
        }
        m.answers.push(run.answer);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(m)
}

/// Puts a server behind a socket of this machine. It ends with the second value.
fn loopback(server: Arc<Server>) -> anyhow::Result<(Http, Running)> {
    let config = Config::loopback();
    let running = Running::start(config).map_err(JaliError::from)?;
    running.serve(vec![server]);
    Ok((Http::new(&format!("http://{}", running.addr())), running))
}

fn introduce(network: Network, local: &Local) -> anyhow::Result<()> {
    let hidden = hidden_fraction(&local.report);
    let weights: usize = local.report.iter().map(|l| l.weights).sum();
    say(format!(
        "The owner has sealed {} ({weights} weights): {:.1} % hidden, {:.1} % open.",
        network.name(),
        100.0 * hidden,
        100.0 * (1.0 - hidden)
    ))?;
    say(format!(
        "The server holds the sealed model ({}) and no key; it will see masked inputs and do every linear layer.",
        bytes(local.sealed_bytes)
    ))?;
    say(format!(
        "The client holds the keys and {} of hints; it masks, checks every answer, unmasks, and does the rest.",
        bytes(local.client.hint_bytes())
    ))?;
    say(format!("The images are from the {} test set: the network has not seen them.\n", network.dataset().name()))?;
    Ok(())
}

fn summarise(network: Network, local: &Local, m: &Measured, backend: &'static str) -> Report {
    let answers = &m.answers;
    let layers = local.report.iter().enumerate().map(|(i, l)| {
        let of = |f: &dyn Fn(&OperatorRun) -> Duration| ms(median(answers.iter().map(|a| f(&a.operators[i]))));
        Layer {
            name: l.name.clone(),
            kind: l.kind.clone(),
            ring_degree: l.ring_degree,
            primes_bits: l.primes_bits.clone(),
            tiles: l.tiles,
            rows: l.rows,
            products: l.tiles * l.rows,
            weights: l.weights,
            weights_hidden: l.weights_hidden as f64 / l.weights as f64,
            client_ms: of(&|l| l.client),
            server_ms: of(&|l| l.server),
            bytes_up: median(answers.iter().map(|a| a.operators[i].bytes_up)),
            bytes_down: median(answers.iter().map(|a| a.operators[i].bytes_down)),
            noise_bound_bits: l.noise.bound_bits,
            noise_bits_available: l.noise.available_bits,
        }
    });
    let server = |a: &Answer| a.operators.iter().map(|o| o.server).sum::<Duration>();
    let sum = |of: fn(&OperatorRun) -> usize| median(answers.iter().map(|a| a.operators.iter().map(of).sum::<usize>()));
    Report {
        network: network.name(),
        dataset: network.dataset().name(),
        images: answers.len(),
        transport: "loopback",
        weights_hidden: hidden_fraction(&local.report),
        exact: m.exact == answers.len(),
        correct: m.correct,
        latency_ms: Spread::of(&answers.iter().map(|a| a.latency).collect::<Vec<_>>()),
        client_ms: ms(median(answers.iter().map(|a| a.latency.saturating_sub(server(a))))),
        server_ms: ms(median(answers.iter().map(server))),
        plain_ms: ms(median(m.plain.iter().copied())),
        bytes_up: sum(|o| o.bytes_up),
        bytes_down: sum(|o| o.bytes_down),
        sealed_bytes: local.sealed_bytes,
        hint_bytes: local.client.hint_bytes(),
        backend,
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
        "latency        {:.1} ms median ({:.1} to {:.1}): client {:.1}, server {:.1}; backend {}, {} thread(s)",
        r.latency_ms.median, r.latency_ms.min, r.latency_ms.max, r.client_ms, r.server_ms, r.backend, r.threads
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
