//! `jali evaluate`: accuracy in float, in integers, and encrypted.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use jali::files::read_text;
use jali::image_file::read_image;
use jali::{Dataset, JaliError, Network, QuantModel, Reading, Records, Sample, Tensor};
use jali_model::{Preprocess, float, integer};
use rayon::prelude::*;
use serde::Serialize;

use super::local::Local;
use super::pixels::{Calibration, Pixels, calibrate_file, calibration_images, read_model_aloud, warn_of_range};
use super::text::{Spread, bytes, note, percent, progress, say, say_json, table};
use super::usual_preprocessings::warn_of_better;
use super::{Common, DIFFERENT, Leak, NetworkName, Over, conclude};

/// Measure float, quantised and encrypted accuracy of a network, and how often they agree.
///
/// A network from a file is measured on a data set that scripts/fetch-data fetched, or on images
/// with a file of labels: one line "IMAGE CLASS" for each (or "IMAGE,CLASS"), the class being a
/// number from 0 on.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali evaluate --network vgg3\n  jali evaluate --network mnist --data data/mnist --encrypted 100\n  jali evaluate --model net.onnx --data data/cifar10 --input-scale 1 --encrypted 10\n  jali evaluate --model net.onnx --data photos/ --labels photos/labels.txt --calibrate typical/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
)]
#[command(group(clap::ArgGroup::new("of").required(true).args(["model", "positional", "network"])))]
pub(super) struct EvaluateArgs {
    /// A bundled network
    #[arg(long, value_enum)]
    network: Option<NetworkName>,
    /// A network from a file
    #[arg(long = "model", id = "model", value_name = "FILE.onnx", requires = "data")]
    model: Option<PathBuf>,
    /// A network from a file
    #[arg(value_name = "MODEL.onnx", requires = "data")]
    positional: Option<PathBuf>,
    /// Folder with a full test set, as scripts/fetch-data writes it, or with images [default: the
    /// bundled 1000 images]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// File with the classes of the images
    #[arg(long, value_name = "FILE", conflicts_with = "network")]
    labels: Option<PathBuf>,
    /// Folder with typical images to calibrate the quantisation on [default: training images of the
    /// data set, or the first images]
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "network")]
    calibrate: Option<PathBuf>,
    /// Only the first images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// How many images to run encrypted as well
    #[arg(long, value_name = "N", default_value_t = 0)]
    encrypted: usize,
    #[command(flatten)]
    pixels: Pixels,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    common: Common,
}

impl EvaluateArgs {
    /// The network's file, in whichever form it was named.
    fn file(&self) -> Option<&PathBuf> {
        self.model.as_ref().or(self.positional.as_ref())
    }
}

/// The object that `--json` prints; accuracies are percentages of all images (for `encrypted`, of
/// its own images).
#[derive(Serialize)]
struct Report {
    network: String,
    dataset: String,
    images: usize,
    calibration: String,
    float_accuracy: f64,
    quantised_accuracy: f64,
    float_quantised_agreement: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted: Option<Encrypted>,
}

#[derive(Serialize)]
struct Encrypted {
    images: usize,
    accuracy: f64,
    quantised_agreement: f64,
    exact: bool,
    weights_hidden: f64,
    latency_ms: Spread,
    bytes_up: usize,
    bytes_down: usize,
}

/// Labelled images, one at a time.
enum Images {
    Records(Records, Vec<usize>, Preprocess),
    Files(Vec<(PathBuf, usize)>, Vec<usize>, Preprocess),
}

impl Images {
    fn len(&self) -> usize {
        match self {
            Self::Records(r, ..) => r.len(),
            Self::Files(f, ..) => f.len(),
        }
    }

    fn preprocess(&self) -> &Preprocess {
        match self {
            Self::Records(.., p) | Self::Files(.., p) => p,
        }
    }

    fn get(&self, index: usize) -> Result<Sample, JaliError> {
        self.get_with(index, self.preprocess())
    }

    fn get_with(&self, index: usize, p: &Preprocess) -> Result<Sample, JaliError> {
        match self {
            Self::Records(r, shape, _) => r.get_as(index, shape, p),
            Self::Files(f, shape, _) => {
                let (path, label) = &f[index];
                Ok(Sample { image: read_image(path, shape, p)?, label: *label })
            }
        }
    }
}

/// What is measured: names, the quantised network, what it was calibrated on, images.
struct Subject {
    network: String,
    dataset: String,
    model: QuantModel,
    calibration: String,
    images: Images,
}

impl Subject {
    fn of(args: &EvaluateArgs) -> anyhow::Result<Self> {
        match (args.file(), args.network) {
            (Some(path), _) => Self::of_file(args, path),
            (None, name) => {
                let network = Network::from(name.unwrap_or(NetworkName::Vgg3));
                let dataset = network.dataset();
                let records = match &args.data {
                    Some(folder) => dataset.full_test_records(folder)?,
                    None => dataset.bundled_records(),
                };
                Ok(Self {
                    network: network.name().into(),
                    dataset: dataset.name().into(),
                    model: network.quantised(args.common.bits)?,
                    calibration: format!("100 training images of {}", dataset.name()),
                    images: Images::Records(records, dataset.shape().to_vec(), Preprocess::default()),
                })
            }
        }
    }

    fn of_file(args: &EvaluateArgs, path: &Path) -> anyhow::Result<Self> {
        let graph = read_model_aloud(path)?;
        let shape = graph.input_shape().to_vec();
        let p = args.pixels.of_model(path, &shape)?;
        let folder = args.data.as_deref().context("--data is missing")?;
        let dataset = Dataset::of_folder(folder).filter(|_| args.labels.is_none());
        let (name, images) = match dataset {
            Some(dataset) => {
                let records = dataset.full_test_records(folder)?;
                (dataset.name().to_string(), Images::Records(records, shape.clone(), p.clone()))
            }
            None => {
                let labels = args.labels.as_deref().with_context(|| {
                    format!(
                        "{}: neither a data set of scripts/fetch-data nor is there a --labels file",
                        folder.display()
                    )
                })?;
                (folder.display().to_string(), Images::Files(read_classes(labels, folder)?, shape.clone(), p.clone()))
            }
        };
        let (typical, calibration) = match (&args.calibrate, dataset) {
            (Some(path), _) => (calibration_images(path, &shape, &p)?, path.display().to_string()),
            (None, Some(dataset)) => {
                let records = dataset.calibration_records();
                let images = (0..records.len()).map(|i| Ok(records.get_as(i, &shape, &p)?.image));
                let images = images.collect::<Result<Vec<_>, JaliError>>()?;
                (Calibration::Images(images), format!("100 training images of {name}"))
            }
            (None, None) => {
                note(
                    "note: no --calibrate folder, so the first images that are measured set the quantisation scales too",
                )?;
                let images: Vec<Tensor> =
                    (0..images.len().min(100)).map(|i| Ok(images.get(i)?.image)).collect::<Result<_, JaliError>>()?;
                warn_of_range(&name, &images, &p)?;
                (Calibration::Images(images), "the first measured images".into())
            }
        };
        let model = calibrate_file(path, graph, args.common.bits, &typical, &p)?;
        Ok(Self { network: path.display().to_string(), dataset: name, model, calibration, images })
    }
}

/// Below this accuracy in percent other ways from images to inputs are tried.
const DOUBTFUL: f64 = 90.0;
/// Images on which they are tried.
const TRIED: usize = 48;

/// Most bytes of a file of labels.
const MAX_LABELS: u64 = 1 << 26;

/// Image files and their classes.
fn read_classes(path: &Path, folder: &Path) -> anyhow::Result<Vec<(PathBuf, usize)>> {
    let text = read_text(path, MAX_LABELS)?;
    let mut files = vec![];
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let parts = line.rsplit_once([',', ' ', '\t']).map(|(name, class)| (name.trim(), class.trim().parse()));
        match parts {
            Some((name, Ok(class))) => files.push((folder.join(name), class)),
            // A first line that names the columns.
            _ if i == 0 && files.is_empty() && line.contains(',') => {}
            _ => anyhow::bail!(
                "{}: line {} is \"{line}\", it must be of the form IMAGE CLASS with a number for the class",
                path.display(),
                i + 1
            ),
        }
    }
    anyhow::ensure!(!files.is_empty(), "{}: it names no image", path.display());
    let mut classes = std::collections::HashMap::new();
    for (file, class) in &files {
        if let Some(other) = classes.insert(file, class).filter(|other| *other != class) {
            anyhow::bail!("{}: {} has the classes {other} and {class}", path.display(), file.display());
        }
    }
    Ok(files)
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    let Subject { network, dataset, model, calibration, images } = Subject::of(args)?;
    let output = Reading::output(model.graph(), None);
    let read = output.map(|at| (at, Reading::of_output(model.graph(), at)));
    let Some((output, reading)) = read.filter(|(_, reading)| *reading != Reading::Other) else {
        anyhow::bail!(
            "{network}: none of its outputs ({:?}, ...) is one of classes, there is no accuracy to measure; jali infer --outputs DIR keeps outputs",
            model.graph().shape(model.graph().output())
        );
    };
    let class_of = |outputs: &[Tensor]| outputs.get(output).and_then(|o| reading.class(o)).unwrap_or(usize::MAX);
    let total = images.len().min(args.images.map_or(usize::MAX, |n| n as usize));
    let bar = progress(total, "plaintext");
    // Label, class in float, class in integers.
    let predict = |i: usize| -> Result<(usize, usize, usize), JaliError> {
        let Sample { image, label } = images.get(i)?;
        let float = class_of(&float::run_all(model.graph(), image.clone())?);
        let integer::Trace { output, more_outputs, .. } = integer::run(&model, image)?;
        let quantised = class_of(&[vec![output], more_outputs].concat());
        bar.inc(1);
        Ok((label, float, quantised))
    };
    let predictions: Vec<_> = (0..total).into_par_iter().map(predict).collect::<Result<_, _>>()?;
    bar.finish_and_clear();
    if let Some(classes) = reading.classes(model.graph(), output)
        && let Some((label, ..)) = predictions.iter().find(|(label, ..)| *label >= classes)
    {
        let from = args.labels.as_ref().map_or(dataset.clone(), |path| path.display().to_string());
        anyhow::bail!("{from}: a label is {label}, the model has {classes} classes (0 to {})", classes - 1);
    }

    let count = |f: &dyn Fn(usize, (usize, usize)) -> bool| {
        let right = predictions.iter().filter(|(label, float, quantised)| f(*label, (*float, *quantised))).count();
        percent(right, total)
    };
    let mut report = Report {
        network,
        dataset,
        images: total,
        calibration,
        float_accuracy: count(&|label, (f, _)| f == label),
        quantised_accuracy: count(&|label, (_, q)| q == label),
        float_quantised_agreement: count(&|_, (f, q)| f == q),
        encrypted: None,
    };
    let chance = reading.classes(model.graph(), output).map(|n| 100.0 / n as f64);
    // A tenth of the way from chance to perfect, or twice chance where there are many classes.
    let near = |c: f64| (c + 0.1 * (100.0 - c)).min(2.0 * c);
    if let Some(chance) = chance.filter(|&c| args.file().is_some() && report.float_accuracy < near(c)) {
        note(format!(
            "warning: in float {:.1} % are right, near the {chance:.1} % of chance: are preprocessing (--input-scale, --mean, --std, --channels) and labels those of the training?",
            report.float_accuracy
        ))?;
    }
    if args.file().is_some() && report.float_accuracy < DOUBTFUL {
        let right = |i: usize, p: &Preprocess| -> Result<bool, JaliError> {
            let Sample { image, label } = images.get_with(i, p)?;
            Ok(class_of(&float::run_all(model.graph(), image)?) == label)
        };
        warn_of_better(images.preprocess(), model.graph().input_shape(), total.min(TRIED), right)?;
    }
    if args.encrypted > total {
        note(format!("note: --encrypted {}: the set has {total} images, all of them are used", args.encrypted))?;
    }
    if args.encrypted > 0 {
        let costs = args.over.costs(backend);
        let plan = args.leak.plan(&model, &costs)?;
        let mut local = Local::start(model.clone(), &plan, &costs, backend)?;
        let weights_hidden = super::local::hidden_fraction(&local.report);
        let n = args.encrypted.min(total);
        let bar = progress(n, "encrypted");
        let (mut right, mut agree, mut exact, mut times, mut sizes) = (0, 0, 0, vec![], (0, 0));
        for (i, &(label, _, quantised)) in predictions[..n].iter().enumerate() {
            let image = images.get(i)?.image;
            let traced = local.client.infer_traced(&image)?;
            exact += usize::from(traced.is_exact(&local.model, &image)?);
            let run = traced.answer;
            let class = class_of(&run.outputs);
            right += usize::from(class == label);
            agree += usize::from(class == quantised);
            times.push(run.latency);
            let operators = run.operators.iter();
            sizes = (operators.clone().map(|o| o.bytes_up).sum(), operators.map(|o| o.bytes_down).sum());
            bar.inc(1);
        }
        bar.finish_and_clear();
        report.encrypted = Some(Encrypted {
            images: n,
            accuracy: percent(right, n),
            quantised_agreement: percent(agree, n),
            exact: exact == n,
            weights_hidden,
            latency_ms: Spread::of(&times),
            bytes_up: sizes.0,
            bytes_down: sizes.1,
        });
    }
    let printed = if args.common.json { say_json(&report) } else { print(&report) };
    conclude(printed, report.encrypted.filter(|e| !e.exact).map(|_| DIFFERENT))
}

fn print(r: &Report) -> anyhow::Result<()> {
    let mut rows = vec![
        vec!["float".into(), r.images.to_string(), format!("{:.2} %", r.float_accuracy), String::new()],
        vec![
            "quantised".into(),
            r.images.to_string(),
            format!("{:.2} %", r.quantised_accuracy),
            format!("{:.2} % with float", r.float_quantised_agreement),
        ],
    ];
    if let Some(e) = &r.encrypted {
        let exact = if e.exact { "exact on every layer" } else { "NOT EXACT" };
        rows.push(vec![
            "encrypted".into(),
            e.images.to_string(),
            format!("{:.2} %", e.accuracy),
            format!("{:.2} % with quantised, {exact}", e.quantised_agreement),
        ]);
    }
    let columns = ["run", "images", "accuracy", "agreement"];
    say(format!("{} on {}, calibrated on {}\n{}", r.network, r.dataset, r.calibration, table(&columns, 1, rows)))?;
    if let Some(e) = &r.encrypted {
        let (up, down) = (bytes(e.bytes_up), bytes(e.bytes_down));
        let times = &e.latency_ms;
        say(format!(
            "encrypted: {:.1} % of the weights hidden, {:.1} ms an image (median; {:.1} to {:.1}), {up} up and {down} down an image",
            100.0 * e.weights_hidden,
            times.median,
            times.min,
            times.max
        ))?;
    }
    Ok(())
}
