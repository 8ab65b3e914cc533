//! Turns errors of the library into the exceptions of `jali/_errors.py`, with the same words.

use jali::{ErrorKind, JaliError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Name of the exception of a kind of failure.
fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage | ErrorKind::Image(_) => "BadInput",
        ErrorKind::Model => "UnsupportedModel",
        ErrorKind::WrongAnswer => "WrongAnswer",
        ErrorKind::Damaged => "DamagedFile",
        ErrorKind::Locked => "Locked",
        ErrorKind::Refused => "Refused",
        ErrorKind::Memory => "OutOfMemory",
        ErrorKind::File => "FileFailure",
        ErrorKind::Tickets => "OutOfTickets",
        _ => "Error",
    }
}

fn exception(py: Python<'_>, name: &str, message: String) -> PyErr {
    let class = py.import("jali._errors").and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((message.as_str(),))) {
        Ok(value) => PyErr::from_value(value),
        // The package is taken apart, as at the interpreter's end.
        Err(_) => PyRuntimeError::new_err(message),
    }
}

/// Raises what the library says.
pub(crate) fn raise(py: Python<'_>, error: impl Into<JaliError>) -> PyErr {
    let error = error.into();
    if let JaliError::Transport(io) = &error
        && let Some(raised) = io.get_ref().and_then(|inner| inner.downcast_ref::<Raised>())
    {
        return raised.0.clone_ref(py);
    }
    let words = WORDS.iter().fold(error.to_string(), |text, (command, here)| text.replace(command, here));
    exception(py, name(error.kind()), words)
}

/// What options of the command are called here.
const WORDS: [(&str, &str); 6] = [
    ("--passphrase-file", "passphrase"),
    ("--insecure", "insecure=True"),
    ("--content-hash", "content_hash"),
    ("jali guest key --out FILE", "jali.GuestKey.generate(FILE)"),
    ("(jali serve --tickets)", "(tickets=...)"),
    ("--key names", "key must be"),
];

/// Raises `BadInput`.
pub(crate) fn bad_input(py: Python<'_>, message: impl Into<String>) -> PyErr {
    exception(py, "BadInput", message.into())
}

/// Raises `Error`.
pub(crate) fn error(py: Python<'_>, message: impl Into<String>) -> PyErr {
    exception(py, "Error", message.into())
}

/// An exception of the user's own code on its way through the library.
#[derive(Debug)]
pub(crate) struct Raised(pub(crate) PyErr);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Raised {}

impl From<Raised> for JaliError {
    fn from(raised: Raised) -> Self {
        Self::Transport(std::io::Error::other(raised))
    }
}
