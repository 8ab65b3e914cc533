//! Text files that people write: labels, classes, settings.

use std::path::Path;

use crate::JaliError;
use crate::image_file::read_bounded;

/// What Windows' editors write in front of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes without the mark that some editors put in front of UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// The text of a file of at most `limit` bytes, without a byte order mark.
///
/// # Errors
/// [`JaliError::Read`], also if it is no UTF-8; [`JaliError::TooLarge`].
pub fn read(path: &Path, limit: u64) -> Result<String, JaliError> {
    let bytes = read_bounded(path, limit)?;
    let fail = |why: &str| JaliError::Read { path: path.into(), why: why.into() };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(fail("it is UTF-16 text: save it as UTF-8"));
    }
    let text = std::str::from_utf8(without_mark(&bytes)).map_err(|_| fail("it must be UTF-8 text"))?;
    Ok(text.to_owned())
}
