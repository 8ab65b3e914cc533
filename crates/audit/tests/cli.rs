//! The binary from outside.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jali_model::{Arithmetic, Gemm, Graph, Op, onnx};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn audit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jali-audit"));
    command.current_dir(root());
    command
}

fn output(args: &[impl AsRef<std::ffi::OsStr>]) -> (Option<i32>, String, String) {
    let done = audit().args(args).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn json(args: &[&str]) -> Value {
    let (code, out, err) = output(args);
    assert_eq!(code, Some(0), "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn fails(args: &[&str], code: i32, says: &[&str]) {
    let (got, _, err) = output(args);
    assert_eq!(got, Some(code), "{args:?}: {err}");
    says.iter().for_each(|s| assert!(err.contains(s), "{args:?} should say {s}: {err}"));
}

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
    let begin = Instant::now();
    while done(one.path()) < 2 {
        assert!(begin.elapsed() < Duration::from_secs(120), "no cell was finished");
        std::thread::sleep(Duration::from_millis(5));
    }
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
    fails(run(&["--plan", "README.md"]), 2, &["README.md", "not a usable plan"]);
    fails(run(&["--device", "cuda"]), 2, &["cuda", "--features"]);
    let missing = ["run", "no.onnx", "--out", &out].iter().map(|s| (*s).to_string()).collect();
    fails(missing, 10, &["no.onnx"]);
    let text = ["run", "README.md", "--out", &out].iter().map(|s| (*s).to_string()).collect();
    fails(text, 3, &["README.md"]);
}

/// A command attacks in place of our attackers: its copies count, its failures do not, and neither
/// ends the run.
#[cfg(unix)]
#[test]
fn somebody_elses_attacker_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let line_of = |name: &str, line: &str, more: &[&str]| -> Vec<String> {
        let out = folder.path().join(name);
        let base = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--budgets", "20"];
        let own = ["--fractions", "0.5", "--seeds", "2", "--json", "--attacker", line, "--out", out.to_str().unwrap()];
        [&base[..], &own, more].concat().into_iter().map(Into::into).collect()
    };
    let run = |name: &str, line: &str, more: &[&str]| {
        let (code, text, err) = output(&line_of(name, line, more));
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    // One that has the network from elsewhere: as good without open weights as with them.
    let copy = format!("cp {} surrogate.onnx", victim.display());
    let knows = run("knows", &copy, &[]);
    let row = |results: &Value, policy: &str| {
        results["summary"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["policy"] == policy && r["budget"] == 20)
            .unwrap()
            .clone()
    };
    for policy in ["nothing", "random-rows"] {
        let row = row(&knows, policy);
        assert!(row["fidelity"].as_f64().unwrap() > 0.95, "{row}");
        assert_eq!(row["best_attacker"], "command");
        assert_eq!(row["advantage"], 0.0);
    }
    assert!(knows["cells"].as_array().unwrap().iter().any(|c| c["engine"] == copy.as_str()));
    assert!(!folder.path().join("knows/attacks/nothing-b20-command-s0").exists(), "views of successes go");

    // One that gets it where something is open, and fails where nothing is.
    let all = "grep -c shape task.json >/dev/null; for f in view.onnx mask.npz scales.npz images.npy labels.npy logits.npy; \
               do test -s $f || exit 9; done";
    let fails = format!("{all}; grep -q '\"policy\": \"nothing\"' task.json && echo no way in && exit 3; {copy}");
    let results = run("fails", &fails, &[]);
    let failed: Vec<&Value> = results["cells"].as_array().unwrap().iter().filter(|c| !c["failure"].is_null()).collect();
    assert!(!failed.is_empty() && failed.iter().all(|c| c["policy"] == "nothing" && c["accuracy"] == 0.0));
    assert!(failed[0]["failure"].as_str().unwrap().contains("no way in"), "{}", failed[0]);
    let verdict = results["verdict"].to_string();
    assert!(verdict.contains("failed and count for nothing"), "{verdict}");

    let nan = folder.path().join("nan.onnx");
    std::fs::write(&nan, onnx_of_no_numbers()).unwrap();
    // Wrong files, no file, no numbers, no end.
    for (name, line, says) in [
        ("same", "cp view.onnx surrogate.onnx", "surrogate.onnx"),
        ("none", "true", "wrote no surrogate.onnx"),
        ("junk", "echo junk > surrogate.onnx", "surrogate.onnx"),
        (
            "other",
            &format!("cp {} surrogate.onnx", victim.with_file_name("vgg3.onnx").display()),
            "takes images [3, 32, 32]",
        ),
        ("nan", &format!("cp {} surrogate.onnx", nan.display()), "gives NaN or infinity for 60 of 60 scoring images"),
        ("slow", "sleep 60 & sleep 60", "took longer than 1 s"),
    ] {
        let more: &[&str] = if name == "slow" { &["--attacker-time", "1"] } else { &[] };
        let (code, text, err) = output(&line_of(name, line, more));
        assert!(code == Some(1) && err.contains("no attack of the command"), "{err}");
        let results: Value = serde_json::from_str(&text).unwrap();
        let failure =
            results["cells"].as_array().unwrap().iter().find_map(|c| c["failure"].as_str()).unwrap().to_owned();
        assert!(failure.contains(says), "{name}: {failure}");
    }

    let out = folder.path().join("knows");
    let again = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--out", out.to_str().unwrap()];
    crate::fails(&[&again[..], &["--attacker", "true"]].concat(), 9, &["the attacker"]);
    crate::fails(&again, 9, &["the attacker", "none but its own"]);
    crate::fails(&[&again[..], &["--attackers", "command"]].concat(), 2, &["--attacker 'COMMAND'"]);
}

/// A network whose logits are zero divided by zero.
fn onnx_of_no_numbers() -> Vec<u8> {
    let mut g = Graph::new(vec![1, 28, 28]).unwrap();
    let flat = g.push("flat".into(), Op::Flatten, vec![0]).unwrap();
    let gemm = Gemm { weight: vec![0.0; 7840], bias: vec![0.0; 10], inputs: 784, outputs: 10 };
    let zero = g.push("zero".into(), Op::Gemm(gemm), vec![flat]).unwrap();
    g.push("last".into(), Op::Arithmetic(Arithmetic::Div), vec![zero, zero]).unwrap();
    onnx::export(&g).unwrap()
}

/// Where attacks fail, on both sides, on one, or with one budget, nothing is called safe.
#[cfg(unix)]
#[test]
fn a_plan_is_not_safe_where_attacks_failed() {
    let folder = tempfile::tempdir().unwrap();
    let copy = format!("cp {} surrogate.onnx", root().join("crates/jali/bundled/mnist.onnx").display());
    for (name, line, safe) in [
        ("all", "exit 3".to_owned(), false),
        ("open", format!("grep -q '\"policy\": \"nothing\"' task.json || exit 3; {copy}"), false),
        ("budget", format!("grep -q '\"budget\": 20' task.json && exit 3; {copy}"), false),
        ("none", copy.clone(), true),
    ] {
        let at = |file: &str| folder.path().join(name.to_owned() + file).to_str().unwrap().to_owned();
        let (out, plan) = (at(""), at(".json"));
        let base =
            ["plan", "crates/jali/bundled/mnist.onnx", "--max-advantage", "0.1", "--budgets", "10,20", "--quick"];
        let more = ["--policies", "last-layers", "--fractions", "0.9", "--seeds", "2", "--scoring", "60", "--json"];
        let own = ["--attacker", &line, "--out", &out, "--plan-out", &plan];
        let said = json(&[&base[..], &more, &own].concat());
        let outcome = said["tried"][0]["outcome"].as_str().unwrap();
        assert_eq!(outcome.starts_with("safe"), safe, "{name}: {outcome}");
        assert_eq!(said["fraction_permitted"].as_f64() > Some(0.0), safe, "{name}");
        assert!(safe || (outcome.contains("not known") && outcome.contains("ended with")), "{name}: {outcome}");
    }
}

/// One line as NumPy writes it: `count` values of this shape.
fn npy(count: usize, shape: &[usize]) -> Vec<u8> {
    let shape = [&[count], shape].concat();
    jali::image_file::npy_bytes(&jali::Tensor { data: vec![0.5; shape.iter().product()], shape })
}

/// A guest gets no labels; it asks, is answered, and pays a ticket for each value.
#[cfg(unix)]
#[test]
fn a_guest_asks_and_pays() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let (few, many) = (folder.path().join("few.npy"), folder.path().join("many.npy"));
    // The last two layers of mnist begin with 3136 values.
    std::fs::write(&few, npy(8, &[3136])).unwrap();
    std::fs::write(&many, npy(21, &[3136])).unwrap();
    let ask = |file: &Path, n: u8| {
        format!(
            "cp {} ask/p && mv ask/p ask/{n}.npy && until test -f answer/{n}.npy; do sleep 0.01; done",
            file.display()
        )
    };
    let copy = format!("cp {} surrogate.onnx", victim.display());
    let run = |name: &str, line: &str, told: &str| {
        let out = folder.path().join(name);
        let base = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--budgets", "20"];
        let own = ["--policies", "last-2-layers", "--seeds", "1", "--json", "--attacker", line, "--guests", told];
        json(&[&base[..], &own, &["--attacker-time", "20", "--out", out.to_str().unwrap()]].concat())
    };
    let failures = |results: &Value| -> Vec<String> {
        let cells = results["cells"].as_array().unwrap().iter();
        let mine = cells.filter(|c| c["policy"] == "last-layers" && c["budget"] == 20);
        mine.map(|c| c["failure"].as_str().unwrap_or("none").to_owned()).collect()
    };
    // With nothing open or no ticket it asks for nothing.
    let idle =
        format!("grep -q '\"open_layers\": 2' task.json && grep -q '\"tickets\": 20' task.json || {{ {copy}; exit; }}");
    let files = "for f in prefix.onnx suffix.onnx view.onnx images.npy; do test -s $f || exit 9; done; \
                 test -e labels.npy -o -e logits.npy && exit 8";
    let size = |bytes: usize| format!("test $(wc -c < answer/2.npy) = {bytes}");
    let twice = format!("{idle}; {files}; {}; {}", ask(&few, 1), ask(&few, 2));
    let logits = run("logits", &format!("{twice}; {} || exit 7; {copy}", size(128 + 8 * 10 * 4)), "logits");
    assert_eq!(failures(&logits), ["none"]);
    assert_eq!(logits["spec"]["guests"], "logits");
    assert_eq!(logits["spec"]["grid"]["policies"][0].as_str().unwrap().split('@').next(), Some("last-layers"));
    let top1 = run("top1", &format!("{twice}; {} || exit 7; {copy}", size(128 + 8 * 8)), "top1");
    assert_eq!(failures(&top1), ["none"]);
    // 20 tickets: not 21 at once, and not 24 in three parts.
    let greedy = run("greedy", &format!("{idle}; {}; {copy}", ask(&many, 1)), "logits");
    assert!(failures(&greedy)[0].contains("asks about 21 values and has 20 tickets left"), "{:?}", failures(&greedy));
    let patient = run("patient", &format!("{twice}; {}; {copy}", ask(&few, 3)), "logits");
    assert!(failures(&patient)[0].contains("asks about 8 values and has 4 tickets left"), "{:?}", failures(&patient));
    let junk = format!("{idle}; echo junk > ask/p; mv ask/p ask/1.npy; sleep 9");
    assert!(failures(&run("junk", &junk, "logits"))[0].contains("ask/1.npy"));
    let out = folder.path().join("top1");
    let again = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--out", out.to_str().unwrap()];
    fails(&[&again[..], &["--guests", "top1"]].concat(), 2, &["--attacker"]);
    fails(&[&again[..], &["--attacker", "true", "--guests", "logits"]].concat(), 9, &["the view"]);
}

/// An engine does the work of our attackers by name, and points may have fractions of their own.
#[cfg(unix)]
#[test]
fn an_engine_is_told_which_attacker_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let line =
        format!("grep -q '\"attacker\": \"\\(zero\\|own\\)\"' task.json && cp {} surrogate.onnx", victim.display());
    let base = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--seeds", "1", "--json"];
    let points = ["--policies", "random-rows@0.5,magnitude-rows@0.9,last-1-layers", "--budgets", "20"];
    let engine = ["--attackers", "zero,own", "--attacker", &line, "--out", out.to_str().unwrap()];
    let results = json(&[&base[..], &points, &engine].concat());
    let mut ids: Vec<&str> = results["cells"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let expected = [
        "everything-b0-zero-s0",
        "last-layers-99.7-b0-zero-s0",
        "magnitude-rows-90-b0-zero-s0",
        // What looks at no weight is its own twin.
        "nothing-b0-zero-s0",
        "nothing-b20-own-s0",
        "random-rows-50-b0-zero-s0",
    ];
    assert_eq!(ids, expected);
    assert!(results["cells"].as_array().unwrap().iter().all(|c| c["failure"].is_null()), "{results}");
    let with = |policies: &str, code, says: &[&str]| {
        let new = folder.path().join("new");
        fails(&[&base[..], &["--policies", policies, "--out", new.to_str().unwrap()]].concat(), code, says);
    };
    with("random-rows@1.5", 2, &["random-rows@1.5", "fraction"]);
    with("last-9-layers", 2, &["last-9-layers", "4 linear layers"]);
    fails(&[&base[..], &["--attackers", "own", "--out", "x"]].concat(), 2, &["\"own\"", "--attacker 'COMMAND'"]);
}
