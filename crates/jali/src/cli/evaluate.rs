//! `jali evaluate`: accuracy in float, in integers, and encrypted.

use std::path::PathBuf;

use clap::Args;
use jali::{JaliError, Network, Plan, Sample, calibration};
use jali_model::{float, integer};
use rayon::prelude::*;
use serde::Serialize;

use super::text::{note, percent, progress, say, say_json, table};
use super::{Common, DIFFERENT, NetworkName, conclude, start_session};

/// Measure float, quantised and encrypted accuracy of a bundled network, and how often they agree.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  jali evaluate --network vgg3\n  jali evaluate --network mnist --data data/mnist --encrypted 100"
)]
pub(super) struct EvaluateArgs {
    /// Which bundled network
    #[arg(long, value_enum)]
    network: NetworkName,
    /// Folder with the full test set, as scripts/fetch-data writes it [default: the bundled 1000 images]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many images to run encrypted as well, everything hidden
    #[arg(long, value_name = "N", default_value_t = 0)]
    encrypted: usize,
    #[command(flatten)]
    common: Common,
}

/// The object that `--json` prints; accuracies are percentages of all images (for `encrypted`, of its own images).
#[derive(Serialize)]
struct Report {
    network: &'static str,
    dataset: &'static str,
    images: usize,
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
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let kernel = args.common.start()?;
    let network = Network::from(args.network);
    let samples = match &args.data {
        Some(folder) => network.dataset().full_test(folder)?,
        None => network.dataset().bundled_test()?,
    };
    let model = network.quantised(args.common.bits)?;
    let bar = progress(samples.len(), "plaintext");
    let predict = |s: &Sample| -> Result<(usize, usize), JaliError> {
        let float = float::run(model.graph(), s.image.clone())?.argmax();
        let quantised = integer::run(&model, s.image.clone())?.output.argmax();
        bar.inc(1);
        Ok((float, quantised))
    };
    let predictions: Vec<(usize, usize)> = samples.par_iter().map(predict).collect::<Result<_, _>>()?;
    bar.finish_and_clear();

    let total = samples.len();
    let count = |f: &dyn Fn(usize, (usize, usize)) -> bool| {
        let right = predictions.iter().zip(&samples).filter(|(p, s)| f(s.label, **p)).count();
        percent(right, total)
    };
    let mut report = Report {
        network: network.name(),
        dataset: network.dataset().name(),
        images: total,
        float_accuracy: count(&|label, (f, _)| f == label),
        quantised_accuracy: count(&|label, (_, q)| q == label),
        float_quantised_agreement: count(&|_, (f, q)| f == q),
        encrypted: None,
    };
    if args.encrypted > total {
        note(format!("note: --encrypted {}: the set has {total} images, all of them are used", args.encrypted))?;
    }
    if args.encrypted > 0 {
        let plan = Plan::hide_all(model.graph());
        let mut session = start_session(model.clone(), &plan, &calibration::kept_or_default(kernel), kernel)?;
        let n = args.encrypted.min(total);
        let bar = progress(n, "encrypted");
        let (mut right, mut agree, mut exact) = (0, 0, 0);
        for (sample, &(_, quantised)) in samples[..n].iter().zip(&predictions) {
            let run = session.infer(sample.image.clone())?;
            right += usize::from(run.output.argmax() == sample.label);
            agree += usize::from(run.output.argmax() == quantised);
            exact += usize::from(run.is_exact(session.model(), sample.image.clone())?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        report.encrypted = Some(Encrypted {
            images: n,
            accuracy: percent(right, n),
            quantised_agreement: percent(agree, n),
            exact: exact == n,
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
    say(format!("{} on {}\n{}", r.network, r.dataset, table(&["run", "images", "accuracy", "agreement"], 1, rows)))?;
    Ok(())
}
