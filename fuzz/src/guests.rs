//! Decoders of the guests' mode.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use jali_bundle::Kind;
use jali_guest::{
    Backend, Circuit, GuestError, GuestSession, GuestTicket, Original, SealedForGuests, ServerSession, StreamKey, Tables, Turn,
    deal, seal,
};
use jali_leak::Plan;
use jali_model::{Preprocess, Tensor};
use jali_model::fixed::{FixedConfig, FixedNetwork};
use jali_net::guests::Hello;
use jali_tickets::{
    Dealer, GuestIdentity, OwnerFile, ServerFile, SignedManifest, Stock, Terms, Transcript, Wallet, write_sealed,
};

use crate::{bundle, graph};

/// Most numbers of a network whose circuit is made.
const SMALL: usize = 1 << 14;

/// A small network sealed for guests, with a ticket and the guest's messages.
pub struct SmallGuest {
    pub network: FixedNetwork,
    pub sealed: SealedForGuests,
    pub shares: Vec<u8>,
    pub messages: Vec<Vec<u8>>,
}

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32])
}

/// The small network.
pub fn small() -> &'static SmallGuest {
    static ONE: OnceLock<SmallGuest> = OnceLock::new();
    ONE.get_or_init(|| {
        let graph = graph();
        let image = Tensor::new("image", vec![6], vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).unwrap();
        let images = std::slice::from_ref(&image);
        let network = FixedNetwork::calibrate(&graph, FixedConfig::default(), images, None).unwrap();
        let sealed = seal(&network, &graph, &Plan::hide_all(&graph), &key(1)).unwrap();
        let shares = deal(&sealed.owner, Backend::best(), &key(2), &key(3));
        let ticket = GuestTicket::new(key(3), shares.clone());
        let input = network.quantise(&image).unwrap();
        let (first, start) = GuestSession::begin(&sealed.guest, Backend::best(), ticket, &input).unwrap();
        let Turn::Goes { message, .. } = start.run().unwrap() else { panic!("its layers are hidden") };
        let messages = vec![first, message];
        SmallGuest { network, sealed, shares, messages }
    })
}

/// A network without weights.
pub fn network(data: &[u8]) {
    let Ok(network) = FixedNetwork::from_bytes(data) else { return };
    let numbers: usize = network.steps.iter().map(|s| s.shape.iter().product::<usize>()).sum();
    if numbers <= SMALL {
        Circuit::new(&network, &[], Tables::Small).counts();
    }
}

/// Files behind right checksums.
pub fn files(data: &[u8]) {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::temp_dir().join(format!("jali-fuzz-{}", std::process::id())));
    for kind in [Kind::GuestServer, Kind::GuestOwner, Kind::Manifest, Kind::Transcript] {
        let names: &[&'static str] = match kind {
            Kind::Manifest => &["manifest", "signature"],
            Kind::Transcript => &["manifest", "signature", "ticket", "up", "down"],
            _ => &["network", "keys", "layer 0", "layer 2"],
        };
        std::fs::write(path, bundle(kind, data, names)).unwrap();
        let _ = match kind {
            Kind::Manifest => SignedManifest::read(path, None).map(|_| ()),
            Kind::Transcript => Transcript::read(path, &[0; 32]).map(|_| ()),
            Kind::GuestOwner => OwnerFile::read(path, None).map(|_| ()),
            _ => ServerFile::read(path).map(|_| ()),
        };
    }
}

/// A wallet whose tickets are dealt on demand, and the next block of them.
pub struct Asking {
    wallet: Wallet,
    identity: GuestIdentity,
    _folder: tempfile::TempDir,
    pub block: Vec<u8>,
}

pub fn asking() -> &'static Mutex<Asking> {
    static ONE: OnceLock<Mutex<Asking>> = OnceLock::new();
    ONE.get_or_init(|| {
        let (graph, folder) = (graph(), tempfile::tempdir().unwrap());
        let original = Original::new(small().network.clone(), &graph, &Plan::hide_all(&graph), key(1)).unwrap();
        write_sealed(&folder.path().join("sealed"), "fuzzed", &original, &Preprocess::default(), None).unwrap();
        let owner = || OwnerFile::read(&folder.path().join("sealed"), None).unwrap();
        let (dealer, identity) = (Dealer::new(owner(), Backend::best()), GuestIdentity::generate());
        let terms = Terms { guest: identity.recipient(), tickets: 4, days: 1, on_demand: true };
        let dealt = dealer.deal(&folder.path().join("batch"), &terms, |_| {}).unwrap();
        let stock = Stock::open(&dealt.server, dealer.owner()).unwrap();
        let mut block = vec![];
        let keep = |part: Vec<u8>| {
            block.extend(part);
            Ok(())
        };
        stock.deal(&dealer, stock.claim().unwrap(), keep).unwrap();
        let wallet = Wallet::open(&dealt.wallet, &identity, None).unwrap();
        Mutex::new(Asking { wallet, identity, _folder: folder, block })
    })
}

/// A block of tickets from an owner: these bytes, and the right ones with these bytes in them.
pub fn block(data: &[u8]) {
    let mut asking = asking().lock().unwrap();
    let Asking { wallet, identity, block, .. } = &mut *asking;
    let _ = wallet.accept(identity, &mut &*data);
    let Some((place, change)) = data.split_first_chunk::<2>() else { return };
    let place = usize::from(u16::from_le_bytes(*place)) % block.len();
    let mut changed = block.clone();
    let n = change.len().min(changed.len() - place);
    changed[place..place + n].copy_from_slice(&change[..n]);
    assert!(changed == *block || wallet.accept(identity, &mut changed.as_slice()).is_err());
}

/// A guest that has sent its first messages.
fn after_first(ticket: GuestTicket, image: &[i32]) -> Result<GuestSession<'static>, GuestError> {
    let (_, start) = GuestSession::begin(&small().sealed.guest, Backend::best(), ticket, image)?;
    match start.run()? {
        Turn::Goes { session, .. } | Turn::Waits(session) => Ok(session),
        Turn::Done(_) => unreachable!("the server's last message is missing"),
    }
}

/// A hello, a guest's first messages, a server's first message, and a ticket.
pub fn messages(data: &[u8]) {
    let _ = Hello::decode(data);
    let small = small();
    let _ = ServerSession::new(&small.sealed.server, Backend::best(), key(2)).receive(data);
    let server = ServerSession::new(&small.sealed.server, Backend::best(), key(2));
    if let Ok(Turn::Goes { session, .. }) = server.receive(&small.messages[0]) {
        let _ = session.receive(data);
    }
    let image = vec![1; 6];
    let ticket = GuestTicket::new(key(3), small.shares.clone());
    if let Ok(session) = after_first(ticket, &image) {
        let _ = session.receive(data);
    }
    let ticket = GuestTicket::new(key(3), data.to_vec());
    if let Ok(session) = after_first(ticket, &image) {
        let _ = session.receive(&small.messages[1]);
    }
}
