//! Everything that can go wrong in this crate.

use std::path::{Path, PathBuf};

use jali_bundle::BundleError;
use jali_guest::GuestError;
use jali_model::ModelError;

use crate::passphrase::PassphraseFault;

/// Errors of files of the guests' mode.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {why}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file that cannot be written.
    #[error("cannot write {path}: {why}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file that is damaged, or of another kind.
    #[error("{path}: {fault}", path = path.display())]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// Why, with the section.
        fault: BundleError,
    },
    /// A network in a file that nothing can run.
    #[error("{path}: {fault}", path = path.display())]
    Network {
        /// Which file.
        path: PathBuf,
        /// Why.
        fault: ModelError,
    },
    /// A part of a file that is not what it should be.
    #[error("{path}: {what} is damaged or from another version of jali", path = path.display())]
    Part {
        /// Which file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
    },
    /// A signature that is not that of the model's owner, or of the model's server.
    #[error("{path}: {whose} has not signed this, or it was changed since: get it again from where it came", path = path.display())]
    Signature {
        /// Which file.
        path: PathBuf,
        /// Who should have signed.
        whose: &'static str,
    },
    /// Two files that do not belong together.
    #[error("{path}: its {what} is {got}, expected {expected}: they do not belong together", path = path.display())]
    Other {
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it should be, in hexadecimal digits.
        expected: String,
        /// What it is, in hexadecimal digits.
        got: String,
    },
    /// A guest's key that does not open what was locked, or is none.
    #[error("{path}: {why}", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A passphrase that is missing, wrong or for a file that is not locked.
    #[error("{path}: {fault}", path = path.display())]
    Passphrase {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: PassphraseFault,
    },
    /// A recipient that is none.
    #[error("\"{got}\" is no recipient: `jali guest key` prints one, which begins with age1")]
    Recipient {
        /// What was given.
        got: String,
    },
    /// No ticket is left.
    #[error("{path}: {wanted} ticket(s) are needed and {left} of {of} are left: ask the owner for more", path = path.display())]
    UsedUp {
        /// The wallet or batch.
        path: PathBuf,
        /// How many are needed.
        wanted: u32,
        /// How many are left.
        left: u32,
        /// How many there were.
        of: u32,
    },
    /// No ticket is left that was fetched.
    #[error("{path}: {left} ticket(s) are here, and more can be fetched: jali tickets {path} --key FILE --fetch URL", path = path.display())]
    Unfetched {
        /// The wallet.
        path: PathBuf,
        /// How many are left.
        left: u32,
    },
    /// Tickets that were fetched and whose file is gone or damaged.
    #[error("{path}: {tickets} ticket(s) in it are lost ({why}); the next try takes later ones", path = path.display())]
    Lost {
        /// The file of the block.
        path: PathBuf,
        /// How many of them were not used.
        tickets: u32,
        /// What is wrong.
        why: String,
    },
    /// A batch or wallet for the other way of dealing.
    #[error("{path}: {why}", path = path.display())]
    Dealing {
        /// The wallet or batch.
        path: PathBuf,
        /// What does not fit, and what to do.
        why: &'static str,
    },
    /// Tickets that were under way and did not come.
    #[error("the owner's dealing service broke off: {why}; the tickets that were under way are lost")]
    Broken {
        /// What happened.
        why: String,
    },
    /// Dealing was broken off.
    #[error("dealing was stopped: nothing was dealt")]
    Stopped,
    /// Tickets that were claimed before.
    #[error("ticket {index} of batch {batch} is used: each serves once")]
    Replayed {
        /// The batch, in hexadecimal digits.
        batch: String,
        /// Which ticket.
        index: u32,
    },
    /// Tickets whose time is over.
    #[error("{path}: the tickets were valid until {until}, which is over: ask the owner for new ones", path = path.display())]
    Expired {
        /// The wallet or batch.
        path: PathBuf,
        /// The last second, in UTC.
        until: String,
    },
    /// From the guests' protocol.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The system's randomness is missing.
    #[error("the operating system gave no randomness: {0}")]
    Random(String),
}

impl TicketError {
    pub(crate) fn read(path: &Path, e: impl std::fmt::Display) -> Self {
        Self::Read { path: path.into(), why: e.to_string() }
    }

    pub(crate) fn write(path: &Path, e: impl std::fmt::Display) -> Self {
        Self::Write { path: path.into(), why: e.to_string() }
    }

    pub(crate) fn bundle(path: &Path, fault: BundleError) -> Self {
        match fault {
            BundleError::Io(why) => Self::Read { path: path.into(), why },
            fault => Self::Bundle { path: path.into(), fault },
        }
    }

    pub(crate) fn part(path: &Path, what: &'static str) -> Self {
        Self::Part { path: path.into(), what }
    }
}
