//! How requests and answers get from the client to the server and back.

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
    /// What the server gets, unchanged.
    pub bytes: &'r [u8],
    /// Bytes that its answer has at most: more need not be read.
    pub most: usize,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The server's answer, unchanged. Whatever it is: the client checks it.
    Answer(Vec<u8>),
    /// Nothing came back: the request is made anew, with fresh secrets, and sent again. Bytes that
    /// were sent once are never sent twice. A transport that gives up returns an error instead:
    /// there is no other limit.
    Lost,
}

/// Carries bytes between a client and a server. It need not be trusted: answers and hints are
/// checked before they are used.
pub trait Transport: Send {
    /// Hears which sealed model is going to be asked for, before anything else.
    ///
    /// # Errors
    /// Any [`JaliError`]: nothing follows then.
    fn open(&mut self, model: [u8; 16]) -> Result<(), JaliError> {
        let _ = model;
        Ok(())
    }

    /// Brings the hints of an operator, at most so many bytes: what [`Server::hints`] gives.
    ///
    /// # Errors
    /// Any [`JaliError`]: the client cannot be connected then.
    fn hints(&mut self, operator: usize, most: usize) -> Result<Vec<u8>, JaliError>;

    /// Hears that a batch begins.
    fn begin(&mut self) {}

    /// Brings a request to the server and its answer back: what [`Server::handle`] gives.
    ///
    /// # Errors
    /// Any [`JaliError`], [`JaliError::Transport`] for failures of its own: the batch ends then.
    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError>;

    /// Whether the server computes on this process's threads: they are kept awake for a whole batch
    /// then.
    fn is_local(&self) -> bool {
        false
    }

    /// Requests that had to be made anew so far.
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
    /// Takes a server that was loaded.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }

    /// Loads a server's bundle, or the one of this name in a folder.
    ///
    /// # Errors
    /// [`JaliError::Read`], [`JaliError::Bundle`].
    pub fn load(path: &Path, backend: Backend) -> Result<Self, JaliError> {
        let server = bundle::load_server(&bundle::of_path(path, bundle::SERVER), backend, usize::MAX)?;
        Ok(Self::new(Arc::new(server)))
    }

    /// The server, for carrying messages to it by other means.
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
