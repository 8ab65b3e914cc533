//! Requests that somebody else carries.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jali::{JaliError, Tensor};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::arrays::{Floats, Labels};
use crate::errors::{error, raise};
use crate::outputs::Outputs;
use crate::running;

/// What a request needs to be carried by somebody else.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// What becomes of a client whose requests somebody else carries.
pub(crate) enum Event {
    Asked(Asked),
    Done(Result<Vec<Vec<Tensor>>, JaliError>),
}

/// The other end of such a client.
pub(crate) struct ByHand {
    pub(crate) events: Sender<Event>,
    pub(crate) answers: Receiver<Vec<u8>>,
}

/// How far a request that is carried by hand has come.
#[derive(Default)]
struct State {
    path: Option<String>,
    done: Option<Vec<Vec<Tensor>>>,
}

/// A request whose answer somebody else brings.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Pending {
    events: Mutex<Receiver<Event>>,
    answer: Sender<Vec<u8>>,
    outputs: Outputs,
    state: Mutex<State>,
}

impl Pending {
    /// Takes what comes from a client over `events`, and hands it answers.
    pub(crate) fn new(events: Receiver<Event>, answer: Sender<Vec<u8>>, outputs: Outputs) -> Self {
        Self { events: Mutex::new(events), answer, outputs, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next request, or the end.
    pub(crate) fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let event = running::next(py, &self.events)?;
        let mut state = self.state();
        match event {
            Event::Asked(Asked { path, body }) => {
                state.path = Some(path);
                Ok(Some(PyBytes::new(py, &body)))
            }
            Event::Done(result) => {
                (state.path, state.done) = (None, Some(result.map_err(|e| raise(py, e))?));
                Ok(None)
            }
        }
    }

    fn done<T>(&self, py: Python<'_>, read: impl FnOnce(&[Vec<Tensor>]) -> PyResult<T>) -> PyResult<T> {
        match &self.state().done {
            Some(done) => read(done),
            None => Err(error(py, "answers are still to come: finish takes them")),
        }
    }
}

#[pymethods]
impl Pending {
    /// Where the request goes, as a path of the server's; none at the end.
    #[getter]
    fn path(&self) -> Option<String> {
        self.state().path.clone()
    }

    /// Takes the answer; returns the next request, or nothing at the end.
    fn finish<'py>(&self, py: Python<'py>, answer: PyBackedBytes) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if self.state().path.is_none() {
            return Err(error(py, "no answer is outstanding"));
        }
        self.answer.send(answer.to_vec()).map_err(|_| error(py, "no answer is outstanding"))?;
        self.next(py)
    }

    fn run<'py>(&self, py: Python<'py>) -> PyResult<Vec<Floats<'py>>> {
        let done = self.done(py, |done| Ok(done.to_vec()))?;
        self.outputs.all(py, done)
    }

    fn predict<'py>(&self, py: Python<'py>) -> PyResult<Labels<'py>> {
        self.done(py, |done| self.outputs.labels(py, done))
    }

    fn predict_proba<'py>(&self, py: Python<'py>) -> PyResult<Floats<'py>> {
        self.done(py, |done| self.outputs.probabilities(py, done))
    }
}
