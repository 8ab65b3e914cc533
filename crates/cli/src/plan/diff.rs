//! `jali plan diff`: what changes from one plan to another.

use std::path::PathBuf;

use jali::model_file::read_plan;
use serde::Serialize;

use super::{Of, wrong};
use crate::text::{say, say_json, table};

#[derive(clap::Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    of: Of,
    /// The plan as it was
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The plan as it is to be
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Change {
    name: String,
    opened: usize,
    hidden_again: usize,
}

pub(super) fn run(args: &DiffArgs) -> anyhow::Result<()> {
    let graph = args.of.graph()?;
    let (from, to) = (read_plan(&args.from, &graph)?.plan, read_plan(&args.to, &graph)?.plan);
    let changes = from.changes_to(&to).map_err(wrong)?;
    let layers: Vec<Change> = graph
        .linear_nodes()
        .zip(changes)
        .map(|((node, _), [opened, hidden_again])| Change {
            name: graph.nodes()[node].name.clone(),
            opened,
            hidden_again,
        })
        .collect();
    let [before, after] = [from, to].map(|plan| plan.fraction_permitted());
    if args.json {
        #[derive(Serialize)]
        struct Diff {
            fraction_permitted: [f64; 2],
            layers: Vec<Change>,
        }
        return say_json(&Diff { fraction_permitted: [before, after], layers });
    }
    let rows = layers.iter().map(|c| vec![c.name.clone(), c.opened.to_string(), c.hidden_again.to_string()]);
    say(format!("{}\n", table(&["layer", "newly open", "hidden again"], 1, rows)))?;
    say(format!("permitted   {:.1} %, then {:.1} %", 100.0 * before, 100.0 * after))?;
    if layers.iter().any(|c| c.hidden_again > 0) {
        say(
            "Whoever had a server's bundle of the first plan knows the weights that are hidden again: hiding them protects nothing.",
        )?;
    }
    Ok(())
}
