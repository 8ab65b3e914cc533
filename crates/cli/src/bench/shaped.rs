//! A link with a given round-trip time and capacity, made of two loopback connections with a proxy
//! between them: what the two sides say crosses real sockets, late and slowly.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jali::{Delivery, JaliError, Link, Request, Transport};
use jali_protocol::Server;

/// Most bytes of one message.
const MAX_MESSAGE: u64 = 1 << 31;

/// The client's end.
pub(super) struct Shaped {
    stream: TcpStream,
    carried: Carried,
}

/// Bytes that have crossed so far, framing included.
#[derive(Clone, Default)]
pub(super) struct Carried {
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl Carried {
    /// Up and down.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(&(message.len() as u64).to_le_bytes())?;
    stream.write_all(message)
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 8];
    stream.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    let mut message = vec![];
    stream.take(len).read_to_end(&mut message)?;
    if message.len() as u64 == len { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Passes bytes on: each piece leaves when the link's capacity allows, and arrives half a round
/// trip later.
fn forward(mut from: TcpStream, mut to: TcpStream, link: Link, counted: Arc<AtomicU64>) {
    let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    thread::spawn(move || {
        let half = Duration::from_secs_f64(link.rtt_ms / 2e3);
        let (mut free, mut buffer) = (Instant::now(), vec![0; 16 << 10]);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            counted.fetch_add(n as u64, Ordering::Relaxed);
            let seconds = if link.mbit_per_s > 0.0 { n as f64 * 8.0 / (link.mbit_per_s * 1e6) } else { 0.0 };
            free = free.max(Instant::now()) + Duration::from_secs_f64(seconds);
            if sender.send((free + half, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
    });
}

/// Starts a relay to a server on this machine and returns its address; whoever connects to it has
/// this link between.
pub(super) fn relay(server: SocketAddr, link: Link) -> io::Result<SocketAddr> {
    let front = TcpListener::bind("127.0.0.1:0")?;
    let addr = front.local_addr()?;
    thread::spawn(move || {
        for near in front.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(server)) else { break };
            let nodelay = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
            let (Ok(()), Ok(from), Ok(to)) = (nodelay, near.try_clone(), far.try_clone()) else { break };
            forward(from, to, link, Arc::default());
            forward(far, near, link, Arc::default());
        }
    });
    Ok(addr)
}

impl Shaped {
    /// Starts server and proxy on loopback ports that the system picks; they end with the
    /// connection.
    pub(super) fn start(server: Arc<Server>, link: Link) -> io::Result<Self> {
        let behind = TcpListener::bind("127.0.0.1:0")?;
        let front = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(front.local_addr()?)?;
        let near = front.accept()?.0;
        let far = TcpStream::connect(behind.local_addr()?)?;
        let mut end = behind.accept()?.0;
        for stream in [&stream, &near, &far, &end] {
            stream.set_nodelay(true)?;
        }
        let carried = Carried::default();
        forward(near.try_clone()?, far.try_clone()?, link, carried.up.clone());
        forward(far, near, link, carried.down.clone());
        thread::spawn(move || {
            while let Ok(request) = receive(&mut end) {
                let answer = server.handle(&request);
                if send(&mut end, &answer).is_err() {
                    break;
                }
            }
        });
        Ok(Self { stream, carried })
    }

    /// What is counted of it.
    pub(super) fn carried(&self) -> Carried {
        self.carried.clone()
    }
}

impl Transport for Shaped {
    fn hints(&mut self, _: usize, _: usize) -> Result<Vec<u8>, JaliError> {
        Err(JaliError::Transport(io::Error::other("hints are not measured: they come before")))
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        let answer = send(&mut self.stream, request.bytes).and_then(|()| receive(&mut self.stream));
        Ok(Delivery::Answer(answer.map_err(JaliError::Transport)?))
    }
}
