//! Files that are there after a crash, whole: written aside, synced, renamed, and their folder
//! synced too.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::TicketError;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: results, plans, whatever says something about a model or an image.
    Owner,
    /// Whomever the process's umask allows: pictures and reports that are made to be shown, public
    /// hints.
    Umask,
}

/// First characters of the names of files that are being written.
pub(crate) const ASIDE: &str = ".writing-";

/// A file beside the one that it will replace.
///
/// # Errors
/// What the system says.
pub fn aside(path: &Path, readers: Readers) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(ASIDE);
    #[cfg(unix)]
    if readers == Readers::Umask {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = readers;
    builder.tempfile_in(folder_of(path))
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Writes a file by what `write` puts into it. When this returns, the file is there whatever
/// happens.
///
/// # Errors
/// [`TicketError::Write`]; what was there before is unchanged then. What `write` returns.
pub fn write_with<T>(
    path: &Path,
    readers: Readers,
    write: impl FnOnce(&mut dyn Write) -> Result<T, TicketError>,
) -> Result<T, TicketError> {
    let fail = |e: std::io::Error| TicketError::write(path, e);
    let file = aside(path, readers).map_err(fail)?;
    let mut sink = BufWriter::new(file.as_file());
    let value = write(&mut sink)?;
    sink.flush().map_err(fail)?;
    drop(sink);
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    sync_folder(folder_of(path)).map_err(fail)?;
    Ok(value)
}

/// Writes bytes as [`write_with`] does.
///
/// # Errors
/// [`TicketError::Write`]; what was there before is unchanged then.
pub fn write(path: &Path, readers: Readers, bytes: &[u8]) -> Result<(), TicketError> {
    write_with(path, readers, |sink| sink.write_all(bytes).map_err(|e| TicketError::write(path, e)))
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a renamed file is as durable as the system makes it.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// [`TicketError::Read`], also if it is longer.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, TicketError> {
    let file = File::open(path).map_err(|e| TicketError::read(path, e))?;
    let len = file.metadata().map_err(|e| TicketError::read(path, e))?.len();
    // With room for all, nothing moves, and no copy of a secret stays behind.
    let mut bytes = vec![];
    bytes.try_reserve_exact(len.min(most) as usize + 1).map_err(|e| TicketError::read(path, e))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| TicketError::read(path, e))?;
    match bytes.len() as u64 > most {
        true => Err(TicketError::read(path, format!("it has more than the {most} bytes that make sense"))),
        false => Ok(bytes),
    }
}
