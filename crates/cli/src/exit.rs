//! Exit codes, and how a subcommand ends.

use jali::JaliError;
use jali::parts::net::NetError;
use jali::parts::protocol::ProtocolError;
use jali::parts::tickets::TicketError;
use jali_guest::GuestError;

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
    if error.is_out_of_memory() {
        return 9;
    }
    match error {
        JaliError::Image { fault, .. } => fault.exit_code(),
        JaliError::Read { .. } | JaliError::TooLarge { .. } | JaliError::Data { .. } | JaliError::Write { .. } => 10,
        JaliError::Bundle { .. } | JaliError::OtherBundle { .. } => 6,
        JaliError::Passphrase { .. } => 7,
        JaliError::Net(NetError::File { .. }) => 10,
        JaliError::Net(_) => 8,
        JaliError::Tickets(TicketError::Read { .. } | TicketError::Write { .. }) => 10,
        JaliError::Tickets(TicketError::Key { .. } | TicketError::Passphrase { .. }) => 7,
        JaliError::Tickets(TicketError::Recipient { .. }) => 2,
        JaliError::Tickets(
            TicketError::UsedUp { .. }
            | TicketError::Unfetched { .. }
            | TicketError::Expired { .. }
            | TicketError::Replayed { .. },
        ) => 17,
        JaliError::Tickets(TicketError::Dealing { .. }) => 2,
        JaliError::Tickets(TicketError::Broken { .. }) => 8,
        JaliError::Tickets(_) => 6,
        JaliError::Guest(GuestError::Message { .. }) => 4,
        JaliError::Memory { .. } => 9,
        JaliError::ModelFile { .. } | JaliError::Model(_) => 3,
        JaliError::Protocol(ProtocolError::Layer { .. } | ProtocolError::Noise { .. }) => 3,
        JaliError::Protocol(ProtocolError::Rejected { refusal: Some(_), .. }) => 8,
        JaliError::Protocol(ProtocolError::Rejected { .. } | ProtocolError::Hints { .. }) => 4,
        JaliError::Protocol(ProtocolError::Leak(_)) | JaliError::PlanFile { .. } => 2,
        _ => 1,
    }
}
