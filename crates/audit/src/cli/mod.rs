//! Arguments and exit codes.

mod cells;
mod commanded;
mod plan;
mod run;
mod text;

use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jali::JaliError;
use jali_audit::AuditError;

#[derive(Parser)]
#[command(
    name = "jali-audit",
    version,
    about = "What open weights give away: attackers with and without them, measured against each other",
    after_help = "Examples:\n  jali-audit run crates/jali/bundled/mnist.onnx --quick --out audit\n  jali-audit run crates/jali/bundled/vgg3.onnx --data data/cifar10 --policies random-rows,sensitive-rows --fractions 0.5,0.8 --out audit\n  jali-audit cells --list --out audit | parallel jali-audit cell {} --out audit\n\nExit codes: 0 success, 1 failure, 2 wrong usage, 3 unusable model, 9 a run that cannot be continued, 10 unusable data or file."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Attack a network with different parts of it open
    Run(run::RunArgs),
    /// Find the cheapest plan within a bound on the advantage
    Plan(plan::PlanArgs),
    /// Write how sensitive the network is to each weight, for `jali plan create`
    Sensitivity(plan::SensitivityArgs),
    /// Write table and report of a run again
    Report(run::ReportArgs),
    /// Say which cells a run has, for a scheduler of your own
    Cells(cells::CellsArgs),
    /// Run one cell
    Cell(cells::CellArgs),
    /// Join the results of runs from several machines
    Merge(cells::MergeArgs),
}

/// Where attackers train.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// This machine's cores
    Flex,
    /// An NVIDIA GPU (needs a build with `--features cuda`)
    Cuda,
    /// A GPU over wgpu (needs a build with `--features wgpu`)
    Wgpu,
}

#[derive(Args)]
struct Where {
    /// Where attackers train
    #[arg(long, value_enum, default_value = "flex")]
    device: Backend,
}

impl Where {
    fn device(&self) -> Result<Device, AuditError> {
        let lacking = |name: &str| {
            Err(AuditError::Usage { what: format!("this build has no {name}: build with `--features {name}`") })
        };
        match self.device {
            Backend::Flex => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Backend::Cuda => Ok(Device::cuda(0)),
            #[cfg(not(feature = "cuda"))]
            Backend::Cuda => lacking("cuda"),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Ok(Device::wgpu(Default::default())),
            #[cfg(not(feature = "wgpu"))]
            Backend::Wgpu => lacking("wgpu"),
        }
    }
}

/// Threads to use: as asked for, or all cores.
fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

fn exit_code(error: &AuditError) -> u8 {
    match error {
        AuditError::UnknownAttacker { .. }
        | AuditError::UnknownCell { .. }
        | AuditError::NoPublicModel
        | AuditError::NoCommand => 2,
        AuditError::Usage { .. } | AuditError::Leak(_) | AuditError::Jali(JaliError::PlanFile { .. }) => 2,
        AuditError::Model(_) | AuditError::Protocol(_) => 3,
        AuditError::Jali(JaliError::ModelFile { .. } | JaliError::Model(_) | JaliError::Guest(_)) => 3,
        AuditError::OtherRun { .. } | AuditError::Apart { .. } => 9,
        AuditError::Data { .. } | AuditError::File { .. } | AuditError::Jali(_) => 10,
        _ => 1,
    }
}

pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Sensitivity(args) => plan::sensitivity(&args),
        Command::Report(args) => run::report(&args),
        Command::Cells(args) => cells::list(&args),
        Command::Cell(args) => cells::cell(&args),
        Command::Merge(args) => cells::merge(&args),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    let closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(closed) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    let _ = text::note(format!("error: {error:#}"));
    ExitCode::from(error.downcast_ref::<AuditError>().map_or(1, exit_code))
}
