//! Exit codes, and how a subcommand ends.

use jali::JaliError;
use jali::error_kind::{ErrorKind, ImageKind};

/// Exit code when encrypted and plaintext results differ.
pub(crate) const DIFFERENT: u8 = 5;

/// Exit code of a model that is not supported.
pub(crate) const UNSUPPORTED: u8 = 3;

/// A failure that carries its own exit code.
#[derive(Debug)]
pub(crate) struct Exit(pub(crate) u8);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// The end of a subcommand: a failure of the work itself comes before any trouble with printing, so
/// that a reader who has gone away never turns a failure into success.
pub(crate) fn conclude(printed: anyhow::Result<()>, failure: Option<u8>) -> anyhow::Result<()> {
    match failure {
        Some(code) => Err(Exit(code).into()),
        None => printed,
    }
}

/// Exit code of a library error.
pub(crate) fn exit_code(error: &JaliError) -> u8 {
    match error.kind() {
        ErrorKind::Usage => 2,
        ErrorKind::Model => UNSUPPORTED,
        ErrorKind::WrongAnswer => 4,
        ErrorKind::Damaged => 6,
        ErrorKind::Locked => 7,
        ErrorKind::Refused => 8,
        ErrorKind::Memory => 9,
        ErrorKind::File => 10,
        ErrorKind::Image(ImageKind::None) => 11,
        ErrorKind::Image(ImageKind::Damaged) => 12,
        ErrorKind::Image(ImageKind::Size) => 13,
        ErrorKind::Image(ImageKind::Channels) => 14,
        ErrorKind::Image(ImageKind::Shape) => 15,
        ErrorKind::Image(ImageKind::NotFinite) => 16,
        ErrorKind::Tickets => 17,
        _ => 1,
    }
}
