//! The ways in which `jali` carries a guest's messages inside of one process: channels between
//! threads, or a WebSocket on loopback between a real server and a real guest, with tickets in
//! files.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use jali::guests::{Backend, Channel, GuestClient, GuestTicket, Kept, Run, StreamKey, begin, fresh_key, infer, serve};
use jali::{JaliError, Preprocess, Tensor};
use jali_guest::{
    GuestModel, Masks, Original, OwnerModel, SealedForGuests, Served, ServerModel, ServerSession, deal_traced,
    difference,
};
use jali_model::fixed::FixedNetwork;
use jali_net::guests::GuestService;
use jali_net::{ClientConfig, Config, Running};
use jali_tickets::audit::Replay;
use jali_tickets::dealing::Dealt;
use jali_tickets::{Auditor, Batch, Dealer, GuestIdentity, OwnerFile, ServerFile, Terms, write_sealed};
use tempfile::TempDir;

use crate::text::{median, progress};

/// One image's inference.
pub(crate) struct Inferred {
    pub(crate) output: Tensor,
    pub(crate) latency: Duration,
    /// By step: times that the parties computed.
    pub(crate) guest: Vec<Duration>,
    pub(crate) server: Vec<Duration>,
    pub(crate) bytes_up: usize,
    pub(crate) bytes_down: usize,
    /// Whether every wire equals the reference.
    pub(crate) is_exact: bool,
}

/// Three parties that infer, over one way or another.
pub(crate) trait Way {
    /// What `transport` says.
    const NAME: &'static str;

    /// Infers the next image.
    fn infer(&mut self, image: &Tensor) -> anyhow::Result<Inferred>;

    /// What it took to deal a ticket.
    fn deal(&self) -> Duration;
}

/// A ticket with what a comparison needs.
struct InMemory {
    server: StreamKey,
    ticket: GuestTicket,
    masks: Masks,
}

/// Guest and server on two threads.
pub(crate) struct InProcess {
    fixed: FixedNetwork,
    guest: GuestModel,
    owner: OwnerModel,
    tickets: VecDeque<InMemory>,
    deal: Duration,
    link: Channel,
    to_server: mpsc::Sender<StreamKey>,
    ended: mpsc::Receiver<Result<Run<Served>, JaliError>>,
}

impl InProcess {
    /// Deals all tickets and starts the server.
    pub(crate) fn start(original: &Original, images: usize) -> anyhow::Result<Self> {
        let fixed = original.network().clone();
        let SealedForGuests { server, guest, owner, .. } = original.seal()?;
        let bar = progress(images, "dealing");
        let (mut tickets, mut times) = (VecDeque::new(), vec![]);
        for _ in 0..images {
            let (for_server, for_guest) = (fresh_key()?, fresh_key()?);
            let start = Instant::now();
            let (shares, masks) = deal_traced(&owner, Backend::best(), &for_server, &for_guest);
            times.push(start.elapsed());
            tickets.push_back(InMemory { server: for_server, ticket: GuestTicket::new(for_guest, shares), masks });
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (link, at_server) = Channel::pair();
        let ((to_server, keys), (ends, ended)) = (mpsc::channel(), mpsc::channel());
        // It ends when the guest hangs up.
        std::thread::spawn(move || serve_all(&server, at_server, keys, &ends));
        Ok(Self { fixed, guest, owner, tickets, deal: median(times), link, to_server, ended })
    }
}

/// The server's thread: it takes one key after the other and gives back what it ended with.
fn serve_all(
    model: &ServerModel,
    mut link: Channel,
    keys: mpsc::Receiver<StreamKey>,
    ends: &mpsc::Sender<Result<Run<Served>, JaliError>>,
) {
    for key in keys {
        let session = ServerSession::new(model, Backend::best(), key).traced();
        if ends.send(serve(session, &mut link)).is_err() {
            return;
        }
    }
}

impl Way for InProcess {
    const NAME: &'static str = "in-process";

    fn infer(&mut self, image: &Tensor) -> anyhow::Result<Inferred> {
        let Some(InMemory { server, ticket, masks }) = self.tickets.pop_front() else {
            anyhow::bail!("no ticket is left")
        };
        self.to_server.send(server)?;
        let start = Instant::now();
        let input = self.fixed.quantise(image)?;
        let begun = begin(&self.guest, Backend::best(), ticket, &input, true)?;
        let run = infer(begun, &mut self.link)?;
        let output = self.fixed.numbers(&run.done.integers)?;
        let latency = start.elapsed();
        let served = self.ended.recv()??;
        let is_exact = served.done.trace.as_ref().is_some_and(|trace| {
            difference(&self.fixed, self.owner.circuit(), &masks, trace, &run.done, &input).is_none()
        });
        Ok(Inferred {
            output,
            latency,
            guest: run.computing,
            server: served.computing,
            bytes_up: run.bytes_sent,
            bytes_down: run.bytes_received,
            is_exact,
        })
    }

    fn deal(&self) -> Duration {
        self.deal
    }
}

/// A server behind a socket of this machine, and guests with wallets: everything in files.
pub(crate) struct House {
    /// Where the server listens.
    pub(crate) addr: SocketAddr,
    /// The owner's public key.
    owner: [u8; 32],
    identity: GuestIdentity,
    batches: Vec<Dealt>,
    /// What it took to deal a ticket, on all threads.
    pub(crate) deal: Duration,
    _running: Running,
    folder: TempDir,
}

impl House {
    /// Seals and deals into files, a batch for each guest, and starts the server.
    pub(crate) fn start(original: &Original, name: &str, guests: usize, tickets: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        write_sealed(&at("sealed"), name, original, &Preprocess::default(), None).map_err(JaliError::from)?;
        let owner = OwnerFile::read(&at("sealed"), None).map_err(JaliError::from)?;
        let identity = GuestIdentity::generate();
        let terms = Terms { guest: identity.recipient(), tickets, days: 1, on_demand: false };
        let bar = progress(guests * tickets as usize, "dealing");
        let dealer = Dealer::new(owner, Backend::best());
        let begun = Instant::now();
        let batch = |i: usize| dealer.deal(&at(&format!("batch-{i}")), &terms, |_| bar.inc(1));
        let batches = (0..guests).map(batch).collect::<Result<Vec<_>, _>>().map_err(JaliError::from)?;
        let (deal, owner) = (begun.elapsed() / (guests as u32 * tickets).max(1), dealer.owner().public_key());
        bar.finish_and_clear();
        let file = ServerFile::read(&at("sealed")).map_err(JaliError::from)?;
        let open = |dealt: &Dealt| Batch::open(&dealt.server, &file).map(Arc::new);
        let opened = batches.iter().map(open).collect::<Result<_, _>>().map_err(JaliError::from)?;
        let service = GuestService::new(Arc::new(file), opened, Backend::best());
        let config = Config::loopback();
        let running = Running::start(config).map_err(JaliError::from)?;
        running.serve_guests(vec![Arc::new(service)]);
        Ok(Self { addr: running.addr(), owner, identity, batches, deal, _running: running, folder })
    }

    /// A guest whose server, or the relay to it, is at an address.
    pub(crate) fn client(&self, guest: usize, addr: SocketAddr) -> anyhow::Result<GuestClient> {
        let config = ClientConfig {
            url: format!("http://{addr}"),
            ca_cert: None,
            token: None,
            timeout: Duration::from_secs(60),
            insecure: false,
        };
        Ok(GuestClient::open(&self.batches[guest].wallet, &self.identity, Some(&self.owner), config)?)
    }
}

/// A house with one guest, whose inferences are compared with the reference.
pub(crate) struct Loopback {
    auditor: Auditor,
    client: GuestClient,
    left: u32,
    house: House,
}

impl Loopback {
    /// Seals and deals into files, and starts the server.
    pub(crate) fn start(original: &Original, name: &str, images: usize) -> anyhow::Result<Self> {
        let left = images as u32;
        let house = House::start(original, name, 1, left)?;
        Self::of(house, None)
    }

    /// Has the guest reach the server at an address, if one is given.
    pub(crate) fn of(house: House, addr: Option<SocketAddr>) -> anyhow::Result<Self> {
        let client = house.client(0, addr.unwrap_or(house.addr))?.keeping(Kept::Everything);
        let folder = house.batches[0].server.clone();
        let owner = OwnerFile::read(&house.folder.path().join("sealed"), None).map_err(JaliError::from)?;
        let auditor = Auditor::new(owner, &folder, Backend::best()).map_err(JaliError::from)?;
        Ok(Self { auditor, left: client.left(), client, house })
    }
}

impl Way for Loopback {
    const NAME: &'static str = "loopback";

    fn infer(&mut self, image: &Tensor) -> anyhow::Result<Inferred> {
        self.left = self.left.saturating_sub(1);
        // Tickets are fetched and checked before there is an image.
        self.client.read_ahead(self.left + 1)?;
        let answer = self.client.infer(image, self.left)?;
        let (Some(transcript), Some((input, key))) = (&answer.transcript, &answer.input) else {
            anyhow::bail!("nothing was kept to compare with")
        };
        let auditor = &self.auditor;
        let replayed = auditor.replay(transcript.index, &transcript.nonce, &transcript.up);
        let (is_exact, server) = match replayed {
            Some(Replay { down, trace, computing }) => {
                let masks = auditor.masks(transcript.index, &transcript.nonce, key);
                let (fixed, circuit) = (auditor.network(), auditor.circuit());
                let differs = difference(fixed, circuit, &masks, &trace, &answer.run.done, input);
                (differs.is_none() && down == transcript.down, computing)
            }
            None => (false, vec![]),
        };
        Ok(Inferred {
            output: answer.output,
            latency: answer.latency,
            guest: answer.run.computing,
            server,
            bytes_up: answer.run.bytes_sent,
            bytes_down: answer.run.bytes_received,
            is_exact,
        })
    }

    fn deal(&self) -> Duration {
        self.house.deal
    }
}
