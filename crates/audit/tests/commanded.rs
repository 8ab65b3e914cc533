//! Attackers that somebody else wrote, and guests: the binary from outside.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use jali_model::{Arithmetic, Gemm, Graph, Op, onnx};
use serde_json::Value;
use support::{audit, fails, json, output, root, until};

/// A small run with a command.
fn line_of(folder: &Path, name: &str, line: &str, more: &[&str]) -> Vec<String> {
    let out = folder.join(name);
    let base = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--budgets", "20"];
    let own = ["--fractions", "0.5", "--seeds", "2", "--json", "--attacker", line, "--out", out.to_str().unwrap()];
    [&base[..], &own, more].concat().into_iter().map(Into::into).collect()
}

/// A command attacks in place of our attackers: its copies count, its failures do not, and neither
/// ends the run.
#[cfg(unix)]
#[test]
fn somebody_elses_attacker_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let run = |name: &str, line: &str, more: &[&str]| {
        let (code, text, err) = output(&line_of(folder.path(), name, line, more));
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
    let fails_alone = format!("{all}; grep -q '\"policy\": \"nothing\"' task.json && echo no way in && exit 3; {copy}");
    let results = run("fails", &fails_alone, &[]);
    let failed: Vec<&Value> = results["cells"].as_array().unwrap().iter().filter(|c| !c["failure"].is_null()).collect();
    assert!(!failed.is_empty() && failed.iter().all(|c| c["policy"] == "nothing" && c["accuracy"] == 0.0));
    assert!(failed[0]["failure"].as_str().unwrap().contains("no way in"), "{}", failed[0]);
    let verdict = results["verdict"].to_string();
    assert!(verdict.contains("failed and count for nothing"), "{verdict}");

    let out = folder.path().join("knows");
    let again = ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--out", out.to_str().unwrap()];
    fails(&[&again[..], &["--attacker", "true"]].concat(), 9, &["the attacker"]);
    fails(&again, 9, &["the attacker", "none but its own"]);
    fails(&[&again[..], &["--attackers", "command"]].concat(), 2, &["--attacker 'COMMAND'"]);
}

/// A run that is killed, as by a scheduler, takes its attackers along: they would write between the
/// files of the run that goes on.
#[cfg(unix)]
#[test]
fn attackers_end_with_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("processes");
    // What the shell leaves in the background is meant as well.
    let line = format!("sleep 500 & echo $$ $! > {0}.new; mv {0}.new {0}; sleep 500", file.display());
    let mut run = audit()
        .args(line_of(folder.path(), "killed", &line, &["--jobs", "1"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(|| file.is_file());
    let processes = std::fs::read_to_string(&file).unwrap();
    let live = || processes.split_whitespace().filter(|p| lives(p)).count();
    assert_eq!(live(), 2);
    run.kill().unwrap();
    run.wait().unwrap();
    until(|| live() == 0);
}

/// Whether a process runs; one that has ended may wait for its parent to hear of it.
fn lives(process: &str) -> bool {
    if Path::new("/proc/self/stat").exists() {
        return std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|s| !s.contains(") Z"));
    }
    let said = Command::new("ps").args(["-o", "stat=", "-p", process]).output().unwrap().stdout;
    !said.is_empty() && !said.starts_with(b"Z")
}

#[cfg(unix)]
#[test]
fn what_an_attacker_leaves_behind_ends_with_its_cell() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let file = folder.path().join("helpers");
    let line = format!("sleep 500 & echo $! >> {}; cp {} surrogate.onnx", file.display(), victim.display());
    let (code, _, err) = output(&line_of(folder.path(), "helped", &line, &["--jobs", "1"]));
    assert_eq!(code, Some(0), "{err}");
    let helpers = std::fs::read_to_string(&file).unwrap();
    assert!(helpers.lines().count() > 1);
    until(|| !helpers.lines().any(lives));
}

/// Two runs in one folder do every cell once, and neither disturbs the other's attackers.
#[cfg(unix)]
#[test]
fn two_processes_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let file = folder.path().join("begun");
    let line = format!("pwd >> {}; sleep 0.3; cp {} surrogate.onnx", file.display(), victim.display());
    let args = line_of(folder.path(), "shared", &line, &["--jobs", "2"]);
    let runs: Vec<_> = (0..2).map(|_| audit().args(&args).stdout(Stdio::piped()).spawn().unwrap()).collect();
    for run in runs {
        let done = run.wait_with_output().unwrap();
        assert!(done.status.success());
        let results: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(results["missing_cells"], 0);
        assert!(results["cells"].as_array().unwrap().iter().all(|c| c["failure"].is_null()));
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let mut begun: Vec<&str> = text.lines().collect();
    begun.sort_unstable();
    let count = begun.len();
    begun.dedup();
    assert!(count > 1 && count == begun.len(), "{text}");
}

/// A copy takes the place of a failure, and no failure that of a copy.
#[cfg(unix)]
#[test]
fn copies_are_worth_more_than_failures() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let file = folder.path().join("there");
    let line = format!("test -e {} && cp {} surrogate.onnx", file.display(), victim.display());
    let run = |name: &str| output(&line_of(folder.path(), name, &line, &[])).0;
    assert_eq!(run("bad"), Some(1));
    std::fs::write(&file, "").unwrap();
    // More time is no other run.
    let again = line_of(folder.path(), "good", &line, &["--attacker-time", "9"]);
    assert_eq!((run("good"), output(&again).0), (Some(0), Some(0)));
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let failures = |name: &str| {
        let results = json(&["report", "--out", &at(name), "--json"]);
        results["cells"].as_array().unwrap().iter().filter(|c| !c["failure"].is_null()).count()
    };
    assert!(failures("bad") > 0);
    for (from, into) in [("bad", "good"), ("good", "bad")] {
        assert_eq!(output(&["merge", &at(from), "--out", &at(into)]).0, Some(0));
    }
    assert_eq!((failures("good"), failures("bad")), (0, 0));
    // Kept under another name it counts for nothing, and hides no other that is missing.
    let cell = folder.path().join("good/cells/nothing-b20-command-s0.json");
    std::fs::rename(&cell, cell.with_file_name("nothing-b20-command-s0-old.json")).unwrap();
    std::fs::copy(cell.with_file_name("nothing-b20-command-s1.json"), cell.with_file_name("more.json")).unwrap();
    assert_eq!(json(&["report", "--out", &at("good"), "--json"])["missing_cells"], 1);
}

/// Wrong files, no file, no numbers, no end: results of cells, and of a run without any copy the
/// exit code.
#[cfg(unix)]
#[test]
fn bad_copies_end_their_cells() {
    let folder = tempfile::tempdir().unwrap();
    let victim = root().join("crates/jali/bundled/mnist.onnx");
    let nan = folder.path().join("nan.onnx");
    std::fs::write(&nan, onnx_of_no_numbers()).unwrap();
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
        let (code, text, err) = output(&line_of(folder.path(), name, line, more));
        assert!(code == Some(1) && err.contains("no attack of the command"), "{err}");
        let results: Value = serde_json::from_str(&text).unwrap();
        let failure =
            results["cells"].as_array().unwrap().iter().find_map(|c| c["failure"].as_str()).unwrap().to_owned();
        assert!(failure.contains(says), "{name}: {failure}");
    }
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

/// A network that takes the digit whose mean image is nearest.
fn onnx_of_nearest_means() -> Vec<u8> {
    let (mut weight, mut bias) = (vec![], vec![]);
    let images = jali::Dataset::Mnist.bundled_test().unwrap();
    for digit in 0..10 {
        let of_digit: Vec<_> = images.iter().filter(|s| s.label == digit).collect();
        let pixel = |p: usize| of_digit.iter().map(|s| s.image.data[p]).sum::<f32>() / of_digit.len() as f32;
        let mean: Vec<f32> = (0..784).map(pixel).collect();
        bias.push(-0.5 * mean.iter().map(|v| v * v).sum::<f32>());
        weight.extend(mean);
    }
    let mut g = Graph::new(vec![1, 28, 28]).unwrap();
    let flat = g.push("flat".into(), Op::Flatten, vec![0]).unwrap();
    g.push("means".into(), Op::Gemm(Gemm { weight, bias, inputs: 784, outputs: 10 }), vec![flat]).unwrap();
    onnx::export(&g).unwrap()
}

/// Where attacks fail, on both sides, on one, or with one budget, nothing is called safe.
#[cfg(unix)]
#[test]
fn a_plan_is_not_safe_where_attacks_failed() {
    let folder = tempfile::tempdir().unwrap();
    let copy = format!("cp {} surrogate.onnx", root().join("crates/jali/bundled/mnist.onnx").display());
    let weak = folder.path().join("weak.onnx");
    std::fs::write(&weak, onnx_of_nearest_means()).unwrap();
    for (name, line, safe) in [
        ("all", "exit 3".to_owned(), false),
        ("open", format!("grep -q '\"policy\": \"nothing\"' task.json || exit 3; {copy}"), false),
        ("budget", format!("grep -q '\"budget\": 20' task.json && exit 3; {copy}"), false),
        // It has the network in either case, so it cannot tell.
        ("same", copy.clone(), false),
        ("none", format!("cp {} surrogate.onnx", weak.display()), true),
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
        let why = if name == "same" { "a copy is as good as the network" } else { "ended with" };
        assert!(safe || (outcome.contains("not known") && outcome.contains(why)), "{name}: {outcome}");
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
    // Where a plan hides nothing there is nothing to ask for.
    let graph = jali::Network::Mnist.quantised(Default::default()).unwrap().graph().clone();
    let plan = folder.path().join("open.json");
    std::fs::write(&plan, jali_leak::Plan::open_all(&graph).to_json(&graph, "test").unwrap()).unwrap();
    let (out, plan) = (folder.path().join("open"), plan.display().to_string());
    let base =
        ["run", "crates/jali/bundled/mnist.onnx", "--quick", "--scoring", "60", "--budgets", "20", "--seeds", "1"];
    let own = ["--plan", &plan, "--attacker", &idle, "--guests", "logits", "--json", "--out", out.to_str().unwrap()];
    let open = json(&[&base[..], &own].concat());
    let plans = open["cells"].as_array().unwrap().iter().filter(|c| c["policy"] == "plan");
    assert_eq!(plans.map(|c| c["fidelity"].as_f64()).collect::<Vec<_>>(), [Some(1.0); 2]);
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
