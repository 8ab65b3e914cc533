//! The section of a report on how training went.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{fractions, policies};
use crate::findings::Findings;
use crate::grid::percent;
use crate::svg::{Chart, Series};

/// Writes the learning curves of the best attackers and twins, seed 0.
pub(super) fn learning(out: &mut String, f: &Findings) {
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
                notes: vec![],
            };
            figures += &chart.figure(&format!("{policy}, {budget} {}: best trained attacker, seed 0", f.unit()));
        }
    }
    if !figures.is_empty() {
        let _ = write!(out, "<div class=pair>{figures}</div>");
    }
}
