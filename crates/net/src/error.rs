//! Everything that can go wrong in this crate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::guests::GuestRefusal;

/// Errors of sockets and of what comes over them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {why}")]
    Listen {
        /// Which address.
        addr: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// Without TLS, anybody on the way could read tokens and replace answers.
    #[error("{addr} can be reached from other machines: give a TLS certificate and key")]
    Insecure {
        /// Which address.
        addr: SocketAddr,
    },
    /// A certificate, key or token file that cannot be used.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Runtime or threads cannot be started.
    #[error("cannot start: {0}")]
    Start(String),
    /// A URL that cannot be used.
    #[error("\"{url}\": {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The server did not answer, or the connection broke.
    #[error("the server at {url} cannot be reached: {why}")]
    Unreachable {
        /// Which server.
        url: String,
        /// What happened.
        why: String,
    },
    /// No authority that we trust vouches for the server.
    #[error("the server at {url} is not trusted: {why}")]
    Untrusted {
        /// Which server.
        url: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// The answer is not one that a server of ours sends.
    #[error("the server at {url} is not one of jali's: {why}")]
    Foreign {
        /// Which server.
        url: String,
        /// What came instead.
        why: String,
    },
    /// The server has too much to do.
    #[error("the server at {url} is busy")]
    Busy {
        /// Which server.
        url: String,
        /// When it wants to be asked again.
        retry_after: Duration,
    },
    /// The request is larger than the server, or a balancer before it, takes.
    #[error("the request is too large for the server at {url}: send fewer images at once (--batch)")]
    TooLarge {
        /// Which server.
        url: String,
    },
    /// The server wants a token, or another one.
    #[error("the server at {url} does not accept the token: give the right one with --token-file")]
    Denied {
        /// Which server.
        url: String,
    },
    /// The server takes none of a guest's tickets.
    #[error("the server at {url} refuses: {why}")]
    Guest {
        /// Which server.
        url: String,
        /// Why.
        why: GuestRefusal,
    },
    /// The server answered something else.
    #[error("the server at {url} answered {status}: {text}")]
    Status {
        /// Which server.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
}

impl NetError {
    /// Returns how long to wait at least before another attempt, or `None` if none may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            Self::Unreachable { .. } => Some(Duration::ZERO),
            Self::Status { status: 502 | 504, .. } => Some(Duration::ZERO),
            _ => None,
        }
    }
}
