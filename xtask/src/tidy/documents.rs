//! Markdown: widths, and whether what documents cite is there.

use std::collections::BTreeSet;
use std::path::Path;

/// Columns of a line, tables, code and links aside.
const WIDTH: usize = 120;
/// Most lines of two documents.
const LENGTHS: [(&str, usize); 2] = [("ARCHITECTURE.md", 200), ("README.md", 110)];
/// Documents whose code names must exist.
const CITING: [&str; 3] = ["SECURITY.md", "ARCHITECTURE.md", "docs/glossary.md"];

pub(super) fn check(root: &Path, texts: &[(String, String)], faults: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, most) in LENGTHS {
        let lines = std::fs::read_to_string(root.join(name)).unwrap_or_default().lines().count();
        if lines > most {
            faults.push(format!("{name} has {lines} lines, at most {most} keep it readable"));
        }
    }
    for folder in ["", "docs"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "md") {
                let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                widths(&shown, &std::fs::read_to_string(&path)?, faults);
            }
        }
    }
    let words = words(texts);
    for name in CITING {
        let text = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        for cited in code_spans(&text) {
            if !exists(root, &cited, texts, &words) {
                faults.push(format!("{name} cites \"{cited}\", which is not there"));
            }
        }
    }
    Ok(())
}

fn widths(shown: &str, text: &str, faults: &mut Vec<String>) {
    let mut fence = false;
    for (i, line) in text.lines().enumerate() {
        fence ^= line.trim_start().starts_with("```");
        let width = line.trim_end().chars().count();
        if width > WIDTH && !fence && !line.trim_start().starts_with(['|', '<', '[', '!']) {
            faults.push(format!("{shown}:{}: has {width} columns, at most {WIDTH}", i + 1));
        }
    }
}

/// Identifiers of all sources.
fn words(texts: &[(String, String)]) -> BTreeSet<&str> {
    let split = |text| str::split(text, |c: char| !c.is_alphanumeric() && c != '_');
    texts.iter().flat_map(|(_, text)| split(text)).collect()
}

/// What stands between single backquotes, code blocks aside.
fn code_spans(text: &str) -> Vec<String> {
    let mut fence = false;
    let mut spans = vec![];
    for line in text.lines() {
        fence ^= line.trim_start().starts_with("```");
        if !fence {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// Whether what a document cites is there: a file, or a name in Rust. Anything else (formulas,
/// commands, options) is not looked for.
fn exists(root: &Path, cited: &str, texts: &[(String, String)], words: &BTreeSet<&str>) -> bool {
    let is_path = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let names_file = cited.ends_with(".rs") || cited.contains("/src") || cited.starts_with("crates/");
    if names_file && cited.chars().all(is_path) {
        let name = cited.trim_end_matches('/');
        return texts.iter().any(|(shown, _)| shown == name || shown.ends_with(&format!("/{name}")))
            || root.join(name).exists()
            || root.join("crates").join(name).exists();
    }
    let name = cited.trim_end_matches("()").trim_end_matches('!');
    let rust = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    let parts: Vec<&str> = name.split("::").collect();
    // Single words of lower case may be anything: options, formats, symbols.
    let speaks = parts.len() > 1 || name.contains('_') || name.chars().any(char::is_uppercase) && name.len() > 3;
    if !speaks || !parts.iter().all(|part| rust(part)) {
        return true;
    }
    // Environment variables and the like.
    if parts.len() == 1 && name.chars().all(|c| c.is_uppercase() || c.is_numeric() || c == '_') {
        return true;
    }
    let foreign = |part: &str| part.starts_with("jali") || matches!(part, "std" | "core" | "crate");
    parts.iter().filter(|part| !foreign(part)).all(|part| words.contains(part))
}
