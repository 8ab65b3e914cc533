//! Tickets that are dealt when their guest asks for them.
//!
//! The owner keeps a batch's seed and how many tickets it has dealt, and nothing of a guest's
//! halves. What it sends is a block of tickets:
//!
//! ```text
//! "JALIDEAL" | first ticket u32 | tickets u32 | length u16 | locked for the guest: link [32]
//! of every ticket: nonce [32] | signature [64] | locked shares
//! ```
//!
//! The owner signs each half over batch, index, nonce, and hashes of what is locked: no half can
//! take another's place. A block that breaks off is lost, for its tickets were dealt.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, Verifier, VerifyingKey};
use jali_bundle::{BundleWriter, Kind};
use zeroize::{Zeroize, Zeroizing};

use crate::dealing::{Dealer, Half, MAX_BLOCK};
use crate::durable::{self, Readers};
use crate::keys::{Chain, Credential, GuestIdentity, lock, random};
use crate::manifest::{Manifest, SignedManifest, same};
use crate::mark::{DEALT, Mark, beside};
use crate::sealed::OwnerFile;
use crate::secrets::{Block, MAX_BLOCKS};
use crate::wallet::{KEY, Wallet, block_file, ticket_section};
use crate::{TicketError, batch};

/// First bytes of a block.
const MAGIC: [u8; 8] = *b"JALIDEAL";
/// Most bytes of a locked link.
const MAX_LOCK: u16 = 1 << 10;

/// What is signed of a half.
fn signed_part(batch: &[u8; 16], index: u32, nonce: &[u8; 32], locked: &[u8], shares: &[u8]) -> Vec<u8> {
    let (lock, hash) = (blake3::hash(locked), blake3::hash(shares));
    let domain = b"jali 1 guests: half of a ticket\0".as_slice();
    [domain, batch, &index.to_le_bytes(), nonce, lock.as_bytes(), hash.as_bytes()].concat()
}

/// The owner's side of a batch that is dealt on demand. While it is open, no other process opens
/// it.
pub struct Stock {
    path: PathBuf,
    manifest: SignedManifest,
    seed: Zeroizing<[u8; 32]>,
    block: u32,
    credential: [u8; 32],
    dealt: Mark,
    /// Held for the lock on it.
    _lock: File,
}

impl std::fmt::Debug for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stock").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Stock {
    /// Opens the owner's copy of the server's part of a batch.
    ///
    /// # Errors
    /// [`TicketError`]: damaged files, another network's or owner's batch, one whose tickets are
    /// all in its wallet, or one that another process deals.
    pub fn open(path: &Path, owner: &OwnerFile) -> Result<Self, TicketError> {
        let (manifest, seed) = batch::read(path, &owner.public_key())?;
        let m = manifest.get();
        same(path, "model id", &owner.id, &m.model)?;
        let on_demand = m.on_demand.filter(|on_demand| (1..=MAX_BLOCK).contains(&on_demand.block));
        let on_demand = on_demand.ok_or_else(|| TicketError::Dealing {
            path: path.into(),
            why: "all tickets of this batch are in its wallet: `jali deal --on-demand` makes batches for --listen",
        })?;
        let lock = File::create(beside(path, ".dealing")).map_err(|e| TicketError::write(path, e))?;
        lock.try_lock().map_err(|_| TicketError::read(path, "another process deals it"))?;
        let dealt = Mark::open(path, DEALT, m.tickets)?;
        let (block, credential) = (on_demand.block, on_demand.credential);
        Ok(Self { path: path.into(), manifest, seed, block, credential, dealt, _lock: lock })
    }

    /// What the owner has signed.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get()
    }

    /// Whether a guest's credential is the one of this batch.
    pub fn accepts(&self, credential: &Credential) -> bool {
        credential.is_of(&self.credential)
    }

    /// Tickets that are not dealt.
    pub fn left(&self) -> u32 {
        self.manifest().tickets - self.dealt.get()
    }

    /// Takes the next block of tickets: they count as dealt from now on, on disk too.
    ///
    /// # Errors
    /// [`TicketError::UsedUp`], [`TicketError::Expired`], [`TicketError::Write`].
    pub fn claim(&self) -> Result<Range<u32>, TicketError> {
        let m = self.manifest();
        if m.is_expired() {
            return Err(TicketError::Expired { path: self.path.clone(), until: m.until() });
        }
        let mut first = 0;
        let end = self.dealt.raise(|dealt| {
            first = dealt;
            Ok(m.tickets.min(dealt.saturating_add(self.block)))
        })?;
        match first < end {
            true => Ok(first..end),
            false => Err(TicketError::UsedUp { path: self.path.clone(), wanted: 1, left: 0, of: m.tickets }),
        }
    }

    /// Makes the block of the tickets that were claimed, and hands it to `send` in parts. All
    /// randomness is fresh, and nothing is kept.
    ///
    /// # Errors
    /// [`TicketError::Random`]; what `send` returns.
    pub fn deal(
        &self,
        dealer: &Dealer,
        claimed: Range<u32>,
        mut send: impl FnMut(Vec<u8>) -> Result<(), TicketError>,
    ) -> Result<(), TicketError> {
        let m = self.manifest();
        let first = Chain::from_bytes(*random()?);
        let locked = lock(&m.guest, first.bytes())?;
        let numbers = [claimed.start.to_le_bytes(), (claimed.end - claimed.start).to_le_bytes()].concat();
        send([MAGIC.as_slice(), &numbers, &(locked.len() as u16).to_le_bytes(), &locked].concat())?;
        dealer.halves((&self.seed, &m.batch), claimed, first, |Half { index, nonce, shares }| {
            let signature = dealer.owner.signing.sign(&signed_part(&m.batch, index, &nonce, &locked, &shares));
            send([nonce.as_slice(), &signature.to_bytes(), &shares].concat())
        })
    }
}

/// Reads exactly so many bytes, and takes memory for them as they come.
fn exactly(source: &mut impl Read, n: u64) -> Result<Vec<u8>, TicketError> {
    let broken = |why: String| TicketError::Broken { why };
    let mut bytes = vec![];
    source.take(n).read_to_end(&mut bytes).map_err(|e| broken(e.to_string()))?;
    match bytes.len() as u64 == n {
        true => Ok(bytes),
        false => Err(broken("the connection ended in the middle".into())),
    }
}

fn array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], TicketError> {
    let bytes = exactly(source, N as u64)?;
    bytes.first_chunk().copied().ok_or_else(|| TicketError::Broken { why: "it sent too little".into() })
}

impl Wallet {
    /// An error if no block of tickets can be fetched into this wallet.
    ///
    /// # Errors
    /// [`TicketError::Dealing`] for a wallet that got all its tickets, or has too many blocks;
    /// [`TicketError::Expired`].
    pub fn check_room(&self) -> Result<(), TicketError> {
        let (path, m) = (self.info.folder.clone(), self.manifest());
        if m.is_expired() {
            return Err(TicketError::Expired { path, until: m.until() });
        }
        if m.on_demand.is_none() {
            let why = "all its tickets are in it: nothing is fetched for it";
            return Err(TicketError::Dealing { path, why });
        }
        if self.secrets.dealt >= m.tickets {
            let why = "all its tickets were dealt: ask the owner for another batch";
            return Err(TicketError::Dealing { path, why });
        }
        if self.secrets.blocks.len() >= MAX_BLOCKS {
            let why = "it holds as many blocks of tickets as it can: use some of them first";
            return Err(TicketError::Dealing { path, why });
        }
        Ok(())
    }

    /// Checks that something can be written beside the tickets: what is asked for and cannot be
    /// kept is lost.
    ///
    /// # Errors
    /// [`TicketError::Write`].
    pub fn check_writable(&self) -> Result<(), TicketError> {
        let path = self.info.folder.join(KEY);
        durable::aside(&path, Readers::Owner).map(drop).map_err(|e| TicketError::write(&path, e))
    }

    /// Removes what a process that was killed had begun to write. Nobody else writes here: the
    /// wallet is locked.
    fn remove_unfinished(&self) {
        let Ok(entries) = std::fs::read_dir(&self.info.folder) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(durable::ASIDE) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Reads a block of tickets from the owner's dealing service and checks each of them; returns
    /// how many they are. When this returns, they are on disk.
    ///
    /// # Errors
    /// As [`Wallet::check_room`]; [`TicketError::Broken`] if it ends too early or is something
    /// else; [`TicketError::Signature`] if the owner has not signed a half. Then the wallet is as
    /// it was.
    pub fn accept(&mut self, identity: &GuestIdentity, source: &mut impl Read) -> Result<u32, TicketError> {
        self.check_room()?;
        self.remove_unfinished();
        let (folder, m) = (self.info.folder.clone(), self.manifest().clone());
        let most = m.on_demand.map_or(0, |on_demand| on_demand.block.min(MAX_BLOCK));
        let other = |why: &str| TicketError::Broken { why: why.into() };
        if array(source)? != MAGIC {
            return Err(other("it sent no block of tickets"));
        }
        let (first, count) = (u32::from_le_bytes(array(source)?), u32::from_le_bytes(array(source)?));
        let end = first.checked_add(count).filter(|&end| end <= m.tickets && first >= self.secrets.dealt);
        let end = end.filter(|_| (1..=most).contains(&count));
        let end = end.ok_or_else(|| other("it sent tickets that are none of this wallet's next ones"))?;
        let length = u16::from_le_bytes(array(source)?);
        if length > MAX_LOCK {
            return Err(other("it sent no locked link"));
        }
        let locked = exactly(source, length.into())?;
        let path = folder.join(block_file(first));
        let link = identity.unlock(&path, &locked)?;
        let chain = *link.first_chunk().ok_or_else(|| TicketError::part(&path, "what is locked in it"))?;
        durable::write_with(&path, Readers::Owner, |sink| {
            let fail = |e| TicketError::write(&path, e);
            let mut out = BundleWriter::new(sink, Kind::Wallet, m.model).map_err(fail)?;
            for index in first..end {
                let half = read_half(source, &path, &m, index, &locked)?;
                out.section(&ticket_section(index), &half).map_err(fail)?;
            }
            out.finish().map_err(fail).map(|_| ())
        })?;
        let mut later = self.secrets.clone();
        later.blocks.push(Block { first, next: first, end, chain: Chain::from_bytes(chain) });
        later.dealt = end;
        later.write(&folder.join(KEY), &m.guest)?;
        self.secrets = later;
        Ok(count)
    }
}

/// Reads a half and returns it as a wallet has it, if the owner has signed it.
fn read_half(
    source: &mut impl Read,
    path: &Path,
    m: &Manifest,
    index: u32,
    locked: &[u8],
) -> Result<Vec<u8>, TicketError> {
    let (nonce, signature): ([u8; 32], [u8; 64]) = (array(source)?, array(source)?);
    let mut shares = exactly(source, m.ticket_bytes)?;
    let foreign = || TicketError::Signature { path: path.into(), whose: "the model's owner" };
    let owner = VerifyingKey::from_bytes(&m.owner).map_err(|_| foreign())?;
    let message = signed_part(&m.batch, index, &nonce, locked, &shares);
    owner.verify(&message, &Signature::from_bytes(&signature)).map_err(|_| foreign())?;
    let half = [nonce.as_slice(), &shares].concat();
    shares.zeroize();
    Ok(half)
}

/// Bytes of a block of so many tickets, but for its locked link.
pub fn block_bytes(m: &Manifest, tickets: u32) -> u64 {
    let head = (MAGIC.len() + 4 + 4 + 2) as u64;
    head + u64::from(MAX_LOCK) + u64::from(tickets) * (32 + 64 + m.ticket_bytes)
}
