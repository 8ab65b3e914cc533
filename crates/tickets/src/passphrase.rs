//! Files that a passphrase locks: age's format (scrypt, ChaCha20-Poly1305).

use std::io::{Read, Write};

use age::secrecy::SecretString;
use zeroize::Zeroizing;

/// First bytes of a file that age has locked.
const LOCKED: &[u8] = b"age-encryption.org/v1";

/// Why a passphrase and a file do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseFault {
    /// The file is locked, and there is no passphrase.
    #[error("it is locked: give --passphrase-file")]
    Missing,
    /// The file is not locked, and there is a passphrase.
    #[error(
        "it is not locked, and a passphrase was given: somebody may have put another file there. Leave \
         --passphrase-file out only if you know that it is yours"
    )]
    NotLocked,
    /// The passphrase is another one, or the file is damaged.
    #[error("it cannot be unlocked: {0}")]
    Wrong(String),
}

/// Returns whether bytes are the beginning of a locked file.
pub fn is_locked(head: &[u8]) -> bool {
    head.starts_with(LOCKED)
}

/// Returns the content of a file: its bytes, or what is locked in them.
///
/// # Errors
/// [`PassphraseFault`]. With a passphrase, a file that is not locked is refused: whoever can write
/// the folder could have put a file of his own there.
pub fn unlock(
    bytes: Zeroizing<Vec<u8>>,
    passphrase: Option<&SecretString>,
) -> Result<Zeroizing<Vec<u8>>, PassphraseFault> {
    match (is_locked(&bytes), passphrase) {
        (false, None) => Ok(bytes),
        (false, Some(_)) => Err(PassphraseFault::NotLocked),
        (true, None) => Err(PassphraseFault::Missing),
        (true, Some(passphrase)) => {
            let identity = age::scrypt::Identity::new(passphrase.clone());
            let wrong = |e: &dyn std::fmt::Display| PassphraseFault::Wrong(e.to_string());
            let decryptor = age::Decryptor::new_buffered(&bytes[..]).map_err(|e| wrong(&e))?;
            let identities = std::iter::once(&identity as &dyn age::Identity);
            let mut reader = decryptor.decrypt(identities).map_err(|e| wrong(&e))?;
            // The content is shorter than the file: nothing moves, and nothing stays behind, while
            // it is read.
            let mut content = Zeroizing::new(Vec::with_capacity(bytes.len()));
            reader.read_to_end(&mut content).map_err(|e| wrong(&e))?;
            Ok(content)
        }
    }
}

/// Lets `write` write into `sink`, through a lock if there is a passphrase; `fail` makes an error
/// of what goes wrong with the lock.
///
/// # Errors
/// What `write` returns, and what `fail` makes.
pub fn lock<T, E>(
    mut sink: impl Write,
    passphrase: Option<&SecretString>,
    fail: impl Fn(std::io::Error) -> E,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let Some(passphrase) = passphrase else { return write(&mut sink) };
    let encryptor = age::Encryptor::with_user_passphrase(passphrase.clone());
    let mut locked = encryptor.wrap_output(sink).map_err(&fail)?;
    let value = write(&mut locked)?;
    locked.finish().and_then(|mut sink| sink.flush()).map_err(fail)?;
    Ok(value)
}
