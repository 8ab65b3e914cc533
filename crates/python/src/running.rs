//! Runs work of the library so that Python goes on: without the interpreter's lock, ended by
//! Ctrl-C, and refused in a process that was forked.
//!
//! Work is done on threads of its own. Functions of Python's that it needs are called on the thread
//! that waits for it: no other thread of ours ever enters the interpreter, which may be gone.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jali::JaliError;
use pyo3::prelude::*;

use crate::errors::{bad_input, error, raise};

/// How often signals are looked for.
const SIGNALS: Duration = Duration::from_millis(50);

/// The process whose threads compute, once they have begun; 0 before.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Whether this process was forked from one whose threads compute.
pub(crate) fn is_forked() -> bool {
    ![0, std::process::id()].contains(&PROCESS.load(Ordering::Relaxed))
}

/// Notes that this process's threads compute from now on.
///
/// # Errors
/// `jali.Error` in a process that was forked from one whose threads have begun: a fork has none of
/// them, and would wait for them for ever.
pub(crate) fn begin(py: Python<'_>) -> PyResult<()> {
    if is_forked() {
        return Err(error(
            py,
            "this process was forked after jali had been used, and a fork has none of its threads: start processes \
             with the method \"spawn\", as in multiprocessing.get_context(\"spawn\")",
        ));
    }
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    Ok(())
}

type Ask = Box<dyn FnOnce(Python<'_>) + Send>;

/// What comes from work under way.
enum Message<T> {
    /// Something of Python's is to be called.
    Ask(Ask),
    /// The end.
    Done(Result<T, JaliError>),
}

/// Whoever waits for work, as the work sees it.
#[derive(Clone)]
pub(crate) struct Caller {
    ask: Arc<dyn Fn(Ask) -> bool + Send + Sync>,
    is_gone: Arc<AtomicBool>,
}

impl Caller {
    /// Whether nobody waits any more: Ctrl-C has ended the call.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Fails if nobody waits any more.
    ///
    /// # Errors
    /// [`stopped`].
    pub(crate) fn check(&self) -> Result<(), JaliError> {
        if self.is_gone() { Err(stopped()) } else { Ok(()) }
    }

    /// Calls something of Python's on the thread that waits; nothing comes back if nobody does.
    pub(crate) fn call<R: Send + 'static>(&self, call: impl FnOnce(Python<'_>) -> R + Send + 'static) -> Option<R> {
        let (sender, receiver) = channel();
        let ask = move |py: Python<'_>| drop(sender.send(call(py)));
        if !(self.ask)(Box::new(ask)) {
            return None;
        }
        receiver.recv().ok()
    }

    /// Tells a function of Python's how many steps are done. What it raises is lost: a picture of
    /// progress is not worth the work.
    pub(crate) fn tell(&self, progress: Option<&Arc<Py<PyAny>>>, done: usize) {
        if let Some(progress) = progress.cloned() {
            self.call(move |py| drop(progress.call1(py, (done,))));
        }
    }
}

/// What work fails with when nobody waits for it.
pub(crate) fn stopped() -> JaliError {
    JaliError::Transport(std::io::Error::other("it was stopped"))
}

/// Starts a thread of ours.
pub(crate) fn thread(py: Python<'_>, work: impl FnOnce() + Send + 'static) -> PyResult<()> {
    let started = std::thread::Builder::new().name("jali".into()).spawn(work);
    started.map(drop).map_err(|e| error(py, format!("cannot start a thread: {e}")))
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
        thread(py, move || to_do.into_iter().for_each(|job| job()))?;
        Ok(Self(jobs))
    }

    /// Runs `work` without the interpreter's lock and returns what it does.
    ///
    /// # Errors
    /// What `work` returns; `KeyboardInterrupt`, or whatever a signal's handler raises. Then the
    /// caller is gone, and `work`, which may not have begun, ends as soon as it looks.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Caller) -> Result<T, JaliError> + Send + 'static,
    ) -> PyResult<T> {
        begin(py)?;
        let (sender, receiver) = channel::<Message<T>>();
        let (asks, is_gone) = (sender.clone(), Arc::<AtomicBool>::default());
        let ask = move |ask| asks.send(Message::Ask(ask)).is_ok();
        let caller = Caller { ask: Arc::new(ask), is_gone: is_gone.clone() };
        let job = move || {
            let done = caller.check().and_then(|()| work(&caller));
            // Whoever was to take it may be gone.
            drop(sender.send(Message::Done(done)));
        };
        // If the thread has ended, so has the sender, which is noticed below.
        let _ = self.0.send(Box::new(job));
        let (_gone, receiver) = (Gone(is_gone), Mutex::new(receiver));
        loop {
            match next(py, &receiver)? {
                Message::Ask(ask) => ask(py),
                Message::Done(done) => return done.map_err(|e| raise(py, e)),
            }
        }
    }
}

/// Says, when it is dropped, that the caller is gone.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` as [`Worker::run`] does, on a thread for this alone.
///
/// # Errors
/// Those of [`Worker::run`].
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Caller) -> Result<T, JaliError> + Send + 'static,
) -> PyResult<T> {
    Worker::start(py)?.run(py, work)
}

/// Waits for what comes next, without the interpreter's lock.
///
/// # Errors
/// `KeyboardInterrupt`, or whatever a signal's handler raises.
pub(crate) fn next<T: Send>(py: Python<'_>, receiver: &Mutex<Receiver<T>>) -> PyResult<T> {
    let look = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SIGNALS);
    loop {
        match py.detach(look) {
            Ok(value) => {
                // What was pressed meanwhile comes before an answer.
                py.check_signals()?;
                return Ok(value);
            }
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
pub(crate) fn set_threads(py: Python<'_>, n: i64) -> PyResult<()> {
    begin(py)?;
    let wanted = usize::try_from(n).ok().filter(|n| (1..=1024).contains(n));
    let n = wanted.ok_or_else(|| bad_input(py, format!("{n} threads: 1 to 1024 are possible")))?;
    rayon::ThreadPoolBuilder::new().num_threads(n).build_global().or_else(|_| match rayon::current_num_threads() {
        now if now == n => Ok(()),
        now => {
            let why = format!("{now} threads compute already: jali.set_threads must come before anything is computed");
            Err(error(py, why))
        }
    })
}
