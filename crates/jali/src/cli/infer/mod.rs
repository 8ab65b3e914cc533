//! `jali infer`: images with a server somewhere else, or with a model file in this process.

mod inputs;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jali::bundle::{self, Readers};
use jali::image_file::npy_bytes;
use jali::remote::hints_file;
use jali::{Dataset, JaliError, Reading, Remote, Session, Tensor, text_file};
use jali_model::{Graph, Preprocess};
use jali_net::auth::read_token;
use jali_net::{Client, ClientConfig};

use self::inputs::{Input, Inputs};
use self::report::{Outcome, Report, csv, guesses, print, summarise};
use super::pixels::{Calibration, Pixels, calibrate_file, calibration_images, read_model_aloud};
use super::text::{Spread, ms, note, progress, say, say_json};
use super::{Common, DIFFERENT, Leak, Over, PinArgs, conclude, exit_code, start_session};

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
    /// Allow plain HTTP to another machine (never with a token)
    #[arg(long, requires = "server")]
    insecure: bool,
    /// Longest time for one batch, tries and pauses included, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    deadline: u32,
    /// Read this output as classes: its name, or its number from 0 on [default: the one that looks like classes]
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

/// Who computes.
enum With {
    /// Both sides in this process.
    Session(Box<Session>),
    /// A server somewhere else.
    Remote(Box<Remote>),
}

/// What became of a batch.
struct Classified {
    /// All outputs of every image.
    outputs: Vec<Vec<Tensor>>,
    latency: Duration,
    /// Whether each image equals the reference, where there is one.
    exact: Vec<Option<bool>>,
}

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
        let outputs = run.outputs.into_iter().zip(run.more_outputs).map(all).collect();
        Ok(Classified { outputs, latency: run.latency, exact })
    }
}

/// Who computes, for what, and how it is read.
struct Opened {
    name: String,
    inputs: Inputs,
    /// Nobody, where no image can be read.
    with: Option<With>,
    calibration: Option<String>,
    weights_hidden: Option<f64>,
}

impl Opened {
    /// With a server in another process, hints checked.
    fn remote(args: &InferArgs, bundle: &Path, url: &str) -> anyhow::Result<Self> {
        let path = bundle::of_path(bundle, bundle::CLIENT);
        let passphrase = args.passphrase_file.as_deref().map(bundle::read_passphrase).transpose()?;
        let stored = bundle::load_client(&path, passphrase.as_ref(), &args.pin.pin())?;
        let inputs = Inputs::read(args, stored.outline().graph().input_shape(), stored.outline().preprocess())?;
        let deadline = Duration::from_secs(args.deadline.into());
        let token = args.token_file.as_deref().map(read_token).transpose().map_err(JaliError::from)?;
        let config = ClientConfig {
            url: url.into(),
            ca_cert: args.ca_cert.clone(),
            token,
            timeout: deadline,
            insecure: args.insecure,
        };
        let transport = Client::new(&config).map_err(JaliError::from)?;
        let remote = Remote::connect(stored, transport, Some(&hints_file(&path)), deadline)?;
        Ok(Self {
            name: path.display().to_string(),
            inputs,
            with: Some(With::Remote(Box::new(remote))),
            calibration: None,
            weights_hidden: None,
        })
    }

    /// With both sides in this process.
    fn in_process(args: &InferArgs, path: &Path, kernel: jali::Kernel) -> anyhow::Result<Self> {
        let graph = read_model_aloud(path)?;
        let preprocess = args.pixels.of_model(path, graph.input_shape())?;
        let inputs = Inputs::read(args, graph.input_shape(), &preprocess)?;
        let name = path.display().to_string();
        let good = inputs.good();
        if good.is_empty() {
            return Ok(Self { name, inputs, with: None, calibration: None, weights_hidden: None });
        }
        let (images, source) = calibration_of(args, good, graph.input_shape(), &preprocess)?;
        let model = calibrate_file(path, graph, args.common.bits, &images, &preprocess)?;
        let costs = args.over.costs(kernel);
        let plan = args.leak.plan(&model, &costs)?;
        let session = start_session(model, &plan, &costs, kernel)?;
        Ok(Self {
            name,
            inputs,
            calibration: Some(source),
            weights_hidden: Some(super::demo::hidden_fraction(session.report())),
            with: Some(With::Session(Box::new(session))),
        })
    }
}

/// Which output says something about classes, and what they are called.
struct Classes {
    /// Its position and how it is read; none if no output does.
    read: Option<(usize, Reading)>,
    labels: Option<Vec<String>>,
}

impl Classes {
    fn of(args: &InferArgs, graph: Option<&Graph>) -> anyhow::Result<Self> {
        let source = args.labels.as_deref().or(args.samples.map(|s| Dataset::from(s).name()));
        let labels = source.map(read_labels).transpose()?;
        let Some(graph) = graph else { return Ok(Self { read: None, labels }) };
        let at = match &args.output {
            Some(name) => Some(output_named(graph, name)?),
            None => Reading::output(graph, labels.as_ref().map(Vec::len)),
        };
        let read = at.map(|at| (at, Reading::of_output(graph, at)));
        if let (Some(labels), Some((at, reading))) = (&labels, read)
            && let Some(classes) = reading.classes(graph, at).filter(|&n| n != labels.len())
        {
            let from = args.labels.as_deref().unwrap_or("--samples");
            anyhow::bail!("--labels {from}: it gives {} names, the model has {classes} classes", labels.len());
        }
        if read.is_none_or(|(_, reading)| reading == Reading::Other) && graph.outputs().len() > 1 {
            let names: Vec<String> = (0..graph.outputs().len()).map(|at| describe_output(graph, at)).collect();
            note(format!(
                "note: none of the outputs is read as classes ({}); --output NAME names one, --outputs DIR keeps all",
                names.join(", ")
            ))?;
        }
        Ok(Self { read, labels })
    }
}

/// The position of the output with this name or number.
fn output_named(graph: &Graph, name: &str) -> anyhow::Result<usize> {
    let count = graph.outputs().len();
    let by_name = graph.output_names().iter().position(|n| n == name);
    let by_number = name.parse().ok().filter(|&at: &usize| at < count);
    by_name.or(by_number).ok_or_else(|| {
        let names: Vec<String> = (0..count).map(|at| describe_output(graph, at)).collect();
        anyhow::anyhow!("--output {name}: there is no such output; there are {}", names.join(", "))
    })
}

fn describe_output(graph: &Graph, at: usize) -> String {
    let name = graph.output_names().get(at).cloned().unwrap_or_else(|| at.to_string());
    format!("{name} {:?}", graph.shape(graph.outputs()[at]))
}

/// What has been classified so far.
#[derive(Default)]
struct Progress {
    images: Vec<Outcome>,
    failure: Option<u8>,
    times: Vec<Duration>,
    /// What ended the run.
    last: Option<JaliError>,
}

impl Progress {
    fn fail(&mut self, code: u8) {
        self.failure = graver(self.failure, code);
    }

    /// The outcomes of one batch.
    fn batch(
        &mut self,
        args: &InferArgs,
        batch: &[Input],
        with: Option<&mut With>,
        classes: &Classes,
    ) -> Result<Vec<Outcome>, JaliError> {
        let good: Vec<Tensor> = batch.iter().filter_map(|i| i.image.as_ref().ok().cloned()).collect();
        let result = with.filter(|_| !good.is_empty() && self.last.is_none()).map(|with| with.run(&good));
        let (mut done, mut each) = (vec![], Duration::ZERO);
        let before = self.last.is_some();
        match result {
            Some(Ok(run)) => {
                each = run.latency / good.len() as u32;
                self.times.extend(good.iter().map(|_| each));
                done = run.outputs.into_iter().zip(run.exact).collect();
            }
            Some(Err(e)) => self.last = Some(e),
            None => {}
        }
        let mut done = done.into_iter();
        let mut outcomes = vec![];
        for input in batch {
            let number = self.images.len() + outcomes.len();
            // Only images that could be read have a result.
            let result = if input.image.is_ok() { done.next() } else { None };
            let outcome = match (&input.image, result, &self.last) {
                (Err(e), ..) => {
                    let code = exit_code(e);
                    let outcome = Outcome::failed(&input.name, e.to_string(), code);
                    self.fail(code);
                    outcome
                }
                (Ok(_), Some((outputs, exact)), _) => {
                    if exact == Some(false) {
                        self.fail(DIFFERENT);
                    }
                    let top = guesses(classes, &outputs);
                    let kept = args.outputs.as_deref().map(|folder| keep(folder, number, &input.name, &outputs));
                    Outcome {
                        file: input.name.clone(),
                        latency_ms: Some(ms(each)),
                        exact,
                        checked: Some(true),
                        correct: input.class.map(|class| top.first().is_some_and(|t| t.class == class)),
                        top,
                        outputs: kept.transpose()?.unwrap_or_default(),
                        tried: None,
                        error: None,
                        exit_code: None,
                    }
                }
                (Ok(_), None, Some(e)) => {
                    let code = exit_code(e);
                    let outcome = match before {
                        true => Outcome::untried(&input.name, &e.to_string(), code),
                        false => Outcome::failed(&input.name, e.to_string(), code),
                    };
                    self.fail(code);
                    outcome
                }
                (Ok(_), None, None) => continue,
            };
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }
}

pub(super) fn run(args: &InferArgs) -> anyhow::Result<()> {
    let kernel = args.common.start()?;
    let Opened { name, inputs, mut with, calibration, weights_hidden } = match (&args.model, &args.client, &args.server)
    {
        (None, Some(path), Some(url)) => Opened::remote(args, path, url)?,
        (Some(path), ..) => Opened::in_process(args, path, kernel)?,
        _ => anyhow::bail!("name a model file, or a client's bundle and a server"),
    };
    let classes = Classes::of(args, with.as_ref().map(With::graph))?;
    let several = with.as_ref().map(With::graph).filter(|graph| graph.outputs().len() > 1);
    let output = several.and_then(|graph| Some(describe_output(graph, classes.read?.0)));
    if let Some(folder) = &args.outputs {
        private_folder(folder)?;
    }
    if args.csv {
        say("file,class,label,probability,latency_ms,error")?;
    }
    let bar = progress(inputs.images.len(), "classifying");
    let mut progress = Progress::default();
    for batch in inputs.images.chunks(args.batch.into()) {
        for outcome in progress.batch(args, batch, with.as_mut(), &classes)? {
            // A server that lies or is gone will not do better with the next image: each says so, people are told once.
            let shown = match (args.common.json, args.csv) {
                (true, _) => Ok(()),
                (_, true) => bar.suspend(|| say(csv(&outcome))),
                _ if outcome.tried == Some(false) => Ok(()),
                _ => bar.suspend(|| print(&outcome)),
            };
            if let Err(e) = shown {
                return conclude(Err(e.into()), progress.failure);
            }
            progress.images.push(outcome);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let Progress { images, failure, times, .. } = progress;
    let correct = inputs.images.iter().any(|i| i.class.is_some());
    let correct = correct.then(|| images.iter().filter(|o| o.correct == Some(true)).count());
    let retries = match &with {
        Some(With::Remote(remote)) => Some(remote.retries()),
        _ => None,
    };
    let report = Report {
        model: name,
        transport: if args.client.is_some() { "http" } else { "in-process" },
        calibration,
        weights_hidden,
        correct,
        latency_ms: (!times.is_empty()).then(|| Spread::of(&times)),
        retries,
        output,
        skipped: inputs.skipped,
        images,
    };
    let printed = if args.common.json {
        say_json(&report)
    } else if args.csv {
        Ok(())
    } else {
        summarise(&report).map_err(Into::into)
    };
    conclude(printed, failure)
}

/// Makes a folder that its owner alone can look into; one that is there stays as it is.
fn private_folder(folder: &Path) -> Result<(), JaliError> {
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

/// What the quantisation is calibrated on, and its name.
fn calibration_of(
    args: &InferArgs,
    good: Vec<Tensor>,
    shape: &[usize],
    preprocess: &Preprocess,
) -> anyhow::Result<(Calibration, String)> {
    if let Some(folder) = &args.calibrate {
        return Ok((calibration_images(folder, shape, preprocess)?, format!("the images of {}", folder.display())));
    }
    note(
        "note: no --calibrate folder, so the given images set the quantisation scales; name a folder of typical images for results that do not depend on what is classified",
    )?;
    Ok((Calibration::Images(good), "the given images themselves".to_string()))
}

/// Of two failures the one to exit with: wrong or rejected results before anything else, then the first.
fn graver(first: Option<u8>, new: u8) -> Option<u8> {
    const RESULTS: [u8; 2] = [4, DIFFERENT];
    match first {
        Some(code) if RESULTS.contains(&code) || !RESULTS.contains(&new) => Some(code),
        _ => Some(new),
    }
}

/// Writes an image's outputs. The number in front keeps images of the same name apart.
fn keep(folder: &Path, index: usize, name: &str, outputs: &[Tensor]) -> Result<Vec<String>, JaliError> {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().replace(' ', "-");
    let keep = |(k, output): (usize, &Tensor)| {
        let path = folder.join(format!("{index:05}-{stem}.{k}.npy"));
        bundle::write_aside(&path, &npy_bytes(output), Readers::Owner)?;
        Ok(path.display().to_string())
    };
    outputs.iter().enumerate().map(keep).collect()
}

fn read_labels(source: &str) -> anyhow::Result<Vec<String>> {
    let own = |d: Dataset| d.classes().iter().map(ToString::to_string).collect();
    match source {
        "cifar10" => return Ok(own(Dataset::Cifar10)),
        "mnist" => return Ok(own(Dataset::Mnist)),
        _ => {}
    }
    let text = text_file::read(Path::new(source), 1 << 20)?;
    Ok(text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect())
}
