//! What `--json` prints, compared field by field with `docs/json.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::Served;
use tempfile::TempDir;

/// Sections of the page, commands that print what they are about, and their exit codes. They run in
/// the folder of [`prepared`]; `LIVE` and `DEAD` stand for servers.
const COMMANDS: &[(&str, &str, i32)] = &[
    ("jali demo", "demo --network mnist --images 2 --json", 0),
    ("jali demo --guest", "demo --guest --network mnist --images 2 --in-process --json", 0),
    ("jali demo --guest", "demo --guest --network mnist --images 2 --json", 0),
    ("jali seal", "seal --network mnist --out again --json", 0),
    ("jali seal --for guests", "seal --network mnist --for guests --out guests-again --json", 0),
    ("jali deal", "deal guests/owner --to RECIPIENT --tickets 2 --out other --json", 0),
    ("jali tickets", "tickets batch/wallet --key me.key --json", 0),
    (
        "jali infer",
        "infer --guest batch/wallet --key me.key --server FOR_GUESTS --samples mnist --images 1 --transcript transcript --json",
        0,
    ),
    ("jali judge", "judge transcript --owner guests --batch batch/server --json", 0),
    ("jali inspect BUNDLE", "inspect guests --json", 0),
    ("jali inspect MODEL.onnx --guest", "inspect mnist.onnx --guest --json", 0),
    ("jali inspect MODEL.onnx --guest", "inspect odd.onnx --guest --json", 3),
    ("jali plan inspect --guest", "plan inspect --network mnist --plan plan.json --guest --json", 0),
    ("jali evaluate", "evaluate --network mnist --images 20 --guest --json", 0),
    ("jali plan inspect", "plan inspect --network mnist --plan plan.json --json", 0),
    ("jali plan diff", "plan diff --network mnist --from plan.json --to other.json --json", 0),
    ("jali plan validate", "plan validate --network mnist --plan plan.json --json", 0),
    ("jali inspect BUNDLE", "inspect sealed --verify --json", 0),
    ("jali inspect MODEL.onnx", "inspect mnist.onnx --json", 0),
    ("jali inspect MODEL.onnx", "inspect odd.onnx --json", 3),
    ("jali infer", "infer --model mnist.onnx --samples mnist --images 2 --json", 0),
    ("jali infer", "infer --model mnist.onnx --outputs kept --json pictures broken.png", 11),
    // The first one keeps hints beside the bundle. Without them the second one prints nothing.
    ("jali infer", "infer --client sealed/client --server LIVE --samples mnist --images 1 --json", 0),
    ("jali infer", "infer --client sealed/client --server DEAD --deadline 1 --samples mnist --images 2 --json", 8),
    ("jali evaluate", "evaluate --network mnist --images 20 --encrypted 1 --json", 0),
    ("jali explain", "explain --network mnist --runs 1 --json", 0),
];

/// What `jali bench` prints.
const BENCHMARKS: &[(&str, &str, i32)] = &[
    ("jali bench inference", "bench inference --network mnist --runs 1 --batches 1 --sweep curve.svg --json", 0),
    ("jali bench guests", "bench guests --network mnist --runs 2 --guests 2 --link 0.3,1000 --json", 0),
    ("jali bench limits", "bench limits --json", 0),
    ("jali bench paper", "bench paper --json", 0),
    ("jali bench growth", "bench growth --json", 0),
];

/// The section about a file, and the file.
const PLAN: (&str, &str) = ("jali plan create", "plan.json");

/// Sections that nothing here prints: `jali-audit` is another crate's, and evidence comes from it;
/// what serves until it is ended is read in `pages.rs`.
const UNCHECKED: [&str; 5] =
    ["Evidence of a plan", "jali-audit run", "jali-audit cell", "jali-audit plan", "jali demo --browser"];

/// Optional fields that no command above prints.
const UNSEEN: &[(&str, &str)] = &[
    ("jali plan create", "evidence"),
    ("jali inspect BUNDLE", "client.plan.evidence"),
    // With --fetch, from a dealing service.
    ("jali tickets", "fetched"),
    // Of a network with several outputs.
    ("jali infer", "output"),
];

/// The type of objects that have a section of their own.
const EVIDENCE: &str = "evidence";

/// A field as the page has it.
struct Field {
    kind: String,
    optional: bool,
}

/// Fields by their paths.
type Section = BTreeMap<String, Field>;

/// Sections of a page by their headings; those without fields are left out.
fn sections(page: &str) -> BTreeMap<String, Section> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.replace('`', "");
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
        let [path, kind, _unit, _meaning] = cells[..] else { panic!("{heading}: four columns are needed: {line}") };
        let (kind, optional) = kind.strip_suffix(", optional").map_or((kind, false), |kind| (kind, true));
        let field = Field { kind: kind.to_owned(), optional };
        let path = path.trim_end_matches('`').to_owned();
        assert!(sections.entry(heading.clone()).or_default().insert(path, field).is_none(), "twice: {line}");
    }
    sections
}

fn page() -> BTreeMap<String, Section> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
    sections(&std::fs::read_to_string(path).unwrap())
}

/// Whether a value is of a type, as the page names types.
fn fits(kind: &str, value: &Value) -> bool {
    if let Some(kind) = kind.strip_suffix(" or null") {
        return value.is_null() || fits(kind, value);
    }
    if let Some(of) = kind.strip_prefix("list of ").or_else(|| kind.strip_prefix("lists of ")) {
        return value.as_array().is_some_and(|items| items.iter().all(|item| fits(of, item)));
    }
    match kind.trim_end_matches('s') {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "object" | EVIDENCE => value.is_object(),
        _ => panic!("the page has the type \"{kind}\""),
    }
}

/// Compares what was printed at a path with a section, and notes which of its fields are there.
fn compare(section: &Section, at: &str, value: &Value, seen: &mut BTreeSet<String>, faults: &mut BTreeSet<String>) {
    if let Some(items) = value.as_array() {
        for item in items {
            compare(section, &format!("{at}[]"), item, seen, faults);
        }
    }
    let Some(object) = value.as_object() else { return };
    for (path, field) in section {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path.as_str()));
        if parent == at && !field.optional && !object.contains_key(name) {
            faults.insert(format!("{path} is not printed"));
        }
    }
    for (name, value) in object {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match section.get(&path).map(|field| field.kind.as_str()) {
            None => {
                faults.insert(format!("{path} is not in the page"));
            }
            Some(kind) if !fits(kind, value) => {
                faults.insert(format!("{path} is {value}, the page says {kind}"));
            }
            Some(kind) if kind.starts_with(EVIDENCE) => {}
            Some(_) => compare(section, &path, value, seen, faults),
        }
        seen.insert(path);
    }
}

/// What differs between a page and what was printed for its sections.
fn differences(page: &BTreeMap<String, Section>, printed: &[(&str, Value)]) -> Vec<String> {
    let mut all = vec![];
    let names: BTreeSet<&str> = printed.iter().map(|(name, _)| *name).collect();
    for name in names {
        let Some(section) = page.get(name) else {
            all.push(format!("{name} is no section of the page"));
            continue;
        };
        let (mut seen, mut faults) = (BTreeSet::new(), BTreeSet::new());
        for (_, value) in printed.iter().filter(|(of, _)| *of == name) {
            compare(section, "", value, &mut seen, &mut faults);
        }
        for path in section.keys().filter(|path| !seen.contains(*path)) {
            if !UNSEEN.contains(&(name, path.as_str())) {
                faults.insert(format!("{path} is printed by no command of this test"));
            }
        }
        all.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    all
}

/// Runs a command in a folder, which gets its cache too.
fn jali(folder: &Path, line: &str, code: i32) -> Vec<u8> {
    let out = Command::new(assert_cmd::cargo::cargo_bin!("jali"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env_remove("JALI_BACKEND")
        .env_remove("JALI_KERNEL")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(code), "jali {line}\n{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn parsed(what: &str, text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("{what}: {e}\n{}", String::from_utf8_lossy(text)))
}

/// A folder with all that the commands read.
fn prepared() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (here, root) = (folder.path(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let model = std::fs::read(root.join("../jali/bundled/mnist.onnx")).unwrap();
    std::fs::write(here.join("mnist.onnx"), &model).unwrap();
    // A copy of it with an operator that nobody knows.
    let mut odd = model;
    while let Some(at) = odd.windows(4).position(|name| name == b"Relu") {
        odd[at] = b'X';
    }
    std::fs::write(here.join("odd.onnx"), odd).unwrap();
    std::fs::create_dir(here.join("pictures")).unwrap();
    std::fs::copy(root.join("../../assets/images/mnist/00-7.png"), here.join("pictures/seven.png")).unwrap();
    std::fs::write(here.join("pictures/notes.txt"), "no image").unwrap();
    std::fs::write(here.join("broken.png"), "no image").unwrap();
    for line in [
        "plan create --network mnist --leak 0.5 --out plan.json",
        "plan create --network mnist --leak 0.3 --seed 1 --out other.json",
        "seal --network mnist --plan plan.json --out sealed",
        "guest key --out me.key",
        "seal --network mnist --for guests --out guests",
    ] {
        jali(here, line, 0);
    }
    jali(here, &format!("deal guests/owner --to {} --tickets 4 --out batch", recipient(here)), 0);
    folder
}

/// The recipient of the guest's key in a folder.
fn recipient(here: &Path) -> String {
    let key = std::fs::read_to_string(here.join("me.key")).unwrap();
    key.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn commands_print_what_the_page_says() {
    let folder = prepared();
    let batch = folder.path().join("batch/server").display().to_string();
    let for_guests = Served::start(&folder.path().join("guests/server"), &["--tickets", &batch]);
    let live = Served::start(&folder.path().join("sealed/server"), &[]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{free}");
    let (section, file) = PLAN;
    let mut printed = vec![(section, parsed(file, &std::fs::read(folder.path().join(file)).unwrap()))];
    for &(section, line, code) in COMMANDS {
        let line = line.replace("LIVE", &live.url).replace("DEAD", &dead);
        let line = line.replace("FOR_GUESTS", &for_guests.url).replace("RECIPIENT", &recipient(folder.path()));
        printed.push((section, parsed(&line, &jali(folder.path(), &line, code))));
    }
    let faults = differences(&page(), &printed);
    assert!(faults.is_empty(), "docs/json.md and the commands differ:\n{}", faults.join("\n"));
}

#[test]
fn benchmarks_print_what_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut printed = vec![];
    for &(section, line, code) in BENCHMARKS {
        printed.push((section, parsed(line, &jali(folder.path(), line, code))));
    }
    let faults = differences(&page(), &printed);
    assert!(faults.is_empty(), "docs/json.md and the commands differ:\n{}", faults.join("\n"));
}

#[test]
fn every_section_is_compared_or_known_not_to_be() {
    let page = page();
    let printed = COMMANDS.iter().chain(BENCHMARKS).map(|&(section, ..)| section);
    let known: BTreeSet<&str> = printed.chain([PLAN.0]).chain(UNCHECKED).collect();
    let there: BTreeSet<&str> = page.keys().map(String::as_str).collect();
    assert_eq!(there, known);
}

#[test]
fn differences_are_seen() {
    let page = sections(
        "## `jali x`\n\n\
         | field | type | unit | meaning |\n|---|---|---|---|\n\
         | `a` | integer | ms | one |\n\
         | `b` | list of objects, optional | | two |\n\
         | `b[].c` | string or null | | three |\n",
    );
    let of = |value: Value| differences(&page, &[("jali x", value)]);
    assert_eq!(of(json!({"a": 1, "b": [{"c": null}, {"c": "text"}]})), Vec::<String>::new());
    for (value, fault) in [
        (json!({"b": [{"c": null}]}), "jali x: a is not printed"),
        (json!({"a": 1, "b": [{"c": null}, {}]}), "jali x: b[].c is not printed"),
        (json!({"a": 1, "b": [{"c": null, "d": 2}]}), "jali x: b[].d is not in the page"),
        (json!({"a": 1.5, "b": [{"c": null}]}), "jali x: a is 1.5, the page says integer"),
        (json!({"a": 1}), "jali x: b is printed by no command of this test"),
    ] {
        let found = of(value);
        assert!(found.iter().any(|f| f == fault), "{fault:?} is missing in {found:?}");
    }
    assert_eq!(differences(&page, &[("jali y", json!({}))]), ["jali y is no section of the page"]);
}
