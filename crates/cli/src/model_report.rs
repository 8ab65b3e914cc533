//! `jali inspect MODEL.onnx`: what will become of a model, before anything is sealed.

use std::path::Path;

use jali::JaliError;
use jali::files::{Readers, write_aside};
use jali::inspection::{InspectedNode, Inspection, Totals};
use jali::model_file::{read_model_file, read_preprocess};
use jali_model::{ModelError, Offence};

use super::exit::UNSUPPORTED;
use super::guests::forecast;
use super::inspect::InspectArgs;
use super::text::{bytes, primes, say, say_json, table};
use super::{conclude, model_svg, start_threads};

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
    let name = args.path().display().to_string();
    let report = match read_model_file(args.path()) {
        Ok(imported) => {
            if let Some(plot) = &args.plot {
                write_aside(plot, model_svg::draw(&imported.graph, &name).as_bytes(), Readers::Umask)?;
            }
            Inspection::of(name, imported, args.bits, &args.over.costs(backend))?
        }
        Err(JaliError::ModelFile { fault: ModelError::Unsupported { offences }, .. }) => {
            Inspection::refused(name, offences)
        }
        Err(e) => return Err(e.into()),
    };
    let failure = (!report.supported).then_some(UNSUPPORTED);
    let printed = if args.json { say_json(&report) } else { print(&report, args.plot.as_deref()) };
    conclude(printed, failure)
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

fn print(r: &Inspection, plot: Option<&Path>) -> anyhow::Result<()> {
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

fn print_nodes(nodes: &[InspectedNode]) -> std::io::Result<()> {
    let row = |n: &InspectedNode| {
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
