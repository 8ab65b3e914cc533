//! The guest's side of a connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jali_tickets::envelope::{Ended, Envelope};
use jali_tickets::greeting::NONCE;
use jali_tickets::{Manifest, Token};
use tokio_rustls::rustls::{self, ClientConnection, StreamOwned};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::{GuestRefusal, Hello};
use crate::client::ClientConfig;
use crate::target::Target;
use crate::{NetError, model_name};

/// How long a guest looks for a message before it sleeps: the other party computes as long as this
/// one, and to be woken up takes longer than many a step.
const AWAKE: Duration = Duration::from_micros(100);

/// A socket that is looked at for a while before a read blocks.
struct Awake(TcpStream);

impl Read for Awake {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.set_nonblocking(true)?;
        let start = Instant::now();
        let found = loop {
            match uninterrupted(|| self.0.read(buffer)) {
                Err(e) if e.kind() == ErrorKind::WouldBlock && start.elapsed() < AWAKE => std::hint::spin_loop(),
                found => break found,
            }
        };
        self.0.set_nonblocking(false)?;
        match found {
            Err(e) if e.kind() == ErrorKind::WouldBlock => uninterrupted(|| self.0.read(buffer)),
            found => found,
        }
    }
}

impl Write for Awake {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Does it again when a signal has interrupted it: a process that was stopped and goes on must not
/// lose its tickets.
fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A stream with or without TLS.
enum Stream {
    Plain(Awake),
    Tls(Box<StreamOwned<ClientConnection, Awake>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A connection on which a server has taken tickets.
pub struct GuestConnection {
    socket: WebSocket<Stream>,
    url: String,
}

impl std::fmt::Debug for GuestConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GuestConnection<{}>", self.url)
    }
}

/// What a connection needs of a wallet.
#[derive(Debug)]
pub struct Tickets<'a> {
    /// What the owner has signed.
    pub manifest: &'a Manifest,
    /// The guest's token for the server.
    pub token: &'a Token,
    /// Index of the first ticket.
    pub first: u32,
    /// How many tickets.
    pub count: u32,
}

impl GuestConnection {
    /// Connects to the server of a model. No ticket is shown yet.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn open(config: &ClientConfig, model: [u8; 16]) -> Result<Self, NetError> {
        let target = Target::of(config)?;
        let url = target.url.clone();
        let unreachable = |e: &dyn std::fmt::Display| NetError::Unreachable { url: url.clone(), why: e.to_string() };
        let stream = Awake(target.connect(config)?);
        let stream = match target.is_tls {
            false => Stream::Plain(stream),
            true => {
                let name = rustls::pki_types::ServerName::try_from(target.host.clone())
                    .map_err(|e| NetError::Url { url: url.clone(), why: e.to_string() })?;
                let connection = ClientConnection::new(Arc::new(target.tls(config)?), name);
                Stream::Tls(Box::new(StreamOwned::new(connection.map_err(|e| unreachable(&e))?, stream)))
            }
        };
        let scheme = if target.is_tls { "wss" } else { "ws" };
        let path = format!("{scheme}://{}/v2/models/{}/guests", target.authority, model_name(model));
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MOST))
            .max_frame_size(Some(MOST))
            .write_buffer_size(0)
            .read_buffer_size(READ_AHEAD);
        let shaken = tungstenite::client::client_with_config(path, stream, Some(limits));
        let (socket, _) = shaken.map_err(|e| refused(&url, e))?;
        Ok(Self { socket, url })
    }

    /// Has the server take tickets, which are used up by it.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::Guest`] if the server takes none of these tickets.
    pub fn show(&mut self, tickets: &Tickets<'_>) -> Result<(), NetError> {
        let hello = Hello {
            batch: tickets.manifest.batch,
            token: tickets.token.clone(),
            first: tickets.first,
            tickets: tickets.count,
        };
        self.send(hello.encode())?;
        let answer = self.receive()?;
        match answer.as_slice() {
            [0] => Ok(()),
            [byte] if GuestRefusal::of(*byte).is_some() => {
                let why = GuestRefusal::of(*byte).unwrap_or(GuestRefusal::Failed);
                Err(NetError::Guest { url: self.url.clone(), why })
            }
            _ => Err(self.foreign("it answered a guest's greeting with something else")),
        }
    }

    fn foreign(&self, why: &str) -> NetError {
        NetError::Foreign { url: self.url.clone(), why: why.into() }
    }

    fn broken(&self, e: &tungstenite::Error) -> NetError {
        let why = match e {
            tungstenite::Error::Io(e)
                if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                "it did not answer in time".into()
            }
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                "it ended the connection; the ticket is used".into()
            }
            other => other.to_string(),
        };
        NetError::Unreachable { url: self.url.clone(), why }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`NetError::Unreachable`] if the server is gone.
    pub fn send(&mut self, message: Vec<u8>) -> Result<(), NetError> {
        self.socket.send(Message::Binary(message.into())).map_err(|e| self.broken(&e))
    }

    /// Waits for the server's next message.
    ///
    /// # Errors
    /// [`NetError::Unreachable`] if the server is gone; [`NetError::Foreign`] for text.
    pub fn receive(&mut self) -> Result<Vec<u8>, NetError> {
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => return Ok(bytes.into()),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Text(_)) => return Err(self.foreign("it sent text to a guest")),
                Ok(Message::Close(_)) => return Err(self.broken(&tungstenite::Error::ConnectionClosed)),
                Err(e) => return Err(self.broken(&e)),
            }
        }
    }

    /// Ends the connection.
    pub fn close(mut self) {
        // Whether the server hears it does not matter: its tickets are used.
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }
}

/// One inference on a connection.
#[derive(Debug)]
pub struct Exchange<'c> {
    connection: &'c mut GuestConnection,
    envelope: Envelope,
}

impl<'c> Exchange<'c> {
    /// Begins an inference with a ticket's nonce; the server sends `messages` messages. With
    /// `keeps` all messages are kept.
    pub fn begin(connection: &'c mut GuestConnection, nonce: [u8; NONCE], messages: usize, keeps: bool) -> Self {
        Self { connection, envelope: Envelope::new(nonce, messages, keeps) }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As [`GuestConnection::send`].
    pub fn send(&mut self, message: Vec<u8>) -> Result<(), NetError> {
        self.connection.send(self.envelope.outgoing(message))
    }

    /// Waits for the server's next message.
    ///
    /// # Errors
    /// As [`GuestConnection::receive`]; [`NetError::Foreign`] for a last message without a
    /// signature.
    pub fn receive(&mut self) -> Result<Vec<u8>, NetError> {
        let message = self.connection.receive()?;
        self.envelope.incoming(message).map_err(|e| self.connection.foreign(&e.to_string()))
    }

    /// What is left.
    pub fn end(self) -> Ended {
        self.envelope.end()
    }
}

/// Most bytes of a message.
const MOST: usize = 1 << 28;
/// Bytes that are read at once.
const READ_AHEAD: usize = 1 << 17;

/// Why the WebSocket was not made.
fn refused<S>(url: &str, e: tungstenite::HandshakeError<S>) -> NetError
where
    S: tungstenite::handshake::HandshakeRole,
{
    let url = url.to_owned();
    let tungstenite::HandshakeError::Failure(error) = e else {
        return NetError::Unreachable { url, why: "it did not answer in time".into() };
    };
    match error {
        tungstenite::Error::Http(response) => match response.status().as_u16() {
            503 | 429 => NetError::Guest { url, why: GuestRefusal::Busy },
            404 => NetError::Status { url, status: 404, text: "it does not serve this network for guests".into() },
            status => NetError::Status { url, status, text: response.status().to_string() },
        },
        tungstenite::Error::Io(e) => match crate::client::untrusted_io(&e) {
            Some(why) => NetError::Untrusted { url, why },
            None => NetError::Unreachable { url, why: e.to_string() },
        },
        other => NetError::Foreign { url, why: other.to_string() },
    }
}
