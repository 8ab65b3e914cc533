//! Chores of the repository: `cargo xtask ci` is all that must pass, `cargo xtask tidy` what a
//! machine can check of its promises, `cargo xtask cifar` a part of `scripts/fetch-data`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod ci;
mod cifar;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage:
  cargo xtask ci [--package CRATE]      every step of CI, or those that concern one crate
  cargo xtask tidy                      architecture, widths, lengths, names that documents cite
  cargo xtask cifar UNPACKED_PACKAGE OUT_FOLDER";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => {
            let faults = tidy::check(&root)?;
            faults.iter().for_each(|f| println!("{f}"));
            anyhow::ensure!(faults.is_empty(), "{} violation(s)", faults.len());
            println!("tidy: in order");
            Ok(())
        }
        ["ci"] => ci::run(&root, None),
        ["ci", "--package", package] => ci::run(&root, Some(package)),
        ["cifar", package, out] => cifar::convert(Path::new(package), Path::new(out)),
        _ => anyhow::bail!("{USAGE}"),
    }
}
