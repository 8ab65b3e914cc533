//! The ONNX standard's own operator tests (`scripts/onnx-cases` says how the file was made;
//! Apache-2.0, the ONNX project).

use prost::Message;

use super::constant::{Constant, Values};
use super::fold::{Attributes, fold};
use super::import::import_any;
use super::proto;
use crate::{ModelError, Tensor, float};

mod export;
mod files;

const CASES: &[u8] = include_bytes!("../../tests/data/onnx-cases.bin");
/// Networks as PyTorch's exporters write them (`scripts/exported-cases`; our own).
const EXPORTED: &[u8] = include_bytes!("../../tests/data/exported-cases.bin");

/// Reads the file of cases; it is our own, so a slip in it may panic.
struct Cases(&'static [u8]);

impl Cases {
    fn take(&mut self, n: usize) -> &'static [u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }

    fn bytes(&mut self) -> &'static [u8] {
        let n = self.number();
        self.take(n)
    }

    fn tensor(&mut self) -> (Vec<usize>, Vec<f32>) {
        let rank = self.take(1)[0];
        let shape: Vec<usize> = (0..rank).map(|_| self.number()).collect();
        let values = self.take(4 * shape.iter().product::<usize>());
        (shape, values.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
    }
}

/// Reasons for which a case may be refused: it mixes images of a batch, or asks for what is
/// documented as missing.
const REFUSED: [&str; 12] = [
    "does not exist",
    "combines what it replaces",
    "with fixed sizes",
    "across the batch dimension",
    "has more dimensions than an image",
    "training mode",
    "tf_crop_and_resize",
    "joins a constant",
    "matrices [",
    "cannot take the shape",
    "has a second output",
    "empty or too large",
];

/// A model whose input says how many images it has.
fn with_batch(model: &[u8], batch: usize) -> Vec<u8> {
    let mut model = proto::Model::decode(model).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let input = graph.input.iter_mut().find(|v| !constants.contains(&v.name.as_str())).unwrap();
    let shape = input.r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).and_then(|t| t.shape.as_mut()).unwrap();
    shape.dim[0].dim_value = Some(batch as i64);
    model.encode_to_vec()
}

/// Names of the cases that are right, and of those that are refused, with the reason. Panics on one
/// that is wrong.
fn compare(cases: &'static [u8]) -> (Vec<String>, Vec<(String, String)>) {
    let mut cases = Cases(cases);
    let (mut right, mut refused) = (vec![], vec![]);
    while !cases.0.is_empty() {
        let name = String::from_utf8_lossy(cases.bytes()).into_owned();
        let model = cases.bytes();
        let (shape, data) = cases.tensor();
        let outputs = cases.take(1)[0];
        let wanted: Vec<_> = (0..outputs).map(|_| cases.tensor()).collect();
        let mut none = |_: &super::External| Err(String::new());
        let graph = match import_any(with_batch(model, shape[0]), &mut none) {
            Ok(imported) => imported.graph,
            Err(e) => {
                refused.push((name, e.to_string()));
                continue;
            }
        };
        // Every image of the batch alone.
        let size = data.len() / shape[0];
        for (image, x) in data.chunks_exact(size).enumerate() {
            let x = Tensor::new("x", shape[1..].to_vec(), x.to_vec()).unwrap();
            let got: Result<Vec<Tensor>, ModelError> = float::run_all(&graph, x);
            for (got, (shape, want)) in got.unwrap().iter().zip(&wanted) {
                // With the batch dimension in front, or (where a network moved it) with the whole
                // shape that the file gives it.
                assert!(got.shape == shape[1..] || got.shape == *shape, "{name}: {:?}, not {shape:?}", got.shape);
                let at = if got.data.len() == want.len() { 0 } else { image * got.data.len() };
                let want = &want[at..][..got.data.len()];
                for (g, w) in got.data.iter().zip(want) {
                    // The standard's own tolerance: some of its values are rounded to four digits.
                    assert!((g - w).abs() <= 1e-3 * w.abs() + 1e-6, "{name}: {g} instead of {w}");
                }
            }
        }
        right.push(name);
    }
    println!("{} cases right, {} refused:", right.len(), refused.len());
    refused.iter().for_each(|(name, why)| println!("  {name}: {why}"));
    (right, refused)
}

#[test]
fn operators_do_what_the_standard_says() {
    let (right, refused) = compare(CASES);
    for (name, why) in refused {
        assert!(REFUSED.iter().any(|r| why.contains(r)), "{name}: {why}");
    }
    assert!(right.len() >= 289, "{}", right.len());
}

#[test]
fn networks_of_both_exporters_do_what_pytorch_does() {
    let (right, refused) = compare(EXPORTED);
    assert!(refused.is_empty() && right.len() >= 13, "{right:?}");
}

/// A model of one operator on a 1x8x8 image with one more input.
fn one_operator(op: &str, constant: proto::TensorData, on_image: bool) -> Vec<u8> {
    let dim = |n: i64| proto::Dimension { dim_value: Some(n), dim_param: None };
    let shape = proto::Shape { dim: [1, 1, 8, 8].map(dim).to_vec() };
    let x = proto::ValueInfo {
        name: "x".into(),
        r#type: Some(proto::Type { tensor_type: Some(proto::TensorType { elem_type: 1, shape: Some(shape) }) }),
    };
    let constant = proto::TensorData { name: "c".into(), ..constant };
    let input = match (op, on_image) {
        ("Resize", _) => vec!["x".into(), String::new(), "c".into()],
        (_, true) => vec!["x".into(), "c".into()],
        (_, false) => vec!["c".into()],
    };
    let node = proto::Node { op_type: op.into(), input, output: vec!["y".into()], ..Default::default() };
    let graph = proto::Graph {
        node: vec![node],
        initializer: vec![constant],
        input: vec![x],
        output: vec![proto::ValueInfo { name: "y".into(), r#type: None }],
        value_info: vec![],
        ..Default::default()
    };
    let opset = proto::Opset { domain: String::new(), version: 17 };
    proto::Model { graph: Some(graph), opset_import: vec![opset], ..Default::default() }.encode_to_vec()
}

#[test]
fn functions_of_constants() {
    let float = |v: &[f32]| Constant { dims: vec![v.len()], values: Values::Float(v.to_vec()) };
    let (a, b) = (float(&[4.0, -0.5]), float(&[1.0, 2.0]));
    let is = |op: &str, inputs: &[&Constant], want: &Constant| {
        assert_eq!(fold(op, inputs, &Attributes::default()), Some(Ok(want.clone())), "{op}");
    };
    is("Max", &[&a, &b], &float(&[4.0, 2.0]));
    is("Min", &[&a, &b], &float(&[1.0, -0.5]));
    is("Reciprocal", &[&a], &float(&[0.25, -2.0]));
    is("Floor", &[&a], &float(&[4.0, -1.0]));
    is("Max", &[&Constant::ints(vec![3, -7]), &Constant::ints(vec![5])], &Constant::ints(vec![5, 5]));
    is("Min", &[&Constant::ints(vec![3, -7]), &Constant::ints(vec![5])], &Constant::ints(vec![3, -7]));
}

#[test]
fn few_bytes_cannot_ask_for_much_memory() {
    let ints = |v: &[i64]| proto::TensorData {
        dims: vec![v.len() as i64],
        data_type: 7,
        int64_data: v.to_vec(),
        ..Default::default()
    };
    let floats = |v: &[f32]| proto::TensorData {
        dims: vec![v.len() as i64],
        data_type: 1,
        float_data: v.to_vec(),
        ..Default::default()
    };
    let many = 1 << 27;
    for (model, says) in [
        (one_operator("ConstantOfShape", ints(&[many]), false), "too large"),
        (one_operator("ConstantOfShape", ints(&[many, many, many]), false), "too large"),
        (one_operator("ConstantOfShape", ints(&[-1]), false), "negative"),
        (one_operator("Pad", ints(&[0, 0, 0, 0, 0, 0, 0, many]), true), "out of range"),
        (one_operator("Resize", floats(&[1.0, 1.0, 1.0, 1e7]), true), "are supported"),
    ] {
        let error = import_any(model, &mut |_| Err(String::new())).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(says), "{says}: {error}");
    }
}
