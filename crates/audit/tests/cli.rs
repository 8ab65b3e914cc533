//! The binary from outside: runs, cells, mistakes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Stdio;

use jali_model::{Activation, Gemm, Graph, Op, onnx};
use serde_json::Value;
use support::{audit, fails, json, output, root, until};

#[test]
fn a_small_run_has_the_right_ends_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let run =
        ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "100", "--budgets", "0,20", "--out", out];
    let few = ["--attackers", "zero,2,best-of", "--fractions", "0.5", "--seeds", "2", "--json"];
    let first = json(&[&run[..], &few].concat());
    let rows = first["summary"].as_array().unwrap();
    let row = |policy: &str, budget: u64| rows.iter().find(|r| r["policy"] == policy && r["budget"] == budget).unwrap();
    let number = |v: &Value| v.as_f64().unwrap();
    assert!(number(&row("nothing", 0)["accuracy"]) < 0.35, "a black box without images guesses");
    assert_eq!(number(&row("nothing", 20)["advantage"]), 0.0);
    let white = row("everything", 0);
    assert!((number(&white["accuracy"]) - number(&first["victim_accuracy"])).abs() <= 0.01);
    assert!(number(&white["fidelity"]) >= 0.99);
    let cells = first["cells"].as_array().unwrap();
    // Three points; two attackers without images and one with, two seeds; and everything open once.
    assert_eq!((cells.len(), &first["missing_cells"]), (2 * 2 * 3 + 1, &Value::from(0)));
    for key in ["policy", "leaked", "budget", "attacker", "seed", "accuracy", "fidelity"] {
        assert!(!cells[0][key].is_null(), "{key}");
    }
    for key in ["policy", "leaked", "budget", "black_box", "best_attacker", "accuracy", "advantage", "interval"] {
        assert!(!row("random-rows", 20)[key].is_null(), "{key}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("https://"), "self-contained");
    // The page follows from results.json alone.
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join("results.json"), alone.path().join("results.json")).unwrap();
    let again = json(&["report", alone.path().join("results.json").to_str().unwrap(), "--json"]);
    assert_eq!(again, first);
    assert_eq!(std::fs::read_to_string(alone.path().join("report.html")).unwrap(), page);
    a_run_goes_on_from_its_results(&alone.path().join("results.json"), &first);
    // A larger grid adds to what is there; nothing is computed twice.
    let written = |id: &str| folder.path().join(format!("cells/{id}.json")).metadata().unwrap().modified().unwrap();
    let before = written("random-rows-50-b20-best-of-s0");
    let wider = ["--attackers", "zero", "--fractions", "0.9", "--seeds", "2", "--json"];
    let second = json(&[&run[..], &wider].concat());
    assert_eq!(second["cells"].as_array().unwrap().len(), cells.len() + 2 * 3);
    assert_eq!(written("random-rows-50-b20-best-of-s0"), before);
    // Another run does not fit the folder.
    let other = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "50", "--out", out];
    fails(&other, 9, &["scoring images", "100", "50"]);
}

/// A `results.json` is all that needs to be kept of a run; those that say too little are refused.
fn a_run_goes_on_from_its_results(kept: &Path, first: &Value) {
    let (kept, out) = (kept.to_str().unwrap(), kept.with_file_name("again"));
    let out = out.to_str().unwrap();
    let (code, said, err) = output(&["merge", kept, "--out", out]);
    assert!(code == Some(0) && said.contains("13 new results"), "{said}{err}");
    assert_eq!(&json(&["report", "--out", out, "--json"]), first);
    let text = std::fs::read_to_string(kept).unwrap();
    for (from, to, says) in [
        ("\"right\": ", "\"wrong\": ", "which images are classified correctly"),
        ("\"right\": \"", "\"right\": \"ff", "do not say the same"),
        ("\"seed\": 1", "\"seed\": 0", "those of another cell"),
        ("\"engine\": \"burn\"", "\"engine\": \"magic\"", "not that of the run"),
        ("-s1\"", "-s9\"", "no such cell"),
        ("\"method\": 1", "\"method\": 9", "method 9"),
        ("{", "[", "not a results.json"),
    ] {
        std::fs::write(kept, text.replace(from, to)).unwrap();
        fails(&["merge", kept, "--out", out], 10, &["results.json", says]);
    }
    std::fs::write(kept, text).unwrap();
    // Nothing is written where one does not fit.
    let other = root().join("docs/results/torch/mnist");
    let (none, file) = (kept.replace(".json", "-none"), other.join("results.json").display().to_string());
    fails(&["merge", kept, &file, "--out", &none], 9, &[kept, &file, "cannot be joined"]);
    fails(&["merge", kept, "no-such", "--out", &none], 10, &["no-such does not exist"]);
    fails(&["merge", other.to_str().unwrap(), "--out", &none], 10, &["give ", "results.json"]);
    assert!(!Path::new(&none).exists());
}

#[test]
fn a_killed_run_goes_on_and_cells_can_be_spread_and_merged() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (out, all) = (one.path().to_str().unwrap(), two.path().join("all"));
    let args = [
        "run",
        "crates/jali/bundled/mnist.onnx",
        "--quick",
        "--scoring",
        "60",
        "--budgets",
        "20",
        "--attackers",
        "zero,best-of",
    ];
    let args = [&args[..], &["--fractions", "0.5", "--seeds", "2", "--jobs", "1", "--out", out]].concat();
    let mut child = audit().args(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let done = |folder: &Path| {
        let files =
            std::fs::read_dir(folder.join("cells")).map(|d| d.flatten().collect::<Vec<_>>()).unwrap_or_default();
        files.into_iter().filter(|f| f.path().extension().is_some_and(|e| e == "json")).count()
    };
    until(|| done(one.path()) >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, listed, _) = output(&["cells", "--list", "--out", out]);
    let left: Vec<&str> = listed.lines().collect();
    assert!(code == Some(0) && !left.is_empty() && left.len() < 9, "{left:?}");
    // One cell by a scheduler, somewhere else; then the rest where it began.
    let spread = two.path().join("spread");
    std::fs::create_dir_all(spread.join("cells")).unwrap();
    std::fs::copy(one.path().join("run.json"), spread.join("run.json")).unwrap();
    let id = left[0];
    assert_eq!(json(&["cell", id, "--out", spread.to_str().unwrap(), "--json"])["id"], id);
    let merged = all.to_str().unwrap();
    assert_eq!(output(&["merge", out, spread.to_str().unwrap(), "--out", merged]).0, Some(0));
    assert_eq!(done(&all), done(one.path()) + 1);
    let result = json(&[&args[..args.len() - 1], &[merged, "--json"]].concat());
    assert_eq!((&result["missing_cells"], result["cells"].as_array().unwrap().len()), (&Value::from(0), 9));
    fails(&["cell", "nothing-b9-zero-s9", "--out", merged], 2, &["nothing-b9-zero-s9", "cells --list"]);
    fails(&["cells", "--list", "--out", "no/such/run"], 10, &["there is no run here"]);
    hostile_files_of_a_run(&spread, id);
    let other = two.path().join("deep/er");
    assert_eq!(output(&["merge", spread.to_str().unwrap(), "--out", other.to_str().unwrap()]).0, Some(0));
    assert!(!two.path().join("escaped.json").exists() && done(&other) == 1, "names come from the grid");
}

/// A run's own files may be damaged or hostile: leaves one with a name that leads elsewhere.
fn hostile_files_of_a_run(spread: &Path, id: &str) {
    let file = spread.join("run.json");
    let good = std::fs::read_to_string(&file).unwrap();
    for (from, to, says) in [
        ("\"batch\": 16", "\"batch\": 0", "\"batch\""),
        ("\"seeds\": 2", "\"seeds\": 18446744073709551615", "10000000 cells"),
        ("\"method\": 1", "\"method\": 9", "method 9"),
        ("{", "[", "run.json"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        std::fs::write(&file, bad).unwrap();
        let (code, _, err) = output(&["cells", "--list", "--out", spread.to_str().unwrap()]);
        assert!(code == Some(10) || code == Some(2), "{err}");
        assert!(err.contains(says), "{err}");
    }
    let elsewhere = good.replacen("\"data_hash\": \"", "\"data_hash\": \"0", 1);
    assert_ne!(elsewhere, good);
    std::fs::write(&file, elsewhere).unwrap();
    fails(&["cell", id, "--out", spread.to_str().unwrap()], 10, &["not the images", "another --out"]);
    std::fs::write(&file, &good).unwrap();
    let foreign =
        std::fs::read_to_string(spread.join(format!("cells/{id}.json"))).unwrap().replace(id, "../../escaped");
    std::fs::write(spread.join("cells/x.json"), foreign).unwrap();
}

/// A data set in the form of MNIST: `n` black zeros to train with, and as many to score with.
fn small_mnist(folder: &Path, n: u8) {
    std::fs::create_dir(folder).unwrap();
    for part in ["train", "t10k"] {
        let images = [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28][..], &vec![0; usize::from(n) * 784]].concat();
        std::fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        let labels = [&[0, 0, 8, 1, 0, 0, 0, n][..], &vec![0; usize::from(n)]].concat();
        std::fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// A network of two layers with a sigmoid between them.
fn onnx_with_sigmoid() -> Vec<u8> {
    let layer = |inputs, outputs| {
        Op::Gemm(Gemm { weight: vec![0.1; inputs * outputs], bias: vec![0.0; outputs], inputs, outputs })
    };
    let mut g = Graph::new(vec![1, 28, 28]).unwrap();
    let mut value = 0;
    for (name, op) in [
        ("flat", Op::Flatten),
        ("first", layer(784, 4)),
        ("steep", Op::Activation(Activation::Sigmoid)),
        ("last", layer(4, 10)),
    ] {
        value = g.push(name.into(), op, vec![value]).unwrap();
    }
    onnx::export(&g).unwrap()
}

#[test]
fn mistakes_are_told_with_their_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (out, empty) = (path("out"), path("empty"));
    std::fs::create_dir(&empty).unwrap();
    let run = |more: &[&str]| -> Vec<String> {
        [&["run", "crates/jali/bundled/mnist.onnx", "--quick", "--out", &out], more]
            .concat()
            .iter()
            .map(|s| (*s).into())
            .collect()
    };
    let fails = |args: Vec<String>, code, says: &[&str]| {
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, says)
    };
    fails(run(&["--attackers", "magic"]), 2, &["magic", "tune-all"]);
    fails(run(&["--policies", "magic"]), 2, &["magic", "random-rows"]);
    fails(run(&["--fractions", "1.5"]), 2, &["1.5", "fraction"]);
    fails(run(&["--attackers", "public", "--budgets", "20"]), 2, &["--public-model"]);
    fails(run(&["--data", &empty]), 10, &["train-images-idx3-ubyte", "labels"]);
    fails(run(&["--budgets", "5000"]), 10, &["5000", "500", "--data"]);
    let few = path("few");
    small_mnist(Path::new(&few), 20);
    fails(
        run(&["--data", &few, "--scoring", "30", "--budgets", "20"]),
        10,
        &["scoring images", "30", "20", "--scoring"],
    );
    fails(run(&["--data", &few, "--scoring", "20", "--budgets", "30"]), 10, &["labelled images", "30", "20"]);
    // Guests cannot compute with a sigmoid: said before anything is attacked.
    let steep = path("steep.onnx");
    std::fs::write(&steep, onnx_with_sigmoid()).unwrap();
    let guests =
        ["run", &steep, "--data", &few, "--scoring", "20", "--budgets", "10", "--attacker", "touch ../../../began"];
    let guests = [&guests[..], &["--guests", "logits", "--out", &out]].concat();
    fails(guests.iter().map(|s| (*s).into()).collect(), 3, &["Sigmoid"]);
    assert!(!folder.path().join("began").exists() && !Path::new(&out).join("run.json").exists());
    fails(run(&["--plan", "README.md"]), 2, &["README.md", "not a usable plan"]);
    fails(run(&["--device", "cuda"]), 2, &["cuda", "--features"]);
    let missing = ["run", "no.onnx", "--out", &out].iter().map(|s| (*s).to_string()).collect();
    fails(missing, 10, &["no.onnx"]);
    let text = ["run", "README.md", "--out", &out].iter().map(|s| (*s).to_string()).collect();
    fails(text, 3, &["README.md"]);
}
