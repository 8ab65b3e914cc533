//! Runs work of the library so that Python goes on: without the interpreter's lock, ended by
//! Ctrl-C, and refused in a process that was forked.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jali::JaliError;
use pyo3::prelude::*;

use crate::errors::{error, raise};

/// How often signals are looked for.
const SIGNALS: Duration = Duration::from_millis(50);

/// The process whose threads compute, once they have begun; 0 before.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Notes that this process's threads compute from now on.
///
/// # Errors
/// `jali.Error` in a process that was forked from one whose threads have begun: a fork has none of
/// them, and would wait for them for ever.
pub(crate) fn begin(py: Python<'_>) -> PyResult<()> {
    let own = std::process::id();
    match PROCESS.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Err(other) if other != own => Err(error(
            py,
            "this process was forked after jali had been used, and a fork has none of its threads: start processes \
             with the method \"spawn\", as in multiprocessing.get_context(\"spawn\")",
        )),
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own, without the interpreter's lock, and returns what it does.
///
/// # Errors
/// What `work` returns; `KeyboardInterrupt`, or whatever a signal's handler raises, after which
/// `stop` is called and `work` goes to its end unseen.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, JaliError> + Send + 'static,
    stop: impl FnOnce(),
) -> PyResult<T> {
    Worker::start(py)?.run(py, work, stop)
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread for work that comes often: starting one takes a tenth of a millisecond. It ends when
/// this is dropped.
#[derive(Clone)]
pub(crate) struct Worker(Sender<Job>);

impl Worker {
    pub(crate) fn start(py: Python<'_>) -> PyResult<Self> {
        begin(py)?;
        let (jobs, to_do) = channel::<Job>();
        let work = move || to_do.into_iter().for_each(|job| job());
        let started = std::thread::Builder::new().name("jali".into()).spawn(work);
        started.map_err(|e| error(py, format!("cannot start a thread: {e}")))?;
        Ok(Self(jobs))
    }

    /// Runs `work` as [`run`] does.
    ///
    /// # Errors
    /// Those of [`run`].
    pub(crate) fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> Result<T, JaliError> + Send + 'static,
        stop: impl FnOnce(),
    ) -> PyResult<T> {
        begin(py)?;
        let (sender, receiver) = sync_channel(1);
        // Whoever was to take it may be gone.
        let job = move || drop(sender.send(work()));
        // If the thread has ended, so has the sender, which is noticed below.
        let _ = self.0.send(Box::new(job));
        taken(py, &Mutex::new(receiver), stop)
    }
}

fn taken<T: Send>(
    py: Python<'_>,
    receiver: &Mutex<Receiver<Result<T, JaliError>>>,
    stop: impl FnOnce(),
) -> PyResult<T> {
    match next(py, receiver) {
        Ok(result) => result.map_err(|e| raise(py, e)),
        Err(raised) => {
            stop();
            Err(raised)
        }
    }
}

/// Waits for what comes next, without the interpreter's lock.
///
/// # Errors
/// `KeyboardInterrupt`, or whatever a signal's handler raises.
pub(crate) fn next<T: Send>(py: Python<'_>, receiver: &Mutex<Receiver<T>>) -> PyResult<T> {
    let look = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SIGNALS);
    loop {
        match py.detach(look) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(error(py, "jali's thread ended before its work did: this is a defect, please report it"));
            }
        }
    }
}

/// Returns the number of threads that compute.
#[pyfunction]
pub(crate) fn threads(py: Python<'_>) -> PyResult<usize> {
    begin(py)?;
    Ok(rayon::current_num_threads())
}

/// Sets the number of threads that compute, before anything is computed.
#[pyfunction]
pub(crate) fn set_threads(py: Python<'_>, n: usize) -> PyResult<()> {
    begin(py)?;
    rayon::ThreadPoolBuilder::new().num_threads(n).build_global().or_else(|_| match rayon::current_num_threads() {
        now if now == n => Ok(()),
        now => Err(error(
            py,
            format!("{now} threads compute already: jali.set_threads must come before anything is computed"),
        )),
    })
}
