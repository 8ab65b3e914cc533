//! The section of a report on what open weights add, for each budget.

use std::fmt::Write;

use crate::findings::{Findings, PlanFacts};
use crate::summary::Row;
use crate::svg::{bars, escape};
use crate::words;

fn interval(r: &Row) -> String {
    r.interval.map_or("one seed".into(), |[l, h]| format!("{:.1} to {:.1}", 100.0 * l, 100.0 * h))
}

/// Writes, for every budget, the best attacker beside the best black box.
pub(super) fn advantage(out: &mut String, f: &Findings) {
    *out += "<p class=note>Advantage: accuracy of the best attacker minus that of the best black-box twin, in \
             points, each side's best of every seed, with 95 % intervals over seeds and scoring images. An attacker may ignore what is open.</p>";
    for &budget in &f.spec.grid.budgets {
        let rows: Vec<&Row> = f.rows.iter().filter(|r| r.budget == budget && r.policy != "nothing").collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(out, "<h3>{budget} {}</h3><figure class=bars>", f.unit());
        let groups: Vec<_> = rows
            .iter()
            .map(|r| {
                let spread = r.interval.map(|[l, h]| [100.0 * l, 100.0 * h]);
                (name(f, r), 100.0 * r.advantage, spread)
            })
            .collect();
        *out += &bars("advantage of the best attacker", "advantage, points of accuracy", &groups);
        *out += "</figure><div class=scroll><table><tr><th>plan<th class=text>best attacker<th>accuracy %<th>agreement %\
                 <th>black box %<th class=text>(twin)<th>advantage<th>interval<th>seeds</tr>";
        for r in &rows {
            let _ = write!(
                out,
                "<tr><td>{}<td class=text>{}{}<td>{:.1}<td>{:.1}<td>{:.1}<td class=text>{}<td>{:.1}<td>{}<td>{}</tr>",
                escape(&name(f, r)),
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

/// A row's plan in words.
fn name(f: &Findings, r: &Row) -> String {
    f.plan_of(r).map_or_else(|| words::plan(&r.policy, r.leaked, &[]), PlanFacts::name)
}
