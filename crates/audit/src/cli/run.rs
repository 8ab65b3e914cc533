//! `jali-audit run`: all cells of a grid, and what they say.

use std::path::{Path, PathBuf};

use jali::files::{Readers, write_aside};
use jali_audit::grid::{Grid, percent};
use jali_audit::results::Results;
use jali_audit::run::{Context, Request};
use jali_audit::{Cell, Findings, pool, report};

use super::commanded::Commanded;
use super::text::{note, progress, say, say_json, table};
use super::{Where, threads};

/// Attack a network with different parts of it open, and compare with the same attackers that see
/// nothing.
///
/// Results are kept cell by cell in --out: a run that was killed goes on where it was, and a run
/// with a larger grid adds to what is there. Labels come from the victim; scoring images are never
/// among an attacker's.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali-audit run crates/jali/bundled/mnist.onnx --quick --out audit\n  jali-audit run crates/jali/bundled/vgg3.onnx --data data/cifar10 --plan plan.json --budgets 50,500 --out audit\n  jali-audit run net.onnx --data data/cifar10 --plan plan.json --attacker 'python3 ~/attack.py' --out audit\n  jali-audit run net.onnx --data data/cifar10 --policies random-rows,magnitude-weights --fractions 0.5,0.8,0.95 --seeds 5 --out audit\n  jali-audit run crates/jali/bundled/vgg3.onnx --data data/cifar10 --out audit --prepare      then spread `jali-audit cells --list --out audit`"
)]
pub(super) struct RunArgs {
    /// The network as an ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Folder with a full labelled data set; may be left out for the two bundled networks
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Audit this plan
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Policies to compare (see `jali plan create --help`), at --fractions or, as NAME@F, at one of
    /// their own; `last-3-layers` hides the last three [default: random-rows, sensitive-rows; with
    /// --plan none]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    policies: Option<Vec<String>>,
    /// Fractions of the weights open; 0 and 1 are always there [default: 0.5, 0.8, 0.9, 0.95, 0.99;
    /// with --quick 0.8]
    #[arg(long, value_name = "FRACTIONS", value_delimiter = ',', value_parser = fraction)]
    fractions: Option<Vec<f64>>,
    /// Labelled images of an attacker; attackers that can do without are run without as well
    /// [default: 0, 50, 500; with --quick 0, 50]
    #[arg(long, value_name = "IMAGES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    budgets: Option<Vec<u32>>,
    /// Attackers by name or number [default: all of ours, `public` with --public-model alone; with
    /// --attacker `command`: which procedure is up to it]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    attackers: Option<Vec<String>>,
    #[command(flatten)]
    command: Commanded,
    /// A public model of the same architecture, for the attacker `public`
    #[arg(long, value_name = "FILE.onnx", conflicts_with = "attacker")]
    public_model: Option<PathBuf>,
    /// Repetitions with other plans, images and draws [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Images that score
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    scoring: u32,
    /// A small grid and short training: a first impression in minutes
    #[arg(long)]
    quick: bool,
    /// Folder for results and report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Cells at a time; they share the threads [default: one per thread; with --attacker one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Only write down what is to be done, for `jali-audit cells` and `cell`
    #[arg(long)]
    prepare: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let got: Result<f64, _> = text.trim().parse();
    got.ok().filter(|f| (0.0..=1.0).contains(f)).ok_or_else(|| format!("\"{text}\" is not a fraction from 0 to 1"))
}

impl RunArgs {
    fn grid(&self) -> Grid {
        let names = |given: &Option<Vec<String>>, default: &[&str]| {
            given.clone().unwrap_or_else(|| default.iter().map(|s| (*s).into()).collect())
        };
        let policies: &[&str] = match (&self.plan, self.quick) {
            (Some(_), _) => &[],
            (None, true) => &["random-rows"],
            (None, false) => &["random-rows", "sensitive-rows"],
        };
        let mut attackers = self.command.attackers(self.attackers.as_ref());
        if self.attackers.is_none() && self.public_model.is_some() {
            attackers.push("public".into());
        }
        let fractions: &[f64] = if self.quick { &[0.8] } else { &[0.5, 0.8, 0.9, 0.95, 0.99] };
        let budgets: &[u32] = if self.quick { &[0, 50] } else { &[0, 50, 500] };
        Grid {
            policies: names(&self.policies, policies),
            fractions: self.fractions.clone().unwrap_or_else(|| fractions.to_vec()),
            budgets: self.budgets.clone().unwrap_or_else(|| budgets.to_vec()).iter().map(|&b| b as usize).collect(),
            attackers,
            seeds: self.seeds.unwrap_or(3),
            plan: None,
        }
    }
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let request = Request {
        model: args.model.clone(),
        data: args.data.clone(),
        plan: args.plan.clone(),
        public_model: args.public_model.clone(),
        scoring: args.scoring as usize,
        command: args.command.command(),
        guests: args.command.guests(),
        quick: args.quick,
        grid: args.grid(),
    };
    let mut context = Context::create(&args.out, &request, args.place.device()?)?;
    let cells = context.cells()?;
    if args.prepare {
        note(format!(
            "{} cells are to be done; see `jali-audit cells --list --out {}`",
            cells.len(),
            args.out.display()
        ))?;
        return Ok(());
    }
    let threads = threads(args.threads);
    let jobs = args.command.jobs(args.jobs, threads);
    let open: Vec<&Cell> = cells.iter().filter(|c| !context.done(c)).collect();
    if open.len() < cells.len() {
        note(format!("{} of {} cells are there from before", cells.len() - open.len(), cells.len()))?;
    }
    let bar = progress(open.iter().map(|c| c.weight()).sum());
    pool::each(&open, jobs, threads, |cell| {
        bar.set_message(cell.id());
        if context.run_if_free(cell)?.is_some() {
            bar.inc(cell.weight());
        }
        Ok(())
    })?;
    let others: Vec<&Cell> = open.into_iter().filter(|cell| !context.done(cell)).collect();
    pool::each(&others, jobs, threads, |cell| {
        bar.set_message(format!("{}: waiting for another process", cell.id()));
        context.run(cell)?;
        bar.inc(cell.weight());
        Ok(())
    })?;
    bar.finish_and_clear();
    context.look_again()?;
    let findings = Findings::of(&context)?;
    keep(&findings, &args.out)?;
    show(&findings, &args.out, args.json)?;
    anyhow::ensure!(!findings.is_without_copies(), "no attack of the command came to a copy of the network: see above");
    Ok(())
}

/// Writes `results.json` and `report.html`.
fn keep(f: &Findings, folder: &Path) -> anyhow::Result<()> {
    write_aside(&folder.join("results.json"), &serde_json::to_vec_pretty(&Results::from(f))?, Readers::Umask)?;
    Ok(write_aside(&folder.join("report.html"), report::html(f).as_bytes(), Readers::Umask)?)
}

fn show(f: &Findings, folder: &Path, json: bool) -> anyhow::Result<()> {
    if json {
        return say_json(&Results::from(f));
    }
    let header = [
        "policy",
        "best attacker",
        "twin",
        "open %",
        f.unit(),
        "black box %",
        "attacker %",
        "agrees %",
        "advantage",
        "interval",
    ];
    let rows = f.rows.iter().map(|r| {
        vec![
            r.policy.clone(),
            r.best_attacker.clone(),
            r.black_box_attacker.clone(),
            percent(r.leaked),
            r.budget.to_string(),
            format!("{:.1}", 100.0 * r.black_box),
            format!("{:.1}", 100.0 * r.accuracy),
            format!("{:.1}", 100.0 * r.fidelity),
            format!("{:+.1}", 100.0 * r.advantage),
            r.interval.map_or("one seed".into(), |[l, h]| format!("{:+.1} to {:+.1}", 100.0 * l, 100.0 * h)),
        ]
    });
    say(format!("{}\n", table(&header, 3, rows)))?;
    say(format!(
        "The victim classifies {:.1} % of {} scoring images rightly; guessing gives {:.0} %. Advantages are points of accuracy, with 95 % intervals.\n",
        100.0 * f.victim_accuracy,
        f.spec.scoring,
        100.0 * f.chance
    ))?;
    for line in f.verdict() {
        say(line)?;
    }
    Ok(say(format!("\nThe whole story: {}", folder.join("report.html").display()))?)
}

/// Write the report again: with --out of a run from what is there, finished or not, or of a
/// `results.json` alone.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali-audit report --out audit\n  jali-audit report docs/results/torch/mnist/results.json     writes report.html beside it"
)]
pub(super) struct ReportArgs {
    /// A results.json: the report is written beside it
    #[arg(value_name = "results.json", required_unless_present = "out", conflicts_with = "out")]
    results: Option<PathBuf>,
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.results {
        let findings = Results::read(path)?.into_findings();
        let folder = path.parent().unwrap_or(Path::new("."));
        write_aside(&folder.join("report.html"), report::html(&findings).as_bytes(), Readers::Umask)?;
        return show(&findings, folder, args.json);
    }
    let out = args.out.as_deref().unwrap_or(Path::new("."));
    let context = Context::open(out, burn::tensor::Device::flex())?;
    let findings = Findings::of(&context)?;
    keep(&findings, out)?;
    show(&findings, out, args.json)
}
