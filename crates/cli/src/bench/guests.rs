//! The guests' mode: latency, throughput, dealing, and what runs beside it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jali::guests::{Backend, Channel, GuestSealing, GuestTicket, Line, StreamKey, begin, fresh_key, infer, serve};
use jali::{Graph, InProcess as KeyedInProcess, JaliError, Link, Network, Plan, Tensor};
use jali_guest::{Original, SealedForGuests, ServerSession, deal};
use jali_model::float;
use rayon::prelude::*;
use serde::Serialize;

use super::shaped::relay;
use crate::guests::ways::{House, InProcess, Inferred, Loopback, Way};
use crate::local::Local;
use crate::text::{Spread, bytes, median, ms, progress, say, say_json, table};
use crate::{Common, DIFFERENT, NetworkName, conclude};

/// Measure the guests' mode: one image at a time in this process, over loopback and over a slow
/// link; many guests at once; the server alone; dealing.
///
/// The keyed mode and the network in the clear run beside it. Every wire of single images is
/// compared with the reference. The server alone answers messages that guests have sent before, so
/// that no guest takes its cores.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  jali bench guests\n  jali bench guests --network mnist --runs 100 --json")]
pub(crate) struct GuestsArgs {
    /// Which bundled network
    #[arg(long, value_enum, default_value = "vgg3")]
    network: NetworkName,
    /// Images of each measurement
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=500))]
    runs: u16,
    /// Guests at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    guests: u16,
    /// The slow link: lan (0.3 ms, 1 Gbit/s), wan (40 ms, 100 Mbit/s) or RTT,MBPS
    #[arg(long, value_name = "LINK", default_value = "wan")]
    link: Link,
    #[command(flatten)]
    common: Common,
}

/// The object that `--json` prints. Field names are stable.
#[derive(Serialize)]
struct Report {
    network: &'static str,
    backend: &'static str,
    threads: usize,
    runs: usize,
    exact: bool,
    /// Everything hidden unless a name says otherwise.
    in_process: Figures,
    last_three_layers: Figures,
    loopback: Figures,
    link: Figures,
    link_rtt_ms: f64,
    link_mbit_per_s: f64,
    /// Images a second.
    server_alone_images_per_s: f64,
    guests: usize,
    guests_images_per_s: f64,
    dealt_per_s: f64,
    keyed_ms: f64,
    plain_ms: f64,
}

#[derive(Serialize)]
struct Figures {
    latency_ms: Spread,
    /// Time that a party computes.
    guest_ms: f64,
    server_ms: f64,
    exchanges: usize,
    ticket_bytes: usize,
    bytes_up: usize,
    bytes_down: usize,
}

/// What is measured.
struct Subject {
    network: Network,
    graph: Graph,
    typical: Vec<Tensor>,
    images: Vec<Tensor>,
    exact: bool,
}

impl Subject {
    fn original(&self, plan: &Plan, link: Link) -> anyhow::Result<Original> {
        let sealing = GuestSealing::of(&self.graph, &self.typical, Some((0.0, 1.0)), Default::default())?;
        Ok(sealing.over(link).original(plan)?)
    }

    /// Hides the last `layers` layers.
    fn hide_last(&self, layers: usize) -> anyhow::Result<Plan> {
        let nodes: Vec<_> = self.graph.linear_nodes().map(|(node, _)| self.graph.nodes()[node].name.clone()).collect();
        Ok(jali::parts::leak::listed_layers(&self.graph, &nodes[..nodes.len().saturating_sub(layers)])?)
    }

    fn measure(&mut self, original: &Original, mut way: impl Way, what: &'static str) -> anyhow::Result<Figures> {
        let bar = progress(self.images.len(), what);
        let mut runs: Vec<Inferred> = vec![];
        for image in &self.images {
            runs.push(way.infer(image)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.exact &= runs.iter().all(|run| run.is_exact);
        let counts = original.circuit().counts();
        Ok(Figures {
            latency_ms: Spread::of(&runs.iter().map(|run| run.latency).collect::<Vec<_>>()),
            guest_ms: ms(median(runs.iter().map(|run| run.guest.iter().sum::<Duration>()))),
            server_ms: ms(median(runs.iter().map(|run| run.server.iter().sum::<Duration>()))),
            exchanges: counts.exchanges,
            ticket_bytes: counts.ticket_bytes,
            bytes_up: median(runs.iter().map(|run| run.bytes_up)),
            bytes_down: median(runs.iter().map(|run| run.bytes_down)),
        })
    }
}

/// A line of which a guest's messages are kept.
struct Recorded<'l> {
    line: &'l mut Channel,
    sent: VecDeque<Vec<u8>>,
}

impl Line for Recorded<'_> {
    fn send(&mut self, message: Vec<u8>) -> Result<(), JaliError> {
        self.sent.push_back(message.clone());
        self.line.send(message)
    }

    fn receive(&mut self) -> Result<Vec<u8>, JaliError> {
        self.line.receive()
    }
}

/// What a guest has sent; what the server sends is dropped.
struct Replayed(VecDeque<Vec<u8>>);

impl Line for Replayed {
    fn send(&mut self, _: Vec<u8>) -> Result<(), JaliError> {
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<u8>, JaliError> {
        self.0.pop_front().ok_or_else(|| JaliError::Transport(std::io::Error::other("nothing more was recorded")))
    }
}

/// Runs an inference and returns the guest's messages.
fn record(sealed: &SealedForGuests, input: &[i32]) -> anyhow::Result<(StreamKey, VecDeque<Vec<u8>>)> {
    let (backend, server, guest) = (Backend::best(), fresh_key()?, fresh_key()?);
    let shares = deal(&sealed.owner, backend, &server, &guest);
    let (mut at_guest, mut at_server) = Channel::pair();
    let sent = std::thread::scope(|scope| {
        let key = server.clone();
        scope.spawn(move || serve(ServerSession::new(&sealed.server, backend, key), &mut at_server));
        let begun = begin(&sealed.guest, backend, GuestTicket::new(guest, shares), input, false)?;
        let mut line = Recorded { line: &mut at_guest, sent: VecDeque::new() };
        infer(begun, &mut line)?;
        Ok::<_, JaliError>(line.sent)
    })?;
    Ok((server, sent))
}

/// Images a second of a server on all cores, whose guests have sent everything before.
fn server_alone(subject: &Subject, original: &Original, sealed: &SealedForGuests) -> anyhow::Result<f64> {
    let bar = progress(subject.images.len(), "server alone");
    let mut recorded = vec![];
    for image in &subject.images {
        recorded.push(record(sealed, &original.network().quantise(image)?)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let start = Instant::now();
    let served = recorded.into_par_iter().map(|(key, messages)| {
        serve(ServerSession::new(&sealed.server, Backend::best(), key), &mut Replayed(messages)).map(|_| ())
    });
    let images = served.collect::<Result<Vec<()>, _>>()?.len();
    Ok(images as f64 / start.elapsed().as_secs_f64())
}

/// Images a second of many guests and their server, all on this machine.
fn together(subject: &Subject, original: &Original, guests: usize) -> anyhow::Result<f64> {
    let tickets = subject.images.len().div_ceil(2) as u32;
    let house = House::start(original, subject.network.name(), guests, tickets)?;
    let mut clients = (0..guests).map(|i| house.client(i, house.addr)).collect::<anyhow::Result<Vec<_>>>()?;
    clients.iter_mut().try_for_each(|client| client.read_ahead(tickets))?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let infer_all = |mut client: jali::guests::GuestClient| {
            let images = subject.images.iter().cycle().take(tickets as usize).enumerate();
            images
                .map(|(i, image)| client.infer(image, tickets - 1 - i as u32))
                .try_for_each(|answer| answer.map(|_| ()))
        };
        let running: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || infer_all(client))).collect();
        running.into_iter().try_for_each(|guest| match guest.join() {
            Ok(ended) => ended,
            Err(_) => Err(JaliError::Transport(std::io::Error::other("a guest's thread ended"))),
        })
    })?;
    Ok((guests as u32 * tickets) as f64 / start.elapsed().as_secs_f64())
}

/// Tickets a second on all cores, into memory.
fn dealing(sealed: &SealedForGuests, tickets: usize) -> anyhow::Result<f64> {
    let keys = (0..tickets).map(|_| Ok((fresh_key()?, fresh_key()?))).collect::<Result<Vec<_>, JaliError>>()?;
    let start = Instant::now();
    keys.into_par_iter().for_each(|(server, guest)| drop(deal(&sealed.owner, Backend::best(), &server, &guest)));
    Ok(tickets as f64 / start.elapsed().as_secs_f64())
}

/// Over a link, by a relay.
fn over_link(subject: &mut Subject, link: Link) -> anyhow::Result<Figures> {
    let original = subject.original(&Plan::hide_all(&subject.graph), link)?;
    // A slow link needs few images.
    let images = subject.images.clone();
    subject.images.truncate(10);
    let house = House::start(&original, subject.network.name(), 1, subject.images.len() as u32)?;
    let addr: SocketAddr = relay(house.addr, link)?;
    let figures = subject.measure(&original, Loopback::of(house, Some(addr))?, "over the link");
    subject.images = images;
    figures
}

/// The keyed mode and the network in the clear: medians in milliseconds.
fn beside(subject: &Subject, args: &GuestsArgs, backend: jali::Backend) -> anyhow::Result<(f64, f64)> {
    let model = subject.network.quantised(args.common.bits)?;
    let costs = jali::calibration::kept_or_default(backend);
    let local = Local::start(model, &Plan::hide_all(&subject.graph), &costs, backend)?;
    let mut client = local.client.over(KeyedInProcess::new(local.server.clone()))?;
    let (mut keyed, mut plain) = (vec![], vec![]);
    for image in &subject.images {
        keyed.push(client.infer(image)?.latency);
        let start = Instant::now();
        float::run(&subject.graph, image.clone())?;
        plain.push(start.elapsed());
    }
    Ok((ms(median(keyed)), ms(median(plain))))
}

fn measure(args: &GuestsArgs, backend: jali::Backend) -> anyhow::Result<Report> {
    let network = Network::from(args.network);
    let samples = network.dataset().bundled_test()?;
    let images = samples.iter().map(|sample| sample.image.clone()).take(args.runs.into()).collect();
    let (graph, typical) = (network.graph()?, network.dataset().bundled_calibration()?);
    let mut subject = Subject { network, graph, typical, images, exact: true };
    let runs = subject.images.len();
    let all = subject.original(&Plan::hide_all(&subject.graph), Link::LOOPBACK)?;
    let last = subject.original(&subject.hide_last(3)?, Link::LOOPBACK)?;
    let in_process = subject.measure(&all, InProcess::start(&all, runs)?, "in this process")?;
    let last_three_layers = subject.measure(&last, InProcess::start(&last, runs)?, "last three layers")?;
    let loopback = subject.measure(&all, Loopback::start(&all, network.name(), runs)?, "over loopback")?;
    let link = over_link(&mut subject, args.link)?;
    let (keyed_ms, plain_ms) = beside(&subject, args, backend)?;
    let sealed = all.seal()?;
    Ok(Report {
        network: network.name(),
        backend: Backend::best().name(),
        threads: rayon::current_num_threads(),
        runs,
        server_alone_images_per_s: server_alone(&subject, &all, &sealed)?,
        guests: args.guests.into(),
        guests_images_per_s: together(&subject, &all, args.guests.into())?,
        dealt_per_s: dealing(&sealed, 4 * runs)?,
        exact: subject.exact,
        in_process,
        last_three_layers,
        loopback,
        link,
        link_rtt_ms: args.link.rtt_ms,
        link_mbit_per_s: args.link.mbit_per_s,
        keyed_ms,
        plain_ms,
    })
}

pub(super) fn run(args: &GuestsArgs) -> anyhow::Result<()> {
    let report = measure(args, args.common.start()?)?;
    let printed = if args.common.json { say_json(&report) } else { print(&report) };
    conclude(printed, (!report.exact).then_some(DIFFERENT))
}

fn print(r: &Report) -> anyhow::Result<()> {
    let link = format!("over {} ms, {} Mbit/s", r.link_rtt_ms, r.link_mbit_per_s);
    let rows = [
        ("in this process", &r.in_process),
        ("last three layers hidden, in this process", &r.last_three_layers),
        ("over loopback", &r.loopback),
        (link.as_str(), &r.link),
    ];
    let row = |(what, f): (&str, &Figures)| {
        vec![
            what.to_owned(),
            format!("{:.2}", f.latency_ms.median),
            format!("{:.2} to {:.2}", f.latency_ms.min, f.latency_ms.max),
            format!("{:.2}", f.guest_ms),
            format!("{:.2}", f.server_ms),
            f.exchanges.to_string(),
            bytes(f.ticket_bytes),
            bytes(f.bytes_up),
            bytes(f.bytes_down),
        ]
    };
    let header = ["ms an image", "median", "range", "guest", "server", "exchanges", "ticket", "up", "down"];
    say(table(&header, 1, rows.map(row)))?;
    say(format!(
        "beside it          {:.2} ms in the keyed mode, {:.2} ms in the clear (Jali's float path, one thread)",
        r.keyed_ms, r.plain_ms
    ))?;
    say(format!("server alone       {:.0} images/s on {} threads", r.server_alone_images_per_s, r.threads))?;
    say(format!(
        "{:2} guests at once  {:.0} images/s, guests and server on this machine",
        r.guests, r.guests_images_per_s
    ))?;
    say(format!("dealing            {:.0} tickets/s on {} threads, into memory", r.dealt_per_s, r.threads))?;
    say(format!(
        "correctness        {}, backend {}",
        if r.exact { "exact on every wire" } else { "DIFFERENT" },
        r.backend
    ))?;
    Ok(())
}
