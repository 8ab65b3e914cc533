//! Who works on what: processes that share a folder must not attack, or write, in each other's way.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use jali::JaliError;

use crate::AuditError;

/// A file that no other process works on; the system lets it go when this one ends.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
    path: PathBuf,
}

impl Held {
    /// Takes a file, if need be when another process has done with it.
    ///
    /// # Errors
    /// [`AuditError`] if the file beside it cannot be made.
    pub(super) fn wait(path: &Path) -> Result<Self, AuditError> {
        let (file, path) = open(path)?;
        // Where a file system has no locks, there is nobody to wait for.
        let _ = file.lock();
        Ok(Self { _file: file, path })
    }

    /// Takes a file, if no other process has it.
    ///
    /// # Errors
    /// [`AuditError`] if the file beside it cannot be made.
    pub(super) fn try_now(path: &Path) -> Result<Option<Self>, AuditError> {
        let (file, path) = open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(Self { _file: file, path })),
        }
    }

    /// Removes the file: the cell has its result. Who waited for the file that is gone looks for
    /// the result first.
    pub(super) fn release(self) {
        let _ = std::fs::remove_file(self.path);
    }
}

fn open(path: &Path) -> Result<(File, PathBuf), AuditError> {
    let path = path.with_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| JaliError::Write { path: path.clone(), why: e.to_string() })?;
    Ok((file, path))
}
