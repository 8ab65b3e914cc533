//! The server: sealed bytes and a backend, nothing else. It keeps no state between requests.

use std::io::{Read, Seek};

use jali_operator::{OperatorError, ServerModel};
use jali_ring::Backend;
use jali_ring::wire::poly_len;

use crate::message::{Refusal, decode_request, encode_answer, encode_hints, encode_refusal};
use crate::thread_pool::in_pool;

/// A loaded model ready to answer.
#[derive(Debug)]
pub struct Server {
    model: ServerModel,
}

impl Server {
    /// Loads a sealed model from the bytes of a server's bundle, to be computed with `backend`.
    /// Loading may take `max_memory` bytes.
    ///
    /// # Errors
    /// [`OperatorError`] for bytes that are not a sealed model, or that take more memory.
    pub fn load(bytes: &[u8], backend: Backend, max_memory: usize) -> Result<Self, OperatorError> {
        Ok(Self { model: ServerModel::load(bytes, backend, max_memory)? })
    }

    /// Returns the model.
    pub fn model(&self) -> &ServerModel {
        &self.model
    }

    /// Turns one request into an answer or a refusal, all of them bytes. Never fails and never
    /// panics, whatever the bytes are.
    pub fn handle(&self, request: &[u8]) -> Vec<u8> {
        match in_pool(|| self.answer(request)) {
            Ok(bytes) => bytes,
            Err(refusal) => encode_refusal(refusal),
        }
    }

    /// Returns the bytes of memory that a request of `request` bytes takes at most while it is
    /// decoded and computed, its own and its answer's among them. `None` if there is no operator
    /// `index`.
    pub fn work_bytes(&self, index: usize, request: usize) -> Option<usize> {
        let images = self.images(index, request)?.max(1);
        Some(request.saturating_add(self.model.operators().get(index)?.work_bytes(images)))
    }

    /// Returns the bytes of memory that the hints of an operator take at most while they are
    /// computed. `None` if there is no such operator.
    pub fn hint_bytes(&self, index: usize) -> Option<usize> {
        Some(self.model.operators().get(index)?.hint_work_bytes())
    }

    /// Returns how many inputs of operator `index` a request of `request` bytes has room for.
    /// `None` if there is no such operator.
    pub fn images(&self, index: usize, request: usize) -> Option<usize> {
        let operator = self.model.operators().get(index)?;
        Some(request / (operator.tiles() * poly_len(operator.ring())))
    }

    /// Returns the hints of one operator as a message, or `None` if there is no such operator. They
    /// are public, the same for everybody, and checked by whoever takes them.
    pub fn hints(&self, index: usize) -> Option<Vec<u8>> {
        let operator = self.model.operators().get(index)?;
        encode_hints(index as u32, operator).ok()
    }

    /// Loads a server's bundle section by section, to be computed with `backend`. Loading may take
    /// `max_memory` bytes.
    ///
    /// # Errors
    /// [`OperatorError`] for a bundle that is not a sealed model, or that takes more memory.
    pub fn read(source: impl Read + Seek, backend: Backend, max_memory: usize) -> Result<Self, OperatorError> {
        Ok(Self { model: ServerModel::read(source, backend, max_memory)? })
    }

    fn answer(&self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let asked = decode_request(request, &self.model)?;
        encode_answer(&asked, &self.model.operators()[asked.operator])
    }
}
