//! Tickets that are dealt when their guest asks for them.

use super::*;
use crate::Left;
use crate::passphrase::PassphraseFault;

impl World {
    fn stock(&self) -> Result<Stock, TicketError> {
        Stock::open(&self.at("batch/server"), &self.owner())
    }

    fn wallet_info(&self) -> WalletInfo {
        WalletInfo::read(&self.at("batch"), None).unwrap()
    }

    /// The next block as bytes.
    fn block(&self, stock: &Stock, dealer: &Dealer) -> Vec<u8> {
        let mut bytes = vec![];
        let claimed = stock.claim().unwrap();
        stock
            .deal(dealer, claimed, |part| {
                bytes.extend(part);
                Ok(())
            })
            .unwrap();
        bytes
    }
}

/// Blocks come, serve, and their files go; lost ones are skipped by both sides.
#[test]
fn blocks_serve_and_lost_ones_are_skipped() {
    let world = World::new();
    let dealt = world.deal_as("batch", 150, true);
    assert!(dealt.wallet_bytes < 8 * dealt.manifest.ticket_bytes, "a wallet without tickets");
    let (stock, dealer) = (world.stock().unwrap(), world.dealer());
    let mut wallet = world.wallet("batch").unwrap();
    // Of a process that was killed.
    std::fs::write(world.at("batch/wallet/.writing-x"), "half a block").unwrap();
    assert!(matches!(wallet.take(1), Err(TicketError::Unfetched { left: 0, .. })));
    let first = world.block(&stock, &dealer);
    assert_eq!(wallet.accept(&world.identity, &mut first.as_slice()).unwrap(), 64);
    assert_eq!((wallet.left(), stock.left()), (64, 86));
    // The second one is lost on the way.
    world.block(&stock, &dealer);
    let third = world.block(&stock, &dealer);
    assert_eq!(wallet.accept(&world.identity, &mut third.as_slice()).unwrap(), 22);
    assert!(matches!(stock.claim(), Err(TicketError::UsedUp { .. })));
    assert!(matches!(wallet.check_room(), Err(TicketError::Dealing { .. })));
    assert_eq!(wallet.take(63).unwrap().len(), 63);
    assert_eq!(wallet.take(2).unwrap().last().map(|t| t.index), Some(63), "no further than the gap");
    assert!(!world.at("batch/wallet/tickets.0").exists());
    let (server, batch) = (world.server(), world.batch("batch").unwrap());
    batch.claim(0, 64).unwrap();
    for left in (0..22).rev() {
        let (_, transcript) = play(&world, &server, &batch, &mut wallet, |_, _| {});
        assert_eq!((wallet.left(), transcript.index), (left, 149 - left));
        if left == 7 {
            let path = world.at("transcript");
            let auditor = Auditor::new(world.owner(), &world.at("batch/server"), Backend::best()).unwrap();
            assert_eq!(auditor.judge(&path, &transcript).unwrap(), Verdict::Honest);
        }
    }
    assert!(matches!(wallet.take(1), Err(TicketError::UsedUp { .. })));
    let left: Vec<_> = std::fs::read_dir(world.at("batch/wallet")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// What the owner did not sign for this place never becomes a ticket, and the wallet stays as it
/// was.
#[test]
fn every_byte_of_a_block_counts() {
    let world = World::new();
    world.deal_as("batch", 3, true);
    let block = world.block(&world.stock().unwrap(), &world.dealer());
    let mut wallet = world.wallet("batch").unwrap();
    let key = std::fs::read(world.at("batch/wallet/key")).unwrap();
    let step = (block.len() / 500).max(1);
    for at in (0..block.len()).step_by(step).chain(0..200) {
        let mut bad = block.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(wallet.accept(&world.identity, &mut bad.as_slice()).is_err(), "byte {at} of {}", block.len());
    }
    for length in (0..block.len()).step_by(step) {
        assert!(wallet.accept(&world.identity, &mut &block[..length]).is_err(), "{length} bytes");
    }
    // A half in another's place.
    let half = 32 + 64 + wallet.manifest().ticket_bytes as usize;
    let mut swapped = block.clone();
    let first = block.len() - 3 * half;
    swapped[first..].rotate_left(half);
    let refused = wallet.accept(&world.identity, &mut swapped.as_slice());
    assert!(matches!(refused, Err(TicketError::Signature { .. })), "{refused:?}");
    assert_eq!(std::fs::read(world.at("batch/wallet/key")).unwrap(), key);
    assert_eq!(wallet.left(), 0);
    assert_eq!(wallet.accept(&world.identity, &mut block.as_slice()).unwrap(), 3);
    let again = wallet.accept(&world.identity, &mut block.as_slice());
    assert!(again.is_err(), "a block comes once");
}

/// A ticket that was dealt counts as dealt after a crash too, and no two are alike.
#[test]
fn the_owner_counts_on_disk() {
    let world = World::new();
    world.deal_as("batch", 130, true);
    let stock = world.stock().unwrap();
    assert!(matches!(world.stock(), Err(TicketError::Read { .. })), "two at a time");
    assert_eq!(stock.claim().unwrap(), 0..64);
    drop(stock);
    let stock = world.stock().unwrap();
    let claims = std::thread::scope(|scope| {
        let claims: Vec<_> = (0..4).map(|_| scope.spawn(|| stock.claim().ok())).collect();
        let mut got: Vec<_> = claims.into_iter().filter_map(|c| c.join().unwrap()).collect();
        got.sort_by_key(|range| range.start);
        got
    });
    assert_eq!(claims, [64..128, 128..130]);
    let whole = World::new();
    whole.deal("batch", 2);
    assert!(matches!(whole.stock(), Err(TicketError::Dealing { .. })));
    assert!(matches!(whole.wallet("batch").unwrap().check_room(), Err(TicketError::Dealing { .. })));
    assert!(matches!(Stock::open(&world.at("batch/server"), &whole.owner()), Err(TicketError::Other { .. })));
}

/// A file that is gone costs its own tickets, once, and no others.
#[test]
fn a_lost_file_is_told_once() {
    let world = World::new();
    world.deal_as("batch", 192, true);
    let (stock, dealer) = (world.stock().unwrap(), world.dealer());
    let mut wallet = world.wallet("batch").unwrap();
    for _ in 0..3 {
        let block = world.block(&stock, &dealer);
        wallet.accept(&world.identity, &mut block.as_slice()).unwrap();
    }
    wallet.take(4).unwrap();
    std::fs::remove_file(world.at("batch/wallet/tickets.0")).unwrap();
    // The first block's file is still open in this process.
    drop(wallet);
    let mut wallet = world.wallet("batch").unwrap();
    assert!(matches!(wallet.take(1), Err(TicketError::Lost { tickets: 60, .. })));
    assert_eq!((wallet.left(), wallet.take(1).unwrap()[0].index), (128, 64));
    std::fs::write(world.at("batch/wallet/tickets.128"), "something else").unwrap();
    wallet.take(63).unwrap();
    assert!(matches!(wallet.take(1), Err(TicketError::Lost { tickets: 64, .. })));
    assert_eq!(world.wallet_info().left(&world.identity).unwrap(), Left { here: 0, fetchable: 0 });
}

/// While one waits for a block, another uses tickets.
#[test]
fn who_waits_lets_others_in() {
    let world = World::new();
    world.deal_as("batch", 128, true);
    let (stock, dealer) = (world.stock().unwrap(), world.dealer());
    let mut wallet = world.wallet("batch").unwrap();
    wallet.accept(&world.identity, &mut world.block(&stock, &dealer).as_slice()).unwrap();
    assert!(world.wallet("batch").is_err());
    wallet.free_while(&world.identity, || drop(world.wallet("batch").unwrap().take(3).unwrap())).unwrap();
    assert!(world.wallet("batch").is_err());
    assert_eq!((wallet.left(), wallet.take(1).unwrap()[0].index), (61, 3));
    let mut other = None;
    let kept = wallet.free_while(&world.identity, || other = world.wallet("batch").ok());
    assert!(other.is_some() && matches!(kept, Err(TicketError::Read { .. })));
}

/// Only the passphrase opens an owner's file, and no unlocked file takes its place.
#[test]
fn an_owners_file_can_be_locked() {
    let world = World::new();
    let (folder, secret) = (world.at("locked"), age::secrecy::SecretString::from("correct horse".to_owned()));
    let (original, wrong) = (world.owner().original, age::secrecy::SecretString::from("battery".to_owned()));
    write_sealed(&folder, "two layers", &original, &Preprocess::default(), Some(&secret)).unwrap();
    let read = |passphrase| OwnerFile::read(&folder, passphrase);
    assert_eq!(read(Some(&secret)).unwrap().name, "two layers");
    let fault = |read: Result<OwnerFile, TicketError>| match read {
        Err(TicketError::Passphrase { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(read(None)), PassphraseFault::Missing);
    assert!(matches!(fault(read(Some(&wrong))), PassphraseFault::Wrong(_)));
    assert_eq!(fault(OwnerFile::read(&world.at("sealed"), Some(&secret))), PassphraseFault::NotLocked);
}
