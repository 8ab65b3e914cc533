//! A sealed network.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jali::parts::bundle::hex;
use pyo3::prelude::*;

use crate::client::Client;
use crate::errors::error;
use crate::running::{self, Caller, Worker};

/// A sealed network that is in memory: what the server gets and what the client gets.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Sealed {
    sealed: Mutex<Option<jali::Sealed>>,
    id: String,
    fraction_hidden: f64,
}

impl Sealed {
    pub(crate) fn new(sealed: jali::Sealed) -> Self {
        let (hidden, all) = sealed
            .report()
            .iter()
            .fold((0, 0), |(hidden, all), layer| (hidden + layer.weights_hidden, all + layer.weights));
        let (id, fraction_hidden) = (hex(&sealed.id()), hidden as f64 / (all as f64).max(1.0));
        Self { sealed: Mutex::new(Some(sealed)), id, fraction_hidden }
    }

    fn take(&self, py: Python<'_>) -> PyResult<jali::Sealed> {
        let taken = self.sealed.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| error(py, "this sealed network went into in_process(), or is in use: seal it again"))
    }
}

#[pymethods]
impl Sealed {
    #[getter]
    fn model_id(&self) -> &str {
        &self.id
    }

    #[getter]
    fn fraction_hidden(&self) -> f64 {
        self.fraction_hidden
    }

    /// Writes `server` and `client` into a folder; returns the client's content hash.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<String> {
        let mut sealed = self.take(py)?;
        let save = move |_: &Caller| {
            let saved = sealed.save(&folder);
            Ok((saved, sealed))
        };
        let (saved, sealed) = running::run(py, save)?;
        *self.sealed.lock().unwrap_or_else(PoisonError::into_inner) = Some(sealed);
        let files = saved.map_err(|e| crate::errors::raise(py, e))?;
        Ok(hex(&files.client.content_hash))
    }

    /// Both sides in this process. The sealed network is gone then.
    fn in_process(&self, py: Python<'_>) -> PyResult<Client> {
        let sealed = self.take(py)?;
        let worker = Worker::start(py)?;
        let own = worker.clone();
        worker.run(py, move |_| Client::in_process(sealed.in_process()?, own))
    }

    fn __repr__(&self) -> String {
        format!("Sealed(model {}, {:.1} % of the weights hidden)", self.id, 100.0 * self.fraction_hidden)
    }
}
