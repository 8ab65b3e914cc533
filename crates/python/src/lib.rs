//! `jali._jali`, the compiled part of the Python package: what `python/jali` wraps in classes with
//! documentation. Everything here takes and gives arrays of one form, and plain values.

#![forbid(unsafe_code)]

mod arrays;
mod client;
mod errors;
mod guests;
mod logs;
mod network;
mod outputs;
mod pending;
mod running;
mod sealed;
mod server;
mod ways;

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command `jali` and returns its exit code.
#[pyfunction]
fn command(py: Python<'_>, args: Vec<OsString>) -> u8 {
    // It says what it has to say itself.
    log::set_max_level(log::LevelFilter::Off);
    py.detach(|| jali_cli::run(args))
}

/// Everything that the package's Python files use.
#[pymodule(gil_used = false)]
mod _jali {
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::command;
    #[pymodule_export]
    use super::guests::{Guest, Owner, fetch_tickets, generate_key, recipient_of, tickets_left};
    #[pymodule_export]
    use super::network::{Network, Plan, images_among, sample_images};
    #[pymodule_export]
    use super::pending::Pending;
    #[pymodule_export]
    use super::running::{set_threads, threads};
    #[pymodule_export]
    use super::sealed::Sealed;
    #[pymodule_export]
    use super::server::Server;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::logs::connect(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
