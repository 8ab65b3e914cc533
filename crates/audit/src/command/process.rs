//! The process of an attacker, which ends with ours however that ends.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running attacker. Dropping it ends it, and all that it started.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    over: bool,
    guard: Option<Child>,
}

impl Process {
    /// Has a shell run a line in a folder; what it prints goes to a file.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(line: &str, folder: &Path, log: File) -> std::io::Result<Self> {
        let both = log.try_clone()?;
        let child = shell(line).current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(both).spawn()?;
        let mut process = Self { child, over: false, guard: None };
        process.guard = guard(process.child.id())?;
        Ok(process)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        self.over = ended.is_some();
        Ok(ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.over {
            #[cfg(unix)]
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(guard) = &mut self.guard {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

#[cfg(unix)]
fn shell(line: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh");
    // A group of its own, so that all that it starts ends with it.
    shell.args(["-c", line]).process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(line: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.args(["/C", line]);
    shell
}

/// Waits for the end of this process, which closes its input, and ends a group then. Without it an
/// attacker that lost its run would go on for hours, and write between the files of the next one.
#[cfg(unix)]
fn guard(group: u32) -> std::io::Result<Option<Child>> {
    let line = format!("read -r never; kill -KILL -{group}");
    // A group of its own: Ctrl-C of a terminal must not reach it. dash knows no "--" here.
    shell(&line).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Some)
}

#[cfg(not(unix))]
fn guard(_: u32) -> std::io::Result<Option<Child>> {
    Ok(None)
}
