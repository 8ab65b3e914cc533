//! What is fuzzed: every decoder of bytes that come from a file or a socket.
//!
//! ```sh
//! cargo fuzz run request -- -max_total_time=60 -rss_limit_mb=512 -malloc_limit_mb=256                 # libfuzzer, nightly
//! cargo run --release --no-default-features --manifest-path fuzz/Cargo.toml --bin stable -- all 60   # stable, no C++
//! ```
//!
//! Both end with a failure where an input makes a decoder ask for more memory than that; the stable
//! runner by an allocator that counts.
//!
//! Checksums would keep a fuzzer at the door, so `*_sections` targets put the input behind right
//! ones.

pub mod guests;

use std::io::Cursor;
use std::sync::OnceLock;

use jali_bundle::{Bundle, BundleWriter, Kind};
use jali_leak::Plan;
use jali_mask::{RequestContext, RequestEntropy, SealEntropy};
use jali_model::onnx::{self, External};
use jali_model::{Gemm, Graph, Op, Outline, QuantConfig, QuantModel, Tensor, float, integer};
use jali_operator::{OperatorSummary, ServerModel};
use jali_pack::Costs;
use jali_protocol::message::{decode_answer, decode_hints, decode_refusal, operator_of};
use jali_protocol::{Action, ClientModel, Inference, Owner, Server, StoredClient};
use jali_ring::{Backend, Ring};

/// Memory that a hostile bundle may ask for here.
const MEMORY: usize = 1 << 24;

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 14] = [
    ("plan", plan),
    ("container", container),
    ("server_sections", server_sections),
    ("client_sections", client_sections),
    ("request", request),
    ("answer", answer),
    ("hints", hints),
    ("outline", outline),
    ("onnx_model", onnx_model),
    ("image", image),
    ("guest_network", guests::network),
    ("guest_block", guests::block),
    ("guest_files", guests::files),
    ("guest_messages", guests::messages),
];

/// A small sealed network, half of its rows open.
pub struct Small {
    pub client: ClientModel,
    pub server: Server,
    pub server_bytes: Vec<u8>,
    pub client_bytes: Vec<u8>,
    pub outline: Vec<u8>,
    pub request: Vec<u8>,
}

/// The small network.
pub fn graph() -> Graph {
    let mut graph = Graph::new(vec![6]).unwrap();
    let weight = (0..24).map(|i| i as f32 - 11.0).collect();
    let gemm = Gemm { weight, bias: vec![0.5; 4], inputs: 6, outputs: 4 };
    let a = graph.push("a".into(), Op::Gemm(gemm), vec![0]).unwrap();
    graph.push("b".into(), Op::RELU, vec![a]).unwrap();
    graph
}

pub fn small() -> &'static Small {
    static SMALL: OnceLock<Small> = OnceLock::new();
    SMALL.get_or_init(|| {
        let graph = graph();
        let image = Tensor::new("image", vec![6], vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).unwrap();
        let images = std::slice::from_ref(&image);
        let model = QuantModel::calibrate(graph, QuantConfig::default(), images, None).unwrap();
        // All open: a small ring, and bundles of a few kilobytes.
        let plan = Plan::open_all(model.graph());
        let entropy = SealEntropy::fixed([1; 32]);
        let costs = Costs::default();
        let sealed = Owner { model: &model, plan: &plan, costs: &costs }.seal(&entropy, |_| {}).unwrap();
        let server_bytes = sealed.server;
        let server = Server::load(&server_bytes, Backend::fastest(), usize::MAX).unwrap();
        let client_bytes = sealed.client.write(vec![]).unwrap().0;
        let outline = sealed.client.outline().to_bytes().unwrap();
        let client = sealed.client;
        let context = RequestContext { counter: 0, image: 0 };
        let mut inference = Inference::new(&client, vec![image], context).unwrap();
        let Action::Send { request, .. } = inference.next(RequestEntropy::fixed([2; 32])).unwrap() else { panic!() };
        drop(inference);
        Small { client, server, server_bytes, client_bytes, outline, request }
    })
}

/// A whole file, either kind.
pub fn container(data: &[u8]) {
    for kind in [Kind::Server, Kind::Client] {
        if let Ok(mut bundle) = Bundle::open(Cursor::new(data), kind) {
            let _ = OperatorSummary::read_all(&mut bundle);
            let _ = bundle.verify(|_| {});
        }
    }
    let _ = ServerModel::load(data, Backend::fastest(), MEMORY);
    let _ = StoredClient::read(Cursor::new(data));
}

/// Cuts the input into sections by lengths at its beginning.
pub(crate) fn sections<'a>(data: &'a [u8], names: &[&'static str]) -> Vec<(&'static str, &'a [u8])> {
    let mut rest = data;
    let mut out = vec![];
    for (i, name) in names.iter().enumerate() {
        let last = i + 1 == names.len();
        let Some((length, tail)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (section, tail) = if last { (tail, &tail[..0]) } else { tail.split_at(length) };
        out.push((*name, section));
        rest = tail;
    }
    out
}

pub(crate) fn bundle(kind: Kind, data: &[u8], names: &[&'static str]) -> Vec<u8> {
    let mut out = BundleWriter::new(vec![], kind, [3; 16]).unwrap();
    sections(data, names).iter().for_each(|(name, bytes)| out.section(name, bytes).unwrap());
    out.finish().unwrap().0
}

/// Sections of a server's bundle behind right checksums.
pub fn server_sections(data: &[u8]) {
    let bytes = bundle(Kind::Server, data, &["operators", "rows 0 0"]);
    let _ = OperatorSummary::read_all(&mut Bundle::open(Cursor::new(&bytes), Kind::Server).unwrap());
    if let Ok(model) = ServerModel::load(&bytes, Backend::fastest(), MEMORY) {
        for operator in model.operators() {
            let x = vec![operator.ring().zero(); operator.tiles()];
            let _ = operator.apply(&[&x]);
            let _ = operator.hints(&mut vec![0; operator.hints_len()]);
        }
    }
}

/// Sections of a client's bundle behind right checksums.
pub fn client_sections(data: &[u8]) {
    let bytes = bundle(Kind::Client, data, &["network", "operators", "key 0"]);
    if let Ok(stored) = StoredClient::read(Cursor::new(&bytes)) {
        let _ = stored.summaries();
    }
}

/// A request to a server.
pub fn request(data: &[u8]) {
    let answer = small().server.handle(data);
    assert!(!answer.is_empty());
    if let Some(operator) = operator_of(data) {
        let _ = small().server.work_bytes(operator, data.len());
    }
}

/// An answer to a client.
pub fn answer(data: &[u8]) {
    let key = &small().client.operators()[0].key;
    let _ = decode_answer(data, 0, key.parameters().ring(), key.form(), 1);
    let _ = decode_refusal(data);
}

/// Hints to a client, which checks them.
pub fn hints(data: &[u8]) {
    let key = &small().client.operators()[0].key;
    let ring: &Ring = key.parameters().ring();
    let _ = decode_hints(data, 0, ring, key.form().limbs());
    let mut stored = StoredClient::read(Cursor::new(&small().client_bytes)).unwrap();
    if stored.accept_hints(0, data).is_ok() {
        assert_eq!(data, small().server.hints(0).unwrap(), "hints that the server does not have were accepted");
    }
}

/// The network in a client's bundle.
pub fn outline(data: &[u8]) {
    if let Ok(outline) = Outline::from_bytes(data) {
        let again = Outline::from_bytes(&outline.to_bytes().unwrap()).unwrap();
        assert!(again.graph().nodes().len() == outline.graph().nodes().len());
    }
}

/// A plan as a file.
pub fn plan(data: &[u8]) {
    static GRAPH: OnceLock<Graph> = OnceLock::new();
    let graph = GRAPH.get_or_init(graph);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok((plan, made)) = Plan::from_json(text, graph)
    {
        assert_eq!(Plan::from_json(&plan.to_json(graph, &made).unwrap(), graph).unwrap().0, plan);
    }
}

/// A model file, with a file of data beside it; what can be imported and is small is run,
/// quantised, and lowered.
pub fn onnx_model(data: &[u8]) {
    let mut beside = |e: &External| data.get(..e.length).map(<[u8]>::to_vec).ok_or_else(|| "too short".to_string());
    let Ok(imported) = onnx::import_with(data, &mut beside) else { return };
    let graph = imported.graph;
    let values: usize = graph.nodes().iter().map(|n| n.shape.iter().product::<usize>() * work(&n.op)).sum();
    let shape = graph.input_shape().to_vec();
    let inputs: usize = shape.iter().product();
    if values > 1 << 20 || inputs > 1 << 16 {
        return;
    }
    let x = (0..inputs).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let x = Tensor::new("x", shape, x).unwrap();
    let _ = float::run_all(&graph, x.clone());
    let Ok(model) = QuantModel::calibrate(graph, QuantConfig::default(), std::slice::from_ref(&x), None) else {
        return;
    };
    let _ = integer::run(&model, x);
    let _ = jali_protocol::forecast(&model, &Plan::hide_all(model.graph()), &Costs::default());
}

/// About how many products a value of a node takes.
fn work(op: &Op) -> usize {
    match op {
        Op::MaxPool(p) | Op::AveragePool(p) => p.kernel.iter().product(),
        op => op.linear().map_or(1, |l| l.fan_in()),
    }
}

/// A file that says how images become inputs, and an image.
pub fn image(data: &[u8]) {
    let parts = sections(data, &["preprocess", "image"]);
    let preprocess = parts.first().and_then(|(_, json)| jali::model_file::parse_preprocess(json).ok());
    let Some((_, image)) = parts.get(1) else { return };
    if let Ok(array) = jali::image_file::floats_of_npy(image) {
        assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
    }
    for shape in [&[3, 8, 8][..], &[1, 4, 4], &[8, 8, 3], &[5]] {
        let p = preprocess.clone().filter(|p| p.check(shape).is_ok()).unwrap_or_default();
        if let Ok(tensor) = jali::image_file::decode_image(image, shape, &p) {
            assert_eq!(tensor.shape, shape);
            assert!(tensor.data.iter().all(|v| v.is_finite()));
        }
    }
}
