//! The binary, from outside.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn audit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jali-audit"));
    command.current_dir(root());
    command
}

pub fn output(args: &[impl AsRef<std::ffi::OsStr>]) -> (Option<i32>, String, String) {
    let done = audit().args(args).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

pub fn json(args: &[&str]) -> Value {
    let (code, out, err) = output(args);
    assert_eq!(code, Some(0), "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

pub fn fails(args: &[&str], code: i32, says: &[&str]) {
    let (got, _, err) = output(args);
    assert_eq!(got, Some(code), "{args:?}: {err}");
    says.iter().for_each(|s| assert!(err.contains(s), "{args:?} should say {s}: {err}"));
}

/// Waits, though not for ever.
pub fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it did not happen in two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}
