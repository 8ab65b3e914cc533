//! Policies: deterministic given a seed. The seed decides *which* weights are public, never a secret.

use std::ops::Range;

use jali_model::Graph;

use crate::{LeakError, Plan};

/// Opens random rows until `fraction` of all weights may be open, as nearly as whole rows allow. `rows` lists for every
/// linear layer the ranges of weights that one row of its matrix holds: rows are what saves something when open.
///
/// # Errors
/// [`LeakError::Fraction`].
pub fn random_rows(graph: &Graph, rows: &[Vec<Range<usize>>], fraction: f64, seed: u64) -> Result<Plan, LeakError> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(LeakError::Fraction { got: fraction });
    }
    if fraction == 1.0 {
        return Ok(Plan::open_all(graph));
    }
    let mut order: Vec<(usize, &Range<usize>)> =
        rows.iter().enumerate().flat_map(|(layer, rows)| rows.iter().map(move |r| (layer, r))).collect();
    shuffle(&mut order, seed);
    let target = fraction * graph.weights() as f64;
    let (mut plan, mut opened) = (Plan::hide_all(graph), 0);
    for (layer, row) in order {
        // Opening a row that overshoots by more than it was short would only move away from the target.
        if (opened as f64 + row.len() as f64 / 2.0) <= target {
            plan.open(layer, row.clone());
            opened += row.len();
        }
    }
    Ok(plan)
}

/// Fisher-Yates on a BLAKE3 stream: the same order on every machine and with every version of any crate.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut hasher = blake3::Hasher::new_derive_key("jali 1 plan: random rows");
    hasher.update(&seed.to_le_bytes());
    let mut stream = hasher.finalize_xof();
    for i in (1..items.len()).rev() {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        // The bias of a 64-bit remainder is beyond notice here.
        items.swap(i, (u64::from_le_bytes(bytes) % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jali_model::{Gemm, Op};

    fn graph() -> Graph {
        let mut g = Graph::new(vec![20]).unwrap();
        for outputs in [20, 20, 20] {
            let gemm = Gemm { weight: vec![0.5; 400], bias: vec![0.0; 20], inputs: 20, outputs };
            g.push("fc".into(), Op::Gemm(gemm), vec![g.output()]).unwrap();
        }
        g
    }

    fn rows() -> Vec<Vec<Range<usize>>> {
        vec![
            (0..20).map(|r| r * 20..(r + 1) * 20).collect(),
            (0..4).map(|r| r * 100..(r + 1) * 100).collect(),
            vec![0..400],
        ]
    }

    #[test]
    fn the_fraction_is_met_by_whole_rows() {
        let g = graph();
        for fraction in [0.0, 0.1, 0.5, 0.8, 0.95, 1.0] {
            for seed in 0..20 {
                let plan = random_rows(&g, &rows(), fraction, seed).unwrap();
                plan.validate(&g).unwrap();
                // At most half of the largest row away, and only where nothing smaller is left.
                assert!((plan.fraction_open() - fraction).abs() <= 0.17, "{fraction} {}", plan.fraction_open());
                for (layer, rows) in rows().iter().enumerate() {
                    for row in rows {
                        let open = plan.may_open(layer, row.clone());
                        assert!(open || row.clone().all(|w| !plan.may_open(layer, w..w + 1)), "a row is whole or not");
                    }
                }
            }
        }
        assert_eq!(random_rows(&g, &rows(), 0.0, 1).unwrap(), Plan::hide_all(&g));
        assert_eq!(random_rows(&g, &rows(), 1.0, 1).unwrap(), Plan::open_all(&g));
    }

    #[test]
    fn a_seed_names_one_plan() {
        let g = graph();
        let plan = |seed| random_rows(&g, &rows(), 0.5, seed).unwrap();
        assert_eq!(plan(7), plan(7));
        assert!((0..10).any(|s| plan(s) != plan(7)));
    }

    #[test]
    fn unusable_fractions_and_foreign_networks_are_errors() {
        let g = graph();
        for fraction in [-0.1, 1.1, f64::NAN] {
            assert!(random_rows(&g, &rows(), fraction, 0).is_err());
        }
        let mut other = Graph::new(vec![20]).unwrap();
        let gemm = Gemm { weight: vec![0.5; 20], bias: vec![0.0], inputs: 20, outputs: 1 };
        other.push("fc".into(), Op::Gemm(gemm), vec![0]).unwrap();
        assert!(Plan::hide_all(&g).validate(&other).is_err());
    }
}
