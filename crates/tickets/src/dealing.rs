//! How an owner deals a batch of tickets.

use std::path::{Path, PathBuf};

use jali_bundle::{BundleWriter, Kind};
use jali_guest::{Backend, Hidden, OwnerModel, deal};
use zeroize::{Zeroize, Zeroizing};

use crate::durable::{self, Readers};
use crate::keys::{Chain, Token, random, recipient_of, server_key};
use crate::manifest::{Manifest, SignedManifest, now};
use crate::sealed::{Description, OwnerFile, layer_section};
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

/// Deals tickets of a sealed network.
#[derive(Debug)]
pub struct Dealer<'o> {
    owner: &'o OwnerFile,
    model: OwnerModel,
    backend: Backend,
}

impl<'o> Dealer<'o> {
    /// Gets ready to deal.
    pub fn new(owner: &'o OwnerFile, backend: Backend) -> Self {
        Self { owner, model: owner.original.owner(), backend }
    }

    /// Deals a batch into `folder`: `folder/server` and `folder/wallet`. All randomness is fresh.
    /// `progress` is called with the number of tickets that are dealt.
    ///
    /// # Errors
    /// [`TicketError::Recipient`] before anything is written; [`TicketError::Write`], also if the
    /// folder holds a batch already; [`TicketError::Random`].
    pub fn deal(&self, folder: &Path, terms: &Terms, progress: impl FnMut(u32)) -> Result<Dealt, TicketError> {
        recipient_of(&terms.guest)?;
        let (server, guest) = (folder.join("server"), folder.join("wallet"));
        if let Some(there) = [&server, &guest].into_iter().find(|path| path.exists()) {
            return Err(TicketError::write(there, "a batch is there already: name another folder"));
        }
        std::fs::create_dir_all(&guest).map_err(|e| TicketError::write(&guest, e))?;
        let (seed, id) = (random::<32>()?, *random::<16>()?);
        let (first, token) = (Chain::from_bytes(*random()?), Token::from_bytes(*random()?));
        let tickets = guest.join(wallet::TICKETS);
        let hash = self.write_tickets(&tickets, terms.tickets, (&seed, &id), first.clone(), progress)?;
        let manifest = self.manifest(terms, id, hash, &token)?;
        let secrets = wallet::Secrets { chain: first, mask: self.owner.original.mask().clone(), token, next: 0 };
        secrets.write(&guest.join(wallet::KEY), &terms.guest)?;
        manifest.write(&guest.join(wallet::MANIFEST))?;
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
        token: &Token,
    ) -> Result<SignedManifest, TicketError> {
        let owner = self.owner;
        let (network, circuit) = (owner.original.network(), self.model.circuit());
        let hidden: Hidden = owner.original.weights().into_iter().sum();
        let dealt = now();
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
            ticket_bytes: circuit.counts().ticket_bytes as u64,
            output_bits: network.output_bits() as u32,
            model_bits: hidden.bits() as u64,
            dealt,
            expires: dealt.saturating_add(DAY * u64::from(terms.days)),
        };
        manifest.sign(&owner.signing)
    }

    /// Writes the guest's tickets, one after the other, and returns the content hash.
    fn write_tickets(
        &self,
        path: &Path,
        tickets: u32,
        (seed, id): (&[u8; 32], &[u8; 16]),
        mut link: Chain,
        mut progress: impl FnMut(u32),
    ) -> Result<[u8; 32], TicketError> {
        let owner = self.owner;
        let description = Description {
            name: owner.name.clone(),
            network: owner.original.network().clone(),
            rows: owner.original.rows().clone(),
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
            for index in 0..tickets {
                let nonce = random::<32>()?;
                let key = server_key(seed, id, index, &nonce);
                let mut shares = Zeroizing::new(deal(&self.model, self.backend, &key, &link.key()));
                link.apply(&mut shares);
                let ticket = [nonce.as_slice(), &shares].concat();
                shares.zeroize();
                out.section(&wallet::ticket_section(index), &ticket).map_err(fail)?;
                link = link.next();
                progress(index + 1);
            }
            out.finish().map_err(fail).map(|(_, hash)| hash)
        })
    }
}
