//! `jali`, the command: parses arguments, calls the library, prints. Its binary and the Python
//! package's script call [`run`].
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod evaluate;
mod exit;
mod explain;
mod guests;
mod infer;
mod inspect;
mod labelled;
mod local;
mod manual;
mod model_report;
mod model_svg;
mod options;
mod pixels;
mod plan;
mod seal;
mod serve;
mod text;
mod usual_preprocessings;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use jali::JaliError;

use exit::{DIFFERENT, Exit, conclude, exit_code};
use options::{Common, Leak, NetworkName, Over, PinArgs, start_threads};

#[derive(Parser)]
#[command(
    name = "jali",
    version,
    about = "Partially oblivious neural-network inference: an untrusted server classifies masked images with a masked model",
    after_help = "Examples:\n  jali demo                                         16 photographs, every weight hidden\n  jali demo --leak 0.8 --images 100                 80 % of the weights in the clear\n  jali demo --guest                                 the other mode: nobody but the owner has the model\n  jali infer --model crates/jali/bundled/vgg3.onnx --labels cifar10 assets/images/cifar10/*.png\n  jali seal --network vgg3 --out sealed             two bundles: sealed/server and sealed/client\n  jali serve sealed/server                          then, elsewhere:\n  jali infer --client sealed/client --server http://127.0.0.1:8433 --samples cifar10\n  jali evaluate --network mnist --encrypted 50\n  jali explain --network vgg3                       rings, layouts, predicted and measured cost\n  jali bench inference                              hidden, 80 % open, open and in the clear\n\nExit codes: 0 success, 1 failure, 2 wrong usage, 3 unusable model, 4 the server's answer was rejected,\n5 encrypted and plaintext results differ, 6 damaged or foreign bundle, 7 passphrase, 8 the server cannot be reached or refuses, 9 not enough memory, 10 unreadable file, 11 not an image, 12 damaged image, 13 wrong size,\n14 wrong number of channels, 15 wrong array shape, 16 NaN or infinity, 17 no ticket left or its time is over.\nWords and pictures: docs/glossary.md; every field of --json: docs/json.md.\nEnvironment: JALI_BACKEND=ifma|avx512|avx2|portable overrides the choice of the vector unit."
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
    /// Be a guest of somebody's model: make the key for your tickets
    #[command(subcommand)]
    Guest(guests::commands::GuestCommand),
    /// Deal tickets to a guest
    Deal(guests::deal::DealArgs),
    /// Say what a wallet is for, and how many of its tickets are left
    Tickets(guests::commands::TicketsArgs),
    /// Judge a transcript: did the server send what it had to?
    Judge(guests::commands::JudgeArgs),
    /// Say what is inside a bundle, and check it
    Inspect(inspect::InspectArgs),
    /// Classify image files with an ONNX model
    Infer(Box<infer::InferArgs>),
    /// Measure float, quantised and encrypted accuracy
    Evaluate(evaluate::EvaluateArgs),
    /// Show ring, layout, predicted and measured cost of every layer
    Explain(explain::ExplainArgs),
    /// Measure this machine's limits and whole inferences
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  jali completions bash > ~/.local/share/bash-completion/completions/jali")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for every subcommand
    #[command(after_help = "Examples:\n  jali man | man -l -\n  jali man --out ~/.local/share/man/man1")]
    Man {
        /// Folder for a page of every subcommand
        #[arg(long, value_name = "DIR")]
        out: Option<std::path::PathBuf>,
    },
}

/// Runs the command with these arguments, the first of which is its own name, and returns its exit
/// code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help goes to standard output, mistakes go to standard error.
            let _ = e.print();
            return e.exit_code() as u8;
        }
    };
    let command = cli.command.unwrap_or_else(|| {
        let _ = text::note("No command given: this is `jali demo`. `jali --help` lists what else there is.");
        Command::Demo(demo::DemoArgs::parse_from(["demo"]))
    });
    let result = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Seal(args) => seal::run(&args),
        Command::Plan(command) => plan::run(&command),
        Command::Serve(args) => serve::run(&args),
        Command::Guest(command) => guests::commands::run(&command),
        Command::Deal(args) => guests::deal::deal(&args),
        Command::Tickets(args) => guests::commands::tickets(&args),
        Command::Judge(args) => guests::commands::judge(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Infer(args) => infer::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Completions { shell } => manual::completions(shell, Cli::command()),
        Command::Man { out } => manual::pages(out.as_deref(), Cli::command()),
    };
    result.err().map_or(0, |error| tell(&error))
}

/// Says what went wrong, and returns the exit code.
fn tell(error: &anyhow::Error) -> u8 {
    if let Some(Exit(code)) = error.downcast_ref() {
        return *code;
    }
    let closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(closed) {
        // Whoever read our output has seen enough.
        return 0;
    }
    let _ = text::note(format!("error: {error:#}"));
    let ran_out = |e: &JaliError| e.is_out_of_memory() && !matches!(e, JaliError::Memory { .. });
    if error.downcast_ref::<JaliError>().is_some_and(ran_out) {
        let _ = text::note(
            "what helps: a larger machine or limit, server and client apart (jali seal, serve, infer --client), open weights, a smaller network or image",
        );
    }
    error.downcast_ref::<JaliError>().map_or(1, exit_code)
}
