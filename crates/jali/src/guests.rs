//! Guests: people who may use a model and must not have it.
//!
//! The owner seals a network ([`GuestSealing`]) and deals tickets, one for each inference. The
//! server computes on `W~ = W + A` and on values that are masked by whoever dealt the ticket; so
//! does the guest, on `A`. Neither sees a weight or an activation. **They must not collude**:
//! together they hold the model.
//!
//! ```
//! use jali::guests::GuestSealing;
//! use jali::{Network, Plan};
//! # fn main() -> Result<(), jali::JaliError> {
//! let graph = Network::Mnist.graph()?;
//! let typical = Network::Mnist.dataset().bundled_calibration()?;
//! let sealing = GuestSealing::of(&graph, &typical, Some((0.0, 1.0)), Default::default())?;
//! let parties = sealing.seal(&Plan::hide_all(&graph))?;
//! let sample = &Network::Mnist.dataset().bundled_test()?[0];
//! let (for_server, for_guest) = parties.deal()?;
//! let answer = parties.infer(for_server, for_guest, &sample.image)?;
//! assert_eq!(answer.argmax(), sample.label);
//! # Ok(())
//! # }
//! ```

mod drive;
#[cfg(feature = "http")]
mod fetching;
#[cfg(feature = "http")]
mod remote;

use std::path::Path;
use std::sync::mpsc;

use age::secrecy::SecretString;
use jali_guest::{Counts, Hidden, Original, Tables, deal};
use jali_leak::Plan;
use jali_model::fixed::{FixedConfig, FixedNetwork};
use jali_model::{Graph, Preprocess, Tensor};
use jali_tickets::sealed::Written;
use jali_tickets::write_sealed;
use zeroize::Zeroize;

use crate::{JaliError, Link};
pub use drive::{Begun, Line, Run, begin, infer, serve};
#[cfg(feature = "http")]
pub use fetching::{Fetching, fetch};
pub use jali_guest::{Backend, GuestTicket, SealedForGuests, StreamKey};
#[cfg(feature = "http")]
pub use remote::{GuestAnswer, GuestClient, Kept};

/// A network in fixed-point numbers, ready to be sealed for guests.
#[derive(Debug, Clone)]
pub struct GuestSealing<'g> {
    graph: &'g Graph,
    network: FixedNetwork,
    link: Link,
    passphrase: Option<&'g SecretString>,
}

/// A network sealed for guests, as files.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedForGuests {
    /// The files.
    pub files: Written,
    /// By linear layer: how many weights are hidden.
    pub weights: Vec<Hidden>,
    /// What an inference and a ticket take.
    pub counts: Counts,
}

/// A network sealed for guests, all three parties in this process.
#[derive(Debug, Clone)]
pub struct Parties {
    network: FixedNetwork,
    sealed: SealedForGuests,
    backend: Backend,
}

/// A key from the operating system's randomness.
///
/// # Errors
/// [`JaliError::Random`] if the system has none.
pub fn fresh_key() -> Result<StreamKey, JaliError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| JaliError::Random(e.to_string()))?;
    let key = StreamKey::from_bytes(bytes);
    bytes.zeroize();
    Ok(key)
}

impl<'g> GuestSealing<'g> {
    /// Turns a network into fixed-point numbers, with the ranges that typical images give. `range`
    /// is the smallest and largest number of an input, if they are known.
    ///
    /// # Errors
    /// [`JaliError::Model`] with every node that guests cannot run, why, and what to do.
    pub fn of(
        graph: &'g Graph,
        images: &[Tensor],
        range: Option<(f32, f32)>,
        config: FixedConfig,
    ) -> Result<Self, JaliError> {
        let network = FixedNetwork::calibrate(graph, config, images, range)?;
        Ok(Self { graph, network, link: Link::LOOPBACK, passphrase: None })
    }

    /// Chooses between exchanges and ticket bytes for this link between guest and server; for
    /// loopback unless it is called.
    #[must_use]
    pub fn over(self, link: Link) -> Self {
        Self { link, ..self }
    }

    /// Locks the owner's file with a passphrase when it is saved.
    #[must_use]
    pub fn passphrase(self, passphrase: Option<&'g SecretString>) -> Self {
        Self { passphrase, ..self }
    }

    /// Returns the network in fixed-point numbers.
    pub fn network(&self) -> &FixedNetwork {
        &self.network
    }

    /// Returns what an owner keeps of the network under a plan, with fresh randomness: all parties'
    /// parts can be made of it.
    ///
    /// # Errors
    /// [`JaliError::Guest`] for a plan of another network; [`JaliError::Random`].
    pub fn original(self, plan: &Plan) -> Result<Original, JaliError> {
        let original = Original::new(self.network, self.graph, plan, fresh_key()?)?;
        if self.link == Link::LOOPBACK {
            return Ok(original);
        }
        let small = original.circuit().counts();
        let original = original.with_tables(Tables::Direct);
        let pays = pays(&small, &original.circuit().counts(), self.link);
        Ok(if pays { original } else { original.with_tables(Tables::Small) })
    }

    /// Seals with fresh randomness, for three parties in this process. Rows that the plan allows to
    /// be open are public.
    ///
    /// # Errors
    /// [`JaliError::Guest`] for a plan of another network; [`JaliError::Random`].
    pub fn seal(self, plan: &Plan) -> Result<Parties, JaliError> {
        let original = self.original(plan)?;
        let sealed = original.seal()?;
        Ok(Parties { network: original.network().clone(), sealed, backend: Backend::best() })
    }

    /// Seals with fresh randomness into two files in `folder`: `owner`, from which tickets are
    /// dealt, and `server`. Guests see `name` and learn from `preprocess` how images become inputs.
    ///
    /// # Errors
    /// [`JaliError::Guest`] for a plan of another network; [`JaliError::Tickets`],
    /// [`JaliError::Random`].
    pub fn save(
        self,
        plan: &Plan,
        name: &str,
        preprocess: &Preprocess,
        folder: &Path,
    ) -> Result<SavedForGuests, JaliError> {
        let passphrase = self.passphrase;
        let original = self.original(plan)?;
        let files = write_sealed(folder, name, &original, preprocess, passphrase)?;
        Ok(SavedForGuests { files, weights: original.weights(), counts: original.circuit().counts() })
    }
}

/// What a byte of a ticket weighs beside one that an image waits for: tickets come ahead of time.
const AHEAD: f64 = 0.25;

/// Whether larger tickets with fewer exchanges pay over a link.
fn pays(small: &Counts, direct: &Counts, link: Link) -> bool {
    let Some(saved) = small.exchanges.checked_sub(direct.exchanges) else { return false };
    // Both parties send at the same time: an exchange takes half a round trip.
    let saved_ms = saved as f64 * link.rtt_ms / 2.0;
    let more = direct.ticket_bytes.saturating_sub(small.ticket_bytes) as f64;
    let more_ms = if link.mbit_per_s > 0.0 { more * 8.0 / (link.mbit_per_s * 1e3) } else { 0.0 };
    saved_ms > AHEAD * more_ms
}

impl Parties {
    /// Returns the network in fixed-point numbers.
    pub fn network(&self) -> &FixedNetwork {
        &self.network
    }

    /// Returns what owner, server and guest hold.
    pub fn sealed(&self) -> &SealedForGuests {
        &self.sealed
    }

    /// Returns the vector unit.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Deals one ticket: the server's key and the guest's ticket.
    ///
    /// # Errors
    /// [`JaliError::Random`].
    pub fn deal(&self) -> Result<(StreamKey, GuestTicket), JaliError> {
        let (server, guest) = (fresh_key()?, fresh_key()?);
        let shares = deal(&self.sealed.owner, self.backend, &server, &guest);
        Ok((server, GuestTicket::new(guest, shares)))
    }

    /// Infers with both parties in this process, the server on a thread of its own.
    ///
    /// # Errors
    /// [`JaliError::Model`] for an image of another shape; [`JaliError::Guest`] for another
    /// network's ticket.
    pub fn infer(&self, server: StreamKey, ticket: GuestTicket, image: &Tensor) -> Result<Tensor, JaliError> {
        let input = self.network.quantise(image)?;
        let (mut at_guest, mut at_server) = Channel::pair();
        let output = std::thread::scope(|scope| {
            let served = scope.spawn(move || {
                let session = jali_guest::ServerSession::new(&self.sealed.server, self.backend, server);
                serve(session, &mut at_server)
            });
            let begun = begin(&self.sealed.guest, self.backend, ticket, &input, false);
            let run = begun.and_then(|begun| infer(begun, &mut at_guest));
            // A guest that gives up hangs up, which ends the server.
            drop(at_guest);
            match served.join() {
                Ok(served) => run.and_then(|run| served.map(|_| run)),
                Err(_) => Err(JaliError::Transport(std::io::Error::other("the server's thread ended"))),
            }
        })?;
        Ok(self.network.numbers(&output.done.integers)?)
    }
}

/// One end of a line inside of a process.
#[derive(Debug)]
pub struct Channel {
    out: mpsc::Sender<Vec<u8>>,
    from: mpsc::Receiver<Vec<u8>>,
}

impl Channel {
    /// Returns both ends.
    pub fn pair() -> (Self, Self) {
        let ((a, from_a), (b, from_b)) = (mpsc::channel(), mpsc::channel());
        (Self { out: a, from: from_b }, Self { out: b, from: from_a })
    }
}

impl Line for Channel {
    fn send(&mut self, message: Vec<u8>) -> Result<(), JaliError> {
        self.out.send(message).map_err(|_| hung_up())
    }

    fn receive(&mut self) -> Result<Vec<u8>, JaliError> {
        // A message comes within microseconds: waiting for it awake saves a wake-up of each.
        for _ in 0..SPINS {
            match self.from.try_recv() {
                Ok(message) => return Ok(message),
                Err(mpsc::TryRecvError::Empty) => std::hint::spin_loop(),
                Err(mpsc::TryRecvError::Disconnected) => return Err(hung_up()),
            }
        }
        self.from.recv().map_err(|_| hung_up())
    }
}

/// How often an end looks for a message before it sleeps.
const SPINS: usize = 2000;

fn hung_up() -> JaliError {
    JaliError::Transport(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the other party is gone"))
}
