//! Keys of tickets, and the guest's own key.
//!
//! ```text
//! server's key of a ticket = KDF(batch seed, batch id, index, nonce)
//! guest's link i + 1       = KDF(link i), so that a used key cannot come again
//! guest's key of ticket i  = KDF(link i)
//! key of its shares        = KDF(link i)                  each KDF with a name of its own
//! ```

use std::marker::PhantomData;
use std::path::Path;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use jali_guest::StreamKey;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::TicketError;
use crate::durable::{self, Readers};

/// Fresh bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, TicketError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(|e| TicketError::Random(e.to_string()))?;
    Ok(bytes)
}

/// The server's key of a ticket: only with the nonce that the owner drew when it dealt it.
pub(crate) fn server_key(seed: &[u8; 32], batch: &[u8; 16], index: u32, nonce: &[u8; 32]) -> StreamKey {
    let mut hasher = blake3::Hasher::new_derive_key("jali 1 guests: server's key of a ticket");
    hasher.update(seed).update(batch).update(&index.to_le_bytes()).update(nonce);
    StreamKey::from_bytes(*hasher.finalize().as_bytes())
}

/// A link of the chain from which a guest's keys come.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Chain([u8; 32]);

impl Chain {
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The next link; this one cannot be had from it.
    pub(crate) fn next(&self) -> Self {
        Self(blake3::derive_key("jali 1 guests: next link", &self.0))
    }

    /// The guest's key of this link's ticket.
    pub(crate) fn key(&self) -> StreamKey {
        StreamKey::from_bytes(blake3::derive_key("jali 1 guests: guest's key of a ticket", &self.0))
    }

    /// Locks or unlocks the shares of this link's ticket.
    pub(crate) fn apply(&self, shares: &mut [u8]) {
        use cipher::{KeyIvInit, StreamCipher};
        let key = Zeroizing::new(blake3::derive_key("jali 1 guests: key of a ticket's shares", &self.0));
        // The key serves this once, so its nonce may be anything.
        chacha20::ChaCha20::new((&*key).into(), &[0; 12].into()).apply_keystream(shares);
    }
}

/// To whom a secret is shown.
pub trait Shown {
    /// Name of the secret.
    const NAME: &'static str;
    /// Context of its hash.
    const HASH: &'static str;
}

/// The server of a batch.
#[derive(Debug, Clone, Copy)]
pub struct ToServer;

/// The owner's dealing service.
#[derive(Debug, Clone, Copy)]
pub struct ToOwner;

impl Shown for ToServer {
    const NAME: &'static str = "Token";
    const HASH: &'static str = "jali 1 guests: token";
}

impl Shown for ToOwner {
    const NAME: &'static str = "Credential";
    const HASH: &'static str = "jali 1 guests: credential";
}

/// A secret by which one party knows a guest: its type says which, so that none is shown to the
/// other.
pub struct Secret<S>(Zeroizing<[u8; 32]>, PhantomData<S>);

/// What a guest shows the server of a batch.
pub type Token = Secret<ToServer>;
/// What a guest shows the owner's dealing service.
pub type Credential = Secret<ToOwner>;

impl<S> Clone for Secret<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<S: Shown> std::fmt::Debug for Secret<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}(secret)", S::NAME)
    }
}

impl<S: Shown> Secret<S> {
    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes), PhantomData)
    }

    /// Its bytes, to be sent over TLS.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a manifest has of it.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key(S::HASH, &*self.0)
    }

    /// Whether it is the one of this hash; takes the same time for all.
    pub fn is_of(&self, hash: &[u8; 32]) -> bool {
        blake3::Hash::from_bytes(self.hash()) == blake3::Hash::from_bytes(*hash)
    }
}

/// A guest's key, to which owners lock tickets (an age X25519 identity).
#[derive(Clone)]
pub struct GuestIdentity(age::x25519::Identity);

impl std::fmt::Debug for GuestIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GuestIdentity({})", self.recipient())
    }
}

/// Most bytes of a key file.
const MAX_KEY: u64 = 1 << 16;

impl GuestIdentity {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// What the guest tells owners; public.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// Writes it, for its owner alone to read.
    ///
    /// # Errors
    /// [`TicketError::Write`], also if the file is there: a key is never overwritten.
    pub fn write(&self, path: &Path) -> Result<(), TicketError> {
        if path.exists() {
            return Err(TicketError::write(path, "it is there already, and a key is not overwritten"));
        }
        let text = format!("# recipient: {}\n{}\n", self.recipient(), self.0.to_string().expose_secret());
        durable::write(path, Readers::Owner, Zeroizing::new(text).as_bytes())
    }

    /// Reads what [`GuestIdentity::write`] or age-keygen wrote.
    ///
    /// # Errors
    /// [`TicketError::Read`], [`TicketError::Key`].
    pub fn read(path: &Path) -> Result<Self, TicketError> {
        let bytes = Zeroizing::new(durable::read(path, MAX_KEY)?);
        Self::from_text(path, std::str::from_utf8(&bytes).unwrap_or_default())
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`TicketError::Key`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, TicketError> {
        let identity = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed = identity.and_then(|line| age::x25519::Identity::from_str(line).ok());
        let none = || TicketError::Key {
            path: path.into(),
            why: "it holds no key: `jali guest key --out FILE` makes one".into(),
        };
        parsed.map(Self).ok_or_else(none)
    }

    /// Unlocks what was locked for this guest, at `path`.
    pub(crate) fn unlock(&self, path: &Path, locked: &[u8]) -> Result<Zeroizing<Vec<u8>>, TicketError> {
        let other = |e: age::DecryptError| TicketError::Key {
            path: path.into(),
            why: format!(
                "it is locked for another guest, or damaged ({e}): --key names the key whose recipient the owner was given"
            ),
        };
        age::decrypt(&self.0, locked).map(Zeroizing::new).map_err(other)
    }
}

/// The guest whom a text names.
pub(crate) fn recipient_of(text: &str) -> Result<age::x25519::Recipient, TicketError> {
    age::x25519::Recipient::from_str(text.trim()).map_err(|_| unknown(text))
}

fn unknown(text: &str) -> TicketError {
    TicketError::Recipient { got: text.chars().take(80).collect() }
}

/// Locks bytes for a guest.
pub(crate) fn lock(recipient: &str, bytes: &[u8]) -> Result<Vec<u8>, TicketError> {
    age::encrypt(&recipient_of(recipient)?, bytes).map_err(|_| unknown(recipient))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ticket that is dealt again, with a fresh nonce, has another key at the server.
    #[test]
    fn every_part_of_a_ticket_makes_its_key() {
        let key = |seed, batch, index, nonce| *server_key(&[seed; 32], &[batch; 16], index, &[nonce; 32]).expose();
        let one = key(1, 2, 3, 4);
        for other in [key(0, 2, 3, 4), key(1, 0, 3, 4), key(1, 2, 0, 4), key(1, 2, 3, 0)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn links_and_their_keys_differ() {
        let first = Chain::from_bytes([7; 32]);
        let mut shares = [0; 32];
        first.apply(&mut shares);
        let all = [*first.bytes(), *first.next().bytes(), *first.key().expose(), *first.next().key().expose(), shares];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
