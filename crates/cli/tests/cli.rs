//! The command as a black box: real arguments, real files, exit codes, JSON fields.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

fn jali() -> Command {
    let mut command = Command::cargo_bin("jali").expect("the binary is built with the tests");
    command.env_remove("JALI_BACKEND").env_remove("JALI_KERNEL");
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
fn demo_hides_everything_and_is_exact() {
    for network in ["vgg3", "mnist"] {
        let r = json(&["demo", "--network", network, "--images", "2", "--json"]);
        assert_eq!((&r["network"], &r["exact"], &r["images"]), (&network.into(), &true.into(), &2.into()));
        assert_eq!(r["weights_hidden"], 1.0);
        assert_eq!(r["correct"], 2);
        for field in ["client_ms", "server_ms", "plain_ms", "bytes_up", "bytes_down", "sealed_bytes", "hint_bytes"] {
            assert!(r[field].as_f64().is_some_and(|v| v > 0.0), "{field}");
        }
        for field in ["median", "min", "max"] {
            assert!(r["latency_ms"][field].as_f64().is_some_and(|v| v > 0.0), "{field}");
        }
        // At most 3 MB each way for one image.
        assert!(r["bytes_up"].as_u64() <= Some(3_000_000) && r["bytes_down"].as_u64() <= Some(3_000_000));
        let layers = r["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), if network == "vgg3" { 8 } else { 4 });
        for layer in layers {
            for field in [
                "name",
                "kind",
                "ring_degree",
                "primes_bits",
                "tiles",
                "rows",
                "products",
                "weights",
                "weights_hidden",
                "client_ms",
                "server_ms",
                "bytes_up",
                "bytes_down",
                "noise_bound_bits",
                "noise_bits_available",
            ] {
                assert!(!layer[field].is_null(), "{field}");
            }
            assert!(layer["noise_bound_bits"].as_f64() <= layer["noise_bits_available"].as_f64());
        }
    }
}

#[test]
fn leaking_opens_weights_and_shrinks_the_sealed_model() {
    let run = |leak: &str| json(&["demo", "--network", "mnist", "--images", "1", "--json", "--leak", leak]);
    let (hidden, half, open) = (run("0"), run("0.5"), run("1"));
    assert_eq!(open["weights_hidden"], 0.0);
    let part = half["weights_hidden"].as_f64().expect("a fraction");
    assert!((part - 0.5).abs() < 0.1, "{part}");
    let size = |r: &Value| r["sealed_bytes"].as_u64().expect("bytes");
    assert!(size(&open) < size(&half) && size(&half) < size(&hidden));
    assert!(size(&open) < 4 * 421_408, "open weights are small integers: {}", size(&open));
    for r in [hidden, half, open] {
        assert_eq!(r["exact"], true);
    }
}

#[test]
fn every_backend_and_size_gives_exact_results() {
    for (variable, backend) in [("JALI_KERNEL", "portable"), ("JALI_BACKEND", jali::Backend::fastest().name())] {
        let out = jali()
            .args(["demo", "--network", "mnist", "--images", "1", "--json", "--threads", "1", "--bits", "4,6"])
            .env(variable, backend)
            .assert()
            .success();
        let r: Value = serde_json::from_slice(&out.get_output().stdout).expect("JSON");
        assert_eq!((&r["exact"], &r["backend"]), (&true.into(), &backend.into()));
    }
    let out = jali().args(["demo", "--images", "1"]).env("JALI_BACKEND", "abacus").assert().code(1);
    assert!(String::from_utf8_lossy(&out.get_output().stderr).contains("available: "));
}

#[test]
fn demo_says_who_holds_what() {
    let out = jali().args(["demo", "--network", "mnist", "--images", "1"]).assert().success();
    let text = String::from_utf8_lossy(&out.get_output().stdout).into_owned();
    for part in
        ["The server holds", "no key", "The client holds", "noise bound", "encrypted = plaintext: exact on every layer"]
    {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn images_are_classified_with_a_model_file() {
    let model = asset("vgg3.onnx");
    let images = ["00-cat.png", "01-ship.png", "04-frog.png"].map(|n| asset(&format!("images/cifar10/{n}")));
    let mut args = vec!["infer", "--model", &model, "--labels", "cifar10", "--json"];
    args.extend(images.iter().map(String::as_str));
    let r = json(&args);
    let found = r["images"].as_array().expect("images");
    for (image, label) in found.iter().zip(["cat", "ship", "frog"]) {
        assert_eq!(image["top"].as_array().map(Vec::len), Some(5));
        assert_eq!((&image["top"][0]["label"], &image["exact"]), (&label.into(), &true.into()));
    }
    // A folder to calibrate on, and one channel.
    let (model, folder) = (asset("mnist.onnx"), asset("images/mnist"));
    let image = asset("images/mnist/00-7.png");
    let r = json(&["infer", "--model", &model, "--labels", "mnist", "--calibrate", &folder, "--json", &image]);
    assert_eq!(r["images"][0]["top"][0]["label"], "7");
    assert!(r["calibration"].as_str().is_some_and(|c| c.contains("mnist")));
}

#[test]
fn networks_that_others_trained_run_encrypted_and_exact() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    if !folder.is_dir() {
        eprintln!("SKIPPED: there is no ../shared/models beside the repository");
        return;
    }
    for (network, samples, scale) in [
        ("mnist-conv", "mnist", "1/255"),
        ("mlperf_tiny_resnet8_cifar10", "cifar10", "1"),
        ("delphi_minionn_cifar10_relu", "cifar10", "1/255"),
    ] {
        let model = folder.join(network).with_extension("onnx").display().to_string();
        let args =
            ["infer", "--model", &model, "--samples", samples, "--images", "20", "--input-scale", scale, "--json"];
        let r = json(&args);
        assert!(r["images"].as_array().unwrap().iter().all(|i| i["exact"] == true), "{network}");
        assert_eq!(r["weights_hidden"], 1.0);
        // In float they get 85 to 99 % of the test set; pixels of the wrong scale give chance.
        assert!(r["correct"].as_u64() >= Some(15), "{network}: {}", r["correct"]);
    }
}

#[test]
fn outputs_are_kept_and_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("kept");
    let (model, image) = (asset("mnist.onnx"), asset("images/mnist/00-7.png"));
    let with = |outputs: &str| json(&["infer", "--model", &model, "--json", "--outputs", outputs, &image, &image]);
    let report = with(out.to_str().unwrap());
    let top = &report["images"][1]["top"][0];
    // Two images of the same name do not get into each other's way.
    let paths: Vec<&str> = (0..2).map(|i| report["images"][i]["outputs"][0].as_str().unwrap()).collect();
    assert_ne!(paths[0], paths[1]);
    let bytes = std::fs::read(paths[1]).unwrap();
    let header = std::str::from_utf8(&bytes[10..128]).unwrap();
    assert!(header.contains("'shape': (10,)") && header.ends_with('\n'), "{header:?}");
    let values: Vec<f32> = bytes[128..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let best = (0..10).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap();
    assert_eq!(top["class"], best);
    fails(&["infer", "--model", &model, "--outputs", &image, &image], 10, &["cannot write", &image]);
}

/// Damaged inputs, each in a file of its own.
fn damaged(folder: &Path) -> Vec<(PathBuf, i32, &'static str)> {
    let png = std::fs::read(asset("images/cifar10/00-cat.png")).expect("asset");
    let npy = |shape: &str, values: usize, value: f32| {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.bytes());
        out.extend((0..values).flat_map(|i| if i == 5 { value } else { 0.5 }.to_le_bytes()));
        out
    };
    let rgba = {
        let mut bytes = std::io::Cursor::new(vec![]);
        image::RgbaImage::new(32, 32).write_to(&mut bytes, image::ImageFormat::Png).expect("in memory");
        bytes.into_inner()
    };
    let files: Vec<(&str, Vec<u8>, i32, &'static str)> = vec![
        ("text.png", b"hello, I am no image".to_vec(), 11, "not an image"),
        ("empty.png", vec![], 11, "not an image"),
        ("cut.png", png[..png.len() / 2].to_vec(), 12, "damaged or truncated"),
        ("size.png", std::fs::read(asset("images/mnist/00-7.png")).expect("asset"), 13, "28x28 pixels"),
        ("alpha.png", rgba, 14, "4 channel"),
        ("shape.npy", npy("7, 9, 2, 2, 2", 504, 0.0), 15, "shape"),
        ("nan.npy", npy("3, 32, 32", 3072, f32::NAN), 16, "NaN"),
        ("inf.npy", npy("1, 3, 32, 32", 3072, f32::INFINITY), 16, "NaN or infinity"),
        ("short.npy", npy("3, 32, 32", 100, 0.0), 12, "damaged or truncated"),
    ];
    files
        .into_iter()
        .map(|(name, bytes, code, say)| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).expect("temporary folder");
            (path, code, say)
        })
        .collect()
}

#[test]
fn every_bad_image_has_its_message_and_code_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (model, good) = (asset("vgg3.onnx"), asset("images/cifar10/01-ship.png"));
    let mut cases = damaged(folder.path());
    cases.push((folder.path().join("missing.png"), 10, "cannot read"));
    for (path, code, say) in &cases {
        let path = path.display().to_string();
        let out = jali().args(["infer", "--model", &model, "--labels", "cifar10", &path, &good]).assert().code(*code);
        let (out, err) =
            (String::from_utf8_lossy(&out.get_output().stdout), String::from_utf8_lossy(&out.get_output().stderr));
        assert!(err.contains(say) && err.contains(&path), "{path}: {err}");
        assert!(out.contains("ship"), "{path}: the good image is still classified:\n{out}");
    }
    // All of them at once, in JSON: the first one decides the exit code.
    let paths: Vec<String> = cases.iter().map(|c| c.0.display().to_string()).collect();
    let out = jali().args(["infer", "--model", &model, "--json"]).args(&paths).arg(&good).assert().code(cases[0].1);
    let r: Value = serde_json::from_slice(&out.get_output().stdout).expect("JSON");
    for (image, (_, code, say)) in r["images"].as_array().expect("images").iter().zip(&cases) {
        assert_eq!(image["exit_code"], *code);
        assert!(image["error"].as_str().is_some_and(|e| e.contains(say)), "{image}");
    }
    // Only bad ones: nothing to seal, the same report.
    fails(&["infer", "--model", &model, &paths[0]], 11, &["not an image"]);
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

#[test]
fn accuracy_in_float_integers_and_encrypted() {
    let r = json(&["evaluate", "--network", "mnist", "--encrypted", "5", "--json"]);
    let of = |field: &str| r[field].as_f64().expect("a number");
    assert!(of("float_accuracy") >= 98.5 && (of("float_accuracy") - of("quantised_accuracy")).abs() <= 0.5, "{r}");
    assert!(of("float_quantised_agreement") >= 99.0);
    assert_eq!((&r["images"], &r["encrypted"]["images"]), (&1000.into(), &5.into()));
    assert_eq!((&r["encrypted"]["exact"], &r["encrypted"]["quantised_agreement"]), (&true.into(), &100.0.into()));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let binary = assert_cmd::cargo::cargo_bin("jali");
    let script =
        format!("'{}' demo --network mnist --images 3 | head -n 1; echo \"code ${{PIPESTATUS[0]}}\"", binary.display());
    let out = Command::new("bash").args(["-c", &script]).assert().success();
    let (text, err) =
        (String::from_utf8_lossy(&out.get_output().stdout), String::from_utf8_lossy(&out.get_output().stderr));
    assert!(text.contains("code 0") && !err.contains("panicked"), "{text}{err}");
}

#[test]
fn explain_predicts_and_measures_every_layer_and_keeps_its_calibration() {
    let cache = tempfile::tempdir().expect("a folder");
    let explain = |link: &str| -> Value {
        let args = ["explain", "--network", "mnist", "--runs", "2", "--json", "--link", link];
        let out = jali().args(args).env("XDG_CACHE_HOME", cache.path()).assert().success();
        serde_json::from_slice(&out.get_output().stdout).expect("JSON")
    };
    let (near, far) = (explain("loopback"), explain("40,1"));
    let kept = std::fs::read_dir(cache.path().join("jali")).expect("a kept calibration").count();
    assert_eq!(kept, 1, "measured once, no half-written files beside it");
    let bytes = |r: &Value| r["bytes_up"].as_u64().expect("bytes") + r["bytes_down"].as_u64().expect("bytes");
    assert!(bytes(&far) <= bytes(&near), "a slow link is not given more bytes");
    assert_eq!(near["link_ms"], 0.0);
    assert!(far["link_ms"].as_f64().expect("ms") > 160.0, "four round trips at least");
    for layer in near["layers"].as_array().expect("layers") {
        for field in ["predicted_client_ms", "measured_client_ms", "predicted_server_ms", "measured_server_ms", "ratio"]
        {
            assert!(layer[field].as_f64().is_some_and(|v| v.is_finite() && v >= 0.0), "{field}: {layer}");
        }
        assert!(!layer["layout"].as_str().expect("text").is_empty());
    }
    // A damaged calibration is measured again, not believed.
    let file = std::fs::read_dir(cache.path().join("jali")).expect("folder").next().expect("a file").expect("a file");
    std::fs::write(file.path(), "{\"version\": 1, \"machine\": 7").expect("writable");
    assert_eq!(explain("lan")["network"], "mnist");
}

#[test]
fn bench_inference_reports_all_four_and_is_exact() {
    let cache = tempfile::tempdir().expect("a folder");
    let plot = cache.path().join("curve.svg");
    let bench = |more: &[&str]| -> Value {
        let args = ["bench", "inference", "--network", "mnist", "--runs", "2", "--batches", "1,3", "--json"];
        let out = jali().args(args).args(more).env("XDG_CACHE_HOME", cache.path()).assert().success();
        serde_json::from_slice(&out.get_output().stdout).expect("JSON")
    };
    let r = bench(&["--sweep", plot.to_str().expect("a path")]);
    assert_eq!(r["exact"], true);
    for kind in ["hidden", "leaked_80", "leaked", "clear"] {
        let f = &r[kind];
        let (low, middle, high) = (&f["latency_ms"]["min"], &f["latency_ms"]["median"], &f["latency_ms"]["max"]);
        assert!(low.as_f64() <= middle.as_f64() && middle.as_f64() <= high.as_f64(), "{kind}: {f}");
        for field in ["server_ms", "client_ms", "images_per_s", "bytes_up", "bytes_down"] {
            assert!(f[field].is_number(), "{kind} {field}");
        }
    }
    assert_eq!(r["batches"].as_array().map(Vec::len), Some(2));
    assert_eq!(r["sweep"].as_array().map(Vec::len), Some(11));
    let svg = std::fs::read_to_string(&plot).expect("the plot");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.matches("<circle").count() == 11);
    // Through sockets and a proxy with a link's delay: the same results, and no fewer bytes than
    // the messages have.
    let far = bench(&["--link", "5,50"]);
    assert_eq!(far["exact"], true);
    assert!(far["hidden"]["latency_ms"]["min"].as_f64().expect("ms") >= 20.0, "four round trips of 5 ms");
    // Somebody else's network.
    let bad = jali().args(["bench", "inference", "/nowhere/net.onnx"]).assert().code(10);
    assert!(String::from_utf8_lossy(&bad.get_output().stderr).contains("/nowhere/net.onnx"));
    jali().args(["bench", "inference", "--link", "modem"]).assert().code(2);
    let nowhere = jali().args(["bench", "inference", "--sweep", "/nowhere/curve.svg"]).assert().code(1);
    assert!(String::from_utf8_lossy(&nowhere.get_output().stderr).contains("/nowhere is not a folder"));
}

#[test]
fn bench_limits_and_paper_print_json() {
    let cache = tempfile::tempdir().expect("a folder");
    let json = |args: &[&str]| -> Value {
        let out = jali().args(args).env("XDG_CACHE_HOME", cache.path()).assert().success();
        serde_json::from_slice(&out.get_output().stdout).expect("JSON")
    };
    let limits = json(&["bench", "limits", "--json"]);
    let backends = limits["backends"].as_array().expect("backends");
    assert!(backends.iter().any(|k| k["backend"] == "portable"));
    assert!(backends.iter().all(|k| k["forward_us"].as_f64() > Some(0.0) && k["batch_of_peak"].as_f64() > Some(0.0)));
    let growth = json(&["bench", "growth", "--json"]);
    assert_eq!(growth["computed"], true);
    let weights: Vec<_> = growth["networks"].as_array().expect("networks").iter().map(|n| &n["weights"]).collect();
    // He et al.: 11 689 512 and 25 557 032 parameters with biases and batch normalisation.
    assert_eq!(weights, [11_678_912, 25_502_912]);
    assert!(growth["layers"].as_array().expect("layers").iter().all(|l| l["hidden_ms"].as_f64() > Some(0.0)));
    let paper = json(&["bench", "paper", "--json"]);
    let layers = paper["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 3);
    for layer in layers {
        let points = layer["points"].as_array().expect("points");
        assert_eq!((points.len(), &points[0]["textbook_factor"]), (11, &1.0.into()));
        assert!(points[10]["textbook_factor"].as_f64() > Some(1.0), "hiding costs something by the paper's method");
    }
}

/// Zigzag varints of an open row's terms, as the server's bundle holds them, for weights at falling
/// positions.
fn open_bytes(weights: &[i32]) -> Vec<u8> {
    let mut out = vec![];
    for &w in weights.iter().rev() {
        // No gap to the position before.
        out.push(0);
        let mut z = ((w << 1) ^ (w >> 31)) as u32;
        while z >= 128 {
            out.push(z as u8 | 128);
            z >>= 7;
        }
        out.push(z as u8);
    }
    out
}

#[test]
fn the_servers_file_holds_the_weights_of_open_rows_and_only_those() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (plan, out) = (path("plan.json"), path("sealed"));
    let model = jali::Network::Mnist.quantised(Default::default()).unwrap();
    let (layer, (node, linear)) = model.graph().linear_nodes().enumerate().nth(2).unwrap();
    let weights = &model.layer(node).unwrap().weights;
    // Runs of twelve weights without a zero: those are written without gaps.
    let runs: Vec<usize> = (0..weights.len() / linear.fan_in())
        .filter_map(|o| {
            let row = &weights[o * linear.fan_in()..][..linear.fan_in()];
            let at = row.windows(12).position(|w| w.iter().all(|v| *v != 0))?;
            Some(o * linear.fan_in() + at)
        })
        .collect();
    assert!(runs.len() > 20, "{}", runs.len());
    for leak in ["0.5", "0"] {
        run(&["plan", "create", "--network", "mnist", "--leak", leak, "--seed", "5", "--out", &plan]);
        run(&["seal", "--network", "mnist", "--plan", &plan, "--out", &out]);
        let bytes = std::fs::read(format!("{out}/server")).unwrap();
        let permitted = jali::model_file::read_plan(std::path::Path::new(&plan), model.graph()).unwrap().plan;
        let (mut found, mut wrong) = (0, 0);
        for &at in &runs {
            // Runs of outputs may cut a window in two: look for any half of it.
            let there = [at, at + 6].iter().any(|&i| {
                let pattern = open_bytes(&weights[i..i + 6]);
                // The first step of a pattern depends on what stands before it.
                bytes.windows(pattern.len() - 1).any(|w| w == &pattern[1..])
            });
            let open = permitted.may_open(layer, at..at + 12);
            found += usize::from(there && open);
            wrong += usize::from(there && !open);
        }
        let open = runs.iter().filter(|&&at| permitted.may_open(layer, at..at + 12)).count();
        assert_eq!((found, wrong), (open, 0), "{leak}");
        assert_eq!(open > 0, leak == "0.5");
    }
}

#[test]
fn plans_are_made_by_policies_compared_and_validated() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (a, b, scores) = (path("a.json"), path("b.json"), path("scores.json"));
    let create =
        |out: &str, more: &[&str]| run(&[&["plan", "create", "--network", "mnist", "--out", out], more].concat());
    create(&a, &["--policy", "magnitude-rows", "--leak", "0.6"]);
    create(&b, &["--policy", "cost-rows", "--leak", "0.3"]);
    let seen = json(&["plan", "inspect", "--network", "mnist", "--plan", &a, "--json"]);
    let number = |v: &Value| v.as_f64().unwrap();
    assert!((number(&seen["fraction_open"]) - number(&seen["fraction_permitted"])).abs() < 1e-12, "whole rows");
    assert!(number(&seen["bytes_saved"]) > 0.0 && number(&seen["rows_open"]) > 0.0);
    create(&b, &["--policy", "magnitude-weights", "--leak", "0.6"]);
    let weights = json(&["plan", "inspect", "--network", "mnist", "--plan", &b, "--json"]);
    assert!(
        number(&weights["fraction_permitted"]) > 0.59 && number(&weights["fraction_open"]) < 0.05,
        "single weights save nothing"
    );
    let diff = json(&["plan", "diff", "--network", "mnist", "--from", &a, "--to", &b, "--json"]);
    let sum = |key: &str| diff["layers"].as_array().unwrap().iter().map(|l| l[key].as_u64().unwrap()).sum::<u64>();
    assert!(sum("opened") > 0 && sum("hidden_again") > 0);
    assert!(run(&["plan", "diff", "--network", "mnist", "--from", &a, "--to", &b]).contains("protects nothing"));
    assert!(run(&["plan", "validate", "--network", "mnist", "--plan", &a]).contains("is a plan for this model"));
    fails(&["plan", "validate", "--network", "vgg3", "--plan", &a], 2, &["linear layers"]);
    let sensitive =
        ["plan", "create", "--network", "mnist", "--policy", "sensitive-rows", "--leak", "0.5", "--out", &b];
    fails(&sensitive, 2, &["jali-audit sensitivity"]);
    std::fs::write(&scores, "[[1.0]]").unwrap();
    fails(&[&sensitive[..], &["--scores", &scores]].concat(), 2, &["sensitivity score"]);
    fails(&["plan", "create", "--network", "mnist", "--layers", "fc9", "--out", &b], 2, &["fc9"]);
    fails(
        &["plan", "create", "--network", "mnist", "--policy", "magic", "--leak", "0.5", "--out", &b],
        2,
        &["random-rows"],
    );
    let out = path("sealed");
    run(&["seal", "--network", "mnist", "--plan", &a, "--out", &out]);
    assert_eq!(json(&["inspect", &out, "--json"])["client"]["plan"]["made"], "magnitude-rows, fraction 0.6");
}

#[test]
fn a_plan_in_a_file_decides_what_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (plan, out) = (path("plan.json"), path("sealed"));
    jali()
        .args(["plan", "create", "--network", "mnist", "--leak", "0.7", "--seed", "3", "--out", &plan])
        .assert()
        .success();
    let shown = json(&["plan", "inspect", "--network", "mnist", "--plan", &plan, "--json"]);
    let fraction = shown["fraction_open"].as_f64().unwrap();
    assert!((fraction - 0.7).abs() < 0.15 && shown["made"].as_str().unwrap().contains("seed 3"), "{shown}");
    let sealed = json(&["seal", "--network", "mnist", "--plan", &plan, "--out", &out, "--json"]);
    assert!((1.0 - sealed["weights_hidden"].as_f64().unwrap() - fraction).abs() < 1e-9, "{sealed}");
    let inside = json(&["inspect", &out, "--verify", "--json"]);
    assert!(inside["match_each_other"] == true && inside["verified"] == true);
    let open = inside["client"]["weights_open"].as_u64().unwrap() as f64;
    assert!((open / shown["weights"].as_f64().unwrap() - fraction).abs() < 1e-9);
    assert!(inside["bytes_per_open_weight"].as_f64().unwrap() < 4.0, "{inside}");
    assert!(inside["bytes_per_hidden_weight"].as_f64().unwrap() > 10.0);
    // Another network's plan, and text that is none.
    fails(&["seal", "--network", "vgg3", "--plan", &plan, "--out", &out], 2, &["plan.json", "linear layers"]);
    std::fs::write(&plan, "{}").unwrap();
    fails(&["demo", "--network", "mnist", "--plan", &plan], 2, &["plan.json", "not a usable plan"]);
    fails(&["demo", "--plan", &plan, "--leak", "0.5"], 2, &["--leak"]);
    // Damage in either bundle, and the wrong side's bundle.
    let server = Path::new(&out).join("server");
    let mut bytes = std::fs::read(&server).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&server, bytes).unwrap();
    fails(&["inspect", &server.display().to_string(), "--verify"], 6, &["section", "checksum"]);
    fails(&["inspect", &plan], 6, &["not a Jali bundle"]);
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

    // Everything that is in the way, at once, with what to do; exit code 2.
    std::fs::write(path("bad.onnx"), onnx::model(&["LSTM", "Relu", "NonMaxSuppression"], Some(&[0.5; 48]))).unwrap();
    let out = jali().args(["inspect", &path("bad.onnx"), "--json"]).assert().code(2);
    let r: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    let operators: Vec<&str> =
        r["offences"].as_array().unwrap().iter().map(|o| o["operator"].as_str().unwrap()).collect();
    assert_eq!((&r["supported"], operators), (&false.into(), vec!["LSTM", "NonMaxSuppression"]));
    assert!(r["offences"][1]["remedy"].as_str().unwrap().contains("extract_model"));
    let out = jali().args(["inspect", &path("bad.onnx")]).assert().code(2);
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

#[test]
fn a_model_from_a_file_is_evaluated_on_labelled_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Class k sums the pixels of a third of the image, about.
    let weights: Vec<f32> = (0..48).map(|i| if i / 3 * 3 / 16 == i % 3 { 1.0 } else { 0.0 }).collect();
    std::fs::write(path("net.onnx"), onnx::model(&["Relu"], Some(&weights))).unwrap();
    let mut labels = String::from("file,class\n");
    for class in 0..3 {
        let pixels: Vec<u8> = (0..16).map(|i| if i * 3 / 16 == class { 200 } else { 10 }).collect();
        let name = format!("image {class}.png");
        image::save_buffer(folder.path().join(&name), &pixels, 4, 4, image::ColorType::L8).unwrap();
        labels += &format!("{name},{class}\n");
    }
    std::fs::write(path("labels.csv"), labels).unwrap();
    let data = folder.path().display().to_string();
    let evaluate = |more: &[&str]| {
        let (net, labels) = (path("net.onnx"), path("labels.csv"));
        let mut args =
            vec!["evaluate", "--model", &net, "--data", &data, "--labels", &labels, "--encrypted", "3", "--json"];
        args.extend(more);
        json(&args)
    };
    for more in [&[][..], &["--input-scale", "1"], &["--mean", "0.3", "--std", "0.5", "--bits", "8,10"]] {
        let r = evaluate(more);
        assert_eq!((&r["images"], &r["float_accuracy"]), (&3.into(), &100.0.into()), "{more:?}");
        assert_eq!((&r["encrypted"]["exact"], &r["encrypted"]["accuracy"]), (&true.into(), &100.0.into()), "{more:?}");
    }
    // The same from a file beside the model.
    std::fs::write(path("net.preprocess.json"), r#"{"input_scale": 0.01, "mean": [0.5], "resize": "stretch"}"#)
        .unwrap();
    assert_eq!(evaluate(&[])["quantised_accuracy"], 100.0);
    std::fs::write(path("net.preprocess.json"), r#"{"scale": 0.01}"#).unwrap();
    let net = path("net.onnx");
    fails(
        &["evaluate", "--model", &net, "--data", &data],
        1,
        &["preprocess.json", "unknown field `scale`", "input_scale"],
    );
    std::fs::write(path("net.preprocess.json"), r#"{"mean": [0.5, 0.5]}"#).unwrap();
    fails(&["evaluate", "--model", &net, "--data", &data], 3, &["mean has 2 values", "1 channels"]);
    std::fs::remove_file(path("net.preprocess.json")).unwrap();

    fails(&["evaluate", "--model", &net, "--data", &data], 1, &["--labels"]);
    std::fs::write(path("labels.csv"), "image 0.png,0\nimage 1.png,one\n").unwrap();
    let labels = path("labels.csv");
    fails(&["evaluate", "--model", &net, "--data", &data, "--labels", &labels], 1, &["line 2", "IMAGE CLASS"]);
    std::fs::write(&labels, "image 0.png 7\n").unwrap();
    fails(&["evaluate", "--model", &net, "--data", &data, "--labels", &labels], 1, &["label is 7", "3 classes"]);
    // Labels in another order look like chance.
    std::fs::write(&labels, "image 0.png 1\nimage 1.png 2\nimage 2.png 0\n").unwrap();
    let out = jali().args(["evaluate", "--model", &net, "--data", &data, "--labels", &labels]).assert().success();
    assert!(String::from_utf8_lossy(&out.get_output().stderr).contains("near the 33.3 % of chance"));
    std::fs::write(&labels, "image 0.png 7\nimage 0.png 1\n").unwrap();
    fails(&["evaluate", "--model", &net, "--data", &data, "--labels", &labels], 1, &["the classes 7 and 1"]);
    std::fs::write(&labels, "missing.png 0\n").unwrap();
    fails(&["evaluate", "--model", &net, "--data", &data, "--labels", &labels], 10, &["missing.png"]);
    for scale in ["0", "1/0", "x"] {
        fails(&["evaluate", "--model", &net, "--data", &data, "--input-scale", scale], 2, &["1/255"]);
    }
    // An array whose numbers are no pixels of this range is worth a word.
    let values: Vec<u8> = (0..16u8).flat_map(|v| (f32::from(v) * 16.0).to_le_bytes()).collect();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4, 4), }\n";
    let npy = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat();
    std::fs::write(path("array.npy"), npy).unwrap();
    let out = jali().args(["infer", "--model", &net, &path("array.npy")]).assert().success();
    assert!(String::from_utf8_lossy(&out.get_output().stderr).contains("is --input-scale"));
}
