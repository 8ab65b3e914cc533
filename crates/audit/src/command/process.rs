//! The process of an attacker, which ends with ours however that ends.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running attacker. Dropping it ends it, and all that it started.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    guard: Guard,
}

impl Process {
    /// Has a shell run a line in a folder; what it prints goes to a file.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(line: &str, folder: &Path, log: File) -> std::io::Result<Self> {
        let both = log.try_clone()?;
        let guard = Guard::start()?;
        let mut shell = guard.shell(line);
        let child = shell.current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(both).spawn()?;
        Ok(Self { child, guard })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.guard.end();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell at the head of the attacker's group of processes. It waits for the end of its input,
/// which this process closes when it is done with the attacker, or by ending, however that
/// happens; then it ends the group. Without it an attacker that lost its run, and whatever one left
/// in the background, would go on, and write between the files of the next.
#[cfg(unix)]
#[derive(Debug)]
struct Guard(Child);

#[cfg(unix)]
impl Guard {
    fn start() -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut shell = Command::new("sh");
        // A group of its own, which Ctrl-C of a terminal does not reach; 0 is that group.
        shell.args(["-c", "read -r never; kill -KILL 0"]).process_group(0);
        Ok(Self(shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    fn shell(&self, line: &str) -> Command {
        use std::os::unix::process::CommandExt;
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).process_group(self.0.id().cast_signed());
        shell
    }

    fn end(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Only the attacker's shell ends with its cell.
#[cfg(not(unix))]
#[derive(Debug)]
struct Guard;

#[cfg(not(unix))]
impl Guard {
    fn start() -> std::io::Result<Self> {
        Ok(Self)
    }

    fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("cmd");
        shell.args(["/C", line]);
        shell
    }

    fn end(&mut self) {}
}
