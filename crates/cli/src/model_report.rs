//! `jali inspect MODEL.onnx`: what will become of a model, before anything is sealed.

use std::path::Path;

use jali::files::{Readers, write_aside};
use jali::model_file::{read_model_file, read_preprocess};
use jali::{JaliError, Plan, QuantModel, memory};
use jali_model::onnx::Imported;
use jali_model::{Graph, ModelError, Offence};
use jali_protocol::{Blueprint, OperatorForecast, ProtocolError, forecast as forecast_keyed};
use serde::Serialize;

use super::exit::UNSUPPORTED;
use super::guests::forecast;
use super::inspect::InspectArgs;
use super::plan::shapes_of;
use super::text::{bytes, primes, say, say_json, table};
use super::{conclude, model_svg, start_threads};

#[derive(Serialize)]
struct Report {
    model: String,
    supported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    opset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Value>,
    outputs: Vec<Value>,
    nodes: Vec<Node>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everything_hidden: Option<Totals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everything_open: Option<Totals>,
    warnings: Vec<String>,
    offences: Vec<Offence>,
}

#[derive(Serialize)]
struct Value {
    name: String,
    shape: Vec<usize>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    operator: &'static str,
    /// `server` or `client`.
    side: &'static str,
    output_shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<Layer>,
}

/// A node of the server with everything hidden.
#[derive(Serialize)]
struct Layer {
    kind: String,
    weights: usize,
    ring_degree: usize,
    primes_bits: Vec<u32>,
    layout: String,
    tiles: usize,
    rows: usize,
    sealed_bytes: usize,
    bytes_up: usize,
    bytes_down: usize,
    predicted_client_ms: f64,
    predicted_server_ms: f64,
}

#[derive(Serialize)]
struct Totals {
    weights: usize,
    sealed_bytes: usize,
    server_memory_bytes: usize,
    client_memory_bytes: usize,
    /// At the worst moment when owner, server and client are one process.
    process_memory_bytes: usize,
    /// At the worst moment of sealing it into files.
    sealing_memory_bytes: usize,
    bytes_up: usize,
    bytes_down: usize,
    round_trips: usize,
    predicted_client_ms: f64,
    predicted_server_ms: f64,
    predicted_link_ms: f64,
}

impl Totals {
    fn of(graph: &Graph, layers: &[OperatorForecast]) -> Self {
        let needs = memory::Needs::of(graph, layers);
        let sum = |f: &dyn Fn(&OperatorForecast) -> usize| layers.iter().map(f).sum::<usize>();
        let ms = |f: &dyn Fn(&OperatorForecast) -> f64| layers.iter().map(f).sum::<f64>();
        let sealed_bytes = sum(&|l| l.bytes);
        Self {
            weights: sum(&|l| l.weights),
            sealed_bytes,
            server_memory_bytes: sum(&|l| l.server_memory),
            client_memory_bytes: sum(&|l| l.client_memory),
            process_memory_bytes: needs.process,
            sealing_memory_bytes: needs.sealing,
            bytes_up: sum(&|l| l.counts.bytes_up()),
            bytes_down: sum(&|l| l.counts.bytes_down()),
            round_trips: layers.len(),
            predicted_client_ms: ms(&|l| l.prediction.client_ms),
            predicted_server_ms: ms(&|l| l.prediction.server_ms),
            predicted_link_ms: ms(&|l| l.prediction.link_ms),
        }
    }

    fn total_ms(&self) -> f64 {
        self.predicted_client_ms + self.predicted_server_ms + self.predicted_link_ms
    }
}

/// What becomes of a model with guests.
fn run_for_guests(args: &InspectArgs) -> anyhow::Result<()> {
    let name = args.path().display().to_string();
    let report = match read_model_file(args.path()) {
        Ok(imported) => {
            let preprocess = read_preprocess(args.path())?.map(|(_, p)| p).unwrap_or_default();
            forecast::Report::of(name, &imported.graph, &preprocess, None, args.over.link)?
        }
        Err(JaliError::ModelFile { fault: ModelError::Unsupported { offences }, .. }) => {
            forecast::Report::refused(name, offences)
        }
        Err(e) => return Err(e.into()),
    };
    report.conclude(args.json)
}

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let backend = start_threads(None)?;
    if args.guest {
        return run_for_guests(args);
    }
    let mut report = Report {
        model: args.path().display().to_string(),
        supported: false,
        opset: None,
        input: None,
        outputs: vec![],
        nodes: vec![],
        everything_hidden: None,
        everything_open: None,
        warnings: vec![],
        offences: vec![],
    };
    match read_model_file(args.path()) {
        Ok(imported) => describe(&mut report, imported, args, &args.over.costs(backend))?,
        Err(JaliError::ModelFile { fault: ModelError::Unsupported { offences }, .. }) => report.offences = offences,
        Err(e) => return Err(e.into()),
    }
    report.supported = report.offences.is_empty();
    let failure = (!report.supported).then_some(UNSUPPORTED);
    let printed = if args.json { say_json(&report) } else { print(&report, args.plot.as_deref()) };
    conclude(printed, failure)
}

fn describe(report: &mut Report, imported: Imported, args: &InspectArgs, costs: &jali::Costs) -> anyhow::Result<()> {
    let Imported { graph, input, outputs, opset, warnings } = imported;
    report.opset = Some(opset);
    report.warnings = warnings;
    report.input = Some(Value { name: input, shape: graph.input_shape().to_vec() });
    let output = |(name, &id): (String, &usize)| Value { name, shape: graph.shape(id).to_vec() };
    report.outputs = outputs.into_iter().zip(graph.outputs()).map(output).collect();
    if let Some(path) = &args.plot {
        write_aside(path, model_svg::draw(&graph, &report.model).as_bytes(), Readers::Umask)?;
    }
    let node = |n: &jali_model::Node| Node {
        name: n.name.clone(),
        operator: n.op.name(),
        side: if n.op.linear().is_some() { "server" } else { "client" },
        output_shape: n.shape.clone(),
        layer: None,
    };
    report.nodes = graph.nodes().iter().map(node).collect();
    let model = shapes_of(graph, args.bits)?;
    report.offences = cannot_be_lowered(&model, costs);
    if !report.offences.is_empty() {
        return Ok(());
    }
    let layers = |plan: &Plan| forecast_keyed(&model, plan, costs).map_err(JaliError::from);
    let hidden = layers(&Plan::hide_all(model.graph()))?;
    report.everything_open = Some(Totals::of(model.graph(), &layers(&Plan::open_all(model.graph()))?));
    let totals = Totals::of(model.graph(), &hidden);
    report.warnings.extend(warn(model.graph(), &totals, &hidden));
    report.everything_hidden = Some(totals);
    for l in hidden {
        let counts = l.counts;
        report.nodes[l.node].layer = Some(Layer {
            kind: l.kind,
            weights: l.weights,
            ring_degree: counts.degree,
            primes_bits: l.prime_bits,
            layout: l.layout,
            tiles: counts.row_tiles,
            rows: l.rows,
            sealed_bytes: l.bytes,
            bytes_up: counts.bytes_up(),
            bytes_down: counts.bytes_down(),
            predicted_client_ms: l.prediction.client_ms,
            predicted_server_ms: l.prediction.server_ms,
        });
    }
    Ok(())
}

/// Linear layers that no ring has room for.
fn cannot_be_lowered(model: &QuantModel, costs: &jali::Costs) -> Vec<Offence> {
    let refused = |(node, linear): (usize, jali_model::Linear<'_>)| {
        let reason = match Blueprint::choose(model, node, true, costs) {
            Ok(_) => return None,
            Err(ProtocolError::Layer { reason, .. }) => reason,
            Err(e) => e.to_string(),
        };
        let n = &model.graph().nodes()[node];
        Some(Offence {
            node: n.name.clone(),
            operator: n.op.name().into(),
            reason: format!("{} cannot be lowered: {reason}", linear.kind()),
            remedy: "use narrower images, smaller kernels or fewer inputs".into(),
        })
    };
    model.graph().linear_nodes().filter_map(refused).collect()
}

/// What a user should know before sealing.
fn warn(graph: &Graph, totals: &Totals, layers: &[OperatorForecast]) -> Vec<String> {
    let mut warnings = vec![];
    if let Some(free) = memory::available()
        && totals.process_memory_bytes as u64 > free
    {
        warnings.push(format!(
            "owner, server and client in one process need about {}, this machine has {} free",
            bytes(totals.process_memory_bytes),
            bytes(free as usize)
        ));
    }
    let all = totals.predicted_client_ms + totals.predicted_server_ms;
    if let Some(l) = layers.iter().max_by(|a, b| a.prediction.total_ms().total_cmp(&b.prediction.total_ms()))
        && layers.len() > 2
        && l.prediction.total_ms() > 0.4 * all
    {
        let part = 100.0 * l.prediction.total_ms() / all.max(f64::MIN_POSITIVE);
        warnings.push(format!("node \"{}\" alone takes {part:.0} % of the time", l.name));
    }
    if graph.outputs().len() > 1 {
        warnings.push(format!("it has {} outputs; classes are read from the first", graph.outputs().len()));
    }
    warnings
}

fn shape(shape: &[usize]) -> String {
    if shape.is_empty() { "1".into() } else { shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x") }
}

/// Every reason once, with the first node that has it and how many more do.
fn by_reason(offences: &[Offence]) -> Vec<(&Offence, usize)> {
    let mut kinds: Vec<(&Offence, usize)> = vec![];
    for o in offences {
        let same = |k: &&mut (&Offence, usize)| {
            (&k.0.operator, &k.0.reason, &k.0.remedy) == (&o.operator, &o.reason, &o.remedy)
        };
        match kinds.iter_mut().find(same) {
            Some((_, more)) => *more += 1,
            None => kinds.push((o, 0)),
        }
    }
    kinds
}

fn print(r: &Report, plot: Option<&Path>) -> anyhow::Result<()> {
    if !r.supported {
        say(format!("{}: not supported; {} node(s) are in the way", r.model, r.offences.len()))?;
        for (o, more) in by_reason(&r.offences) {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            say(format!("  node \"{}\"{more} ({}): {}\n    what to do: {}", o.node, o.operator, o.reason, o.remedy))?;
        }
        return Ok(());
    }
    if let (Some(input), Some(opset)) = (&r.input, r.opset) {
        let outputs: Vec<String> = r.outputs.iter().map(|o| format!("{} {}", o.name, shape(&o.shape))).collect();
        let (name, size) = (&input.name, shape(&input.shape));
        say(format!("{}: operator set {opset}, input {name} {size}, output {}", r.model, outputs.join(", ")))?;
    }
    print_nodes(&r.nodes)?;
    for (what, totals) in [("everything hidden", &r.everything_hidden), ("everything open", &r.everything_open)] {
        if let Some(totals) = totals {
            print_totals(what, totals)?;
        }
    }
    for w in &r.warnings {
        say(format!("warning: {w}"))?;
    }
    if let Some(path) = plot {
        say(format!("drawn in {}", path.display()))?;
    }
    Ok(())
}

fn print_nodes(nodes: &[Node]) -> std::io::Result<()> {
    let row = |n: &Node| {
        let mut row = vec![n.name.clone(), n.operator.to_string(), n.side.to_string()];
        row.push(n.layer.as_ref().map(|l| l.layout.clone()).unwrap_or_default());
        row.push(shape(&n.output_shape));
        match &n.layer {
            None => row.extend([const { String::new() }; 7]),
            Some(l) => row.extend([
                l.weights.to_string(),
                format!("{} / {}", l.ring_degree, primes(&l.primes_bits)),
                format!("{} x {}", l.rows, l.tiles),
                bytes(l.sealed_bytes),
                bytes(l.bytes_up),
                bytes(l.bytes_down),
                format!("{:.2}", l.predicted_client_ms + l.predicted_server_ms),
            ]),
        }
        row
    };
    let header = [
        "node",
        "operator",
        "side",
        "layout",
        "output",
        "weights",
        "ring",
        "rows x tiles",
        "sealed",
        "up",
        "down",
        "ms",
    ];
    say(table(&header, 4, nodes.iter().map(row)))
}

fn print_totals(what: &str, t: &Totals) -> std::io::Result<()> {
    say(format!(
        "{what}: about {:.0} ms an image (client {:.0}, server {:.0}, link {:.0}), {} sealed, {} of server memory, {} of client memory, {} to seal it, {} for all in one process, {} up and {} down in {} round trips",
        t.total_ms(),
        t.predicted_client_ms,
        t.predicted_server_ms,
        t.predicted_link_ms,
        bytes(t.sealed_bytes),
        bytes(t.server_memory_bytes),
        bytes(t.client_memory_bytes),
        bytes(t.sealing_memory_bytes),
        bytes(t.process_memory_bytes),
        bytes(t.bytes_up),
        bytes(t.bytes_down),
        t.round_trips
    ))
}
