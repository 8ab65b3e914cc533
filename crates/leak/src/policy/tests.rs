use super::*;
use jali_model::{Conv, Gemm, Op};

/// A convolution of 2x3 kernels and two fully connected layers; weights rise in magnitude with
/// their index.
fn graph() -> Graph {
    let mut g = Graph::new(vec![3, 4, 4]).unwrap();
    let ramp = |n: usize| (0..n).map(|i| (i as f32 + 1.0) * if i % 2 == 0 { 0.01 } else { -0.01 }).collect::<Vec<_>>();
    let conv = Conv {
        weight: ramp(2 * 3 * 9),
        bias: vec![0.0; 2],
        filters: 2,
        channels: 3,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1; 4],
        dilation: [1, 1],
        groups: 1,
    };
    g.push("conv".into(), Op::Conv(conv), vec![g.output()]).unwrap();
    g.push("flat".into(), Op::Flatten, vec![g.output()]).unwrap();
    for (name, inputs, outputs) in [("fc1", 32, 20), ("fc2", 20, 10)] {
        let gemm = Gemm { weight: ramp(inputs * outputs), bias: vec![0.0; outputs], inputs, outputs };
        g.push(name.into(), Op::Gemm(gemm), vec![g.output()]).unwrap();
    }
    g
}

fn rows() -> Vec<Vec<Range<usize>>> {
    [(54, 27), (640, 64), (200, 200)].map(|(len, size)| chunks(len, size).into_iter().collect()).into()
}

fn savings() -> Vec<Vec<f64>> {
    vec![vec![100.0; 2], (0..10).map(f64::from).collect(), vec![1.0]]
}

fn scores(graph: &Graph) -> Vec<Vec<f32>> {
    graph.linear_nodes().map(|(_, l)| l.weights().iter().map(|w| 1.0 / w.abs()).collect()).collect()
}

fn plan(name: &str, fraction: f64, seed: u64) -> Plan {
    let g = graph();
    let (rows, savings, scores) = (rows(), savings(), scores(&g));
    let ground = Ground { rows: &rows, savings: &savings, scores: &scores };
    name.parse::<Policy>().unwrap().plan(&g, &ground, fraction, seed).unwrap()
}

#[test]
fn every_policy_meets_its_fraction_in_whole_units_and_repeats() {
    let g = graph();
    for policy in Policy::all() {
        let name = policy.to_string();
        for fraction in [0.0, 0.1, 0.5, 0.8, 0.95, 1.0] {
            for seed in 0..5 {
                let got = plan(&name, fraction, seed);
                got.validate(&g).unwrap();
                assert_eq!(got, plan(&name, fraction, seed), "{name} repeats");
                let largest = match policy.unit() {
                    Unit::Weights => 1.0,
                    Unit::Kernels => 9.0,
                    Unit::Rows => 200.0,
                    Unit::Layers => 640.0,
                };
                let off = (got.fraction_permitted() - fraction).abs() * g.weights() as f64;
                assert!(off <= largest / 2.0 + 1e-9, "{name} {fraction}: {} weights off", off);
                if policy.unit() == Unit::Rows {
                    for (layer, rows) in rows().iter().enumerate() {
                        for row in rows {
                            let open = got.may_open(layer, row.clone());
                            assert!(open || row.clone().all(|w| !got.may_open(layer, w..w + 1)), "whole or not");
                        }
                    }
                }
            }
        }
        assert_eq!(plan(&name, 0.0, 1), Plan::hide_all(&g));
        assert_eq!(plan(&name, 1.0, 1), Plan::open_all(&g));
        assert!(policy.describe().contains("open") || policy.describe().contains("hidden"));
    }
}

#[test]
fn ordered_policies_open_the_right_end() {
    let g = graph();
    let magnitude = |open: bool, name: &str| {
        let p = plan(name, 0.5, 0);
        let all = g
            .linear_nodes()
            .enumerate()
            .flat_map(|(l, (_, linear))| linear.weights().iter().enumerate().map(move |(w, v)| (l, w, v.abs())));
        all.filter(|&(l, w, _)| p.may_open(l, w..w + 1) == open).map(|(_, _, v)| v).collect::<Vec<_>>()
    };
    let max = |v: Vec<f32>| v.into_iter().fold(0.0, f32::max);
    let min = |v: Vec<f32>| v.into_iter().fold(f32::INFINITY, f32::min);
    assert!(max(magnitude(true, "magnitude-weights")) <= min(magnitude(false, "magnitude-weights")));
    // Scores are the inverse magnitudes.
    assert!(min(magnitude(true, "sensitive-weights")) >= max(magnitude(false, "sensitive-weights")));
    // Both rows of the convolution save most per weight.
    assert!(plan("cost-rows", 0.1, 0).may_open_layer(0));
    assert!(plan("last-layers", 0.06, 0).may_open_layer(0), "the first layer opens first when the last are hidden");
    assert!(plan("first-layers", 0.25, 0).may_open_layer(2));
    assert!(!plan("first-layers", 0.25, 0).may_open_layer(1));
}

#[test]
fn a_number_of_layers_names_a_plan() {
    let g = graph();
    let of = |name: &str| {
        let (policy, fraction) = of_layers(&g, name).unwrap().unwrap();
        policy.plan(&g, &Ground::default(), fraction, 0).unwrap()
    };
    let open = |p: &Plan| (0..3).map(|l| p.may_open_layer(l)).collect::<Vec<_>>();
    assert_eq!(open(&of("last-1-layers")), [true, true, false]);
    assert_eq!(open(&of("last-2-layers")), [true, false, false]);
    assert_eq!(open(&of("first-1-layers")), [false, true, true]);
    assert_eq!(open(&of("first-2-layers")), [false, false, true]);
    for name in ["last-0-layers", "last-3-layers", "first-99999999-layers"] {
        assert!(of_layers(&g, name).unwrap_err().to_string().contains("3 linear layers"), "{name}");
    }
    for name in ["last-layers", "last-x-layers", "random-2-layers", "last-99999999999999999999999-layers"] {
        assert!(of_layers(&g, name).unwrap().is_none(), "{name}");
    }
}

#[test]
fn a_seed_names_one_plan_of_a_random_policy() {
    for name in ["random-rows", "random-kernels", "random-weights"] {
        assert!((0..10).any(|s| plan(name, 0.5, s) != plan(name, 0.5, 7)), "{name}");
    }
}

#[test]
fn listed_layers_open_and_unknown_ones_are_named() {
    let g = graph();
    let p = listed_layers(&g, &["fc1".into()]).unwrap();
    assert!(p.may_open_layer(1) && !p.may_open_layer(0) && !p.may_open_layer(2));
    let error = listed_layers(&g, &["fc9".into()]).unwrap_err().to_string();
    assert!(error.contains("fc9") && error.contains("fc2"), "{error}");
}

#[test]
fn unusable_requests_are_errors() {
    let g = graph();
    let policy: Policy = "random-rows".parse().unwrap();
    let rows = rows();
    let ground = Ground { rows: &rows, ..Ground::default() };
    for fraction in [-0.1, 1.1, f64::NAN] {
        assert!(policy.plan(&g, &ground, fraction, 0).is_err());
    }
    for name in ["random-rows", "sensitive-weights", "cost-rows"] {
        let error = name.parse::<Policy>().unwrap().plan(&g, &Ground::default(), 0.5, 0).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!("magic".parse::<Policy>().unwrap_err().to_string().contains("random-rows"));
    let mut other = Graph::new(vec![20]).unwrap();
    let gemm = Gemm { weight: vec![0.5; 20], bias: vec![0.0], inputs: 20, outputs: 1 };
    other.push("fc".into(), Op::Gemm(gemm), vec![0]).unwrap();
    assert!(Plan::hide_all(&g).validate(&other).is_err());
}
