//! Everything that can go wrong in the facade.

use std::path::PathBuf;

use jali_guest::GuestError;
use jali_leak::LeakError;
use jali_mask::MaskError;
use jali_model::ModelError;
#[cfg(feature = "http")]
use jali_net::NetError;
use jali_operator::OperatorError;
use jali_protocol::ProtocolError;
use jali_ring::RingError;
use jali_tickets::TicketError;

/// Errors of the facade.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JaliError {
    /// Requests and answers could not be carried between the two sides.
    #[error("the connection between client and server failed: {0}")]
    Transport(#[source] std::io::Error),
    /// The server in another process cannot be reached, or refuses.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Net(#[from] NetError),
    /// From the roles below.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// From the network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// From sealing for guests, dealing, or an inference of a guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// From files of the guests' mode.
    #[error(transparent)]
    Tickets(#[from] TicketError),
    /// The system's randomness is missing.
    #[error("the operating system gave no randomness: {0}")]
    Random(String),
    /// From the ring (the choice of a backend).
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A file that cannot be read.
    #[error("cannot read {path}: {why}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file that cannot be written.
    #[error("cannot write {path}: {why}; what was there before is unchanged", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A bundle that cannot be used.
    #[error("{path}: {fault}", path = path.display())]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// Why, with the section.
        fault: ProtocolError,
    },
    /// A bundle that is not the one that was named.
    #[error("{path}: its {what} is {got}, expected {expected}: it is another bundle than the one that was named", path = path.display())]
    OtherBundle {
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What was asked for, in hexadecimal digits.
        expected: String,
        /// The file's, in hexadecimal digits.
        got: String,
    },
    /// A passphrase is missing, empty or wrong, or was given for a file that is not locked.
    #[error("{path}: {why}", path = path.display())]
    Passphrase {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file that is larger than anything we expect there.
    #[error("{path} has {got} bytes, at most {limit} are accepted", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        got: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The work would not fit into memory.
    #[error(
        "this needs about {:.1} GB of memory and there are {:.1} GB; seal on a larger machine, run server and client apart (jali seal, serve, infer --client), open weights, or use a smaller network or image",
        *needed as f64 / 1e9,
        *available as f64 / 1e9
    )]
    Memory {
        /// Bytes that it takes at the worst moment.
        needed: u64,
        /// Bytes that this process can have.
        available: u64,
    },
    /// A model file that cannot be used.
    #[error("{path}: {fault}", path = path.display())]
    ModelFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        fault: ModelError,
    },
    /// A plan that cannot be used.
    #[error("{path}: {fault}", path = path.display())]
    PlanFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        fault: LeakError,
    },
    /// An image that cannot be used.
    #[cfg(feature = "images")]
    #[error("{path}: {fault}", path = path.display())]
    Image {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        fault: jali_image::ImageFault,
    },
    /// Files that a server cannot serve together.
    #[error("{path}: {why}", path = path.display())]
    Serving {
        /// Which file.
        path: PathBuf,
        /// What does not fit, and what to do.
        why: String,
    },
    /// A file that should say how images become inputs.
    #[error("{path}: {why}; fields are input_scale, mean, std, layout, channels and resize", path = path.display())]
    Preprocess {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A data set whose files do not have the published form.
    #[error("{path}: {why}; run scripts/fetch-data to get the full data sets", path = path.display())]
    Data {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl JaliError {
    /// Returns whether memory ran out, or would.
    pub fn is_out_of_memory(&self) -> bool {
        let ring = |e: &RingError| matches!(e, RingError::NoMemory { .. });
        let of_mask = |e: &MaskError| matches!(e, MaskError::Ring(e) if ring(e));
        match self {
            Self::Memory { .. } => true,
            Self::Ring(e) => ring(e),
            Self::Protocol(fault) | Self::Bundle { fault, .. } => match fault {
                ProtocolError::Ring(e) | ProtocolError::Operator(OperatorError::Ring(e)) => ring(e),
                ProtocolError::Mask(e) | ProtocolError::Operator(OperatorError::Mask(e)) => of_mask(e),
                ProtocolError::Operator(OperatorError::Memory { .. }) => true,
                _ => false,
            },
            _ => false,
        }
    }
}
