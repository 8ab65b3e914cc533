//! Bundles, servers as processes, and a proxy that slows or breaks what passes through it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // every test file uses a part of it

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jali::{BatchAnswer, Client, Http, JaliError, Network, Opening, Plan, QuantModel, Sealing, Tensor, Traced, bundle};
use jali_net::ClientConfig;
use tempfile::TempDir;

/// The bundled MNIST network, sealed once for all tests of a file.
pub struct Sealed {
    pub folder: TempDir,
    pub model: QuantModel,
    pub images: Vec<Tensor>,
}

impl Sealed {
    pub fn server(&self) -> PathBuf {
        self.folder.path().join(bundle::SERVER)
    }

    pub fn client(&self) -> PathBuf {
        self.folder.path().join(bundle::CLIENT)
    }

    /// Whether a batch's outputs and all its layers equal the plaintext reference.
    pub fn is_exact(&self, images: &[Tensor], run: &Traced<BatchAnswer>) -> bool {
        run.answer.outputs.len() == images.len() && run.are_exact(&self.model, images).unwrap().iter().all(|e| *e)
    }
}

pub fn seal_into(folder: &Path, open: bool) -> QuantModel {
    let model = Network::Mnist.quantised(Default::default()).unwrap();
    let plan = if open { Plan::open_all(model.graph()) } else { Plan::hide_all(model.graph()) };
    Sealing::of(&model).plan(&plan).seal().unwrap().save(folder).unwrap();
    model
}

pub fn mnist() -> &'static Sealed {
    static SEALED: OnceLock<Sealed> = OnceLock::new();
    SEALED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let model = seal_into(folder.path(), false);
        let images = Network::Mnist.dataset().bundled_test().unwrap().into_iter().map(|s| s.image).collect();
        Sealed { folder, model, images }
    })
}

/// `jali serve` as a process; killed when dropped.
pub struct Served {
    pub child: Child,
    pub addr: SocketAddr,
    pub url: String,
}

impl Served {
    pub fn start(bundle: &Path, args: &[&str]) -> Self {
        Self::start_on(bundle, "127.0.0.1:0", args)
    }

    pub fn start_on(bundle: &Path, listen: &str, args: &[&str]) -> Self {
        let first = ["serve", &bundle.display().to_string(), "--listen", listen];
        Self::of(&[&first, args].concat(), "serving on ")
    }

    /// A command that listens, once it has said so.
    pub fn of(args: &[&str], says: &str) -> Self {
        Self::of_plain(&[args, &["--log", "none"]].concat(), says)
    }

    /// A command that listens and logs nothing in any case.
    pub fn of_plain(args: &[&str], says: &str) -> Self {
        let mut child =
            Command::new(assert_cmd::cargo::cargo_bin!("jali")).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix(says).unwrap_or_else(|| panic!("{line:?}")).to_owned();
        let addr = url.split("://").nth(1).unwrap().trim_end_matches('/').parse().unwrap();
        Self { child, addr, url }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Kilobytes of memory that the process uses now.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client(url: &str, timeout: Duration) -> jali_net::Client {
    jali_net::Client::new(&ClientConfig { url: url.into(), ca_cert: None, token: None, timeout, insecure: false })
        .unwrap()
}

pub fn remote(sealed: &Sealed, url: &str, deadline: Duration) -> Result<Client<Http>, JaliError> {
    let opening = Opening { keep_hints: false, ..Opening::default() };
    Client::open_with(sealed.client(), &opening)?.connect(Http::new(url).deadline(deadline))
}

/// One HTTP/1.1 request over a connection of its own: status, head and body.
pub fn http(addr: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
        .write_all(
            format!("{head}\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        )
        .unwrap();
    // A server that refuses early closes while we still send.
    let _ = stream.write_all(body);
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |i| i + 4);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, head, answer[end..].to_vec())
}

/// Passes bytes both ways, each block later by `delay` and at most `rate` bytes per second; cuts
/// every connection while `cut`.
pub fn proxy(to: SocketAddr, delay: Duration, rate: f64, cut: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let cut = cut.clone();
                std::thread::spawn(move || pass(from, to, delay, rate, &cut));
            }
        }
    });
    addr
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration, rate: f64, cut: &AtomicBool) {
    let mut buffer = vec![0; 16 << 10];
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut idle = true;
    loop {
        if cut.load(Ordering::Relaxed) {
            break;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                // The delay counts once for what comes in one go; the rate for every byte.
                std::thread::sleep(
                    if idle { delay } else { Duration::ZERO } + Duration::from_secs_f64(n as f64 / rate),
                );
                idle = false;
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => idle = true,
            Err(_) => break,
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Runs the command to its end: exit code, output, errors. It keeps nothing of what it measures, as
/// a folder cannot lie in a file: rings and layouts are those of the built-in costs.
pub fn jali(args: &[&str]) -> (i32, String, String) {
    let nothing_kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let jali = assert_cmd::cargo::cargo_bin!("jali");
    let out = Command::new(jali).args(args).env("XDG_CACHE_HOME", nothing_kept).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}
