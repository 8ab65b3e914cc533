//! `jali-audit plan` and `sensitivity`: the cheapest plan within a bound, and what the sensitive
//! policies order by.

use std::path::PathBuf;

use jali::files::{Readers, write_aside};
use jali_audit::attack::Attacker;
use jali_audit::grid::{Grid, percent};
use jali_audit::planner::{Choice, Goal, Minimise, Verdict, search};
use jali_audit::run::{Context, Request};
use jali_audit::{AuditError, Cell, pool};
use jali_leak::{Origin, Policy};
use serde::Serialize;

use super::commanded::Commanded;
use super::text::{note, progress, say, say_json};
use super::{Where, threads};

/// Find the cheapest plan whose worst attacker's advantage stays within a bound, and write it with
/// its evidence.
///
/// The bound is compared with the upper end of the 95 % interval, on seeds that the search has not
/// seen. If nothing but hiding everything is safe, the plan hides everything and the command says
/// so. Killed, it goes on where it was.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali-audit plan crates/jali/bundled/mnist.onnx --data data/mnist --max-advantage 0.02 --out search --plan-out plan.json\n  jali-audit plan crates/jali/bundled/vgg3.onnx --data data/cifar10 --max-advantage 0.05 --budgets 500 --minimise time --out search --plan-out plan.json\n  jali-audit plan crates/jali/bundled/vgg3.onnx --data data/cifar10 --max-advantage 0.05 --minimise tickets --policies last-layers --attacker 'python3 -m jali.attack' --guests top1 --out search --plan-out plan.json\n  jali seal --network mnist --plan plan.json --out sealed && jali inspect sealed"
)]
pub(super) struct PlanArgs {
    /// The network as an ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Largest advantage, as a part of one: 0.02 is two points of accuracy
    #[arg(long, value_name = "A")]
    max_advantage: f64,
    /// Folder with a full labelled data set; may be left out for the two bundled networks
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Labelled images of an attacker; the bound must hold for each
    #[arg(long, alias = "budget", value_name = "IMAGES", value_delimiter = ',', default_value = "0,50,500", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    budgets: Vec<u32>,
    /// What is to be small: bytes on the server or predicted time of an image with keys; bytes of a
    /// ticket or predicted time of an image for guests
    #[arg(long, value_name = "WHAT", default_value = "size", value_parser = ["size", "time", "tickets", "guest-time"])]
    minimise: String,
    /// Policies to search; their plans must not depend on a seed
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "sensitive-rows,magnitude-rows,cost-rows,first-layers,last-layers"
    )]
    policies: Vec<String>,
    /// Fractions to try
    #[arg(long, value_name = "FRACTIONS", value_delimiter = ',', default_value = "0.1,0.25,0.5,0.65,0.8,0.9,0.95", value_parser = super::run::fraction)]
    fractions: Vec<f64>,
    /// Attackers by name or number [default: as for `run`]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    attackers: Option<Vec<String>>,
    #[command(flatten)]
    command: Commanded,
    /// Seeds of the search, and as many fresh ones of the check
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=1000))]
    seeds: u64,
    /// Images that score
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    scoring: u32,
    /// Short training
    #[arg(long)]
    quick: bool,
    /// Folder for the search's results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to write the plan
    #[arg(long, value_name = "FILE")]
    plan_out: PathBuf,
    /// Cells at a time [default: one per thread; with --attacker one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
struct Report {
    policy: Option<String>,
    leaked: f64,
    fraction_permitted: f64,
    cost: f64,
    cost_hidden: f64,
    minimised: String,
    max_advantage: f64,
    evidence: Option<jali_leak::Evidence>,
    tried: Vec<Tried>,
    plan: String,
}

#[derive(Serialize)]
struct Tried {
    policy: String,
    leaked: f64,
    outcome: String,
}

fn outcome(verdict: &Verdict) -> String {
    let points = |v: &f64| format!("{:.1}", 100.0 * v);
    match verdict {
        Verdict::Hopeless { advantage } => format!("given up: the best attacker gained {} points", points(advantage)),
        Verdict::TooRisky { upper } => format!("too risky: the interval ends at {} points", points(upper)),
        Verdict::NotConfirmed { upper } => format!("not confirmed on fresh seeds: {} points", points(upper)),
        Verdict::Unknown { why } => format!("not known: {why}"),
        Verdict::Safe { upper } => format!("safe: on fresh seeds the interval ends at {} points", points(upper)),
    }
}

pub(super) fn run(args: &PlanArgs) -> anyhow::Result<()> {
    if !(args.max_advantage > 0.0 && args.max_advantage < 1.0) {
        let what = format!("--max-advantage must be between 0 and 1 (0.02 is two points), got {}", args.max_advantage);
        return Err(AuditError::Usage { what }.into());
    }
    let goal = goal(args)?;
    let context = Context::create(&args.out, &request(args, &goal), args.place.device()?)?;
    let choice = find(args, &context, &goal)?;
    let made = match &choice.chosen {
        Some(c) => format!("jali-audit plan: {}, fraction {}", c.policy, c.leaked),
        None => format!("jali-audit plan: nothing is within {}, everything stays hidden", args.max_advantage),
    };
    let network = args.model.file_name().map(|n| n.to_string_lossy().into_owned());
    let origin = Origin { made, network, evidence: choice.evidence.clone() };
    let text = choice.plan.to_json_with(context.victim().graph(), &origin).map_err(AuditError::Leak)?;
    write_aside(&args.plan_out, text.as_bytes(), Readers::Owner)?;
    let tried = choice.tried.iter();
    let report = Report {
        policy: choice.chosen.as_ref().map(|c| c.policy.to_string()),
        leaked: choice.chosen.as_ref().map_or(0.0, |c| c.leaked),
        fraction_permitted: choice.plan.fraction_permitted(),
        cost: choice.chosen.as_ref().map_or(choice.hidden_cost, |c| c.cost),
        cost_hidden: choice.hidden_cost,
        minimised: args.minimise.clone(),
        max_advantage: args.max_advantage,
        tried: tried.map(|(p, f, v)| Tried { policy: p.to_string(), leaked: *f, outcome: outcome(v) }).collect(),
        evidence: choice.evidence,
        plan: args.plan_out.display().to_string(),
    };
    if args.json { say_json(&report) } else { print(args, &report) }
}

/// What the arguments ask for.
fn goal(args: &PlanArgs) -> anyhow::Result<Goal> {
    let policies = args.policies.iter().map(|p| p.parse().map_err(AuditError::Leak));
    Ok(Goal {
        max_advantage: args.max_advantage,
        minimise: match args.minimise.as_str() {
            "time" => Minimise::Time,
            "tickets" => Minimise::Tickets,
            "guest-time" => Minimise::GuestTime,
            _ => Minimise::Size,
        },
        policies: policies.collect::<Result<Vec<Policy>, _>>()?,
        fractions: args.fractions.clone(),
        budgets: args.budgets.iter().map(|&b| b as usize).collect(),
        attackers: args
            .command
            .attackers(args.attackers.as_ref())
            .iter()
            .map(|a| a.parse())
            .collect::<Result<Vec<Attacker>, _>>()?,
        seeds: args.seeds,
    })
}

/// The run in which candidates are tried.
fn request(args: &PlanArgs, goal: &Goal) -> Request {
    Request {
        model: args.model.clone(),
        data: args.data.clone(),
        plan: None,
        public_model: None,
        scoring: args.scoring as usize,
        command: args.command.command(),
        guests: args.command.guests(),
        quick: args.quick,
        grid: Grid {
            policies: args.policies.clone(),
            fractions: args.fractions.clone(),
            budgets: goal.budgets.clone(),
            attackers: goal.attackers.iter().map(ToString::to_string).collect(),
            seeds: 2 * args.seeds,
            plan: None,
        },
    }
}

/// Searches, with a bar and a line for every candidate.
fn find(args: &PlanArgs, context: &Context, goal: &Goal) -> anyhow::Result<Choice> {
    let (threads, bar) = (threads(args.threads), progress(0));
    let jobs = args.command.jobs(args.jobs, threads);
    let compute = |cells: &[Cell]| {
        bar.inc_length(cells.iter().map(Cell::weight).sum());
        pool::each(cells, jobs, threads, |cell| {
            bar.set_message(cell.id());
            context.run(cell)?;
            bar.inc(cell.weight());
            Ok(())
        })?;
        cells.iter().map(|cell| context.run(cell)).collect()
    };
    let choice = search(context, goal, compute, |candidate, verdict| {
        let line = format!("{} at {} %: {}", candidate.policy, percent(candidate.leaked), outcome(verdict));
        bar.suspend(|| {
            let _ = note(line);
        });
    })?;
    bar.finish_and_clear();
    Ok(choice)
}

fn print(args: &PlanArgs, report: &Report) -> anyhow::Result<()> {
    for t in &report.tried {
        say(format!("{:<18} {:>5} %  {}", t.policy, percent(t.leaked), t.outcome))?;
    }
    let is_time = args.minimise.ends_with("time");
    let amount = |v: f64| if is_time { format!("{v:.1} ms") } else { format!("{:.2} MB", v / 1e6) };
    match (&report.policy, &report.evidence) {
        (Some(policy), Some(evidence)) => {
            say(format!(
                "\n{policy} at {} %: {} instead of {} with everything hidden",
                percent(report.leaked),
                amount(report.cost),
                amount(report.cost_hidden)
            ))?;
            say(&evidence.claim)?;
        }
        _ => say(format!(
            "\nThe plan hides everything: none of those tried is known to keep the worst attacker within {:.1} points.",
            100.0 * args.max_advantage
        ))?,
    }
    Ok(say(format!("The plan: {}", report.plan))?)
}

/// Write how sensitive the network is to each of its weights, for `jali plan create --policy
/// sensitive-rows --scores FILE`.
#[derive(clap::Parser)]
pub(super) struct SensitivityArgs {
    /// The network as an ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Folder with a full labelled data set; may be left out for the two bundled networks
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to write the scores
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    place: Where,
}

pub(super) fn sensitivity(args: &SensitivityArgs) -> anyhow::Result<()> {
    let scores = jali_audit::run::sensitivities(&args.model, args.data.as_deref(), args.place.device()?)?;
    write_aside(&args.out, &serde_json::to_vec(&scores)?, Readers::Owner)?;
    Ok(say(format!("{}: {} weights", args.out.display(), scores.iter().map(Vec::len).sum::<usize>()))?)
}
