//! Mistakes and habits of every day: wrong files, folders with other things in them, outputs that
//! are no classes.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Served, jali, mnist};
use tempfile::TempDir;

#[track_caller]
fn fails(args: &[&str], code: i32, say: &[&str]) {
    let (got, out, err) = jali(args);
    assert_eq!(got, code, "{args:?}\n{out}\n{err}");
    for part in say {
        assert!(err.contains(part), "{args:?}: {part:?} is missing in:\n{err}");
    }
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let (code, out, err) = jali(args);
    assert_eq!(code, 0, "{args:?}\n{err}");
    serde_json::from_str(&out).unwrap()
}

fn asset(name: &str) -> PathBuf {
    let folder = if name.ends_with(".onnx") { "../jali/bundled" } else { "../../assets" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

/// A folder with files of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn holds(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
}

#[test]
fn a_passphrase_is_for_a_locked_bundle_and_pins_are_for_any() {
    let (sealed, folder) = (mnist(), Folder::new());
    let (client, secret) = (sealed.client().display().to_string(), folder.holds("secret", "correct horse\n"));
    let served = Served::start(&sealed.server(), &[]);
    let infer = ["infer", "--client", &client, "--server", &served.url, "--samples", "mnist", "--images", "1"];
    let with = |more: &[&'static str], value: &str| {
        let args: Vec<String> = infer.iter().chain(more).map(|s| s.to_string()).chain([value.to_string()]).collect();
        args
    };
    let refs =
        |args: &[String]| -> (i32, String, String) { jali(&args.iter().map(String::as_str).collect::<Vec<_>>()) };

    // Whoever can write the storage puts an unlocked bundle of another model there.
    let (code, _, err) = refs(&with(&["--passphrase-file"], &secret));
    assert!(code != 0 && err.contains("not locked"), "{code} {err}");
    let (code, _, err) = jali(&["inspect", &client, "--passphrase-file", &secret]);
    assert!(code != 0 && err.contains("not locked"), "{code} {err}");

    let report = json(&["inspect", &client, "--json"]);
    for (option, field) in [("--model-id", "model_id"), ("--content-hash", "content_hash")] {
        let right = report["client"][field].as_str().unwrap().to_string();
        let first = if right.starts_with('0') { "1" } else { "0" };
        let other = format!("{first}{}", &right[1..]);
        assert_eq!(refs(&with(&[option], &right)).0, 0);
        assert_eq!(jali(&["inspect", &client, option, &right]).0, 0);
        for (code, _, err) in [refs(&with(&[option], &other)), jali(&["inspect", &client, option, &other])] {
            assert_eq!(code, 6, "{err}");
            assert!(err.contains(&right) && err.contains(&other), "{err}");
        }
        assert_eq!(refs(&with(&[option], "abc")).0, 2);
    }
}

#[test]
fn what_a_killed_seal_left_is_removed_and_what_is_alive_is_not() {
    let folder = Folder::new();
    let stale = folder.holds(".sealing-4000000-client", "secrets");
    let alive = folder.holds(&format!(".sealing-{}-client", std::process::id()), "secrets");
    let other = folder.holds(".sealing-notes.txt", "mine");
    let (code, _, err) = jali(&["seal", "--network", "mnist", "--leak", "1", "--out", &folder.path("")]);
    assert_eq!(code, 0, "{err}");
    assert!(!Path::new(&stale).exists(), "a file of a process that is gone stays");
    assert!(Path::new(&alive).exists() && Path::new(&other).exists());
}

#[test]
fn folders_hold_other_things_too() {
    let folder = Folder::new();
    let picture = std::fs::read(asset("images/mnist/00-7.png")).unwrap();
    for name in ["in/a.png", "in/b.PNG", "in/deeper/c.png", "in/deeper/again/d.png"] {
        folder.holds(name, &picture);
    }
    folder.holds("in/labels.txt", "zero");
    folder.holds("in/.DS_Store", [0, 1, 2]);
    folder.holds("empty/readme.md", "nothing");
    let (model, from) = (asset("mnist.onnx").display().to_string(), folder.path("in"));
    let (code, out, err) = jali(&["infer", "--model", &model, "--json", &from]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    assert!(err.contains('2') && err.contains("no image"), "{err}");
    let all = json(&["infer", "--model", &model, "--json", "--recursive", &from]);
    assert_eq!(all["images"].as_array().unwrap().len(), 4);
    let (code, _, err) = jali(&["infer", "--model", &model, &folder.path("empty")]);
    assert!(code != 0 && err.contains("no image"), "{err}");
}

#[test]
fn images_that_were_not_tried_have_their_entry() {
    let sealed = mnist();
    let client = sealed.client().display().to_string();
    // A server that is there for the hints, and gone afterwards.
    let served = Served::start(&sealed.server(), &[]);
    let url = served.url.clone();
    let first = asset("images/mnist/00-7.png").display().to_string();
    json(&["infer", "--client", &client, "--server", &url, "--json", &first]);
    drop(served);
    let images: Vec<String> =
        ["00-7.png", "01-2.png"].map(|n| asset(&format!("images/mnist/{n}")).display().to_string()).into();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let args = ["infer", "--client", &client, "--server", &url, "--deadline", "1", "--json"];
    let (code, out, _) = jali(&[&args[..], &images].concat());
    assert_ne!(code, 0);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    let entries = report["images"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{out}");
    assert!(entries.iter().all(|e| e["error"].as_str().is_some_and(|e| !e.is_empty())), "{out}");
}

#[test]
fn byte_order_marks_are_no_part_of_a_text() {
    let folder = Folder::new();
    let model = folder.holds("net.onnx", std::fs::read(asset("mnist.onnx")).unwrap());
    let mut digits: Vec<String> = (0..10).map(|d| format!("digit {d}")).collect();
    digits[7] = "seven".into();
    let labels = folder.holds("labels.txt", format!("\u{feff}{}\r\n", digits.join("\r\n")));
    let image = asset("images/mnist/00-7.png").display().to_string();
    let top = |args: &[&str]| json(args)["images"][0]["top"][0]["label"].clone();
    assert_eq!(top(&["infer", "--model", &model, "--labels", &labels, "--json", &image]), "seven");
    folder.holds("preprocess.json", "\u{feff}{\"input_scale\": 0.00392156862745098}");
    assert_eq!(top(&["infer", "--model", &model, "--labels", &labels, "--json", &image]), "seven");
    // The first line of labels of images as well.
    let pictures = folder.holds("pictures/7.png", std::fs::read(&image).unwrap());
    let classes = folder.holds("classes.csv", "\u{feff}7.png,7\n");
    let dir = Path::new(&pictures).parent().unwrap().display().to_string();
    let r = json(&["evaluate", "--model", &model, "--data", &dir, "--labels", &classes, "--json"]);
    assert_eq!(r["float_accuracy"], 100.0);
}

#[test]
fn a_plan_of_another_network_says_which() {
    let folder = Folder::new();
    let plan = folder.path("plan.json");
    assert_eq!(jali(&["plan", "create", "--network", "vgg3", "--leak", "0.5", "--out", &plan]).0, 0);
    let (model, pictures) = (asset("mnist.onnx").display().to_string(), asset("images/mnist").display().to_string());
    let out = folder.path("sealed");
    for args in [
        &["demo", "--network", "mnist", "--plan", &plan][..],
        &["seal", &model, "--calibrate", &pictures, "--out", &out, "--plan", &plan],
        &["plan", "inspect", "--network", "mnist", "--plan", &plan],
        &["plan", "validate", &model, "--plan", &plan],
    ] {
        let (code, _, err) = jali(args);
        assert_ne!(code, 0, "{args:?}");
        assert!(err.contains("vgg3"), "{args:?}: {err}");
    }
}

#[test]
fn a_model_is_given_as_an_option_or_by_itself() {
    let model = asset("mnist.onnx").display().to_string();
    let picture = asset("images/mnist").display().to_string();
    let folder = Folder::new();
    let (one, two) = (folder.path("one"), folder.path("two"));
    for (bare, named) in [
        (vec!["inspect", &model], vec!["inspect", "--model", &model]),
        (
            vec!["seal", &model, "--calibrate", &picture, "--leak", "1", "--out", &one],
            vec!["seal", "--model", &model, "--calibrate", &picture, "--leak", "1", "--out", &two],
        ),
        (vec!["explain", &model, "--runs", "1"], vec!["explain", "--model", &model, "--runs", "1"]),
    ] {
        assert_eq!(jali(&bare).0, 0, "{bare:?}");
        assert_eq!(jali(&named).0, 0, "{named:?}");
    }
    fails(&["inspect", &model, "--model", &model], 2, &["cannot be used with"]);
}

#[test]
fn outputs_have_names() {
    let model = asset("mnist.onnx").display().to_string();
    let image = asset("images/mnist/00-7.png").display().to_string();
    assert_eq!(
        json(&["infer", "--model", &model, "--output", "0", "--json", &image])["images"][0]["top"][0]["class"],
        7
    );
    let (code, _, err) = jali(&["infer", "--model", &model, "--output", "boxes", &image]);
    assert!(code != 0 && err.contains("boxes"), "{err}");
}

#[test]
fn images_that_are_not_whole_are_not_classified() {
    let (folder, model) = (Folder::new(), asset("vgg3.onnx").display().to_string());
    let whole = std::fs::read(asset("images/cifar10/00-cat.png")).unwrap();
    for part in [whole.len() / 2, whole.len() - 1, whole.len() - 12] {
        let cut = folder.holds("cut.png", &whole[..part]);
        let (code, out, err) = jali(&["infer", "--model", &model, &cut]);
        assert!(code != 0 && err.contains("cut.png"), "{part} of {}: {out} {err}", whole.len());
    }
}

#[test]
fn what_is_for_the_owner_is_readable_by_the_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (plan, outputs) = (folder.path("plan.json"), folder.path("outputs"));
    assert_eq!(jali(&["plan", "create", "--network", "mnist", "--leak", "0.5", "--out", &plan]).0, 0);
    let model = asset("mnist.onnx").display().to_string();
    let image = asset("images/mnist/00-7.png").display().to_string();
    assert_eq!(jali(&["infer", "--model", &model, "--outputs", &outputs, &image]).0, 0);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(Path::new(&plan)), 0);
    assert_eq!(mode(Path::new(&outputs)), 0);
    let mut kept = std::fs::read_dir(&outputs).unwrap().flatten().peekable();
    assert!(kept.peek().is_some());
    assert!(kept.all(|entry| mode(&entry.path()) == 0));
}

#[test]
fn a_forgotten_scale_is_noticed() {
    let (folder, pictures) = (Folder::new(), asset("images/cifar10"));
    let kinds = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    let mut lines = String::new();
    for entry in std::fs::read_dir(&pictures).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let class = kinds.iter().position(|kind| name.contains(kind)).unwrap();
        lines.push_str(&format!("{name} {class}\n"));
    }
    let (labels, pictures) = (folder.holds("labels.txt", lines), pictures.display().to_string());
    let model = asset("vgg3.onnx").display().to_string();
    let args = ["evaluate", "--model", &model, "--data", &pictures, "--labels", &labels];
    let (code, _, err) = jali(&[&args[..], &["--input-scale", "1"]].concat());
    assert!(code == 0 && err.contains("with --input-scale 1/255 --mean 0 --std 1"), "{err}");
    let (code, _, err) = jali(&args);
    assert!(code == 0 && !err.contains("forgotten"), "{err}");
}
