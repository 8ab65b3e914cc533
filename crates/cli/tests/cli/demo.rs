//! `jali demo`.

use super::*;

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
fn a_closed_pipe_is_no_error() {
    let binary = assert_cmd::cargo::cargo_bin("jali");
    let script =
        format!("'{}' demo --network mnist --images 3 | head -n 1; echo \"code ${{PIPESTATUS[0]}}\"", binary.display());
    let out = Command::new("bash").args(["-c", &script]).assert().success();
    let (text, err) =
        (String::from_utf8_lossy(&out.get_output().stdout), String::from_utf8_lossy(&out.get_output().stderr));
    assert!(text.contains("code 0") && !err.contains("panicked"), "{text}{err}");
}
