//! A wallet in memory, for guests without files: browsers.
//!
//! It does no input or output. Before a ticket's first byte is sent, its holder stores new bytes of
//! `key` where they outlast a crash ([`Unstored`]); when the wallet is opened again, they come
//! along. The order of things is that of [`crate::wallet`].

use std::io::{Cursor, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use jali_bundle::{Bundle, Kind};
use jali_guest::GuestModel;

use crate::TicketError;
use crate::keys::{GuestIdentity, Token};
use crate::manifest::{Manifest, SignedManifest};
use crate::sealed::Description;
use crate::secrets::Secrets;
pub use crate::wallet::KEY;
use crate::wallet::{MANIFEST, TICKETS, WalletTicket, read_network, ticket_of};

/// The files of a wallet whose tickets are dealt ahead.
#[derive(Debug)]
pub struct WalletFiles<'a, R> {
    /// `manifest`.
    pub manifest: &'a [u8],
    /// `tickets`, which is read piece by piece.
    pub tickets: R,
    /// Copies of `key`, as it was dealt and as it was stored since: the one with the fewest tickets
    /// counts.
    pub keys: &'a [&'a [u8]],
}

/// The id of the batch that the bytes of a `manifest` are of: the name under which its `key` is
/// stored.
///
/// # Errors
/// [`TicketError`] for bytes that are damaged or not signed.
pub fn batch_of(manifest: &[u8]) -> Result<[u8; 16], TicketError> {
    Ok(SignedManifest::from_file(Path::new(MANIFEST), Cursor::new(manifest), None)?.get().batch)
}

/// A guest's wallet in memory.
pub struct HeldWallet<R> {
    manifest: SignedManifest,
    secrets: Secrets,
    description: Description,
    model: Arc<GuestModel>,
    tickets: Bundle<R>,
}

impl<R> std::fmt::Debug for HeldWallet<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldWallet").field("batch", &self.manifest.get().batch).finish_non_exhaustive()
    }
}

/// A ticket that serves once `key` is stored.
#[must_use]
#[derive(Debug)]
pub struct Unstored {
    key: Vec<u8>,
    ticket: WalletTicket,
}

impl Unstored {
    /// The new content of `key`, locked for the guest. Once it is stored, nothing that is stored
    /// unlocks the ticket.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Gives the ticket: call it when the new `key` would be there after a crash.
    pub fn stored(self) -> WalletTicket {
        self.ticket
    }
}

impl<R: Read + Seek> HeldWallet<R> {
    /// Opens a wallet. With `owner`, its manifest must be signed by that owner.
    ///
    /// # Errors
    /// [`TicketError`] with the file that is damaged or another guest's; [`TicketError::Dealing`]
    /// for tickets that are fetched.
    pub fn open(
        files: WalletFiles<'_, R>,
        identity: &GuestIdentity,
        owner: Option<&[u8; 32]>,
    ) -> Result<Self, TicketError> {
        let [of_manifest, of_tickets, of_key] = [MANIFEST, TICKETS, KEY].map(Path::new);
        let manifest = SignedManifest::from_file(of_manifest, Cursor::new(files.manifest), owner)?;
        if manifest.get().on_demand.is_some() {
            let why = "its tickets are fetched by `jali tickets --fetch`, which a browser cannot do: ask the owner for a batch that is dealt ahead";
            return Err(TicketError::Dealing { path: of_tickets.into(), why });
        }
        let secrets = files.keys.iter().map(|key| Secrets::unlocked(of_key, key, identity, manifest.get()));
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?.into_iter().min_by_key(Secrets::left);
        let secrets = secrets.ok_or_else(|| TicketError::read(of_key, "it is missing"))?;
        let mut tickets = Bundle::open(files.tickets, Kind::Wallet).map_err(|e| TicketError::bundle(of_tickets, e))?;
        let (description, model) = read_network(of_tickets, manifest.get(), &mut tickets, &secrets)?;
        Ok(Self { manifest, secrets, description, model: Arc::new(model), tickets })
    }

    /// What the owner has signed.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get()
    }

    /// The network without weights, and how images become its inputs.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What the guest computes with; it outlasts the wallet while an inference goes on.
    pub fn model(&self) -> &Arc<GuestModel> {
        &self.model
    }

    /// What the guest shows the server.
    pub fn token(&self) -> &Token {
        &self.secrets.token
    }

    /// Tickets that are not used.
    pub fn left(&self) -> u32 {
        self.secrets.left()
    }

    /// Uses up the next ticket, at a time in seconds since 1970.
    ///
    /// # Errors
    /// [`TicketError::Expired`], [`TicketError::UsedUp`]: then none is used up.
    /// [`TicketError::Bundle`] for a damaged ticket, which is used up then.
    pub fn take(&mut self, now: u64) -> Result<Unstored, TicketError> {
        let (path, m) = (Path::new(TICKETS), self.manifest.get());
        if m.is_expired_at(now) {
            return Err(TicketError::Expired { path: path.into(), until: m.until() });
        }
        let (taken, later) = self.secrets.without(1);
        let Some((index, _, link)) = taken.first() else {
            return Err(TicketError::UsedUp { path: path.into(), wanted: 1, left: 0, of: m.tickets });
        };
        let key = later.locked(&m.guest)?;
        self.secrets = later;
        let ticket = ticket_of(path, &mut self.tickets, (*index, link), m.ticket_bytes)?;
        Ok(Unstored { key, ticket })
    }
}
