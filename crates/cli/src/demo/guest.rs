//! `jali demo --guest`: owner, server and guest in one process.

use std::time::{Duration, Instant};

use jali::guests::{Backend, GuestSealing};
use jali::{Network, Sample};
use jali_guest::{Circuit, Hidden};
use jali_model::fixed::FixedNetwork;
use jali_model::float;
use serde::Serialize;

use super::DemoArgs;
use crate::guests::layers::{Layer, SERVER_KEY, layers_of, layers_table};
use crate::guests::ways::{InProcess, Inferred, Loopback, Way};
use crate::local::Local;
use crate::text::{Spread, bytes, median, ms, percent, progress, say, say_json};
use crate::{DIFFERENT, conclude};

/// The object that `--json` prints. Times are milliseconds per image, medians over images; bytes
/// are per image. Field names are stable.
#[derive(Serialize)]
struct Report {
    network: &'static str,
    dataset: &'static str,
    images: usize,
    /// `loopback` or `in-process`.
    transport: &'static str,
    weights_hidden: f64,
    /// Whether every wire equals the reference with the tickets' roundings.
    exact: bool,
    correct: usize,
    latency_ms: Spread,
    guest_ms: f64,
    server_ms: f64,
    deal_ms: f64,
    plain_ms: f64,
    keyed_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
    exchanges: usize,
    ticket_bytes: TicketBytes,
    /// Bits that an inference tells the guest at most.
    output_bits: usize,
    /// Bits of the hidden weights, eight for each.
    model_bits: usize,
    backend: &'static str,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct TicketBytes {
    server: usize,
    guest: usize,
}

/// What classifying gave.
#[derive(Default)]
struct Measured {
    runs: Vec<Inferred>,
    plain: Vec<Duration>,
    correct: usize,
}

impl Measured {
    fn exact(&self) -> usize {
        self.runs.iter().filter(|run| run.is_exact).count()
    }
}

/// What is shown.
struct Stage<'a> {
    network: Network,
    graph: &'a jali::Graph,
    fixed: &'a FixedNetwork,
    circuit: &'a Circuit,
    /// By step.
    weights: &'a [Hidden],
    samples: &'a [Sample],
    text: bool,
}

impl Stage<'_> {
    /// Hidden weights of all layers.
    fn hidden(&self) -> Hidden {
        self.weights.iter().copied().sum()
    }
}

pub(super) fn run(args: &DemoArgs, backend: jali::Backend) -> anyhow::Result<()> {
    let network = Network::from(args.network);
    let samples = network.dataset().bundled_test()?;
    let graph = network.graph()?;
    let typical = network.dataset().bundled_calibration()?;
    let sealing = GuestSealing::of(&graph, &typical, Some((0.0, 1.0)), args.output.config())?.over(args.over.link);
    let plan = args.leak.plan_for_guests(&graph)?;
    let original = sealing.original(&plan)?;
    let (circuit, weights) = (original.circuit(), original.weights());
    let stage = Stage {
        network,
        graph: &graph,
        fixed: original.network(),
        circuit: &circuit,
        weights: &weights,
        samples: &samples[..usize::from(args.images)],
        text: !args.common.json,
    };
    if stage.text {
        introduce(&stage)?;
    }
    let (measured, deal) = match args.in_process {
        true => measure(&stage, InProcess::start(&original, stage.samples.len())?)?,
        false => measure(&stage, Loopback::start(&original, stage.network.name(), stage.samples.len())?)?,
    };
    let model = network.quantised(args.common.bits)?;
    let keyed = keyed(Local::start(model, &plan, &args.over.costs(backend), backend)?, stage.samples)?;
    let transport = if args.in_process { InProcess::NAME } else { Loopback::NAME };
    let report = summarise(&stage, &measured, Others { transport, deal, keyed });
    let printed = if stage.text { print(&report, measured.exact()) } else { say_json(&report) };
    conclude(printed, (!report.exact).then_some(DIFFERENT))
}

fn measure<W: Way>(stage: &Stage<'_>, mut way: W) -> anyhow::Result<(Measured, Duration)> {
    let measured = classify(stage, &mut way)?;
    Ok((measured, way.deal()))
}

/// Classifies samples one by one.
fn classify(stage: &Stage<'_>, way: &mut impl Way) -> anyhow::Result<Measured> {
    let bar = progress(stage.samples.len(), "classifying");
    let mut m = Measured::default();
    for (i, Sample { image, label }) in stage.samples.iter().enumerate() {
        let run = way.infer(image)?;
        let start = Instant::now();
        float::run(stage.graph, image.clone())?;
        m.plain.push(start.elapsed());
        let predicted = run.output.argmax();
        m.correct += usize::from(predicted == *label);
        if stage.text {
            let classes = stage.network.dataset().classes();
            let (label, guess) = (classes[*label], classes[predicted]);
            let mark = if label == guess { ' ' } else { 'x' };
            // Of a class alone the guest does not know how likely it is.
            let confidence = match stage.fixed.output.classes {
                Some(_) => String::new(),
                None => format!("{:5.1} %", 100.0 * run.output.softmax()[predicted]),
            };
            let latency = ms(run.latency);
            let line = format!("{mark} image {i:4}  {label:>10}: {guess:<10} {confidence:7}  {latency:7.1} ms");
            bar.suspend(|| say(line))?;
        }
        m.runs.push(run);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(m)
}

/// Latency of the keyed mode for some of the images, in this process.
fn keyed(mut local: Local, samples: &[Sample]) -> anyhow::Result<Duration> {
    let latency = |sample: &Sample| Ok(local.client.infer(&sample.image)?.latency);
    Ok(median(samples.iter().take(16).map(latency).collect::<Result<Vec<_>, jali::JaliError>>()?))
}

fn introduce(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (counts, all, tickets) = (stage.circuit.counts(), stage.hidden(), stage.samples.len());
    say(format!(
        "owner   has {} ({} weights) and deals {tickets} tickets, one for each inference; then it is away.",
        stage.network.name(),
        all.of
    ))?;
    say(format!(
        "server  holds {:.1} % of the weights masked by the guest's seed, {:.1} % in the clear, and {SERVER_KEY} bytes a ticket; it sees uniform values.",
        100.0 * all.hidden as f64 / all.of as f64,
        100.0 * (all.of - all.hidden) as f64 / all.of as f64
    ))?;
    say(format!(
        "guest   holds that seed, no hidden weight, and {} a ticket; it sees uniform values and {} bits of output an image.",
        bytes(counts.ticket_bytes),
        stage.fixed.output_bits()
    ))?;
    say("Server and guest must not collude: together they hold the model.\n")?;
    Ok(())
}

/// What was measured beside the inferences.
struct Others {
    transport: &'static str,
    deal: Duration,
    keyed: Duration,
}

fn summarise(stage: &Stage<'_>, m: &Measured, others: Others) -> Report {
    let counts = stage.circuit.counts();
    let (all, runs) = (stage.hidden(), &m.runs);
    Report {
        network: stage.network.name(),
        dataset: stage.network.dataset().name(),
        images: runs.len(),
        transport: others.transport,
        weights_hidden: all.fraction(),
        exact: m.exact() == runs.len(),
        correct: m.correct,
        latency_ms: Spread::of(&runs.iter().map(|run| run.latency).collect::<Vec<_>>()),
        guest_ms: ms(median(runs.iter().map(|run| run.guest.iter().sum::<Duration>()))),
        server_ms: ms(median(runs.iter().map(|run| run.server.iter().sum::<Duration>()))),
        deal_ms: ms(others.deal),
        plain_ms: ms(median(m.plain.iter().copied())),
        keyed_ms: ms(others.keyed),
        bytes_up: median(runs.iter().map(|run| run.bytes_up)),
        bytes_down: median(runs.iter().map(|run| run.bytes_down)),
        exchanges: counts.exchanges,
        ticket_bytes: TicketBytes { server: SERVER_KEY, guest: counts.ticket_bytes },
        output_bits: stage.fixed.output_bits(),
        model_bits: all.bits(),
        backend: Backend::best().name(),
        layers: layers_of(stage.circuit, stage.weights, &m.runs),
    }
}

fn print(r: &Report, exact: usize) -> anyhow::Result<()> {
    say(format!("\n{}\n", layers_table(&r.layers)))?;
    print_summary(r, exact)
}

fn print_summary(r: &Report, exact: usize) -> anyhow::Result<()> {
    say(format!("accuracy       {} of {} ({:.1} %)", r.correct, r.images, percent(r.correct, r.images)))?;
    say(if r.exact {
        "correctness    guest = reference with the ticket's roundings: exact on every wire".to_string()
    } else {
        format!(
            "correctness    GUEST AND REFERENCE DIFFER: only {exact} of {} images are exact on every wire",
            r.images
        )
    })?;
    say(format!(
        "latency        {:.1} ms median ({:.1} to {:.1}): guest {:.1}, server {:.1}; backend {}, one thread each",
        r.latency_ms.median, r.latency_ms.min, r.latency_ms.max, r.guest_ms, r.server_ms, r.backend
    ))?;
    say(format!(
        "beside it      {:.1} ms in the keyed mode, {:.1} ms in the clear (Jali's float path, one thread)",
        r.keyed_ms, r.plain_ms
    ))?;
    let threads = if r.transport == Loopback::NAME { rayon::current_num_threads() } else { 1 };
    say(format!("dealing        {:.1} ms a ticket with {threads} thread(s), ahead of time", r.deal_ms))?;
    say(format!(
        "traffic        {} up, {} down per image in {} exchanges",
        bytes(r.bytes_up),
        bytes(r.bytes_down),
        r.exchanges
    ))?;
    say(format!(
        "tickets        {} for the guest, {} B for the server; each tells the guest {} bits of {} hidden ones at most",
        bytes(r.ticket_bytes.guest),
        r.ticket_bytes.server,
        r.output_bits,
        r.model_bits
    ))?;
    Ok(())
}
