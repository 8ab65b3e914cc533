//! Rust files: `unsafe`, absolute paths, widths of comments, lengths.

/// The only folder where `unsafe` may stand.
const UNSAFE_FOLDERS: [&str; 2] = ["crates/ring/src/backend", "crates/guest/src/backend"];
/// Columns of a comment.
const COMMENT: usize = 100;
/// Lines of a file.
const LINES: usize = 400;

/// Files above [`LINES`], with the lines that they may have and why. The list only shrinks.
const LONG: &[(&str, usize, &str)] = &[
    ("crates/ring/src/backend/x86.rs", 630, "one implementation of `Lanes` for each vector unit, side by side"),
    ("crates/ring/src/backend/transform.rs", 490, "both directions of one transform, pass by pass"),
    ("crates/ring/src/backend/rows.rs", 470, "how rows lie in memory, and all that reads them there"),
    ("crates/ring/src/wire.rs", 440, "reader and writer of one format, side by side"),
    ("crates/pack/src/conv.rs", 460, "a proof with the code that it is about"),
];

pub(super) fn check(shown: &str, text: &str, faults: &mut Vec<String>) {
    let backend = UNSAFE_FOLDERS.iter().any(|folder| shown.starts_with(folder));
    let mut fence = false;
    for (i, line) in text.lines().enumerate() {
        let (number, code) = (i + 1, line.trim_start());
        if code.starts_with("//") {
            fence ^= code.contains("```");
            let width = line.chars().count();
            // Tables, code and links cannot be wrapped.
            let table = code.trim_start_matches(['/', '!', ' ']).starts_with(['|', '[']);
            if width > COMMENT && !fence && !table && !code.contains("://") {
                faults.push(format!("{shown}:{number}: a comment of {width} columns, at most {COMMENT}"));
            }
            continue;
        }
        // A word with a hyphen is no keyword: browsers' policies have such names.
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
        // This tool speaks of it in its messages; the compiler forbids it there.
        if !backend && !shown.starts_with("xtask") && words.any(|w| w == "unsafe") {
            faults.push(format!("{shown}:{number}: unsafe code belongs to {} alone", UNSAFE_FOLDERS.join(" and ")));
        }
        if line.contains(concat!("\"/", "work/")) || line.contains(concat!("\"/", "home/")) {
            faults.push(format!("{shown}:{number}: an absolute path"));
        }
    }
    let root_file = shown.starts_with("crates") && ["src/lib.rs", "src/main.rs"].iter().any(|f| shown.ends_with(f));
    let has_backends = ["crates/ring/src/lib.rs", "crates/guest/src/lib.rs"].contains(&shown);
    if root_file && !has_backends && !text.contains("#![forbid(unsafe_code)]") {
        faults.push(format!("{shown}: must forbid unsafe code"));
    }
    if has_backends && !text.contains("#![deny(unsafe_code)]") {
        faults.push(format!("{shown}: must deny unsafe code outside its backends"));
    }
    // The integer reference is the judge of packing and masking: it must not know them.
    let judge = shown.starts_with("crates/model/");
    if judge && ["jali_pack", "jali_mask", "jali_ring"].iter().any(|c| text.contains(c)) {
        faults.push(format!("{shown}: the reference must share no code with packing or masking"));
    }
}

/// Files that are longer than they may be, and entries of the list that can go or shrink.
pub(super) fn lengths(texts: &[(String, String)], faults: &mut Vec<String>) {
    let is_test = |shown: &str| shown.contains("/tests/") || shown.ends_with("/tests.rs");
    for (shown, text) in texts.iter().filter(|(shown, _)| !is_test(shown)) {
        let lines = text.lines().count();
        let listed = LONG.iter().find(|(file, ..)| file == shown).map(|(_, allowed, _)| *allowed);
        let allowed = listed.unwrap_or(LINES);
        if lines > allowed {
            faults.push(format!("{shown}: {lines} lines, at most {allowed}: split it by what it holds"));
        } else if listed.is_some() && lines <= LINES {
            faults.push(format!("{shown}: take it out of xtask's list of long files"));
        } else if lines + 20 < allowed && listed.is_some() {
            faults.push(format!("{shown}: it has {lines} lines, lower the {allowed} in xtask's list"));
        }
    }
}
