use super::*;
use crate::grid::Grid;
use crate::run::{METHOD, Spec};

fn spec() -> Spec {
    let grid = Grid {
        policies: vec!["random-rows".into(), "last-layers".into()],
        fractions: vec![],
        budgets: vec![50],
        attackers: vec!["distil".into()],
        seeds: 3,
        plan: None,
    };
    Spec {
        method: METHOD,
        model: "net.onnx".into(),
        model_hash: String::new(),
        data: None,
        data_hash: None,
        dataset: "mnist".into(),
        scoring: 1000,
        schedule: None,
        plan: None,
        plan_hash: None,
        public_model: None,
        public_hash: None,
        command: None,
        guests: None,
        grid,
    }
}

/// Findings of plans with a time in ms and an interval of the advantage.
pub(crate) fn findings(plans: &[(&str, f64, f64, Option<[f64; 2]>)]) -> Findings {
    let fact = |&(policy, leaked, ms, _): &(&str, f64, f64, Option<[f64; 2]>)| PlanFacts {
        policy: policy.into(),
        leaked,
        opened: leaked,
        really_open: leaked,
        exposure: vec![leaked],
        bytes: 0,
        products: 0,
        predicted_ms: ms,
        ticket_bytes: None,
        guest_ms: None,
    };
    let row = |&(policy, leaked, _, interval): &(&str, f64, f64, Option<[f64; 2]>)| {
        let advantage = interval.map_or(0.0, |[low, high]| (low + high) / 2.0);
        Row {
            policy: policy.into(),
            leaked,
            opened: leaked,
            budget: 50,
            black_box: 0.5,
            black_box_attacker: "distil".into(),
            best_attacker: "distil".into(),
            accuracy: 0.5 + advantage,
            fidelity: 0.5,
            advantage,
            interval,
            paired_upper: None,
            seeds: 3,
            cut_off: false,
        }
    };
    Findings {
        spec: spec(),
        victim_accuracy: 0.9,
        chance: 0.1,
        layers: vec![],
        missing: 0,
        results: vec![],
        rows: plans.iter().map(row).collect(),
        plans: plans.iter().map(fact).collect(),
    }
}

pub(crate) const HIDDEN: (&str, f64, f64, Option<[f64; 2]>) = ("nothing", 0.0, 10.0, Some([0.0, 0.0]));

#[test]
fn the_cheapest_plan_within_the_bound_is_recommended() {
    let f = findings(&[
        HIDDEN,
        ("last-layers", 0.1, 8.0, Some([0.0, 0.01])),
        ("last-layers", 0.3, 6.0, Some([0.0, 0.015])),
        ("last-layers", 0.5, 4.0, Some([0.02, 0.045])),
        ("random-rows", 0.5, 5.0, Some([0.1, 0.3])),
        ("everything", 1.0, 2.0, Some([0.4, 0.4])),
    ]);
    let got: Vec<(f64, f64)> = f.recommendations().iter().map(|r| (r.bound, r.leaked)).collect();
    assert_eq!(got, [(0.02, 0.3), (0.05, 0.5), (0.1, 0.5)]);
    assert_eq!(f.recommendations()[0].policy, "last-layers");
    let said = f.verdict();
    assert!(
        said[0].starts_with("Recommended: last layers hidden, 30 % open. The best attacker tried gains 0.8 points")
    );
    assert!(said[1].contains("40 % less time"), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("Whoever accepts 5.0 points may use")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("\"random rows, 50 % open\": 20.0 points")), "{said:?}");
}

#[test]
fn no_plan_is_safer_than_one_that_opens_less() {
    // The larger fraction was lucky.
    let f = findings(&[
        HIDDEN,
        ("last-layers", 0.5, 8.0, Some([0.01, 0.09])),
        ("last-layers", 0.8, 6.0, Some([0.0, 0.01])),
    ]);
    let got: Vec<f64> = f.recommendations().iter().map(|r| r.leaked).collect();
    assert_eq!(got, [0.0, 0.0, 0.8]);
    assert!(f.verdict()[0].contains("hide everything. Of the 2 plans tried, 2 may give away more"));
}

#[test]
fn everything_open_and_random_plans_are_never_recommended() {
    let mut f = findings(&[
        HIDDEN,
        ("random-rows", 0.5, 5.0, Some([0.0, 0.001])),
        ("everything", 1.0, 2.0, Some([0.0, 0.001])),
    ]);
    assert!(f.recommendations().iter().all(|r| r.policy == "nothing"));
    // Where the black box is as good as the network, nothing can be told.
    f = findings(&[HIDDEN, ("last-layers", 0.5, 5.0, Some([0.0, 0.001]))]);
    assert!(f.recommendations().iter().all(|r| r.policy == "last-layers"));
    f.victim_accuracy = 0.51;
    assert!(f.recommendations().iter().all(|r| r.policy == "nothing"));
    assert!(f.verdict().iter().any(|line| line.contains("tells nothing about plans")));
}

#[test]
fn an_attacker_that_its_own_twin_cannot_follow_counts() {
    let mut f = findings(&[HIDDEN, ("last-layers", 0.5, 5.0, Some([0.0, 0.001]))]);
    f.rows[1].paired_upper = Some(0.06);
    let got: Vec<f64> = f.recommendations().iter().map(|r| r.leaked).collect();
    assert_eq!(got, [0.0, 0.0, 0.5]);
}

#[test]
fn what_saves_nothing_or_has_one_seed_is_not_recommended() {
    let f = findings(&[HIDDEN, ("last-layers", 0.5, 9.9, Some([0.0, 0.001])), ("random-rows", 0.5, 5.0, None)]);
    assert!(f.recommendations().iter().all(|r| r.policy == "nothing" && r.saves == 0.0));
    assert!(findings(&[]).recommendations().is_empty());
    assert_eq!(findings(&[]).verdict(), ["Nothing has been measured yet."]);
}

#[test]
fn a_smaller_plan_of_which_nothing_is_known_blocks_a_larger_one() {
    let mut f = findings(&[
        HIDDEN,
        ("last-layers", 0.5, 8.0, Some([0.0, 0.001])),
        ("last-layers", 0.8, 6.0, Some([0.0, 0.001])),
    ]);
    assert_eq!(f.recommendations()[0].leaked, 0.8);
    // Its attacks failed.
    f.rows.remove(1);
    assert_eq!(f.recommendations()[0].policy, "nothing");
}

#[test]
fn a_random_policy_within_the_bound_is_no_danger_and_no_plan() {
    let f = findings(&[HIDDEN, ("random-rows", 0.5, 5.0, Some([0.0, 0.001]))]);
    assert!(f.verdict()[0].contains("1 is drawn at random"), "{:?}", f.verdict());
}

#[test]
fn a_budget_with_one_seed_is_named() {
    let mut f = findings(&[HIDDEN, ("last-layers", 0.5, 5.0, Some([0.0, 0.1]))]);
    let mut more = f.rows.clone();
    for r in &mut more {
        (r.budget, r.seeds, r.interval) = (5000, 1, None);
    }
    f.rows.extend(more);
    let said = f.verdict().join(" ");
    assert!(
        said.contains("over 3 seeds or more and 1000 scoring images. With 5000 images there is one seed"),
        "{said}"
    );
    assert!(!said.contains("first impression"));
}
