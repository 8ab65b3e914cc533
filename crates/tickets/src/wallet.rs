//! The guest's part of a batch: a folder with the manifest, the tickets, and the guest's secrets.
//!
//! ```text
//! manifest    what the owner has signed
//! tickets     "network"
//!             "layer S"* of layers computed in the clear
//!             "ticket I"* = nonce [32] | locked shares, if all are dealt ahead
//! tickets.I   "ticket I"*, a block that was dealt on demand
//! key         locked for the guest: mask seed [32] | token [32] | credential [32] | dealt u32
//!             | of every block that is not used up: first, next, end u32 | link of next [32]
//! ```
//!
//! A ticket is used up before its first byte is sent: `key` is replaced by one with a later link,
//! from which earlier keys cannot be had. Whoever restores an old copy of `key` makes tickets serve
//! twice, and may lose an image: it does not belong into backups or snapshots.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use jali_bundle::{Bundle, Kind};
use jali_guest::{GuestModel, GuestTicket};
use jali_model::fixed::FixedLinear;

use crate::TicketError;
use crate::keys::{Chain, Credential, GuestIdentity, Token};
use crate::manifest::{Manifest, SignedManifest, same};
use crate::sealed::{Description, MAX_NETWORK, layer_section, open, words};
use crate::secrets::Secrets;

/// Name of a wallet in a batch's folder.
pub(crate) const WALLET: &str = "wallet";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const TICKETS: &str = "tickets";
/// Name of the file of a wallet that is locked for its guest.
pub const KEY: &str = "key";
pub(crate) fn ticket_section(index: u32) -> String {
    format!("ticket {index}")
}

/// The file of a block of tickets that was dealt on demand.
pub(crate) fn block_file(first: u32) -> String {
    format!("{TICKETS}.{first}")
}

/// The public part of a wallet: what can be said without the guest's key.
#[derive(Debug)]
pub struct WalletInfo {
    pub(crate) folder: PathBuf,
    manifest: SignedManifest,
}

/// Tickets of a wallet that are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Those that are in it.
    pub here: u32,
    /// Those that the owner still deals when they are fetched; fewer if some were lost on the way.
    pub fetchable: u32,
}

/// A guest's wallet. While it is open, no other process opens it.
pub struct Wallet {
    pub(crate) info: WalletInfo,
    pub(crate) secrets: Secrets,
    description: Description,
    model: GuestModel,
    /// The file from which tickets are read, and the first ticket of its block.
    tickets: Option<(u32, Bundle<File>)>,
    /// Held for the lock on it.
    lock: File,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet").field("folder", &self.info.folder).finish_non_exhaustive()
    }
}

/// Takes the lock of a wallet.
fn lock_alone(held: &File, path: &Path) -> Result<(), TicketError> {
    held.try_lock().map_err(|_| TicketError::read(path, "another process has this wallet open"))
}

/// A ticket that is used up on disk.
#[derive(Debug)]
pub struct WalletTicket {
    /// Its index in the batch.
    pub index: u32,
    /// What the server needs for its half.
    pub nonce: [u8; 32],
    /// The guest's half.
    pub ticket: GuestTicket,
}

impl WalletInfo {
    /// Reads a wallet's manifest; `folder` is the wallet, or holds it under the name `wallet`. With
    /// `owner`, its signature must be that owner's.
    ///
    /// # Errors
    /// [`TicketError`] for a file that is missing, damaged or not signed.
    pub fn read(folder: &Path, owner: Option<&[u8; 32]>) -> Result<Self, TicketError> {
        let inside = folder.join(WALLET);
        let folder = if inside.join(MANIFEST).exists() { inside } else { folder.into() };
        let manifest = SignedManifest::read(&folder.join(MANIFEST), owner)?;
        Ok(Self { folder, manifest })
    }

    /// What the owner has signed.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get()
    }

    /// How many tickets are left: only the guest can tell.
    ///
    /// # Errors
    /// [`TicketError::Key`] for another guest's key.
    pub fn left(&self, identity: &GuestIdentity) -> Result<Left, TicketError> {
        let secrets = Secrets::read(&self.folder.join(KEY), identity, self.manifest())?;
        let m = self.manifest();
        let fetchable = m.on_demand.map_or(0, |_| m.tickets.saturating_sub(secrets.dealt));
        Ok(Left { here: secrets.left(), fetchable })
    }
}

impl Wallet {
    /// Opens a wallet. With `owner`, its manifest must be signed by that owner.
    ///
    /// # Errors
    /// [`TicketError`] with the file that is missing, damaged or another guest's.
    pub fn open(folder: &Path, identity: &GuestIdentity, owner: Option<&[u8; 32]>) -> Result<Self, TicketError> {
        let info = WalletInfo::read(folder, owner)?;
        let (path, key) = (info.folder.join(TICKETS), info.folder.join(KEY));
        let held = File::open(&path).map_err(|e| TicketError::read(&path, e))?;
        lock_alone(&held, &path)?;
        let secrets = Secrets::read(&key, identity, info.manifest())?;
        let mut tickets = open(&path, Kind::Wallet)?;
        let (description, model) = read_network(&path, info.manifest(), &mut tickets, &secrets)?;
        let tickets = info.manifest().on_demand.is_none().then_some((0, tickets));
        Ok(Self { info, secrets, description, model, tickets, lock: held })
    }

    /// What the owner has signed.
    pub fn manifest(&self) -> &Manifest {
        self.info.manifest()
    }

    /// The signed manifest.
    pub fn signed(&self) -> &SignedManifest {
        &self.info.manifest
    }

    /// The network without weights, and how images become its inputs.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What the guest computes with.
    pub fn model(&self) -> &GuestModel {
        &self.model
    }

    /// What the guest shows the owner's dealing service.
    pub fn credential(&self) -> &Credential {
        &self.secrets.credential
    }

    /// What the guest shows the server.
    pub fn token(&self) -> &Token {
        &self.secrets.token
    }

    /// Tickets that are not used.
    pub fn left(&self) -> u32 {
        self.secrets.left()
    }

    /// Checks that so many tickets are left, and that their time is not over.
    ///
    /// # Errors
    /// [`TicketError::UsedUp`], [`TicketError::Unfetched`], [`TicketError::Expired`].
    pub fn check_left(&self, count: u32) -> Result<(), TicketError> {
        let (path, m) = (self.info.folder.clone(), self.info.manifest());
        if m.is_expired() {
            return Err(TicketError::Expired { path, until: m.until() });
        }
        if self.left() >= count {
            return Ok(());
        }
        let (left, of) = (self.left(), m.tickets);
        Err(match m.on_demand {
            Some(_) if self.secrets.dealt < of => TicketError::Unfetched { path, left },
            _ => TicketError::UsedUp { path, wanted: count, left, of },
        })
    }

    /// Uses up the next `count` tickets and returns them, fewer where some between were lost. When
    /// this returns, that is on disk, and their keys are nowhere else. Each is read and checked
    /// before anything is sent.
    ///
    /// # Errors
    /// Those of [`Wallet::check_left`], [`TicketError::Write`]: then none is used up.
    /// [`TicketError::Lost`] if the file of a block is gone or damaged: then its tickets are.
    /// [`TicketError::Bundle`] for a damaged ticket: then all of them are.
    pub fn take(&mut self, count: u32) -> Result<Vec<WalletTicket>, TicketError> {
        self.check_left(count)?;
        let (folder, m) = (self.info.folder.clone(), self.info.manifest());
        let (taken, later) = self.secrets.without(count);
        if m.on_demand.is_some() {
            for block in taken.iter().map(|(_, block, _)| *block).collect::<BTreeSet<u32>>() {
                self.check_block(block)?;
            }
        }
        later.write(&folder.join(KEY), &self.manifest().guest)?;
        let before = std::mem::replace(&mut self.secrets, later);
        let tickets = taken.iter().map(|(index, block, link)| self.read_ticket(*index, *block, link)).collect();
        self.remove_used(&before);
        tickets
    }

    /// Checks that the file of a block is there, before any of its tickets is used up. If it is
    /// gone or damaged, the wallet forgets the block.
    fn check_block(&mut self, first: u32) -> Result<(), TicketError> {
        let path = self.info.folder.join(block_file(first));
        let why = match open(&path, Kind::Wallet) {
            Ok(_) => return Ok(()),
            Err(TicketError::Bundle { fault, .. }) => fault.to_string(),
            Err(_) if path.try_exists().is_ok_and(|exists| !exists) => "it is gone".into(),
            Err(e) => return Err(e),
        };
        let mut later = self.secrets.clone();
        later.blocks.retain(|block| block.first != first);
        later.write(&self.info.folder.join(KEY), &self.manifest().guest)?;
        let tickets = self.left() - later.left();
        self.secrets = later;
        Err(TicketError::Lost { path, tickets, why })
    }

    /// Lets other processes open the wallet while `wait` runs.
    ///
    /// # Errors
    /// [`TicketError::Read`] if another one has it open then; what reading it again brings.
    pub fn free_while(&mut self, identity: &GuestIdentity, wait: impl FnOnce()) -> Result<(), TicketError> {
        let path = self.info.folder.join(TICKETS);
        self.lock.unlock().map_err(|e| TicketError::read(&path, e))?;
        wait();
        lock_alone(&self.lock, &path)?;
        self.secrets = Secrets::read(&self.info.folder.join(KEY), identity, self.info.manifest())?;
        Ok(())
    }

    fn read_ticket(&mut self, index: u32, block: u32, link: &Chain) -> Result<WalletTicket, TicketError> {
        let m = self.info.manifest();
        let name = if m.on_demand.is_some() { block_file(block) } else { TICKETS.into() };
        let (path, most) = (self.info.folder.join(name), m.ticket_bytes);
        let file = match &mut self.tickets {
            Some((first, file)) if *first == block => file,
            other => &mut other.insert((block, open(&path, Kind::Wallet)?)).1,
        };
        ticket_of(&path, file, (index, link), most)
    }

    /// Removes the files of blocks that are used up.
    fn remove_used(&mut self, before: &Secrets) {
        let is_left = |first: u32| self.secrets.blocks.iter().any(|block| block.first == first);
        for block in before.blocks.iter().filter(|block| !is_left(block.first)) {
            // The file of a whole batch stays: the network is in it. One that cannot be removed
            // takes place and nothing more, as its keys are gone.
            let _ = std::fs::remove_file(self.info.folder.join(block_file(block.first)));
        }
    }
}

/// Reads what stands before the tickets: the network, and the layers that the guest computes in the
/// clear. The file must be the one that the owner has signed.
pub(crate) fn read_network<R: Read + Seek>(
    path: &Path,
    manifest: &Manifest,
    tickets: &mut Bundle<R>,
    secrets: &Secrets,
) -> Result<(Description, GuestModel), TicketError> {
    let fail = |e| TicketError::bundle(path, e);
    same(path, "content hash", &manifest.wallet, &tickets.content_hash())?;
    let description = Description::from_bytes(path, &tickets.named("network", MAX_NETWORK).map_err(fail)?)?;
    let mut clear = vec![];
    for step in 0..description.network.steps.len() {
        let Some((rows, fan_in)) = description.network.layer(step).map(FixedLinear::size) else { continue };
        let weights = rows * fan_in;
        if tickets.peek().is_some_and(|section| section.name == layer_section(step)) {
            let mut all = words(&tickets.next(4 * (weights + rows) as u64).map_err(fail)?);
            let biases = all.split_off(all.len().min(weights));
            clear.push((step, all, biases));
        }
    }
    let model = GuestModel::new(&description.network, &description.setup, &secrets.mask, clear)?;
    Ok((description, model))
}

/// Reads a ticket, whose shares have at most `most` bytes, and unlocks it with its link.
pub(crate) fn ticket_of<R: Read + Seek>(
    path: &Path,
    tickets: &mut Bundle<R>,
    (index, link): (u32, &Chain),
    most: u64,
) -> Result<WalletTicket, TicketError> {
    let bytes = tickets.named(&ticket_section(index), most.saturating_add(32));
    let bytes = bytes.map_err(|e| TicketError::bundle(path, e))?;
    let nonce = bytes.first_chunk().copied().ok_or_else(|| TicketError::part(path, "a ticket"))?;
    let mut shares = bytes[32..].to_vec();
    link.apply(&mut shares);
    Ok(WalletTicket { index, nonce, ticket: GuestTicket::new(link.key(), shares) })
}
