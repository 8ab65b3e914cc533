//! What an owner says of an inference afterwards.
//!
//! The owner, who has the batch's seed and the weights, computes each message of the server again.
//! It checks the server's signature first and answers one bit: with more, or for a transcript that
//! nobody signed, it would compute for whoever asks.

use std::path::Path;
use std::time::{Duration, Instant};

use jali_guest::{
    Backend, Circuit, Masks, OwnerModel, SealedForGuests, ServerModel, ServerSession, StreamKey, Trace, Turn,
    deal_traced,
};
use jali_model::fixed::FixedNetwork;
use zeroize::Zeroizing;

use crate::keys::server_key;
use crate::manifest::{Manifest, same};
use crate::sealed::{OwnerFile, SERVER, of_path};
use crate::transcript::Transcript;
use crate::{TicketError, batch};

/// What an owner says of a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every message of the server is the one that it had to send.
    Honest,
    /// The server sent something else, and signed it.
    Lied,
}

/// What an honest server would have done.
#[derive(Debug)]
pub struct Replay {
    /// Its messages.
    pub down: Vec<Vec<u8>>,
    /// Its summands, to compare the inference with the reference.
    pub trace: Trace,
    /// By step of the circuit: time that it computed here.
    pub computing: Vec<Duration>,
}

/// An owner with the seed of a batch.
pub struct Auditor {
    owner: OwnerFile,
    manifest: Manifest,
    seed: Zeroizing<[u8; 32]>,
    server: ServerModel,
    dealing: OwnerModel,
    backend: Backend,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").field("name", &self.owner.name).finish_non_exhaustive()
    }
}

impl Auditor {
    /// Gets ready; `batch` is the server's part of the batch, of which the owner keeps a copy.
    ///
    /// # Errors
    /// [`TicketError`] for a batch that is damaged or another owner's.
    pub fn new(owner: OwnerFile, batch: &Path, backend: Backend) -> Result<Self, TicketError> {
        let batch = &of_path(batch, SERVER);
        let (manifest, seed) = batch::read(batch, &owner.public_key())?;
        same(batch, "model id", &owner.id, &manifest.get().model)?;
        let SealedForGuests { server, owner: dealing, .. } = owner.original.seal()?;
        Ok(Self { owner, manifest: manifest.get().clone(), seed, server, dealing, backend })
    }

    /// The network that is served.
    pub fn network(&self) -> &FixedNetwork {
        self.owner.original.network()
    }

    /// What both parties compute.
    pub fn circuit(&self) -> &Circuit {
        self.dealing.circuit()
    }

    /// The server's key of a ticket.
    fn key(&self, index: u32, nonce: &[u8; 32]) -> StreamKey {
        server_key(&self.seed, &self.manifest.batch, index, nonce)
    }

    /// Judges a transcript, from the file at `path`.
    ///
    /// # Errors
    /// [`TicketError::Signature`] unless the server has signed it: then nothing is computed.
    /// [`TicketError::Other`] for another batch.
    pub fn judge(&self, path: &Path, transcript: &Transcript) -> Result<Verdict, TicketError> {
        let m = transcript.manifest.get();
        same(path, "batch id", &self.manifest.batch, &m.batch)?;
        let Transcript { index, nonce, signature, .. } = transcript;
        if !transcript.digest().is_signed(&self.owner.server, &m.batch, *index, nonce, signature) {
            return Err(TicketError::Signature { path: path.into(), whose: "the model's server" });
        }
        let is_honest = self.replay(*index, nonce, &transcript.up).is_some_and(|honest| honest.down == transcript.down);
        Ok(if is_honest { Verdict::Honest } else { Verdict::Lied })
    }

    /// What an honest server would have done with these messages of a guest; `None` if it would not
    /// have come to the end.
    pub fn replay(&self, index: u32, nonce: &[u8; 32], up: &[Vec<u8>]) -> Option<Replay> {
        let mut session = Some(ServerSession::new(&self.server, self.backend, self.key(index, nonce)).traced());
        let (mut down, mut trace) = (vec![], None);
        let mut computing = vec![Duration::ZERO; self.dealing.circuit().step_count() + 1];
        for message in up {
            let (now, start) = (session.take()?, Instant::now());
            let step = now.step();
            let turn = now.receive(message).ok()?;
            let took = start.elapsed();
            let step = match turn {
                Turn::Goes { message, session: next } => {
                    down.push(message);
                    session.insert(next).step()
                }
                Turn::Waits(next) => session.insert(next).step(),
                Turn::Done(served) => {
                    down.push(served.message);
                    trace = served.trace;
                    step
                }
            };
            computing[step] += took;
        }
        trace.map(|trace| Replay { down, trace, computing })
    }

    /// The masks of a ticket, of which `guest` is the guest's key: with them an inference can be
    /// compared with the reference, and read.
    pub fn masks(&self, index: u32, nonce: &[u8; 32], guest: &StreamKey) -> Masks {
        deal_traced(&self.dealing, self.backend, &self.key(index, nonce), guest).1
    }
}
