//! `jali evaluate`: accuracy in float, in integers, and encrypted.

mod guests;

use std::path::PathBuf;

use clap::Args;
use jali::{Backend, JaliError, Reading, Sample, Tensor};
use jali_model::{Preprocess, float, integer};
use rayon::prelude::*;
use serde::Serialize;

use super::labelled::Subject;
use super::local::{Local, hidden_fraction};
use super::pixels::Pixels;
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
    after_help = "Examples:\n  jali evaluate --network vgg3\n  jali evaluate --network vgg3 --guest\n  jali evaluate --network mnist --data data/mnist --encrypted 100\n  jali evaluate --model net.onnx --data data/cifar10 --input-scale 1 --encrypted 10\n  jali evaluate --model net.onnx --data photos/ --labels photos/labels.txt --calibrate typical/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
)]
#[command(group(clap::ArgGroup::new("of").required(true).args(["model", "positional", "network"])))]
pub(super) struct EvaluateArgs {
    /// A bundled network
    #[arg(long, value_enum)]
    pub(super) network: Option<NetworkName>,
    /// A network from a file
    #[arg(long = "model", id = "model", value_name = "FILE.onnx", requires = "data")]
    model: Option<PathBuf>,
    /// A network from a file
    #[arg(value_name = "MODEL.onnx", requires = "data")]
    positional: Option<PathBuf>,
    /// Folder with a full test set, as scripts/fetch-data writes it, or with images [default: the
    /// bundled 1000 images]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// File with the classes of the images
    #[arg(long, value_name = "FILE", conflicts_with = "network")]
    pub(super) labels: Option<PathBuf>,
    /// Folder with typical images to calibrate the quantisation on [default: training images of the
    /// data set, or the first images]
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "network")]
    pub(super) calibrate: Option<PathBuf>,
    /// Only the first images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Measure the fixed-point network of guests as well, with and without a ticket's roundings
    #[arg(long)]
    pub(super) guest: bool,
    /// How many images to run encrypted as well
    #[arg(long, value_name = "N", default_value_t = 0)]
    encrypted: usize,
    #[command(flatten)]
    pub(super) pixels: Pixels,
    #[command(flatten)]
    leak: Leak,
    #[command(flatten)]
    over: Over,
    #[command(flatten)]
    pub(super) common: Common,
}

impl EvaluateArgs {
    /// The network's file, in whichever form it was named.
    pub(super) fn file(&self) -> Option<&PathBuf> {
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
    guest: Option<guests::Accuracy>,
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

/// Below this accuracy in percent other ways from images to inputs are tried.
const DOUBTFUL: f64 = 90.0;
/// Images on which they are tried.
const TRIED: usize = 48;

/// Which output is read as classes, and how.
#[derive(Clone, Copy)]
struct Classes {
    output: usize,
    reading: Reading,
}

impl Classes {
    fn of(subject: &Subject) -> anyhow::Result<Self> {
        let graph = subject.model.graph();
        let read = Reading::output(graph, None).map(|output| (output, Reading::of_output(graph, output)));
        let Some((output, reading)) = read.filter(|(_, reading)| *reading != Reading::Other) else {
            anyhow::bail!(
                "{}: none of its outputs ({:?}, ...) is one of classes, there is no accuracy to measure; jali infer --outputs DIR keeps outputs",
                subject.network,
                graph.shape(graph.output())
            );
        };
        Ok(Self { output, reading })
    }

    /// The class that outputs name; none that there is if they name none.
    fn class(self, outputs: &[Tensor]) -> usize {
        outputs.get(self.output).and_then(|o| self.reading.class(o)).unwrap_or(usize::MAX)
    }
}

/// One image: its label, and the classes that the network gives.
struct Predicted {
    label: usize,
    float: usize,
    quantised: usize,
}

/// Runs the network in float and in integers on the first `total` images.
fn predict(args: &EvaluateArgs, subject: &Subject, classes: Classes, total: usize) -> anyhow::Result<Vec<Predicted>> {
    let (model, bar) = (&subject.model, progress(total, "plaintext"));
    let predict = |i: usize| -> Result<Predicted, JaliError> {
        let Sample { image, label } = subject.images.get(i)?;
        let float = classes.class(&float::run_all(model.graph(), image.clone())?);
        let integer::Trace { output, more_outputs, .. } = integer::run(model, image)?;
        let quantised = classes.class(&[vec![output], more_outputs].concat());
        bar.inc(1);
        Ok(Predicted { label, float, quantised })
    };
    let predictions: Vec<_> = (0..total).into_par_iter().map(predict).collect::<Result<_, _>>()?;
    bar.finish_and_clear();
    let count = classes.reading.classes(model.graph(), classes.output);
    if let Some((count, wrong)) = count.and_then(|n| Some((n, predictions.iter().find(|p| p.label >= n)?))) {
        let from = args.labels.as_ref().map_or(subject.dataset.clone(), |path| path.display().to_string());
        anyhow::bail!("{from}: a label is {}, the model has {count} classes (0 to {})", wrong.label, count - 1);
    }
    Ok(predictions)
}

/// Warns where the network is hardly better than guessing, and where another way from pixels to
/// inputs is right more often.
fn warn_of_doubt(subject: &Subject, classes: Classes, total: usize, accuracy: f64) -> anyhow::Result<()> {
    let graph = subject.model.graph();
    let chance = classes.reading.classes(graph, classes.output).map(|n| 100.0 / n as f64);
    // A tenth of the way from chance to perfect, or twice chance where there are many classes.
    let near = |c: f64| (c + 0.1 * (100.0 - c)).min(2.0 * c);
    if let Some(chance) = chance.filter(|&c| accuracy < near(c)) {
        note(format!(
            "warning: in float {accuracy:.1} % are right, near the {chance:.1} % of chance: are preprocessing (--input-scale, --mean, --std, --channels) and labels those of the training?",
        ))?;
    }
    if accuracy < DOUBTFUL {
        let right = |i: usize, p: &Preprocess| -> Result<bool, JaliError> {
            let Sample { image, label } = subject.images.get_with(i, p)?;
            Ok(classes.class(&float::run_all(graph, image)?) == label)
        };
        warn_of_better(subject.images.preprocess(), graph.input_shape(), total.min(TRIED), right)?;
    }
    Ok(())
}

/// Runs the first images encrypted and compares them with what is known of them.
fn encrypted(
    args: &EvaluateArgs,
    backend: Backend,
    subject: &Subject,
    classes: Classes,
    predictions: &[Predicted],
) -> anyhow::Result<Encrypted> {
    let costs = args.over.costs(backend);
    let plan = args.leak.plan(&subject.model, &costs)?;
    let mut local = Local::start(subject.model.clone(), &plan, &costs, backend)?;
    let bar = progress(predictions.len(), "encrypted");
    let (mut right, mut agree, mut exact, mut times, mut sizes) = (0, 0, 0, vec![], (0, 0));
    for (i, predicted) in predictions.iter().enumerate() {
        let image = subject.images.get(i)?.image;
        let traced = local.client.infer_traced(&image)?;
        exact += usize::from(traced.is_exact(&local.model, &image)?);
        let answer = traced.answer;
        let class = classes.class(&answer.outputs);
        right += usize::from(class == predicted.label);
        agree += usize::from(class == predicted.quantised);
        times.push(answer.latency);
        let operators = answer.operators.iter();
        sizes = (operators.clone().map(|o| o.bytes_up).sum(), operators.map(|o| o.bytes_down).sum());
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Encrypted {
        images: predictions.len(),
        accuracy: percent(right, predictions.len()),
        quantised_agreement: percent(agree, predictions.len()),
        exact: exact == predictions.len(),
        weights_hidden: hidden_fraction(&local.report),
        latency_ms: Spread::of(&times),
        bytes_up: sizes.0,
        bytes_down: sizes.1,
    })
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    let subject = Subject::of(args)?;
    let classes = Classes::of(&subject)?;
    let total = subject.images.len().min(args.images.map_or(usize::MAX, |n| n as usize));
    let predictions = predict(args, &subject, classes, total)?;
    let count = |f: fn(&Predicted) -> bool| percent(predictions.iter().filter(|p| f(p)).count(), total);
    let mut report = Report {
        network: subject.network.clone(),
        dataset: subject.dataset.clone(),
        images: total,
        calibration: subject.calibration.clone(),
        float_accuracy: count(|p| p.float == p.label),
        quantised_accuracy: count(|p| p.quantised == p.label),
        float_quantised_agreement: count(|p| p.float == p.quantised),
        guest: guests::measure(&subject, classes, &predictions)?,
        encrypted: None,
    };
    if args.file().is_some() {
        warn_of_doubt(&subject, classes, total, report.float_accuracy)?;
    }
    if args.encrypted > total {
        note(format!("note: --encrypted {}: the set has {total} images, all of them are used", args.encrypted))?;
    }
    if args.encrypted > 0 {
        let first = &predictions[..args.encrypted.min(total)];
        report.encrypted = Some(encrypted(args, backend, &subject, classes, first)?);
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
    if let Some(guest) = &r.guest {
        rows.extend(guest.rows(r.images));
    }
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
