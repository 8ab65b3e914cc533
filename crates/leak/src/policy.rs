//! Policies: the order in which a plan opens weights, and the units. They are deterministic given a
//! seed. The seed decides *which* weights are public, never a secret.
//!
//! A policy is an order (random, smallest magnitude first, ...) and a unit (weights, kernels, rows,
//! layers). Sealing opens whole rows, and rarely are all weights of a row permitted if units are
//! smaller. Those exist to compare with the literature.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use jali_model::{Graph, Linear};

use crate::{LeakError, Plan};

/// The order in which a plan opens weights.
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

/// The weights that are opened or hidden together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Single weights.
    Weights,
    /// A filter's taps for one input channel (the paper's unit); single weights of a fully
    /// connected layer.
    Kernels,
    /// All weights that one row of the layer's operator holds: those of some of its outputs.
    Rows,
    /// Whole layers.
    Layers,
}

/// An order with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    order: Order,
    unit: Unit,
}

/// Names of the policies with their orders and units.
const NAMES: [(&str, Order, Unit); 12] = [
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
    ("first-layers", Order::First, Unit::Layers),
    ("last-layers", Order::Last, Unit::Layers),
];

/// Figures that a policy may need besides the network.
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
    /// Returns all policies.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(_, order, unit)| Self { order, unit })
    }

    /// Returns the policy's order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Returns the policy's unit.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Describes in words what the policy leaves hidden, or opens.
    pub fn describe(&self) -> String {
        let unit = match self.unit {
            Unit::Weights => "weights",
            Unit::Kernels => "kernels",
            Unit::Rows => "rows",
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

    /// Makes a plan by which `fraction` of all weights, from 0 to 1, may be open, as nearly as
    /// whole units allow.
    ///
    /// # Errors
    /// [`LeakError::Fraction`] for a fraction outside of that, [`LeakError::Needs`] if `ground`
    /// lacks what the policy asks for or does not fit the network.
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
            items.sort_by(|a, b| {
                a.key.total_cmp(&b.key).then((a.layer, a.weights.start).cmp(&(b.layer, b.weights.start)))
            });
        }
        let target = fraction * graph.weights() as f64;
        let (mut plan, mut opened) = (Plan::hide_all(graph), 0);
        for item in items {
            // Opening a unit that overshoots by more than it was short would only move away from
            // the target.
            if opened as f64 + item.weights.len() as f64 / 2.0 <= target {
                opened += item.weights.len();
                plan.open(item.layer, item.weights);
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
            let units: Vec<Range<usize>> = match self.unit {
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
                    rows.clone()
                }
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
            for (u, unit) in units.into_iter().enumerate() {
                let len = unit.len().max(1) as f64;
                let mean = |value: &dyn Fn(usize) -> f32| unit.clone().map(|w| f64::from(value(w))).sum::<f64>() / len;
                let key = match self.order {
                    Order::Random => 0.0,
                    Order::Magnitude => mean(&|w| weights[w].abs()),
                    Order::Sensitive => scores.map_or(0.0, |s| mean(&|w| s[w])),
                    Order::Cost => -savings.map_or(0.0, |s| s[u] / len),
                    Order::First => -(layer as f64),
                    Order::Last => layer as f64,
                };
                items.push(Item { layer, weights: unit, key });
            }
        }
        Ok(items)
    }
}

/// One unit of a layer, opened or hidden as a whole.
struct Item {
    layer: usize,
    weights: Range<usize>,
    /// Smaller opens sooner.
    key: f64,
}

fn chunks(len: usize, size: usize) -> Vec<Range<usize>> {
    let size = size.max(1);
    (0..len.div_ceil(size)).map(|i| i * size..((i + 1) * size).min(len)).collect()
}

/// Reads `last-N-layers` or `first-N-layers`, which hide N of the network's linear layers, as a
/// policy with the fraction of the weights that stays open. Returns `None` for other names.
///
/// # Errors
/// [`LeakError::Layers`] unless N is at least 1 and leaves a layer open.
pub fn of_layers(graph: &Graph, name: &str) -> Result<Option<(Policy, f64)>, LeakError> {
    let ends = [("last-", Order::Last), ("first-", Order::First)];
    let mut read = ends.iter().filter_map(|(start, order)| {
        let count = name.strip_prefix(start)?.strip_suffix("-layers")?;
        Some((count.parse::<usize>().ok()?, *order))
    });
    let Some((count, order)) = read.next() else { return Ok(None) };
    let sizes: Vec<usize> = graph.linear_nodes().map(|(_, linear)| linear.weights().len()).collect();
    let open = match sizes.len().checked_sub(count) {
        Some(open) if open > 0 && count > 0 => open,
        _ => return Err(LeakError::Layers { got: name.into(), layers: sizes.len() }),
    };
    let opened: usize = if order == Order::Last { sizes[..open].iter().sum() } else { sizes[count..].iter().sum() };
    Ok(Some((Policy { order, unit: Unit::Layers }, opened as f64 / graph.weights().max(1) as f64)))
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

/// Makes a plan of random rows, as `--leak` does. `rows` is [`Ground::rows`].
///
/// # Errors
/// [`LeakError::Fraction`] or [`LeakError::Needs`] as for [`Policy::plan`].
pub fn random_rows(graph: &Graph, rows: &[Vec<Range<usize>>], fraction: f64, seed: u64) -> Result<Plan, LeakError> {
    let policy = Policy { order: Order::Random, unit: Unit::Rows };
    policy.plan(graph, &Ground { rows, ..Ground::default() }, fraction, seed)
}

/// Opens the named layers and hides the others.
///
/// # Errors
/// [`LeakError::UnknownLayer`] for a name that no linear layer has.
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

/// Shuffles by Fisher-Yates on a BLAKE3 stream: the same order on every machine and with every
/// version of any crate.
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
mod tests;
