//! What clients that wait, lie or overhear can do to a server, and servers to a client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Served, client, http, mnist, remote};

const LONG: Duration = Duration::from_secs(60);

fn model_id() -> String {
    std::fs::read(mnist().server()).unwrap()[10..26].iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether the other side has closed a connection, within a time.
fn closes(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
}

#[test]
fn answers_that_nobody_takes_give_their_memory_back() {
    let sealed = mnist();
    // Room for a few answers of this operator, two seconds for each.
    let served = Served::start(&sealed.server(), &["--max-memory", "8000000", "--answer-time", "2"]);
    let id = model_id();
    let mut held = vec![];
    for _ in 0..34 {
        let mut stream = TcpStream::connect(served.addr).unwrap();
        let path = format!("GET /v2/models/{id}/operators/2/hints HTTP/1.1");
        stream.write_all(format!("{path}\r\nHost: t\r\n\r\n").as_bytes()).unwrap();
        held.push(stream);
    }
    let begun = Instant::now();
    // While they are held, others are told to come back; soon they are not.
    loop {
        let (status, ..) = http(served.addr, &format!("GET /v2/models/{id}/operators/2/hints HTTP/1.1"), b"");
        if status == 200 {
            break;
        }
        assert_eq!(status, 503);
        assert!(begun.elapsed() < Duration::from_secs(20), "memory does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Those that hold on are cut off, though they never read.
    assert!(held.iter_mut().all(|stream| closes(stream, Duration::from_secs(10))));
}

#[test]
fn http_2_is_not_spoken_and_holds_nothing() {
    let served = Served::start(&mnist().server(), &["--answer-time", "2"]);
    let mut stream = TcpStream::connect(served.addr).unwrap();
    // The preface, and settings that set the window to zero.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]).unwrap();
    let begun = Instant::now();
    assert!(closes(&mut stream, Duration::from_secs(5)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(http(served.addr, "GET /v2/health/live HTTP/1.1", b"").0, 200);
}

#[test]
fn strangers_cannot_fill_the_house() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let token = token.display().to_string();
    let served = Served::start(&mnist().server(), &["--max-connections", "10", "--token-file", &token]);
    // A client with the token keeps its connection while strangers come and wait, in every way to
    // do so.
    let mut known = TcpStream::connect(served.addr).unwrap();
    let ask = |stream: &mut TcpStream| {
        let head = "GET /metrics HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 65536];
        let read = stream.read(&mut buffer).unwrap_or(0);
        buffer[..read].starts_with(b"HTTP/1.1 200")
    };
    assert!(ask(&mut known));
    let mut strangers = vec![];
    for i in 0..30 {
        let mut stream = TcpStream::connect(served.addr).unwrap();
        match i % 3 {
            0 => {}
            1 => stream.write_all(b"GET /v2").unwrap(),
            _ => stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap(),
        }
        strangers.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(http(served.addr, "GET /v2/health/live HTTP/1.1", b"").0, 200);
    assert!(ask(&mut known), "a known client lost its place to strangers");
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
}

/// A server that answers every request with this head and then with as many zeros as it is asked
/// to; counts what it could send.
fn endless(head: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = count.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 65536]);
                let _ = stream.write_all(head.as_bytes());
                while stream.write_all(&[0; 65536]).is_ok() {
                    if count.fetch_add(65536, Ordering::Relaxed) > 1 << 30 {
                        break;
                    }
                }
            });
        }
    });
    (url, sent)
}

#[test]
fn a_client_reads_no_more_than_an_answer_has() {
    for head in [
        "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 1073741824\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1073741824\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n",
    ] {
        let (url, sent) = endless(head);
        let fails = |result: Result<Vec<u8>, jali_net::NetError>| assert!(result.is_err(), "{head}");
        let c = client(&url, LONG);
        fails(c.hints(&model_id(), 0, 1000));
        fails(c.apply(&model_id(), 0, b"x", 1000, LONG));
        fails(c.get("/v2"));
        drop(c);
        std::thread::sleep(Duration::from_millis(100));
        assert!(sent.load(Ordering::Relaxed) < 64 << 20, "{head}: {} bytes", sent.load(Ordering::Relaxed));
    }
    // The whole client, too: it asks for what its bundle says.
    let (url, sent) = endless("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n");
    assert!(remote(mnist(), &url, Duration::from_secs(2)).is_err());
    assert!(sent.load(Ordering::Relaxed) < 128 << 20);
}

#[test]
fn tokens_go_to_nobody_else() {
    let sealed = mnist();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let served = Served::start(&sealed.server(), &["--token-file", &path("token")]);
    // Somebody who calls himself a proxy, and hears whoever comes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            count.fetch_add(stream.read(&mut buffer).unwrap_or(0), Ordering::Relaxed);
        }
    });
    let bundle = sealed.client().display().to_string();
    let jali = |args: &[&str]| {
        let out = Command::new(assert_cmd::cargo::cargo_bin!("jali"))
            .args(["infer", "--client", &bundle, "--samples", "mnist", "--images", "1"])
            .args(args)
            .envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"].map(|name| (name, &proxy)))
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, err) = jali(&["--server", &served.url, "--token-file", &path("token")]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(heard.load(Ordering::Relaxed), 0, "the proxy heard of it");
    // Plain HTTP to another machine: never with a token, and without one only if that is said.
    let (code, err) = jali(&["--server", "http://192.0.2.1:1", "--token-file", &path("token")]);
    assert!(code == Some(8) && err.contains("use https"), "{err}");
    let (code, err) = jali(&["--server", "http://192.0.2.1:1"]);
    assert!(code == Some(8) && err.contains("--insecure"), "{err}");
    // The beginning of a token is not a token.
    std::fs::write(path("long"), "f".repeat(70_000)).unwrap();
    let (code, err) = jali(&["--server", &served.url, "--token-file", &path("long")]);
    assert!(code == Some(10) && err.contains("65536 bytes"), "{err}");
}
