//! Small networks of every operator.

use jali_model::fixed::{Outputs, reference};
use jali_model::{Activation, Arithmetic, Conv, Gemm, Op, Pool, Select, SelectKind};

use super::*;
use crate::{Circuit, Tables};

/// Made-up numbers from -1 to 1.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let word = |i: u32| {
        (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_mul(0xc2b2_ae35)
    };
    (0..n as u32).map(|i| (word(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn conv(filters: usize, channels: usize, kernel: usize, groups: usize, seed: u32) -> Conv {
    let fan_in = channels * kernel * kernel;
    let weight = numbers(filters * fan_in, seed).iter().map(|w| w / (fan_in as f32).sqrt()).collect();
    Conv {
        weight,
        bias: numbers(filters, seed + 1).iter().map(|b| b / 4.0).collect(),
        filters,
        channels,
        kernel: [kernel; 2],
        stride: [1, 1],
        padding: [kernel / 2; 4],
        dilation: [1, 1],
        groups,
    }
}

fn gemm(inputs: usize, outputs: usize, seed: u32) -> Op {
    let weight = numbers(inputs * outputs, seed).iter().map(|w| w / (inputs as f32).sqrt()).collect();
    Op::Gemm(Gemm { weight, bias: numbers(outputs, seed + 1), inputs, outputs })
}

fn pool(kernel: usize, stride: usize, padding: usize) -> Pool {
    Pool {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1, 1],
        padding: [padding; 4],
        count_padding: false,
        ceil: false,
    }
}

/// A graph under construction.
struct Build(Graph);

impl Build {
    fn add(&mut self, op: Op, inputs: &[usize]) -> usize {
        let name = format!("node {}", self.0.nodes().len());
        self.0.push(name, op, inputs.to_vec()).unwrap()
    }

    fn relu(&mut self, x: usize) -> usize {
        self.add(Op::Activation(Activation::Relu), &[x])
    }
}

pub(super) fn images(shape: &[usize]) -> Vec<Tensor> {
    let n: usize = shape.iter().product();
    (0..8)
        .map(|i| Tensor { shape: shape.to_vec(), data: numbers(n, 1000 + i).iter().map(|v| v.abs()).collect() })
        .collect()
}

/// A residual network with strides, a depthwise layer, ReLU6, pools, Concat and a signed
/// bottleneck.
pub(super) fn residual() -> Graph {
    let mut b = Build(Graph::new(vec![3, 9, 11]).unwrap());
    let first = b.add(Op::Conv(Conv { stride: [2, 1], ..conv(10, 3, 3, 1, 1) }), &[0]);
    let first = b.relu(first);
    let pooled = b.add(Op::MaxPool(pool(3, 2, 1)), &[first]);
    let second = b.add(Op::Conv(conv(10, 10, 3, 1, 3)), &[pooled]);
    let sum = b.add(Op::Arithmetic(Arithmetic::Add), &[second, pooled]);
    let sum = b.relu(sum);
    let wide = b.add(Op::Conv(conv(20, 10, 1, 1, 5)), &[sum]);
    let wide = b.add(Op::Activation(Activation::Clip { low: 0.0, high: 0.5 }), &[wide]);
    let deep = b.add(Op::Conv(conv(20, 1, 3, 20, 7)), &[wide]);
    let deep = b.relu(deep);
    // A bottleneck without an activation: its result has both signs.
    let narrow = b.add(Op::Conv(conv(10, 20, 1, 1, 9)), &[deep]);
    let narrow = b.add(Op::Arithmetic(Arithmetic::Add), &[narrow, sum]);
    let average = b.add(Op::AveragePool(pool(2, 1, 0)), &[narrow]);
    let side = b.add(Op::Conv(Conv { dilation: [2, 1], padding: [1, 0, 0, 0], ..conv(4, 10, 2, 1, 11) }), &[narrow]);
    let side = b.relu(side);
    let joined = b.add(Op::Concat(0), &[average, side]);
    let padded = Select { kind: SelectKind::Pad, axes: vec![(1, vec![None, Some(0), Some(1)])], fill: 0.0 };
    let padded = b.add(Op::Select(padded), &[joined]);
    let turned = b.add(Op::Transpose(vec![1, 2, 0]), &[padded]);
    let flat = b.add(Op::Flatten, &[turned]);
    let n = b.0.shape(flat)[0];
    let hidden = b.add(gemm(n, 17, 13), &[flat]);
    let hidden = b.relu(hidden);
    let logits = b.add(gemm(17, 5, 15), &[hidden]);
    b.add(Op::Softmax { axis: 0, log: false }, &[logits]);
    b.0
}

#[test]
fn every_wire_equals_the_reference() {
    let graph = residual();
    let (_, sealed) = check(&graph, &Plan::hide_all(&graph), &images(&[3, 9, 11]), FixedConfig::default());
    assert!(sealed.guest.clear.iter().all(Option::is_none));
}

/// Direct tables take more bytes and fewer exchanges.
#[test]
fn direct_tables_save_exchanges() {
    let graph = residual();
    let network = FixedNetwork::calibrate(&graph, FixedConfig::default(), &images(&[3, 9, 11]), None).unwrap();
    let original = Original::new(network, &graph, &Plan::hide_all(&graph), key(1)).unwrap();
    let small = original.circuit().counts();
    let direct = original.with_tables(Tables::Direct).circuit().counts();
    assert!(direct.exchanges < small.exchanges && direct.ticket_bytes > small.ticket_bytes);
    assert_eq!((direct.clamps, direct.maxima), (small.clamps, small.maxima));
}

#[test]
fn open_beginnings_are_computed_by_the_guest() {
    let graph = residual();
    let layers = graph.linear_nodes().count();
    for open in 1..=layers {
        let names: Vec<String> =
            graph.linear_nodes().take(open).map(|(node, _)| graph.nodes()[node].name.clone()).collect();
        let plan = jali_leak::listed_layers(&graph, &names).unwrap();
        let (network, sealed) = check(&graph, &plan, &images(&[3, 9, 11]), FixedConfig::default());
        // Constants that scale a value are steps of their own, which no plan names.
        let is_named =
            |step: &usize| matches!(&network.steps[*step].op, FixedOp::Linear(linear) if linear.layer.is_some());
        let clear = (0..network.steps.len()).filter(|&step| sealed.guest.clear[step].is_some());
        assert_eq!(clear.filter(is_named).count(), open);
    }
}

#[test]
fn outputs_that_are_no_layer() {
    let mut b = Build(Graph::new(vec![2, 6, 6]).unwrap());
    let y = b.add(Op::Conv(conv(12, 2, 3, 1, 1)), &[0]);
    let y = b.relu(y);
    b.add(Op::AveragePool(pool(6, 1, 0)), &[y]);
    check(
        &b.0,
        &Plan::hide_all(&b.0),
        &images(&[2, 6, 6]),
        FixedConfig { activation_bits: 12, output_bits: 9, ..FixedConfig::default() },
    );
}

/// The guest learns the number of the largest output and nothing else.
#[test]
fn the_largest_output_alone() {
    let graph = residual();
    let config = FixedConfig { outputs: Outputs::Largest, ..FixedConfig::default() };
    let images = images(&[3, 9, 11]);
    let (network, sealed) = check(&graph, &Plan::hide_all(&graph), &images, config);
    assert_eq!((network.output_bits(), sealed.owner.circuit.count(network.output.source)), (3, 1));
    let all = FixedNetwork::calibrate(&graph, FixedConfig::default(), &images, None).unwrap();
    for image in &images {
        let input = network.quantise(image).unwrap();
        let class = |network: &FixedNetwork| {
            let output = reference::run(network, &input, reference::to_nearest).output;
            network.numbers(&output).unwrap().argmax()
        };
        assert_eq!(class(&network), class(&all));
    }
    // Layers before the first hidden one may be open, the last one too.
    check(&graph, &Plan::open_all(&graph), &images, config);
    let read = FixedNetwork::from_bytes(&network.to_bytes().unwrap()).unwrap();
    assert_eq!(Circuit::new(&read, &[], Tables::Small), Circuit::new(&network, &[], Tables::Small));
}

/// What a guest and a server read of a network gives them the owner's circuit.
#[test]
fn networks_without_weights_have_the_same_circuit() {
    let graph = residual();
    let network = FixedNetwork::calibrate(&graph, FixedConfig::default(), &images(&[3, 9, 11]), None).unwrap();
    let read = FixedNetwork::from_bytes(&network.to_bytes().unwrap()).unwrap();
    assert_eq!(Circuit::new(&read, &[true], Tables::Small), Circuit::new(&network, &[true], Tables::Small));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(3000))]

    /// Damaged networks are refused, or give a circuit: nothing panics.
    #[test]
    fn damaged_networks_do_no_harm(changes in proptest::collection::vec((0.0..1.0_f64, proptest::num::u8::ANY), 1..4)) {
        static BYTES: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let graph = residual();
            let images = images(&[3, 9, 11]);
            let network = FixedNetwork::calibrate(&graph, FixedConfig::default(), &images, None).unwrap();
            network.to_bytes().unwrap()
        });
        let mut bytes = BYTES.clone();
        for (place, value) in changes {
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] = value;
        }
        if let Ok(network) = FixedNetwork::from_bytes(&bytes) {
            Circuit::new(&network, &[], Tables::Small).counts();
        }
    }
}
