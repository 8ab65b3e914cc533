//! A graph of `jali-model` as a differentiable function on burn's tensors. Parameters are flat
//! vectors, one per linear node, so that permissions of a plan, which are per weight in the same
//! order, are masks on them.

use burn::tensor::activation::{gelu, hard_sigmoid, leaky_relu, relu, sigmoid, tanh};
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use jali_model::{Activation, Arithmetic, Constant, Graph, Linear, ModelError, Op, Pool, ReduceKind};

/// What a linear node computes with.
#[derive(Debug, Clone)]
pub struct Layer {
    /// In the order of the graph's weights.
    pub weight: Tensor<1>,
    /// One per output.
    pub bias: Tensor<1>,
    /// Factor of every output before the bias, if any.
    pub gain: Option<Tensor<1>>,
    /// Whether every output gets mean 0 and variance 1 over the batch, before factor and bias.
    pub normal: bool,
}

impl Layer {
    /// A layer with weights and biases alone.
    pub fn plain(weight: Tensor<1>, bias: Tensor<1>) -> Self {
        Self { weight, bias, gain: None, normal: false }
    }
}

/// A flat vector on a device.
pub fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// Images as one tensor; `pixels` are the images one after the other.
pub fn images(graph: &Graph, pixels: Vec<f32>, device: &Device) -> Tensor<4> {
    let shape = graph.input_shape();
    let [c, h, w] = match shape {
        [c, h, w] => [*c, *h, *w],
        _ => [shape[0], 1, 1],
    };
    let count = pixels.len() / (c * h * w);
    Tensor::from_data(TensorData::new(pixels, [count, c, h, w]), device)
}

#[derive(Clone)]
enum Value {
    Planes(Tensor<4>),
    Flat(Tensor<2>),
}

impl Value {
    fn flat(self) -> Tensor<2> {
        match self {
            Self::Planes(x) => x.flatten(1, 3),
            Self::Flat(x) => x,
        }
    }

    fn planes(self) -> Tensor<4> {
        match self {
            Self::Planes(x) => x,
            Self::Flat(x) => {
                let [n, features] = x.dims();
                x.reshape([n, features, 1, 1])
            }
        }
    }
}

/// Whether an attacker can train this network.
///
/// # Errors
/// [`ModelError::Node`] for the first node that [`forward`] does not know.
pub fn check(graph: &Graph) -> Result<(), ModelError> {
    for (index, node) in graph.nodes().iter().enumerate() {
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|&v| graph.shape(v)).collect();
        let simple = |shape: &[usize]| matches!(shape.len(), 1 | 3);
        let known = shapes.iter().all(|s| simple(s))
            && simple(&node.shape)
            && match &node.op {
                Op::Activation(a) => is_trainable(*a),
                Op::MaxPool(p) | Op::AveragePool(p) => p.dilation == [1, 1],
                Op::Arithmetic(op) => is_known(*op) && *op != Arithmetic::PRelu && shapes[0].len() == shapes[1].len(),
                Op::WithConstant { constant, op, .. } => is_known(*op) && constant.shape.len() <= node.shape.len(),
                Op::Concat(axis) => *axis == 0,
                Op::Reduce { kind: ReduceKind::Mean, axes, .. } => axes[..] == [1, 2],
                Op::Conv(_) | Op::Gemm(_) | Op::Flatten | Op::Reshape(_) => true,
                // At the end it changes no class; attackers work with what is in front of it.
                Op::Softmax { .. } => graph.output() == index + 1,
                Op::Transpose(_)
                | Op::Select(_)
                | Op::Resample(_)
                | Op::Reduce { .. }
                | Op::ArgMax { .. }
                | Op::Choose(_) => false,
            };
        if !known {
            return Err(ModelError::Node {
                name: node.name.clone(),
                op: node.op.name().into(),
                reason: "the audit's attackers cannot train through it (docs/auditing.md lists what they can)".into(),
            });
        }
    }
    Ok(())
}

/// Runs the network on a batch: logits `[image][class]`. For a graph that [`check`] accepts.
pub fn forward(graph: &Graph, layers: &[Layer], batch: Tensor<4>) -> Tensor<2> {
    forward_with(graph, layers, batch, &mut |_, layer, sums| finish(layer, sums))
}

/// Runs the network on a batch and lets `finish` say what becomes of the sums of every linear node,
/// `[image][output][row][column]`; it is given the node's number among the linear ones.
pub fn forward_with(
    graph: &Graph,
    layers: &[Layer],
    batch: Tensor<4>,
    finish: &mut dyn FnMut(usize, &Layer, Tensor<4>) -> Tensor<4>,
) -> Tensor<2> {
    let first = if graph.input_shape().len() == 1 { Value::Flat(batch.flatten(1, 3)) } else { Value::Planes(batch) };
    let mut values = vec![first];
    let mut layers = layers.iter().enumerate();
    for node in graph.nodes() {
        let x = values[node.inputs[0]].clone();
        let value = match (&node.op, node.op.linear()) {
            (_, Some(linear)) => match layers.next() {
                Some((index, layer)) => apply(linear, layer, x, &mut |sums| finish(index, layer, sums)),
                None => x,
            },
            (Op::Activation(a), _) => match x {
                Value::Planes(x) => Value::Planes(activate(*a, x)),
                Value::Flat(x) => Value::Flat(activate(*a, x)),
            },
            (Op::Flatten, _) => Value::Flat(x.flat()),
            (Op::Reshape(shape), _) => reshape(shape, x),
            (Op::Arithmetic(op), _) => match (x, values[node.inputs[1]].clone()) {
                (Value::Planes(a), Value::Planes(b)) => Value::Planes(combine(*op, a, b)),
                (a, b) => Value::Flat(combine(*op, a.flat(), b.flat())),
            },
            (Op::WithConstant { op, constant, constant_first }, _) => with_constant(*op, constant, *constant_first, x),
            (Op::Concat(_), _) => {
                let parts: Vec<Value> = node.inputs.iter().map(|&v| values[v].clone()).collect();
                match x {
                    Value::Planes(_) => Value::Planes(Tensor::cat(parts.into_iter().map(Value::planes).collect(), 1)),
                    Value::Flat(_) => Value::Flat(Tensor::cat(parts.into_iter().map(Value::flat).collect(), 1)),
                }
            }
            (Op::Reduce { .. }, _) => reshape(&node.shape, Value::Planes(x.planes().mean_dim(3).mean_dim(2))),
            (Op::MaxPool(p), _) => {
                let options = MaxPoolOptions::new(p.kernel).with_stride(p.stride).with_padding_pairs(pairs(p));
                Value::Planes(max_pool2d(x.planes(), options.with_ceil_mode(p.ceil)))
            }
            (Op::AveragePool(p), _) => {
                let options = AvgPoolOptions::new(p.kernel).with_stride(p.stride).with_padding_pairs(pairs(p));
                let options = options.with_count_include_pad(p.count_padding).with_ceil_mode(p.ceil);
                Value::Planes(avg_pool2d(x.planes(), options))
            }
            (Op::Softmax { .. }, _) => x,
            (Op::Conv(_) | Op::Gemm(_), None) => x,
            (Op::Transpose(_) | Op::Select(_) | Op::Resample(_) | Op::ArgMax { .. } | Op::Choose(_), _) => x,
        };
        values.push(value);
    }
    values.swap_remove(graph.output()).flat()
}

fn activate<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    match activation {
        Activation::Relu => relu(x),
        Activation::Clip { low, high } => x.clamp(low, high),
        Activation::LeakyRelu { alpha } => leaky_relu(x, f64::from(alpha)),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => hard_sigmoid(x, f64::from(alpha), f64::from(beta)),
        Activation::HardSwish => x.clone() * hard_sigmoid(x, 1.0 / 6.0, 0.5),
        Activation::Tanh => tanh(x),
        Activation::Elu { alpha } => relu(x.clone()) + (x.clamp_max(0.0).exp() - 1.0) * alpha,
        // The two forms of Gelu differ by less than any attack is worth.
        Activation::Gelu | Activation::GeluTanh => gelu(x),
        // `check` has refused them.
        _ => x,
    }
}

/// Whether attackers train through an activation.
fn is_trainable(activation: Activation) -> bool {
    use Activation as A;
    matches!(
        activation,
        A::Relu
            | A::Clip { .. }
            | A::LeakyRelu { .. }
            | A::Sigmoid
            | A::HardSigmoid { .. }
            | A::HardSwish
            | A::Tanh
            | A::Elu { .. }
            | A::Gelu
            | A::GeluTanh
    )
}

/// Whether attackers train through an operation on two values.
fn is_known(op: Arithmetic) -> bool {
    use Arithmetic as A;
    matches!(op, A::Add | A::Sub | A::Mul | A::Div | A::PRelu)
}

fn combine<const D: usize>(op: Arithmetic, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
        Arithmetic::PRelu => relu(a.clone()) + a.clamp_max(0.0) * b,
        // `check` has refused them.
        _ => a,
    }
}

fn with_constant(op: Arithmetic, constant: &Constant, first: bool, x: Value) -> Value {
    let flat = |device: &Device| vector(&constant.data, device);
    let padded = |rank: usize| {
        let mut shape = vec![1; rank];
        shape[rank - constant.shape.len()..].copy_from_slice(&constant.shape);
        shape
    };
    match x {
        Value::Planes(x) => {
            let shape: [usize; 4] = padded(4).try_into().unwrap_or([1; 4]);
            let constant = flat(&x.device()).reshape(shape);
            let (a, b) = if first { (constant, x) } else { (x, constant) };
            Value::Planes(combine(op, a, b))
        }
        Value::Flat(x) => {
            let shape: [usize; 2] = padded(2).try_into().unwrap_or([1; 2]);
            let constant = flat(&x.device()).reshape(shape);
            let (a, b) = if first { (constant, x) } else { (x, constant) };
            Value::Flat(combine(op, a, b))
        }
    }
}

/// One image's values in another shape.
fn reshape(shape: &[usize], x: Value) -> Value {
    let x = x.flat();
    let [images, _] = x.dims();
    match *shape {
        [c, h, w] => Value::Planes(x.reshape([images, c, h, w])),
        _ => Value::Flat(x),
    }
}

/// `(top, bottom), (left, right)` of `[top, left, bottom, right]`.
fn pairs(p: &Pool) -> [(usize, usize); 2] {
    let [top, left, bottom, right] = p.padding;
    [(top, bottom), (left, right)]
}

/// Added to variances before they divide.
pub const EPSILON: f64 = 1e-5;

/// Mean and variance of every output over images and positions, `[1][output][1][1]`.
pub fn moments(sums: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let mean_of = |t: Tensor<4>| t.mean_dim(3).mean_dim(2).mean_dim(0);
    let mean = mean_of(sums.clone());
    (mean.clone(), mean_of((sums - mean).square()))
}

/// One value per output, `[1][output][1][1]`.
pub fn per_output(values: &Tensor<1>) -> Tensor<4> {
    values.clone().reshape([1, -1, 1, 1])
}

/// What a layer makes of its sums.
pub fn finish(layer: &Layer, sums: Tensor<4>) -> Tensor<4> {
    let mut y = sums;
    if layer.normal {
        let (mean, variance) = moments(y.clone());
        y = (y - mean) / variance.add_scalar(EPSILON).sqrt();
    }
    if let Some(gain) = &layer.gain {
        y = y * per_output(gain);
    }
    y + per_output(&layer.bias)
}

fn apply(linear: Linear<'_>, layer: &Layer, x: Value, finish: &mut dyn FnMut(Tensor<4>) -> Tensor<4>) -> Value {
    let outputs = linear.outputs();
    match linear {
        Linear::Conv(c) => {
            let [top, left, bottom, right] = c.padding;
            let options = ConvOptions::new_with_padding(c.stride, [(top, bottom), (left, right)], c.dilation, c.groups);
            let weight = layer.weight.clone().reshape([outputs, c.channels, c.kernel[0], c.kernel[1]]);
            Value::Planes(finish(conv2d(x.planes(), weight, None, options)))
        }
        Linear::Gemm(g) => {
            let weight = layer.weight.clone().reshape([outputs, g.inputs]).transpose();
            let sums = x.flat().matmul(weight);
            let images = sums.dims()[0];
            Value::Flat(finish(sums.reshape([images, outputs, 1, 1])).flatten(1, 3))
        }
    }
}
