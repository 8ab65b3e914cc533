//! A wallet in memory.

use std::io::Cursor;

use super::*;
use crate::held::WalletFiles;

/// The files of a wallet, and what was stored of it since.
struct Device {
    manifest: Vec<u8>,
    tickets: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

impl Device {
    fn of(world: &World, name: &str) -> Self {
        let file = |file: &str| std::fs::read(world.at(name).join("wallet").join(file)).unwrap();
        Self { manifest: file("manifest"), tickets: file("tickets"), keys: vec![file("key")] }
    }

    fn open(&self, identity: &GuestIdentity) -> Result<HeldWallet<Cursor<Vec<u8>>>, TicketError> {
        let keys: Vec<&[u8]> = self.keys.iter().map(Vec::as_slice).collect();
        let files = WalletFiles { manifest: &self.manifest, tickets: Cursor::new(self.tickets.clone()), keys: &keys };
        HeldWallet::open(files, identity, None)
    }
}

/// It gives the tickets of the wallet on disk, one by one, and none again once its key is stored.
#[test]
fn it_gives_what_the_wallet_on_disk_gives() {
    let world = World::new();
    world.deal("batch", 3);
    let mut device = Device::of(&world, "batch");
    let mut on_disk = world.wallet("batch").unwrap();
    for left in (0..3).rev() {
        let mut wallet = device.open(&world.identity).unwrap();
        let unstored = wallet.take(0).unwrap();
        // A device that stores no key would take it again; one that does, in any order, goes on.
        device.keys.insert(0, unstored.key().to_vec());
        let (ticket, same) = (unstored.stored(), on_disk.take(1).unwrap().remove(0));
        assert_eq!((ticket.index, ticket.nonce), (same.index, same.nonce));
        assert_eq!(ticket.ticket.key().expose(), same.ticket.key().expose());
        assert_eq!(wallet.left(), left);
        assert_eq!(device.open(&world.identity).unwrap().left(), left);
    }
    let mut wallet = device.open(&world.identity).unwrap();
    assert!(matches!(wallet.take(0), Err(TicketError::UsedUp { left: 0, of: 3, .. })));
}

#[test]
fn its_time_ends() {
    let world = World::new();
    let dealt = world.deal("batch", 2);
    let mut wallet = Device::of(&world, "batch").open(&world.identity).unwrap();
    assert!(wallet.take(dealt.manifest.expires).is_ok());
    assert!(matches!(wallet.take(dealt.manifest.expires + 1), Err(TicketError::Expired { .. })));
    assert_eq!(wallet.left(), 1);
}

#[test]
fn foreign_damaged_and_fetched_files_are_refused() {
    let world = World::new();
    world.deal("batch", 2);
    world.deal("other", 2);
    world.deal_as("fetched", 2, true);
    let right = std::fs::read(world.at("batch/wallet/key")).unwrap();
    let good = || Device { keys: vec![right.clone()], ..Device::of(&world, "batch") };
    assert!(matches!(good().open(&GuestIdentity::generate()), Err(TicketError::Key { .. })));
    let other = Device { tickets: Device::of(&world, "other").tickets, ..good() };
    assert!(matches!(other.open(&world.identity), Err(TicketError::Other { .. })));
    // A key of another batch of the same guest, also beside the right one.
    for keys in
        [vec![Device::of(&world, "other").keys.remove(0)], [good().keys, Device::of(&world, "other").keys].concat()]
    {
        let mixed = Device { keys, ..good() };
        assert!(matches!(mixed.open(&world.identity), Err(TicketError::Other { what: "token", .. })));
    }
    std::fs::copy(world.at("other/wallet/key"), world.at("batch/wallet/key")).unwrap();
    assert!(matches!(world.wallet("batch"), Err(TicketError::Other { what: "token", .. })));
    let fetched = Device::of(&world, "fetched").open(&world.identity);
    assert!(matches!(fetched, Err(TicketError::Dealing { .. })));
    assert!(matches!(Device { keys: vec![], ..good() }.open(&world.identity), Err(TicketError::Read { .. })));
    let end = good().manifest.len();
    for at in [0, end / 2, end - 1] {
        let mut device = good();
        device.manifest[at] ^= 1;
        assert!(device.open(&world.identity).is_err(), "byte {at} of the manifest");
    }
    // A damaged ticket is used up, and the next one serves.
    let (mut device, first) = (good(), first_nonce(&world, &right));
    let ticket = device.tickets.windows(32).position(|w| w == first).unwrap();
    device.tickets[ticket + 40] ^= 1;
    let mut wallet = device.open(&world.identity).unwrap();
    assert!(matches!(wallet.take(0), Err(TicketError::Bundle { .. })));
    assert_eq!(wallet.take(0).unwrap().stored().index, 1);
}

fn first_nonce(world: &World, right: &[u8]) -> [u8; 32] {
    Device { keys: vec![right.to_vec()], ..Device::of(world, "batch") }
        .open(&world.identity)
        .unwrap()
        .take(0)
        .unwrap()
        .stored()
        .nonce
}
