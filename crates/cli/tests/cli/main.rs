//! The command as a black box: real arguments, real files, exit codes, JSON fields.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

mod demo;
mod images;
mod measuring;
mod plans;

/// The command, without what this machine has measured: rings and layouts, and so bytes, are those
/// of the built-in costs. Its folder for such things lies in a file, so nothing is kept there.
fn jali() -> Command {
    let mut command = Command::cargo_bin("jali").expect("the binary is built with the tests");
    command.env_remove("JALI_BACKEND").env_remove("JALI_KERNEL");
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    command
}

fn asset(name: &str) -> String {
    let folder = if name.ends_with(".onnx") { "../jali/bundled" } else { "../../assets" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name).display().to_string()
}

fn json(args: &[&str]) -> Value {
    let out = jali().args(args).assert().success();
    serde_json::from_slice(&out.get_output().stdout).expect("one JSON object on standard output")
}

fn run(args: &[&str]) -> String {
    String::from_utf8(jali().args(args).assert().success().get_output().stdout.clone()).expect("text")
}

fn fails(args: &[&str], code: i32, say: &[&str]) {
    let out = jali().args(args).assert().code(code);
    let text = String::from_utf8_lossy(&out.get_output().stderr).into_owned();
    for part in say {
        assert!(text.contains(part), "{args:?}: {part:?} is missing in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn bad_models_and_arguments_are_explained() {
    let good = asset("images/cifar10/01-ship.png");
    fails(&["infer", "--model", "nowhere.onnx", &good], 10, &["nowhere.onnx"]);
    fails(&["infer", "--model", &good, &good], 3, &["not a readable ONNX model"]);
    let model = asset("vgg3.onnx");
    let folder = tempfile::tempdir().expect("temporary folder");
    let cut = folder.path().join("cut.onnx");
    let bytes = std::fs::read(&model).expect("asset");
    std::fs::write(&cut, &bytes[..bytes.len() / 3]).expect("temporary folder");
    fails(&["infer", "--model", &cut.display().to_string(), &good], 3, &["cut.onnx"]);
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).expect("temporary folder");
    fails(&["infer", "--model", &model, "--calibrate", &empty.display().to_string(), &good], 1, &["no usable image"]);
    fails(&["infer", "--model", &model, "--calibrate", "nowhere", &good], 10, &["nowhere"]);
    let labels = folder.path().join("labels.txt");
    std::fs::write(&labels, "one\ntwo\n").expect("temporary folder");
    fails(
        &["infer", "--model", &model, "--labels", &labels.display().to_string(), &good],
        1,
        &["2 names", "10 classes"],
    );
    fails(&["infer", "--model", &model], 2, &["IMAGE"]);
    fails(&["demo", "--bits", "9,8"], 2, &["weight bits must be 2 to 8"]);
    fails(&["demo", "--bits", "8"], 2, &["W,A"]);
    fails(&["demo", "--images", "1001"], 2, &["1000"]);
    fails(&["demo", "--leak", "1.5", "--images", "1"], 2, &["from 0 to 1"]);
    fails(&["demo", "--leak", "NaN", "--images", "1"], 2, &["from 0 to 1"]);
    fails(&["demo", "--network", "lenet"], 2, &["vgg3"]);
    fails(&["evaluate", "--network", "vgg3", "--data", "nowhere"], 10, &["nowhere"]);
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("temporary folder");
    std::fs::write(data.join("test_batch.bin"), [1, 2, 3]).expect("temporary folder");
    fails(&["evaluate", "--network", "vgg3", "--data", &data.display().to_string()], 10, &["3073", "fetch-data"]);
}

/// A model file with nodes of these kinds in front of a small classifier, written without any
/// library: `onnx.proto` by hand.
mod onnx {
    fn varint(mut v: u64) -> Vec<u8> {
        let mut out = vec![];
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
        out
    }

    fn field(tag: u64, bytes: &[u8]) -> Vec<u8> {
        [varint(tag << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
    }

    fn number(tag: u64, v: u64) -> Vec<u8> {
        [varint(tag << 3), varint(v)].concat()
    }

    fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        let mut n: Vec<u8> = inputs.iter().flat_map(|i| field(1, i.as_bytes())).collect();
        n.extend(field(2, output.as_bytes()));
        n.extend(field(3, format!("{op} of {output}").as_bytes()));
        n.extend(field(4, op.as_bytes()));
        field(1, &n)
    }

    fn value(tag: u64, name: &str, dims: &[u64]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|&d| field(1, &number(1, d))).collect();
        let shape = field(2, &field(1, &[number(1, 1), field(2, &dims)].concat()));
        field(tag, &[field(1, name.as_bytes()), shape].concat())
    }

    /// `[1, 1, 4, 4]`, the given operators one after the other, flatten, a matrix with `data` (or
    /// none: it lies in "weights.bin").
    pub(super) fn model(operators: &[&str], data: Option<&[f32]>) -> Vec<u8> {
        let mut graph = vec![];
        let mut last = "x".to_string();
        for (i, op) in operators.iter().enumerate() {
            let next = format!("v{i}");
            graph.extend(node(op, &[&last], &next));
            last = next;
        }
        graph.extend(node("Flatten", &[&last], "f"));
        graph.extend(node("MatMul", &["f", "w"], "y"));
        let mut tensor = [number(1, 16), number(1, 3), number(2, 1), field(8, b"w")].concat();
        match data {
            Some(data) => tensor.extend(field(9, &data.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())),
            None => {
                let entry = |k: &[u8], v: &[u8]| field(13, &[field(1, k), field(2, v)].concat());
                tensor.extend([entry(b"location", b"weights.bin"), entry(b"offset", b"8"), number(14, 1)].concat());
            }
        }
        graph.extend(field(5, &tensor));
        graph.extend([value(11, "x", &[1, 1, 4, 4]), value(12, "y", &[1, 3])].concat());
        [number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat()
    }
}

#[test]
fn a_model_is_inspected_before_anything_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("net.onnx"), onnx::model(&["Relu", "Tanh"], Some(&[0.5; 48]))).unwrap();
    let (net, svg) = (path("net.onnx"), path("net.svg"));
    let r = json(&["inspect", &net, "--plot", &svg, "--json"]);
    assert_eq!((&r["supported"], &r["opset"]), (&true.into(), &17.into()));
    let sides: Vec<&str> = r["nodes"].as_array().unwrap().iter().map(|n| n["side"].as_str().unwrap()).collect();
    assert_eq!(sides, ["client", "client", "client", "server"]);
    assert_eq!(r["nodes"][3]["layer"]["weights"], 48);
    for field in ["sealed_bytes", "server_memory_bytes", "bytes_up", "bytes_down", "predicted_server_ms", "round_trips"]
    {
        assert!(r["everything_hidden"][field].as_f64().is_some_and(|v| v > 0.0), "{field}");
    }
    assert!(r["everything_open"]["sealed_bytes"].as_u64() < r["everything_hidden"]["sealed_bytes"].as_u64());
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(
        picture.starts_with("<svg") && picture.contains("MatMul of y") && picture.contains("server, on masked data")
    );
    let text = run(&["inspect", &net]);
    assert!(text.contains("MatMul of y") && text.contains("everything hidden: about"), "{text}");

    // Everything that is in the way, at once, with what to do; exit code 3.
    std::fs::write(path("bad.onnx"), onnx::model(&["LSTM", "Relu", "NonMaxSuppression"], Some(&[0.5; 48]))).unwrap();
    let out = jali().args(["inspect", &path("bad.onnx"), "--json"]).assert().code(3);
    let r: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    let operators: Vec<&str> =
        r["offences"].as_array().unwrap().iter().map(|o| o["operator"].as_str().unwrap()).collect();
    assert_eq!((&r["supported"], operators), (&false.into(), vec!["LSTM", "NonMaxSuppression"]));
    assert!(r["offences"][1]["remedy"].as_str().unwrap().contains("extract_model"));
    let out = jali().args(["inspect", &path("bad.onnx")]).assert().code(3);
    assert!(String::from_utf8_lossy(&out.get_output().stdout).contains("\"LSTM of v0\" (LSTM)"));
    fails(
        &["infer", "--model", &path("bad.onnx"), &asset("images/mnist")],
        3,
        &["2 nodes are not supported", "LSTM of v0"],
    );

    // Weights in a file beside it; and one that is too short, or elsewhere.
    std::fs::write(path("outside.onnx"), onnx::model(&[], None)).unwrap();
    fails(&["inspect", &path("outside.onnx")], 3, &["weights.bin", "constant \"w\""]);
    std::fs::write(path("weights.bin"), vec![0; 100]).unwrap();
    fails(&["inspect", &path("outside.onnx")], 3, &["it has 100 bytes", "needs 192 from byte 8 on"]);
    std::fs::write(path("weights.bin"), [&[0; 8][..], &0.5f32.to_le_bytes().repeat(48)].concat()).unwrap();
    assert_eq!(json(&["inspect", &path("outside.onnx"), "--json"])["nodes"][1]["layer"]["weights"], 48);
    let mut hostile = onnx::model(&[], None);
    let at = hostile.windows(11).position(|w| w == b"weights.bin").unwrap();
    hostile[at..at + 11].copy_from_slice(b"/etc/passwd");
    std::fs::write(path("hostile.onnx"), &hostile).unwrap();
    fails(&["inspect", &path("hostile.onnx")], 3, &["must lie in the model's folder"]);
    fails(&["inspect", &asset("images/mnist"), "--plot", &svg], 1, &["ends with .onnx"]);
}
