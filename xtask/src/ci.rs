//! Every step of CI, in the order in which they are likely to fail. Nothing here needs more than
//! cargo, rustup's components and a C compiler; what cannot be done on a machine, such as the
//! Python package without Python or the page without Node.js, says so and is skipped.

mod python;
mod web;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::tidy;

/// Examples of the library: each is run.
const EXAMPLES: [&str; 6] = ["in_process", "two_machines", "guests", "own_model", "partial_leak", "own_transport"];

/// Sets of the library's features that must build.
const FEATURES: [&str; 4] = ["", "bundled", "images", "http"];

/// Crates that build for another system without a compiler for it, and what they need for that.
const PORTABLE: [(&str, &[&str], &[&str]); 3] = [
    ("aarch64-unknown-linux-gnu", &BELOW_THE_FACADE, &["--features", "blake3/pure"]),
    ("x86_64-pc-windows-gnu", &BELOW_THE_FACADE, &[]),
    // Where these need randomness, `jali-web` says that a page gives it.
    (
        "wasm32-unknown-unknown",
        &["jali-ring", "jali-bundle", "jali-model", "jali-pack", "jali-leak", "jali-guest", "jali-web"],
        &[],
    ),
];

const BELOW_THE_FACADE: [&str; 10] = [
    "jali-ring",
    "jali-mask",
    "jali-bundle",
    "jali-operator",
    "jali-model",
    "jali-pack",
    "jali-leak",
    "jali-guest",
    "jali-tickets",
    "jali-protocol",
];

/// Runs everything, or what concerns one crate.
pub(crate) fn run(root: &Path, package: Option<&str>) -> anyhow::Result<()> {
    let ci = Ci { root };
    step("tidy");
    let faults = tidy::check(root)?;
    faults.iter().for_each(|f| println!("{f}"));
    anyhow::ensure!(faults.is_empty(), "{} violation(s)", faults.len());
    step("format");
    ci.cargo(&["fmt", "--all", "--check"])?;
    let chosen = package.map_or(vec!["--workspace"], |package| vec!["--package", package]);
    step("clippy");
    ci.cargo(&[&["clippy"], &chosen[..], &["--all-targets", "--locked", "--", "-D", "warnings"]].concat())?;
    step("tests");
    ci.cargo(&[&["test"], &chosen[..], &["--locked"]].concat())?;
    step("documentation");
    let documentation = [&["doc"], &chosen[..], &["--no-deps", "--locked"]].concat();
    ci.cargo_with(&documentation, &[("RUSTDOCFLAGS", "-D warnings")])?;
    if package.is_none_or(|package| package == "jali") {
        step("examples and features of the library");
        for example in EXAMPLES {
            ci.built(&Path::new("examples").join(example), &[], &[])?;
        }
        for features in FEATURES {
            ci.cargo(&["check", "--locked", "--package", "jali", "--no-default-features", "--features", features])?;
        }
    }
    if package.is_none_or(|package| package == "jali-cli") {
        step("both modes without a vector extension");
        for mode in [&["--guest"][..], &[]] {
            let demo = [&["demo", "--network", "mnist"], mode, &["--images", "4"]].concat();
            ci.built(Path::new("jali"), &demo, &[("JALI_BACKEND", "portable")])?;
        }
    }
    if package.is_none_or(|package| package == "jali-python") {
        step("the Python package");
        python::run(root)?;
    }
    if package.is_none_or(|package| package == "jali-web") {
        step("the browser's client and page");
        web::run(root)?;
    }
    if package.is_none() {
        ci.outside()?;
    }
    Ok(())
}

fn step(name: &str) {
    println!("\n== {name}");
}

struct Ci<'a> {
    root: &'a Path,
}

impl Ci<'_> {
    fn cargo(&self, args: &[&str]) -> anyhow::Result<()> {
        self.cargo_with(args, &[])
    }

    fn cargo_with(&self, args: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
        println!("cargo {}", args.join(" "));
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let status = Command::new(cargo).args(args).envs(variables.iter().copied()).current_dir(self.root).status();
        anyhow::ensure!(status.context("cargo does not start")?.success(), "cargo {} failed", args.join(" "));
        Ok(())
    }

    /// What does not belong to one crate: fuzz targets, other systems, packages.
    fn outside(&self) -> anyhow::Result<()> {
        step("fuzz targets, which stand apart, compile");
        let manifest = ["check", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"];
        self.cargo(&[&manifest[..], &["--no-default-features", "--bin", "stable", "--locked"]].concat())?;
        self.portable()?;
        step("packages");
        let left_out = ["xtask", "jali-testing", "jali-python", "jali-web"].map(|package| ["--exclude", package]);
        let how = ["--locked", "--no-verify", "--allow-dirty"];
        self.cargo(&[&["package", "--workspace"], left_out.as_flattened(), &how].concat())
    }

    /// Runs what `cargo test` has built: `cargo run` with one package would build all libraries
    /// again, with that package's features alone, and fill the disk of a small machine.
    fn built(&self, binary: &Path, args: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(self.root.join("target"), PathBuf::from);
        let binary = target.join("debug").join(binary).with_extension(std::env::consts::EXE_EXTENSION);
        println!("{} {}", binary.display(), args.join(" "));
        let status = Command::new(&binary).args(args).envs(variables.iter().copied()).current_dir(self.root).status();
        let status = status.with_context(|| format!("{} does not start", binary.display()))?;
        anyhow::ensure!(status.success(), "{} failed", binary.display());
        Ok(())
    }

    /// Checks other systems where rustup can add them.
    fn portable(&self) -> anyhow::Result<()> {
        step("other systems");
        for (target, packages, more) in PORTABLE {
            let add = Command::new("rustup").args(["target", "add", target]).stderr(Stdio::null()).status();
            if !add.is_ok_and(|status| status.success()) {
                println!("SKIPPED: rustup cannot add {target} here");
                continue;
            }
            let packages: Vec<&str> = packages.iter().flat_map(|package| ["--package", package]).collect();
            let head = ["check", "--locked", "--target", target, "--target-dir", "target/other-systems"];
            self.cargo(&[&head[..], &packages[..], more].concat())?;
        }
        Ok(())
    }
}
