//! The first chart of a report: what every plan costs and gives away, and which is recommended.

use std::fmt::Write;

use crate::findings::Findings;
use crate::svg::{Chart, Note, Series, escape};
use crate::verdict::{BOUNDS, Judged};
use crate::words::{self, points};

/// Whether a plan is on the Pareto front: nothing else is both no dearer and surely no worse.
fn is_on_front(all: &[Judged<'_>], this: &Judged<'_>) -> bool {
    let (cost, most) = (|j: &Judged<'_>| j.plan.milliseconds(), |j: &Judged<'_>| j.upper);
    let is_better = |j: &Judged<'_>| {
        cost(j) <= cost(this) && most(j) <= most(this) && (cost(j) < cost(this) || most(j) < most(this))
    };
    this.upper.is_finite() && !all.iter().any(is_better)
}

/// Writes the chart.
pub(super) fn chart(out: &mut String, f: &Findings) {
    let judged = f.judged();
    let (Some(recommended), false) = (f.recommendations().into_iter().next(), judged.len() < 2) else { return };
    let mut names: Vec<&str> = vec![];
    for j in &judged {
        if !names.contains(&j.plan.policy.as_str()) {
            names.push(&j.plan.policy);
        }
    }
    let hidden = judged.iter().find(|j| j.plan.policy == "nothing").map_or(1.0, |j| j.plan.milliseconds());
    let cost = |j: &Judged<'_>| 100.0 * j.plan.milliseconds() / hidden;
    let point = |j: &Judged<'_>| (cost(j), 100.0 * j.worst.advantage);
    let of = |name: &str| -> Series {
        let mine = || judged.iter().filter(|j| j.plan.policy == name);
        Series {
            name: words::family(name),
            points: mine().map(point).collect(),
            spread: mine().map(|j| j.worst.interval.map(|i| i.map(|end| 100.0 * end))).collect(),
            scatter: true,
        }
    };
    let is_chosen = |j: &Judged<'_>| (&j.plan.policy, j.plan.leaked) == (&recommended.policy, recommended.leaked);
    let note = |j: &Judged<'_>| {
        let (x, y) = point(j);
        let name = j.plan.name();
        let text = if is_chosen(j) { format!("{name} (recommended)") } else { name };
        Note { x, y, text, ringed: is_chosen(j) }
    };
    let mut notes: Vec<Note> = judged.iter().map(note).collect();
    // Where there is no room for all names, that of the recommended plan stands.
    notes.sort_by_key(|n| !n.ringed);
    let costs = || judged.iter().map(cost);
    let (low, high) = (costs().fold(f64::INFINITY, f64::min), costs().fold(0.0, f64::max));
    let margin = 0.08 * (high - low).max(0.01);
    let top = judged.iter().map(|j| 100.0 * j.worst.interval.map_or(j.worst.advantage, |i| i[1]));
    let whose = if f.spec.guests.is_some() { "guest's time" } else { "time" };
    let chart = Chart {
        title: "what plans cost and what they give away",
        x: (
            &format!("{whose} for an image, % of that with everything hidden (predicted)"),
            low - margin,
            high + margin,
        ),
        y: ("given away, points of accuracy", 0.0, 1.05 * top.fold(10.0, f64::max)),
        levels: vec![(format!("{} points", 100.0 * BOUNDS[0]), 100.0 * BOUNDS[0])],
        series: names.into_iter().map(of).collect(),
        notes,
    };
    *out += "<div class=first>";
    *out += &chart.figure(
        "Each point is a plan: to the left is cheaper, below is safer. Given away: how much more often a copy is right that was made with \
         the open weights than one made without, in points, at the budget where that is most; bars are 95 % intervals. The ring is the \
         recommended plan.",
    );
    *out += "</div>";
}

/// Writes what the chart shows, as a table.
pub(super) fn table(out: &mut String, f: &Findings) {
    let judged = f.judged();
    let guests = f.spec.guests.is_some();
    *out += "<div class=scroll><table><tr><th>plan<th>permitted %<th>really open %";
    *out += if guests { "<th>ticket MB<th>guest's ms" } else { "<th>matrices MB<th>products<th>ms" };
    *out += "<th>given away<th>at most</tr>";
    for j in &judged {
        let p = j.plan;
        let _ = write!(
            out,
            "<tr{}><td>{}<td>{:.1}<td>{:.1}",
            if is_on_front(&judged, j) { " class=front" } else { "" },
            escape(&p.name()),
            100.0 * p.opened,
            100.0 * p.really_open
        );
        let _ = match p.ticket_bytes {
            Some(bytes) => write!(out, "<td>{:.2}", bytes as f64 / 1e6),
            None => write!(out, "<td>{:.2}<td>{}", p.bytes as f64 / 1e6, p.products),
        };
        let most = if j.upper.is_finite() { points(j.upper) } else { "&ndash;".into() };
        let _ = write!(out, "<td>{:.1}<td>{}<td>{most}</tr>", p.milliseconds(), points(j.worst.advantage));
    }
    *out += "</table></div><p class=note>\"At most\" is the worst upper end of the 95 % intervals of all budgets and attackers. Bold: no other plan is \
             both cheaper and safer by that. ";
    *out += if guests {
        "A guest computes an open beginning itself; weights that are open behind a hidden layer save nothing. Times are predicted for one thread.</p>"
    } else {
        "Sealing opens whole rows only: permissions for single weights or kernels save next to nothing, yet the attacker is granted them. \
         Times by the built-in cost model (two cores, AVX-512), client and server together.</p>"
    };
}
