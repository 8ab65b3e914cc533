//! `jali seal --for guests`: a network to the owner's file and the server's.

use anyhow::Context;
use jali::bundle::read_passphrase;
use jali::guests::{GuestSealing, SavedForGuests};
use jali::{Graph, Network, Preprocess, Tensor};
use jali_bundle::hex;
use jali_guest::Hidden;
use serde::Serialize;

use super::SealArgs;
use crate::pixels::{all_of, calibration_images, read_model_aloud};
use crate::text::{bytes, say, say_json};

#[derive(Serialize)]
struct Report {
    model: String,
    model_id: String,
    weights: usize,
    weights_hidden: f64,
    owner_key: String,
    output_bits: usize,
    ticket_bytes: usize,
    exchanges: usize,
    server: String,
    server_bytes: u64,
    owner: String,
    locked: bool,
}

/// What is sealed.
struct Subject {
    name: String,
    graph: Graph,
    images: Vec<Tensor>,
    preprocess: Preprocess,
}

fn subject(args: &SealArgs) -> anyhow::Result<Subject> {
    if let Some(network) = args.network {
        let network = Network::from(network);
        let images = network.dataset().bundled_calibration()?;
        let (name, graph) = (network.name().to_owned(), network.graph()?);
        return Ok(Subject { name, graph, images, preprocess: Preprocess::default() });
    }
    let path = args.model.as_ref().or(args.model_file.as_ref()).context("name a model file, or --network")?;
    let graph = read_model_aloud(path)?;
    let folder = args.calibrate.as_deref().context("--calibrate is missing")?;
    let preprocess = args.pixels.of_model(path, graph.input_shape())?;
    let images = calibration_images(folder, graph.input_shape(), &preprocess)?;
    let images = all_of(&images, graph.input_shape(), &preprocess)?;
    // Guests see the name of the file, not where it lies.
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Subject { name, graph, images, preprocess })
}

pub(super) fn run(args: &SealArgs) -> anyhow::Result<()> {
    let Subject { name, graph, images, preprocess } = subject(args)?;
    let range = Some(preprocess.input_range(graph.input_shape()));
    let plan = args.leak.plan_for_guests(&graph)?;
    let passphrase = args.passphrase_file.as_deref().map(read_passphrase).transpose()?;
    let sealing = GuestSealing::of(&graph, &images, range, args.output.config())?
        .over(args.over.link)
        .passphrase(passphrase.as_ref());
    let output_bits = sealing.network().output_bits();
    let SavedForGuests { files: written, weights, counts } = sealing.save(&plan, &name, &preprocess, &args.out)?;
    let all: Hidden = weights.into_iter().sum();
    let report = Report {
        model: name,
        model_id: hex(&written.id),
        weights: all.of,
        weights_hidden: all.fraction(),
        owner_key: hex(&written.owner_key),
        output_bits,
        ticket_bytes: counts.ticket_bytes,
        exchanges: counts.exchanges,
        server: written.server.display().to_string(),
        server_bytes: written.server_bytes,
        owner: written.owner.display().to_string(),
        locked: passphrase.is_some(),
    };
    if args.common.json {
        return say_json(&report);
    }
    say(format!(
        "sealed    {} ({} weights, {:.1} % hidden) for guests as model {}",
        report.model,
        report.weights,
        100.0 * report.weights_hidden,
        report.model_id
    ))?;
    say(format!(
        "server    {} ({}): give it to one server, who must not collude with any guest",
        report.server,
        bytes(report.server_bytes as usize)
    ))?;
    let lock = if report.locked { ", locked with the passphrase" } else { "" };
    say(format!("owner     {}{lock}: keep it secret; tickets are dealt from it (jali deal)", report.owner))?;
    say(format!(
        "tickets   {} each, {} exchanges, {output_bits} bits of output",
        bytes(counts.ticket_bytes),
        counts.exchanges
    ))?;
    say(format!("key       {} (guests: jali infer --owner)", report.owner_key))?;
    Ok(())
}
