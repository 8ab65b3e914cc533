//! Decoders of the guests' mode.

use std::path::PathBuf;
use std::sync::OnceLock;

use jali_bundle::Kind;
use jali_guest::{
    Backend, Circuit, GuestSession, GuestTicket, SealedForGuests, ServerSession, StreamKey, Turn, deal, seal,
};
use jali_leak::Plan;
use jali_model::Tensor;
use jali_model::fixed::{FixedConfig, FixedNetwork};
use jali_net::guests::Hello;
use jali_tickets::{OwnerFile, ServerFile, SignedManifest, Transcript};

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
        let (messages, _) = GuestSession::begin(&sealed.guest, Backend::best(), ticket, &input).unwrap();
        SmallGuest { network, sealed, shares, messages }
    })
}

/// A network without weights.
pub fn network(data: &[u8]) {
    let Ok(network) = FixedNetwork::from_bytes(data) else { return };
    let numbers: usize = network.steps.iter().map(|s| s.shape.iter().product::<usize>()).sum();
    if numbers <= SMALL {
        Circuit::new(&network, &[]).counts();
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
            Kind::GuestOwner => OwnerFile::read(path).map(|_| ()),
            _ => ServerFile::read(path).map(|_| ()),
        };
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
    if let Ok((_, session)) = GuestSession::begin(&small.sealed.guest, Backend::best(), ticket, &image) {
        let _ = session.receive(data);
    }
    let ticket = GuestTicket::new(key(3), data.to_vec());
    if let Ok((_, session)) = GuestSession::begin(&small.sealed.guest, Backend::best(), ticket, &image) {
        let _ = session.receive(&small.messages[1]);
    }
}
