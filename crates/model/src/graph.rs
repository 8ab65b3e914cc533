//! The graph: nodes in an order in which they can run, with inferred shapes.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::tensor::elements;

/// Names a value: 0 is the image, `i + 1` the output of node `i`.
pub type ValueId = usize;

/// A convolution, weights `[out][in / groups][kh][kw]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Weights.
    pub weight: Vec<f32>,
    /// One per output channel.
    pub bias: Vec<f32>,
    /// Output channels.
    pub filters: usize,
    /// Input channels of one group.
    pub channels: usize,
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal.
    pub stride: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Vertical and horizontal.
    pub dilation: [usize; 2],
    /// Groups.
    pub groups: usize,
}

/// A fully connected layer, weights `[outputs][inputs]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gemm {
    /// Weights.
    pub weight: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// A pooling window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal.
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// Averages divide by the whole window, padding included.
    pub count_padding: bool,
    /// Output size rounded up instead of down.
    pub ceil: bool,
}

/// What a node computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Convolution, done by the server.
    Conv(Conv),
    /// Fully connected layer, done by the server.
    Gemm(Gemm),
    /// `max(x, 0)`.
    Relu,
    /// Largest value of a window.
    MaxPool(Pool),
    /// Mean of a window.
    AveragePool(Pool),
    /// All dimensions to one.
    Flatten,
    /// Sum of two equal shapes.
    Add,
}

/// A linear layer, whichever kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Linear<'a> {
    /// Convolution.
    Conv(&'a Conv),
    /// Fully connected layer.
    Gemm(&'a Gemm),
}

impl<'a> Linear<'a> {
    /// Weights, one output after the other.
    pub fn weights(&self) -> &'a [f32] {
        match self {
            Self::Conv(c) => &c.weight,
            Self::Gemm(g) => &g.weight,
        }
    }

    /// One per output channel.
    pub fn bias(&self) -> &'a [f32] {
        match self {
            Self::Conv(c) => &c.bias,
            Self::Gemm(g) => &g.bias,
        }
    }

    /// Output channels or features.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Conv(c) => c.filters,
            Self::Gemm(g) => g.outputs,
        }
    }

    /// Products per output value.
    pub fn fan_in(&self) -> usize {
        match self {
            Self::Conv(c) => c.channels * c.kernel[0] * c.kernel[1],
            Self::Gemm(g) => g.inputs,
        }
    }

    /// `conv3x3` or `fc`.
    pub fn kind(&self) -> String {
        match self {
            Self::Conv(c) => format!("conv{}x{}", c.kernel[0], c.kernel[1]),
            Self::Gemm(_) => "fc".into(),
        }
    }
}

impl Op {
    /// The linear layer, if it is one.
    pub fn linear(&self) -> Option<Linear<'_>> {
        match self {
            Self::Conv(c) => Some(Linear::Conv(c)),
            Self::Gemm(g) => Some(Linear::Gemm(g)),
            _ => None,
        }
    }

    /// ONNX name of the operator.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::Gemm(_) => "Gemm",
            Self::Relu => "Relu",
            Self::MaxPool(_) => "MaxPool",
            Self::AveragePool(_) => "AveragePool",
            Self::Flatten => "Flatten",
            Self::Add => "Add",
        }
    }
}

/// One node with its output's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// From the file, or made up.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Where its inputs come from.
    pub inputs: Vec<ValueId>,
    /// Shape of its output.
    pub shape: Vec<usize>,
}

/// A checked network with one input and one output.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    input: Vec<usize>,
    nodes: Vec<Node>,
    output: ValueId,
}

impl Graph {
    /// A graph without nodes for images of the given shape.
    ///
    /// # Errors
    /// [`ModelError::Shape`] unless the shape is `[channels, height, width]` or `[features]`, non-empty and bounded.
    pub fn new(input: Vec<usize>) -> Result<Self, ModelError> {
        if !matches!(input.len(), 1 | 3) || elements(&input).is_none_or(|n| n == 0) {
            return Err(ModelError::Shape {
                what: "the model's input".into(),
                expected: "[channels, height, width] or [features], not empty".into(),
                got: format!("{input:?}"),
            });
        }
        Ok(Self { input, nodes: vec![], output: 0 })
    }

    /// Shape of the image.
    pub fn input_shape(&self) -> &[usize] {
        &self.input
    }

    /// The nodes in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The value that the network returns.
    pub fn output(&self) -> ValueId {
        self.output
    }

    /// Shape of a value.
    pub fn shape(&self, value: ValueId) -> &[usize] {
        if value == 0 { &self.input } else { &self.nodes[value - 1].shape }
    }

    /// Indices of the linear nodes in order.
    pub fn linear_nodes(&self) -> impl Iterator<Item = (usize, Linear<'_>)> {
        self.nodes.iter().enumerate().filter_map(|(i, n)| Some((i, n.op.linear()?)))
    }

    /// Weights of all linear layers, biases not counted.
    pub fn weights(&self) -> usize {
        self.linear_nodes().map(|(_, l)| l.weights().len()).sum()
    }

    /// Appends a node after checking its inputs; it becomes the output.
    ///
    /// # Errors
    /// [`ModelError::Node`] if inputs, shapes or attributes do not fit.
    pub fn push(&mut self, name: String, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, ModelError> {
        if let Some(reason) = wrong_counts(&op) {
            return Err(ModelError::Node { name, op: op.name().into(), reason });
        }
        self.push_outline(name, op, inputs)
    }

    /// As [`Graph::push`], for a linear node that may come without its weights.
    pub(crate) fn push_outline(&mut self, name: String, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, ModelError> {
        let fail = |reason: String| ModelError::Node { name: name.clone(), op: op.name().into(), reason };
        let arity = if matches!(op, Op::Add) { 2 } else { 1 };
        if inputs.len() != arity || inputs.iter().any(|&v| v > self.nodes.len()) {
            return Err(fail(format!("needs {arity} earlier value(s) as input, got {}", inputs.len())));
        }
        let shape = infer(&op, &inputs.iter().map(|&v| self.shape(v)).collect::<Vec<_>>()).map_err(fail)?;
        if elements(&shape).is_none_or(|n| n == 0) {
            return Err(fail(format!("its output {shape:?} is empty or too large")));
        }
        self.nodes.push(Node { name, op, inputs, shape });
        self.output = self.nodes.len();
        Ok(self.output)
    }

    /// Adds to the bias of a linear node's output channels; `false` if the value is not one or the sizes differ.
    pub(crate) fn fold_bias(&mut self, value: ValueId, more: &[f32]) -> bool {
        self.linear_mut(value, |_, bias| {
            let fits = bias.len() == more.len();
            if fits {
                bias.iter_mut().zip(more).for_each(|(b, m)| *b += m);
            }
            fits
        })
    }

    /// Scales the output channels of a linear node and shifts its bias: a batch norm behind it.
    pub(crate) fn fold_scale(&mut self, value: ValueId, scale: &[f32], shift: &[f32]) -> bool {
        self.linear_mut(value, |weight, bias| {
            let fits = bias.len() == scale.len() && bias.len() == shift.len();
            if fits {
                let fan_in = weight.len() / bias.len();
                for (o, (b, (s, t))) in bias.iter_mut().zip(scale.iter().zip(shift)).enumerate() {
                    *b = *b * s + t;
                    weight[o * fan_in..][..fan_in].iter_mut().for_each(|w| *w *= s);
                }
            }
            fits
        })
    }

    fn linear_mut(&mut self, value: ValueId, f: impl FnOnce(&mut [f32], &mut [f32]) -> bool) -> bool {
        match value.checked_sub(1).map(|i| &mut self.nodes[i].op) {
            Some(Op::Conv(c)) => f(&mut c.weight, &mut c.bias),
            Some(Op::Gemm(g)) => f(&mut g.weight, &mut g.bias),
            _ => false,
        }
    }

    /// Makes another value the output.
    pub(crate) fn set_output(&mut self, value: ValueId) {
        self.output = value;
    }
}

/// Output extent of a sliding window, or why there is none.
///
/// # Errors
/// A sentence if the window does not fit.
pub fn window(
    size: usize,
    pads: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    ceil: bool,
) -> Result<usize, String> {
    let reach = kernel.checked_sub(1).and_then(|k| k.checked_mul(dilation)).and_then(|k| k.checked_add(1));
    let padded = size.checked_add(pads);
    match (reach, padded, stride) {
        (Some(reach), Some(padded), 1..) if dilation > 0 && reach <= padded => {
            let room = padded - reach;
            Ok(if ceil { room.div_ceil(stride) } else { room / stride } + 1)
        }
        _ => {
            Err(format!("a window of {kernel} (stride {stride}, dilation {dilation}) does not fit {size} plus {pads}"))
        }
    }
}

/// Why a linear node's weights or biases do not fit its shape, if they do not.
fn wrong_counts(op: &Op) -> Option<String> {
    let linear = op.linear()?;
    let weights = match linear {
        Linear::Conv(c) => elements(&[c.filters, c.channels, c.kernel[0], c.kernel[1]]),
        Linear::Gemm(g) => elements(&[g.outputs, g.inputs]),
    };
    let count = |what: &str, got: usize, want: Option<usize>| {
        (Some(got) != want).then(|| format!("has {got} {what}, its shape says {want:?}"))
    };
    count("weights", linear.weights().len(), weights)
        .or_else(|| count("biases", linear.bias().len(), Some(linear.outputs())))
}

fn infer(op: &Op, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let first = inputs[0];
    let plane = |first: &[usize]| -> Result<[usize; 3], String> {
        first.try_into().map_err(|_| format!("needs an input [channels, height, width], got {first:?}"))
    };
    match op {
        Op::Conv(c) => {
            let [channels, h, w] = plane(first)?;
            if c.groups == 0 || channels != c.channels.saturating_mul(c.groups) || !c.filters.is_multiple_of(c.groups) {
                return Err(format!(
                    "{} groups of {} channels and {} filters do not fit an input of {channels} channels",
                    c.groups, c.channels, c.filters
                ));
            }
            let [top, left, bottom, right] = c.padding;
            let rows = window(h, top.saturating_add(bottom), c.kernel[0], c.stride[0], c.dilation[0], false)?;
            let cols = window(w, left.saturating_add(right), c.kernel[1], c.stride[1], c.dilation[1], false)?;
            // The float reference lays out the inputs of every product; a hostile window must not make that unbounded.
            if elements(&[c.channels, c.kernel[0], c.kernel[1], rows, cols]).is_none() {
                return Err(format!("{rows}x{cols} windows of {:?} are too many", c.kernel));
            }
            Ok(vec![c.filters, rows, cols])
        }
        Op::Gemm(g) => {
            if first != [g.inputs] {
                return Err(format!("needs an input [{}], got {first:?}", g.inputs));
            }
            Ok(vec![g.outputs])
        }
        Op::MaxPool(p) | Op::AveragePool(p) => {
            let [channels, h, w] = plane(first)?;
            let [top, left, bottom, right] = p.padding;
            if top >= p.kernel[0] || bottom >= p.kernel[0] || left >= p.kernel[1] || right >= p.kernel[1] {
                return Err("its padding is as large as its window".into());
            }
            // Rounded up, a last window that would start behind the plane is dropped, as PyTorch and ONNX do.
            let extent = |size: usize, before: usize, after: usize, axis: usize| -> Result<usize, String> {
                let n = window(size, before + after, p.kernel[axis], p.stride[axis], 1, p.ceil)?;
                Ok(if (n - 1) * p.stride[axis] >= size + before { n - 1 } else { n })
            };
            let (rows, cols) = (extent(h, top, bottom, 0)?, extent(w, left, right, 1)?);
            Ok(vec![channels, rows, cols])
        }
        Op::Relu => Ok(first.to_vec()),
        Op::Flatten => Ok(vec![elements(first).ok_or("its input is too large")?]),
        Op::Add if inputs[0] == inputs[1] => Ok(first.to_vec()),
        Op::Add => Err(format!("adds {:?} to {:?}; broadcasting is not supported", inputs[0], inputs[1])),
    }
}
