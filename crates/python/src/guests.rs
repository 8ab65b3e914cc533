//! The guests' mode: owners who deal, guests who infer.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::SecretString;
use jali::guests::{Backend, Fetching, GuestClient, Kept, fetch};
use jali::parts::bundle::hex;
use jali::parts::tickets::{Auditor, Dealer, GuestIdentity, OwnerFile, Terms, Transcript, Verdict, Wallet, WalletInfo};
use jali::{JaliError, Preprocess, Tensor};
use pyo3::prelude::*;

use crate::arrays::{Floats, Images, Labels};
use crate::client::owner_key;
use crate::errors::raise;
use crate::outputs::Outputs;
use crate::running::{self, Caller, Worker};
use crate::ways::Reach;

/// Makes a guest's key in a file, and returns its recipient.
#[pyfunction]
pub(crate) fn generate_key(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let identity = GuestIdentity::generate();
    identity.write(&path).map_err(|e| raise(py, e))?;
    Ok(identity.recipient())
}

/// Returns the recipient of a guest's key.
#[pyfunction]
pub(crate) fn recipient_of(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    Ok(GuestIdentity::read(&path).map_err(|e| raise(py, e))?.recipient())
}

/// Returns how many tickets a wallet has, how many can be fetched, and until when they are valid.
#[pyfunction]
pub(crate) fn tickets_left(py: Python<'_>, wallet: PathBuf, key: PathBuf) -> PyResult<(u32, u32, String)> {
    let left = || {
        let info = WalletInfo::read(&wallet, None)?;
        let left = info.left(&GuestIdentity::read(&key)?)?;
        Ok::<_, JaliError>((left.here, left.fetchable, info.manifest().until()))
    };
    left().map_err(|e| raise(py, e))
}

/// An owner of a network that was sealed for guests.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Owner {
    path: PathBuf,
    passphrase: Option<SecretString>,
    dealer: Arc<Dealer>,
}

#[pymethods]
impl Owner {
    /// Opens an owner's file.
    #[new]
    #[pyo3(signature = (path, passphrase=None))]
    fn open(py: Python<'_>, path: PathBuf, passphrase: Option<String>) -> PyResult<Self> {
        let passphrase = passphrase.map(SecretString::from);
        let (from, secret) = (path.clone(), passphrase.clone());
        let open = move |_: &Caller| Ok(Dealer::new(OwnerFile::read(&from, secret.as_ref())?, Backend::best()));
        let dealer = Arc::new(running::run(py, open)?);
        Ok(Self { path, passphrase, dealer })
    }

    /// The key by which guests know this owner.
    #[getter]
    fn key(&self) -> String {
        hex(&self.dealer.owner().public_key())
    }

    #[getter]
    fn name(&self) -> &str {
        &self.dealer.owner().name
    }

    /// Deals a batch; returns (server, wallet, output bits, model bits, bytes of the wallet).
    #[pyo3(signature = (to, count, out, days, on_demand=false, progress=None))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python function")]
    fn deal(
        &self,
        py: Python<'_>,
        to: String,
        count: u32,
        out: PathBuf,
        days: u32,
        on_demand: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(PathBuf, PathBuf, u64, u64, u64)> {
        let (dealer, terms) = (self.dealer.clone(), Terms { guest: to, tickets: count, days, on_demand });
        let progress = progress.map(Arc::new);
        let deal = move |caller: &Caller| {
            Ok(dealer.deal_while(&out, &terms, |done| {
                caller.tell(progress.as_ref(), done as usize);
                if caller.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?)
        };
        let dealt = running::run(py, deal)?;
        let m = &dealt.manifest;
        let bits = u64::from(m.output_bits) * u64::from(m.tickets);
        Ok((dealt.server, dealt.wallet, bits, m.model_bits, dealt.wallet_bytes))
    }

    /// Whether the server was honest, by a transcript that it has signed.
    fn judge(&self, py: Python<'_>, transcript: PathBuf, batch: PathBuf) -> PyResult<bool> {
        let (path, passphrase) = (self.path.clone(), self.passphrase.clone());
        let judge = move |_: &Caller| {
            let owner = OwnerFile::read(&path, passphrase.as_ref())?;
            let read = Transcript::read(&transcript, &owner.public_key())?;
            let verdict = Auditor::new(owner, &batch, Backend::best())?.judge(&transcript, &read)?;
            Ok(verdict == Verdict::Honest)
        };
        running::run(py, judge)
    }

    fn __repr__(&self) -> String {
        format!("Owner({:?}; what it holds is not shown)", self.name())
    }
}

/// A guest with its wallet.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Guest {
    guest: Arc<Mutex<GuestClient>>,
    left: Arc<AtomicU32>,
    worker: Worker,
    shape: Vec<usize>,
    preprocess: Preprocess,
    outputs: Outputs,
}

impl Guest {
    /// Infers, and reads what came by `read`. What a failure leaves of the images before it is in
    /// the exception, as `done`.
    fn infer<'py, R: IntoPyObject<'py>>(
        &self,
        py: Python<'py>,
        images: &Images<'_>,
        transcripts: Option<PathBuf>,
        read: impl Fn(&Outputs, Vec<Vec<Tensor>>) -> PyResult<R>,
    ) -> PyResult<R> {
        let images = images.tensors(py, &self.shape, &self.preprocess)?;
        let (guest, left) = (self.guest.clone(), self.left.clone());
        let (outputs, failure) = self.worker.run(py, move |caller| {
            let mut guest = guest.lock().unwrap_or_else(PoisonError::into_inner);
            guest.check_left(images.len() as u32)?;
            guest.keep(if transcripts.is_some() { Kept::Transcript } else { Kept::Nothing });
            let mut outputs = vec![];
            for (i, image) in images.iter().enumerate() {
                let one = caller.check().and_then(|()| guest.infer(image, (images.len() - i - 1) as u32));
                left.store(guest.left(), Ordering::Relaxed);
                let kept = one.and_then(|answer| {
                    outputs.push(vec![answer.output]);
                    let to = transcripts.as_ref().map(|folder| folder.join(format!("{i}.transcript")));
                    to.zip(answer.transcript).map_or(Ok(()), |(path, transcript)| Ok(transcript.write(&path)?))
                });
                if let Err(failure) = kept {
                    return Ok((outputs, Some(failure)));
                }
            }
            Ok((outputs, None))
        })?;
        let Some(failure) = failure else { return read(&self.outputs, outputs) };
        let raised = raise(py, failure);
        if !outputs.is_empty() {
            raised.value(py).setattr("done", read(&self.outputs, outputs)?)?;
        }
        Err(raised)
    }
}

#[pymethods]
impl Guest {
    /// Opens a wallet. Nothing is sent.
    #[new]
    #[pyo3(signature = (wallet, key, server, owner=None))]
    fn open(py: Python<'_>, wallet: PathBuf, key: PathBuf, server: Reach, owner: Option<&str>) -> PyResult<Self> {
        let (owner, config) = (owner_key(py, owner)?, server.config());
        let open = move |_: &Caller| GuestClient::open(&wallet, &GuestIdentity::read(&key)?, owner.as_ref(), config);
        let guest = running::run(py, open)?;
        let description = guest.description();
        let network = &description.network;
        let (shape, preprocess) = (network.head.input_shape().to_vec(), description.preprocess.clone());
        let outputs = Outputs::of(&network.tail, network.output.classes.is_some());
        let left = Arc::new(AtomicU32::new(guest.left()));
        let (guest, worker) = (Arc::new(Mutex::new(guest)), Worker::start(py)?);
        Ok(Self { guest, left, worker, shape, preprocess, outputs })
    }

    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    #[getter]
    fn classes(&self) -> Option<usize> {
        self.outputs.count()
    }

    /// Tickets that are left.
    #[getter]
    fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    /// Its output, (n, ...).
    #[pyo3(signature = (images, transcripts=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        images: Images<'py>,
        transcripts: Option<PathBuf>,
    ) -> PyResult<Vec<Floats<'py>>> {
        self.infer(py, &images, transcripts, |outputs, done| outputs.all(py, done))
    }

    /// Classes, (n,).
    #[pyo3(signature = (images, transcripts=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        images: Images<'py>,
        transcripts: Option<PathBuf>,
    ) -> PyResult<Labels<'py>> {
        self.infer(py, &images, transcripts, |outputs, done| outputs.labels(py, &done))
    }

    /// Probabilities, (n, classes).
    #[pyo3(signature = (images, transcripts=None))]
    fn predict_proba<'py>(
        &self,
        py: Python<'py>,
        images: Images<'py>,
        transcripts: Option<PathBuf>,
    ) -> PyResult<Floats<'py>> {
        self.outputs.check_probabilities(py)?;
        self.infer(py, &images, transcripts, |outputs, done| outputs.probabilities(py, &done))
    }

    fn __repr__(&self) -> String {
        format!("Guest(input {:?}; its wallet is not shown)", self.shape)
    }
}

/// Fetches tickets into a wallet from the owner's dealing service; returns how many came.
#[pyfunction]
#[pyo3(signature = (wallet, key, server, count, owner=None, progress=None))]
pub(crate) fn fetch_tickets(
    py: Python<'_>,
    wallet: PathBuf,
    key: PathBuf,
    server: Reach,
    count: u32,
    owner: Option<&str>,
    progress: Option<Py<PyAny>>,
) -> PyResult<u32> {
    let (owner, config) = (owner_key(py, owner)?, server.config());
    let progress = progress.map(Arc::new);
    let bring = move |caller: &Caller| {
        let identity = GuestIdentity::read(&key)?;
        let mut wallet = Wallet::open(&wallet, &identity, owner.as_ref())?;
        fetch(&mut wallet, &identity, &config, count, |fetching| {
            if let Fetching::Came(came) = fetching {
                caller.tell(progress.as_ref(), came as usize);
            }
        })
    };
    running::run(py, bring)
}
