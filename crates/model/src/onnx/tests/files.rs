//! Model files beside the repository, each with an `.npz` of inputs and of the outputs that
//! onnxruntime gave.

use std::path::{Path, PathBuf};

use super::super::import_with;
use crate::{ModelError, Tensor, float};

/// Shape and values of one array of an `.npz` file as NumPy writes it, not compressed.
type Array = (Vec<usize>, Vec<f32>);

fn arrays(bytes: &[u8]) -> Vec<(String, Array)> {
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (mut at, mut out) = (0, vec![]);
    while bytes[at..].starts_with(b"PK\x03\x04") {
        let (names, extra) = (u16_at(at + 26), u16_at(at + 28));
        let name = String::from_utf8_lossy(&bytes[at + 30..][..names]).trim_end_matches(".npy").to_owned();
        let length = match u32_at(at + 18) {
            // A larger field follows the name: its id, its length, both sizes.
            0xffff_ffff => u64_at(at + 30 + names + 12),
            length => length,
        };
        let start = at + 30 + names + extra;
        out.push((name, array(&bytes[start..][..length])));
        at = start + length;
    }
    out
}

fn array(npy: &[u8]) -> Array {
    let length = u16::from_le_bytes([npy[8], npy[9]]) as usize;
    let header = std::str::from_utf8(&npy[10..10 + length]).unwrap();
    let dims = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let shape = dims.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    let data = &npy[10 + length..];
    let values = match header {
        h if h.contains("'<f4'") => data.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect(),
        h if h.contains("'<f8'") => data.as_chunks().0.iter().map(|v| f64::from_le_bytes(*v) as f32).collect(),
        h if h.contains("'<i8'") => data.as_chunks().0.iter().map(|v| i64::from_le_bytes(*v) as f32).collect(),
        other => panic!("{other}"),
    };
    (shape, values)
}

/// What became of one file: nothing if all outputs are right, else why not.
fn compare(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).unwrap();
    let mut none = |_: &super::super::External| Err("no data beside it".to_string());
    let graph = import_with(&bytes, &mut none).map_err(|e| format!("refused: {e}"))?.graph;
    let arrays = arrays(&std::fs::read(path.with_extension("npz")).unwrap());
    let (x_shape, x) = &arrays.iter().find(|(name, _)| name == "x").unwrap().1;
    let wanted: Vec<&Array> = arrays.iter().filter(|(name, _)| name.starts_with('y')).map(|(_, a)| a).collect();
    let images = x_shape[0];
    let size = x.len() / images;
    for (image, x) in x.chunks_exact(size).enumerate() {
        let x = Tensor::new("x", graph.input_shape().to_vec(), x.to_vec()).unwrap();
        let got = float::run_all(&graph, x).map_err(|e: ModelError| format!("failed: {e}"))?;
        for (output, (got, (_, want))) in got.iter().zip(&wanted).enumerate() {
            let each = want.len() / images;
            let want = &want[image * each..][..each];
            if got.data.len() != each {
                return Err(format!("output {output} has {} values, not {each}", got.data.len()));
            }
            let scale = want.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-6);
            let worst = got
                .data
                .iter()
                .zip(want)
                .map(|(g, w)| (g - w).abs())
                .fold(0f32, |a, b| if b.is_nan() { b } else { a.max(b) });
            if worst.is_nan() || worst > 2e-3 * scale {
                return Err(format!("output {output} is off by {worst:e}, its largest value is {scale:e}"));
            }
        }
    }
    Ok(())
}

fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|p| p.extension().is_some_and(|e| e == "onnx") && p.with_extension("npz").exists()).collect();
    paths.sort();
    paths
}

/// Small networks that were once refused.
#[test]
fn networks_that_were_refused_are_right_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/refused");
    if !folder.exists() {
        println!("SKIPPED: no refused models beside the repository");
        return;
    }
    for path in models(&folder) {
        compare(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}

/// A folder of models, for maintainers: `JALI_ZOO=DIR cargo test --release -p jali-model zoo --
/// --ignored --nocapture` (each `NAME.onnx` with a `NAME.npz` beside it: `x`, and what onnxruntime
/// gives, `y`, `y1`, ..).
#[test]
#[ignore = "needs a folder of models in JALI_ZOO"]
fn zoo() {
    let Ok(folder) = std::env::var("JALI_ZOO") else { panic!("JALI_ZOO names no folder") };
    let paths = models(Path::new(&folder));
    let mut wrong = 0;
    for path in &paths {
        if let Err(why) = compare(path) {
            println!("{}: {why}", path.file_name().unwrap().display());
            wrong += usize::from(!why.starts_with("refused"));
        }
    }
    println!("{} models", paths.len());
    assert_eq!(wrong, 0, "models are wrong");
}
