//! A guest of a server in another process.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use jali_guest::{Backend, Output, StreamKey};
use jali_model::Tensor;
use jali_net::ClientConfig;
use jali_net::guests::MAX_TICKETS;
use jali_net::guests::asking::{Exchange, GuestConnection, Tickets};
use jali_tickets::envelope::Ended;
use jali_tickets::{GuestIdentity, Manifest, Transcript, Wallet, WalletTicket};

use super::drive::{self, Line, Run, begin};
use crate::JaliError;

/// Most bytes of tickets that are read ahead.
const READ_AHEAD: u64 = 1 << 26;

impl Line for Exchange<'_> {
    fn send(&mut self, message: Vec<u8>) -> Result<(), JaliError> {
        Ok(Exchange::send(self, message)?)
    }

    fn receive(&mut self) -> Result<Vec<u8>, JaliError> {
        Ok(Exchange::receive(self)?)
    }
}

/// What is kept of an inference beside its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kept {
    /// Nothing.
    #[default]
    Nothing,
    /// The signed transcript, for the owner to judge.
    Transcript,
    /// The transcript, all wires and the ticket's key: what comparing with the reference takes.
    Everything,
}

/// What a guest gets.
#[derive(Debug)]
pub struct GuestAnswer {
    /// The network's output.
    pub output: Tensor,
    /// From the image to the output.
    pub latency: Duration,
    /// Times and bytes, and the output as integers.
    pub run: Run<Output>,
    /// The signed transcript, if it was asked for.
    pub transcript: Option<Transcript>,
    /// The integers that the network took, and the ticket's key, if everything was asked for.
    pub input: Option<(Vec<i32>, StreamKey)>,
}

/// A guest with its wallet.
#[derive(Debug)]
pub struct GuestClient {
    wallet: Wallet,
    config: ClientConfig,
    backend: Backend,
    kept: Kept,
    /// Tickets that are used up on disk, read and checked.
    ready: VecDeque<WalletTicket>,
    connection: Option<GuestConnection>,
}

impl GuestClient {
    /// Opens a wallet for the server of `config`. Nothing is sent yet. With `owner`, the tickets
    /// must be signed by that owner.
    ///
    /// # Errors
    /// [`JaliError::Net`] for a URL that can never be used; [`JaliError::Tickets`] with the file that
    /// is missing, damaged or another guest's.
    pub fn open(
        folder: &Path,
        identity: &GuestIdentity,
        owner: Option<&[u8; 32]>,
        config: ClientConfig,
    ) -> Result<Self, JaliError> {
        config.check()?;
        let wallet = Wallet::open(folder, identity, owner)?;
        let (backend, kept) = (Backend::best(), Kept::default());
        Ok(Self { wallet, config, backend, kept, ready: VecDeque::new(), connection: None })
    }

    /// Sets what is kept of an inference.
    #[must_use]
    pub fn keeping(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// Sets what is kept of the next inferences.
    pub fn keep(&mut self, kept: Kept) {
        self.kept = kept;
    }

    /// Returns what the owner has signed.
    pub fn manifest(&self) -> &Manifest {
        self.wallet.manifest()
    }

    /// Returns how images become inputs, and the network without its weights.
    pub fn description(&self) -> &jali_tickets::sealed::Description {
        self.wallet.description()
    }

    /// Returns how many tickets are left.
    pub fn left(&self) -> u32 {
        self.wallet.left() + self.ready.len() as u32
    }

    /// Checks that there are tickets for so many images.
    ///
    /// # Errors
    /// [`JaliError::Tickets`] if they are too few, or their time is over.
    pub fn check_left(&self, images: u32) -> Result<(), JaliError> {
        Ok(self.wallet.check_left(images.saturating_sub(self.ready.len() as u32))?)
    }

    /// Uses up tickets for the next `images` images, reads and checks them. Fewer are read at a
    /// time where they are large; [`GuestClient::infer`] reads on.
    ///
    /// # Errors
    /// [`JaliError::Tickets`] if there are none.
    pub fn read_ahead(&mut self, images: u32) -> Result<(), JaliError> {
        if self.ready.is_empty() {
            let bytes = self.manifest().ticket_bytes.max(1);
            let most = u32::try_from(READ_AHEAD / bytes).unwrap_or(MAX_TICKETS).clamp(1, MAX_TICKETS);
            let count = images.clamp(1, most).min(self.wallet.left().max(1));
            self.ready.extend(self.wallet.take(count)?);
            // A connection serves the tickets that it began with.
            self.connection = None;
        }
        Ok(())
    }

    /// Infers. It uses up a ticket, whatever happens. `more` images follow this one.
    ///
    /// # Errors
    /// [`JaliError::Model`] for an image of another shape, and no ticket is used then;
    /// [`JaliError::Tickets`], [`JaliError::Net`], [`JaliError::Guest`].
    pub fn infer(&mut self, image: &Tensor, more: u32) -> Result<GuestAnswer, JaliError> {
        let input = self.wallet.description().network.quantise(image)?;
        self.read_ahead(more.saturating_add(1))?;
        let Some(WalletTicket { index, nonce, ticket }) = self.ready.pop_front() else {
            return Err(JaliError::Transport(std::io::Error::other("no ticket was read")));
        };
        let (begun_at, everything) = (Instant::now(), self.kept == Kept::Everything);
        let key = everything.then(|| ticket.key());
        let answered = self.run(index, nonce, ticket, &input);
        let (run, ended) = answered.inspect_err(|_| {
            // What the server took with this connection is used up. Without one it took nothing,
            // and what was read ahead serves the next images.
            if self.connection.take().is_some() {
                self.ready.clear();
            }
        })?;
        let output = self.wallet.description().network.numbers(&run.done.integers)?;
        let latency = begun_at.elapsed();
        if self.ready.is_empty()
            && let Some(connection) = self.connection.take()
        {
            connection.close();
        }
        let transcript = self.transcript(index, nonce, ended)?;
        Ok(GuestAnswer { output, latency, run, transcript, input: key.map(|key| (input, key)) })
    }

    fn run(
        &mut self,
        index: u32,
        nonce: [u8; 32],
        ticket: jali_guest::GuestTicket,
        input: &[i32],
    ) -> Result<(Run<Output>, Ended), JaliError> {
        let Self { wallet, config, backend, kept, ready, connection } = self;
        // What is open is computed before the server hears of this guest.
        let begun = begin(wallet.model(), *backend, ticket, input, *kept == Kept::Everything)?;
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let count = 1 + ready.len() as u32;
                let tickets = Tickets { manifest: wallet.manifest(), token: wallet.token(), first: index, count };
                let connection = connection.insert(GuestConnection::open(config, wallet.manifest().model)?);
                connection.show(&tickets)?;
                connection
            }
        };
        let messages = wallet.model().circuit().counts().exchanges + 1;
        let mut exchange = Exchange::begin(connection, nonce, messages, *kept != Kept::Nothing);
        let run = drive::infer(begun, &mut exchange)?;
        Ok((run, exchange.end()))
    }

    /// The transcript, if it was asked for; its signature is checked in any case.
    fn transcript(&self, index: u32, nonce: [u8; 32], ended: Ended) -> Result<Option<Transcript>, JaliError> {
        let signature = ended.signed(self.manifest(), index, &nonce).ok_or_else(|| {
            JaliError::Net(jali_net::NetError::Foreign {
                url: self.config.url.clone(),
                why: "its signature does not fit: it is not the server that the owner named, or it lied".into(),
            })
        })?;
        let manifest = self.wallet.signed().clone();
        Ok(ended.kept.map(|[up, down]| Transcript { manifest, index, nonce, up, down, signature }))
    }
}
