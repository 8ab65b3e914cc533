//! Who may depend on whom, where `unsafe` may stand, and a few promises of the repository.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Every crate of ours with the crates of ours that it may use, dev-dependencies included.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("jali-ring", &[]),
    ("jali-bench", &["jali-ring"]),
    ("jali-mask", &["jali-ring"]),
    ("jali-operator", &["jali-ring", "jali-mask"]),
    ("jali-model", &[]),
    ("jali-pack", &["jali-model"]),
    ("jali-leak", &["jali-model", "jali-pack"]),
    ("jali-protocol", &["jali-ring", "jali-mask", "jali-operator", "jali-model", "jali-pack", "jali-leak"]),
    ("jali-net", &["jali-ring", "jali-mask", "jali-operator", "jali-model", "jali-pack", "jali-leak", "jali-protocol"]),
    // The facade for files and data, the protocol's forecasts; never the other way round: servers link no training framework.
    ("jali-audit", &["jali", "jali-model", "jali-leak", "jali-protocol"]),
    (
        "jali",
        &[
            "jali-net",
            "jali-bench",
            "jali-ring",
            "jali-mask",
            "jali-operator",
            "jali-model",
            "jali-pack",
            "jali-leak",
            "jali-protocol",
        ],
    ),
];

/// The only folder where `unsafe` may stand.
const UNSAFE_FOLDER: &str = "crates/ring/src/kernel";

/// All violations, as lines to print.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = vec![];
    for entry in std::fs::read_dir(root.join("crates"))? {
        manifest(&entry?.path().join("Cargo.toml"), &mut faults)?;
    }
    let mut sources = vec![];
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut sources)?;
    }
    for path in &sources {
        source(root, path, &mut faults)?;
    }
    let lines = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?.lines().count();
    if lines > 200 {
        faults.push(format!("ARCHITECTURE.md has {lines} lines, at most 200 keep it readable"));
    }
    Ok(faults)
}

fn manifest(path: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let toml: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let table = |name: &str| toml.get(name).and_then(|t| t.as_table()).cloned().unwrap_or_default();
    let name = table("package").get("name").and_then(|n| n.as_str()).unwrap_or_default().to_string();
    let Some((_, allowed)) = MAY_USE.iter().find(|(n, _)| *n == name) else {
        faults.push(format!("{name}: give it a place in ARCHITECTURE.md and in xtask's table"));
        return Ok(());
    };
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (dependency, spec) in &table(section) {
            let itself = *dependency == name && section == "dev-dependencies";
            if dependency.starts_with("jali") && !allowed.contains(&dependency.as_str()) && !itself {
                faults.push(format!("{name} must not use {dependency}"));
            }
            if section != "dev-dependencies" && spec.to_string().contains("test-doors") {
                faults.push(format!("{name}: the feature test-doors belongs to dev-dependencies alone"));
            }
        }
    }
    if toml.get("lints").is_none() {
        faults.push(format!("{name} does not inherit the workspace's lints"));
    }
    Ok(())
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn source(root: &Path, path: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let kernel = shown.starts_with(UNSAFE_FOLDER);
    let code = |line: &&str| !line.trim_start().starts_with("//");
    for (i, line) in text.lines().enumerate().filter(|(_, l)| code(l)) {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        // This tool speaks of it in its messages; the compiler forbids it there.
        if !kernel && !shown.starts_with("xtask") && words.clone().any(|w| w == "unsafe") {
            faults.push(format!("{shown}:{}: unsafe code belongs to {UNSAFE_FOLDER} alone", i + 1));
        }
        if line.contains(concat!("\"/", "work/")) || line.contains(concat!("\"/", "home/")) {
            faults.push(format!("{shown}:{}: an absolute path", i + 1));
        }
    }
    let root_file = ["src/lib.rs", "src/main.rs"].iter().any(|f| shown.ends_with(f));
    let ring = shown == "crates/ring/src/lib.rs";
    if root_file && !ring && !text.contains("#![forbid(unsafe_code)]") {
        faults.push(format!("{shown}: must forbid unsafe code"));
    }
    if ring && !text.contains("#![deny(unsafe_code)]") {
        faults.push(format!("{shown}: must deny unsafe code outside its kernels"));
    }
    // The integer reference is the judge of packing and masking: it must not know them.
    let judge = shown.starts_with("crates/model/");
    if judge && ["jali_pack", "jali_mask", "jali_ring"].iter().any(|c| text.contains(c)) {
        faults.push(format!("{shown}: the reference must share no code with packing or masking"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_in_order() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(check(&root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn violations_are_seen() {
        let folder = std::env::temp_dir().join(format!("jali-tidy-{}", std::process::id()));
        let src = folder.join("crates/pack/src");
        std::fs::create_dir_all(&src).unwrap();
        std::fs::create_dir_all(folder.join("xtask")).unwrap();
        std::fs::write(folder.join("ARCHITECTURE.md"), "\n".repeat(201)).unwrap();
        let manifest = "[package]\nname = \"jali-pack\"\n[dependencies]\njali-mask = { path = \"x\", features = [\"test-doors\"] }\n";
        std::fs::write(folder.join("crates/pack/Cargo.toml"), manifest).unwrap();
        std::fs::write(src.join("lib.rs"), "pub fn f() { unsafe {} }\n").unwrap();
        let faults = check(&folder).unwrap().join("\n");
        std::fs::remove_dir_all(&folder).unwrap();
        for part in
            ["must not use jali-mask", "test-doors", "lints", "belongs to crates/ring", "must forbid", "201 lines"]
        {
            assert!(faults.contains(part), "{part:?} is missing in:\n{faults}");
        }
    }
}
