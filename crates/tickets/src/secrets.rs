//! What a wallet keeps locked for its guest.

use std::path::Path;

use jali_guest::StreamKey;
use zeroize::Zeroizing;

use crate::TicketError;
use crate::durable::{self, Readers};
use crate::keys::{Chain, Credential, GuestIdentity, Token, lock};
use crate::manifest::{Manifest, same};
use crate::sealed::split_keys;

/// Most blocks of tickets in a wallet at a time.
pub(crate) const MAX_BLOCKS: usize = 256;
/// Most bytes of the file.
const MAX_LOCKED: u64 = 1 << 14;
/// Bytes of a block in the file.
const BLOCK: usize = 3 * 4 + 32;
/// Bytes before the blocks.
const HEAD: usize = 3 * 32 + 4;

/// Tickets that were dealt together and are not all used.
#[derive(Clone)]
pub(crate) struct Block {
    /// Index of the first one that was dealt; it names the block's file.
    pub(crate) first: u32,
    /// Index of the first one that is not used.
    pub(crate) next: u32,
    /// Index behind the last one.
    pub(crate) end: u32,
    /// The link of `next`.
    pub(crate) chain: Chain,
}

/// What is locked for the guest.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) mask: StreamKey,
    pub(crate) token: Token,
    pub(crate) credential: Credential,
    /// Index behind the last ticket that came.
    pub(crate) dealt: u32,
    /// What is not used, in order.
    pub(crate) blocks: Vec<Block>,
}

impl Secrets {
    /// Writes them, locked for the guest.
    pub(crate) fn write(&self, path: &Path, guest: &str) -> Result<(), TicketError> {
        durable::write(path, Readers::Owner, &self.locked(guest)?)
    }

    /// Locks them for the guest.
    pub(crate) fn locked(&self, guest: &str) -> Result<Vec<u8>, TicketError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + BLOCK * self.blocks.len()));
        for key in [self.mask.expose(), self.token.bytes(), self.credential.bytes()] {
            bytes.extend_from_slice(key);
        }
        bytes.extend_from_slice(&self.dealt.to_le_bytes());
        for block in &self.blocks {
            for number in [block.first, block.next, block.end] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(block.chain.bytes());
        }
        lock(guest, &bytes)
    }

    /// Reads and unlocks those of a batch.
    pub(crate) fn read(path: &Path, identity: &GuestIdentity, batch: &Manifest) -> Result<Self, TicketError> {
        Self::unlocked(path, &durable::read(path, MAX_LOCKED)?, identity, batch)
    }

    /// Unlocks those of a batch; `path` names the file in which they stand.
    pub(crate) fn unlocked(
        path: &Path,
        locked: &[u8],
        identity: &GuestIdentity,
        batch: &Manifest,
    ) -> Result<Self, TicketError> {
        let bytes = identity.unlock(path, locked)?;
        let damaged = || TicketError::part(path, "what is locked in it");
        let (keys, rest) = bytes.split_at_checked(HEAD - 4).ok_or_else(damaged)?;
        let (dealt, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let [mask, token, credential] = split_keys(path, keys)?;
        let (blocks, []) = rest.as_chunks::<BLOCK>() else { return Err(damaged()) };
        let secrets = Self {
            mask: StreamKey::from_bytes(*mask),
            token: Token::from_bytes(*token),
            credential: Credential::from_bytes(*credential),
            dealt: u32::from_le_bytes(*dealt),
            blocks: blocks.iter().map(Block::of).collect(),
        };
        let ends = secrets.blocks.iter().map(|block| block.end);
        let fits = secrets.blocks.iter().zip([0].into_iter().chain(ends)).all(|(block, before)| block.follows(before));
        let is_whole = fits && secrets.blocks.last().is_none_or(|block| block.end <= secrets.dealt);
        let secrets = is_whole.then_some(secrets).ok_or_else(damaged)?;
        // The token was drawn for one batch: what is locked with another one is another batch's.
        same(path, "token", &batch.token, &secrets.token.hash())?;
        Ok(secrets)
    }

    /// Tickets that are not used.
    pub(crate) fn left(&self) -> u32 {
        self.blocks.iter().map(|block| block.end - block.next).sum()
    }

    /// The next tickets, as many as `count` if so many follow each other: their indices, blocks and
    /// links, and the secrets without them.
    pub(crate) fn without(&self, count: u32) -> (Vec<(u32, u32, Chain)>, Self) {
        let (mut taken, mut later) = (vec![], self.clone());
        for block in &mut later.blocks {
            let follows = taken.last().is_none_or(|&(index, ..): &(u32, u32, Chain)| index + 1 == block.next);
            while follows && block.next < block.end && (taken.len() as u32) < count {
                let link = block.chain.next();
                taken.push((block.next, block.first, std::mem::replace(&mut block.chain, link)));
                block.next += 1;
            }
        }
        later.blocks.retain(|block| block.next < block.end);
        (taken, later)
    }
}

impl Block {
    fn of(bytes: &[u8; BLOCK]) -> Self {
        let number = |i: usize| bytes[4 * i..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        let chain = bytes.last_chunk().copied().unwrap_or_default();
        Self { first: number(0), next: number(1), end: number(2), chain: Chain::from_bytes(chain) }
    }

    /// Whether its numbers can be those of a block behind a ticket's index.
    fn follows(&self, before: u32) -> bool {
        before <= self.first && self.first <= self.next && self.next < self.end
    }
}
