//! `jali demo --guest`: owner, server and guest in one process.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use jali::guests::{Channel, GuestSealing, Parties, Run, fresh_key, infer, serve};
use jali::{Network, Sample};
use jali_guest::{GuestTicket, Masks, Output, Served, ServerSession, StreamKey, deal_traced, difference};
use jali_model::float;
use serde::Serialize;

use super::DemoArgs;
use crate::local::Local;
use crate::text::{Spread, bytes, median, ms, percent, progress, say, say_json, table};
use crate::{DIFFERENT, conclude};

/// The object that `--json` prints. Times are milliseconds per image, medians over images; bytes
/// are per image. Field names are stable.
#[derive(Serialize)]
struct Report {
    network: &'static str,
    dataset: &'static str,
    images: usize,
    /// `in-process`.
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

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: &'static str,
    /// `clear`: the guest computes it alone; `shared`: both parties do, on masked values.
    #[serde(rename = "where")]
    place: &'static str,
    weights: usize,
    weights_hidden: f64,
    k: u32,
    b: u32,
    clamps: usize,
    maxima: usize,
    ticket_bytes: usize,
    exchanges: usize,
    guest_ms: f64,
    server_ms: f64,
    bytes_up: usize,
    bytes_down: usize,
}

/// Bits of a hidden weight as the keyed mode quantises it: what `model_bits` counts.
const WEIGHT_BITS: usize = 8;
/// Bytes of the server's half of a ticket.
const SERVER_KEY: usize = 32;

/// A ticket with what a comparison needs.
struct Dealt {
    server: StreamKey,
    ticket: GuestTicket,
    masks: Masks,
}

/// What classifying gave.
#[derive(Default)]
struct Measured {
    latency: Vec<Duration>,
    plain: Vec<Duration>,
    guest: Vec<Run<Output>>,
    server: Vec<Run<Served>>,
    correct: usize,
    exact: usize,
}

pub(super) fn run(args: &DemoArgs, backend: jali::Backend) -> anyhow::Result<()> {
    let network = Network::from(args.network);
    let samples = network.dataset().bundled_test()?;
    let samples = &samples[..usize::from(args.images)];
    let graph = network.graph()?;
    let typical = network.dataset().bundled_calibration()?;
    let sealing = GuestSealing::of(&graph, &typical, Some((0.0, 1.0)), Default::default())?;
    let model = network.quantised(args.common.bits)?;
    let costs = args.over.costs(backend);
    let plan = args.leak.plan(&model, &costs)?;
    let parties = sealing.seal(&plan)?;
    let text = !args.common.json;
    if text {
        introduce(network, &parties, samples.len())?;
    }
    let (tickets, deal) = deal_all(&parties, samples.len())?;
    let measured = classify(&parties, network, &graph, samples, tickets, text)?;
    let keyed = keyed(Local::start(model, &plan, &costs, backend)?, samples)?;
    let report = summarise(network, &parties, &measured, Others { deal, keyed });
    let printed = if text { print(&report, measured.exact) } else { say_json(&report) };
    conclude(printed, (!report.exact).then_some(DIFFERENT))
}

/// Deals a ticket for every image, and says how long one takes.
fn deal_all(parties: &Parties, n: usize) -> anyhow::Result<(Vec<Dealt>, Duration)> {
    let bar = progress(n, "dealing");
    let (mut tickets, mut times) = (vec![], vec![]);
    for _ in 0..n {
        let (server, guest) = (fresh_key()?, fresh_key()?);
        let start = Instant::now();
        let (shares, masks) = deal_traced(&parties.sealed().owner, parties.backend(), &server, &guest);
        times.push(start.elapsed());
        tickets.push(Dealt { server, ticket: GuestTicket::new(guest, shares), masks });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((tickets, median(times)))
}

/// The server's thread: it takes one key after the other and gives back what it ended with.
fn serve_all(
    parties: &Parties,
    mut link: Channel,
    keys: mpsc::Receiver<StreamKey>,
    ends: mpsc::Sender<Result<Run<Served>, jali::JaliError>>,
) {
    for key in keys {
        let session = ServerSession::new(&parties.sealed().server, parties.backend(), key).traced();
        if ends.send(serve(session, &mut link)).is_err() {
            return;
        }
    }
}

/// Classifies samples one by one and compares every wire with the reference.
fn classify(
    parties: &Parties,
    network: Network,
    graph: &jali::Graph,
    samples: &[Sample],
    tickets: Vec<Dealt>,
    text: bool,
) -> anyhow::Result<Measured> {
    let bar = progress(samples.len(), "classifying");
    let mut m = Measured::default();
    let (mut link, at_server) = Channel::pair();
    let ((to_server, keys), (ends, ended)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        scope.spawn(move || serve_all(parties, at_server, keys, ends));
        for (i, (Sample { image, label }, dealt)) in samples.iter().zip(tickets).enumerate() {
            to_server.send(dealt.server)?;
            let start = Instant::now();
            let input = parties.network().quantise(image)?;
            let run = infer(&parties.sealed().guest, parties.backend(), dealt.ticket, &input, true, &mut link)?;
            let output = parties.network().numbers(&run.done.integers)?;
            m.latency.push(start.elapsed());
            let served = ended.recv()??;
            let start = Instant::now();
            float::run(graph, image.clone())?;
            m.plain.push(start.elapsed());
            if let Some(trace) = &served.done.trace {
                let circuit = parties.sealed().owner.circuit();
                let differs = difference(parties.network(), circuit, &dealt.masks, trace, &run.done, &input);
                m.exact += usize::from(differs.is_none());
            }
            let predicted = output.argmax();
            m.correct += usize::from(predicted == *label);
            if text {
                let (label, guess) = (network.dataset().classes()[*label], network.dataset().classes()[predicted]);
                let mark = if label == guess { ' ' } else { 'x' };
                let confidence = 100.0 * output.softmax()[predicted];
                let latency = ms(m.latency[i]);
                let line = format!("{mark} image {i:4}  {label:>10}: {guess:<10} {confidence:5.1} %  {latency:7.1} ms");
                bar.suspend(|| say(line))?;
            }
            // What was compared is not kept.
            m.guest.push(without_trace(run));
            m.server.push(served);
            bar.inc(1);
        }
        drop(to_server);
        Ok::<_, anyhow::Error>(())
    })?;
    bar.finish_and_clear();
    Ok(m)
}

fn without_trace(mut run: Run<Output>) -> Run<Output> {
    run.done.trace = None;
    run
}

/// Latency of the keyed mode for some of the images, in this process.
fn keyed(mut local: Local, samples: &[Sample]) -> anyhow::Result<Duration> {
    let latency = |sample: &Sample| Ok(local.client.infer(&sample.image)?.latency);
    Ok(median(samples.iter().take(16).map(latency).collect::<Result<Vec<_>, jali::JaliError>>()?))
}

fn introduce(network: Network, parties: &Parties, tickets: usize) -> anyhow::Result<()> {
    let sealed = parties.sealed();
    let (counts, all) = (sealed.owner.circuit().counts(), hidden(parties));
    say(format!(
        "owner   has {} ({} weights) and deals {tickets} tickets, one for each inference; then it is away.",
        network.name(),
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
        parties.network().output_bits()
    ))?;
    say("Server and guest must not collude: together they hold the model.\n")?;
    Ok(())
}

/// Hidden weights of all layers.
fn hidden(parties: &Parties) -> jali_guest::Hidden {
    let mut all = jali_guest::Hidden::default();
    for layer in &parties.sealed().weights {
        all.hidden += layer.hidden;
        all.of += layer.of;
    }
    all
}

/// What was measured beside the inferences.
struct Others {
    deal: Duration,
    keyed: Duration,
}

fn summarise(network: Network, parties: &Parties, m: &Measured, others: Others) -> Report {
    let circuit = parties.sealed().owner.circuit();
    let counts = circuit.counts();
    let of = |computing: &[Duration], steps: &std::ops::Range<usize>| -> Duration {
        computing.iter().enumerate().filter(|(step, _)| steps.contains(step)).map(|(_, t)| *t).sum()
    };
    let layers = circuit.parts().into_iter().map(|part| {
        let weights = part.steps.clone().map(|step| parties.sealed().weights[step]);
        let (hidden, all) = weights.fold((0, 0), |(h, a), w| (h + w.hidden, a + w.of));
        Layer {
            guest_ms: ms(median(m.guest.iter().map(|run| of(&run.computing, &part.steps)))),
            server_ms: ms(median(m.server.iter().map(|run| of(&run.computing, &part.steps)))),
            name: part.name,
            kind: part.kind,
            place: if part.is_clear { "clear" } else { "shared" },
            weights: all,
            weights_hidden: if all == 0 { 0.0 } else { hidden as f64 / all as f64 },
            k: part.sum_bits,
            b: part.opened_bits,
            clamps: part.counts.clamps,
            maxima: part.counts.maxima,
            ticket_bytes: part.counts.ticket_bytes,
            exchanges: part.counts.exchanges,
            bytes_up: part.counts.bytes_up,
            bytes_down: part.counts.bytes_down,
        }
    });
    let all = hidden(parties);
    Report {
        network: network.name(),
        dataset: network.dataset().name(),
        images: m.latency.len(),
        transport: "in-process",
        weights_hidden: all.hidden as f64 / all.of.max(1) as f64,
        exact: m.exact == m.latency.len(),
        correct: m.correct,
        latency_ms: Spread::of(&m.latency),
        guest_ms: ms(median(m.guest.iter().map(|run| run.computing.iter().sum::<Duration>()))),
        server_ms: ms(median(m.server.iter().map(|run| run.computing.iter().sum::<Duration>()))),
        deal_ms: ms(others.deal),
        plain_ms: ms(median(m.plain.iter().copied())),
        keyed_ms: ms(others.keyed),
        bytes_up: median(m.guest.iter().map(|run| run.bytes_sent)),
        bytes_down: median(m.guest.iter().map(|run| run.bytes_received)),
        exchanges: counts.exchanges,
        ticket_bytes: TicketBytes { server: SERVER_KEY, guest: counts.ticket_bytes },
        output_bits: parties.network().output_bits(),
        model_bits: WEIGHT_BITS * all.hidden,
        backend: parties.backend().name(),
        layers: layers.collect(),
    }
}

fn print(r: &Report, exact: usize) -> anyhow::Result<()> {
    print_layers(&r.layers)?;
    print_summary(r, exact)
}

fn print_layers(layers: &[Layer]) -> anyhow::Result<()> {
    let header = [
        "layer",
        "kind",
        "where",
        "hidden",
        "k",
        "b",
        "clamps",
        "maxima",
        "ticket",
        "exchanges",
        "guest ms",
        "server ms",
        "up",
        "down",
    ];
    let rows = layers.iter().map(|l| {
        vec![
            l.name.clone(),
            l.kind.to_string(),
            l.place.to_string(),
            format!("{:.0} %", 100.0 * l.weights_hidden),
            l.k.to_string(),
            l.b.to_string(),
            l.clamps.to_string(),
            l.maxima.to_string(),
            bytes(l.ticket_bytes),
            l.exchanges.to_string(),
            format!("{:.2}", l.guest_ms),
            format!("{:.2}", l.server_ms),
            bytes(l.bytes_up),
            bytes(l.bytes_down),
        ]
    });
    Ok(say(format!("\n{}\n", table(&header, 3, rows)))?)
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
    say(format!("dealing        {:.1} ms a ticket on one thread, ahead of time", r.deal_ms))?;
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
