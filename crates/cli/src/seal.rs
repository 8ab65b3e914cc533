//! `jali seal`: a network to bundles.

mod guests;

use std::path::PathBuf;

use anyhow::Context;
use jali::bundle::{self, SealedFiles, Written};
use jali::{Network, Sealing};
use jali_bundle::hex;
use serde::Serialize;

use super::options::GuestOutput;
use super::pixels::{Pixels, calibrate_file, calibration_images, read_model_aloud};
use super::text::{bytes, progress, say, say_json};
use super::{Common, Leak, NetworkName, Over};

/// Seal a network: one bundle for the server, who may see it, and one for the client, who must keep
/// it secret.
///
/// Every call draws new secrets, so a model that was sealed before can be sealed again after any
/// change; the old bundles go on working together.
#[derive(clap::Parser)]
#[command(
    after_help = "Examples:\n  jali seal --network vgg3 --out sealed\n  jali seal net.onnx --calibrate samples/ --leak 0.5 --out sealed\n  jali seal net.onnx --calibrate samples/ --passphrase-file secret.txt --out sealed\n  jali seal net.onnx --for guests --calibrate samples/ --out sealed\n\nWrites DIR/server (for the server; nothing in it is secret) and DIR/client (for the client; mode 0600)."
)]
pub(super) struct SealArgs {
    /// The network as an ONNX file
    #[arg(value_name = "MODEL.onnx", required_unless_present_any = ["network", "model_file"], requires = "calibrate")]
    model: Option<PathBuf>,
    /// The network as an ONNX file, as an option
    #[arg(
        long = "model",
        id = "model_file",
        value_name = "FILE.onnx",
        conflicts_with = "model",
        requires = "calibrate"
    )]
    model_file: Option<PathBuf>,
    /// A bundled network instead, calibrated on bundled images
    #[arg(long, value_enum, conflicts_with_all = ["model", "model_file", "calibrate"])]
    network: Option<NetworkName>,
    /// Who will infer: your own devices, which hold the keys, or guests, who must not have the
    /// model
    #[arg(long = "for", value_enum, default_value = "client")]
    whom: Whom,
    /// What guests learn of an output
    #[arg(long, value_enum, default_value = "logits")]
    output: GuestOutput,
    /// Folder with typical images (or one image) to calibrate the quantisation on
    #[arg(long, value_name = "DIR|FILE")]
    calibrate: Option<PathBuf>,
    /// Folder for the bundles
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Lock the client's bundle, or the owner's file, with the passphrase in the first line of this
    /// file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pixels: Pixels,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Whom {
    /// Devices of the owner, which hold keys
    Client,
    /// People who may use the model and must not have it
    Guests,
}

#[derive(Serialize)]
struct Report {
    model: String,
    model_id: String,
    weights: usize,
    weights_hidden: f64,
    locked: bool,
    server: File,
    client: File,
}

#[derive(Serialize)]
struct File {
    path: String,
    bytes: u64,
    content_hash: String,
}

impl From<&Written> for File {
    fn from(w: &Written) -> Self {
        Self { path: w.path.display().to_string(), bytes: w.bytes, content_hash: hex(&w.content_hash) }
    }
}

pub(super) fn run(args: &SealArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    if args.whom == Whom::Guests {
        return guests::run(args);
    }
    anyhow::ensure!(
        args.output == GuestOutput::Logits,
        "--output top1 is for guests (--for guests): a client computes outputs itself"
    );
    let passphrase = args.passphrase_file.as_deref().map(bundle::read_passphrase).transpose()?;
    let (name, model) = match (args.model.as_ref().or(args.model_file.as_ref()), args.network) {
        (Some(path), _) => {
            let graph = read_model_aloud(path)?;
            let folder = args.calibrate.as_deref().context("--calibrate is missing")?;
            let preprocess = args.pixels.of_model(path, graph.input_shape())?;
            let images = calibration_images(folder, graph.input_shape(), &preprocess)?;
            let model = calibrate_file(path, graph, args.common.bits, &images, &preprocess)?;
            (path.display().to_string(), model)
        }
        (None, Some(network)) => {
            let network = Network::from(network);
            (network.name().to_owned(), network.quantised(args.common.bits)?)
        }
        (None, None) => anyhow::bail!("name a model file, or --network"),
    };
    let costs = args.over.costs(backend);
    let plan = args.leak.plan(&model, &costs)?;
    let bar = progress(model.graph().linear_nodes().count() + 1, "sealing");
    let sealing = Sealing::of(&model).plan(&plan).origin(args.leak.origin(&model)?).costs(costs);
    let sealing = sealing.passphrase(passphrase.as_ref()).progress(|done| bar.set_position(done as u64));
    let SealedFiles { server, client, id, report: sealed } = sealing.save(&args.out)?;
    bar.finish_and_clear();
    let report = Report {
        model: name,
        model_id: hex(&id),
        weights: sealed.iter().map(|l| l.weights).sum(),
        weights_hidden: super::local::hidden_fraction(&sealed),
        locked: passphrase.is_some(),
        server: (&server).into(),
        client: (&client).into(),
    };
    if args.common.json {
        return say_json(&report);
    }
    say(format!(
        "sealed    {} ({} weights, {:.1} % hidden) as model {}",
        report.model,
        report.weights,
        100.0 * report.weights_hidden,
        report.model_id
    ))?;
    let lock = if report.locked { ", locked with the passphrase" } else { "" };
    say(format!("server    {} ({}): give it to the server", report.server.path, bytes(report.server.bytes as usize)))?;
    say(format!(
        "client    {} ({}{lock}): keep it secret, whoever has it can recover the model",
        report.client.path,
        bytes(report.client.bytes as usize)
    ))?;
    say(format!("          content hash {} (for --content-hash)", report.client.content_hash))?;
    Ok(())
}
