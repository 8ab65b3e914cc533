//! Policies: what is opened first, and in which units. Deterministic given a seed. The seed decides *which* weights are
//! public, never a secret.
//!
//! A policy is an order (random, smallest magnitude first, ...) and a unit (weights, kernels, rows, columns, layers). Sealing opens
//! whole rows, columns or layers, so what smaller units permit is usually not worth opening: they exist to compare with the literature.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use jali_model::{Graph, Linear};

use crate::{LeakError, Plan};

/// What comes first when a plan opens weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Drawn from the seed.
    Random,
    /// Smallest mean magnitude: the largest stay hidden.
    Magnitude,
    /// Least sensitive by the scores in [`Ground`]: the most sensitive stay hidden.
    Sensitive,
    /// Most saving per weight by the savings in [`Ground`].
    Cost,
    /// The last layers: the first stay hidden.
    First,
    /// The first layers: the last stay hidden.
    Last,
}

/// What is opened or hidden as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Single weights.
    Weights,
    /// A filter's taps for one input channel (the paper's unit); single weights of a fully connected layer.
    Kernels,
    /// What one row of the layer's matrix holds: some of its outputs.
    Rows,
    /// All that one input channel, or one input of a fully connected layer, is multiplied with. Of grouped convolutions, whose channels meet some of the
    /// filters only, the layer.
    Columns,
    /// Whole layers.
    Layers,
}

/// An order with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    order: Order,
    unit: Unit,
}

/// Names with what they stand for.
const NAMES: [(&str, Order, Unit); 15] = [
    ("random-weights", Order::Random, Unit::Weights),
    ("random-kernels", Order::Random, Unit::Kernels),
    ("random-rows", Order::Random, Unit::Rows),
    ("magnitude-weights", Order::Magnitude, Unit::Weights),
    ("magnitude-kernels", Order::Magnitude, Unit::Kernels),
    ("magnitude-rows", Order::Magnitude, Unit::Rows),
    ("sensitive-weights", Order::Sensitive, Unit::Weights),
    ("sensitive-kernels", Order::Sensitive, Unit::Kernels),
    ("sensitive-rows", Order::Sensitive, Unit::Rows),
    ("cost-rows", Order::Cost, Unit::Rows),
    ("random-columns", Order::Random, Unit::Columns),
    ("magnitude-columns", Order::Magnitude, Unit::Columns),
    ("sensitive-columns", Order::Sensitive, Unit::Columns),
    ("first-layers", Order::First, Unit::Layers),
    ("last-layers", Order::Last, Unit::Layers),
];

/// What a policy may need besides the network.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ground<'a> {
    /// For every linear layer the ranges of weights that one row of its matrix holds.
    pub rows: &'a [Vec<Range<usize>>],
    /// For every linear layer what hiding each row costs, in any one unit.
    pub savings: &'a [Vec<f64>],
    /// For every linear layer how sensitive the network is to each weight.
    pub scores: &'a [Vec<f32>],
}

impl Policy {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(_, order, unit)| Self { order, unit })
    }

    /// What comes first.
    pub fn order(&self) -> Order {
        self.order
    }

    /// What is opened as one.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// What the policy leaves hidden, for people.
    pub fn describe(&self) -> String {
        let unit = match self.unit {
            Unit::Weights => "weights",
            Unit::Kernels => "kernels",
            Unit::Rows => "rows",
            Unit::Columns => "columns",
            Unit::Layers => "layers",
        };
        match self.order {
            Order::Random => format!("random {unit} open"),
            Order::Magnitude => format!("{unit} of the largest magnitude hidden"),
            Order::Sensitive => format!("the most sensitive {unit} hidden"),
            Order::Cost => format!("{unit} that save most open"),
            Order::First => format!("the first {unit} hidden"),
            Order::Last => format!("the last {unit} hidden"),
        }
    }

    /// A plan by which `fraction` of all weights may be open, as nearly as whole units allow.
    ///
    /// # Errors
    /// [`LeakError::Fraction`]; [`LeakError::Needs`] if `ground` lacks what the policy asks for or does not fit the network.
    pub fn plan(&self, graph: &Graph, ground: &Ground<'_>, fraction: f64, seed: u64) -> Result<Plan, LeakError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(LeakError::Fraction { got: fraction });
        }
        if fraction == 1.0 {
            return Ok(Plan::open_all(graph));
        }
        if fraction == 0.0 {
            return Ok(Plan::hide_all(graph));
        }
        let mut items = self.items(graph, ground)?;
        if self.order == Order::Random {
            shuffle(&mut items, seed);
        } else {
            items.sort_by(|a, b| a.key.total_cmp(&b.key).then((a.layer, a.runs.first).cmp(&(b.layer, b.runs.first))));
        }
        let target = fraction * graph.weights() as f64;
        let (mut plan, mut opened) = (Plan::hide_all(graph), 0);
        for item in items {
            // Opening a unit that overshoots by more than it was short would only move away from the target.
            if opened as f64 + item.runs.len() as f64 / 2.0 <= target {
                opened += item.runs.len();
                item.runs.ranges().for_each(|range| plan.open(item.layer, range));
            } else if self.order != Order::Random {
                // A later unit must not open before an earlier one.
                break;
            }
        }
        Ok(plan)
    }

    fn items(&self, graph: &Graph, ground: &Ground<'_>) -> Result<Vec<Item>, LeakError> {
        let needs = |what| LeakError::Needs { policy: self.to_string(), what };
        let mut items = vec![];
        for (layer, (_, linear)) in graph.linear_nodes().enumerate() {
            let weights = linear.weights();
            let units: Vec<Runs> = match self.unit {
                Unit::Weights => chunks(weights.len(), 1),
                Unit::Kernels => match linear {
                    Linear::Conv(c) => chunks(weights.len(), c.kernel[0] * c.kernel[1]),
                    Linear::Gemm(_) => chunks(weights.len(), 1),
                },
                Unit::Rows => {
                    let rows = ground.rows.get(layer).ok_or_else(|| needs("the rows of every layer"))?;
                    if rows.iter().any(|r| r.end > weights.len()) {
                        return Err(needs("rows that fit the network"));
                    }
                    rows.iter().cloned().map(Runs::one).collect()
                }
                Unit::Columns => columns(linear),
                Unit::Layers => chunks(weights.len(), weights.len()),
            };
            let scores = match self.order {
                Order::Sensitive => {
                    let scores = ground.scores.get(layer).filter(|s| s.len() == weights.len());
                    Some(scores.ok_or_else(|| needs("a sensitivity score for every weight"))?)
                }
                _ => None,
            };
            let savings = match self.order {
                Order::Cost => {
                    let savings = ground.savings.get(layer).filter(|s| s.len() == units.len());
                    Some(savings.ok_or_else(|| needs("the saving of every row"))?)
                }
                _ => None,
            };
            for (u, runs) in units.into_iter().enumerate() {
                let len = runs.len().max(1) as f64;
                let mean = |value: &dyn Fn(usize) -> f32| {
                    runs.ranges().flatten().map(|w| f64::from(value(w))).sum::<f64>() / len
                };
                let key = match self.order {
                    Order::Random => 0.0,
                    Order::Magnitude => mean(&|w| weights[w].abs()),
                    Order::Sensitive => scores.map_or(0.0, |s| mean(&|w| s[w])),
                    Order::Cost => -savings.map_or(0.0, |s| s[u] / len),
                    Order::First => -(layer as f64),
                    Order::Last => layer as f64,
                };
                items.push(Item { layer, runs, key });
            }
        }
        Ok(items)
    }
}

/// What is opened or hidden as one.
struct Item {
    layer: usize,
    runs: Runs,
    /// Smaller opens sooner.
    key: f64,
}

/// Runs of weights of equal length and distance: one, or those of a column.
#[derive(Clone, Copy)]
struct Runs {
    first: usize,
    run: usize,
    stride: usize,
    count: usize,
}

impl Runs {
    fn one(range: Range<usize>) -> Self {
        Self { first: range.start, run: range.len(), stride: 0, count: 1 }
    }

    fn len(&self) -> usize {
        self.count * self.run
    }

    fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |i| self.first + i * self.stride..self.first + i * self.stride + self.run)
    }
}

/// The columns of a layer; the layer itself if it has none.
fn columns(linear: Linear<'_>) -> Vec<Runs> {
    let (columns, fan_in, count) = (linear.columns(), linear.fan_in(), linear.outputs());
    if columns == 0 {
        return chunks(linear.weights().len(), linear.weights().len());
    }
    let run = fan_in / columns;
    (0..columns).map(|c| Runs { first: c * run, run, stride: fan_in, count }).collect()
}

fn chunks(len: usize, size: usize) -> Vec<Runs> {
    let size = size.max(1);
    (0..len.div_ceil(size)).map(|i| Runs::one(i * size..((i + 1) * size).min(len))).collect()
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|n| (n.1, n.2) == (self.order, self.unit));
        f.write_str(name.map_or("", |n| n.0))
    }
}

impl FromStr for Policy {
    type Err = LeakError;

    fn from_str(text: &str) -> Result<Self, LeakError> {
        let known = NAMES.iter().find(|n| n.0 == text);
        known.map(|&(_, order, unit)| Self { order, unit }).ok_or_else(|| LeakError::UnknownPolicy {
            got: text.into(),
            known: NAMES.iter().map(|n| n.0).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Random rows: what `--leak` does.
///
/// # Errors
/// As [`Policy::plan`].
pub fn random_rows(graph: &Graph, rows: &[Vec<Range<usize>>], fraction: f64, seed: u64) -> Result<Plan, LeakError> {
    let policy = Policy { order: Order::Random, unit: Unit::Rows };
    policy.plan(graph, &Ground { rows, ..Ground::default() }, fraction, seed)
}

/// Opens the named layers and hides the others.
///
/// # Errors
/// [`LeakError::UnknownLayer`].
pub fn listed_layers(graph: &Graph, names: &[String]) -> Result<Plan, LeakError> {
    let mut plan = Plan::hide_all(graph);
    for name in names {
        let found = graph.linear_nodes().enumerate().find(|(_, (node, _))| graph.nodes()[*node].name == *name);
        let Some((layer, (_, linear))) = found else {
            let known = graph.linear_nodes().map(|(node, _)| graph.nodes()[node].name.as_str());
            return Err(LeakError::UnknownLayer { got: name.clone(), known: known.collect::<Vec<_>>().join(", ") });
        };
        plan.open(layer, 0..linear.weights().len());
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
    use jali_model::{Conv, Gemm, Op};

    /// A convolution of 2x3 kernels and two fully connected layers; weights rise in magnitude with their index.
    fn graph() -> Graph {
        let mut g = Graph::new(vec![3, 4, 4]).unwrap();
        let ramp =
            |n: usize| (0..n).map(|i| (i as f32 + 1.0) * if i % 2 == 0 { 0.01 } else { -0.01 }).collect::<Vec<_>>();
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
        [(54, 27), (640, 64), (200, 200)]
            .map(|(len, size)| chunks(len, size).into_iter().flat_map(Runs::ranges).collect())
            .into()
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
                        Unit::Columns => 20.0,
                        Unit::Layers => 640.0,
                    };
                    let off = (got.fraction_open() - fraction).abs() * g.weights() as f64;
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
            if policy.unit() == Unit::Columns {
                let half = plan(&name, 0.5, 3);
                for (layer, (_, linear)) in g.linear_nodes().enumerate() {
                    let (fan_in, outputs) = (linear.fan_in(), linear.outputs());
                    // The same inputs for every output.
                    let open = |o: usize| {
                        (0..fan_in)
                            .map(|w| half.may_open(layer, o * fan_in + w..o * fan_in + w + 1))
                            .collect::<Vec<_>>()
                    };
                    assert!((1..outputs).all(|o| open(o) == open(0)), "{name}");
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
    fn a_seed_names_one_plan_of_a_random_policy() {
        for name in ["random-rows", "random-columns", "random-kernels", "random-weights"] {
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
}
