//! What the server does for browsers: pages, other origins, and `jali demo --browser`. The page
//! itself is tested in a browser: `web/test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Served, http, mnist};
use tempfile::TempDir;

fn pages(folder: &Path) {
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    for (name, text) in [
        ("index.html", "<p>the page</p>"),
        ("a.wasm", "wasm"),
        ("sub/b.js", "script"),
        (".secret", "hidden"),
        ("sub/.secret", "hidden"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    std::fs::write(folder.with_file_name("outside.txt"), "outside").unwrap();
}

/// A folder of pages in one that goes away.
fn built() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let dist = folder.path().join("dist");
    pages(&dist);
    (folder, dist.display().to_string())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn files_are_served_beside_the_api() {
    let (_folder, dist) = built();
    let served = Served::start(&mnist().server(), &["--pages", &dist]);
    let get = |path: &str| http(served.addr, &format!("GET {path} HTTP/1.1"), b"");
    let (status, head, body) = get("/");
    assert_eq!((status, &body[..]), (200, &b"<p>the page</p>"[..]));
    assert_eq!(header(&head, "content-type"), Some("text/html"));
    let policy = header(&head, "content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self'; script-src 'self' 'wasm-unsafe-eval';"), "{policy}");
    for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
        assert_eq!(header(&head, name), Some(value));
    }
    assert_eq!(header(&head, "access-control-allow-origin"), None);
    assert_eq!(header(&get("/a.wasm").1, "content-type"), Some("application/wasm"));
    assert_eq!(header(&get("/sub/b.js").1, "content-type"), Some("text/javascript"));
    for path in [
        "/none",
        "/.secret",
        "/sub/.secret",
        "/%2esecret",
        "/%2Esecret",
        "/sub%2F.secret",
        "/sub%2f.secret",
        "/sub/%2e%2e/.secret",
    ] {
        let (status, head, _) = get(path);
        assert_eq!(status, 404, "{path}");
        assert!(header(&head, "content-security-policy").is_some(), "{path}");
    }
    for path in
        ["/../outside.txt", "/%2e%2e/outside.txt", "/sub/..%2f..%2foutside.txt", "//outside.txt", "/..\\outside.txt"]
    {
        let (status, _, body) = get(path);
        assert!(status >= 400 && body != b"outside", "{path}: {status}");
    }
    assert_eq!(http(served.addr, "POST / HTTP/1.1", b"").0, 405);
    assert_eq!(get("/v2/health/ready").0, 200);
    let metrics = String::from_utf8(get("/metrics").2).unwrap();
    assert!(metrics.contains("jali_requests_total{path=\"pages\",status=\"404\"}"), "{metrics}");
}

#[test]
fn other_origins_are_allowed_by_name_alone() {
    let served = Served::start(&mnist().server(), &["--allow-origin", "https://clinic.example"]);
    let ask = |method: &str, origin: &str, more: &str| {
        http(served.addr, &format!("{method} /v2 HTTP/1.1\r\nOrigin: {origin}{more}"), b"").1
    };
    let allowed = "access-control-allow-origin";
    assert_eq!(header(&ask("GET", "https://clinic.example", ""), allowed), Some("https://clinic.example"));
    assert_eq!(header(&ask("GET", "https://evil.example", ""), allowed), None);
    let asks = "\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type";
    let preflight = ask("OPTIONS", "https://clinic.example", asks);
    assert_eq!(header(&preflight, allowed), Some("https://clinic.example"));
    assert_eq!(header(&preflight, "access-control-allow-headers"), Some("authorization,content-type"));
    assert_eq!(header(&preflight, "access-control-allow-credentials"), None);
    assert_eq!(header(&ask("OPTIONS", "https://evil.example", asks), allowed), None);
}

#[test]
fn mistakes_are_told_before_anything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = mnist().server().display().to_string();
    let fails = |more: &[&str]| {
        let args = [&["serve", &bundle, "--listen", "127.0.0.1:0"], more].concat();
        let out = Command::new(assert_cmd::cargo::cargo_bin!("jali")).args(args).output().unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let empty = folder.path().display().to_string();
    let text = fails(&["--pages", &empty]);
    assert!(text.contains(&empty) && text.contains("index.html") && text.contains("scripts/build-web"), "{text}");
    for origin in ["*", "clinic.example", "https://clinic.example/"] {
        let text = fails(&["--allow-origin", origin]);
        assert!(text.contains("is no origin: it has the form https://host"), "{text}");
    }
}

/// Everything that the page of the demonstration asks for is there, and nothing that only the owner
/// or the server may have.
#[test]
fn the_demonstration_serves_what_its_page_needs() {
    let (_folder, dist) = built();
    let args = ["demo", "--browser", "--no-open", "--network", "mnist", "--images", "3", "--pages", &dist];
    let served = Served::of_plain(&args, "The page is at ");
    let get = |path: &str| http(served.addr, &format!("GET /{path} HTTP/1.1"), b"");
    let described: Value = serde_json::from_slice(&get("demo/demo.json").2).unwrap();
    assert_eq!(described["samples"].as_array().unwrap().len(), 3);
    assert_eq!(described["plans"].as_array().unwrap().len(), 2);
    let mut files = vec![];
    fn collect(value: &Value, files: &mut Vec<String>) {
        match value {
            Value::String(text) if text.starts_with("demo/") => files.push(text.clone()),
            Value::Array(all) => all.iter().for_each(|v| collect(v, files)),
            Value::Object(all) => all.values().for_each(|v| collect(v, files)),
            _ => {}
        }
    }
    collect(&described, &mut files);
    assert!(files.len() > 15, "{files:?}");
    for file in &files {
        assert_eq!(get(file).0, 200, "{file}");
    }
    for file in ["0/guests/owner", "demo/0/owner", "demo/0-wallet/server", "../0/batch/server", "demo/owner"] {
        assert!(get(file).0 >= 400, "{file}");
    }
    let weights = get(described["owner"]["weights"].as_str().unwrap()).2;
    let shape = described["owner"]["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap());
    assert_eq!(weights.len() as u64, 4 * shape.product::<u64>());
}

/// What `docs/json.md` says of it.
#[test]
fn its_address_is_printed_as_json() {
    let (_folder, dist) = built();
    let jali = assert_cmd::cargo::cargo_bin!("jali");
    let args = ["demo", "--browser", "--no-open", "--network", "mnist", "--images", "1", "--json", "--pages", &dist];
    let mut child = Command::new(jali).args(args).stdout(Stdio::piped()).spawn().unwrap();
    let started: Value =
        serde_json::Deserializer::from_reader(child.stdout.take().unwrap()).into_iter().next().unwrap().unwrap();
    let fields: Vec<&String> = started.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["network", "url"]);
    let addr = started["url"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    assert_eq!(http(addr, "GET / HTTP/1.1", b"").0, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_page_that_is_not_built_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["demo", "--browser", "--no-open", "--pages", &folder.path().display().to_string()];
    let out = Command::new(assert_cmd::cargo::cargo_bin!("jali")).args(args).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("index.html") && text.contains("scripts/build-web"), "{text}");
}
