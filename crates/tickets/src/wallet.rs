//! The guest's part of a batch: a folder with the manifest, the tickets, and the guest's secrets.
//!
//! ```text
//! manifest    what the owner has signed
//! tickets     "network"
//!             "layer S"* of layers computed in the clear
//!             "ticket I"* = nonce [32] | locked shares
//! key         locked for the guest: link of the next ticket [32] | mask seed [32] | token [32]
//!             | next ticket u32
//! ```
//!
//! A ticket is used up before its first byte is sent: `key` is replaced by one with a later link,
//! from which earlier keys cannot be had. Whoever restores an old copy of `key` makes tickets serve
//! twice, and may lose an image: it does not belong into backups or snapshots.

use std::fs::File;
use std::path::{Path, PathBuf};

use jali_bundle::{Bundle, Kind};
use jali_guest::{GuestModel, GuestTicket, StreamKey};
use jali_model::fixed::FixedLinear;
use zeroize::Zeroizing;

use crate::TicketError;
use crate::durable::{self, Readers};
use crate::keys::{Chain, GuestIdentity, Token, lock};
use crate::manifest::{Manifest, SignedManifest, same};
use crate::sealed::{Description, MAX_NETWORK, layer_section, split_keys, words};

pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const TICKETS: &str = "tickets";
pub(crate) const KEY: &str = "key";
/// Bytes of the secrets.
const SECRETS: usize = 3 * 32 + 4;

pub(crate) fn ticket_section(index: u32) -> String {
    format!("ticket {index}")
}

/// What is locked for the guest.
pub(crate) struct Secrets {
    pub(crate) chain: Chain,
    pub(crate) mask: StreamKey,
    pub(crate) token: Token,
    pub(crate) next: u32,
}

impl Secrets {
    pub(crate) fn write(&self, path: &Path, guest: &str) -> Result<(), TicketError> {
        let bytes = Zeroizing::new(
            [self.chain.bytes().as_slice(), self.mask.expose(), self.token.bytes(), &self.next.to_le_bytes()].concat(),
        );
        durable::write(path, Readers::Owner, &lock(guest, &bytes)?)
    }

    fn read(path: &Path, identity: &GuestIdentity) -> Result<Self, TicketError> {
        let bytes = identity.unlock(path, &durable::read(path, 1 << 14)?)?;
        let Some((keys, next)) = bytes.split_at_checked(SECRETS - 4) else {
            return Err(TicketError::part(path, "what is locked in it"));
        };
        let [chain, mask, token] = split_keys(path, keys)?;
        let next = next.try_into().map_err(|_| TicketError::part(path, "what is locked in it"))?;
        Ok(Self {
            chain: Chain::from_bytes(*chain),
            mask: StreamKey::from_bytes(*mask),
            token: Token::from_bytes(*token),
            next: u32::from_le_bytes(next),
        })
    }
}

/// The public part of a wallet: what can be said without the guest's key.
#[derive(Debug)]
pub struct WalletInfo {
    folder: PathBuf,
    manifest: SignedManifest,
}

/// A guest's wallet. While it is open, no other process opens it.
pub struct Wallet {
    info: WalletInfo,
    secrets: Secrets,
    description: Description,
    model: GuestModel,
    tickets: Bundle<File>,
    /// Held for the lock on it.
    _lock: File,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet").field("folder", &self.info.folder).finish_non_exhaustive()
    }
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
    /// Reads a wallet's manifest. With `owner`, its signature must be that owner's.
    ///
    /// # Errors
    /// [`TicketError`] for a file that is missing, damaged or not signed.
    pub fn read(folder: &Path, owner: Option<&[u8; 32]>) -> Result<Self, TicketError> {
        let manifest = SignedManifest::read(&folder.join(MANIFEST), owner)?;
        Ok(Self { folder: folder.into(), manifest })
    }

    /// What the owner has signed.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get()
    }

    /// How many tickets are left: only the guest can tell.
    ///
    /// # Errors
    /// [`TicketError::Key`] for another guest's key.
    pub fn left(&self, identity: &GuestIdentity) -> Result<u32, TicketError> {
        let secrets = Secrets::read(&self.folder.join(KEY), identity)?;
        Ok(self.manifest().tickets.saturating_sub(secrets.next))
    }
}

impl Wallet {
    /// Opens a wallet. With `owner`, its manifest must be signed by that owner.
    ///
    /// # Errors
    /// [`TicketError`] with the file that is missing, damaged or another guest's.
    pub fn open(folder: &Path, identity: &GuestIdentity, owner: Option<&[u8; 32]>) -> Result<Self, TicketError> {
        let info = WalletInfo::read(folder, owner)?;
        let (path, key) = (folder.join(TICKETS), folder.join(KEY));
        let fail = |e| TicketError::bundle(&path, e);
        let open = || File::open(&path).map_err(|e| TicketError::read(&path, e));
        let held = open()?;
        held.try_lock().map_err(|_| TicketError::read(&path, "another process has this wallet open"))?;
        let secrets = Secrets::read(&key, identity)?;
        let mut tickets = Bundle::open(open()?, Kind::Wallet).map_err(fail)?;
        same(&path, "content hash", &info.manifest().wallet, &tickets.content_hash())?;
        let description = Description::from_bytes(&path, &tickets.named("network", MAX_NETWORK).map_err(fail)?)?;
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
        let model = GuestModel::new(&description.network, &description.rows, &secrets.mask, clear)?;
        Ok(Self { info, secrets, description, model, tickets, _lock: held })
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

    /// What the guest shows the server.
    pub fn token(&self) -> &Token {
        &self.secrets.token
    }

    /// The index of the next ticket.
    pub fn next(&self) -> u32 {
        self.secrets.next
    }

    /// Tickets that are not used.
    pub fn left(&self) -> u32 {
        self.manifest().tickets.saturating_sub(self.secrets.next)
    }

    /// Uses up `count` tickets and returns them. When this returns, that is on disk, and their keys
    /// are nowhere else. Each is read and checked before anything is sent.
    ///
    /// # Errors
    /// [`TicketError::UsedUp`], [`TicketError::Expired`], [`TicketError::Write`]: then none is used
    /// up. [`TicketError::Bundle`] for a damaged ticket: then all of them are.
    pub fn take(&mut self, count: u32) -> Result<Vec<WalletTicket>, TicketError> {
        let (folder, m) = (self.info.folder.clone(), self.info.manifest().clone());
        if m.is_expired() {
            return Err(TicketError::Expired { path: folder, until: m.until() });
        }
        if self.left() < count {
            return Err(TicketError::UsedUp { path: folder, wanted: count, left: self.left(), of: m.tickets });
        }
        let first = self.secrets.next;
        let mut links = vec![self.secrets.chain.clone()];
        for _ in 0..count {
            links.extend(links.last().map(Chain::next));
        }
        let Some(last) = links.pop() else { return Ok(vec![]) };
        let later = Secrets {
            chain: last,
            mask: self.secrets.mask.clone(),
            token: self.secrets.token.clone(),
            next: first + count,
        };
        later.write(&folder.join(KEY), &m.guest)?;
        self.secrets = later;
        links.iter().zip(first..).map(|(link, index)| self.read_ticket(link, index)).collect()
    }

    fn read_ticket(&mut self, link: &Chain, index: u32) -> Result<WalletTicket, TicketError> {
        let path = self.info.folder.join(TICKETS);
        let most = self.manifest().ticket_bytes.saturating_add(32);
        let bytes = self.tickets.named(&ticket_section(index), most).map_err(|e| TicketError::bundle(&path, e))?;
        let nonce = bytes.first_chunk().copied().ok_or_else(|| TicketError::part(&path, "a ticket"))?;
        let mut shares = bytes[32..].to_vec();
        link.apply(&mut shares);
        Ok(WalletTicket { index, nonce, ticket: GuestTicket::new(link.key(), shares) })
    }
}
