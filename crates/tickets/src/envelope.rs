//! A guest's messages of one inference, as they go over the line: the first one has the ticket's
//! nonce in front, the server's last one its signature behind.

use crate::greeting::{NONCE, SIGNATURE};
use crate::manifest::Manifest;
use crate::transcript::Digest;

/// Adds the nonce to the first message, takes the signature off the last one, and keeps what a
/// transcript needs.
#[derive(Debug)]
pub struct Envelope {
    nonce: Option<[u8; NONCE]>,
    digest: Digest,
    /// Messages of the guest and of the server, if they are kept.
    kept: Option<[Vec<Vec<u8>>; 2]>,
    /// How many messages are still to come from the server.
    missing: usize,
    signature: Option<[u8; SIGNATURE]>,
}

/// What is left of an inference.
#[derive(Debug)]
pub struct Ended {
    /// The digest of all messages.
    pub digest: Digest,
    /// The server's signature, if it came to that.
    pub signature: Option<[u8; SIGNATURE]>,
    /// Messages of the guest and of the server, if they were kept.
    pub kept: Option<[Vec<Vec<u8>>; 2]>,
}

/// The server's last message is too short for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its last message is not signed")]
pub struct NotSigned;

impl Envelope {
    /// Begins an inference with a ticket's nonce; the server sends `messages` messages. With
    /// `keeps` all messages are kept.
    pub fn new(nonce: [u8; NONCE], messages: usize, keeps: bool) -> Self {
        let kept = keeps.then(Default::default);
        Self { nonce: Some(nonce), digest: Digest::new(), kept, missing: messages, signature: None }
    }

    /// Returns a message of the guest as it is sent.
    #[must_use]
    pub fn outgoing(&mut self, message: Vec<u8>) -> Vec<u8> {
        self.digest.up(&message);
        if let Some([up, _]) = &mut self.kept {
            up.push(message.clone());
        }
        match self.nonce.take() {
            Some(nonce) => [nonce.as_slice(), &message].concat(),
            None => message,
        }
    }

    /// Returns a message of the server without what was added to it.
    ///
    /// # Errors
    /// [`NotSigned`] for a last message without a signature.
    pub fn incoming(&mut self, mut message: Vec<u8>) -> Result<Vec<u8>, NotSigned> {
        self.missing = self.missing.saturating_sub(1);
        if self.missing == 0 {
            let cut = message.len().checked_sub(SIGNATURE);
            let signature = cut.and_then(|at| message.split_off(at).try_into().ok());
            self.signature = Some(signature.ok_or(NotSigned)?);
        }
        self.digest.down(&message);
        if let Some([_, down]) = &mut self.kept {
            down.push(message.clone());
        }
        Ok(message)
    }

    /// Returns what is left.
    pub fn end(self) -> Ended {
        Ended { digest: self.digest, signature: self.signature, kept: self.kept }
    }
}

impl Ended {
    /// Returns the signature, if it is there and the batch's server made it over what came and
    /// went.
    pub fn signed(&self, manifest: &Manifest, index: u32, nonce: &[u8; NONCE]) -> Option<[u8; SIGNATURE]> {
        let signature = self.signature?;
        self.digest.is_signed(&manifest.server, &manifest.batch, index, nonce, &signature).then_some(signature)
    }
}
