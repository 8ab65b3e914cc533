//! The section of a report on how good the attackers' copies are.

use std::fmt::Write;

use super::{at, describe, fractions, policies};
use crate::attack::Attacker;
use crate::findings::Findings;
use crate::grid::percent;
use crate::run::CellResult;
use crate::summary::mean;
use crate::svg::{Chart, Series, escape};

/// Writes, for every budget and policy, how good the copies are.
pub(super) fn accuracy(out: &mut String, f: &Findings) {
    *out += "<p class=note>One line per attacker; 0 % open is the black box (the twins), 100 % \
             the white box. Points are means over seeds.</p>";
    let attackers: Vec<Attacker> = f.spec.grid.attackers.iter().filter_map(|a| a.parse().ok()).collect();
    for &budget in &f.spec.grid.budgets {
        for policy in policies(f) {
            let xs = fractions(f, &policy);
            let named: Vec<Attacker> = attackers
                .iter()
                .copied()
                .filter(|a| xs.iter().any(|x| *x < 1.0 && !at(f, &policy, *x, budget, *a).is_empty()))
                .collect();
            if named.is_empty() {
                continue;
            }
            let _ = write!(out, "<h3>{}, {budget} {}</h3><div class=pair>", escape(&describe(&policy)), f.unit());
            let figure = |what: &str, value: fn(&CellResult) -> f64| {
                let line = |a: &Attacker| Series {
                    name: a.to_string(),
                    points: xs
                        .iter()
                        // With everything open all attackers are the same.
                        .filter(|x| a.uses_weights() || **x == 0.0)
                        .filter_map(|&x| {
                            let cells = at(f, &policy, x, budget, *a);
                            (!cells.is_empty()).then(|| (100.0 * x, 100.0 * mean(cells.iter().map(|c| value(c)))))
                        })
                        .collect(),
                    ..Series::default()
                };
                let chart = Chart {
                    title: &format!("{what} of the copies against weights open"),
                    x: ("weights open, %", 0.0, 100.0),
                    y: (what, 0.0, 100.0),
                    levels: vec![
                        (format!("victim {:.1} %", 100.0 * f.victim_accuracy), 100.0 * f.victim_accuracy),
                        (format!("guessing {:.0} %", 100.0 * f.chance), 100.0 * f.chance),
                    ],
                    series: named.iter().map(line).collect(),
                    notes: vec![],
                };
                chart.figure("")
            };
            *out += &figure("accuracy, %", |r| r.accuracy);
            *out += &figure("agreement with the victim, %", |r| r.fidelity);
            *out += "</div>";
            accuracy_table(out, &named, &xs, |x, a| at(f, &policy, x, budget, a));
        }
    }
}

/// Writes what a pair of charts shows, as a table of fractions open and attackers.
fn accuracy_table<'a>(
    out: &mut String,
    attackers: &[Attacker],
    fractions: &[f64],
    cells_of: impl Fn(f64, Attacker) -> Vec<&'a CellResult>,
) {
    *out += "<div class=scroll><table><tr><th>weights open";
    for a in attackers {
        let _ = write!(out, "<th>{a}");
    }
    *out += "</tr>";
    for &x in fractions {
        let _ = write!(out, "<tr><td>{} %", percent(x));
        for a in attackers {
            let cells = cells_of(x, *a);
            if cells.is_empty() {
                *out += "<td>&ndash;";
            } else {
                let of = |v: fn(&CellResult) -> f64| 100.0 * mean(cells.iter().map(|c| v(c)));
                let _ = write!(out, "<td>{:.1} ({:.1})", of(|r| r.accuracy), of(|r| r.fidelity));
            }
        }
        *out += "</tr>";
    }
    *out += "</table></div><p class=note>Accuracy in %, in brackets agreement with the victim.</p>";
}
