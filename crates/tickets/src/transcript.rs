//! An inference as it went over the line, signed by the server. The signature covers batch, index,
//! nonce, and every message of either direction.

use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use jali_bundle::{BundleWriter, Kind};

use crate::TicketError;
use crate::durable::{self, Readers};
use crate::manifest::{MAX_MANIFEST, SignedManifest};
use crate::sealed::{ServerFile, open};

/// Most bytes of one direction of a transcript.
const MAX_DIRECTION: u64 = 1 << 30;

/// Hashes an inference while it goes on: what the server signs.
#[derive(Debug, Clone)]
pub struct Digest {
    up: blake3::Hasher,
    down: blake3::Hasher,
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

fn update(hasher: &mut blake3::Hasher, message: &[u8]) {
    hasher.update(&(message.len() as u64).to_le_bytes()).update(message);
}

impl Digest {
    /// Of no message.
    pub fn new() -> Self {
        let of = |name| blake3::Hasher::new_derive_key(name);
        Self { up: of("jali 1 guests: messages of the guest"), down: of("jali 1 guests: messages of the server") }
    }

    /// A message of the guest.
    pub fn up(&mut self, message: &[u8]) {
        update(&mut self.up, message);
    }

    /// A message of the server.
    pub fn down(&mut self, message: &[u8]) {
        update(&mut self.down, message);
    }

    fn signed(&self, batch: &[u8; 16], index: u32, nonce: &[u8; 32]) -> Vec<u8> {
        [
            b"jali 1 guests: transcript\0".as_slice(),
            batch,
            &index.to_le_bytes(),
            nonce,
            self.up.finalize().as_bytes(),
            self.down.finalize().as_bytes(),
        ]
        .concat()
    }

    /// The server's signature.
    pub fn sign(&self, server: &ServerFile, batch: &[u8; 16], index: u32, nonce: &[u8; 32]) -> [u8; 64] {
        self.sign_with(&server.signing, batch, index, nonce)
    }

    pub(crate) fn sign_with(&self, key: &SigningKey, batch: &[u8; 16], index: u32, nonce: &[u8; 32]) -> [u8; 64] {
        key.sign(&self.signed(batch, index, nonce)).to_bytes()
    }

    /// Whether a signature is that of the server with this public key.
    pub fn is_signed(
        &self,
        server: &[u8; 32],
        batch: &[u8; 16],
        index: u32,
        nonce: &[u8; 32],
        signature: &[u8; 64],
    ) -> bool {
        let signed = self.signed(batch, index, nonce);
        let verify = |key: VerifyingKey| key.verify(&signed, &Signature::from_bytes(signature));
        VerifyingKey::from_bytes(server).and_then(verify).is_ok()
    }
}

/// An inference as it went over the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The batch.
    pub manifest: SignedManifest,
    /// Which ticket.
    pub index: u32,
    /// Its nonce.
    pub nonce: [u8; 32],
    /// Messages of the guest.
    pub up: Vec<Vec<u8>>,
    /// Messages of the server.
    pub down: Vec<Vec<u8>>,
    /// The server's signature.
    pub signature: [u8; 64],
}

fn joined(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|m| (m.len() as u64).to_le_bytes().into_iter().chain(m.iter().copied())).collect()
}

fn split(path: &Path, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, TicketError> {
    let mut messages = vec![];
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (message, rest) = rest.split_at_checked(length).ok_or_else(|| TicketError::part(path, "a message"))?;
        messages.push(message.to_vec());
        bytes = rest;
    }
    match bytes.is_empty() {
        true => Ok(messages),
        false => Err(TicketError::part(path, "a message")),
    }
}

impl Transcript {
    /// Writes it.
    ///
    /// # Errors
    /// [`TicketError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), TicketError> {
        let (bytes, signature) = self.manifest.parts();
        durable::write_with(path, Readers::Owner, |sink| {
            let fail = |e| TicketError::write(path, e);
            let mut out = BundleWriter::new(sink, Kind::Transcript, self.manifest.get().model).map_err(fail)?;
            let ticket = [self.index.to_le_bytes().as_slice(), &self.nonce, &self.signature].concat();
            let (up, down) = (joined(&self.up), joined(&self.down));
            let sections =
                [("manifest", bytes), ("signature", signature), ("ticket", &ticket), ("up", &up), ("down", &down)];
            for (name, bytes) in sections {
                out.section(name, bytes).map_err(fail)?;
            }
            out.finish().map_err(fail).map(|_| ())
        })
    }

    /// Reads a transcript; its manifest must be signed by `owner`.
    ///
    /// # Errors
    /// [`TicketError`] with the section that is damaged or foreign.
    pub fn read(path: &Path, owner: &[u8; 32]) -> Result<Self, TicketError> {
        let mut bundle = open(path, Kind::Transcript)?;
        let fail = |e| TicketError::bundle(path, e);
        let bytes = bundle.expect("manifest", MAX_MANIFEST).map_err(fail)?;
        let signature = bundle.expect("signature", 64).map_err(fail)?;
        let manifest = SignedManifest::from_parts(path, bytes, &signature, Some(owner))?;
        let ticket = bundle.expect("ticket", 100).map_err(fail)?;
        let damaged = || TicketError::part(path, "the ticket");
        let (index, rest) = ticket.split_first_chunk().ok_or_else(damaged)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let signature = rest.try_into().map_err(|_| damaged())?;
        let up = split(path, &bundle.expect("up", MAX_DIRECTION).map_err(fail)?)?;
        let down = split(path, &bundle.expect("down", MAX_DIRECTION).map_err(fail)?)?;
        Ok(Self { manifest, index: u32::from_le_bytes(*index), nonce: *nonce, up, down, signature })
    }

    /// The digest of its messages.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::new();
        self.up.iter().for_each(|m| digest.up(m));
        self.down.iter().for_each(|m| digest.down(m));
        digest
    }
}
