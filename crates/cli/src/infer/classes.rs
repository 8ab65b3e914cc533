//! Which output of a network is read as classes, and what these are called.

use std::path::Path;

use jali::files::read_text;
use jali::{Dataset, Graph, Reading};

use super::InferArgs;
use crate::text::note;

/// Which output says something about classes, and what they are called.
pub(super) struct Classes {
    /// Its position and how it is read; none if no output does.
    pub(super) read: Option<(usize, Reading)>,
    pub(super) labels: Option<Vec<String>>,
}

impl Classes {
    pub(super) fn of(args: &InferArgs, graph: Option<&Graph>) -> anyhow::Result<Self> {
        let source = args.labels.as_deref().or(args.samples.map(|s| Dataset::from(s).name()));
        let labels = source.map(read_labels).transpose()?;
        let Some(graph) = graph else { return Ok(Self { read: None, labels }) };
        let at = match &args.output {
            Some(name) => Some(output_named(graph, name)?),
            None => Reading::output(graph, labels.as_ref().map(Vec::len)),
        };
        let read = at.map(|at| (at, Reading::of_output(graph, at)));
        if let (Some(labels), Some((at, reading))) = (&labels, read)
            && let Some(classes) = reading.classes(graph, at).filter(|&n| n != labels.len())
        {
            let from = args.labels.as_deref().unwrap_or("--samples");
            anyhow::bail!("--labels {from}: it gives {} names, the model has {classes} classes", labels.len());
        }
        if read.is_none_or(|(_, reading)| reading == Reading::Other) && graph.outputs().len() > 1 {
            let names: Vec<String> = (0..graph.outputs().len()).map(|at| describe_output(graph, at)).collect();
            note(format!(
                "note: none of the outputs is read as classes ({}); --output NAME names one, --outputs DIR keeps all",
                names.join(", ")
            ))?;
        }
        Ok(Self { read, labels })
    }
}

/// The position of the output with this name or number.
fn output_named(graph: &Graph, name: &str) -> anyhow::Result<usize> {
    let count = graph.outputs().len();
    let by_name = graph.output_names().iter().position(|n| n == name);
    let by_number = name.parse().ok().filter(|&at: &usize| at < count);
    by_name.or(by_number).ok_or_else(|| {
        let names: Vec<String> = (0..count).map(|at| describe_output(graph, at)).collect();
        anyhow::anyhow!("--output {name}: there is no such output; there are {}", names.join(", "))
    })
}

pub(super) fn describe_output(graph: &Graph, at: usize) -> String {
    let name = graph.output_names().get(at).cloned().unwrap_or_else(|| at.to_string());
    format!("{name} {:?}", graph.shape(graph.outputs()[at]))
}

fn read_labels(source: &str) -> anyhow::Result<Vec<String>> {
    let own = |d: Dataset| d.classes().iter().map(ToString::to_string).collect();
    match source {
        "cifar10" => return Ok(own(Dataset::Cifar10)),
        "mnist" => return Ok(own(Dataset::Mnist)),
        _ => {}
    }
    let text = read_text(Path::new(source), 1 << 20)?;
    Ok(text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect())
}
