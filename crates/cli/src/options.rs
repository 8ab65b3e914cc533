//! Options that several subcommands share.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jali::bundle::Pin;
use jali::model_file::read_plan;
use jali::parts::model::Linear;
use jali::parts::model::fixed::{FixedConfig, Outputs};
use jali::parts::protocol::{Blueprint, ProtocolError};
use jali::{Backend, Costs, Graph, JaliError, Link, Network, Origin, Plan, QuantConfig, QuantModel, calibration};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum NetworkName {
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
pub(crate) struct Common {
    /// Bits of weights and activations: weights 2 to 8, activations 2 to 12
    #[arg(long, value_name = "W,A", default_value = "8,8", value_parser = parse_bits)]
    pub(crate) bits: QuantConfig,
    /// Threads to use; these may move between cores [default: one bound to each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    /// Starts the thread pool and chooses the backend.
    pub(crate) fn start(&self) -> anyhow::Result<Backend> {
        start_threads(self.threads)
    }
}

pub(crate) fn parse_bits(text: &str) -> Result<QuantConfig, String> {
    let form = || format!("\"{text}\" is not of the form W,A, for example 8,8");
    let (w, a) = text.split_once(',').ok_or_else(form)?;
    let (w, a) = (w.trim().parse().map_err(|_| form())?, a.trim().parse().map_err(|_| form())?);
    QuantConfig::new(w, a).map_err(|e| e.to_string())
}

/// Over what the two sides talk: decides which rings and layouts are chosen.
#[derive(Args)]
#[command(next_help_heading = "Between client and server")]
pub(crate) struct Over {
    /// Choose rings and layouts, and for guests between exchanges and ticket bytes, for this link:
    /// loopback, lan (0.3 ms, 1 Gbit/s), wan (40 ms, 100 Mbit/s) or RTT,MBPS
    #[arg(long, value_name = "LINK", default_value = "loopback")]
    pub(crate) link: Link,
}

impl Over {
    /// Costs of this machine, if `jali explain` or `jali bench` has measured them, else the
    /// built-in ones, over this link.
    pub(crate) fn costs(&self, backend: Backend) -> Costs {
        calibration::kept_or_default(backend).over(self.link)
    }
}

/// Which weights stay hidden.
#[derive(Args)]
#[command(next_help_heading = "What stays hidden")]
pub(crate) struct Leak {
    /// Fraction of the weights to leave open, by random rows; 0 hides everything
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    pub(crate) leak: f64,
    /// Which random rows are open
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// What may be open, as `jali plan` writes it; nothing else is opened
    #[arg(long, value_name = "FILE", conflicts_with_all = ["leak", "seed"])]
    pub(crate) plan: Option<PathBuf>,
}

impl Leak {
    /// Where the plan comes from, if it comes from a file.
    pub(crate) fn origin(&self, model: &QuantModel) -> Result<Option<Origin>, JaliError> {
        self.plan.as_ref().map(|path| Ok(read_plan(path, model.graph())?.origin)).transpose()
    }

    pub(crate) fn plan(&self, model: &QuantModel, costs: &Costs) -> Result<Plan, JaliError> {
        if let Some(path) = &self.plan {
            return Ok(read_plan(path, model.graph())?.plan);
        }
        let rows = if self.leak > 0.0 && self.leak < 1.0 { Blueprint::rows_of_all(model, costs)? } else { vec![] };
        Ok(jali::parts::leak::random_rows(model.graph(), &rows, self.leak, self.seed).map_err(ProtocolError::from)?)
    }

    /// For guests, whose rows are filters.
    pub(crate) fn plan_for_guests(&self, graph: &Graph) -> Result<Plan, JaliError> {
        if let Some(path) = &self.plan {
            return Ok(read_plan(path, graph)?.plan);
        }
        let filters = |(_, linear): (usize, Linear<'_>)| {
            let fan_in = linear.fan_in();
            (0..linear.outputs()).map(|o| o * fan_in..(o + 1) * fan_in).collect()
        };
        let rows: Vec<Vec<_>> = graph.linear_nodes().map(filters).collect();
        Ok(jali::parts::leak::random_rows(graph, &rows, self.leak, self.seed).map_err(ProtocolError::from)?)
    }
}

/// What a guest learns of an output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestOutput {
    /// All numbers of it
    Logits,
    /// The class with the largest number and nothing else: fewer bits a ticket
    Top1,
}

impl GuestOutput {
    pub(crate) fn config(self) -> FixedConfig {
        let outputs = match self {
            Self::Logits => Outputs::All,
            Self::Top1 => Outputs::Largest,
        };
        FixedConfig { outputs, ..FixedConfig::default() }
    }
}

/// Which bundle it must be.
#[derive(Args)]
#[command(next_help_heading = "Which bundle it must be")]
pub(crate) struct PinArgs {
    /// Id of the sealed model, as `jali seal` prints it: another bundle is refused
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<16>)]
    pub(crate) model_id: Option<[u8; 16]>,
    /// Content hash of the client's bundle, as `jali seal` and `jali inspect` print it: another
    /// bundle is refused
    #[arg(long, value_name = "HEX", value_parser = parse_hex::<32>)]
    pub(crate) content_hash: Option<[u8; 32]>,
}

impl PinArgs {
    pub(crate) fn pin(&self) -> Pin {
        Pin { model_id: self.model_id, content_hash: self.content_hash }
    }
}

pub(crate) fn parse_hex<const BYTES: usize>(text: &str) -> Result<[u8; BYTES], String> {
    let none = || format!("{} hexadecimal digits are needed", 2 * BYTES);
    jali_bundle::unhex(text.trim().as_bytes()).ok_or_else(none)
}

/// A pool that fills the machine, each thread on a core of its own. Left to themselves, a virtual
/// machine's threads that wake up are put together on one core as long as the other one, halted,
/// looks taken: an inference after a pause took half as long again.
pub(crate) fn one_for_each_core() -> rayon::ThreadPoolBuilder {
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

/// Starts the thread pool and chooses the backend.
pub(crate) fn start_threads(threads: Option<u16>) -> anyhow::Result<Backend> {
    let pool = match threads {
        Some(threads) => rayon::ThreadPoolBuilder::new().num_threads(threads.into()),
        None => one_for_each_core(),
    };
    pool.build_global().context("cannot start the threads")?;
    let named = |variable| std::env::var(variable).ok().filter(|n: &String| !n.is_empty()).map(|name| (variable, name));
    // The second is what it was called before.
    match named("JALI_BACKEND").or_else(|| named("JALI_KERNEL")) {
        Some((variable, name)) => Backend::choose(Some(&name)).context(variable),
        None => Ok(Backend::fastest()),
    }
}
