//! `jali-audit cells`, `cell` and `merge`: the parts of a run, for a scheduler.

use std::path::PathBuf;

use jali_audit::run::{self, Context};
use jali_audit::{AuditError, Cell};

use super::Where;
use super::text::{note, say, say_json};

/// Say which cells a run has.
#[derive(clap::Parser)]
pub(super) struct CellsArgs {
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Names only, one a line, those without a result
    #[arg(long)]
    list: bool,
    /// With --list: also those that have a result
    #[arg(long, requires = "list")]
    all: bool,
}

/// Run one cell of a run that `jali-audit run --prepare` began, and keep its result there.
#[derive(clap::Parser)]
pub(super) struct CellArgs {
    /// Name, as `jali-audit cells --list` prints it
    #[arg(value_name = "CELL")]
    id: String,
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Threads to use [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Join the results of runs from several machines; they must be about the same model, data and
/// training. Of two results of a cell the first is kept, unless it is a failure.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali-audit merge audit-of-machine-1 audit-of-machine-2 --out all\n  jali-audit merge docs/results/torch/mnist/results.json --out audit     to go on with a run of which nothing else was kept"
)]
pub(super) struct MergeArgs {
    /// Folders of runs, or their results.json
    #[arg(value_name = "RUN", required = true)]
    from: Vec<PathBuf>,
    /// Folder that gets all results; `jali-audit report --out DIR` makes table and page of it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn list(args: &CellsArgs) -> anyhow::Result<()> {
    let cells = run::read_spec(&args.out)?.grid.cells()?;
    let done = |cell: &&Cell| run::has_result(&args.out, cell);
    if !args.list {
        let finished = cells.iter().filter(done).count();
        return Ok(say(format!("{} cells, {finished} with a result", cells.len()))?);
    }
    for cell in cells.iter().filter(|c| args.all || !done(c)) {
        say(cell.id())?;
    }
    Ok(())
}

pub(super) fn cell(args: &CellArgs) -> anyhow::Result<()> {
    let cells = run::read_spec(&args.out)?.grid.cells()?;
    let Some(cell) = cells.iter().find(|c| c.id() == args.id) else {
        return Err(AuditError::UnknownCell { got: args.id.clone() }.into());
    };
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    let context = Context::open(&args.out, args.place.device()?)?;
    if context.done(cell) {
        note(format!("{} has a result already", args.id))?;
    }
    let result = context.run(cell)?;
    if args.json {
        return say_json(&result);
    }
    if let Some(why) = &result.failure {
        return Ok(say(format!("{}: failed: {why}", result.id))?);
    }
    Ok(say(format!(
        "{}: accuracy {:.2} %, agreement with the victim {:.2} %",
        result.id,
        100.0 * result.accuracy,
        100.0 * result.fidelity
    ))?)
}

pub(super) fn merge(args: &MergeArgs) -> anyhow::Result<()> {
    for (from, new) in args.from.iter().zip(run::merge(&args.from, &args.out)?) {
        say(format!("{}: {new} new results", from.display()))?;
    }
    let cells = run::read_spec(&args.out)?.grid.cells()?;
    let done = cells.iter().filter(|c| run::has_result(&args.out, c)).count();
    Ok(say(format!("{}: {done} of {} cells have a result", args.out.display(), cells.len()))?)
}
