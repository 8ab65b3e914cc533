//! Ways for requests and answers from the client to the server and back.

use std::path::Path;
use std::sync::Arc;

use jali_protocol::Server;
use jali_ring::Backend;

use crate::{JaliError, bundle};

/// A request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'r> {
    /// Index of the operator that it is for.
    pub operator: usize,
    /// The bytes that the server must get, unchanged.
    pub bytes: &'r [u8],
    /// Most bytes of its answer: more need not be read.
    pub most: usize,
}

/// The outcome of sending a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The server's answer, unchanged, whatever it is: the client checks it.
    Answer(Vec<u8>),
    /// No answer came: the request is made anew, with fresh secrets, and sent again. Bytes are
    /// never sent twice. A transport that gives up returns an error instead: there is no other
    /// limit.
    Lost,
}

/// Carries bytes between a client and a server. It need not be trusted: answers and hints are
/// checked before they are used.
pub trait Transport: Send {
    /// Learns the id of the sealed model that will be asked for, before anything else.
    ///
    /// # Errors
    /// Any [`JaliError`]: nothing follows then.
    fn open(&mut self, model: [u8; 16]) -> Result<(), JaliError> {
        let _ = model;
        Ok(())
    }

    /// Brings the hints of an operator, which are what [`Server::hints`] returns: at most `most`
    /// bytes.
    ///
    /// # Errors
    /// Any [`JaliError`]: the client cannot be connected then.
    fn hints(&mut self, operator: usize, most: usize) -> Result<Vec<u8>, JaliError>;

    /// Learns that a batch begins.
    fn begin(&mut self) {}

    /// Brings a request to the server and its answer back, which is what [`Server::handle`]
    /// returns.
    ///
    /// # Errors
    /// Any [`JaliError`], [`JaliError::Transport`] for failures of its own: the batch ends then.
    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError>;

    /// Returns whether the server computes on this process's threads, which are then kept awake for
    /// a whole batch.
    fn is_local(&self) -> bool {
        false
    }

    /// Returns the number of requests that had to be made anew so far.
    fn retries(&self) -> usize {
        0
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn open(&mut self, model: [u8; 16]) -> Result<(), JaliError> {
        (**self).open(model)
    }

    fn hints(&mut self, operator: usize, most: usize) -> Result<Vec<u8>, JaliError> {
        (**self).hints(operator, most)
    }

    fn begin(&mut self) {
        (**self).begin();
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        (**self).send(request)
    }

    fn is_local(&self) -> bool {
        (**self).is_local()
    }

    fn retries(&self) -> usize {
        (**self).retries()
    }
}

/// A server in this process.
#[derive(Debug, Clone)]
pub struct InProcess {
    server: Arc<Server>,
}

impl InProcess {
    /// Makes a way to a server that was loaded.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }

    /// Loads the server's bundle at `path`, or the one called `server` if that is a folder, to be
    /// computed with `backend`.
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Bundle`].
    pub fn load(path: &Path, backend: Backend) -> Result<Self, JaliError> {
        let server = bundle::load_server(&bundle::of_path(path, bundle::SERVER), backend, usize::MAX)?;
        Ok(Self::new(Arc::new(server)))
    }

    /// Returns the server, for carrying messages to it by other means.
    pub fn server(&self) -> Arc<Server> {
        self.server.clone()
    }
}

impl Transport for InProcess {
    fn hints(&mut self, operator: usize, _: usize) -> Result<Vec<u8>, JaliError> {
        // An operator that is not there has no hints: the check says so.
        Ok(self.server.hints(operator).unwrap_or_default())
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        Ok(Delivery::Answer(self.server.handle(request.bytes)))
    }

    fn is_local(&self) -> bool {
        true
    }
}
