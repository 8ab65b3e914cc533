//! The browser's client and page: built, tested under Node.js, and in Chromium.

use std::path::Path;
use std::process::{Command, Stdio};

/// Where Debian installs its Chromium.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Builds `web/dist` and runs its tests. Says so and does nothing where WebAssembly cannot be built
/// or there is no Node.js; leaves the browser out where none can be installed.
pub(super) fn run(root: &Path) -> anyhow::Result<()> {
    if !succeeds(Command::new("rustup").args(["target", "add", "wasm32-unknown-unknown"])) {
        println!("SKIPPED: rustup cannot add wasm32-unknown-unknown here");
        return Ok(());
    }
    if !succeeds(Command::new("node").args(["-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"])) {
        println!("SKIPPED: there is no Node.js from 20 on");
        return Ok(());
    }
    if !has_chromium() {
        println!("SKIPPED: {CHROMIUM} is not there and cannot be installed");
    }
    let npm = ["ci", "--prefix", "web/test", "--no-audit", "--no-fund"];
    if !succeeds(Command::new("npm").args(npm).current_dir(root)) {
        println!("SKIPPED: npm cannot install what drives the browser");
    }
    // The command that `cargo test` has built.
    let jali = root.join("target/debug/jali");
    println!("scripts/build-web --test");
    let status = Command::new("scripts/build-web").arg("--test").env("JALI", jali).current_dir(root).status()?;
    anyhow::ensure!(status.success(), "scripts/build-web --test failed");
    Ok(())
}

/// Whether it is there, or could be installed.
fn has_chromium() -> bool {
    let install = || succeeds(Command::new("apt-get").args(APT));
    let update = || succeeds(Command::new("apt-get").args(["update", "--quiet"]));
    Path::new(CHROMIUM).exists() || install() || (update() && install())
}

const APT: [&str; 5] = ["install", "--yes", "--quiet", "--no-install-recommends", "chromium"];

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
