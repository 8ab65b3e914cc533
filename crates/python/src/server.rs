//! The server: sealed networks and batches of tickets, on threads of this process.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jali::parts::net::{Config, Running, TlsFiles, Tokens};
use jali::serving::{Loaded, load};
use jali::{Backend, JaliError};
use pyo3::prelude::*;

use crate::errors::{bad_input, error};
use crate::running::{self, Caller};

/// A server that runs until it is stopped.
#[pyclass(frozen, module = "jali._jali")]
pub(crate) struct Server {
    running: Arc<Mutex<Option<Running>>>,
    url: String,
    bundles: Vec<PathBuf>,
    tickets: Vec<PathBuf>,
    token_file: Option<PathBuf>,
}

#[pymethods]
impl Server {
    /// Starts a server.
    #[staticmethod]
    #[pyo3(signature = (bundles, tickets, host, port, tls_cert=None, tls_key=None, token_file=None, insecure=false))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python function")]
    fn start(
        py: Python<'_>,
        bundles: Vec<PathBuf>,
        tickets: Vec<PathBuf>,
        host: &str,
        port: u16,
        tls_cert: Option<PathBuf>,
        tls_key: Option<PathBuf>,
        token_file: Option<PathBuf>,
        insecure: bool,
    ) -> PyResult<Self> {
        let listen = address(host, port).ok_or_else(|| bad_input(py, format!("host {host:?} has no address")))?;
        if tls_cert.is_some() != tls_key.is_some() {
            return Err(bad_input(py, "tls_cert and tls_key go together"));
        }
        let tls = tls_cert.zip(tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (named, dealt, tokens) = (bundles.clone(), tickets.clone(), token_file.clone());
        let start = move |_: &Caller| {
            let tokens = tokens.as_deref().map(Tokens::read).transpose()?;
            let running = Running::start(Config { listen, tls, tokens, insecure, ..Config::loopback() })?;
            let Loaded { keyed, guests } = load(&named, &dealt, Backend::fastest(), &Loaded::default())?;
            running.serve_guests(guests);
            running.serve(keyed);
            Ok::<_, JaliError>(running)
        };
        let running = running::run(py, start)?;
        let url = format!("{scheme}://{}", running.addr());
        Ok(Self { running: Arc::new(Mutex::new(Some(running))), url, bundles, tickets, token_file })
    }

    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// Reads all files again, without dropping a request.
    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        let (running, bundles, tickets) = (self.running.clone(), self.bundles.clone(), self.tickets.clone());
        let token_file = self.token_file.clone();
        let reload = move |_: &Caller| {
            let running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = &*running else { return Ok(false) };
            let tokens = token_file.as_deref().map(Tokens::read).transpose()?;
            let old = Loaded { keyed: running.models(), guests: running.guest_services() };
            let Loaded { keyed, guests } = load(&bundles, &tickets, Backend::fastest(), &old)?;
            running.reload(keyed, tokens)?;
            running.serve_guests(guests);
            Ok(true)
        };
        match running::run(py, reload)? {
            true => Ok(()),
            false => Err(error(py, "this server was stopped: start another one")),
        }
    }

    /// Finishes what runs and ends.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        running::begin(py)?;
        let running = self.running.clone();
        py.detach(move || {
            let taken = running.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.into_iter().for_each(Running::stop);
        });
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("Server({})", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if running::is_forked() {
            // Its threads are another process's, and cannot be waited for here.
            std::mem::forget(self.running.clone());
        }
    }
}

fn address(host: &str, port: u16) -> Option<SocketAddr> {
    (host, port).to_socket_addrs().ok()?.next()
}
