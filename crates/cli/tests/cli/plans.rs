//! Plans, and what they open.

use super::*;

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
