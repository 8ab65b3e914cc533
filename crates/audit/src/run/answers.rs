//! The victim's answers, kept beside a run: every cell needs them, and they take a minute for some
//! thousand images.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jali::JaliError;
use jali_model::Tensor;
use serde::{Deserialize, Serialize};

use super::spec::{read_json, write_json};
use crate::AuditError;
use crate::victim::Victim;

/// Answers of one victim, in files of one folder.
#[derive(Debug)]
pub(super) struct Answers {
    folder: PathBuf,
    model_hash: String,
    /// One at a time: who comes second finds the first one's answers.
    one: Mutex<()>,
}

/// What a file holds.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Of the network and of the images.
    key: String,
    /// For every image the bits of its logits, so that they come back as they were.
    logits: Vec<Vec<u32>>,
}

impl Answers {
    pub(super) fn new(folder: &Path, model_hash: &str) -> Self {
        Self { folder: folder.join("answers"), model_hash: model_hash.into(), one: Mutex::new(()) }
    }

    /// Returns the victim's logits for images. `name` is the file's; what it holds of other images
    /// or of another network is computed anew.
    ///
    /// # Errors
    /// [`AuditError`] for images that do not fit, and if the file cannot be written.
    pub(super) fn of(&self, name: &str, victim: &Victim, images: &[Tensor]) -> Result<Vec<Vec<f32>>, AuditError> {
        let path = self.folder.join(format!("{name}.json"));
        let key = self.key(images);
        let _one = self.one.lock();
        if let Ok(kept) = read_json::<Kept>(&path)
            && kept.key == key
            && kept.logits.len() == images.len()
        {
            return Ok(kept.logits.into_iter().map(|l| l.into_iter().map(f32::from_bits).collect()).collect());
        }
        let logits = victim.answer(images)?;
        let fail = |e: std::io::Error| JaliError::Write { path: self.folder.clone(), why: e.to_string() };
        std::fs::create_dir_all(&self.folder).map_err(fail)?;
        let bits = logits.iter().map(|l| l.iter().map(|v| v.to_bits()).collect()).collect();
        write_json(&path, &Kept { key, logits: bits })?;
        Ok(logits)
    }

    fn key(&self, images: &[Tensor]) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.model_hash.as_bytes());
        images.iter().flat_map(|i| &i.data).for_each(|v| {
            hasher.update(&v.to_le_bytes());
        });
        hasher.finalize().to_hex().to_string()
    }
}
