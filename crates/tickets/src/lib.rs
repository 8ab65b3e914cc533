//! Files of the guests' mode: what owner, server and guest keep, and in which order each thing
//! becomes durable.
//!
//! | module | what it holds |
//! |---|---|
//! | [`sealed`] | a network sealed for guests: the owner's file and the server's |
//! | [`manifest`] | what the owner says of a batch of tickets, signed |
//! | [`batch`] | the server's part of a batch, and which tickets are used |
//! | [`wallet`] | the guest's part of a batch, and which tickets are used |
//! | [`held`] | a wallet in memory, for guests without files: browsers |
//! | [`greeting`], [`envelope`] | what guest and server say to each other, as bytes |
//! | [`dealing`] | how an owner makes both |
//! | [`on_demand`] | how the guest's part comes when it is asked for |
//! | [`transcript`] | an inference as it went over the line |
//! | [`audit`] | what an owner says of it: judging a server |
//! | [`passphrase`] | files that a passphrase locks |
//! | [`durable`] | files that are there after a crash, whole |
//! | [`error`] | everything that can go wrong |
#![forbid(unsafe_code)]

pub mod audit;
pub mod batch;
pub mod dealing;
pub mod durable;
pub mod envelope;
pub mod error;
pub mod greeting;
pub mod held;
mod keys;
pub mod manifest;
mod mark;
pub mod on_demand;
pub mod passphrase;
pub mod sealed;
mod secrets;
pub mod transcript;
pub mod wallet;

pub use audit::{Auditor, Verdict};
pub use batch::{Batch, Claim};
pub use dealing::{Dealer, Terms};
pub use error::TicketError;
pub use held::HeldWallet;
pub use keys::{Credential, GuestIdentity, Token};
pub use manifest::{Manifest, SignedManifest};
pub use on_demand::Stock;
pub use sealed::{OwnerFile, ServerFile, write_sealed};
pub use transcript::Transcript;
pub use wallet::{Left, Wallet, WalletInfo, WalletTicket};

#[cfg(test)]
mod tests;
