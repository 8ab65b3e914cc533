//! One step of the client on values of one kind, so that its instructions can be counted:
//! `scripts/constant-time`. `client_work list` prints the steps and the kinds; `client_work STEP
//! KIND TIMES` does a step so many times.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;

use jali_model::{Activation, Arithmetic, Constant, Gemm, Graph, Op, Pool, QuantConfig, QuantModel, ReduceKind};
use jali_model::{Tensor, float};

const SHAPE: [usize; 3] = [4, 16, 16];
const VALUES: usize = 1024;
const KINDS: [&str; 7] = ["random", "zeros", "positive", "negative", "small", "large", "subnormal"];

/// All of one kind, in an order that nothing can guess.
fn values(kind: &str) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let one = |r: f32| match kind {
        "zeros" => 0.0,
        "positive" => 1.0 + r.abs(),
        "negative" => -1.0 - r.abs(),
        "small" => r * 1e-6,
        "large" => r * 1e30,
        "subnormal" => f32::from_bits(1 + (r.abs() * 1e6) as u32),
        _ => 4.0 * r,
    };
    (0..VALUES).map(|_| one(next())).collect()
}

fn steps() -> Vec<(&'static str, Op)> {
    let mut steps = activations();
    steps.extend(others());
    steps
}

fn activations() -> Vec<(&'static str, Op)> {
    use Activation as A;
    [
        ("relu", A::Relu),
        ("clip", A::Clip { low: 0.0, high: 6.0 }),
        ("leaky-relu", A::LeakyRelu { alpha: 0.1 }),
        ("sigmoid", A::Sigmoid),
        ("hard-sigmoid", A::HardSigmoid { alpha: 0.2, beta: 0.5 }),
        ("hard-swish", A::HardSwish),
        ("tanh", A::Tanh),
        ("elu", A::Elu { alpha: 1.0 }),
        ("gelu", A::Gelu),
        ("gelu-tanh", A::GeluTanh),
        ("erf", A::Erf),
        ("truncate", A::Truncate),
        ("nonzero", A::NonZero),
        ("abs", A::Abs),
        ("sqrt", A::Sqrt),
        ("exp", A::Exp),
        ("log", A::Log),
        ("reciprocal", A::Reciprocal),
        ("square", A::Pow { exponent: 2.0 }),
        ("power", A::Pow { exponent: 1.7 }),
        ("floor", A::Floor),
        ("ceil", A::Ceil),
        ("round", A::Round),
        ("sign", A::Sign),
        ("sin", A::Sin),
        ("cos", A::Cos),
        ("atan", A::Atan),
        ("softplus", A::Softplus),
        ("softsign", A::Softsign),
        ("mish", A::Mish),
        ("selu", A::Selu { alpha: 1.67, gamma: 1.05 }),
        ("celu", A::Celu { alpha: 2.0 }),
        ("thresholded", A::Thresholded { alpha: 1.0 }),
    ]
    .map(|(name, activation)| (name, Op::Activation(activation)))
    .into()
}

fn others() -> Vec<(&'static str, Op)> {
    let pool = || Pool {
        kernel: [2, 2],
        stride: [2, 2],
        dilation: [1, 1],
        padding: [0; 4],
        count_padding: false,
        ceil: false,
    };
    let reduce = |kind| Op::Reduce { kind, axes: vec![1, 2], keep: false };
    let with = |op| Op::WithConstant {
        op,
        constant: Constant { shape: vec![4, 1, 1], data: vec![0.5, -1.5, 2.0, 1.0] },
        constant_first: false,
    };
    vec![
        ("max-pool", Op::MaxPool(pool())),
        ("average-pool", Op::AveragePool(pool())),
        ("softmax", Op::Softmax { axis: 0, log: false }),
        ("log-softmax", Op::Softmax { axis: 0, log: true }),
        ("add", with(Arithmetic::Add)),
        ("multiply", with(Arithmetic::Mul)),
        ("divide", with(Arithmetic::Div)),
        ("prelu", with(Arithmetic::PRelu)),
        ("larger", with(Arithmetic::Max)),
        ("power-of-constant", with(Arithmetic::Pow)),
        ("less", with(Arithmetic::Less)),
        ("equal", with(Arithmetic::Equal)),
        ("mean", reduce(ReduceKind::Mean)),
        ("sum", reduce(ReduceKind::Sum)),
        ("largest", reduce(ReduceKind::Max)),
        ("product", reduce(ReduceKind::Product)),
        ("length", reduce(ReduceKind::L2)),
        ("argmax", Op::ArgMax { axis: 0, keep: true, last: false }),
    ]
}

/// Quantising, or dequantising sums that are these values' integers.
fn quantising(step: &str, kind: &str, times: usize) -> Result<(), Box<dyn Error>> {
    let mut graph = Graph::new(vec![VALUES])?;
    let gemm = Gemm { weight: vec![0.5; VALUES], bias: vec![0.1], inputs: VALUES, outputs: 1 };
    graph.push("gemm".into(), Op::Gemm(gemm), vec![0])?;
    let image = Tensor::new("x", vec![VALUES], values("random"))?;
    let model = QuantModel::calibrate(graph, QuantConfig::default(), std::slice::from_ref(&image), None)?;
    let (scaling, x) = (&model.layer(0)?.scaling, values(kind));
    let sums: Vec<i64> = x.iter().map(|v| i64::from(v.to_bits() >> 4) - (1 << 27)).collect();
    for _ in 0..times {
        match step {
            "quantise" => drop(black_box(scaling.quantise(black_box(&x)))),
            _ => drop(black_box(scaling.dequantise(black_box(&sums)))),
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [step, kind, times] = &args[..] else {
        let steps: Vec<&str> = steps().iter().map(|s| s.0).chain(["quantise", "dequantise"]).collect();
        println!("{}\n{}", steps.join(" "), KINDS.join(" "));
        return Ok(());
    };
    let times = times.parse()?;
    if let "quantise" | "dequantise" = step.as_str() {
        return quantising(step, kind, times);
    }
    let (_, op) = steps().into_iter().find(|(name, _)| name == step).ok_or("there is no such step")?;
    let mut graph = Graph::new(SHAPE.to_vec())?;
    graph.push("step".into(), op, vec![0])?;
    let x = Tensor::new("x", SHAPE.to_vec(), values(kind))?;
    for _ in 0..times {
        black_box(float::run(&graph, black_box(x.clone()))?);
    }
    Ok(())
}
