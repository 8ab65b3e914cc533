//! What `jali infer` prints.

use jali::Tensor;
use serde::Serialize;

use super::classes::Classes;
use super::inputs::Input;
use crate::text::{Spread, note, say};

/// Classes shown per image.
const TOP: usize = 5;

#[derive(Serialize)]
pub(super) struct Report {
    /// Model file, client's bundle or wallet.
    pub(super) model: String,
    /// `in-process`, `http` or `websocket`.
    pub(super) transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calibration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weights_hidden: Option<f64>,
    /// Images whose class is known and was found, of so many whose class is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correct: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<Spread>,
    /// Requests that had to be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retries: Option<usize>,
    /// Which output is read as classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<String>,
    /// Files in folders that are no images.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) skipped: usize,
    pub(super) images: Vec<Outcome>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) file: String,
    /// Time of its batch, divided by the images in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<f64>,
    /// Every layer equals a plaintext run; absent where this process has no model to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exact: Option<bool>,
    /// Every answer passed the ciphertext check; absent for guests, who cannot check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checked: Option<bool>,
    /// The server has signed what a guest got: the owner can judge it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correct: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top: Vec<Guess>,
    /// Files that hold its outputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) outputs: Vec<String>,
    /// `false` where an earlier failure ended the run before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tried: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<u8>,
}

#[derive(Serialize)]
pub(super) struct Guess {
    pub(super) class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    /// Absent where the network gives the class alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probability: Option<f32>,
}

/// How an image was classified.
pub(super) struct How {
    pub(super) latency_ms: f64,
    /// Whether it equals the reference.
    pub(super) exact: Option<bool>,
    pub(super) is_guest: bool,
}

impl Outcome {
    /// An image that was classified.
    pub(super) fn classified(
        input: &Input,
        top: Vec<Guess>,
        outputs: Vec<String>,
        How { latency_ms, exact, is_guest }: How,
    ) -> Self {
        Self {
            file: input.name.clone(),
            latency_ms: Some(latency_ms),
            exact,
            checked: (!is_guest).then_some(true),
            signed: is_guest.then_some(true),
            correct: input.class.map(|class| top.first().is_some_and(|t| t.class == class)),
            top,
            outputs,
            tried: None,
            error: None,
            exit_code: None,
        }
    }

    /// An image that has no result.
    pub(super) fn failed(name: &str, error: String, code: u8) -> Self {
        Self {
            file: name.into(),
            latency_ms: None,
            exact: None,
            checked: None,
            signed: None,
            correct: None,
            top: vec![],
            outputs: vec![],
            tried: None,
            error: Some(error),
            exit_code: Some(code),
        }
    }

    /// An image that was not tried, as an earlier failure ended the run.
    pub(super) fn untried(name: &str, why: &str, code: u8) -> Self {
        Self { tried: Some(false), ..Self::failed(name, format!("not tried any more: {why}"), code) }
    }
}

/// The best classes.
pub(super) fn guesses(classes: &Classes, outputs: &[Tensor]) -> Vec<Guess> {
    let Some((reading, output)) = classes.read.and_then(|(at, reading)| Some((reading, outputs.get(at)?))) else {
        return vec![];
    };
    let labels = classes.labels.as_deref();
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

pub(super) fn csv(o: &Outcome) -> String {
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

pub(super) fn print(outcome: &Outcome) -> std::io::Result<()> {
    if let Some(error) = &outcome.error {
        return note(format!("error: {error}"));
    }
    let exact = match outcome.exact {
        Some(true) => "equals plaintext exactly",
        Some(false) => "DIFFERS FROM PLAINTEXT",
        // A guest cannot check what a server computes; the owner can judge what it signed.
        None if outcome.signed == Some(true) => "signed by the server",
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
        say("  its outputs are not read as classes; --outputs DIR keeps all outputs")?;
    }
    Ok(())
}

pub(super) fn summarise(r: &Report) -> std::io::Result<()> {
    if let (Some(times), true) = (&r.latency_ms, r.transport != "in-process") {
        let is_good = |o: &&Outcome| o.checked == Some(true) || o.signed == Some(true);
        let good = r.images.iter().filter(is_good).count();
        let correct = r.correct.map(|c| format!(", {c} classified correctly")).unwrap_or_default();
        let what = if r.transport == "http" { "every answer passed the check" } else { "signed by the server" };
        say(format!("\n{good} of {} images: {what}{correct}", r.images.len()))?;
        say(format!("latency {:.1} ms median ({:.1} to {:.1})", times.median, times.min, times.max))?;
        if let Some(retries) = r.retries.filter(|&n| n > 0) {
            say(format!("{retries} request(s) had to be sent again"))?;
        }
    }
    let untried = r.images.iter().filter(|o| o.tried == Some(false)).count();
    if untried > 0 {
        note(format!("{untried} image(s) were not tried any more"))?;
    }
    Ok(())
}
