//! Reads ONNX files, plans, and files that say how images become inputs.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use jali_leak::PlanFile;
use jali_model::onnx::{self, External, Imported};
use jali_model::{Graph, Preprocess};

use crate::JaliError;
use crate::files::{read_bounded, read_text, without_mark};

/// Largest model file that is read, in bytes.
const MAX_MODEL: u64 = 1 << 31;
/// Largest file that says how images become inputs, in bytes.
const MAX_PREPROCESS: u64 = 1 << 16;

/// Reads an ONNX file.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::ModelFile`].
pub fn read_model(path: &Path) -> Result<Graph, JaliError> {
    Ok(read_model_file(path)?.graph)
}

/// Reads an ONNX file, and returns the network with what there is to say about the file. Data that
/// it keeps in other files is read from its folder.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::ModelFile`].
pub fn read_model_file(path: &Path) -> Result<Imported, JaliError> {
    let bytes = read_bounded(path, MAX_MODEL)?;
    let mut external = |data: &External| read_external(path, data);
    onnx::import_owned(bytes, &mut external).map_err(|fault| JaliError::ModelFile { path: path.into(), fault })
}

/// Reads the bytes of a constant from another file. The model names the file, so only one in the
/// model's own folder or below is opened. Links count where they lead, and so does the model itself
/// (downloads of some tools are folders of links).
///
/// # Errors
/// Words that say why there are none.
fn read_external(model: &Path, data: &External) -> Result<Vec<u8>, String> {
    let outside = || "the file must lie in the model's folder".to_string();
    let name = Path::new(&data.location);
    if !name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) || data.location.is_empty() {
        return Err(outside());
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| e.to_string());
    let here = model.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let path = real(&here.join(name))?;
    let (folder, of_model) = (real(here)?, real(model)?);
    if !(path.starts_with(&folder) || of_model.parent().is_some_and(|own| path.starts_with(own))) {
        return Err(outside());
    }
    if !path.is_file() {
        return Err("it is no file".into());
    }
    let mut file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let held = file.metadata().map_err(|e| e.to_string())?.len();
    let end = data.offset.checked_add(data.length as u64);
    if end.is_none_or(|end| end > held) {
        let (length, offset) = (data.length, data.offset);
        return Err(format!("it has {held} bytes, the model needs {length} from byte {offset} on"));
    }
    let mut bytes = vec![0; data.length];
    file.seek(SeekFrom::Start(data.offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Reads how images become inputs of a model, from `NAME.preprocess.json` beside `NAME.onnx` or
/// from `preprocess.json` there. Returns the file's path as well, or `None` if there is no such
/// file.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`], or [`JaliError::Preprocess`] for a file that is
/// there and cannot be used.
pub fn read_preprocess(model: &Path) -> Result<Option<(PathBuf, Preprocess)>, JaliError> {
    for path in [model.with_extension("preprocess.json"), model.with_file_name("preprocess.json")] {
        if path.is_file() {
            let bytes = read_bounded(&path, MAX_PREPROCESS)?;
            let fail = |e: serde_json::Error| JaliError::Preprocess { path: path.clone(), why: e.to_string() };
            let preprocess = parse_preprocess(&bytes).map_err(fail)?;
            return Ok(Some((path, preprocess)));
        }
    }
    Ok(None)
}

/// Parses the text of such a file. Fields are taken by name only: serde would take a list by
/// position, too.
///
/// # Errors
/// [`serde_json::Error`] for anything else than these fields.
pub fn parse_preprocess(bytes: &[u8]) -> Result<Preprocess, serde_json::Error> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(without_mark(bytes))?;
    serde_json::from_value(fields.into())
}

/// Largest plan file, in bytes.
const MAX_PLAN: u64 = 1 << 30;

/// Reads a plan for a network from a file.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`], [`JaliError::PlanFile`].
pub fn read_plan(path: &Path, graph: &Graph) -> Result<PlanFile, JaliError> {
    let fail = |fault| JaliError::PlanFile { path: path.into(), fault };
    PlanFile::from_json(&read_text(path, MAX_PLAN)?, graph).map_err(fail)
}
