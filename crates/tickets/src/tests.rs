//! Files of a small network, all parties played.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jali_guest::{Backend, GuestSession, Original, Output, Plan, ServerSession, StreamKey, Turn};
use jali_model::fixed::{FixedConfig, FixedNetwork};
use jali_model::{Activation, Gemm, Graph, Op, Preprocess, Tensor};
use tempfile::TempDir;

use crate::transcript::Digest;
use crate::*;

mod held;
mod on_demand;

/// A network of two dense layers, and an input.
fn network() -> (Graph, Tensor) {
    let mut graph = Graph::new(vec![6]).unwrap();
    let numbers = |n: usize| (0..n).map(|i| ((i * 37 % 19) as f32 - 9.0) / 9.0).collect::<Vec<f32>>();
    let gemm = |inputs: usize, outputs: usize| {
        Op::Gemm(Gemm { weight: numbers(inputs * outputs), bias: numbers(outputs), inputs, outputs })
    };
    graph.push("first".into(), gemm(6, 20), vec![0]).unwrap();
    graph.push("relu".into(), Op::Activation(Activation::Relu), vec![1]).unwrap();
    graph.push("second".into(), gemm(20, 4), vec![2]).unwrap();
    (graph, Tensor { shape: vec![6], data: vec![0.1, 0.9, 0.5, 0.3, 0.0, 1.0] })
}

struct World {
    folder: TempDir,
    identity: GuestIdentity,
    input: Vec<i32>,
}

impl World {
    fn new() -> Self {
        let (graph, image) = network();
        let folder = tempfile::tempdir().unwrap();
        let fixed =
            FixedNetwork::calibrate(&graph, FixedConfig::default(), std::slice::from_ref(&image), None).unwrap();
        let input = fixed.quantise(&image).unwrap();
        let original = Original::new(fixed, &graph, &Plan::hide_all(&graph), StreamKey::from_bytes([9; 32])).unwrap();
        write_sealed(&folder.path().join("sealed"), "two layers", &original, &Preprocess::default(), None).unwrap();
        Self { folder, identity: GuestIdentity::generate(), input }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn owner(&self) -> OwnerFile {
        OwnerFile::read(&self.at("sealed"), None).unwrap()
    }

    fn server(&self) -> ServerFile {
        ServerFile::read(&self.at("sealed")).unwrap()
    }

    fn deal(&self, name: &str, tickets: u32) -> dealing::Dealt {
        self.deal_as(name, tickets, false)
    }

    fn deal_as(&self, name: &str, tickets: u32, on_demand: bool) -> dealing::Dealt {
        let terms = Terms { guest: self.identity.recipient(), tickets, days: 30, on_demand };
        self.dealer().deal(&self.at(name), &terms, |_| {}).unwrap()
    }

    fn dealer(&self) -> Dealer {
        Dealer::new(self.owner(), Backend::best())
    }

    fn wallet(&self, name: &str) -> Result<Wallet, TicketError> {
        Wallet::open(&self.at(name).join("wallet"), &self.identity, None)
    }

    fn batch(&self, name: &str) -> Result<Arc<Batch>, TicketError> {
        Batch::open(&self.at(name).join("server"), &self.server()).map(Arc::new)
    }
}

/// Plays one inference and returns the output and the signed transcript. `lie` changes messages of
/// the server before they are signed.
fn play(
    world: &World,
    server: &ServerFile,
    batch: &Arc<Batch>,
    wallet: &mut Wallet,
    mut lie: impl FnMut(usize, &mut Vec<u8>),
) -> (Output, Transcript) {
    let ticket = wallet.take(1).unwrap().remove(0);
    let mut claim = batch.claim(ticket.index, 1).unwrap();
    assert_eq!(claim.index(), ticket.index);
    let key = claim.key(&ticket.nonce).unwrap();
    assert!(claim.key(&ticket.nonce).is_none());
    let mut digest = Digest::new();
    let mut at_server = Some(ServerSession::new(&server.model, Backend::best(), key));
    let (first, start) = GuestSession::begin(wallet.model(), Backend::best(), ticket.ticket, &world.input).unwrap();
    let mut to_server = vec![first];
    let guest = match start.run().unwrap() {
        Turn::Goes { message, session } => {
            to_server.push(message);
            session
        }
        Turn::Waits(session) => session,
        Turn::Done(_) => unreachable!("the server's last message is missing"),
    };
    let (mut at_guest, mut up, mut down) = (Some(guest), vec![], vec![]);
    let output = 'run: loop {
        let mut to_guest = vec![];
        for message in to_server.drain(..) {
            digest.up(&message);
            match at_server.take().unwrap().receive(&message).unwrap() {
                Turn::Goes { message, session } => {
                    to_guest.push(message);
                    at_server = Some(session);
                }
                Turn::Waits(session) => at_server = Some(session),
                Turn::Done(served) => to_guest.push(served.message),
            }
            up.push(message);
        }
        for mut message in to_guest {
            lie(down.len(), &mut message);
            digest.down(&message);
            down.push(message.clone());
            match at_guest.take().unwrap().receive(&message).unwrap() {
                Turn::Goes { message, session } => {
                    to_server.push(message);
                    at_guest = Some(session);
                }
                Turn::Waits(session) => at_guest = Some(session),
                Turn::Done(output) => break 'run output,
            }
        }
    };
    let m = batch.manifest();
    let signature = digest.sign(server, &m.batch, ticket.index, &ticket.nonce);
    assert!(digest.is_signed(&m.server, &m.batch, ticket.index, &ticket.nonce, &signature));
    let manifest = wallet.signed().clone();
    (output, Transcript { manifest, index: ticket.index, nonce: ticket.nonce, up, down, signature })
}

#[test]
fn a_batch_serves_as_often_as_it_has_tickets() {
    let world = World::new();
    let dealt = world.deal("batch", 3);
    assert!(dealt.server_bytes < 4096, "{} bytes for the server", dealt.server_bytes);
    assert!(dealt.wallet_bytes > 3 * dealt.manifest.ticket_bytes);
    let (server, batch) = (world.server(), world.batch("batch").unwrap());
    let mut wallet = world.wallet("batch").unwrap();
    let reference = jali_model::fixed::reference::run(
        world.owner().original.network(),
        &world.input,
        jali_model::fixed::reference::to_nearest,
    );
    for left in (0..3).rev() {
        let (output, _) = play(&world, &server, &batch, &mut wallet, |_, _| {});
        for (got, want) in output.integers.iter().zip(&reference.output) {
            assert!((got - want).abs() <= 64, "{got} is not near {want}");
        }
        assert_eq!((wallet.left(), batch.left()), (left, left));
    }
    assert!(matches!(wallet.take(1), Err(TicketError::UsedUp { left: 0, of: 3, .. })));
    assert!(matches!(batch.claim(3, 1), Err(TicketError::UsedUp { .. })));
    // Both sides know it after a restart too.
    drop((wallet, batch));
    assert_eq!(world.wallet("batch").unwrap().left(), 0);
    assert_eq!(world.batch("batch").unwrap().left(), 0);
}

#[test]
fn a_ticket_serves_once() {
    let world = World::new();
    world.deal("batch", 8);
    let batch = world.batch("batch").unwrap();
    batch.claim(2, 2).unwrap();
    for first in 0..4 {
        assert!(matches!(batch.claim(first, 1), Err(TicketError::Replayed { .. })), "ticket {first}");
    }
    for (first, count) in [(4, 0), (4, 5), (8, 1), (u32::MAX, 1)] {
        assert!(matches!(batch.claim(first, count), Err(TicketError::UsedUp { .. })), "{count} from {first} on");
    }
    // Many claims of one ticket at once: one gets it.
    let got = std::thread::scope(|scope| {
        let claims: Vec<_> = (0..8).map(|_| scope.spawn(|| batch.claim(5, 1).is_ok())).collect();
        claims.into_iter().map(|c| c.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(got, 1);
    assert_eq!(batch.left(), 2);
}

#[test]
fn only_one_process_opens_a_half() {
    let world = World::new();
    world.deal("batch", 2);
    let (_batch, _wallet) = (world.batch("batch").unwrap(), world.wallet("batch").unwrap());
    assert!(matches!(world.batch("batch"), Err(TicketError::Read { .. })));
    assert!(matches!(world.wallet("batch"), Err(TicketError::Read { .. })));
}

/// Who restores an old mark makes tickets serve twice: SECURITY.md says so. Who loses it cannot go
/// on.
#[test]
fn what_is_used_is_one_file_on_each_side() {
    let world = World::new();
    world.deal("batch", 4);
    let (mark, key) = (world.at("batch/server.used"), world.at("batch/wallet/key"));
    let old = (std::fs::read(&mark).unwrap(), std::fs::read(&key).unwrap());
    world.batch("batch").unwrap().claim(0, 3).unwrap();
    world.wallet("batch").unwrap().take(3).unwrap();
    assert_eq!(std::fs::read(&mark).unwrap(), b"3\n");
    std::fs::write(&mark, &old.0).unwrap();
    std::fs::write(&key, &old.1).unwrap();
    assert!(world.batch("batch").unwrap().claim(0, 1).is_ok());
    assert_eq!(world.wallet("batch").unwrap().left(), 4);
    for bad in ["", "5\n", "-1\n", "1", "x\n"] {
        std::fs::write(&mark, bad).unwrap();
        assert!(world.batch("batch").is_err(), "{bad:?}");
    }
    std::fs::remove_file(&mark).unwrap();
    let lost = world.batch("batch").unwrap_err().to_string();
    assert!(lost.contains("another batch"), "{lost}");
}

/// After a ticket was taken nothing in the guest's folder opens it again.
#[test]
fn a_used_ticket_cannot_be_unlocked_again() {
    let world = World::new();
    world.deal("batch", 2);
    let mut wallet = world.wallet("batch").unwrap();
    let before = wallet.take(1).unwrap().remove(0);
    drop(wallet);
    let after = world.wallet("batch").unwrap().take(1).unwrap().remove(0);
    assert_eq!((before.index, after.index), (0, 1));
    assert_ne!(before.nonce, after.nonce);
}

#[test]
fn what_belongs_to_others_is_refused() {
    let world = World::new();
    let other = World::new();
    world.deal("batch", 1);
    other.deal("batch", 1);
    let foreign = other.at("batch/server");
    assert!(matches!(Batch::open(&foreign, &world.server()), Err(TicketError::Other { .. })));
    let wallet = world.at("batch/wallet");
    assert!(matches!(Wallet::open(&wallet, &other.identity, None), Err(TicketError::Key { .. })));
    let owner = other.owner().public_key();
    assert!(matches!(Wallet::open(&wallet, &world.identity, Some(&owner)), Err(TicketError::Other { .. })));
    assert!(Wallet::open(&world.at("batch"), &world.identity, None).is_ok(), "the folder that holds it");
    // Tickets of another batch of the same guest.
    world.deal("second", 1);
    std::fs::copy(world.at("second/wallet/tickets"), wallet.join("tickets")).unwrap();
    assert!(matches!(world.wallet("batch"), Err(TicketError::Other { .. })));
}

/// Every byte of every file counts.
#[test]
fn every_flipped_byte_is_noticed() {
    let world = World::new();
    world.deal("batch", 1);
    let owner = world.owner().public_key();
    let flipped = |path: &Path, opens: &dyn Fn() -> bool| {
        let bytes = std::fs::read(path).unwrap();
        let step = (bytes.len() / 400).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(path, &bad).unwrap();
            assert!(!opens(), "byte {at} of {} of {}", bytes.len(), path.display());
        }
        std::fs::write(path, bytes).unwrap();
        assert!(opens(), "{}", path.display());
    };
    let opens_wallet = || {
        let wallet = Wallet::open(&world.at("batch/wallet"), &world.identity, Some(&owner));
        // A ticket is read when it is taken; the key is put back for the next try.
        let key = std::fs::read(world.at("batch/wallet/key")).unwrap();
        let took = wallet.and_then(|mut w| w.take(1)).is_ok();
        std::fs::write(world.at("batch/wallet/key"), key).unwrap();
        took
    };
    for name in ["manifest", "tickets", "key"] {
        flipped(&world.at("batch/wallet").join(name), &opens_wallet);
    }
    flipped(&world.at("batch/server"), &|| world.batch("batch").is_ok());
    flipped(&world.at("sealed/server"), &|| ServerFile::read(&world.at("sealed")).is_ok());
    flipped(&world.at("sealed/owner"), &|| OwnerFile::read(&world.at("sealed"), None).is_ok());
}

#[test]
fn lies_are_judged_and_honest_servers_are_not() {
    let world = World::new();
    world.deal("batch", 3);
    let (owner, server, batch) = (world.owner(), world.server(), world.batch("batch").unwrap());
    let mut wallet = world.wallet("batch").unwrap();
    let path = world.at("transcript");
    let judged = |transcript: &Transcript| {
        transcript.write(&path).unwrap();
        let read = Transcript::read(&path, &owner.public_key()).unwrap();
        assert_eq!(read, *transcript);
        Auditor::new(world.owner(), &world.at("batch/server"), Backend::best()).unwrap().judge(&path, &read)
    };
    let (_, honest) = play(&world, &server, &batch, &mut wallet, |_, _| {});
    assert_eq!(judged(&honest).unwrap(), Verdict::Honest);
    let (_, lied) = play(&world, &server, &batch, &mut wallet, |number, message| {
        if number == 1 {
            message[0] ^= 1;
        }
    });
    assert_eq!(judged(&lied).unwrap(), Verdict::Lied);
    // What the server did not sign is not judged: a guest cannot ask about messages of its own
    // making.
    let mut forged = honest.clone();
    forged.up[0][0] ^= 1;
    assert!(matches!(judged(&forged), Err(TicketError::Signature { .. })));
    for change in [
        |t: &mut Transcript| t.index = 2,
        |t: &mut Transcript| t.nonce[0] ^= 1,
        |t: &mut Transcript| {
            t.up.push(vec![1]);
        },
    ] {
        let mut forged = honest.clone();
        change(&mut forged);
        assert!(matches!(judged(&forged), Err(TicketError::Signature { .. })));
    }
}

#[test]
fn keys_of_guests() {
    let folder = tempfile::tempdir().unwrap();
    let (path, identity) = (folder.path().join("me.key"), GuestIdentity::generate());
    identity.write(&path).unwrap();
    assert_eq!(GuestIdentity::read(&path).unwrap().recipient(), identity.recipient());
    assert!(matches!(identity.write(&path), Err(TicketError::Write { .. })));
    std::fs::write(&path, "no key").unwrap();
    assert!(matches!(GuestIdentity::read(&path), Err(TicketError::Key { .. })));
    assert!(!format!("{identity:?}").contains("SECRET"));
    let world = World::new();
    let terms = Terms { guest: "age1nonsense".into(), tickets: 1, days: 1, on_demand: false };
    let refused = world.dealer().deal(&world.at("batch"), &terms, |_| {});
    assert!(matches!(refused, Err(TicketError::Recipient { .. })));
    assert!(!world.at("batch").exists());
}

#[test]
#[cfg(unix)]
fn secrets_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.deal("batch", 1);
    let mode = |name: &str| std::fs::metadata(world.at(name)).unwrap().permissions().mode() & 0o077;
    for name in ["sealed/owner", "sealed/server", "batch/server", "batch/server.used", "batch/wallet/key"] {
        assert_eq!(mode(name), 0, "{name}");
    }
}
