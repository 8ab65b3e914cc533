//! `jali infer`: images with a server somewhere else, or with a model file in this process.

mod classes;
mod inputs;
mod opened;
mod progress;
mod report;

use std::path::PathBuf;

use clap::Args;
use jali::{Backend, Dataset, JaliError};

use self::classes::{Classes, describe_output};
use self::opened::Opened;
use self::progress::Progress;
use self::report::{Report, csv, print, summarise};
use super::pixels::Pixels;
use super::text::{Spread, progress, say, say_json};
use super::{Common, Leak, Over, PinArgs, conclude};

/// Classify images: with a client's bundle or a guest's wallet and a server somewhere else, or with
/// an ONNX model in this process.
///
/// Images are PNG, JPEG or .npy (or folders of them) and must have the model's size, unless
/// --resize says otherwise. Pixels are divided by 255 unless told otherwise; floating-point arrays
/// are taken as they are. An image that cannot be used is reported and the others are still
/// classified.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali infer --client sealed/client --server http://127.0.0.1:8433 --samples cifar10 --images 100\n  jali infer --client sealed/client --server https://host:8433 --ca-cert ca.pem --token-file token.txt --batch 16 photos/\n  jali infer --guest batch/wallet --key me.key --server https://host:8433 photo.png\n  jali infer --model crates/jali/bundled/vgg3.onnx --labels cifar10 assets/images/cifar10/*.png\n  jali infer --model net.onnx --calibrate samples/ --json photo.npy\n\nWith --server every answer is checked before it is used; a wrong one ends the run with exit code 4. With --model both sides\nrun here, and every layer is compared with a plaintext run."
)]
#[command(group(clap::ArgGroup::new("with").required(true).args(["model", "client", "guest"])))]
#[command(group(clap::ArgGroup::new("what").required(true).args(["images", "samples"])))]
pub(super) struct InferArgs {
    /// Model file: client and server run in this process
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// Client's bundle, or a folder that holds one named "client"
    #[arg(long, value_name = "BUNDLE", requires = "server", conflicts_with_all = ["calibrate", "leak", "seed", "plan", "bits", "link"])]
    client: Option<PathBuf>,
    /// Wallet of a guest, who does not have the model: each image uses up a ticket of it
    #[arg(long, value_name = "WALLET", requires = "server", requires = "key", conflicts_with_all = ["calibrate", "leak", "seed", "plan", "bits", "link", "token_file", "passphrase_file"])]
    guest: Option<PathBuf>,
    /// The guest's key, as `jali guest key` writes it
    #[arg(long, value_name = "FILE", requires = "guest")]
    key: Option<PathBuf>,
    /// The owner's key, as `jali seal --for guests` prints it: tickets of others are refused
    #[arg(long, value_name = "HEX", requires = "guest", value_parser = super::options::parse_hex::<32>)]
    owner: Option<[u8; 32]>,
    /// Keep the first image's transcript here, signed by the server, for the owner to judge
    #[arg(long, value_name = "FILE", requires = "guest")]
    transcript: Option<PathBuf>,
    /// Where the server is: https://host:port, or http:// on this machine
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Certificate authorities to trust instead of the public ones, PEM
    #[arg(long, value_name = "FILE", requires = "server")]
    ca_cert: Option<PathBuf>,
    /// Bearer token: first line of this file
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// Passphrase of a locked client's bundle: first line of this file
    #[arg(long, value_name = "FILE", requires = "client")]
    passphrase_file: Option<PathBuf>,
    /// Allow plain HTTP to another machine (never with a token)
    #[arg(long, requires = "server")]
    insecure: bool,
    /// Longest time for one batch, tries and pauses included, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    deadline: u32,
    /// Read this output as classes: its name, or its number from 0 on [default: the one that looks
    /// like classes]
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Names of the classes: a file with one per line, or cifar10 or mnist
    #[arg(long, value_name = "FILE|cifar10|mnist")]
    labels: Option<String>,
    /// Folder with typical images (or one image) to calibrate the quantisation on
    #[arg(long, value_name = "DIR|FILE", requires = "model")]
    calibrate: Option<PathBuf>,
    /// Images, or folders of images; what is no image in a folder is left out
    #[arg(value_name = "IMAGE|DIR")]
    images: Vec<PathBuf>,
    /// Look into the folders of folders, too
    #[arg(long)]
    recursive: bool,
    /// Bundled test images instead
    #[arg(long, value_enum)]
    samples: Option<SamplesName>,
    /// How many of the bundled images
    #[arg(long = "images", id = "count", value_name = "N", default_value_t = 16, requires = "samples", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Images of one request
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Print one line per image as comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Keep every output of every image here, as .npy files of floats
    #[arg(long, value_name = "DIR")]
    outputs: Option<PathBuf>,
    #[command(flatten)]
    pin: PinArgs,
    #[command(flatten)]
    pixels: Pixels,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SamplesName {
    /// Photographs of ten kinds of things
    Cifar10,
    /// Handwritten digits
    Mnist,
}

impl From<SamplesName> for Dataset {
    fn from(name: SamplesName) -> Self {
        match name {
            SamplesName::Cifar10 => Self::Cifar10,
            SamplesName::Mnist => Self::Mnist,
        }
    }
}

/// Images whose outcome is shown as soon as it is there, and what is kept for the end.
fn classify(args: &InferArgs, opened: &mut Opened, classes: &Classes) -> anyhow::Result<Progress> {
    let bar = progress(opened.inputs.images.len(), "classifying");
    let mut progress = Progress::default();
    for batch in opened.inputs.images.chunks(args.batch.into()) {
        for outcome in progress.batch(args, batch, opened.with.as_mut(), classes)? {
            // A server that lies or is gone will not do better with the next image: each says so,
            // people are told once.
            let shown = match (args.common.json, args.csv) {
                (true, _) => Ok(()),
                (_, true) => bar.suspend(|| say(csv(&outcome))),
                _ if outcome.tried == Some(false) => Ok(()),
                _ => bar.suspend(|| print(&outcome)),
            };
            if let Err(e) = shown {
                conclude(Err(e.into()), progress.failure)?;
            }
            progress.images.push(outcome);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(progress)
}

fn open(args: &InferArgs, backend: Backend) -> anyhow::Result<Opened> {
    match (&args.model, args.client.as_ref().or(args.guest.as_ref()), &args.server) {
        (None, Some(wallet), Some(url)) if args.guest.is_some() => Opened::guest(args, wallet, url),
        (None, Some(path), Some(url)) => Opened::remote(args, path, url),
        (Some(path), ..) => Opened::in_process(args, path, backend),
        _ => anyhow::bail!("name a model file, or a client's bundle and a server"),
    }
}

pub(super) fn run(args: &InferArgs) -> anyhow::Result<()> {
    let mut opened = open(args, args.common.start()?)?;
    let graph = opened.with.as_ref().map(|with| with.graph().clone());
    let classes = Classes::of(args, graph.as_ref())?;
    if let Some(folder) = &args.outputs {
        private_folder(folder)?;
    }
    if args.csv {
        say("file,class,label,probability,latency_ms,error")?;
    }
    let Progress { images, failure, times, .. } = classify(args, &mut opened, &classes)?;
    let several = graph.filter(|graph| graph.outputs().len() > 1);
    let known = opened.inputs.images.iter().any(|i| i.class.is_some());
    let report = Report {
        model: opened.name,
        transport: match (&args.client, &args.guest) {
            (Some(_), _) => "http",
            (_, Some(_)) => "websocket",
            _ => "in-process",
        },
        calibration: opened.calibration,
        weights_hidden: opened.weights_hidden,
        correct: known.then(|| images.iter().filter(|o| o.correct == Some(true)).count()),
        latency_ms: (!times.is_empty()).then(|| Spread::of(&times)),
        retries: opened.with.filter(|_| args.model.is_none()).map(|with| with.retries()),
        output: several.and_then(|graph| Some(describe_output(&graph, classes.read?.0))),
        skipped: opened.inputs.skipped,
        images,
    };
    let printed = match (args.common.json, args.csv) {
        (true, _) => say_json(&report),
        (_, true) => Ok(()),
        _ => summarise(&report).map_err(Into::into),
    };
    conclude(printed, failure)
}

/// Makes a folder that its owner alone can look into; one that is there stays as it is.
fn private_folder(folder: &std::path::Path) -> Result<(), JaliError> {
    let fail = |e: std::io::Error| JaliError::Write { path: folder.into(), why: e.to_string() };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(fail)
}
