//! `evaluate`, `explain` and `bench`.

use super::*;

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
