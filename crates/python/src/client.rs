//! The client of the keyed mode: keys, and a way to the server.

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use jali::bundle::Pin;
use jali::parts::bundle::unhex;
use jali::parts::net::{model_name, operator_path};
use jali::{Delivery, InProcess, JaliError, Opening, Preprocess, Request, Tensor, Transport};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::{Floats, Images, Labels};
use crate::errors::{bad_input, error, raise};
use crate::outputs::Outputs;
use crate::pending::{Asked, ByHand, Event, Pending};
use crate::running::{self, Caller, Worker, stopped};
use crate::ways::Reach;

/// Most images of a batch: more make nothing faster, and take memory.
const BATCH: usize = 64;

/// The way to the server, which can be stopped, and which lets others carry requests.
struct Way {
    inner: Box<dyn Transport>,
    model: String,
    shared: Shared,
}

impl Transport for Way {
    fn open(&mut self, model: [u8; 16]) -> Result<(), JaliError> {
        self.model = model_name(model);
        self.inner.open(model)
    }

    fn hints(&mut self, operator: usize, most: usize) -> Result<Vec<u8>, JaliError> {
        self.inner.hints(operator, most)
    }

    fn begin(&mut self) {
        self.inner.begin();
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        self.shared.check()?;
        match &*self.shared.by_hand.lock().unwrap_or_else(PoisonError::into_inner) {
            None => self.inner.send(request),
            Some(ByHand { events, answers }) => {
                let path = operator_path(&self.model, request.operator);
                let asked = Asked { path, body: request.bytes.to_vec() };
                events.send(Event::Asked(asked)).map_err(|_| stopped())?;
                answers.recv().map(Delivery::Answer).map_err(|_| stopped())
            }
        }
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn retries(&self) -> usize {
        self.inner.retries()
    }
}

/// What a client and its way to the server share.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    by_hand: Arc<Mutex<Option<ByHand>>>,
    /// Who waits for what is done now.
    caller: Arc<Mutex<Option<Caller>>>,
    /// The thread on which a function of Python's carries a request.
    carrying: Arc<Mutex<Option<ThreadId>>>,
}

impl Shared {
    fn caller(&self) -> Option<Caller> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails if nobody waits any more.
    fn check(&self) -> Result<(), JaliError> {
        self.caller().map_or(Ok(()), |caller| caller.check())
    }

    /// Does work for somebody who waits.
    fn doing<R>(&self, caller: &Caller, work: impl FnOnce() -> R) -> R {
        let set = |caller| *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = caller;
        set(Some(caller.clone()));
        let done = work();
        set(None);
        done
    }

    /// Calls a function of Python's where somebody waits for what is done now.
    ///
    /// # Errors
    /// [`stopped`] if nobody does.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(Python<'_>) -> R + Send + 'static,
    ) -> Result<R, JaliError> {
        let carrying = self.carrying.clone();
        let set = move |thread| *carrying.lock().unwrap_or_else(PoisonError::into_inner) = thread;
        let call = move |py: Python<'_>| {
            set(Some(std::thread::current().id()));
            let done = call(py);
            set(None);
            done
        };
        self.caller().and_then(|caller| caller.call(call)).ok_or_else(stopped)
    }

    /// Fails on the thread that carries a request: what it waits for would wait for it.
    fn check_free(&self, py: Python<'_>) -> PyResult<()> {
        let carrying = *self.carrying.lock().unwrap_or_else(PoisonError::into_inner);
        match carrying == Some(std::thread::current().id()) {
            true => Err(error(py, "this client is in use: a function that carries its requests cannot ask it")),
            false => Ok(()),
        }
    }

    fn way(&self, inner: Box<dyn Transport>) -> Way {
        Way { inner, model: String::new(), shared: self.clone() }
    }

    fn carry_by_hand(&self, by_hand: Option<ByHand>) {
        *self.by_hand.lock().unwrap_or_else(PoisonError::into_inner) = by_hand;
    }
}

/// A client with its keys.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Client {
    client: Arc<Mutex<jali::Client<Way>>>,
    shared: Shared,
    worker: Worker,
    /// Whether the server is in this process.
    is_local: bool,
    /// What the library took for the last images.
    latency: Arc<Mutex<Duration>>,
    shape: Vec<usize>,
    preprocess: Preprocess,
    outputs: Outputs,
}

fn bytes<const N: usize>(py: Python<'_>, name: &str, digits: Option<&str>) -> PyResult<Option<[u8; N]>> {
    let wrong = || bad_input(py, format!("{name} must have {} hexadecimal digits", 2 * N));
    let parse = |text: &str| unhex(text.as_bytes()).ok_or_else(wrong);
    digits.map(parse).transpose()
}

/// The owner's public key of 64 hexadecimal digits.
pub(crate) fn owner_key(py: Python<'_>, digits: Option<&str>) -> PyResult<Option<[u8; 32]>> {
    bytes(py, "owner", digits)
}

impl Client {
    /// A client of a server in this process.
    pub(crate) fn in_process(client: jali::Client<InProcess>, worker: Worker) -> Result<Self, JaliError> {
        let (shared, inner) = (Shared::default(), Box::new(client.transport().clone()));
        let client = client.over(shared.way(inner))?;
        Ok(Self::of(client, shared, worker))
    }

    fn of(client: jali::Client<Way>, shared: Shared, worker: Worker) -> Self {
        let outline = client.outline();
        let (shape, preprocess) = (outline.graph().input_shape().to_vec(), outline.preprocess().clone());
        let outputs = Outputs::of(outline.graph(), false);
        let (latency, is_local) = (Arc::default(), client.transport().is_local());
        Self { client: Arc::new(Mutex::new(client)), shared, worker, is_local, latency, shape, preprocess, outputs }
    }

    /// The outputs of images.
    fn infer(&self, py: Python<'_>, images: &Images<'_>) -> PyResult<Vec<Vec<Tensor>>> {
        let images = images.tensors(py, &self.shape, &self.preprocess)?;
        self.shared.check_free(py)?;
        if self.is_local && images.len() == 1 {
            return self.infer_here(py, &images);
        }
        let (client, latency, shared) = (self.client.clone(), self.latency.clone(), self.shared.clone());
        self.worker.run(py, move |caller| {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            shared.doing(caller, || in_batches(&mut client, &images, &latency))
        })
    }

    /// The outputs of one image by a server in this process, computed on this thread: it waits for
    /// nobody, and handing it over takes longer than the rest of what Python adds.
    fn infer_here(&self, py: Python<'_>, images: &[Tensor]) -> PyResult<Vec<Vec<Tensor>>> {
        running::begin(py)?;
        let mut client = loop {
            match self.client.try_lock() {
                Ok(client) => break client,
                Err(TryLockError::Poisoned(client)) => break client.into_inner(),
                Err(TryLockError::WouldBlock) => py.detach(|| std::thread::sleep(Duration::from_millis(1))),
            }
            py.check_signals()?;
        };
        let (client, latency): (&mut jali::Client<Way>, _) = (&mut client, &self.latency);
        let done = py.detach(|| in_batches(client, images, latency));
        py.check_signals()?;
        done.map_err(|e| raise(py, e))
    }
}

/// The outputs of any number of images, and how long the library took.
fn in_batches(
    client: &mut jali::Client<Way>,
    images: &[Tensor],
    latency: &Mutex<Duration>,
) -> Result<Vec<Vec<Tensor>>, JaliError> {
    let most = client.max_images().clamp(1, BATCH);
    let (mut outputs, mut took) = (vec![], Duration::ZERO);
    for batch in images.chunks(most) {
        // What a call of the library takes, its entry into the pool of threads included.
        let begun = Instant::now();
        outputs.extend(client.infer_batch(batch)?.outputs);
        took += begun.elapsed();
    }
    *latency.lock().unwrap_or_else(PoisonError::into_inner) = took;
    Ok(outputs)
}

#[pymethods]
impl Client {
    /// Opens a client's bundle and gets its hints.
    #[new]
    #[pyo3(signature = (path, server, passphrase=None, model_id=None, content_hash=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        server: Reach,
        passphrase: Option<String>,
        model_id: Option<&str>,
        content_hash: Option<&str>,
    ) -> PyResult<Self> {
        let pin =
            Pin { model_id: bytes(py, "model_id", model_id)?, content_hash: bytes(py, "content_hash", content_hash)? };
        let opening = Opening { passphrase: passphrase.map(SecretString::from), pin, keep_hints: true };
        let worker = Worker::start(py)?;
        let own = worker.clone();
        worker.run(py, move |caller| {
            let shared = Shared::default();
            let way = shared.way(server.transport(&shared)?);
            let opened = jali::Client::open_with(path, &opening)?;
            let client = shared.doing(caller, || opened.connect(way))?;
            Ok(Self::of(client, shared, own))
        })
    }

    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    #[getter]
    fn output_shapes(&self) -> Vec<Vec<usize>> {
        self.outputs.shapes().to_vec()
    }

    #[getter]
    fn classes(&self) -> Option<usize> {
        self.outputs.count()
    }

    /// What the library took for the last images, in ms.
    #[getter]
    fn latency_ms(&self) -> f64 {
        1e3 * self.latency.lock().unwrap_or_else(PoisonError::into_inner).as_secs_f64()
    }

    /// All outputs, each (n, ...).
    fn run<'py>(&self, py: Python<'py>, images: Images<'py>) -> PyResult<Vec<Floats<'py>>> {
        let outputs = self.infer(py, &images)?;
        self.outputs.all(py, outputs)
    }

    /// Classes, (n,).
    fn predict<'py>(&self, py: Python<'py>, images: Images<'py>) -> PyResult<Labels<'py>> {
        let outputs = self.infer(py, &images)?;
        self.outputs.labels(py, &outputs)
    }

    /// Probabilities, (n, classes).
    fn predict_proba<'py>(&self, py: Python<'py>, images: Images<'py>) -> PyResult<Floats<'py>> {
        let outputs = self.infer(py, &images)?;
        self.outputs.probabilities(py, &outputs)
    }

    /// Masks images and returns the first request, and what takes its answer.
    fn request<'py>(&self, py: Python<'py>, images: Images<'py>) -> PyResult<(Option<Bound<'py, PyBytes>>, Pending)> {
        running::begin(py)?;
        self.shared.check_free(py)?;
        let images = images.tensors(py, &self.shape, &self.preprocess)?;
        let ((events, from_client), (answer, answers)) = (channel(), channel());
        let (client, shared, done) = (self.client.clone(), self.shared.clone(), events.clone());
        let carry = move || {
            let Ok(mut client) = client.try_lock() else {
                let why = "this client is in use: finish what it is doing first, or open another one";
                return Err(JaliError::Transport(std::io::Error::other(why)));
            };
            shared.carry_by_hand(Some(ByHand { events, answers }));
            let answer = client.infer_batch(&images);
            shared.carry_by_hand(None);
            answer.map(|answer| answer.outputs)
        };
        running::thread(py, move || {
            // Whoever was to take it may be gone.
            let _ = done.send(Event::Done(carry()));
        })?;
        let pending = Pending::new(from_client, answer, self.outputs.clone());
        let body = pending.next(py)?;
        Ok((body, pending))
    }

    fn __repr__(&self) -> String {
        format!("Client(input {:?}; its keys are not shown)", self.shape)
    }
}
