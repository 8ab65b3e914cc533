//! One integer on disk beside a batch's file that only rises: all tickets below it are gone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::TicketError;
use crate::durable::{self, Readers};

/// What a mark is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// End of the file's name.
    suffix: &'static str,
    /// What nobody knows without it, and what to do then.
    what: &'static str,
}

/// Tickets that the server has used.
pub(crate) const USED: About =
    About { suffix: ".used", what: "which tickets are used: ask the owner for another batch" };
/// Tickets that the owner has dealt on demand.
pub(crate) const DEALT: About = About { suffix: ".dealt", what: "which tickets are dealt: deal another batch" };

/// A mark.
#[derive(Debug)]
pub(crate) struct Mark {
    path: PathBuf,
    next: Mutex<u32>,
}

/// A path beside a batch's file.
pub(crate) fn beside(batch: &Path, suffix: &str) -> PathBuf {
    let mut name = batch.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    batch.with_file_name(name)
}

fn write(path: &Path, next: u32) -> Result<(), TicketError> {
    durable::write(path, Readers::Owner, format!("{next}\n").as_bytes())
}

impl Mark {
    /// Writes a mark that says that no ticket is gone.
    pub(crate) fn create(batch: &Path, about: About) -> Result<(), TicketError> {
        write(&beside(batch, about.suffix), 0)
    }

    /// Reads the mark of a batch of so many tickets.
    pub(crate) fn open(batch: &Path, about: About, tickets: u32) -> Result<Self, TicketError> {
        let path = beside(batch, about.suffix);
        let bytes = durable::read(&path, 16).map_err(|e| match e {
            TicketError::Read { path, why } => {
                TicketError::Read { path, why: format!("{why}; without it nobody knows {}", about.what) }
            }
            other => other,
        })?;
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
        let next: u32 = number
            .filter(|n| *n <= tickets)
            .ok_or_else(|| TicketError::part(&path, "the number of tickets that are gone"))?;
        Ok(Self { path, next: Mutex::new(next) })
    }

    /// The first ticket that is not gone.
    pub(crate) fn get(&self) -> u32 {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises the mark to what `to` makes of it; when this returns, that is on disk.
    pub(crate) fn raise(&self, to: impl FnOnce(u32) -> Result<u32, TicketError>) -> Result<u32, TicketError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let end = to(*next)?;
        if end > *next {
            write(&self.path, end)?;
            *next = end;
        }
        Ok(end)
    }
}
