//! Graphs to steps.
//!
//! A layer's sums are not a value that another layer can take: they are clamped first. Where the
//! graph has a ReLU behind a layer, or behind an Add of layers, that is the clamp; where it has
//! none, a clamp to the range that calibration sees is put in.

use super::draft::{Bounds, Draft, DraftOp, DraftStep, Weights};
use super::ends::{bits_of_class, classes_of, head_graph, head_of, refused, tail_of};
use super::{FixedId, Outputs};
use crate::ModelError;
use crate::error::Offence;
use crate::graph::{Graph, ValueId};
use crate::op::{Activation, Arithmetic, Constant, Conv, Op, Pool, ReduceKind};
use crate::tensor::Tensor;
use crate::{Node, nonlinear};

/// A value of the graph while it is lowered.
#[derive(Debug, Clone)]
enum Held {
    /// Another layer can take it.
    Value(FixedId),
    /// Summands that nobody has clamped yet.
    Terms(Vec<FixedId>),
}

struct Lowering<'g> {
    graph: &'g Graph,
    steps: Vec<DraftStep>,
    held: Vec<Option<Held>>,
    uses: Vec<usize>,
    layers: usize,
    /// By step: whether its results are sums of windows, whose scale is not free; and whether none
    /// is negative.
    kinds: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    is_sum: bool,
    is_positive: bool,
}

/// Why a node cannot run, and what to do.
type Refusal = (String, &'static str);

const RELU_INSTEAD: &str = "train with ReLU, ReLU6 or Clip in its place, or seal for keyed clients";
const KEYED: &str = "seal for keyed clients, who compute it in the clear";

/// Steps of a graph.
///
/// # Errors
/// [`ModelError::Unsupported`] with all nodes that cannot run.
pub(super) fn lower(graph: &Graph, outputs: Outputs) -> Result<Draft, ModelError> {
    let (first, input) = head_of(graph);
    let (behind, tail) = tail_of(graph)?;
    let mut uses = vec![0; graph.nodes().len() + 1];
    graph.nodes().iter().flat_map(|n| &n.inputs).for_each(|&v| uses[v] += 1);
    let mut lowering =
        Lowering { graph, steps: vec![], held: vec![None; graph.nodes().len() + 1], uses, layers: 0, kinds: vec![] };
    lowering.held[input] = Some(Held::Value(0));
    let mut offences = vec![];
    for (i, node) in graph.nodes().iter().enumerate() {
        if i + 1 > behind || first[i + 1] {
            continue;
        }
        match lowering.node(i, node) {
            Ok(held) => lowering.held[i + 1] = Some(held),
            Err((reason, remedy)) => {
                offences.push(Offence {
                    node: node.name.clone(),
                    operator: node.op.name().into(),
                    reason,
                    remedy: remedy.into(),
                });
                // What follows is judged as if it had run.
                lowering.held[i + 1] = Some(Held::Value(0));
            }
        }
    }
    if !offences.is_empty() {
        return Err(ModelError::Unsupported { offences });
    }
    let classes = (outputs == Outputs::Largest).then(|| classes_of(graph, behind)).transpose()?;
    let output = match lowering.held[behind].take() {
        Some(held) if classes.is_some() => lowering.largest(behind, held),
        Some(Held::Value(id)) => id,
        Some(Held::Terms(terms)) if terms.len() == 1 => terms[0],
        Some(Held::Terms(terms)) => lowering.clamp_seen(behind, terms),
        None => return Err(refused(graph, behind, "depends on no layer".into(), KEYED)),
    };
    let head = head_graph(graph, &first, input)?;
    Ok(Draft { head, input, steps: lowering.steps, output, classes, tail })
}

impl Lowering<'_> {
    fn push(&mut self, name: &str, op: DraftOp, shape: &[usize]) -> FixedId {
        let of = |id: FixedId| id.checked_sub(1).map_or(Kind::default(), |step| self.kinds[step]);
        self.kinds.push(match &op {
            DraftOp::Linear { .. } => Kind::default(),
            DraftOp::Clamp { bounds, .. } => {
                let positive =
                    matches!(bounds, Bounds::Positive) || matches!(bounds, Bounds::Given { low, .. } if *low >= 0.0);
                Kind { is_sum: false, is_positive: positive }
            }
            DraftOp::Max { input, .. } => of(*input),
            DraftOp::Sum { input, .. } => Kind { is_sum: true, ..of(*input) },
            DraftOp::Affine { .. } => Kind { is_sum: true, is_positive: false },
            DraftOp::Copy { inputs, .. } => Kind {
                is_sum: inputs.iter().any(|&i| of(i).is_sum),
                is_positive: inputs.iter().all(|&i| of(i).is_positive),
            },
        });
        self.steps.push(DraftStep { name: name.into(), op, shape: shape.to_vec() });
        self.steps.len()
    }

    fn held(&self, value: ValueId) -> Result<Held, Refusal> {
        self.held[value].clone().ok_or_else(|| ("takes a value that only the image's part has".into(), KEYED))
    }

    /// A value as another layer can take it: clamped, if nobody has clamped it yet.
    fn value(&mut self, value: ValueId) -> Result<FixedId, Refusal> {
        match self.held(value)? {
            Held::Value(id) => Ok(id),
            Held::Terms(terms) => Ok(self.clamp_seen(value, terms)),
        }
    }

    /// Clamps terms to the range that calibration sees of a value.
    fn clamp_seen(&mut self, value: ValueId, terms: Vec<FixedId>) -> FixedId {
        let node = &self.graph.nodes()[value - 1];
        let positive = terms.iter().all(|t| t.checked_sub(1).is_some_and(|step| self.kinds[step].is_positive));
        let bounds = if positive { Bounds::Positive } else { Bounds::Seen };
        let id = self.push(&node.name, DraftOp::Clamp { terms, bounds, seen: value }, &node.shape);
        self.held[value] = Some(Held::Value(id));
        id
    }

    /// The number of the largest of a vector, counted from its end.
    ///
    /// Every number is shifted up by as many bits as a class needs, and its class goes there. So
    /// the largest of them brings its class along, in bits that are opened alone. Of equal ones the
    /// first is taken.
    fn largest(&mut self, value: ValueId, held: Held) -> FixedId {
        let node = &self.graph.nodes()[value - 1];
        let n = node.shape.iter().product::<usize>();
        let input = match held {
            Held::Value(id) => id,
            Held::Terms(terms) => {
                self.push(&node.name, DraftOp::Clamp { terms, bounds: Bounds::Fine, seen: value }, &node.shape)
            }
        };
        let shift = bits_of_class(n as u32);
        let add = (0..n as u32).rev().collect();
        let numbered = self.push(&node.name, DraftOp::Affine { input, shift, add }, &[1, 1, n]);
        let pool = Pool {
            kernel: [1, n],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0; 4],
            count_padding: false,
            ceil: false,
        };
        self.push(&node.name, DraftOp::Max { input: numbered, pool }, &[1, 1, 1])
    }

    /// A value whose scale is free to meet others.
    fn of_free_scale(&mut self, value: ValueId) -> Result<FixedId, Refusal> {
        let id = self.value(value)?;
        if !id.checked_sub(1).is_some_and(|step| self.kinds[step].is_sum) {
            return Ok(id);
        }
        let positive = self.kinds[id - 1].is_positive;
        let node = &self.graph.nodes()[value - 1];
        let channels = node.shape[0];
        let terms = vec![self.scaling_of(id, node, vec![1.0; channels], vec![0.0; channels])];
        let bounds = if positive { Bounds::Positive } else { Bounds::Seen };
        let id = self.push(&node.name, DraftOp::Clamp { terms, bounds, seen: value }, &node.shape);
        self.held[value] = Some(Held::Value(id));
        Ok(id)
    }

    /// A value as a summand. Sums that several nodes take are clamped, so that each is used once.
    fn terms(&mut self, value: ValueId) -> Result<Vec<FixedId>, Refusal> {
        match self.held(value)? {
            Held::Terms(terms) if self.uses[value] == 1 => Ok(terms),
            _ => Ok(vec![self.of_free_scale(value)?]),
        }
    }

    fn node(&mut self, i: usize, node: &Node) -> Result<Held, Refusal> {
        match &node.op {
            Op::Conv(_) | Op::Gemm(_) => self.linear(i, node),
            Op::Activation(Activation::Relu) => self.clamp(i, node, Bounds::Positive),
            Op::Activation(Activation::Clip { low, high }) => {
                self.clamp(i, node, Bounds::Given { low: *low, high: *high })
            }
            Op::Activation(_) => Err(("is no function that clamps".into(), RELU_INSTEAD)),
            Op::Arithmetic(Arithmetic::Add) => self.add(node),
            Op::Arithmetic(_) => Err(("combines two computed values other than by adding".into(), KEYED)),
            Op::WithConstant { op, constant, constant_first } => self.constant(node, *op, constant, *constant_first),
            Op::MaxPool(pool) => {
                let input = self.value(node.inputs[0])?;
                Ok(Held::Value(self.push(&node.name, DraftOp::Max { input, pool: pool.clone() }, &node.shape)))
            }
            Op::AveragePool(pool) => self.average(node, pool.clone()),
            Op::Reduce { kind: ReduceKind::Mean, axes, .. } => self.mean(node, axes),
            Op::Flatten | Op::Reshape(_) | Op::Transpose(_) | Op::Concat(_) => self.copy(node),
            Op::Select(select) if select.fill == 0.0 => self.copy(node),
            Op::Select(_) => Err(("pads with another number than 0".into(), KEYED)),
            _ => Err(("has no form in masked integers".into(), KEYED)),
        }
    }

    fn linear(&mut self, i: usize, node: &Node) -> Result<Held, Refusal> {
        let layer = self.layers;
        self.layers += 1;
        let input = self.value(node.inputs[0])?;
        let op = DraftOp::Linear {
            input,
            weights: Weights::Node { node: i, layer },
            input_shape: self.graph.shape(node.inputs[0]).to_vec(),
            more_bias: vec![],
        };
        Ok(Held::Terms(vec![self.push(&node.name, op, &node.shape)]))
    }

    fn clamp(&mut self, i: usize, node: &Node, bounds: Bounds) -> Result<Held, Refusal> {
        if matches!(bounds, Bounds::Given { low, high } if low > 0.0 || high <= low) {
            return Err(("cuts 0 off".into(), RELU_INSTEAD));
        }
        if let Held::Value(id) = self.held(node.inputs[0])?
            && bounds == Bounds::Positive
            && id.checked_sub(1).is_some_and(|step| self.kinds[step].is_positive)
        {
            return Ok(Held::Value(id));
        }
        let terms = self.terms(node.inputs[0])?;
        let op = DraftOp::Clamp { terms, bounds, seen: i + 1 };
        Ok(Held::Value(self.push(&node.name, op, &node.shape)))
    }

    fn add(&mut self, node: &Node) -> Result<Held, Refusal> {
        if node.inputs.iter().any(|&v| self.graph.shape(v) != node.shape) {
            return Err(("adds values of different shapes".into(), KEYED));
        }
        let mut terms = vec![];
        for &input in &node.inputs {
            terms.extend(self.terms(input)?);
        }
        Ok(Held::Terms(terms))
    }

    /// A product with, or a sum of, one constant for each channel.
    fn constant(&mut self, node: &Node, op: Arithmetic, constant: &Constant, first: bool) -> Result<Held, Refusal> {
        let of_channels = per_channel(constant, &node.shape);
        let values = of_channels.ok_or_else(|| ("has a constant that is not one number a channel".into(), KEYED))?;
        let input = node.inputs[0];
        match op {
            Arithmetic::Add | Arithmetic::Sub if !(first && op == Arithmetic::Sub) => {
                let sign = if op == Arithmetic::Sub { -1.0 } else { 1.0 };
                let shift: Vec<f32> = values.iter().map(|v| sign * v).collect();
                if let Held::Terms(terms) = self.held(input)?
                    && self.uses[input] == 1
                    && let Some(last) = terms.iter().rev().find(|t| self.is_linear(**t))
                    && let DraftOp::Linear { more_bias, .. } = &mut self.steps[last - 1].op
                {
                    more_bias.resize(shift.len(), 0.0);
                    more_bias.iter_mut().zip(&shift).for_each(|(b, s)| *b += s);
                    return Ok(Held::Terms(terms));
                }
                self.scaling(node, vec![1.0; shift.len()], shift)
            }
            Arithmetic::Mul => self.scaling(node, values.clone(), vec![0.0; values.len()]),
            Arithmetic::Div if !first && values.iter().all(|v| *v != 0.0) => {
                self.scaling(node, values.iter().map(|v| 1.0 / v).collect(), vec![0.0; values.len()])
            }
            Arithmetic::Max if values.iter().all(|v| *v == 0.0) => {
                Err(("is a maximum with a constant".into(), "export it as Relu"))
            }
            _ => Err(("has no form in masked integers".into(), KEYED)),
        }
    }

    fn is_linear(&self, id: FixedId) -> bool {
        id > 0 && matches!(self.steps[id - 1].op, DraftOp::Linear { .. })
    }

    /// A layer that multiplies every channel by a number and adds another.
    fn scaling(&mut self, node: &Node, weight: Vec<f32>, bias: Vec<f32>) -> Result<Held, Refusal> {
        let input = self.value(node.inputs[0])?;
        Ok(Held::Terms(vec![self.scaling_of(input, node, weight, bias)]))
    }

    fn scaling_of(&mut self, input: FixedId, node: &Node, weight: Vec<f32>, bias: Vec<f32>) -> FixedId {
        let channels = weight.len();
        let places = node.shape.iter().product::<usize>() / channels;
        let conv = Conv {
            weight,
            bias,
            filters: channels,
            channels: 1,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0; 4],
            dilation: [1, 1],
            groups: channels,
        };
        let op = DraftOp::Linear {
            input,
            weights: Weights::Scaling(conv),
            input_shape: vec![channels, 1, places],
            more_bias: vec![],
        };
        self.push(&node.name, op, &node.shape)
    }

    fn average(&mut self, node: &Node, pool: Pool) -> Result<Held, Refusal> {
        let input = self.value(node.inputs[0])?;
        let inside = pool.padding == [0; 4] && !pool.ceil;
        if !inside && !pool.count_padding {
            return Err(("divides by a number that depends on the place".into(), "count its padding, or leave it out"));
        }
        let count = pool.kernel[0] * pool.kernel[1];
        Ok(Held::Value(self.push(&node.name, DraftOp::Sum { input, pool, count }, &node.shape)))
    }

    /// The mean of all places of a channel.
    fn mean(&mut self, node: &Node, axes: &[usize]) -> Result<Held, Refusal> {
        let shape = self.graph.shape(node.inputs[0]).to_vec();
        let (&[_, height, width], [1, 2]) = (&shape[..], axes) else {
            return Err(("is no mean of whole planes".into(), KEYED));
        };
        let pool = Pool {
            kernel: [height, width],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0; 4],
            count_padding: false,
            ceil: false,
        };
        self.average(node, pool)
    }

    fn copy(&mut self, node: &Node) -> Result<Held, Refusal> {
        // What nobody has clamped stays so through a change of shape alone.
        if matches!(node.op, Op::Flatten | Op::Reshape(_)) {
            return match self.held(node.inputs[0])? {
                Held::Terms(terms) if self.uses[node.inputs[0]] == 1 => Ok(Held::Terms(terms)),
                _ => Ok(Held::Value(self.value(node.inputs[0])?)),
            };
        }
        let several = node.inputs.len() > 1;
        let value = |&v: &ValueId| if several { self.of_free_scale(v) } else { self.value(v) };
        let inputs = node.inputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let places = places_of(self.graph, node).ok_or_else(|| ("is too large".into(), KEYED))?;
        Ok(Held::Value(self.push(&node.name, DraftOp::Copy { inputs, places }, &node.shape)))
    }
}

/// A constant's number for every channel, if it has one: `[channels, 1, 1]`, `[channels]` for
/// features, or a single number.
fn per_channel(constant: &Constant, shape: &[usize]) -> Option<Vec<f32>> {
    let channels = *shape.first()?;
    let mut extents = vec![1; shape.len().checked_sub(constant.shape.len())?];
    extents.extend(&constant.shape);
    match constant.data[..] {
        [one] => Some(vec![one; channels]),
        _ if extents[0] == channels && extents[1..].iter().all(|&n| n == 1) => Some(constant.data.clone()),
        _ => None,
    }
}

/// Where the elements of a copying node come from: one more than the place among all inputs, 0 for
/// padding. Found by running the node on the places themselves.
fn places_of(graph: &Graph, node: &Node) -> Option<Vec<u32>> {
    let mut next = 1;
    let mut inputs = vec![];
    for &value in &node.inputs {
        let shape = graph.shape(value).to_vec();
        let n: usize = shape.iter().product();
        inputs.push(Tensor { shape, data: (next..next + n).map(|i| i as f32).collect() });
        next += n;
    }
    // Floats count that far.
    if next > 1 << 24 {
        return None;
    }
    let outputs = nonlinear::apply(node, &inputs.iter().collect::<Vec<_>>()).ok()?;
    Some(outputs.data.iter().map(|&place| place as u32).collect())
}
