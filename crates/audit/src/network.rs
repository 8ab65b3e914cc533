//! A graph of `jali-model` as a differentiable function on burn's tensors. Parameters are flat vectors, one per linear
//! node, so that permissions of a plan, which are per weight in the same order, are masks on them.

use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use jali_model::{Graph, Linear, Op, Pool};

/// What a linear node computes with.
#[derive(Debug, Clone)]
pub struct Layer {
    /// In the order of the graph's weights.
    pub weight: Tensor<1>,
    /// One per output.
    pub bias: Tensor<1>,
    /// Factor of every output before the bias, if any.
    pub gain: Option<Tensor<1>>,
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

/// Runs the network on a batch: logits `[image][class]`.
pub fn forward(graph: &Graph, layers: &[Layer], batch: Tensor<4>) -> Tensor<2> {
    let first = if graph.input_shape().len() == 1 { Value::Flat(batch.flatten(1, 3)) } else { Value::Planes(batch) };
    let mut values = vec![first];
    let mut layers = layers.iter();
    for node in graph.nodes() {
        let x = values[node.inputs[0]].clone();
        let value = match (&node.op, node.op.linear()) {
            (_, Some(linear)) => match layers.next() {
                Some(layer) => apply(linear, layer, x),
                None => x,
            },
            (Op::Relu, _) => match x {
                Value::Planes(x) => Value::Planes(relu(x)),
                Value::Flat(x) => Value::Flat(relu(x)),
            },
            (Op::Flatten, _) => Value::Flat(x.flat()),
            (Op::Add, _) => match (x, values[node.inputs[1]].clone()) {
                (Value::Planes(a), Value::Planes(b)) => Value::Planes(a + b),
                (a, b) => Value::Flat(a.flat() + b.flat()),
            },
            (Op::MaxPool(p), _) => {
                let options = MaxPoolOptions::new(p.kernel).with_stride(p.stride).with_padding_pairs(pairs(p));
                Value::Planes(max_pool2d(x.planes(), options.with_ceil_mode(p.ceil)))
            }
            (Op::AveragePool(p), _) => {
                let options = AvgPoolOptions::new(p.kernel).with_stride(p.stride).with_padding_pairs(pairs(p));
                let options = options.with_count_include_pad(p.count_padding).with_ceil_mode(p.ceil);
                Value::Planes(avg_pool2d(x.planes(), options))
            }
            (Op::Conv(_) | Op::Gemm(_), None) => x,
        };
        values.push(value);
    }
    values.swap_remove(graph.output()).flat()
}

/// `(top, bottom), (left, right)` of `[top, left, bottom, right]`.
fn pairs(p: &Pool) -> [(usize, usize); 2] {
    let [top, left, bottom, right] = p.padding;
    [(top, bottom), (left, right)]
}

fn apply(linear: Linear<'_>, layer: &Layer, x: Value) -> Value {
    let outputs = linear.outputs();
    match linear {
        Linear::Conv(c) => {
            let [top, left, bottom, right] = c.padding;
            let options = ConvOptions::new_with_padding(c.stride, [(top, bottom), (left, right)], c.dilation, c.groups);
            let weight = layer.weight.clone().reshape([outputs, c.channels, c.kernel[0], c.kernel[1]]);
            Value::Planes(match &layer.gain {
                None => conv2d(x.planes(), weight, Some(layer.bias.clone()), options),
                Some(gain) => {
                    let y = conv2d(x.planes(), weight, None, options);
                    y * gain.clone().reshape([1, outputs, 1, 1]) + layer.bias.clone().reshape([1, outputs, 1, 1])
                }
            })
        }
        Linear::Gemm(g) => {
            let weight = layer.weight.clone().reshape([outputs, g.inputs]).transpose();
            let mut y = x.flat().matmul(weight);
            if let Some(gain) = &layer.gain {
                y = y * gain.clone().reshape([1, outputs]);
            }
            Value::Flat(y + layer.bias.clone().reshape([1, outputs]))
        }
    }
}
