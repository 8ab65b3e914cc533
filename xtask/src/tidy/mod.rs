//! Promises of the repository that a machine can check.
//!
//! | module | what it checks |
//! |---|---|
//! | [`manifests`] | which crate uses which, as ARCHITECTURE.md draws it |
//! | [`sources`] | where `unsafe` stands, widths of comments, lengths of files |
//! | [`documents`] | widths of Markdown, names and files that documents cite |

mod documents;
mod manifests;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Returns all violations, as lines to print.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = vec![];
    for entry in std::fs::read_dir(root.join("crates"))? {
        manifests::check(&entry?.path().join("Cargo.toml"), &mut faults)?;
    }
    let mut files = vec![];
    for folder in ["crates", "xtask", "fuzz/src", "fuzz/fuzz_targets"] {
        collect(&root.join(folder), &mut files)?;
    }
    let mut texts = vec![];
    for path in files {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        texts.push((path.strip_prefix(root).unwrap_or(&path).display().to_string(), text));
    }
    texts.iter().for_each(|(shown, text)| sources::check(shown, text, &mut faults));
    sources::lengths(&texts, &mut faults);
    documents::check(root, &texts, &mut faults)?;
    Ok(faults)
}

/// Rust files of a folder and of those in it; none if there is no such folder.
fn collect(folder: &Path, out: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
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
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let table = "| change | place |\n|---|---|\n| a door | `pack/src/gone.rs` |\n";
        write("ARCHITECTURE.md", &(table.to_string() + &"\n".repeat(201)));
        write("SECURITY.md", "It rests on `Door::lock`, on `lib.rs` and on `fn f`.\n");
        write("docs/page.md", &format!("{}\n", "word ".repeat(40)));
        let manifest = "[package]\nname = \"jali-pack\"\n[dependencies]\n\
                        jali-mask = { path = \"x\", features = [\"test-doors\"] }\n";
        write("crates/pack/Cargo.toml", manifest);
        let comment = format!("// {}\n", "word ".repeat(30));
        write("crates/pack/src/lib.rs", &format!("{comment}pub fn f() {{ unsafe {{}} }}\n"));
        write("crates/pack/src/long.rs", &"fn g() {}\n".repeat(401));
        let faults = check(folder.path()).unwrap().join("\n");
        for part in [
            "must not use jali-mask",
            "does not use jali-model",
            "test-doors",
            "lints",
            "belongs to crates/ring",
            "must forbid",
            "204 lines",
            "\"pack/src/gone.rs\"",
            "\"Door::lock\"",
            "page.md:1: has 199 columns",
            "lib.rs:1: a comment of",
            "long.rs: 401 lines",
        ] {
            assert!(faults.contains(part), "{part:?} is missing in:\n{faults}");
        }
        assert!(!faults.contains("\"lib.rs\"") && !faults.contains("\"fn f\""), "{faults}");
    }
}
