//! The page: a verdict with its conditions, one chart, and on a click every number in a table. One
//! file, no network.

mod advantage;
mod copies;
mod cost;
mod learning;

use std::fmt::Write;

use crate::attack::Attacker;
use crate::findings::{Findings, LayerFacts};
use crate::run::CellResult;
use crate::svg::escape;
use crate::train::Schedule;

const STYLE: &str = include_str!("report/style.css");

/// The whole page.
pub fn html(f: &Findings) -> String {
    let name = f.spec.model.rsplit('/').next().unwrap_or(&f.spec.model);
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>What open weights of {0} give away</title><style>{STYLE}</style><h1>What open weights of {0} give away</h1>",
        escape(name)
    );
    verdict(&mut out, f);
    cost::chart(&mut out, f);
    facts(&mut out, f);
    section(&mut out, "What every plan costs and gives away", |out| cost::table(out, f));
    section(&mut out, "What the open weights add, budget by budget", |out| advantage::advantage(out, f));
    section(&mut out, "How good the attackers' copies are", |out| copies::accuracy(out, f));
    section(&mut out, "Which layers a plan opens", |out| exposure(out, f));
    section(&mut out, "Learning curves", |out| learning::learning(out, f));
    section(&mut out, "Method, and who attacked", |out| method(out, f));
    // Paper has nothing to click on.
    out += "<script>addEventListener('beforeprint',()=>document.querySelectorAll('details').forEach(d=>d.open=true))</script>";
    out + "</html>\n"
}

/// Writes a part that opens on a click; nothing if it is empty.
fn section(out: &mut String, title: &str, write: impl FnOnce(&mut String)) {
    let mut inside = String::new();
    write(&mut inside);
    if !inside.is_empty() {
        let _ = write!(out, "<details><summary>{}</summary>{inside}</details>", escape(title));
    }
}

fn verdict(out: &mut String, f: &Findings) {
    *out += "<div class=verdict>";
    for line in f.verdict() {
        let _ = write!(out, "<p>{}</p>", escape(&line));
    }
    let _ = write!(
        out,
        "<p class=note>Conditions: budgets of {} {}; {} seed(s); everything that a plan permits counts as open; biases, scales and the policy \
         are known to the attacker.</p></div>",
        f.spec.grid.budgets.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        f.unit(),
        f.spec.grid.seeds,
    );
}

fn facts(out: &mut String, f: &Findings) {
    let weights: usize = f.layers.iter().map(|l| l.weights).sum();
    let hours = f.results.iter().map(|r| r.seconds).sum::<f64>() / 3600.0;
    let items = [
        (format!("{:.1} %", 100.0 * f.victim_accuracy), "accuracy of the victim (quantised)"),
        (format!("{:.0} %", 100.0 * f.chance), "accuracy of guessing"),
        (weights.to_string(), "weights in linear layers"),
        (f.spec.scoring.to_string(), "scoring images"),
        (f.results.len().to_string(), "attacks run"),
        (format!("{hours:.1} h"), "of attackers' time"),
    ];
    *out += "<ul class=facts>";
    for (value, what) in items {
        let _ = write!(out, "<li><b>{}</b><span>{what}</span></li>", escape(&value));
    }
    *out += "</ul>";
}

/// Policies in the order of the grid.
fn policies(f: &Findings) -> Vec<String> {
    let mut all: Vec<String> = f.spec.grid.plan.iter().map(|_| "plan".into()).collect();
    for name in &f.spec.grid.policies {
        // `NAME@F` is one at a fraction.
        let name = name.split('@').next().unwrap_or(name);
        if !all.iter().any(|n| n == name) {
            all.push(name.into());
        }
    }
    all
}

/// One attacker's cells at a point, of all seeds. Where a command failed there is no copy.
fn at<'a>(f: &'a Findings, policy: &str, leaked: f64, budget: usize, attacker: Attacker) -> Vec<&'a CellResult> {
    let budget = if attacker.uses_images() { budget } else { 0 };
    let ends = |r: &CellResult| (r.policy == "nothing" && leaked == 0.0) || (r.policy == "everything" && leaked == 1.0);
    f.results
        .iter()
        .filter(|r| r.failure.is_none() && r.leaked == leaked && (r.policy == policy || ends(r)))
        // With everything open all attackers are the same.
        .filter(|r| leaked == 1.0 || (r.budget == budget && r.attacker == attacker.to_string()))
        .collect()
}

fn fractions(f: &Findings, policy: &str) -> Vec<f64> {
    let mut all: Vec<f64> = f.results.iter().filter(|r| r.policy == policy).map(|r| r.leaked).collect();
    all.extend([0.0, 1.0]);
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

fn describe(policy: &str) -> String {
    match policy.parse::<jali_leak::Policy>() {
        Ok(p) => format!("{policy} ({})", p.describe()),
        Err(_) => "the plan".into(),
    }
}

fn exposure(out: &mut String, f: &Findings) {
    *out += "<p class=note>Part of each layer's weights that the plan permits open (seed 0), in %.</p><div class=scroll><table><tr><th>plan";
    for LayerFacts { name, kind, weights } in &f.layers {
        let kind = escape(kind);
        let _ = write!(out, "<th title=\"{kind}, {weights} weights\">{}<br>{kind}", escape(name));
    }
    *out += "</tr>";
    for p in f.plans.iter().filter(|p| p.leaked > 0.0 && p.leaked < 1.0) {
        let _ = write!(out, "<tr><td>{}", escape(&p.name()));
        for e in &p.exposure {
            let _ = write!(out, "<td style=\"background:rgba(213,94,0,{:.2})\">{:.0}", e * 0.75, 100.0 * e);
        }
        *out += "</tr>";
    }
    *out += "</table></div>";
}

fn method(out: &mut String, f: &Findings) {
    let trains = f.spec.schedule.as_ref().map(trains).unwrap_or_default();
    let _ = write!(
        out,
        "<p>The victim is the quantised network; labels are its answers, never the true ones. The attacker is granted the \
         architecture, scales, biases, the policy and every weight that the plan permits. Every attacker has a black-box twin: the same \
         procedure, images, tuning and public model with nothing open. Budget images are drawn from the {}; scoring images are never among \
         them.</p>{trains}\
         <div class=scroll><table><tr><th>attacker<th class=text>what it does</tr>",
        if f.spec.data.is_some() { "training set" } else { "bundled images that do not score" },
    );
    for a in f.spec.grid.attackers.iter().filter_map(|a| a.parse::<Attacker>().ok()) {
        let _ = write!(out, "<tr><td>{}. {a}<td class=text>{}</tr>", a.number(), a.describe());
    }
    let _ = write!(
        out,
        "</table></div><p class=note>Made by jali-audit {} (method {}). Model {} ({}).</p>",
        env!("CARGO_PKG_VERSION"),
        f.spec.method,
        escape(&f.spec.model),
        escape(&f.spec.model_hash.chars().take(16).collect::<String>())
    );
}

/// How this program's attackers train.
fn trains(s: &Schedule) -> String {
    let mirrored = if s.mirror { " and mirrored at random" } else { "" };
    let cut = if s.hole > 0 { format!(", with a square of {} pixels cut out", s.hole) } else { String::new() };
    let smoothed = match s.smoothing > 0.0 {
        true => format!(" {:.0} % of a label is spread over all classes.", 100.0 * s.smoothing),
        false => String::new(),
    };
    let normal = if s.normal {
        " Batch normalisation stands behind every layer but the last, and is folded into it."
    } else {
        ""
    };
    format!(
        "<p>Of a budget, {:.0} % serve for validation. Training: Adam, batches of {}, learning rates {:?} from both fills each tried for {} \
         short rounds in every cell and the best on validation kept; a round is one pass over the training images, at least {} steps; after \
         {} rounds without improvement the rate falls to a third, after {} more training ends, or after {} rounds. \
         Training images are shifted by up to {} pixels{mirrored}{cut}.{smoothed}{normal} The state best on validation counts, the start \
         included.</p>",
        100.0 * s.validation,
        s.batch,
        s.rates,
        s.probe,
        s.steps,
        s.patience,
        s.patience / 2,
        s.rounds,
        s.shift,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::result;
    use crate::verdict::tests::{HIDDEN, findings};

    #[test]
    fn names_from_a_file_are_no_markup() {
        let mut f = findings(&[HIDDEN, ("last-layers", 0.5, 5.0, None)]);
        f.layers = vec![LayerFacts { name: "<i>x".into(), kind: "\"><script>alert".into(), weights: 1 }];
        // Cut at 16 characters, which are more bytes.
        f.spec.model_hash = "<script src=éééééé".into();
        let page = html(&f);
        for markup in ["<script src=", "<script>alert", "<i>x"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("&lt;script src=éééé)"));
    }

    #[test]
    fn failures_are_no_copies() {
        let mut f = findings(&[HIDDEN]);
        let copy = result("nothing", 0.0, 50, "distil", 0, "f");
        let failed = CellResult { failure: Some("it ended".into()), ..result("nothing", 0.0, 50, "distil", 1, "0") };
        f.results = vec![copy, failed];
        let seeds: Vec<u64> = at(&f, "random-rows", 0.0, 50, Attacker::Distil).iter().map(|r| r.seed).collect();
        assert_eq!(seeds, [0]);
    }
}
