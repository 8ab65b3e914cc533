//! What is written is read as the same network.

use crate::onnx::{export, import};
use crate::op::{Activation, Arithmetic, Constant, Conv, Gemm, Op, Pool, ReduceKind, Select, SelectKind};
use crate::{Graph, ModelError, Tensor, float};

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 11) % 29) as f32 / 29.0 - 0.4).collect()
}

fn conv(channels: usize, filters: usize, groups: usize) -> Op {
    let n = filters * channels / groups * 9;
    Op::Conv(Conv {
        weight: numbers(n, filters),
        bias: numbers(filters, 3),
        filters,
        channels: channels / groups,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1, 1, 1],
        dilation: [1, 1],
        groups,
    })
}

/// Every kind of node that attackers train through.
fn network() -> Graph {
    let mut graph = Graph::new(vec![2, 9, 9]).unwrap();
    let mut push = |op, inputs: Vec<usize>| graph.push(format!("n{}", inputs[0]), op, inputs).unwrap();
    let pool = |ceil| Pool {
        kernel: [2, 2],
        stride: [2, 2],
        dilation: [1, 1],
        padding: [0, 0, 1, 1],
        count_padding: true,
        ceil,
    };
    let first = push(conv(2, 4, 1), vec![0]);
    let relu = push(Op::Activation(Activation::Relu), vec![first]);
    let depthwise = push(conv(4, 4, 4), vec![relu]);
    let clipped = push(Op::Activation(Activation::Clip { low: 0.0, high: 6.0 }), vec![depthwise]);
    let sum = push(Op::Arithmetic(Arithmetic::Add), vec![relu, clipped]);
    let constant = Constant { shape: vec![4, 1, 1], data: vec![0.5, 1.0, 2.0, -1.0] };
    let scaled = push(Op::WithConstant { op: Arithmetic::Sub, constant, constant_first: true }, vec![sum]);
    let leaky = push(Op::Activation(Activation::LeakyRelu { alpha: 0.1 }), vec![scaled]);
    let both = push(Op::Concat(0), vec![sum, leaky]);
    let largest = push(Op::MaxPool(pool(false)), vec![both]);
    let average = push(Op::AveragePool(pool(false)), vec![largest]);
    let swish = push(Op::Activation(Activation::HardSwish), vec![average]);
    let mean = push(Op::Reduce { kind: ReduceKind::Mean, axes: vec![1, 2], keep: true }, vec![swish]);
    let flat = push(Op::Flatten, vec![mean]);
    let dense = push(Op::Gemm(Gemm { weight: numbers(48, 1), bias: numbers(6, 2), inputs: 8, outputs: 6 }), vec![flat]);
    let shaped = push(Op::Reshape(vec![6, 1, 1]), vec![dense]);
    let tanh = push(Op::Activation(Activation::Tanh), vec![shaped]);
    push(Op::Flatten, vec![tanh]);
    graph
}

#[test]
fn networks_come_back() {
    let graph = network();
    let imported = import(&export(&graph).unwrap()).unwrap();
    assert_eq!(imported.input_shape(), graph.input_shape());
    assert_eq!(imported.weights(), graph.weights());
    for seed in 0..3 {
        let image = Tensor::new("image", vec![2, 9, 9], numbers(162, seed)).unwrap();
        let (want, got) = (float::run(&graph, image.clone()).unwrap(), float::run(&imported, image).unwrap());
        assert_eq!(want.shape, got.shape);
        assert!(want.data.iter().zip(&got.data).all(|(a, b)| (a - b).abs() < 1e-5), "{want:?} {got:?}");
    }
}

#[test]
fn other_nodes_are_refused_by_name() {
    let mut graph = Graph::new(vec![2, 4, 4]).unwrap();
    let axes = vec![(1, vec![Some(0), Some(2)])];
    graph.push("cut".into(), Op::Select(Select { kind: SelectKind::Slice, axes, fill: 0.0 }), vec![0]).unwrap();
    assert!(matches!(export(&graph), Err(ModelError::Node { name, .. }) if name == "cut"));
}
