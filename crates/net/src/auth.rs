//! Bearer tokens.

use std::path::Path;

use crate::NetError;

/// Most bytes of a token file.
const MAX_FILE: u64 = 1 << 16;
/// Fewest characters of a token: 128 bits in hexadecimal digits have 32, in base64 22.
const SHORTEST: usize = 16;

/// The tokens that open a server, as hashes. Several may be valid at a time, so that they can be
/// changed one by one.
#[derive(Clone)]
pub struct Tokens(Vec<blake3::Hash>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens<{}, withheld>", self.0.len())
    }
}

fn hash(token: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_derive_key("jali 1 bearer token").update(token).finalize()
}

/// Reads the lines of a token file, each a token.
fn lines(path: &Path) -> Result<Vec<String>, NetError> {
    use std::io::Read;
    let fail = |why: String| NetError::File { path: path.into(), why };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| fail(e.to_string()))?;
    // Never only a part of the file: the first characters of a token that was cut would be a token.
    if text.len() as u64 > MAX_FILE {
        return Err(fail(format!("has more than {MAX_FILE} bytes: it should hold a token per line and nothing else")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<String> = text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
    if lines.is_empty() {
        return Err(fail("it holds no token; write one per line, for example from `openssl rand -hex 32`".into()));
    }
    if let Some(short) = lines.iter().find(|l| l.len() < SHORTEST) {
        let why = format!("a token has {} characters, at least {SHORTEST} are needed", short.len());
        return Err(fail(why));
    }
    if lines.iter().any(|l| !l.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(fail("a token holds a space or a character outside ASCII".into()));
    }
    Ok(lines)
}

impl Tokens {
    /// Reads tokens from a file, one per line.
    ///
    /// # Errors
    /// [`NetError::File`] if the file cannot be read or holds anything but tokens.
    pub fn read(path: &Path) -> Result<Self, NetError> {
        Ok(Self(lines(path)?.iter().map(|l| hash(l.as_bytes())).collect()))
    }

    /// Returns whether an `Authorization` header opens the server. All hashes are compared, each in
    /// constant time.
    pub fn accept(&self, header: Option<&[u8]>) -> bool {
        let Some((scheme, token)) = header.and_then(|h| h.split_at_checked(7)) else { return false };
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return false;
        }
        let given = hash(token);
        self.0.iter().fold(false, |found, token| (*token == given) | found)
    }
}

/// Reads the first token of a file, for a client to send.
///
/// # Errors
/// [`NetError::File`] if the file cannot be read or holds anything but tokens.
pub fn read_token(path: &Path) -> Result<String, NetError> {
    Ok(lines(path)?.swap_remove(0))
}
