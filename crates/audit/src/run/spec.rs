//! What a run is: `run.json` in its folder.

use std::path::Path;

use jali::files::{Readers, read_bounded, write_aside};
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::command::Command;
use crate::command::asking::Told;
use crate::grid::Grid;
use crate::train::Schedule;

/// Changes when results of before are no longer comparable.
pub const METHOD: u32 = 1;
pub(super) const SPEC: &str = "run.json";
/// Most bytes of any of our files.
pub(super) const MAX_FILE: u64 = 1 << 28;

/// What a run is about: two runs whose specifications agree (the grid aside) can be joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// [`METHOD`].
    pub method: u32,
    /// The model as it was named.
    pub model: String,
    /// Its hash.
    pub model_hash: String,
    /// Folder of the full data set, if not the bundled images.
    pub data: Option<String>,
    /// Hash of images and labels; none in runs that began before it was kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_hash: Option<String>,
    /// `cifar10` or `mnist`: the form of the data.
    pub dataset: String,
    /// Images that score.
    pub scoring: usize,
    /// How this program's attackers train; none where a command attacks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<Schedule>,
    /// A plan from a file, as named.
    pub plan: Option<String>,
    /// BLAKE3 of that file.
    pub plan_hash: Option<String>,
    /// A public model, as named.
    pub public_model: Option<String>,
    /// Its hash.
    pub public_hash: Option<String>,
    /// The command that attacks, if somebody else's does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<Command>,
    /// What guests are told for a ticket, if they are who attacks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guests: Option<Told>,
    /// What varies.
    pub grid: Grid,
}

impl Spec {
    /// Refuses runs of other versions, and schedules that cannot be followed.
    ///
    /// # Errors
    /// [`AuditError::File`] about the file that it was read from.
    pub(crate) fn check(&self, path: &Path) -> Result<(), AuditError> {
        let fail = |why: String| Err(AuditError::File { path: path.into(), why });
        if self.method != METHOD {
            return fail(format!("made by method {}, this program has method {METHOD}: begin a new run", self.method));
        }
        self.schedule.as_ref().and_then(Schedule::unusable).map_or(Ok(()), fail)
    }

    /// Keeps the hash of the images that are there, or refuses them if the run began with others.
    pub(super) fn keep_images(&mut self, hash: String, folder: &Path) -> Result<(), AuditError> {
        if self.data_hash.as_ref().is_some_and(|before| *before != hash) {
            let what = self.data.clone().unwrap_or_else(|| source_name(&None));
            let run = folder.display();
            let why =
                format!("these are not the images that the run in {run} began with: give those, or another --out");
            return Err(AuditError::Data { what, why });
        }
        self.data_hash = Some(hash);
        Ok(())
    }

    /// Returns this run with the grid of the one that a folder holds as well, if there is one.
    ///
    /// # Errors
    /// [`AuditError::OtherRun`] if that is about something else.
    pub(super) fn joined_to(self, folder: &Path) -> Result<Self, AuditError> {
        if !folder.join(SPEC).exists() {
            return Ok(self);
        }
        let old = read_spec(folder)?;
        if let Some((what, expected, got)) = old.difference(&self) {
            return Err(AuditError::OtherRun { path: folder.into(), what, expected, got });
        }
        Ok(Self { grid: old.grid.union(&self.grid), data_hash: old.data_hash.or(self.data_hash), ..self })
    }

    /// What differs from a run in a folder, if it cannot be continued with this one.
    pub(super) fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let text = |o: &Option<String>| o.clone().unwrap_or_else(|| "none".into());
        let view =
            |told: Option<Told>| told.map_or("of a client".into(), |told| format!("of a guest that is told {told}"));
        let command = |c: &Option<Command>| c.as_ref().map_or("none but its own".into(), |c| format!("{:?}", c.line));
        let schedule = |s: &Option<Schedule>| s.as_ref().map_or_else(|| "none".into(), |s| format!("{s:?}"));
        let pairs = [
            ("the view", view(self.guests), view(other.guests)),
            ("the attacker", command(&self.command), command(&other.command)),
            ("the method", self.method.to_string(), other.method.to_string()),
            ("the model", self.model_hash.clone(), other.model_hash.clone()),
            ("the data", source_name(&self.data), source_name(&other.data)),
            ("scoring images", self.scoring.to_string(), other.scoring.to_string()),
            ("the schedule", schedule(&self.schedule), schedule(&other.schedule)),
            ("the plan", text(&self.plan_hash), text(&other.plan_hash)),
            ("the public model", text(&self.public_hash), text(&other.public_hash)),
        ];
        let images = self.data_hash.clone().zip(other.data_hash.clone()).map(|(a, b)| ("the images", a, b));
        pairs.into_iter().chain(images).find(|(_, a, b)| a != b)
    }
}

/// Folders differ between machines; whether the data are bundled does not.
pub(super) fn source_name(data: &Option<String>) -> String {
    if data.is_some() { "a folder".into() } else { "the bundled images".into() }
}

/// The specification of the run in a folder.
///
/// # Errors
/// [`AuditError::File`].
pub fn read_spec(folder: &Path) -> Result<Spec, AuditError> {
    let path = folder.join(SPEC);
    if !path.is_file() {
        let kept = folder.join("results.json");
        let why = match (folder.exists(), kept.is_file()) {
            (false, _) => {
                format!("there is no run here, as {} does not exist: `jali-audit run` begins one", folder.display())
            }
            (true, true) => format!("the folder of the run is not here, only what it came to: give {}", kept.display()),
            (true, false) => "there is no run here: `jali-audit run` begins one".into(),
        };
        return Err(AuditError::File { path, why });
    }
    let spec: Spec = read_json(&path)?;
    spec.check(&path)?;
    Ok(spec)
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, AuditError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    serde_json::from_slice(&bytes).map_err(|e| AuditError::File {
        path: path.into(),
        why: format!("not what jali-audit writes there ({e}); remove it to have it made again"),
    })
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), AuditError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|e| AuditError::File { path: path.into(), why: e.to_string() })?;
    Ok(write_aside(path, &text, Readers::Owner)?)
}
