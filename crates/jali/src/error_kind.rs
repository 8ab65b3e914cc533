//! Errors by what a program does about them: exit codes of the command, exceptions of Python.

use jali_guest::GuestError;
use jali_model::ModelError;
#[cfg(feature = "http")]
use jali_net::NetError;
use jali_protocol::ProtocolError;
use jali_tickets::TicketError;

use crate::JaliError;
#[cfg(feature = "images")]
pub use jali_image::ImageKind;

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything else.
    Other,
    /// Something that was asked for makes no sense: a plan of another network, a recipient that is
    /// none.
    Usage,
    /// A network that cannot be run.
    Model,
    /// An answer of the server that is not what it has to be.
    WrongAnswer,
    /// A file that is damaged, or another one than it should be.
    Damaged,
    /// A passphrase or key that is missing or wrong.
    Locked,
    /// The server cannot be reached, or refuses.
    Refused,
    /// Memory does not suffice.
    Memory,
    /// A file that cannot be read or written.
    File,
    /// Tickets that are used up or whose time is over.
    Tickets,
    /// An image that cannot be used.
    #[cfg(feature = "images")]
    Image(ImageKind),
}

impl JaliError {
    /// Returns what kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        if self.is_out_of_memory() {
            return ErrorKind::Memory;
        }
        match self {
            #[cfg(feature = "images")]
            Self::Image { fault, .. } => ErrorKind::Image(fault.kind()),
            Self::Read { .. } | Self::TooLarge { .. } | Self::Data { .. } | Self::Write { .. } => ErrorKind::File,
            Self::Bundle { .. } | Self::OtherBundle { .. } => ErrorKind::Damaged,
            Self::Passphrase { .. } => ErrorKind::Locked,
            #[cfg(feature = "http")]
            Self::Net(NetError::File { .. }) => ErrorKind::File,
            #[cfg(feature = "http")]
            Self::Net(_) => ErrorKind::Refused,
            Self::Tickets(fault) => of_tickets(fault),
            Self::Guest(GuestError::Message { .. }) => ErrorKind::WrongAnswer,
            Self::Guest(GuestError::Plan { .. }) | Self::Model(ModelError::NoCalibration) => ErrorKind::Usage,
            Self::ModelFile { fault: ModelError::NoCalibration, .. } => ErrorKind::Usage,
            Self::ModelFile { .. } | Self::Model(_) => ErrorKind::Model,
            Self::Protocol(ProtocolError::Layer { .. } | ProtocolError::Noise { .. }) => ErrorKind::Model,
            Self::Protocol(ProtocolError::Rejected { refusal: Some(_), .. }) => ErrorKind::Refused,
            Self::Protocol(ProtocolError::Rejected { .. } | ProtocolError::Hints { .. }) => ErrorKind::WrongAnswer,
            Self::Protocol(ProtocolError::Leak(_) | ProtocolError::BatchSize { .. }) => ErrorKind::Usage,
            Self::PlanFile { .. } | Self::Serving { .. } => ErrorKind::Usage,
            _ => ErrorKind::Other,
        }
    }
}

fn of_tickets(fault: &TicketError) -> ErrorKind {
    use TicketError as T;
    match fault {
        T::Read { .. } | T::Write { .. } => ErrorKind::File,
        T::Key { .. } | T::Passphrase { .. } => ErrorKind::Locked,
        T::Recipient { .. } | T::Dealing { .. } => ErrorKind::Usage,
        T::UsedUp { .. } | T::Unfetched { .. } | T::Lost { .. } | T::Expired { .. } | T::Replayed { .. } => {
            ErrorKind::Tickets
        }
        T::Broken { .. } => ErrorKind::Refused,
        _ => ErrorKind::Damaged,
    }
}
