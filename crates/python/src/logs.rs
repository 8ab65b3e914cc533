//! Events of the library for Python's `logging`, under the logger `jali`.

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

/// Hands records to a logger of Python's.
struct ToPython {
    logger: Py<PyAny>,
}

/// Python's number for a level.
fn number(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug | Level::Trace => 10,
    }
}

impl Log for ToPython {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("jali")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, message) = (number(record.level()), record.args().to_string());
        // None at the interpreter's end: then there is nobody to tell. A logger that fails must not
        // take the work with it.
        let _ = Python::try_attach(|py| {
            let logger = self.logger.bind(py);
            let wanted = logger.call_method1("isEnabledFor", (level,)).and_then(|is| is.extract()).unwrap_or(false);
            if wanted {
                let _ = logger.call_method1("log", (level, "%s", message));
            }
        });
    }

    fn flush(&self) {}
}

/// Connects the library's events with Python's `logging`.
pub(crate) fn connect(py: Python<'_>) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("jali",))?.unbind();
    if log::set_boxed_logger(Box::new(ToPython { logger })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    Ok(())
}
