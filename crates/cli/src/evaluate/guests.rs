//! `jali evaluate --guest`: accuracy of the fixed-point network that guests run.

use jali::{JaliError, Reading, Sample, Tensor};
use jali_model::fixed::FixedNetwork;
use jali_model::fixed::reference::{self, as_tickets_do, to_nearest};
use rayon::prelude::*;
use serde::Serialize;

use super::{Classes, Predicted};
use crate::labelled::Subject;
use crate::text::{percent, progress};

/// Percentages of all images.
#[derive(Serialize)]
pub(super) struct Accuracy {
    /// Sums rounded to the nearest.
    fixed_accuracy: f64,
    /// Sums rounded as random tickets do: what guests get.
    ticket_accuracy: f64,
    float_fixed_agreement: f64,
    float_ticket_agreement: f64,
}

/// The class that an output names. A softmax behind it changes none.
fn class(network: &FixedNetwork, classes: Classes, output: &[i64]) -> Result<usize, JaliError> {
    let numbers: Tensor = network.numbers(output)?;
    Ok(match classes.reading {
        Reading::Other => usize::MAX,
        reading => reading.class(&numbers).unwrap_or(usize::MAX),
    })
}

/// Runs the fixed-point network on the images that were predicted; `None` unless it was asked for.
pub(super) fn measure(
    subject: &Subject,
    classes: Classes,
    predictions: &[Predicted],
) -> anyhow::Result<Option<Accuracy>> {
    let Some(network) = &subject.fixed else { return Ok(None) };
    let bar = progress(predictions.len(), "guests");
    let run = |i: usize| -> Result<[usize; 2], JaliError> {
        let Sample { image, .. } = subject.images.get(i)?;
        let input = network.quantise(&image)?;
        let fixed = reference::run(network, &input, to_nearest).output;
        let ticket = reference::run(network, &input, as_tickets_do(i as u64)).output;
        bar.inc(1);
        Ok([class(network, classes, &fixed)?, class(network, classes, &ticket)?])
    };
    let found: Vec<[usize; 2]> = (0..predictions.len()).into_par_iter().map(run).collect::<Result<_, _>>()?;
    bar.finish_and_clear();
    let count = |f: &dyn Fn(&Predicted, &[usize; 2]) -> bool| {
        percent(predictions.iter().zip(&found).filter(|(p, f_)| f(p, f_)).count(), found.len())
    };
    Ok(Some(Accuracy {
        fixed_accuracy: count(&|p, [fixed, _]| *fixed == p.label),
        ticket_accuracy: count(&|p, [_, ticket]| *ticket == p.label),
        float_fixed_agreement: count(&|p, [fixed, _]| *fixed == p.float),
        float_ticket_agreement: count(&|p, [_, ticket]| *ticket == p.float),
    }))
}

impl Accuracy {
    /// Lines of the table.
    pub(super) fn rows(&self, images: usize) -> Vec<Vec<String>> {
        let row = |what: &str, accuracy: f64, agreement: f64| {
            vec![what.into(), images.to_string(), format!("{accuracy:.2} %"), format!("{agreement:.2} % with float")]
        };
        vec![
            row("fixed point", self.fixed_accuracy, self.float_fixed_agreement),
            row("guest", self.ticket_accuracy, self.float_ticket_agreement),
        ]
    }
}
