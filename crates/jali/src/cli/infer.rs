//! `jali infer`: images with a server somewhere else, or with a model file in this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jali::bundle;
use jali::image_file::{npy_bytes, read_bounded, read_image};
use jali::remote::hints_file;
use jali::{Dataset, JaliError, Reading, Remote, Sample, Session, Tensor};
use jali_model::{Graph, Preprocess};
use jali_net::auth::read_token;
use jali_net::{Client, ClientConfig};
use serde::Serialize;

use super::pixels::{Pixels, calibrate_file, calibration_images, files_of, read_model_aloud, warn_of_range};
use super::text::{Spread, ms, note, progress, say, say_json};
use super::{Common, DIFFERENT, Leak, Over, conclude, exit_code, start_session};

/// Classify images: with a client's bundle and a server somewhere else, or with an ONNX model in this process.
///
/// Images are PNG, JPEG or .npy (or folders of them) and must have the model's size, unless --resize says otherwise. Pixels are divided by
/// 255 unless told otherwise; floating-point arrays are taken as they are. An image that cannot be used is reported and the others are still classified.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali infer --client sealed/client --server http://127.0.0.1:8433 --samples cifar10 --images 100\n  jali infer --client sealed/client --server https://host:8433 --ca-cert ca.pem --token-file token.txt --batch 16 photos/\n  jali infer --model assets/vgg3.onnx --labels cifar10 assets/images/cifar10/*.png\n  jali infer --model net.onnx --calibrate samples/ --json photo.npy\n\nWith --server every answer is checked before it is used; a wrong one ends the run with exit code 4. With --model both sides\nrun here, and every layer is compared with a plaintext run."
)]
#[command(group(clap::ArgGroup::new("with").required(true).args(["model", "client"])))]
#[command(group(clap::ArgGroup::new("what").required(true).args(["images", "samples"])))]
pub(super) struct InferArgs {
    /// Model file: client and server run in this process
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// Client's bundle, or a folder that holds one named "client"
    #[arg(long, value_name = "BUNDLE", requires = "server", conflicts_with_all = ["calibrate", "leak", "seed", "plan", "bits", "link", "hint_memory"])]
    client: Option<PathBuf>,
    /// Where the server is: https://host:port, or http:// on this machine
    #[arg(long, value_name = "URL", requires = "client")]
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
    /// Longest time for one batch, tries and pauses included, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    deadline: u32,
    /// Names of the classes: a file with one per line, or cifar10 or mnist
    #[arg(long, value_name = "FILE|cifar10|mnist")]
    labels: Option<String>,
    /// Folder with typical images (or one image) to calibrate the quantisation on
    #[arg(long, value_name = "DIR|FILE", requires = "model")]
    calibrate: Option<PathBuf>,
    /// Images, or folders of images
    #[arg(value_name = "IMAGE|DIR")]
    images: Vec<PathBuf>,
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

/// Classes shown per image.
const TOP: usize = 5;

#[derive(Serialize)]
struct Report {
    /// Model file or client's bundle.
    model: String,
    /// `in-process` or `http`.
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights_hidden: Option<f64>,
    /// Images whose class is known and was found, of so many whose class is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Spread>,
    /// Requests that had to be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<usize>,
    images: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    file: String,
    /// Time of its batch, divided by the images in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// Every layer equals a plaintext run; absent where this process has no model to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<bool>,
    /// Every answer passed the ciphertext check.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correct: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Guess>,
    /// Files that hold its outputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<String>,
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
    /// Absent where the network gives the class alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
}

/// An image to classify.
struct Input {
    name: String,
    image: Result<Tensor, JaliError>,
    /// Its class, if it is known.
    class: Option<usize>,
}

/// Who computes.
enum With {
    /// Both sides in this process.
    Session(Box<Session>),
    /// A server somewhere else.
    Remote(Box<Remote>),
}

/// Outputs of a batch, their time, and whether each equals the reference where there is one.
type Classified = (Vec<Vec<Tensor>>, Duration, Vec<Option<bool>>);

impl With {
    fn graph(&self) -> &Graph {
        match self {
            Self::Session(s) => s.model().graph(),
            Self::Remote(r) => r.outline().graph(),
        }
    }

    fn run(&mut self, images: &[Tensor]) -> Result<Classified, JaliError> {
        let (run, exact) = match self {
            Self::Session(session) => {
                let run = session.infer_batch(images.to_vec())?;
                let exact = run.are_exact(session.model(), images)?.into_iter().map(Some).collect();
                (run, exact)
            }
            Self::Remote(remote) => (remote.infer_batch(images.to_vec())?, vec![None; images.len()]),
        };
        let all = |(first, more): (Tensor, Vec<Tensor>)| [vec![first], more].concat();
        Ok((run.outputs.into_iter().zip(run.more_outputs).map(all).collect(), run.latency, exact))
    }
}

/// The images to classify. Only their number is needed before a server is asked.
fn inputs(args: &InferArgs, shape: &[usize], preprocess: &Preprocess) -> anyhow::Result<Vec<Input>> {
    if let Some(samples) = args.samples {
        let dataset = Dataset::from(samples);
        if preprocess.image_size(shape) != Some(dataset.shape()) {
            anyhow::bail!(
                "--samples {}: the images have the shape {:?}, the model needs {shape:?}",
                dataset.name(),
                dataset.shape()
            );
        }
        let records = dataset.bundled_records();
        let input = |i: usize| -> anyhow::Result<Input> {
            let Sample { image, label } = records.get_as(i, shape, preprocess)?;
            Ok(Input { name: format!("{} {i}", dataset.name()), image: Ok(image), class: Some(label) })
        };
        return (0..usize::from(args.count).min(records.len())).map(input).collect();
    }
    let mut paths = vec![];
    for path in &args.images {
        if path.is_dir() { paths.extend(files_of(path)?) } else { paths.push(path.clone()) }
    }
    if paths.is_empty() {
        anyhow::bail!("the folders hold no file");
    }
    let input = |path: PathBuf| Input {
        name: path.display().to_string(),
        image: read_image(&path, shape, preprocess),
        class: None,
    };
    let inputs: Vec<Input> = paths.into_iter().map(input).collect();
    for input in &inputs {
        if let Ok(image) = &input.image {
            warn_of_range(&input.name, std::slice::from_ref(image), preprocess)?;
        }
    }
    Ok(inputs)
}

/// The server in another process, hints checked.
fn connect(args: &InferArgs, bundle: &Path, url: &str) -> anyhow::Result<(Vec<Input>, Remote)> {
    let path = bundle::of_path(bundle, bundle::CLIENT);
    let passphrase = args.passphrase_file.as_deref().map(bundle::read_passphrase).transpose()?;
    let stored = bundle::load_client(&path, passphrase.as_ref())?;
    let inputs = inputs(args, stored.outline().graph().input_shape(), stored.outline().preprocess())?;
    let deadline = Duration::from_secs(args.deadline.into());
    let token = args.token_file.as_deref().map(read_token).transpose().map_err(JaliError::from)?;
    let config = ClientConfig { url: url.into(), ca_cert: args.ca_cert.clone(), token, timeout: deadline };
    let transport = Client::new(&config).map_err(JaliError::from)?;
    Ok((inputs, Remote::connect(stored, transport, Some(&hints_file(&path)), deadline)?))
}

pub(super) fn run(args: &InferArgs) -> anyhow::Result<()> {
    let kernel = args.common.start()?;
    let (mut calibration, mut weights_hidden) = (None, None);
    let (name, inputs, mut with) = match (&args.model, &args.client, &args.server) {
        (None, Some(path), Some(url)) => {
            let (inputs, remote) = connect(args, path, url)?;
            (path.display().to_string(), inputs, Some(With::Remote(Box::new(remote))))
        }
        (Some(path), ..) => {
            let graph = read_model_aloud(path)?;
            let preprocess = args.pixels.of_model(path, graph.input_shape())?;
            let inputs = inputs(args, graph.input_shape(), &preprocess)?;
            let good: Vec<Tensor> = inputs.iter().filter_map(|i| i.image.as_ref().ok().cloned()).collect();
            let mut with = None;
            if !good.is_empty() {
                let (images, source) = calibration_of(args, good, graph.input_shape(), &preprocess)?;
                let model = calibrate_file(path, graph, args.common.bits, &images, &preprocess)?;
                let costs = args.over.costs(kernel);
                let plan = args.leak.plan(&model, &costs)?;
                let session = start_session(model, &plan, &costs, kernel)?;
                (calibration, weights_hidden) = (Some(source), Some(super::demo::hidden_fraction(session.report())));
                with = Some(With::Session(Box::new(session)));
            }
            (path.display().to_string(), inputs, with)
        }
        _ => anyhow::bail!("name a model file, or a client's bundle and a server"),
    };
    let graph = with.as_ref().map(With::graph);
    let reading = graph.map_or(Reading::Scores, Reading::of);
    let source = args.labels.as_deref().or(args.samples.map(|s| Dataset::from(s).name()));
    let labels = source.map(read_labels).transpose()?;
    if let Some(labels) = &labels
        && let Some(classes) = graph.and_then(|g| reading.classes(g)).filter(|&n| n != labels.len())
    {
        let from = args.labels.as_deref().unwrap_or("--samples");
        anyhow::bail!("--labels {from}: it gives {} names, the model has {classes} classes", labels.len());
    }
    if let Some(folder) = &args.outputs {
        let fail = |e: std::io::Error| JaliError::Write { path: folder.clone(), why: e.to_string() };
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    if args.csv {
        say("file,class,label,probability,latency_ms,error")?;
    }

    let bar = progress(inputs.len(), "classifying");
    let (mut images, mut failure, mut times, mut last) = (vec![], None, vec![], None);
    for batch in inputs.chunks(args.batch.into()) {
        let good: Vec<Tensor> = batch.iter().filter_map(|i| i.image.as_ref().ok().cloned()).collect();
        let result = match &mut with {
            Some(with) if !good.is_empty() => Some(with.run(&good)),
            _ => None,
        };
        let (mut done, mut each) = (vec![], Duration::ZERO);
        match result {
            Some(Ok((outputs, latency, exact))) => {
                each = latency / good.len() as u32;
                times.extend(good.iter().map(|_| each));
                done = outputs.into_iter().zip(exact).collect();
            }
            Some(Err(e)) => last = Some(e),
            None => {}
        }
        let mut done = done.into_iter();
        for input in batch {
            // Only images that could be read have a result.
            let result = if input.image.is_ok() { done.next() } else { None };
            let outcome = match (&input.image, result, &last) {
                (Err(e), ..) | (Ok(_), None, Some(e)) => {
                    let code = exit_code(e);
                    failure = graver(failure, code);
                    failed(&input.name, e, code)
                }
                (Ok(_), Some((outputs, exact)), _) => {
                    if exact == Some(false) {
                        failure = graver(failure, DIFFERENT);
                    }
                    let top = guesses(reading, &outputs[0], labels.as_deref());
                    let kept = args.outputs.as_deref().map(|folder| keep(folder, images.len(), &input.name, &outputs));
                    Outcome {
                        file: input.name.clone(),
                        latency_ms: Some(ms(each)),
                        exact,
                        checked: Some(true),
                        correct: input.class.map(|class| top.first().is_some_and(|t| t.class == class)),
                        top,
                        outputs: kept.transpose()?.unwrap_or_default(),
                        error: None,
                        exit_code: None,
                    }
                }
                (Ok(_), None, None) => continue,
            };
            let shown = match (args.common.json, args.csv) {
                (true, _) => Ok(()),
                (_, true) => bar.suspend(|| say(csv(&outcome))),
                _ => bar.suspend(|| print(&outcome)),
            };
            if let Err(e) = shown {
                return conclude(Err(e.into()), failure);
            }
            images.push(outcome);
            bar.inc(1);
        }
        if last.is_some() {
            // A server that lies or is gone will not do better with the next batch.
            break;
        }
    }
    bar.finish_and_clear();
    let correct = inputs.iter().any(|i| i.class.is_some());
    let correct = correct.then(|| images.iter().filter(|o| o.correct == Some(true)).count());
    let retries = match &with {
        Some(With::Remote(remote)) => Some(remote.retries()),
        _ => None,
    };
    let missing = inputs.len() - images.len();
    let report = Report {
        model: name,
        transport: if args.client.is_some() { "http" } else { "in-process" },
        calibration,
        weights_hidden,
        correct,
        latency_ms: (!times.is_empty()).then(|| Spread::of(&times)),
        retries,
        images,
    };
    let printed = if args.common.json {
        say_json(&report)
    } else if args.csv {
        Ok(())
    } else {
        summarise(&report, missing).map_err(Into::into)
    };
    conclude(printed, failure)
}

/// What the quantisation is calibrated on, and its name.
fn calibration_of(
    args: &InferArgs,
    good: Vec<Tensor>,
    shape: &[usize],
    preprocess: &Preprocess,
) -> anyhow::Result<(Vec<Tensor>, String)> {
    if let Some(folder) = &args.calibrate {
        return Ok((calibration_images(folder, shape, preprocess)?, format!("the images of {}", folder.display())));
    }
    note(
        "note: no --calibrate folder, so the given images set the quantisation scales; name a folder of typical images for results that do not depend on what is classified",
    )?;
    Ok((good, "the given images themselves".to_string()))
}

fn summarise(r: &Report, missing: usize) -> std::io::Result<()> {
    if let (Some(times), true) = (&r.latency_ms, r.transport == "http") {
        let checked = r.images.iter().filter(|o| o.checked == Some(true)).count();
        let correct = r.correct.map(|c| format!(", {c} classified correctly")).unwrap_or_default();
        say(format!("\n{checked} of {} images: every answer passed the check{correct}", r.images.len() + missing))?;
        say(format!("latency {:.1} ms median ({:.1} to {:.1})", times.median, times.min, times.max))?;
        if let Some(retries) = r.retries.filter(|&n| n > 0) {
            say(format!("{retries} request(s) had to be sent again"))?;
        }
    }
    if missing > 0 {
        note(format!("{missing} image(s) were not tried any more"))?;
    }
    Ok(())
}

fn csv(o: &Outcome) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let top = o.top.first();
    let or = |text: Option<String>| text.unwrap_or_default();
    [
        quoted(&o.file),
        or(top.map(|t| t.class.to_string())),
        or(top.and_then(|t| t.label.as_deref()).map(quoted)),
        or(top.and_then(|t| t.probability).map(|p| format!("{p:.4}"))),
        or(o.latency_ms.map(|ms| ms.to_string())),
        or(o.error.as_deref().map(quoted)),
    ]
    .join(",")
}

/// Of two failures the one to exit with: wrong or rejected results before anything else, then the first.
fn graver(first: Option<u8>, new: u8) -> Option<u8> {
    const RESULTS: [u8; 2] = [4, DIFFERENT];
    match first {
        Some(code) if RESULTS.contains(&code) || !RESULTS.contains(&new) => Some(code),
        _ => Some(new),
    }
}

/// The best classes.
fn guesses(reading: Reading, output: &Tensor, labels: Option<&[String]>) -> Vec<Guess> {
    let guess = |class: usize, probability: Option<f32>| Guess {
        class,
        label: labels.and_then(|l| l.get(class).cloned()),
        probability,
    };
    let Some(probabilities) = reading.probabilities(output) else {
        return reading.class(output).map(|class| guess(class, None)).into_iter().collect();
    };
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order.iter().take(TOP).map(|&class| guess(class, Some(probabilities[class]))).collect()
}

/// Writes an image's outputs. The number in front keeps images of the same name apart.
fn keep(folder: &Path, index: usize, name: &str, outputs: &[Tensor]) -> Result<Vec<String>, JaliError> {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().replace(' ', "-");
    let keep = |(k, output): (usize, &Tensor)| {
        let path = folder.join(format!("{index:05}-{stem}.{k}.npy"));
        bundle::write_aside(&path, &npy_bytes(output))?;
        Ok(path.display().to_string())
    };
    outputs.iter().enumerate().map(keep).collect()
}

fn failed(name: &str, error: &JaliError, code: u8) -> Outcome {
    Outcome {
        file: name.into(),
        latency_ms: None,
        exact: None,
        checked: None,
        correct: None,
        top: vec![],
        outputs: vec![],
        error: Some(error.to_string()),
        exit_code: Some(code),
    }
}

fn print(outcome: &Outcome) -> std::io::Result<()> {
    if let Some(error) = &outcome.error {
        return note(format!("error: {error}"));
    }
    let exact = match outcome.exact {
        Some(true) => "equals plaintext exactly",
        Some(false) => "DIFFERS FROM PLAINTEXT",
        None => "every answer checked",
    };
    say(format!("{}  ({:.1} ms, {exact})", outcome.file, outcome.latency_ms.unwrap_or_default()))?;
    for g in &outcome.top {
        let name = g.label.clone().unwrap_or_else(|| format!("class {}", g.class));
        match g.probability {
            Some(p) => say(format!("  {:5.1} %  {name}", 100.0 * p))?,
            None => say(format!("  {name}"))?,
        }
    }
    if !outcome.outputs.is_empty() {
        say(format!("  kept in {}", outcome.outputs.join(", ")))?;
    } else if outcome.top.is_empty() {
        say("  its first output is not one of classes; --outputs DIR keeps all outputs")?;
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
