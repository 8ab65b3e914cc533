//! Where a client's server is: at a URL, behind a function of Python's, or nowhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jali::parts::net::{ClientConfig, model_name, operator_path};
use jali::{Delivery, Http, JaliError, Request, Transport};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::client::Shared;
use crate::errors::Raised;

/// A server that a function of Python's asks.
struct Function {
    send: Arc<Py<PyAny>>,
    model: String,
    shared: Shared,
}

impl Function {
    fn call(&self, method: &'static str, path: String, body: Vec<u8>) -> Result<Vec<u8>, JaliError> {
        let send = self.send.clone();
        let answer = self.shared.call(move |py| {
            let answer = send.call1(py, (method, path, PyBytes::new(py, &body)))?;
            Ok::<_, PyErr>(answer.extract::<PyBackedBytes>(py)?.to_vec())
        })?;
        answer.map_err(|e| Raised(e).into())
    }
}

impl Transport for Function {
    fn open(&mut self, model: [u8; 16]) -> Result<(), JaliError> {
        self.model = model_name(model);
        Ok(())
    }

    fn hints(&mut self, operator: usize, _: usize) -> Result<Vec<u8>, JaliError> {
        self.call("GET", format!("{}/hints", operator_path(&self.model, operator)), vec![])
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        let path = operator_path(&self.model, request.operator);
        self.call("POST", path, request.bytes.to_vec()).map(Delivery::Answer)
    }
}

/// No server: hints must be there already, and requests are carried by hand.
struct Nobody;

impl Nobody {
    fn error() -> JaliError {
        let why = "this client has no server: give url or send, or carry its requests (request, finish); for these \
                   the hints must be beside the bundle, where a client with a server leaves them";
        JaliError::Transport(std::io::Error::other(why))
    }
}

impl Transport for Nobody {
    fn hints(&mut self, _: usize, _: usize) -> Result<Vec<u8>, JaliError> {
        Err(Self::error())
    }

    fn send(&mut self, _: Request<'_>) -> Result<Delivery, JaliError> {
        Err(Self::error())
    }
}

fn seconds(deadline: f64) -> Duration {
    Duration::try_from_secs_f64(deadline).unwrap_or(Duration::from_secs(60))
}

/// Where the server is, and who may be believed.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Reach {
    url: Option<String>,
    send: Option<Py<PyAny>>,
    ca_cert: Option<PathBuf>,
    token_file: Option<PathBuf>,
    deadline: f64,
    insecure: bool,
}

impl Reach {
    pub(crate) fn config(self) -> ClientConfig {
        let Self { url, ca_cert, deadline, insecure, .. } = self;
        let timeout = seconds(deadline);
        ClientConfig { url: url.unwrap_or_default(), ca_cert, token: None, timeout, insecure }
    }

    pub(crate) fn transport(self, shared: &Shared) -> Result<Box<dyn Transport>, JaliError> {
        let Self { url, send, ca_cert, token_file, deadline, insecure } = self;
        if let Some(send) = send {
            let (send, shared) = (Arc::new(send), shared.clone());
            return Ok(Box::new(Function { send, model: String::new(), shared }));
        }
        let Some(url) = url else { return Ok(Box::new(Nobody)) };
        let mut http = Http::new(&url).ca_cert(ca_cert).insecure(insecure);
        http = http.deadline(seconds(deadline));
        if let Some(path) = token_file {
            http = http.token_file(path)?;
        }
        Ok(Box::new(http))
    }
}
