//! What guests' inferences with a network take: counted from its shapes, and measured here.

use jali::guests::{Backend, GuestSealing};
use jali::{Graph, JaliError, Link, Plan, Preprocess, Tensor};
use jali_guest::Hidden;
use jali_model::{ModelError, Offence};
use serde::Serialize;

use super::layers::{Layer, SERVER_KEY, layers_of, layers_table};
use super::ways::{InProcess, Way};
use crate::exit::{UNSUPPORTED, conclude};
use crate::text::{bytes, median, ms, say, say_json};

/// Inferences that are measured.
const RUNS: usize = 3;

/// The object that `--json` prints.
#[derive(Serialize)]
pub(crate) struct Report {
    model: String,
    supported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Forecast>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everything_hidden: Option<Forecast>,
    offences: Vec<Offence>,
}

/// What inferences under a plan take.
#[derive(Serialize)]
struct Forecast {
    weights: usize,
    weights_hidden: f64,
    clamps: usize,
    maxima: usize,
    products: usize,
    ticket_bytes: usize,
    server_ticket_bytes: usize,
    exchanges: usize,
    bytes_up: usize,
    bytes_down: usize,
    output_bits: usize,
    model_bits: usize,
    /// Measured here, medians of three inferences in this process.
    latency_ms: f64,
    guest_ms: f64,
    server_ms: f64,
    deal_ms: f64,
    backend: &'static str,
    layers: Vec<Layer>,
}

/// An input that looks like an image: uniform noise in the range of pixels, always the same.
fn noise(graph: &Graph, preprocess: &Preprocess) -> Tensor {
    let (low, high) = preprocess.input_range(graph.input_shape());
    let n: usize = graph.input_shape().iter().product();
    let unit = |i: usize| (((i as u32).wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b).wrapping_mul(0xc2b2_ae35) >> 8) as f32;
    let data = (0..n).map(|i| low + (high - low) * unit(i) / (1 << 24) as f32).collect();
    Tensor { shape: graph.input_shape().to_vec(), data }
}

fn forecast(graph: &Graph, preprocess: &Preprocess, plan: &Plan, link: Link) -> anyhow::Result<Forecast> {
    let image = noise(graph, preprocess);
    let range = Some(preprocess.input_range(graph.input_shape()));
    let sealing = GuestSealing::of(graph, std::slice::from_ref(&image), range, Default::default())?;
    let original = sealing.over(link).original(plan)?;
    let mut way = InProcess::start(&original, RUNS)?;
    let runs = (0..RUNS).map(|_| way.infer(&image)).collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(
        runs.iter().all(|run| run.is_exact),
        "a guest's inference and the reference differ: a defect of jali"
    );
    let (circuit, weights) = (original.circuit(), original.weights());
    let (counts, all) = (circuit.counts(), weights.iter().copied().sum::<Hidden>());
    Ok(Forecast {
        weights: all.of,
        weights_hidden: all.fraction(),
        clamps: counts.clamps,
        maxima: counts.maxima,
        products: counts.products,
        ticket_bytes: counts.ticket_bytes,
        server_ticket_bytes: SERVER_KEY,
        exchanges: counts.exchanges,
        bytes_up: counts.bytes_up,
        bytes_down: counts.bytes_down,
        output_bits: original.network().output_bits(),
        model_bits: all.bits(),
        latency_ms: ms(median(runs.iter().map(|run| run.latency))),
        guest_ms: ms(median(runs.iter().map(|run| run.guest.iter().sum()))),
        server_ms: ms(median(runs.iter().map(|run| run.server.iter().sum()))),
        deal_ms: ms(way.deal()),
        backend: Backend::best().name(),
        layers: layers_of(&circuit, &weights, &runs),
    })
}

/// `jali plan inspect --guest`.
pub(crate) fn of_plan(
    model: String,
    graph: &Graph,
    preprocess: &Preprocess,
    plan: &Plan,
    (link, json): (Link, bool),
) -> anyhow::Result<()> {
    Report::of(model, graph, preprocess, Some(plan), link)?.conclude(json)
}

impl Report {
    /// What guests' inferences take with everything hidden, and under a plan if there is one. What
    /// guests cannot run is in it, with reasons.
    pub(crate) fn of(
        model: String,
        graph: &Graph,
        preprocess: &Preprocess,
        plan: Option<&Plan>,
        link: Link,
    ) -> anyhow::Result<Self> {
        let all = match forecast(graph, preprocess, &Plan::hide_all(graph), link) {
            Ok(all) => all,
            Err(e) => match e.downcast::<JaliError>() {
                Ok(JaliError::Model(ModelError::Unsupported { offences })) => {
                    return Ok(Self::refused(model, offences));
                }
                Ok(other) => return Err(other.into()),
                Err(other) => return Err(other),
            },
        };
        let plan = plan.map(|plan| forecast(graph, preprocess, plan, link)).transpose()?;
        Ok(Self { model, supported: true, plan, everything_hidden: Some(all), offences: vec![] })
    }

    /// A network that guests cannot run.
    pub(crate) fn refused(model: String, offences: Vec<Offence>) -> Self {
        Self { model, supported: false, plan: None, everything_hidden: None, offences }
    }

    /// Prints it, and fails for a network that guests cannot run.
    pub(crate) fn conclude(&self, json: bool) -> anyhow::Result<()> {
        let printed = if json { say_json(self) } else { self.print() };
        conclude(printed, (!self.supported).then_some(UNSUPPORTED))
    }

    fn print(&self) -> anyhow::Result<()> {
        if !self.supported {
            say(format!("{}: guests cannot run it", self.model))?;
            for o in &self.offences {
                say(format!("  {} ({}): {}; {}", o.node, o.operator, o.reason, o.remedy))?;
            }
            return Ok(());
        }
        let shown = self.plan.as_ref().or(self.everything_hidden.as_ref());
        if let Some(f) = shown {
            say(format!("{}\n", layers_table(&f.layers)))?;
        }
        for (what, f) in [("plan", &self.plan), ("everything hidden", &self.everything_hidden)] {
            let Some(f) = f else { continue };
            say(format!(
                "{what}: {:.1} % of {} weights hidden; {} clamps, {} max gates; {} a ticket, {} exchanges, {} up, {} down",
                100.0 * f.weights_hidden,
                f.weights,
                f.clamps,
                f.maxima,
                bytes(f.ticket_bytes),
                f.exchanges,
                bytes(f.bytes_up),
                bytes(f.bytes_down)
            ))?;
            say(format!(
                "  measured here: {:.2} ms an image, guest {:.2}, server {:.2}; dealing {:.2} a ticket; each tells {} bits of {}",
                f.latency_ms, f.guest_ms, f.server_ms, f.deal_ms, f.output_bits, f.model_bits
            ))?;
        }
        if let (Some(plan), Some(all)) = (&self.plan, &self.everything_hidden) {
            let saved = |of: fn(&Forecast) -> f64| 100.0 * (1.0 - of(plan) / of(all).max(f64::MIN_POSITIVE));
            say(format!(
                "the plan saves {:.0} % of a ticket, {:.0} % of the traffic, {:.0} % of the time",
                saved(|f| f.ticket_bytes as f64),
                saved(|f| (f.bytes_up + f.bytes_down) as f64),
                saved(|f| f.latency_ms)
            ))?;
        }
        say("Ranges come from noise: sealing with typical images may change k and b by a bit, and bytes with them.")?;
        Ok(())
    }
}
