//! Reads files up to a limit and text that people wrote, and writes files whole or not at all.

use std::io::{Read, Write};
use std::path::Path;

pub use jali_tickets::durable::Readers;
use jali_tickets::durable::aside;

use crate::JaliError;

/// The byte order mark that Windows' editors write in front of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns bytes without the mark that some editors put in front of UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Reads the text of a file of at most `limit` bytes, without a byte order mark.
///
/// # Errors
/// [`JaliError::Read`], also if it is no UTF-8; [`JaliError::TooLarge`].
pub fn read_text(path: &Path, limit: u64) -> Result<String, JaliError> {
    let bytes = read_bounded(path, limit)?;
    let fail = |why: &str| JaliError::Read { path: path.into(), why: why.into() };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(fail("it is UTF-16 text: save it as UTF-8"));
    }
    let text = std::str::from_utf8(without_mark(&bytes)).map_err(|_| fail("it must be UTF-8 text"))?;
    Ok(text.to_owned())
}

/// Reads a whole file unless it is larger than `limit` bytes.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`].
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, JaliError> {
    let fail = |e: std::io::Error| JaliError::Read { path: path.into(), why: e.to_string() };
    let file = std::fs::File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.is_dir() {
        return Err(JaliError::Read { path: path.into(), why: "it is a directory".into() });
    }
    let mut bytes = Vec::new();
    // The size may change while reading, and special files have none: the bound holds for the bytes
    // that are really read.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(JaliError::TooLarge { path: path.into(), got: meta.len().max(limit + 1), limit });
    }
    Ok(bytes)
}

/// Writes a file aside and renames it, so that a reader never sees half of it.
///
/// # Errors
/// [`JaliError::Write`]; what was there before is unchanged then.
pub fn write_aside(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), JaliError> {
    let fail = |e: std::io::Error| JaliError::Write { path: path.into(), why: e.to_string() };
    let mut file = aside(path, readers).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}
