//! `jali bench`: measurements for people; `cargo bench` has the backends one by one.

mod growth;
mod guests;
mod inference;
mod limits;
mod paper;
mod shaped;
mod sweep_svg;

/// Measure this machine and whole inferences.
#[derive(clap::Subcommand)]
pub(super) enum BenchCommand {
    /// Memory bandwidth, multiplication peak, and every backend as a fraction of its limit
    Limits(limits::LimitsArgs),
    /// Latency and throughput: everything hidden, 80 % open, all open, and the same network in the
    /// clear
    Inference(inference::InferenceArgs),
    /// The guests' mode: latency, throughput, dealing, and what runs beside it
    Guests(guests::GuestsArgs),
    /// The paper's Tables 5 and 6 by the paper's method, beside Jali
    Paper(paper::PaperArgs),
    /// Computed: how cost grows with a layer's shape, and what ResNets would take
    Growth(growth::GrowthArgs),
}

pub(super) fn run(command: &BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Limits(args) => limits::run(args),
        BenchCommand::Inference(args) => inference::run(args),
        BenchCommand::Guests(args) => guests::run(args),
        BenchCommand::Paper(args) => paper::run(args),
        BenchCommand::Growth(args) => growth::run(args),
    }
}
