//! The server: sealed bytes and a kernel, nothing else. It keeps no state between requests.

use jali_operator::{OperatorError, ServerModel};
use jali_ring::Kernel;

use crate::message::{Refusal, decode_request, encode_answer, encode_refusal};

/// A loaded model ready to answer.
#[derive(Debug)]
pub struct Server {
    model: ServerModel,
}

impl Server {
    /// Loads sealed bytes to be computed with `kernel`; `max_memory` bounds what loading may take.
    ///
    /// # Errors
    /// [`OperatorError`] for bytes that are not a sealed model.
    pub fn load(bytes: &[u8], kernel: Kernel, max_memory: usize) -> Result<Self, OperatorError> {
        Ok(Self { model: ServerModel::load(bytes, kernel, max_memory)? })
    }

    /// What it holds.
    pub fn model(&self) -> &ServerModel {
        &self.model
    }

    /// One request to one answer or refusal, both as bytes. Never fails and never panics, whatever the bytes are.
    pub fn handle(&self, request: &[u8]) -> Vec<u8> {
        match self.answer(request) {
            Ok(bytes) => bytes,
            Err(refusal) => encode_refusal(refusal),
        }
    }

    fn answer(&self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (index, batch) = decode_request(request, &self.model)?;
        let operator = &self.model.operators()[index];
        let answers = operator.apply(&batch).map_err(|_| Refusal::Malformed)?;
        Ok(encode_answer(index as u32, operator.ring(), &answers))
    }
}
