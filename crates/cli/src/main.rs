//! `jali`, the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(jali_cli::run(std::env::args_os()))
}
