//! The attackers on small networks whose answers are known.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::Device;
use jali::Sample;
use jali_audit::attack::{Attacker, Knowledge, Queries, attack};
use jali_audit::fill::generator;
use jali_audit::grid::{Cell, Grid, Source};
use jali_audit::network::{Layer, forward, images, vector};
use jali_audit::planner::{Goal, Minimise, Verdict, search};
use jali_audit::run::{CellResult, Context, METHOD, Pool, Spec};
use jali_audit::train::{Examples, Free, Schedule, Task, argmax, classify, train};
use jali_audit::victim::Victim;
use jali_leak::file::model_hash;
use jali_leak::{Plan, listed_layers};
use jali_model::{Conv, Gemm, Graph, Op, Pool as Window, QuantModel, Tensor, float};
use rand::RngExt;

fn values(count: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut rng = generator("test", seed);
    (0..count).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * size).collect()
}

fn gemm(inputs: usize, outputs: usize, seed: u64) -> Op {
    let size = (3.0 / inputs as f32).sqrt();
    Op::Gemm(Gemm {
        weight: values(inputs * outputs, size, seed),
        bias: values(outputs, 0.1, seed + 1),
        inputs,
        outputs,
    })
}

/// Strides, uneven padding, dilation, groups, both poolings with ceiling, a sum and a fully
/// connected layer.
fn everything() -> Graph {
    let mut g = Graph::new(vec![3, 11, 9]).unwrap();
    let conv = |filters, channels, groups, stride, padding, dilation, seed| {
        let weight = values(filters * channels * 6, 0.4, seed);
        Op::Conv(Conv {
            weight,
            bias: values(filters, 0.2, seed + 7),
            filters,
            channels,
            kernel: [3, 2],
            stride,
            padding,
            dilation,
            groups,
        })
    };
    let first = g.push("a".into(), conv(4, 3, 1, [1, 1], [2, 1, 0, 0], [1, 1], 1), vec![0]).unwrap();
    let relu = g.push("r".into(), Op::RELU, vec![first]).unwrap();
    let second = g.push("b".into(), conv(4, 2, 2, [1, 1], [2, 2, 2, 0], [2, 2], 2), vec![relu]).unwrap();
    let sum = g.push("sum".into(), Op::ADD, vec![second, relu]).unwrap();
    let window = |ceil, count_padding| Window {
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        padding: [1, 0, 1, 1],
        count_padding,
        ceil,
    };
    let max = g.push("max".into(), Op::MaxPool(window(true, false)), vec![sum]).unwrap();
    let third = g.push("c".into(), conv(5, 4, 1, [2, 1], [1, 1, 1, 1], [1, 1], 3), vec![max]).unwrap();
    let mean = g.push("mean".into(), Op::AveragePool(window(false, true)), vec![third]).unwrap();
    let flat = g.push("flat".into(), Op::Flatten, vec![mean]).unwrap();
    let inputs = g.shape(flat).iter().product();
    g.push("fc".into(), gemm(inputs, 4, 9), vec![flat]).unwrap();
    g
}

fn layers(graph: &Graph, device: &Device) -> Vec<Layer> {
    let layer =
        |(_, l): (usize, jali_model::Linear<'_>)| Layer::plain(vector(l.weights(), device), vector(l.bias(), device));
    graph.linear_nodes().map(layer).collect()
}

#[test]
fn the_differentiable_network_equals_the_float_reference() {
    let (g, device) = (everything(), Device::flex());
    let pixels: Vec<Vec<f32>> = (0..3).map(|i| values(3 * 11 * 9, 1.0, 40 + i)).collect();
    let got: Vec<f32> =
        forward(&g, &layers(&g, &device), images(&g, pixels.concat(), &device)).into_data().try_to_vec().unwrap();
    for (image, got) in pixels.iter().zip(got.chunks(4)) {
        let want = float::run(&g, Tensor::new("image", vec![3, 11, 9], image.clone()).unwrap()).unwrap();
        for (w, g) in want.data.iter().zip(got) {
            assert!((w - g).abs() < 1e-4 * (1.0 + w.abs()), "{want:?} {got:?}");
        }
    }
}

/// A victim on 1x28x28 with a layer that matters (`live`), one that does not (`dead`: its outputs
/// are always below zero before the ReLU), and a last one. Labels are the victim's own, so that its
/// accuracy is 1.
fn half_dead() -> Graph {
    let mut g = Graph::new(vec![1, 28, 28]).unwrap();
    let flat = g.push("flat".into(), Op::Flatten, vec![0]).unwrap();
    let live = g.push("live".into(), gemm(784, 32, 1), vec![flat]).unwrap();
    let live = g.push("r1".into(), Op::RELU, vec![live]).unwrap();
    let Op::Gemm(mut dead) = gemm(784, 32, 5) else { panic!("a gemm") };
    dead.bias.fill(-100.0);
    let dead = g.push("dead".into(), Op::Gemm(dead), vec![flat]).unwrap();
    let dead = g.push("r2".into(), Op::RELU, vec![dead]).unwrap();
    let sum = g.push("sum".into(), Op::ADD, vec![live, dead]).unwrap();
    let Op::Gemm(mut last) = gemm(32, 4, 9) else { panic!("a gemm") };
    last.bias.fill(0.0);
    g.push("last".into(), Op::Gemm(last), vec![sum]).unwrap();
    g
}

fn noise(count: usize, seed: u64) -> Vec<Tensor> {
    let image =
        |i| Tensor { shape: vec![1, 28, 28], data: values(784, 0.5, seed + i).iter().map(|v| v + 0.5).collect() };
    (0..count as u64).map(image).collect()
}

fn victim(graph: Graph) -> Victim {
    Victim::new(QuantModel::calibrate(graph, Default::default(), &noise(8, 900), Some((0.0, 1.0))).unwrap()).unwrap()
}

#[test]
fn who_knows_everything_is_the_victim_and_training_frozen_weights_leaves_them_alone() {
    let (v, device) = (victim(half_dead()), Device::flex());
    let queries = Queries { images: noise(20, 1), logits: v.answer(&noise(20, 1)).unwrap() };
    let test = noise(60, 5000);
    let pixels: Vec<Vec<f32>> = test.iter().map(|t| t.data.clone()).collect();
    let said: Vec<usize> = v.answer(&test).unwrap().iter().map(|l| argmax(l)).collect();
    let run = |attacker, plan: &Plan| {
        let hidden = v.hidden(plan);
        let knows = Knowledge { victim: &v, hidden: &hidden, policy: None, queries: &queries, public: None };
        attack(attacker, &knows, &Schedule::quick(false), 0, &device).unwrap()
    };
    let agrees = |layers: &[Layer]| {
        let got = classify(v.graph(), layers, &pixels, &device);
        got.iter().zip(&said).filter(|(a, b)| a == b).count()
    };
    assert!(agrees(&run(Attacker::Zero, &Plan::open_all(v.graph())).layers) >= 58, "the white box is the victim");
    // The dead layer alone may stay hidden without any harm.
    let rest = listed_layers(v.graph(), &["live".into(), "last".into()]).unwrap();
    for attacker in Attacker::all().filter(|a| !a.needs_command() && *a != Attacker::Public) {
        let surrogate = run(attacker, &rest);
        if matches!(attacker, Attacker::Zero | Attacker::Statistics) {
            assert!(agrees(&surrogate.layers) >= 58, "{attacker}");
        }
        let weights = |l: usize| -> Vec<f32> { surrogate.layers[l].weight.clone().into_data().try_to_vec().unwrap() };
        if attacker == Attacker::TuneHidden {
            assert_eq!(weights(0), v.layers()[0].weights, "open weights are frozen");
            assert!(!surrogate.curve.is_empty());
        }
    }
    let hidden = v.hidden(&Plan::hide_all(v.graph()));
    let knows = Knowledge { victim: &v, hidden: &hidden, policy: None, queries: &queries, public: None };
    assert!(attack(Attacker::Public, &knows, &Schedule::quick(false), 0, &device).is_err(), "no public model");
    // A public model that is the victim gives everything away.
    let theirs: Vec<_> = v.layers().iter().map(|l| Some(l.weights.clone())).collect();
    let knows = Knowledge { public: Some(&theirs), ..knows };
    let public = attack(Attacker::Public, &knows, &Schedule::quick(false), 0, &device).unwrap();
    assert!(agrees(&public.layers) >= 55, "a public model that is the victim");
}

#[test]
fn training_learns_and_repeats() {
    let (g, device) = (half_dead(), Device::flex());
    // Bright left or bright right half.
    let image = |right: bool, i: u64| -> Vec<f32> {
        values(784, 0.2, i)
            .iter()
            .enumerate()
            .map(|(k, v)| v + if (k % 28 >= 14) == right { 0.8 } else { 0.2 })
            .collect()
    };
    let examples = Examples {
        images: (0..40).map(|i| image(i % 2 == 0, i)).collect(),
        targets: (0..40)
            .map(|i| if i % 2 == 0 { vec![1.0, 0.0, 0.0, 0.0] } else { vec![0.0, 1.0, 0.0, 0.0] })
            .collect(),
    };
    let hidden: Vec<Vec<f32>> = g.linear_nodes().map(|(_, l)| vec![1.0; l.weights().len()]).collect();
    let starts = [layers(&g, &device)];
    let task = Task { graph: &g, starts: &starts, hidden: &hidden, free: Free::Everything };
    let schedule = Schedule { shift: 0, ..Schedule::quick(false) };
    let (a, b) = (train(&task, examples.clone(), &schedule, 3, &device), train(&task, examples, &schedule, 3, &device));
    assert_eq!(a.curve, b.curve, "the same seed, the same training");
    let fresh: Vec<Vec<f32>> = (100..140).map(|i| image(i % 2 == 0, i)).collect();
    let right = classify(&g, &a.layers, &fresh, &device).iter().enumerate().filter(|(i, c)| **c == i % 2).count();
    assert!(right >= 38, "{right} of 40");
}

/// Two halves of a layer, of which one is hidden. What is hidden is planted to be sums of two rows
/// that are open each, or drawn like those.
fn half_hidden(is_planted: bool) -> (Victim, Vec<Vec<f32>>) {
    let Op::Gemm(mut first) = gemm(784, 48, 1) else { panic!("a gemm") };
    if is_planted {
        for row in 24..48 {
            for i in 0..784 {
                let open = |r: usize| first.weight[(row + r) % 24 * 784 + i];
                first.weight[row * 784 + i] = (open(0) - open(7)) * 0.7;
            }
        }
    }
    let mut g = Graph::new(vec![1, 28, 28]).unwrap();
    let flat = g.push("flat".into(), Op::Flatten, vec![0]).unwrap();
    let first = g.push("first".into(), Op::Gemm(first), vec![flat]).unwrap();
    let relu = g.push("relu".into(), Op::RELU, vec![first]).unwrap();
    let Op::Gemm(mut last) = gemm(48, 4, 9) else { panic!("a gemm") };
    // What is open says next to nothing by itself.
    last.weight.iter_mut().enumerate().filter(|(i, _)| i % 48 < 24).for_each(|(_, w)| *w *= 0.05);
    g.push("last".into(), Op::Gemm(last), vec![relu]).unwrap();
    let first = (0..48 * 784).map(|i| if i < 24 * 784 { 0.0 } else { 1.0 }).collect();
    (victim(g), vec![first, vec![0.0; 48 * 4]])
}

/// Hidden rows that are sums of open ones are found; rows that are none are not.
#[test]
fn a_planted_leak_is_found() {
    let (device, test) = (Device::flex(), noise(300, 5000));
    let pixels: Vec<Vec<f32>> = test.iter().map(|t| t.data.clone()).collect();
    let agreement = |is_planted: bool, attacker: Attacker, open: bool| {
        let (v, partly) = half_hidden(is_planted);
        let images = noise(300, 1);
        let queries = Queries { logits: v.answer(&images).unwrap(), images };
        let hidden = if open { partly } else { v.hidden(&Plan::hide_all(v.graph())) };
        let knows = Knowledge { victim: &v, hidden: &hidden, policy: None, queries: &queries, public: None };
        let schedule = Schedule { shift: 0, ..Schedule::full(false) };
        let surrogate = attack(attacker, &knows, &schedule, 0, &device).unwrap();
        let said = v.answer(&test).unwrap();
        let got = classify(v.graph(), &surrogate.layers, &pixels, &device);
        let right = got.iter().zip(&said).filter(|(g, s)| **g == argmax(s)).count();
        eprintln!("planted {is_planted}, {attacker}, open {open}: {right} of 300");
        right as f64 / 300.0
    };
    let found = agreement(true, Attacker::Span, true);
    let twin = agreement(true, Attacker::Span, false);
    assert!(found > 0.85 && found > twin + 0.2, "a leak: {found} beside the twin's {twin}");
    for other in [Attacker::Distil, Attacker::TuneHidden] {
        assert!(found > agreement(true, other, true) + 0.1, "{other} does not find it");
    }
    assert!(found > agreement(false, Attacker::Span, true) + 0.1, "where nothing is planted, nothing is found");
}

/// Attackers of the toy's planner.
const TOY: [Attacker; 3] = [Attacker::Zero, Attacker::Statistics, Attacker::TuneHidden];

/// A run about the toy, and what its planner is to find.
fn toy(folder: &Path) -> (Context, Goal) {
    let graph = half_dead();
    let model = QuantModel::calibrate(graph.clone(), Default::default(), &noise(8, 900), Some((0.0, 1.0))).unwrap();
    let said = |images: &[Tensor]| Victim::new(model.clone()).unwrap().answer(images).unwrap();
    let labelled = |images: Vec<Tensor>| -> Vec<Sample> {
        let labels = said(&images);
        images.into_iter().zip(labels).map(|(image, l)| Sample { image, label: argmax(&l) }).collect()
    };
    let policies = vec!["sensitive-rows".into()];
    let fractions = vec![0.25, 0.497, 0.8];
    let spec = Spec {
        method: METHOD,
        model: "toy".into(),
        model_hash: model_hash(&graph),
        data: None,
        data_hash: None,
        dataset: "mnist".into(),
        scoring: 400,
        schedule: Some(Schedule { shift: 0, ..Schedule::quick(false) }),
        plan: None,
        plan_hash: None,
        public_model: None,
        public_hash: None,
        command: None,
        guests: None,
        grid: Grid {
            policies,
            fractions: fractions.clone(),
            budgets: vec![0, 20],
            attackers: TOY.iter().map(ToString::to_string).collect(),
            seeds: 2,
            plan: None,
        },
    };
    std::fs::create_dir(folder.join("cells")).unwrap();
    let (pool, test) = (Pool::Bundled(labelled(noise(150, 20_000))), labelled(noise(400, 40_000)));
    let context = Context::assemble(folder, spec, model, pool, test, Device::flex()).unwrap();
    let goal = Goal {
        max_advantage: 0.05,
        minimise: Minimise::Size,
        policies: vec!["sensitive-rows".parse().unwrap()],
        fractions,
        budgets: vec![0, 20],
        attackers: TOY.to_vec(),
        seeds: 4,
    };
    (context, goal)
}

/// The planner finds that the dead layer may be open, and nothing else.
#[test]
fn the_planner_finds_the_safe_plan_of_a_toy() {
    let folder = tempfile::tempdir().unwrap();
    let (context, goal) = toy(folder.path());
    let graph = context.victim().graph();
    let run = |cells: &[Cell]| cells.iter().map(|c| context.run(c)).collect();
    let choice = search(&context, &goal, run, |c, v| eprintln!("{} {}: {v:?}", c.policy, c.leaked)).unwrap();
    let chosen = choice.chosen.unwrap();
    assert_eq!(chosen.leaked, 0.497, "{:?}", choice.tried);
    assert!(choice.tried.iter().any(|(_, f, v)| *f == 0.8 && !matches!(v, Verdict::Safe { .. })), "{:?}", choice.tried);
    // Exactly the dead layer.
    assert_eq!(choice.plan, listed_layers(graph, &["dead".into()]).unwrap());
    let evidence = choice.evidence.unwrap();
    assert!(evidence.upper <= 0.05 && evidence.plan == choice.plan.digest(graph), "{evidence:?}");
    assert_eq!(context.plan(Source::Nothing, 0.0, 0).unwrap(), Plan::hide_all(graph));
    // A bound that is finer than the intervals is never claimed.
    let strict = Goal { max_advantage: 1e-6, ..goal };
    let run = |cells: &[Cell]| cells.iter().map(|c| context.run(c)).collect();
    let choice = search(&context, &strict, run, |_, _| {}).unwrap();
    assert!(choice.chosen.is_none() && choice.plan == Plan::hide_all(graph), "{:?}", choice.tried);
}

/// Every check has twins of its own: those that were lucky once must not vouch for another plan.
#[test]
fn every_check_of_the_planner_has_seeds_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (context, goal) = toy(folder.path());
    let asked = RefCell::new(vec![]);
    // The largest fraction looks safe until it is checked.
    let run = |cells: &[Cell]| {
        asked.borrow_mut().extend(cells.iter().map(|c| (c.source, c.leaked, c.seed)));
        let is_found_out = |c: &Cell| c.leaked == 0.8 && c.seed >= goal.seeds;
        Ok(cells.iter().map(|c| copy(c, if is_found_out(c) { "f" } else { "c" })).collect())
    };
    let choice = search(&context, &goal, run, |_, _| {}).unwrap();
    let verdicts: Vec<_> = choice.tried.iter().map(|(_, leaked, verdict)| (*leaked, verdict)).collect();
    assert!(
        matches!(verdicts[..], [(0.8, Verdict::NotConfirmed { .. }), (0.497, Verdict::Safe { .. })]),
        "{verdicts:?}"
    );
    assert!(choice.evidence.unwrap().claim.contains("check 2"));
    let seeds = |leaked: f64| {
        let asked = asked.borrow();
        asked.iter().filter(|a| a.1 == leaked).map(|a| a.2).collect::<BTreeSet<u64>>()
    };
    assert_eq!(seeds(0.8), (0..8).collect());
    assert_eq!(seeds(0.497), (0..4).chain(8..12).collect());
    assert_eq!(seeds(0.0), (0..12).collect());
}

/// The result of a copy that has the same images of each four right.
fn copy(cell: &Cell, four: &str) -> CellResult {
    let accuracy = if four == "f" { 1.0 } else { 0.5 };
    CellResult {
        id: cell.id(),
        policy: cell.source.to_string(),
        leaked: cell.leaked,
        opened: cell.leaked,
        budget: cell.budget,
        attacker: cell.attacker.to_string(),
        seed: cell.seed,
        accuracy,
        fidelity: accuracy,
        right: four.repeat(100),
        rate: None,
        curve: vec![],
        plateau: true,
        seconds: 0.0,
        engine: "a test".into(),
        failure: None,
    }
}
