//! `cargo run -p xtask -- tidy`: the architecture check. What it enforces stands in
//! ARCHITECTURE.md. `cargo run -p xtask -- cifar PNG.. JSON.. OUT`: see scripts/fetch-data.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod cifar;
mod tidy;

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let faults = tidy::check(&root)?;
            faults.iter().for_each(|f| println!("{f}"));
            anyhow::ensure!(faults.is_empty(), "{} violation(s) of the architecture", faults.len());
            println!("architecture: in order");
            Ok(())
        }
        ["cifar", package, out] => cifar::convert(Path::new(package), Path::new(out)),
        _ => anyhow::bail!("usage: cargo run -p xtask -- tidy | cifar UNPACKED_PACKAGE OUT_FOLDER"),
    }
}
