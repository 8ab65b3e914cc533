//! The client: keys, and a way to the server. Whoever holds its keys can recover the model.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use jali_mask::{RequestContext, RequestEntropy};
use jali_model::{Outline, Tensor};
use jali_protocol::thread_pool::in_pool;
use jali_protocol::{Action, ClientModel, Inference, ProtocolError, StoredClient, Trace};

use crate::JaliError;
use crate::answer::{Answer, BatchAnswer, OperatorRun, Traced};
use crate::bundle::{self, Pin};
use crate::files::{Readers, read_bounded, write_aside};
use crate::transport::{Delivery, Request, Transport};

/// Largest file of kept hints, in bytes.
const MAX_HINTS: u64 = 1 << 32;

/// A client and its way to the server: [`crate::InProcess`], [`crate::Http`], or a [`Transport`] of
/// your own.
pub struct Client<T> {
    model: ClientModel,
    transport: T,
    /// Number of batches so far.
    counter: u64,
}

impl<T> std::fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client(withheld)")
    }
}

/// Stands for the transport of a client that has none.
#[derive(Debug, Clone, Copy)]
pub enum Unconnected {}

/// How a client's bundle is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Unlocks the bundle. With a passphrase, a bundle that is not locked is refused: somebody may
    /// have put another one there.
    pub passphrase: Option<SecretString>,
    /// Which bundle it must be.
    pub pin: Pin,
    /// Whether hints, which are public and checked, are kept in a file beside the bundle for the
    /// next time.
    pub keep_hints: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self { passphrase: None, pin: Pin::default(), keep_hints: true }
    }
}

impl Client<Unconnected> {
    /// Opens a client's bundle: a file, or a folder with one named `client`.
    ///
    /// ```compile_fail,E0599
    /// # fn main() -> Result<(), jali::JaliError> {
    /// let client = jali::Client::open("sealed/client")?;
    /// client.infer(&todo!()); // no such method before `connect`
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Passphrase`] if it is locked, [`JaliError::Bundle`].
    pub fn open(path: impl AsRef<Path>) -> Result<OpenedClient, JaliError> {
        Self::open_with(path, &Opening::default())
    }

    /// Opens a client's bundle that is locked or must be a certain one.
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Passphrase`], [`JaliError::OtherBundle`],
    /// [`JaliError::Bundle`].
    pub fn open_with(path: impl AsRef<Path>, opening: &Opening) -> Result<OpenedClient, JaliError> {
        let path = bundle::of_path(path.as_ref(), bundle::CLIENT);
        let stored = bundle::load_client(&path, opening.passphrase.as_ref(), &opening.pin)?;
        Ok(OpenedClient { stored, hints: opening.keep_hints.then(|| hints_file(&path)) })
    }
}

/// Returns the path of the file beside a client's bundle that its hints are kept in.
pub fn hints_file(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".hints");
    name.into()
}

/// A client's bundle that was read: it has no hints, and needs a server to get them from.
#[derive(Debug)]
pub struct OpenedClient {
    stored: StoredClient,
    hints: Option<PathBuf>,
}

impl OpenedClient {
    /// Returns the network without its weights.
    pub fn outline(&self) -> &Outline {
        self.stored.outline()
    }

    /// Gets and checks the hints: from the file beside the bundle if it has the right ones, else
    /// from the server. Hints are public, and the check notices an altered file.
    ///
    /// # Errors
    /// What the transport returns; [`JaliError::Protocol`] if its hints are wrong.
    pub fn connect<T: Transport>(self, mut transport: T) -> Result<Client<T>, JaliError> {
        let Self { mut stored, hints } = self;
        transport.open(stored.id())?;
        let read = |path: &PathBuf| split(&read_bounded(path, MAX_HINTS).ok()?);
        let mut kept = hints.as_ref().and_then(read).unwrap_or_default();
        kept.resize(stored.operators(), vec![]);
        let mut fetched = false;
        for (operator, message) in kept.iter_mut().enumerate() {
            if !message.is_empty() && stored.accept_hints(operator, message).is_ok() {
                continue;
            }
            *message = transport.hints(operator, stored.hints_len(operator))?;
            stored.accept_hints(operator, message)?;
            fetched = true;
        }
        if let Some(path) = hints.filter(|_| fetched) {
            // A folder that cannot be written only means that the next start asks the server again.
            let _ = write_aside(&path, &join(&kept), Readers::Umask);
        }
        Ok(Client::new(stored.finish()?, transport))
    }
}

impl<T> Client<T> {
    pub(crate) fn new(model: ClientModel, transport: T) -> Self {
        Self { model, transport, counter: 0 }
    }

    /// Returns the network without its weights.
    pub fn outline(&self) -> &Outline {
        self.model.outline()
    }

    /// Returns the bytes that the hints take in memory.
    pub fn hint_bytes(&self) -> usize {
        self.model.hint_bytes()
    }

    /// Returns the most images of one batch.
    pub fn max_images(&self) -> usize {
        self.model.max_images()
    }

    /// Returns the way to the server.
    pub fn transport(&self) -> &T {
        &self.transport
    }
}

impl<T: Transport> Client<T> {
    /// Returns the client with another way to the same server.
    ///
    /// # Errors
    /// What [`Transport::open`] returns.
    pub fn over<U: Transport>(self, mut transport: U) -> Result<Client<U>, JaliError> {
        transport.open(self.model.id())?;
        Ok(Client { model: self.model, transport, counter: self.counter })
    }

    /// Runs the network on one image.
    ///
    /// # Errors
    /// [`JaliError`] as for [`Client::infer_batch`].
    pub fn infer(&mut self, image: &Tensor) -> Result<Answer, JaliError> {
        self.infer_batch(std::slice::from_ref(image))?.into_single()
    }

    /// Runs the network on a batch of images together: the server reads its matrices once for every
    /// 16 of them.
    ///
    /// # Errors
    /// [`JaliError::Protocol`], in particular if the ciphertext check rejects an answer: then the
    /// server is not what it should be. What the transport returns.
    pub fn infer_batch(&mut self, images: &[Tensor]) -> Result<BatchAnswer, JaliError> {
        Ok(self.run(images, false)?.0)
    }

    /// Runs the network on one image and keeps the integers of every linear layer, to compare them
    /// with the reference.
    ///
    /// # Errors
    /// [`JaliError`] as for [`Client::infer_batch`].
    pub fn infer_traced(&mut self, image: &Tensor) -> Result<Traced<Answer>, JaliError> {
        let Traced { answer, trace } = self.infer_batch_traced(std::slice::from_ref(image))?;
        Ok(Traced { answer: answer.into_single()?, trace })
    }

    /// Runs the network on a batch of images and keeps the integers of every linear layer, to
    /// compare them with the reference.
    ///
    /// # Errors
    /// [`JaliError`] as for [`Client::infer_batch`].
    pub fn infer_batch_traced(&mut self, images: &[Tensor]) -> Result<Traced<BatchAnswer>, JaliError> {
        let (answer, trace) = self.run(images, true)?;
        Ok(Traced { answer, trace })
    }

    fn run(&mut self, images: &[Tensor], traced: bool) -> Result<(BatchAnswer, Trace), JaliError> {
        self.transport.begin();
        let context = RequestContext { counter: self.counter, image: 0 };
        self.counter += 1;
        let mut inference = Inference::new(&self.model, images.to_vec(), context)?;
        if traced {
            inference = inference.keep_trace();
        }
        let transport = &mut self.transport;
        match transport.is_local() {
            // Once for all operators of both sides.
            true => in_pool(|| drive(inference, transport)),
            false => drive(inference, transport),
        }
    }
}

/// Takes a batch through the network and returns its outputs and the trace, which is empty unless
/// it is kept.
fn drive(
    mut inference: Inference<'_>,
    transport: &mut (impl Transport + ?Sized),
) -> Result<(BatchAnswer, Trace), JaliError> {
    let start = Instant::now();
    let mut operators = vec![];
    let entropy = || RequestEntropy::from_os().map_err(ProtocolError::from);
    loop {
        let began = Instant::now();
        let mut action = inference.next(entropy()?)?;
        loop {
            let (operator, bytes) = match action {
                Action::Send { operator, request } => (operator, request),
                Action::Done(outputs) => {
                    let latency = start.elapsed();
                    let trace = inference.into_trace().unwrap_or_default();
                    return Ok((BatchAnswer { outputs, latency, operators }, trace));
                }
            };
            let sent = Instant::now();
            let request = Request { operator, bytes: &bytes, most: inference.answer_len() };
            let Delivery::Answer(answer) = transport.send(request)? else {
                action = inference.again(entropy()?)?;
                continue;
            };
            let answered = Instant::now();
            inference.receive(&answer)?;
            let client: Duration = (sent - began) + answered.elapsed();
            let (bytes_up, bytes_down) = (bytes.len(), answer.len());
            operators.push(OperatorRun { client, server: answered - sent, bytes_up, bytes_down });
            break;
        }
    }
}

/// Joins messages, each after its length in eight bytes.
fn join(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|m| [&(m.len() as u64).to_le_bytes()[..], m].concat()).collect()
}

/// Splits what [`join`] joined; `None` if the lengths do not fit.
fn split(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut out = vec![];
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        out.push(message.to_vec());
        bytes = rest;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_joined_and_split() {
        let messages = vec![vec![1, 2, 3], vec![], vec![9]];
        let bytes = join(&messages);
        assert_eq!(split(&bytes), Some(messages));
        assert!(split(&bytes[..bytes.len() - 1]).is_none() && split(&[1, 2]).is_none());
        assert!(split(&u64::MAX.to_le_bytes()).is_none());
    }
}
