//! The Python package: a wheel, installed where there is no Rust, and its tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

/// What the tests need beside the wheel. torch is not among them: with its CUDA libraries it has
/// gigabytes.
const TESTS: [&str; 9] =
    ["pytest>=8", "mypy>=1.11", "tqdm", "matplotlib", "nbclient", "nbformat", "ipykernel", "auditwheel", "ray[data]"];

/// Builds the wheel, installs it into a fresh environment, and runs the tests there with nothing of
/// Rust on the path. Says so and does nothing where there is no Python, or nothing can be
/// installed.
pub(super) fn run(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("target/python");
    let _ = std::fs::remove_dir_all(&folder);
    if !is_usable() {
        println!("SKIPPED: there is no python3 from 3.10 on with venv");
        return Ok(());
    }
    let build = Environment::new(folder.join("build"))?;
    if !build.installs(&["maturin>=1.9,<2"])? {
        println!("SKIPPED: maturin cannot be installed here");
        return Ok(());
    }
    let wheels = folder.join("wheels");
    build.runs(root, "maturin", &["build", "--locked", "--out", &wheels.display().to_string()], &[])?;
    let wheel =
        std::fs::read_dir(&wheels)?.flatten().map(|entry| entry.path()).next().context("maturin made no wheel")?;
    let test = Environment::new(folder.join("test"))?;
    let wheel = wheel.display().to_string();
    anyhow::ensure!(test.installs(&[&wheel])?, "the wheel cannot be installed");
    if !test.installs(&TESTS)? {
        println!("SKIPPED: what the Python tests need cannot be installed here");
        return Ok(());
    }
    let config = root.join("pyproject.toml").display().to_string();
    let tests = root.join("python/tests").display().to_string();
    // Nothing of Rust is there.
    let system = ["/usr/bin", "/bin"].map(PathBuf::from);
    let alone = std::env::join_paths([test.bin()].into_iter().chain(system))?.to_string_lossy().into_owned();
    let audit = root.join("target/debug/jali-audit").display().to_string();
    let variables = [("PATH", alone.as_str()), ("JALI_AUDIT", audit.as_str())];
    let work = folder.join("work");
    std::fs::create_dir_all(&work)?;
    test.runs(root, "python", &["-m", "mypy", "--config-file", &config], &variables)?;
    let pytest = ["-W", "error", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-c", &config, "--rootdir"];
    test.runs(&work, "python", &[&pytest[..], &[&tests, &tests]].concat(), &variables)
}

fn is_usable() -> bool {
    let code = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    let status = Command::new("python3").args(["-c", code]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A virtual environment.
struct Environment {
    folder: PathBuf,
}

impl Environment {
    fn new(folder: PathBuf) -> anyhow::Result<Self> {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status()?;
        anyhow::ensure!(made.success(), "python3 -m venv failed");
        Ok(Self { folder })
    }

    fn bin(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }

    /// Whether these packages could be installed.
    fn installs(&self, packages: &[&str]) -> anyhow::Result<bool> {
        println!("pip install {}", packages.join(" "));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let status = Command::new(self.bin().join("python")).args(pip).args(packages).status()?;
        Ok(status.success())
    }

    fn runs(&self, at: &Path, command: &str, args: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
        println!("{command} {}", args.join(" "));
        let mut run = Command::new(self.bin().join(command));
        let status = run.args(args).envs(variables.iter().copied()).current_dir(at).status()?;
        anyhow::ensure!(status.success(), "{command} failed");
        Ok(())
    }
}
