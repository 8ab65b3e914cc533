//! `jali infer`: image files with a model file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use jali::image_file::{read_bounded, read_image};
use jali::network::read_model;
use jali::{Dataset, JaliError, QuantModel, Tensor};
use serde::Serialize;

use super::text::{ms, note, progress, say, say_json};
use super::{Common, DIFFERENT, Leak, Over, conclude, exit_code, start_session};

/// Classify image files with an ONNX model; client and server run in this process.
///
/// Images are PNG, JPEG or .npy and must have the model's size. Pixels are divided by 255; floating-point arrays are taken
/// as they are. An image that cannot be used is reported and the others are still classified.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali infer --model assets/vgg3.onnx --labels cifar10 assets/images/cifar10/*.png\n  jali infer --model net.onnx --calibrate samples/ --json photo.npy"
)]
pub(super) struct InferArgs {
    /// Model file
    #[arg(long, value_name = "FILE.onnx")]
    model: PathBuf,
    /// Names of the classes: a file with one per line, or cifar10 or mnist
    #[arg(long, value_name = "FILE|cifar10|mnist")]
    labels: Option<String>,
    /// Folder with typical images to calibrate the quantisation on
    #[arg(long, value_name = "DIR")]
    calibrate: Option<PathBuf>,
    /// Images to classify
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    common: Common,
}

/// Most images of a calibration folder that are used.
const MAX_CALIBRATION: usize = 200;
/// Classes shown per image.
const TOP: usize = 5;

#[derive(Serialize)]
struct Report {
    model: String,
    calibration: String,
    weights_hidden: f64,
    images: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Guess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

#[derive(Serialize)]
struct Guess {
    class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    probability: f32,
}

pub(super) fn run(args: &InferArgs) -> anyhow::Result<()> {
    let kernel = args.common.start()?;
    let graph = read_model(&args.model)?;
    let shape = graph.input_shape().to_vec();
    let labels = args.labels.as_deref().map(read_labels).transpose()?;
    let classes: usize = graph.shape(graph.output()).iter().product();
    if let Some(labels) = labels.as_ref().filter(|l| l.len() != classes) {
        anyhow::bail!("--labels gives {} names, the model has {classes} classes", labels.len());
    }
    let inputs: Vec<Result<Tensor, JaliError>> = args.images.iter().map(|p| read_image(p, &shape)).collect();
    let good: Vec<&Tensor> = inputs.iter().flatten().collect();

    let mut session = if good.is_empty() {
        None
    } else {
        let (calibration, source) = match &args.calibrate {
            Some(folder) => (calibration_images(folder, &shape)?, format!("the images of {}", folder.display())),
            None => (good.into_iter().cloned().collect(), "the given images themselves".to_string()),
        };
        if args.calibrate.is_none() {
            note(
                "note: no --calibrate folder, so the given images set the quantisation scales; name a folder of typical images for results that do not depend on what is classified",
            )?;
        }
        let model = QuantModel::calibrate(graph, args.common.bits, &calibration, None)?;
        let costs = args.over.costs(kernel);
        let plan = args.leak.plan(&model, &costs)?;
        Some((start_session(model, &plan, &costs, kernel)?, source))
    };

    let bar = progress(inputs.len(), "classifying");
    let (mut images, mut failure) = (vec![], None);
    for (path, input) in args.images.iter().zip(inputs) {
        let result = input.and_then(|image| match &mut session {
            Some((session, _)) => {
                let run = session.infer(image.clone())?;
                let exact = run.is_exact(session.model(), image)?;
                Ok(classified(path, &run.output, labels.as_deref(), ms(run.latency), exact))
            }
            None => unreachable_input(path),
        });
        let outcome = result.unwrap_or_else(|e| {
            let code = exit_code(&e);
            failure = graver(failure, code);
            failed(path, &e, code)
        });
        if outcome.exact == Some(false) {
            failure = graver(failure, DIFFERENT);
        }
        if !args.common.json
            && let Err(e) = bar.suspend(|| print(&outcome))
        {
            return conclude(Err(e.into()), failure);
        }
        images.push(outcome);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.common.json {
        let (sealed, all, calibration) = session.as_ref().map_or((0, 0, String::new()), |(s, source)| {
            let sum = |f: &dyn Fn(&jali_protocol::LayerReport) -> usize| s.report().iter().map(f).sum::<usize>();
            (sum(&|l| l.weights_sealed), sum(&|l| l.weights), source.clone())
        });
        let weights_hidden = if all == 0 { 1.0 } else { sealed as f64 / all as f64 };
        let model = args.model.display().to_string();
        let report = Report { model, calibration, weights_hidden, images };
        let printed = say_json(&report);
        return conclude(printed, failure);
    }
    conclude(Ok(()), failure)
}

/// Of two failures the one to exit with: wrong or rejected results before anything else, then the first.
fn graver(first: Option<u8>, new: u8) -> Option<u8> {
    const RESULTS: [u8; 2] = [4, DIFFERENT];
    match first {
        Some(code) if RESULTS.contains(&code) || !RESULTS.contains(&new) => Some(code),
        _ => Some(new),
    }
}

/// A readable image always has a session; kept as an error so that no panic is reachable.
fn unreachable_input(path: &Path) -> Result<Outcome, JaliError> {
    Err(JaliError::Read { path: path.into(), why: "nothing was sealed".into() })
}

fn classified(path: &Path, output: &Tensor, labels: Option<&[String]>, latency: f64, exact: bool) -> Outcome {
    let probabilities = output.softmax();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let guess =
        |&class: &usize| Guess { class, label: labels.map(|l| l[class].clone()), probability: probabilities[class] };
    Outcome {
        file: path.display().to_string(),
        latency_ms: Some(latency),
        exact: Some(exact),
        top: order.iter().take(TOP).map(guess).collect(),
        error: None,
        exit_code: None,
    }
}

fn failed(path: &Path, error: &JaliError, code: u8) -> Outcome {
    Outcome {
        file: path.display().to_string(),
        latency_ms: None,
        exact: None,
        top: vec![],
        error: Some(error.to_string()),
        exit_code: Some(code),
    }
}

fn print(outcome: &Outcome) -> std::io::Result<()> {
    if let Some(error) = &outcome.error {
        return note(format!("error: {error}"));
    }
    let exact = if outcome.exact == Some(true) { "equals plaintext exactly" } else { "DIFFERS FROM PLAINTEXT" };
    say(format!("{}  ({:.1} ms, {exact})", outcome.file, outcome.latency_ms.unwrap_or_default()))?;
    for g in &outcome.top {
        let name = g.label.clone().unwrap_or_else(|| format!("class {}", g.class));
        say(format!("  {:5.1} %  {name}", 100.0 * g.probability))?;
    }
    Ok(())
}

fn read_labels(source: &str) -> anyhow::Result<Vec<String>> {
    let own = |d: Dataset| d.classes().iter().map(ToString::to_string).collect();
    match source {
        "cifar10" => return Ok(own(Dataset::Cifar10)),
        "mnist" => return Ok(own(Dataset::Mnist)),
        _ => {}
    }
    let bytes = read_bounded(Path::new(source), 1 << 20)?;
    let text = String::from_utf8(bytes).with_context(|| format!("{source}: labels must be UTF-8 text"))?;
    Ok(text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect())
}

/// Images to calibrate on: those of a folder, or one.
pub(super) fn calibration_images(path: &Path, shape: &[usize]) -> anyhow::Result<Vec<Tensor>> {
    if path.is_dir() { read_folder(path, shape) } else { Ok(vec![read_image(path, shape)?]) }
}

fn read_folder(folder: &Path, shape: &[usize]) -> anyhow::Result<Vec<Tensor>> {
    let read = |e: std::io::Error| JaliError::Read { path: folder.into(), why: e.to_string() };
    let mut paths: Vec<PathBuf> = vec![];
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut images, mut skipped) = (vec![], 0);
    for path in paths.iter().take(MAX_CALIBRATION) {
        match read_image(path, shape) {
            Ok(image) => images.push(image),
            Err(e) => {
                skipped += 1;
                note(format!("note: not used for calibration: {e}"))?;
            }
        }
    }
    if images.is_empty() {
        anyhow::bail!("--calibrate {}: no usable image among {skipped} file(s)", folder.display());
    }
    Ok(images)
}
