//! Arguments, exit codes, and what the subcommands share.

mod bench;
mod demo;
mod evaluate;
mod explain;
mod infer;
mod inspect;
mod model_report;
mod model_svg;
mod pixels;
mod plan;
mod seal;
mod serve;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jali::bundle::Pin;
use jali::network::read_plan;
use jali::{ANY_HINTS, Costs, JaliError, Kernel, Link, Network, Plan, QuantConfig, QuantModel, Session, calibration};
use jali_leak::Origin;
use jali_net::NetError;
use jali_protocol::{Blueprint, ProtocolError};

#[derive(Parser)]
#[command(
    name = "jali",
    version,
    about = "Partially oblivious neural-network inference: an untrusted server classifies masked images with a masked model",
    after_help = "Examples:\n  jali demo                                         16 photographs, every weight hidden\n  jali demo --leak 0.8 --images 100                 80 % of the weights in the clear\n  jali infer --model assets/vgg3.onnx --labels cifar10 assets/images/cifar10/*.png\n  jali seal --network vgg3 --out sealed             two bundles: sealed/server and sealed/client\n  jali serve sealed/server                          then, elsewhere:\n  jali infer --client sealed/client --server http://127.0.0.1:8433 --samples cifar10\n  jali evaluate --network mnist --encrypted 50\n  jali explain --network vgg3                       rings, layouts, predicted and measured cost\n  jali bench inference                              hidden, 80 % open, open and in the clear\n\nExit codes: 0 success, 1 failure, 2 wrong usage, 3 unusable model, 4 the server's answer was rejected,\n5 encrypted and plaintext results differ, 6 damaged or foreign bundle, 7 passphrase, 8 the server cannot be reached or refuses, 9 not enough memory, 10 unreadable file, 11 not an image, 12 damaged image, 13 wrong size,\n14 wrong number of channels, 15 wrong array shape, 16 NaN or infinity.\nEnvironment: JALI_KERNEL=ifma|avx512|avx2|portable overrides the choice of the server's kernel."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Classify bundled test images with a bundled network and show what every layer costs
    Demo(demo::DemoArgs),
    /// Seal a network into a bundle for the server and one for the client
    Seal(seal::SealArgs),
    /// Make a plan of what may be open, or say what is in one
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Serve sealed networks over HTTP
    Serve(serve::ServeArgs),
    /// Say what is inside a bundle, and check it
    Inspect(inspect::InspectArgs),
    /// Classify image files with an ONNX model
    Infer(infer::InferArgs),
    /// Measure float, quantised and encrypted accuracy
    Evaluate(evaluate::EvaluateArgs),
    /// Show ring, layout, predicted and measured cost of every layer
    Explain(explain::ExplainArgs),
    /// Measure this machine's limits and whole inferences
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

#[derive(Clone, Copy, ValueEnum)]
enum NetworkName {
    /// Three-block VGG for CIFAR-10
    Vgg3,
    /// Small CNN for MNIST
    Mnist,
}

impl From<NetworkName> for Network {
    fn from(name: NetworkName) -> Self {
        match name {
            NetworkName::Vgg3 => Self::Vgg3,
            NetworkName::Mnist => Self::Mnist,
        }
    }
}

/// Options that every subcommand takes.
#[derive(Args)]
#[command(next_help_heading = "Quantisation, threads and output")]
struct Common {
    /// Bits of weights and activations: weights 2 to 8, activations 2 to 12
    #[arg(long, value_name = "W,A", default_value = "8,8", value_parser = parse_bits)]
    bits: QuantConfig,
    /// Threads to use; these may move between cores [default: one bound to each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Over what the two sides talk: decides which rings and layouts are chosen.
#[derive(Args)]
#[command(next_help_heading = "Between client and server")]
struct Over {
    /// Choose rings and layouts for this link: loopback, lan (0.3 ms, 1 Gbit/s), wan (40 ms, 100 Mbit/s) or RTT,MBPS
    #[arg(long, value_name = "LINK", default_value = "loopback")]
    link: Link,
    /// Most memory in megabytes for hints, and the rows' secrets beside them, that the client keeps: hints of layers beyond it come with every answer
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32))]
    hint_memory: Option<u32>,
}

impl Over {
    /// Costs of this machine, if `jali explain` or `jali bench` has measured them, else the built-in ones.
    fn costs(&self, kernel: Kernel) -> Costs {
        self.put(calibration::kept_or_default(kernel))
    }

    /// Costs with this link and this limit.
    fn put(&self, costs: Costs) -> Costs {
        let hint_bytes = self.hint_memory.map_or(ANY_HINTS, |megabytes| u64::from(megabytes) * 1_000_000);
        Costs { hint_bytes, ..costs.over(self.link) }
    }
}

/// Which weights stay hidden.
#[derive(Args)]
#[command(next_help_heading = "What stays hidden")]
struct Leak {
    /// Fraction of the weights to leave open, by random rows; 0 hides everything
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    leak: f64,
    /// Which random rows are open
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// What may be open, as `jali plan` writes it; nothing else is opened
    #[arg(long, value_name = "FILE", conflicts_with_all = ["leak", "seed"])]
    plan: Option<PathBuf>,
}

/// Which bundle it must be.
#[derive(Args)]
#[command(next_help_heading = "Which bundle it must be")]
struct PinArgs {
    /// Id of the sealed model, as `jali seal` prints it: another bundle is refused
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<16>)]
    model_id: Option<[u8; 16]>,
    /// Content hash of the client's bundle, as `jali seal` and `jali inspect` print it: another bundle is refused
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<32>)]
    content_hash: Option<[u8; 32]>,
}

impl PinArgs {
    fn pin(&self) -> Pin {
        Pin { model_id: self.model_id, content_hash: self.content_hash }
    }
}

fn parse_hex<const BYTES: usize>(text: &str) -> Result<[u8; BYTES], String> {
    let digits = text.trim();
    let fail = || format!("{} hexadecimal digits are needed", 2 * BYTES);
    if digits.len() != 2 * BYTES || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(fail());
    }
    let mut out = [0; BYTES];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| fail())?;
    }
    Ok(out)
}

fn parse_bits(text: &str) -> Result<QuantConfig, String> {
    let form = || format!("\"{text}\" is not of the form W,A, for example 8,8");
    let (w, a) = text.split_once(',').ok_or_else(form)?;
    let (w, a) = (w.trim().parse().map_err(|_| form())?, a.trim().parse().map_err(|_| form())?);
    QuantConfig::new(w, a).map_err(|e| e.to_string())
}

impl Common {
    /// Starts the thread pool and chooses the kernel.
    fn start(&self) -> anyhow::Result<Kernel> {
        start_threads(self.threads)
    }
}

/// A pool that fills the machine, each thread on a core of its own. Left to themselves, a virtual machine's threads that wake up are put together on
/// one core as long as the other one, halted, looks taken: an inference after a pause took half as long again.
fn one_for_each_core() -> rayon::ThreadPoolBuilder {
    let pool = rayon::ThreadPoolBuilder::new();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    // A quota may allow less than the cores that are there; then it is not known which.
    if cores.len() < 2 || std::thread::available_parallelism().map(usize::from).ok() != Some(cores.len()) {
        return pool;
    }
    let all = cores.len();
    pool.num_threads(all).start_handler(move |thread| {
        if let Some(&core) = cores.get(thread) {
            core_affinity::set_for_current(core);
        }
    })
}

/// Starts the thread pool and chooses the kernel.
fn start_threads(threads: Option<u16>) -> anyhow::Result<Kernel> {
    let pool = match threads {
        Some(threads) => rayon::ThreadPoolBuilder::new().num_threads(threads.into()),
        None => one_for_each_core(),
    };
    pool.build_global().context("cannot start the threads")?;
    let name = std::env::var("JALI_KERNEL").ok().filter(|n| !n.is_empty());
    Kernel::choose(name.as_deref()).context("JALI_KERNEL")
}

impl Leak {
    /// Where the plan comes from, if it comes from a file.
    fn origin(&self, model: &QuantModel) -> Result<Option<Origin>, JaliError> {
        self.plan.as_ref().map(|path| Ok(read_plan(path, model.graph())?.origin)).transpose()
    }

    fn plan(&self, model: &QuantModel, costs: &Costs) -> Result<Plan, JaliError> {
        if let Some(path) = &self.plan {
            return Ok(read_plan(path, model.graph())?.plan);
        }
        let rows = if self.leak > 0.0 && self.leak < 1.0 { Blueprint::rows_of_all(model, costs)? } else { vec![] };
        Ok(jali_leak::random_rows(model.graph(), &rows, self.leak, self.seed).map_err(ProtocolError::from)?)
    }
}

/// Seals with a progress bar.
fn start_session(model: QuantModel, plan: &Plan, costs: &Costs, kernel: Kernel) -> anyhow::Result<Session> {
    let bar = text::progress(model.graph().linear_nodes().count(), "sealing");
    let session = Session::start_with(model, plan, costs, kernel, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok(session)
}

/// Exit code when encrypted and plaintext results differ.
const DIFFERENT: u8 = 5;

/// A failure that carries its own exit code.
#[derive(Debug)]
struct Exit(u8);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// The end of a subcommand: a failure of the work itself comes before any trouble with printing, so that a reader who
/// has gone away never turns a failure into success.
fn conclude(printed: anyhow::Result<()>, failure: Option<u8>) -> anyhow::Result<()> {
    match failure {
        Some(code) => Err(Exit(code).into()),
        None => printed,
    }
}

/// Exit code of a library error.
fn exit_code(error: &JaliError) -> u8 {
    if error.is_out_of_memory() {
        return 9;
    }
    match error {
        JaliError::Image { fault, .. } => fault.exit_code(),
        JaliError::Read { .. } | JaliError::TooLarge { .. } | JaliError::Data { .. } | JaliError::Write { .. } => 10,
        JaliError::Bundle { .. } | JaliError::OtherBundle { .. } => 6,
        JaliError::Passphrase { .. } => 7,
        JaliError::Net(NetError::File { .. }) => 10,
        JaliError::Net(_) => 8,
        JaliError::Memory { .. } => 9,
        JaliError::ModelFile { .. } | JaliError::Model(_) => 3,
        JaliError::Protocol(ProtocolError::Layer { .. } | ProtocolError::Noise { .. }) => 3,
        JaliError::Protocol(ProtocolError::Rejected { refusal: Some(_), .. }) => 8,
        JaliError::Protocol(ProtocolError::Rejected { .. } | ProtocolError::Hints { .. }) => 4,
        JaliError::Protocol(ProtocolError::Leak(_)) | JaliError::PlanFile { .. } => 2,
        _ => 1,
    }
}

pub(crate) fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or_else(|| {
        let _ = text::note("No command given: this is `jali demo`. `jali --help` lists what else there is.");
        Command::Demo(demo::DemoArgs::parse_from(["demo"]))
    });
    let result = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Seal(args) => seal::run(&args),
        Command::Plan(command) => plan::run(&command),
        Command::Serve(args) => serve::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Infer(args) => infer::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Bench(command) => bench::run(&command),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(Exit(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(closed) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    let _ = text::note(format!("error: {error:#}"));
    let ran_out = |e: &JaliError| e.is_out_of_memory() && !matches!(e, JaliError::Memory { .. });
    if error.downcast_ref::<JaliError>().is_some_and(ran_out) {
        let _ = text::note(
            "what helps: a larger machine or limit, server and client apart (jali seal, serve, infer --client), open weights, a smaller network or image",
        );
    }
    ExitCode::from(error.downcast_ref::<JaliError>().map_or(1, exit_code))
}
