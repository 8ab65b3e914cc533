//! The guests' mode: commands about tickets, ways to carry messages, and what a network takes.

pub(crate) mod commands;
pub(crate) mod deal;
pub(crate) mod forecast;
pub(crate) mod layers;
mod listen;
pub(crate) mod ways;

use std::path::{Path, PathBuf};

use jali::JaliError;
use jali::bundle::read_passphrase;
use jali_tickets::OwnerFile;

/// How an owner's file is opened.
#[derive(clap::Args)]
pub(crate) struct Unlock {
    /// Unlock the owner's file with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Unlock {
    /// Reads the owner's file at `path`, or in the folder `path`.
    fn owner(&self, path: &Path) -> Result<OwnerFile, JaliError> {
        let passphrase = self.passphrase_file.as_deref().map(read_passphrase).transpose()?;
        Ok(OwnerFile::read(path, passphrase.as_ref())?)
    }
}
