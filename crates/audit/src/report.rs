//! The page: curves with every number in a table beside them, a verdict with its conditions. One
//! file, no network.

mod copies;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::attack::Attacker;
use crate::findings::{Findings, LayerFacts};
use crate::grid::percent;
use crate::run::CellResult;
use crate::summary::Row;
use crate::svg::{Chart, Series, bars, escape};

/// Bound on the advantage that the page's verdict speaks about.
pub const BOUND: f64 = 0.02;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#5a5a5a;--line:#d8d8d8;--paper:#fff;--card:#f6f7f9}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--soft:#a8a8a8;--line:#3c3c3c;--paper:#161719;--card:#202226}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;padding:1rem;max-width:76rem}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line)}
h3{font-size:1.02rem;margin:1.4rem 0 .4rem}
.verdict{background:var(--card);border-left:5px solid #d55e00;padding:.8rem 1rem;margin:1rem 0}.verdict p:first-child{font-weight:600;margin-top:0}
.verdict p:last-child{margin-bottom:0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.6rem;padding:0;list-style:none}
.facts li{background:var(--card);padding:.6rem .8rem}.facts b{display:block;font-size:1.25rem}.facts span{color:var(--soft);font-size:.85rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem 1.6rem;align-items:start}
figure{margin:0}.bars{max-width:44rem}svg{width:100%;height:auto}figcaption,.note{color:var(--soft);font-size:.85rem}.legend{font-size:.85rem;margin:.2rem 0}
.legend span{white-space:nowrap;margin-right:.8rem}.legend svg{width:26px;height:10px}
svg text{fill:var(--ink)}svg .grid{stroke:var(--line)}svg line.level{stroke:var(--soft);stroke-dasharray:3 3}svg text.level{fill:var(--soft);font-size:11px}
svg .bar{stroke:var(--ink)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.2rem .55rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
td.text,th.text{text-align:left}tr.front td{font-weight:600}
@media print{body{font-size:11px;max-width:none}h2{break-after:avoid}figure,table,.verdict{break-inside:avoid}}
";

/// The whole page.
pub fn html(f: &Findings) -> String {
    let name = f.spec.model.rsplit('/').next().unwrap_or(&f.spec.model);
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>What open weights of {0} give away</title><style>{STYLE}</style><h1>What open weights of {0} give away</h1>",
        escape(name)
    );
    verdict(&mut out, f);
    facts(&mut out, f);
    copies::accuracy(&mut out, f);
    advantage(&mut out, f);
    cost(&mut out, f);
    exposure(&mut out, f);
    learning(&mut out, f);
    method(&mut out, f);
    out + "</html>\n"
}

fn verdict(out: &mut String, f: &Findings) {
    *out += "<div class=verdict>";
    for line in f.verdict(BOUND) {
        let _ = write!(out, "<p>{}</p>", escape(&line));
    }
    let _ = write!(
        out,
        "<p class=note>Conditions: the attackers below and none stronger; budgets of {} labelled images; {} seed(s); {} scoring images; \
         everything that a plan permits counts as open; biases, scales and the policy are known to the attacker. A new attack can only \
         raise these figures.{}</p></div>",
        f.spec.grid.budgets.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        f.spec.grid.seeds,
        f.spec.scoring,
        if f.missing > 0 {
            format!(" <b>The run is not finished: {} cells have no result yet.</b>", f.missing)
        } else {
            String::new()
        }
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
    let mut all = f.spec.grid.policies.clone();
    if f.spec.grid.plan.is_some() {
        all.insert(0, "plan".into());
    }
    all
}

/// Mean over seeds of one attacker's cells at a point, if there are any.
fn at<'a>(f: &'a Findings, policy: &str, leaked: f64, budget: usize, attacker: Attacker) -> Vec<&'a CellResult> {
    let budget = if attacker.uses_images() { budget } else { 0 };
    let ends = |r: &CellResult| (r.policy == "nothing" && leaked == 0.0) || (r.policy == "everything" && leaked == 1.0);
    f.results
        .iter()
        .filter(|r| r.leaked == leaked && (r.policy == policy || ends(r)))
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

fn interval(r: &Row) -> String {
    r.interval.map_or("one seed".into(), |[l, h]| format!("{:.1} to {:.1}", 100.0 * l, 100.0 * h))
}

fn advantage(out: &mut String, f: &Findings) {
    *out += "<h2>What the open weights add</h2><p class=note>Advantage: accuracy of the best attacker minus that of the best black-box twin, in \
             points, each side's best of every seed, with 95 % intervals over seeds and scoring images. An attacker may ignore what is open.</p>";
    for &budget in &f.spec.grid.budgets {
        let rows: Vec<&Row> = f.rows.iter().filter(|r| r.budget == budget && r.policy != "nothing").collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(out, "<h3>{budget} labelled images</h3><figure class=bars>");
        let groups: Vec<_> = rows
            .iter()
            .map(|r| {
                let spread = r.interval.map(|[l, h]| [100.0 * l, 100.0 * h]);
                (format!("{} {} %", r.policy, percent(r.leaked)), 100.0 * r.advantage, spread)
            })
            .collect();
        *out += &bars("advantage of the best attacker", "advantage, points of accuracy", &groups);
        *out += "</figure><div class=scroll><table><tr><th>policy<th>open %<th class=text>best attacker<th>accuracy %<th>agreement %\
                 <th>black box %<th class=text>(twin)<th>advantage<th>interval<th>seeds</tr>";
        for r in &rows {
            let _ = write!(
                out,
                "<tr><td>{}<td>{}<td class=text>{}{}<td>{:.1}<td>{:.1}<td>{:.1}<td class=text>{}<td>{:.1}<td>{}<td>{}</tr>",
                escape(&r.policy),
                percent(r.leaked),
                escape(&r.best_attacker),
                if r.cut_off { "*" } else { "" },
                100.0 * r.accuracy,
                100.0 * r.fidelity,
                100.0 * r.black_box,
                escape(&r.black_box_attacker),
                100.0 * r.advantage,
                interval(r),
                r.seeds
            );
        }
        *out += "</table></div>";
    }
    if f.rows.iter().any(|r| r.cut_off) {
        *out += "<p class=note>* the longest allowed training ended before a plateau: a more patient attacker may do better (and so may \
                 its twin).</p>";
    }
}

/// The worst advantage of a plan over all budgets.
fn worst<'a>(f: &'a Findings, policy: &str, leaked: f64) -> Option<&'a Row> {
    f.rows
        .iter()
        .filter(|r| r.policy == policy && r.leaked == leaked)
        .max_by(|a, b| a.advantage.total_cmp(&b.advantage))
}

fn cost(out: &mut String, f: &Findings) {
    let points: Vec<_> =
        f.plans.iter().filter_map(|p| Some((p, 100.0 * worst(f, &p.policy, p.leaked)?.advantage))).collect();
    if points.is_empty() {
        return;
    }
    let megabytes = |b: usize| b as f64 / 1e6;
    // On the front: nothing else is both no larger and no worse.
    let front = |bytes: usize, advantage: f64| {
        !points.iter().any(|(p, a)| p.bytes <= bytes && *a <= advantage && (p.bytes < bytes || *a < advantage))
    };
    let high = points.iter().map(|(p, _)| megabytes(p.bytes)).fold(0.0, f64::max) * 1.08;
    let mut names: Vec<&str> = vec![];
    for (p, _) in &points {
        if !names.contains(&p.policy.as_str()) {
            names.push(&p.policy);
        }
    }
    let mut series: Vec<Series> = names
        .iter()
        .map(|n| Series {
            name: (*n).into(),
            points: points.iter().filter(|(p, _)| p.policy == *n).map(|(p, a)| (megabytes(p.bytes), *a)).collect(),
            scatter: true,
            ..Series::default()
        })
        .collect();
    let mut line: Vec<(f64, f64)> =
        points.iter().filter(|(p, a)| front(p.bytes, *a)).map(|(p, a)| (megabytes(p.bytes), *a)).collect();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    series.push(Series { name: "Pareto front".into(), points: line, ..Series::default() });
    let top = points.iter().map(|p| p.1).fold(10.0, f64::max) * 1.05;
    let chart = Chart {
        title: "advantage against size of the sealed matrices",
        x: ("matrices on the server, MB", 0.0, high),
        y: ("worst advantage, points", 0.0, top),
        levels: vec![],
        series,
    };
    *out += "<h2>What it costs and what it gives away</h2><div class=pair>";
    *out +=
        &chart.figure("Each point is a plan; the best are at the lower left. Advantage is the worst over all budgets.");
    *out += "<div class=scroll><table><tr><th>policy<th>permitted %<th>really open %<th>matrices MB<th>products<th>predicted ms\
             <th>worst advantage</tr>";
    for (p, a) in &points {
        let _ = write!(
            out,
            "<tr{}><td>{}<td>{:.1}<td>{:.1}<td>{:.2}<td>{}<td>{:.1}<td>{a:.1}</tr>",
            if front(p.bytes, *a) { " class=front" } else { "" },
            escape(&p.policy),
            100.0 * p.opened,
            100.0 * p.really_open,
            megabytes(p.bytes),
            p.products,
            p.predicted_ms
        );
    }
    *out += "</table></div></div><p class=note>Bold: on the Pareto front. Sealing opens whole rows only: permissions for single weights or \
             kernels save next to nothing, yet the attacker is granted them. Times by the built-in cost model (two cores, AVX-512), client and \
             server together.</p>";
}

fn exposure(out: &mut String, f: &Findings) {
    *out += "<h2>Exposure per layer</h2><p class=note>Part of each layer's weights that the plan permits open (seed 0), in %.</p>\
             <div class=scroll><table><tr><th>plan";
    for LayerFacts { name, kind, weights } in &f.layers {
        let _ = write!(out, "<th title=\"{kind}, {weights} weights\">{}<br>{kind}", escape(name));
    }
    *out += "</tr>";
    for p in f.plans.iter().filter(|p| p.leaked > 0.0 && p.leaked < 1.0) {
        let _ = write!(out, "<tr><td>{} {} %", escape(&p.policy), percent(p.leaked));
        for e in &p.exposure {
            let _ = write!(out, "<td style=\"background:rgba(213,94,0,{:.2})\">{:.0}", e * 0.75, 100.0 * e);
        }
        *out += "</tr>";
    }
    *out += "</table></div>";
}

/// Learning curves of the best attackers and twins, seed 0.
fn learning(out: &mut String, f: &Findings) {
    let mut seen = BTreeSet::new();
    let mut figures = String::new();
    for &budget in &f.spec.grid.budgets {
        for policy in policies(f) {
            let mut series = vec![];
            for x in fractions(f, &policy).into_iter().filter(|x| *x < 1.0) {
                let name = if x == 0.0 { "nothing" } else { policy.as_str() };
                let trained = f.results.iter().filter(|r| {
                    r.policy == name && r.leaked == x && r.budget == budget && r.seed == 0 && !r.curve.is_empty()
                });
                let Some(best) = trained.max_by(|a, b| a.accuracy.total_cmp(&b.accuracy)) else { continue };
                let point = |p: &crate::train::Point| (p.step as f64, 100.0 * f64::from(p.validation_agreement));
                series.push(Series {
                    name: format!("{} % open, {}", percent(x), best.attacker),
                    points: best.curve.iter().map(point).collect(),
                    ..Series::default()
                });
            }
            if series.is_empty() || !seen.insert((budget, policy.clone())) {
                continue;
            }
            let last = series.iter().flat_map(|s| &s.points).map(|p| p.0).fold(1.0, f64::max);
            let chart = Chart {
                title: "learning curves",
                x: ("training steps", 0.0, last),
                y: ("validation agreement, %", 0.0, 100.0),
                levels: vec![],
                series,
            };
            figures += &chart.figure(&format!("{policy}, {budget} labelled images: best trained attacker, seed 0"));
        }
    }
    if !figures.is_empty() {
        let _ = write!(out, "<h2>Learning curves</h2><div class=pair>{figures}</div>");
    }
}

fn method(out: &mut String, f: &Findings) {
    let s = &f.spec.schedule;
    let _ = write!(
        out,
        "<h2>Method</h2><p>The victim is the quantised network; labels are its answers, never the true ones. The attacker is granted the \
         architecture, scales, biases, the policy and every weight that the plan permits. Every attacker has a black-box twin: the same \
         procedure, images, tuning and public model with nothing open. Budget images are drawn from the {}; scoring images are never among \
         them. Of a budget, {:.0} % serve for validation.</p><p>Training: Adam, batches of {}, learning rates {:?} from both fills each tried for {} short rounds in \
         every cell and the best on validation kept; a round is one pass over the training images, at least {} steps; after {} rounds without \
         improvement the rate falls to a third, after {} more training ends, or after {} rounds. Training images are shifted by up to {} \
         pixels{}. The state best on validation counts, the start included.</p><div class=scroll><table><tr><th>attacker<th class=text>what it does</tr>",
        if f.spec.data.is_some() { "training set" } else { "bundled images that do not score" },
        100.0 * s.validation,
        s.batch,
        s.rates,
        s.probe,
        s.steps,
        s.patience,
        s.patience / 2,
        s.rounds,
        s.shift,
        if s.mirror { " and mirrored at random" } else { "" }
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
        &f.spec.model_hash[..f.spec.model_hash.len().min(16)]
    );
}
