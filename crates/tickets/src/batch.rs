//! The server's part of a batch: its seed, and which tickets are used.
//!
//! What is used is one integer: all tickets below it. It rises before anything is computed with a
//! ticket, and it is on disk before that. Whoever restores an old copy of it makes tickets serve
//! twice: it does not belong into backups or snapshots.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jali_bundle::{BundleWriter, Kind, hex};
use jali_guest::StreamKey;
use zeroize::Zeroizing;

use crate::TicketError;
use crate::durable::{self, Readers};
use crate::keys::server_key;
use crate::manifest::{MAX_MANIFEST, Manifest, SignedManifest, same};
use crate::mark::{Mark, USED};
use crate::sealed::{ServerFile, open};

/// The server's part of a batch of tickets. While it is open, no other process opens it.
pub struct Batch {
    path: PathBuf,
    hash: [u8; 32],
    manifest: SignedManifest,
    seed: Zeroizing<[u8; 32]>,
    used: Mark,
    /// Held for the lock on it.
    _file: File,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Tickets that are used from now on, on disk too: the only way to their keys.
#[derive(Debug)]
pub struct Claim {
    batch: Arc<Batch>,
    next: u32,
    end: u32,
}

/// Writes a server's part of a batch, all of whose tickets are unused.
pub(crate) fn write(path: &Path, manifest: &SignedManifest, seed: &[u8; 32]) -> Result<(), TicketError> {
    let (bytes, signature) = manifest.parts();
    durable::write_with(path, Readers::Owner, |sink| {
        let fail = |e| TicketError::write(path, e);
        let mut out = BundleWriter::new(sink, Kind::Batch, manifest.get().model).map_err(fail)?;
        out.section("manifest", bytes).map_err(fail)?;
        out.section("signature", signature).map_err(fail)?;
        out.section("seed", seed).map_err(fail)?;
        out.finish().map_err(fail).map(|_| ())
    })?;
    Mark::create(path, USED)
}

/// Reads a batch's manifest and seed.
pub(crate) fn read(path: &Path, owner: &[u8; 32]) -> Result<(SignedManifest, Zeroizing<[u8; 32]>), TicketError> {
    let mut bundle = open(path, Kind::Batch)?;
    let fail = |e| TicketError::bundle(path, e);
    let bytes = bundle.expect("manifest", MAX_MANIFEST).map_err(fail)?;
    let signature = bundle.expect("signature", 64).map_err(fail)?;
    let manifest = SignedManifest::from_parts(path, bytes, &signature, Some(owner))?;
    let seed = Zeroizing::new(bundle.expect("seed", 32).map_err(fail)?);
    let seed: [u8; 32] = seed.as_slice().try_into().map_err(|_| TicketError::part(path, "the seed"))?;
    Ok((manifest, Zeroizing::new(seed)))
}

impl Batch {
    /// Opens the server's part of a batch for a network.
    ///
    /// # Errors
    /// [`TicketError`]: damaged files, another network's or owner's batch, or one that another
    /// process has open.
    pub fn open(path: &Path, server: &ServerFile) -> Result<Self, TicketError> {
        let (manifest, seed) = read(path, &server.owner)?;
        let m = manifest.get();
        same(path, "model id", &server.id, &m.model)?;
        same(path, "content hash of the server's network", &server.hash, &m.sealed)?;
        same(path, "server's key", &server.public_key(), &m.server)?;
        let file = File::open(path).map_err(|e| TicketError::read(path, e))?;
        file.try_lock()
            .map_err(|_| TicketError::read(path, "another server has it open: a batch serves on one server"))?;
        let (used, hash) = (Mark::open(path, USED, m.tickets)?, open(path, Kind::Batch)?.content_hash());
        Ok(Self { path: path.into(), hash, manifest, seed, used, _file: file })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Content hash of its file.
    pub fn content_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What the owner says of it.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get()
    }

    /// The signed manifest.
    pub fn signed(&self) -> &SignedManifest {
        &self.manifest
    }

    /// Tickets that are not used.
    pub fn left(&self) -> u32 {
        self.manifest().tickets - self.used.get()
    }

    /// Uses up all tickets before `first + count`, and gives the last `count` of them. When this
    /// returns, that is on disk.
    ///
    /// # Errors
    /// [`TicketError::Replayed`] if one was used before; [`TicketError::UsedUp`],
    /// [`TicketError::Expired`], [`TicketError::Write`].
    pub fn claim(self: &Arc<Self>, first: u32, count: u32) -> Result<Claim, TicketError> {
        let m = self.manifest();
        if m.is_expired() {
            return Err(TicketError::Expired { path: self.path.clone(), until: m.until() });
        }
        let end = self.used.raise(|used| {
            if first < used {
                return Err(TicketError::Replayed { batch: hex(&m.batch), index: first });
            }
            first.checked_add(count).filter(|&end| end <= m.tickets && count > 0).ok_or_else(|| {
                let left = m.tickets.saturating_sub(first);
                TicketError::UsedUp { path: self.path.clone(), wanted: count, left, of: m.tickets }
            })
        })?;
        Ok(Claim { batch: self.clone(), next: first, end })
    }
}

impl Claim {
    /// The index of the next ticket.
    pub fn index(&self) -> u32 {
        self.next
    }

    /// The key of the next ticket, with the nonce that the guest presents. Each is given once.
    pub fn key(&mut self, nonce: &[u8; 32]) -> Option<StreamKey> {
        let index = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(server_key(&self.batch.seed, &self.batch.manifest().batch, index, nonce))
    }
}
