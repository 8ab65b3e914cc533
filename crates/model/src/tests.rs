//! Both references against each other and against values worked out by hand; ONNX reading on good
//! and hostile bytes.

use jali_testing::numbers;
use proptest::prelude::*;
use prost::Message;

use crate::quant::QuantModel;
use crate::shape_inference::window;
use crate::*;

fn image(shape: &[usize], seed: u64) -> Tensor {
    let data = numbers(seed, shape.iter().product()).iter().map(|v| v.abs()).collect();
    Tensor::new("image", shape.to_vec(), data).unwrap()
}

fn conv(c: &Conv, seed: u64) -> Conv {
    let n = c.filters * c.channels * c.kernel[0] * c.kernel[1];
    Conv { weight: numbers(seed, n), bias: numbers(seed + 1, c.filters), ..c.clone() }
}

const PLAIN: Conv = Conv {
    weight: vec![],
    bias: vec![],
    filters: 1,
    channels: 1,
    kernel: [3, 3],
    stride: [1, 1],
    padding: [1; 4],
    dilation: [1, 1],
    groups: 1,
};

#[test]
fn convolution_by_hand() {
    // 2x3 plane, 2x2 kernel, padding only on the left and the bottom.
    let c = Conv {
        weight: vec![1.0, 10.0, 100.0, 1000.0],
        bias: vec![0.5],
        kernel: [2, 2],
        padding: [0, 1, 1, 0],
        ..PLAIN
    };
    let mut g = Graph::new(vec![1, 2, 3]).unwrap();
    g.push("c".into(), Op::Conv(c), vec![0]).unwrap();
    let x = Tensor::new("x", vec![1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let y = float::run(&g, x).unwrap();
    assert_eq!(y.shape, [1, 2, 3]);
    assert_eq!(y.data, [4010.5, 5421.5, 6532.5, 40.5, 54.5, 65.5]);
}

#[test]
fn pooling_by_hand() {
    let x = Tensor::new("x", vec![1, 3, 3], (1..=9).map(|v| v as f32).collect()).unwrap();
    let run = |op: Op| {
        let mut g = Graph::new(vec![1, 3, 3]).unwrap();
        g.push("p".into(), op, vec![0]).unwrap();
        float::run(&g, x.clone()).unwrap()
    };
    let p =
        Pool { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4], count_padding: false, ceil: false };
    assert_eq!(run(Op::MaxPool(p.clone())).data, [5.0]);
    assert_eq!(run(Op::MaxPool(Pool { ceil: true, ..p.clone() })).data, [5.0, 6.0, 8.0, 9.0]);
    assert_eq!(run(Op::AveragePool(Pool { ceil: true, ..p.clone() })).data, [3.0, 4.5, 7.5, 9.0]);
    let padded = Pool { padding: [1, 1, 0, 0], ..p };
    assert_eq!(run(Op::AveragePool(padded.clone())).data, [1.0, 2.5, 5.5, 7.0]);
    assert_eq!(run(Op::AveragePool(Pool { count_padding: true, ..padded })).data, [0.25, 1.25, 2.75, 7.0]);
}

#[test]
fn rounding_is_to_the_nearest_halves_away_and_saturates() {
    let layer = Scaling { scales: vec![0.25, 2.0], bias: vec![1, -1], input_scale: 0.5, input_range: (-7, 7) };
    let x = [0.0, 0.24, 0.25, 0.26, -0.25, -0.24, 0.75, 3.49, 100.0, -100.0];
    assert_eq!(layer.quantise(&x), [0, 0, 1, 1, -1, 0, 2, 7, 7, -7]);
    assert_eq!(layer.dequantise(&[3, -1, 5, 0]), [1.0, 0.0, 8.0, -2.0]);
}

proptest! {
    #[test]
    fn rounding_is_the_standard_librarys(bits in any::<u32>(), near in -5000f32..5000.0, low in -4096i32..=0, high in 0i32..=4096) {
        let scaling = Scaling { scales: vec![], bias: vec![], input_scale: 1.0, input_range: (low, high) };
        let below_half = 0.5f32.next_down();
        for x in [f32::from_bits(bits), near, near.trunc() + 0.5, below_half, -below_half, f32::NAN, f32::INFINITY, -f32::INFINITY] {
            prop_assert_eq!(scaling.quantise(&[x]), [(x.round() as i32).clamp(low, high)], "{}", x);
        }
    }
}

#[test]
fn plaintext_bits_hold_every_sum_and_depend_on_shapes_only() {
    let c = QuantConfig::default();
    // 2 * 288 * 127 * 255 = 18 653 760 < 2^25; 2 * 2048 * 127 * 255 = 132 648 960 < 2^27.
    assert_eq!((c.plaintext_bits(288), c.plaintext_bits(2048)), (25, 27));
    for fan_in in 1..3000u64 {
        let span = 2 * fan_in * 127 * 255;
        let t = 1u64 << c.plaintext_bits(fan_in as usize);
        assert!(t > span && t <= 2 * span);
    }
    assert!(QuantConfig::new(1, 8).is_err() && QuantConfig::new(9, 8).is_err() && QuantConfig::new(8, 13).is_err());
}

#[test]
fn weights_and_activations_keep_to_their_bits() {
    for (w, a) in [(2, 2), (4, 6), (8, 12)] {
        let mut g = Graph::new(vec![2, 6, 6]).unwrap();
        let c = conv(&Conv { filters: 3, channels: 2, ..PLAIN }, 5);
        g.push("c".into(), Op::Conv(c), vec![0]).unwrap();
        let config = QuantConfig::new(w, a).unwrap();
        let q = QuantModel::calibrate(g, config, &[image(&[2, 6, 6], 1)], None).unwrap();
        let layer = q.layer(0).unwrap();
        assert!(layer.weights.iter().all(|v| i64::from(v.abs()) <= config.weight_bound()));
        assert_eq!(layer.weights.iter().map(|v| i64::from(v.abs())).max(), Some(config.weight_bound()));
        assert_eq!(layer.scaling.input_range, (0, config.activation_bound() as i32));
    }
}

#[test]
fn channels_without_weights_keep_their_bias() {
    // Weight decay leaves channels whose weights are zero or next to it; normalisation leaves
    // biases of any size.
    for tiny in [0.0, 1e-42, 1e-30, 1e-16, 1e-12, 1e-7] {
        for bias in [0.5f32, -3.0, 1e-3, 0.0, 1e20] {
            let mut g = Graph::new(vec![1, 4, 4]).unwrap();
            let mut c = conv(&Conv { filters: 2, ..PLAIN }, 1);
            c.weight[9..].iter_mut().for_each(|w| *w *= tiny);
            c.bias = vec![0.1, bias];
            g.push("c".into(), Op::Conv(c), vec![0]).unwrap();
            let x = image(&[1, 4, 4], 1);
            let q = QuantModel::calibrate(g, QuantConfig::default(), std::slice::from_ref(&x), None).unwrap();
            let (f, i) = (float::run(q.graph(), x.clone()).unwrap(), integer::run(&q, x).unwrap());
            for (f, i) in f.data[16..].iter().zip(&i.output.data[16..]) {
                assert!((f - i).abs() <= 1e-6 * bias.abs() + 0.05 * tiny + 1e-37, "{tiny} {bias}: {f} {i}");
            }
            assert!(q.outline().is_ok());
        }
    }
}

#[test]
fn coarse_rounding_leaves_no_mean_error_in_a_channel() {
    for (w, a, seed) in [(4, 6, 1), (3, 8, 2), (8, 4, 3)] {
        let mut g = Graph::new(vec![2, 6, 6]).unwrap();
        g.push("c".into(), Op::Conv(conv(&Conv { filters: 3, channels: 2, ..PLAIN }, seed)), vec![0]).unwrap();
        let images: Vec<Tensor> = (0..5).map(|i| image(&[2, 6, 6], i)).collect();
        let q = QuantModel::calibrate(g, QuantConfig::new(w, a).unwrap(), &images, None).unwrap();
        for channel in 0..3 {
            let error = |x: &Tensor| -> f64 {
                let (f, i) = (float::run(q.graph(), x.clone()).unwrap(), integer::run(&q, x.clone()).unwrap());
                (0..36).map(|p| f64::from(f.data[36 * channel + p] - i.output.data[36 * channel + p])).sum()
            };
            let mean = images.iter().map(error).sum::<f64>() / (5.0 * 36.0);
            // What a bias cannot express is half a unit of the accumulator.
            assert!(mean.abs() <= 0.51 * q.layer(0).unwrap().scaling.scales[channel], "{w} {a} {channel}: {mean}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Two independent convolutions (im2col in f32, plain loops in integers) on numbers that f32
    /// holds exactly.
    #[test]
    fn the_references_agree_on_any_shape(
        kernel in [1usize..4, 1usize..6], stride in [1usize..4, 1usize..3], dilation in [1usize..3, 1usize..3],
        pad in [0usize..3, 0usize..3, 0usize..3, 0usize..3], h in 1usize..9, w in 1usize..9, groups in 1usize..3,
        channels in 1usize..3, filters in 1usize..3, seed: u64,
    ) {
        let shape = [channels * groups, h, w];
        let fits = |size: usize, pads: usize, i: usize| window(size, pads, kernel[i], stride[i], dilation[i], false).is_ok();
        prop_assume!(fits(h, pad[0] + pad[2], 0) && fits(w, pad[1] + pad[3], 1));
        let c = Conv { filters: filters * groups, channels, kernel, stride, padding: pad, dilation, groups, ..PLAIN };
        let mut c = conv(&c, seed >> 1);
        c.weight.iter_mut().for_each(|v| *v = (*v * 127.0).round());
        c.bias.fill(0.0);
        // One weight of 127 per filter makes every scale 1.
        c.weight.chunks_exact_mut(channels * kernel[0] * kernel[1]).for_each(|f| f[0] = 127.0);
        let mut g = Graph::new(shape.to_vec()).unwrap();
        g.push("c".into(), Op::Conv(c), vec![0]).unwrap();
        let mut x = image(&shape, seed >> 2);
        x.data.iter_mut().for_each(|v| *v = (*v * 255.0).round());
        let q = QuantModel::calibrate(g.clone(), QuantConfig::default(), std::slice::from_ref(&x), Some((0.0, 255.0))).unwrap();
        let trace = integer::run(&q, x.clone()).unwrap();
        let sums: Vec<f32> = trace.accumulators[0].iter().map(|&v| v as f32).collect();
        prop_assert_eq!(&float::run(&g, x).unwrap().data, &sums);
        prop_assert_eq!(trace.output.data, sums);
    }

    #[test]
    fn hostile_onnx_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..4000, value: u8, cut in 0usize..4000) {
        let _ = onnx::import(&noise);
        let mut bytes = small_onnx();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = onnx::import(&bytes);
        bytes.truncate(cut % bytes.len());
        let _ = onnx::import(&bytes);
    }
}

#[test]
fn residuals_and_shared_values_run() {
    let mut g = Graph::new(vec![2, 4, 4]).unwrap();
    let c = conv(&Conv { filters: 2, channels: 2, ..PLAIN }, 3);
    let a = g.push("a".into(), Op::Conv(c.clone()), vec![0]).unwrap();
    let b = g.push("b".into(), Op::RELU, vec![a]).unwrap();
    let d = g.push("d".into(), Op::Conv(c), vec![b]).unwrap();
    let sum = g.push("sum".into(), Op::ADD, vec![d, a]).unwrap();
    g.push("flat".into(), Op::Flatten, vec![sum]).unwrap();
    let x = image(&[2, 4, 4], 1);
    assert_eq!(float::run(&g, x.clone()).unwrap().shape, [32]);
    let q = QuantModel::calibrate(g, QuantConfig::new(8, 12).unwrap(), std::slice::from_ref(&x), None).unwrap();
    let (float, integer) = (float::run(q.graph(), x.clone()).unwrap(), integer::run(&q, x).unwrap());
    assert_eq!(integer.accumulators.len(), 2);
    for (f, i) in float.data.iter().zip(&integer.output.data) {
        assert!((f - i).abs() < 0.1, "{f} {i}");
    }
}

#[test]
fn a_value_takes_the_place_of_all_before_it() {
    let (model, image) = small_quantised();
    let whole = integer::run(&model, image).unwrap();
    // Values 1 to 4 are the outputs of c, p, f and g. What c gives is its sums, scaled back.
    let sums = &whole.accumulators[0];
    let behind_c = Tensor::new("c", vec![2, 4, 4], model.layer(0).unwrap().scaling.dequantise(sums)).unwrap();
    let rest = integer::run_behind(&model, 1, behind_c.clone()).unwrap();
    assert_eq!((rest.output, &rest.accumulators[..]), (whole.output, &whole.accumulators[1..]));
    assert!(integer::run_behind(&model, 2, behind_c).unwrap_err().to_string().contains("value 2"));
    // Where a later node needs an earlier value, that is an error.
    let mut g = Graph::new(vec![2]).unwrap();
    let gemm = Gemm { weight: vec![1.0; 4], bias: vec![0.0; 2], inputs: 2, outputs: 2 };
    let a = g.push("a".into(), Op::Gemm(gemm), vec![0]).unwrap();
    g.push("sum".into(), Op::ADD, vec![a, 0]).unwrap();
    let x = Tensor::new("x", vec![2], vec![1.0, 0.5]).unwrap();
    let q = QuantModel::calibrate(g, QuantConfig::default(), std::slice::from_ref(&x), None).unwrap();
    assert!(integer::run_behind(&q, 1, x).is_err());
}

#[test]
fn unfit_graphs_and_images_say_where() {
    let mut g = Graph::new(vec![2, 4, 4]).unwrap();
    let c = conv(&Conv { filters: 2, channels: 3, ..PLAIN }, 3);
    let e = g.push("first".into(), Op::Conv(c), vec![0]).unwrap_err().to_string();
    assert!(e.contains("\"first\" (Conv)") && e.contains("channels"), "{e}");
    assert!(g.push("x".into(), Op::RELU, vec![7]).is_err());
    assert!(g.push("x".into(), Op::ADD, vec![0]).is_err());
    let huge = Conv { padding: [usize::MAX; 4], ..conv(&Conv { channels: 2, ..PLAIN }, 1) };
    assert!(g.push("x".into(), Op::Conv(huge), vec![0]).is_err());
    assert!(Graph::new(vec![1 << 20, 1 << 20, 1]).is_err());
    assert!(Graph::new(vec![]).is_err());
    assert!(float::run(&g, image(&[2, 4, 5], 1)).is_err());
    assert!(matches!(Tensor::new("x", vec![2], vec![0.0, f32::NAN]), Err(ModelError::NotFinite { index: 1, .. })));
    assert_eq!(QuantModel::calibrate(g, QuantConfig::default(), &[], None).unwrap_err(), ModelError::NoCalibration);
}

/// A file with a convolution, a batch norm, a ReLU, a pool, a reshape, a matrix product and a
/// constant added.
fn small_onnx() -> Vec<u8> {
    use crate::onnx::proto::*;
    let tensor = |name: &str, dims: &[i64], seed: u64| TensorData {
        dims: dims.to_vec(),
        data_type: 1,
        float_data: numbers(seed, dims.iter().product::<i64>() as usize).iter().map(|v| v.abs() + 0.1).collect(),
        name: name.into(),
        ..Default::default()
    };
    let node = |op: &str, input: &[&str], output: &str, attribute: Vec<Attribute>| Node {
        input: input.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        op_type: op.into(),
        attribute,
        ..Default::default()
    };
    let ints = |name: &str, ints: &[i64]| Attribute { name: name.into(), ints: ints.to_vec(), ..Default::default() };
    let value = |name: &str, dims: &[i64]| {
        let dim = dims.iter().map(|&d| Dimension { dim_value: (d > 0).then_some(d), dim_param: None }).collect();
        let tensor_type = Some(TensorType { elem_type: 1, shape: Some(Shape { dim }) });
        ValueInfo { name: name.into(), r#type: Some(Type { tensor_type }) }
    };
    let target = TensorData {
        dims: vec![2],
        data_type: 7,
        int64_data: vec![0, -1],
        name: "target".into(),
        ..Default::default()
    };
    let same = Attribute { name: "auto_pad".into(), s: b"SAME_UPPER".to_vec(), ..Default::default() };
    let graph = Graph {
        node: vec![
            node("Conv", &["x", "w"], "c", vec![same]),
            node("BatchNormalization", &["c", "g", "b", "m", "v"], "n", vec![]),
            node("Relu", &["n"], "r", vec![]),
            node("MaxPool", &["r"], "p", vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]),
            node("Reshape", &["p", "target"], "f", vec![]),
            node("MatMul", &["f", "fw"], "d", vec![]),
            node("Add", &["d", "fb"], "y", vec![]),
        ],
        initializer: vec![
            tensor("w", &[3, 2, 3, 3], 1),
            tensor("g", &[3], 2),
            tensor("b", &[3], 3),
            tensor("m", &[3], 4),
            tensor("v", &[3], 5),
            tensor("fw", &[12, 4], 6),
            tensor("fb", &[4], 7),
            target,
        ],
        input: vec![value("x", &[0, 2, 4, 4])],
        output: vec![value("y", &[0, 4])],
        value_info: vec![],
        ..Default::default()
    };
    let opset = Opset { domain: String::new(), version: 17 };
    proto_bytes(&Model { graph: Some(graph), opset_import: vec![opset], ..Default::default() })
}

fn proto_bytes(model: &crate::onnx::proto::Model) -> Vec<u8> {
    model.encode_to_vec()
}

#[test]
fn batch_norm_bias_and_shapes_of_a_file_are_folded() {
    let g = onnx::import(&small_onnx()).unwrap();
    let ops: Vec<&str> = g.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]);
    assert_eq!(g.shape(g.output()), [4]);
    // The fold against the definition, at one output: convolution without bias, then normalisation.
    let at = |seed: u64, n: usize, i: usize| numbers(seed, n)[i].abs() + 0.1;
    let Op::Conv(c) = &g.nodes()[0].op else { panic!() };
    for o in 0..3 {
        let scale = at(2, 3, o) / (at(5, 3, o) + 1e-5).sqrt();
        assert!((c.weight[o * 18] - at(1, 54, o * 18) * scale).abs() < 1e-5);
        assert!((c.bias[o] - (at(3, 3, o) - at(4, 3, o) * scale)).abs() < 1e-5);
    }
    let Op::Gemm(f) = &g.nodes()[4].op else { panic!() };
    assert_eq!((f.weight[1], f.bias[2]), (at(6, 48, 4), at(7, 4, 2)), "a matrix is transposed");
}

#[test]
fn what_a_file_asks_too_much_is_named() {
    use crate::onnx::proto::*;
    let change = |f: &dyn Fn(&mut Graph)| {
        let mut model = Model::decode(small_onnx().as_slice()).unwrap();
        f(model.graph.as_mut().unwrap());
        onnx::import(&proto_bytes(&model)).unwrap_err().to_string()
    };
    let e = change(&|g| g.node[2].op_type = "Hardmax".into());
    assert!(e.contains("\"r\" (Hardmax)") && e.contains("1 node is not supported"), "{e}");
    assert!(change(&|g| g.input.push(g.input[0].clone())).contains("2 inputs"));
    assert!(change(&|g| g.initializer[0].dims[0] = -3).contains("negative"));
    assert!(change(&|g| g.initializer[0].dims = vec![1 << 40, 1 << 40]).contains("too large"));
    assert!(change(&|g| g.initializer[0].float_data.truncate(5)).contains("the file holds 5"));
    assert!(change(&|g| g.initializer[0].data_location = 1).contains("names no file"));
    assert!(change(&|g| g.node[0].input[1] = "nowhere".into()).contains("nowhere"));
    assert!(change(&|g| g.output[0].name = "other".into()).contains("other"));
    assert!(change(&|g| g.node[1].input[1] = "fb".into()).contains("differ in length"));
    assert!(onnx::import(b"").unwrap_err().to_string().contains("ONNX"));
}

/// Real files, if they are at hand: they are test inputs beside the repository, not part of it.
#[test]
fn real_networks_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    let mut seen = 0;
    for (file, parameters) in [("delphi_minionn_cifar10_relu.onnx", 164_954), ("mnist-conv.onnx", 5_994)] {
        let Ok(bytes) = std::fs::read(folder.join(file)) else {
            println!("SKIPPED: {file} is not beside the repository");
            continue;
        };
        let g = onnx::import(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
        let count: usize = g.linear_nodes().map(|(_, l)| l.weights().len() + l.bias().len()).sum();
        assert_eq!(count, parameters, "{file}");
        seen += 1;
    }
    println!("{seen} real networks read");
}

#[test]
fn an_outline_keeps_shapes_and_scales_and_no_weight() {
    let (model, image) = small_quantised();
    let outline = model.outline().unwrap();
    let bytes = outline.to_bytes().unwrap();
    assert_eq!(Outline::from_bytes(&bytes).unwrap(), outline);
    assert!(outline.graph().linear_nodes().all(|(_, l)| l.weights().is_empty() && l.bias().is_empty()));
    for (node, _) in model.graph().linear_nodes() {
        assert_eq!(outline.scaling(node).unwrap(), &model.layer(node).unwrap().scaling);
        assert_eq!(outline.graph().shape(node + 1), model.graph().shape(node + 1));
    }
    assert!(outline.accepts(&image).is_ok());
    // Damage is an error or another outline, never a panic.
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            let _ = Outline::from_bytes(&bad);
        }
        assert!(Outline::from_bytes(&bytes[..at]).is_err(), "cut to {at}");
    }
    assert!(Outline::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
}

/// A convolution, a pool and a fully connected layer.
fn small_quantised() -> (QuantModel, Tensor) {
    let weight = |n: usize| (0..n).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>();
    let mut g = Graph::new(vec![1, 4, 4]).unwrap();
    let conv = Conv {
        weight: weight(18),
        bias: vec![0.5, -0.5],
        filters: 2,
        channels: 1,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1; 4],
        dilation: [1, 1],
        groups: 1,
    };
    let c = g.push("c".into(), Op::Conv(conv), vec![0]).unwrap();
    let pool =
        Pool { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4], count_padding: false, ceil: false };
    let p = g.push("p".into(), Op::MaxPool(pool), vec![c]).unwrap();
    let f = g.push("f".into(), Op::Flatten, vec![p]).unwrap();
    let gemm = Gemm { weight: weight(24), bias: vec![0.0; 3], inputs: 8, outputs: 3 };
    g.push("g".into(), Op::Gemm(gemm), vec![f]).unwrap();
    let image = Tensor::new("image", vec![1, 4, 4], (0..16).map(|i| i as f32 / 16.0).collect()).unwrap();
    (QuantModel::calibrate(g, QuantConfig::default(), std::slice::from_ref(&image), None).unwrap(), image)
}
