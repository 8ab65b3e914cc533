//! Whole networks through encoded messages against the integer reference, and servers that lie.

use jali_bundle::{Bundle, BundleWriter, Kind};
use jali_leak::{Plan, random_rows};
use jali_mask::{RequestContext, RequestEntropy, SealEntropy};
use jali_model::{Activation, Conv, Gemm, Graph, Op, Pool, QuantConfig, QuantModel, Tensor, integer};
use jali_pack::Costs;
use jali_ring::Backend;
use jali_testing::numbers;
use proptest::prelude::*;

use crate::message::{Refusal, decode_refusal};
use crate::*;

mod bundles;
mod exact;
mod lies;
mod noise;
mod plans;

const NO_LIMIT: usize = usize::MAX;

fn conv(filters: usize, channels: usize, kernel: [usize; 2], padding: [usize; 4], seed: u64) -> Op {
    let weight = numbers(seed, filters * channels * kernel[0] * kernel[1]);
    let bias = numbers(seed + 1, filters);
    Op::Conv(Conv { weight, bias, filters, channels, kernel, stride: [1, 1], padding, dilation: [1, 1], groups: 1 })
}

/// Convolutions with a residual, pooling, two fully connected layers.
fn network(seed: u64) -> Graph {
    let mut g = Graph::new(vec![3, 10, 9]).unwrap();
    let a = g.push("a".into(), conv(5, 3, [3, 3], [1; 4], seed), vec![0]).unwrap();
    let r = g.push("r".into(), Op::RELU, vec![a]).unwrap();
    let b = g.push("b".into(), conv(5, 5, [1, 5], [0, 2, 0, 2], seed + 2), vec![r]).unwrap();
    let sum = g.push("sum".into(), Op::ADD, vec![a, b]).unwrap();
    let pool =
        Pool { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4], count_padding: false, ceil: false };
    let p = g.push("p".into(), Op::MaxPool(pool), vec![sum]).unwrap();
    let f = g.push("f".into(), Op::Flatten, vec![p]).unwrap();
    let gemm = |inputs, outputs, seed| {
        Op::Gemm(Gemm { weight: numbers(seed, inputs * outputs), bias: numbers(seed + 1, outputs), inputs, outputs })
    };
    let c = g.push("c".into(), gemm(100, 17, seed + 4), vec![f]).unwrap();
    let s = g.push("s".into(), Op::RELU, vec![c]).unwrap();
    g.push("d".into(), gemm(17, 4, seed + 6), vec![s]).unwrap();
    g
}

fn image(seed: u64) -> Tensor {
    Tensor::new("image", vec![3, 10, 9], numbers(seed, 270)).unwrap()
}

fn quantised(seed: u64, bits: (u32, u32)) -> QuantModel {
    let images: Vec<Tensor> = (0..4).map(|i| image(seed + i)).collect();
    QuantModel::calibrate(network(seed), QuantConfig::new(bits.0, bits.1).unwrap(), &images, None).unwrap()
}

fn sealed(model: &QuantModel, leak: f64, entropy: u8) -> Sealed {
    let rows = Blueprint::rows_of_all(model, &Costs::default()).unwrap();
    let plan = random_rows(model.graph(), &rows, leak, 1).unwrap();
    seal(model, &plan, &Costs::default(), entropy).unwrap()
}

fn seal(model: &QuantModel, plan: &Plan, costs: &Costs, entropy: u8) -> Result<Sealed, ProtocolError> {
    Owner { model, plan, costs }.seal(&SealEntropy::fixed([entropy; 32]), |_| {})
}

fn server(sealed: &Sealed) -> Server {
    Server::load(&sealed.server, Backend::choose(None).unwrap(), NO_LIMIT).unwrap()
}

/// Runs one image; `tamper` sees every answer, with the number of its layer, before the client
/// does.
fn run(
    client: &ClientModel,
    server: &Server,
    image: Tensor,
    tamper: &mut dyn FnMut(usize, &mut Vec<u8>),
) -> Result<(Tensor, Vec<Vec<i64>>), ProtocolError> {
    run_batch(client, server, vec![image], tamper).map(|mut all| all.remove(0))
}

/// One image, honestly answered, gives the reference's output and sums in every layer.
fn assert_exact(client: &ClientModel, server: &Server, model: &QuantModel, image: Tensor) {
    let (output, trace) = run(client, server, image.clone(), &mut |_, _| {}).unwrap();
    let reference = integer::run(model, image).unwrap();
    assert!(output == reference.output && trace == reference.accumulators);
}

/// Runs a batch; output and sums of every image.
#[allow(clippy::type_complexity)]
fn run_batch(
    client: &ClientModel,
    server: &Server,
    images: Vec<Tensor>,
    tamper: &mut dyn FnMut(usize, &mut Vec<u8>),
) -> Result<Vec<(Tensor, Vec<Vec<i64>>)>, ProtocolError> {
    let mut inference = Inference::new(client, images, RequestContext { counter: 0, image: 0 })?.keep_trace();
    loop {
        match inference.next(RequestEntropy::from_os().unwrap())? {
            Action::Send { operator, request } => {
                let mut answer = server.handle(&request);
                tamper(operator, &mut answer);
                inference.receive(&answer)?;
            }
            Action::Done(outputs) => {
                let first = outputs.into_iter().map(|mut o| o.remove(0));
                return Ok(first.zip(inference.into_trace().unwrap()).collect());
            }
        }
    }
}

/// A client read back from its bundle, with the server's hints.
fn restored(bytes: &[u8], server: &Server) -> Result<ClientModel, ProtocolError> {
    let mut stored = StoredClient::read(std::io::Cursor::new(bytes))?;
    for operator in 0..stored.operators() {
        assert!(stored.needs_hints(operator));
        let hints = server.hints(operator).unwrap();
        // Wrong hints are refused and do not spoil the key.
        let mut wrong = hints.clone();
        let at = 7 + (operator * 991) % (hints.len() - 7);
        wrong[at] ^= 1;
        assert!(matches!(stored.accept_hints(operator, &wrong), Err(ProtocolError::Hints { .. })));
        stored.accept_hints(operator, &hints)?;
        assert_eq!(stored.accept_hints(operator, &hints), Err(ProtocolError::NoHintsExpected { operator }));
    }
    stored.finish()
}
