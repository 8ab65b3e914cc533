//! How an owner deals a batch of tickets.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use jali_bundle::{BundleWriter, Kind};
use jali_guest::{Backend, Hidden, OwnerModel, deal};
use rayon::prelude::*;

use crate::durable::{self, Readers};
use crate::keys::{Chain, Credential, Token, random, recipient_of, server_key};
use crate::manifest::{Manifest, OnDemand, SignedManifest, now};
use crate::mark::{DEALT, Mark};
use crate::sealed::{Description, OwnerFile, layer_section};
use crate::secrets::{Block, Secrets};
use crate::wallet::WALLET;
use crate::{TicketError, batch, wallet};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What an owner decides about a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The guest's recipient, as `jali guest key` prints it.
    pub guest: String,
    /// How many tickets.
    pub tickets: u32,
    /// For how many days they are valid.
    pub days: u32,
    /// Whether the guest's halves are dealt when the guest asks for them, and not now.
    pub on_demand: bool,
}

/// A batch that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dealt {
    /// What was signed.
    pub manifest: Manifest,
    /// The server's file.
    pub server: PathBuf,
    /// Its bytes.
    pub server_bytes: u64,
    /// The guest's folder.
    pub wallet: PathBuf,
    /// Its bytes.
    pub wallet_bytes: u64,
}

/// Bytes of tickets that are dealt on demand at a time, about.
const BLOCK: u64 = 1 << 26;
/// Most tickets that are dealt on demand at a time.
pub(crate) const MAX_BLOCK: u32 = 64;

/// The guest's half of a ticket.
pub(crate) struct Half {
    pub(crate) index: u32,
    pub(crate) nonce: [u8; 32],
    /// The shares, locked.
    pub(crate) shares: Vec<u8>,
}

/// Deals tickets of a sealed network.
#[derive(Debug)]
pub struct Dealer {
    pub(crate) owner: OwnerFile,
    model: OwnerModel,
    backend: Backend,
}

impl Dealer {
    /// Gets ready to deal.
    pub fn new(owner: OwnerFile, backend: Backend) -> Self {
        Self { model: owner.original.owner(), owner, backend }
    }

    /// The owner's file.
    pub fn owner(&self) -> &OwnerFile {
        &self.owner
    }

    /// Deals a batch into `folder`: `folder/server` and `folder/wallet`. All randomness is fresh.
    /// `progress` is called with the number of tickets that are dealt.
    ///
    /// # Errors
    /// [`TicketError::Recipient`] before anything is written; [`TicketError::Write`], also if the
    /// folder holds a batch already; [`TicketError::Random`].
    pub fn deal(&self, folder: &Path, terms: &Terms, mut progress: impl FnMut(u32)) -> Result<Dealt, TicketError> {
        self.deal_while(folder, terms, |dealt| {
            progress(dealt);
            ControlFlow::Continue(())
        })
    }

    /// Deals as [`Dealer::deal`] does, until `progress` breaks it off.
    ///
    /// # Errors
    /// Those of [`Dealer::deal`]; [`TicketError::Stopped`], and then nothing is left of the batch.
    pub fn deal_while(
        &self,
        folder: &Path,
        terms: &Terms,
        progress: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Dealt, TicketError> {
        recipient_of(&terms.guest)?;
        let (server, guest) = (folder.join("server"), folder.join(WALLET));
        if let Some(there) = [&server, &guest].into_iter().find(|path| path.exists()) {
            return Err(TicketError::write(there, "a batch is there already: name another folder"));
        }
        std::fs::create_dir_all(&guest).map_err(|e| TicketError::write(&guest, e))?;
        let (seed, id) = (random::<32>()?, *random::<16>()?);
        let (first, token) = (Chain::from_bytes(*random()?), Token::from_bytes(*random()?));
        let credential = Credential::from_bytes(*random()?);
        let dealt = if terms.on_demand { 0 } else { terms.tickets };
        let tickets = guest.join(wallet::TICKETS);
        let written = self.write_tickets(&tickets, dealt, (&seed, &id), first.clone(), progress);
        let hash = written.inspect_err(|_| {
            // Folders that hold something stay.
            let _ = std::fs::remove_dir(&guest).and_then(|()| std::fs::remove_dir(folder));
        })?;
        let manifest = self.manifest(terms, id, hash, (&token, &credential))?;
        let block = Block { first: 0, next: 0, end: dealt, chain: first };
        let blocks = if terms.on_demand { vec![] } else { vec![block] };
        let secrets = Secrets { mask: self.owner.original.mask().clone(), token, credential, dealt, blocks };
        secrets.write(&guest.join(wallet::KEY), &terms.guest)?;
        manifest.write(&guest.join(wallet::MANIFEST))?;
        if terms.on_demand {
            Mark::create(&server, DEALT)?;
        }
        batch::write(&server, &manifest, &seed)?;
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        let files = [wallet::TICKETS, wallet::KEY, wallet::MANIFEST];
        Ok(Dealt {
            manifest: manifest.get().clone(),
            server_bytes: bytes(&server),
            wallet_bytes: files.iter().map(|name| bytes(&guest.join(name))).sum(),
            server,
            wallet: guest,
        })
    }

    fn manifest(
        &self,
        terms: &Terms,
        batch: [u8; 16],
        wallet: [u8; 32],
        (token, credential): (&Token, &Credential),
    ) -> Result<SignedManifest, TicketError> {
        let owner = &self.owner;
        let (network, circuit) = (owner.original.network(), self.model.circuit());
        let hidden: Hidden = owner.original.weights().into_iter().sum();
        let (dealt, ticket_bytes) = (now(), circuit.counts().ticket_bytes as u64);
        let block = u32::try_from(BLOCK / ticket_bytes.max(1)).unwrap_or(MAX_BLOCK).clamp(1, MAX_BLOCK);
        let on_demand = terms.on_demand.then(|| OnDemand { credential: credential.hash(), block });
        let manifest = Manifest {
            name: owner.name.clone(),
            model: owner.id,
            sealed: owner.server_hash,
            owner: owner.public_key(),
            server: owner.server,
            guest: terms.guest.trim().into(),
            token: token.hash(),
            batch,
            tickets: terms.tickets,
            wallet,
            on_demand,
            ticket_bytes,
            output_bits: network.output_bits() as u32,
            model_bits: hidden.bits() as u64,
            dealt,
            expires: dealt.saturating_add(DAY * u64::from(terms.days)),
        };
        manifest.sign(&owner.signing)
    }

    /// Makes the guest's halves of tickets, each with a fresh nonce and shares locked with its
    /// link's key, and hands them to `take` in order. The next ones are made on all threads
    /// meanwhile.
    pub(crate) fn halves(
        &self,
        batch: (&[u8; 32], &[u8; 16]),
        tickets: Range<u32>,
        first: Chain,
        mut take: impl FnMut(Half) -> Result<(), TicketError>,
    ) -> Result<(), TicketError> {
        std::thread::scope(|scope| {
            let (sender, made) = mpsc::sync_channel(1);
            let maker = scope.spawn(move || {
                let (mut link, mut next) = (first, tickets.start);
                while next < tickets.end {
                    let mut some = vec![];
                    while next < tickets.end && some.len() < rayon::current_num_threads() {
                        let after = link.next();
                        some.push((next, *random::<32>()?, std::mem::replace(&mut link, after)));
                        next += 1;
                    }
                    let half = |(index, nonce, link)| self.half(batch, index, nonce, &link);
                    let halves: Vec<_> = some.into_par_iter().map(half).collect();
                    if sender.send(halves).is_err() {
                        // Nobody takes them any more, and that is told by the one who did.
                        break;
                    }
                }
                Ok(())
            });
            let taken = made.iter().flatten().try_for_each(&mut take);
            drop(made);
            let made = maker.join().unwrap_or_else(|_| Err(TicketError::Broken { why: "a thread ended".into() }));
            taken.and(made)
        })
    }

    fn half(&self, (seed, id): (&[u8; 32], &[u8; 16]), index: u32, nonce: [u8; 32], link: &Chain) -> Half {
        let key = server_key(seed, id, index, &nonce);
        let mut shares = deal(&self.model, self.backend, &key, &link.key());
        link.apply(&mut shares);
        Half { index, nonce, shares }
    }

    /// Writes the guest's tickets, in order, and returns the content hash.
    fn write_tickets(
        &self,
        path: &Path,
        tickets: u32,
        (seed, id): (&[u8; 32], &[u8; 16]),
        first: Chain,
        mut progress: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<[u8; 32], TicketError> {
        let owner = &self.owner;
        let description = Description {
            name: owner.name.clone(),
            network: owner.original.network().clone(),
            setup: owner.original.setup().clone(),
            preprocess: owner.preprocess.clone(),
        };
        durable::write_with(path, Readers::Owner, |sink| {
            let fail = |e| TicketError::write(path, e);
            let mut out = BundleWriter::new(sink, Kind::Wallet, owner.id).map_err(fail)?;
            out.section("network", &description.to_bytes(path)?).map_err(fail)?;
            for (step, weights, biases) in owner.original.clear(self.model.circuit()) {
                let bytes: Vec<u8> = weights.iter().chain(&biases).flat_map(|w| w.to_le_bytes()).collect();
                out.section(&layer_section(step), &bytes).map_err(fail)?;
            }
            self.halves((seed, id), 0..tickets, first, |Half { index, nonce, shares }| {
                out.section(&wallet::ticket_section(index), &[nonce.as_slice(), &shares].concat()).map_err(fail)?;
                match progress(index + 1) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(TicketError::Stopped),
                }
            })?;
            out.finish().map_err(fail).map(|(_, hash)| hash)
        })
    }
}
