//! `jali infer` with images of every kind.

use super::*;

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
