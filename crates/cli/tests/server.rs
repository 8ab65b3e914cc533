//! The server as a process: what it answers, what it refuses, and that nobody can stop it for
//! others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jali::{JaliError, Transport};
use jali_protocol::{ProtocolError, Server};
use serde_json::Value;
use support::{Served, client, http, jali, mnist, proxy, remote, seal_into};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn tls_and_token_carry_exact_results() {
    let sealed = mnist();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::write(path("other"), "fedcba9876543210fedcba9876543210\n").unwrap();
    let tls = ["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem"), "--token-file", &path("token")];
    let served = Served::start(&sealed.server(), &tls);
    assert!(served.url.starts_with("https://"));

    let bundle = sealed.client().display().to_string();
    let with = |token: &str, more: &[&str]| {
        let (ca, token) = (path("cert.pem"), path(token));
        let args = ["infer", "--client", &bundle, "--server", &served.url, "--ca-cert", &ca, "--token-file", &token];
        jali(&[&args[..], more].concat())
    };
    let (code, out, err) = with("token", &["--samples", "mnist", "--images", "12", "--batch", "5", "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["transport"].as_str(), report["retries"].as_u64()), (Some("http"), Some(0)));
    let images = report["images"].as_array().unwrap();
    assert!(images.len() == 12 && images.iter().all(|i| i["checked"] == true));
    // The same classes as in the clear.
    for (i, image) in images.iter().enumerate() {
        let reference = jali_model::integer::run(&sealed.model, sealed.images[i].clone()).unwrap();
        assert_eq!(image["top"][0]["class"].as_u64(), Some(reference.output.argmax() as u64));
    }
    let (code, out, _) = with("token", &["--samples", "mnist", "--images", "3", "--csv"]);
    assert!(code == 0 && out.lines().count() == 4 && out.starts_with("file,class,label"), "{out}");
    // The hints were kept beside the bundle; a damaged copy is noticed by the check and fetched
    // again.
    let kept = jali::client::hints_file(&sealed.client());
    let mut bytes = std::fs::read(&kept).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    assert_eq!(with("token", &["--samples", "mnist", "--images", "1"]).0, 0);
    assert!(std::fs::read(&kept).unwrap() != bytes, "the right hints are kept again");

    // What was decided when it was sealed is not an option of `infer`.
    for option in [["--link", "wan"], ["--leak", "0.5"]] {
        let (code, _, err) = with("token", &[&["--samples", "mnist"][..], &option[..]].concat());
        assert!(code == 2 && err.contains("cannot be used with"), "{option:?}: {code} {err}");
    }
    let (code, _, err) = with("other", &["--samples", "mnist", "--images", "1"]);
    assert!(code == 8 && err.contains("--token-file"), "{code} {err}");
    let (code, _, err) = jali(&["infer", "--client", &bundle, "--server", &served.url, "--samples", "mnist"]);
    assert!(code == 8 && err.contains("--ca-cert"), "an unknown authority: {code} {err}");
    // Plain HTTP to a TLS port gets nothing.
    assert_eq!(http(served.addr, "GET /v2/health/live HTTP/1.1", b"").0, 0);
}

#[test]
fn http_paths_and_refusals() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &["--max-body", "2000000"]);
    let id = {
        let bytes = std::fs::read(sealed.server()).unwrap();
        bytes[10..26].iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let get = |path: &str| http(served.addr, &format!("GET {path} HTTP/1.1"), b"");
    assert_eq!(get("/v2/health/live").0, 200);
    assert_eq!(get("/v2/health/ready").0, 200);
    assert_eq!(get("/v2").0, 200);
    assert_eq!(get(&format!("/v2/models/{id}/ready")).0, 200);
    let metadata: Value = serde_json::from_slice(&get(&format!("/v2/models/{id}")).2).unwrap();
    assert_eq!(metadata["operators"].as_array().unwrap().len(), 4);
    let unknown = "0".repeat(32);
    for path in [format!("/v2/models/{unknown}"), format!("/v2/models/{id}/operators/4/hints"), "/nothing".into()] {
        assert_eq!(get(&path).0, 404, "{path}");
    }
    let post = |path: &str, body: &[u8]| http(served.addr, &format!("POST {path} HTTP/1.1"), body).0;
    for index in ["4", "-1", "99999999999999999999", "x", "%00"] {
        assert_eq!(post(&format!("/v2/models/{id}/operators/{index}"), b"JQ"), 404, "{index}");
    }
    let operator = format!("/v2/models/{id}/operators/0");
    for body in [&b""[..], b"JQ", &[0xff; 5000]] {
        assert_eq!(post(&operator, body), 400);
    }
    assert_eq!(post(&operator, &vec![0; 2_000_001]), 413);
    assert_eq!(get(&operator).0, 405);
    let text = String::from_utf8(get("/metrics").2).unwrap();
    assert!(text.contains("jali_requests_total{path=\"operators\",status=\"400\"} 3"), "{text}");
}

#[test]
fn slow_silent_and_greedy_clients_do_not_stop_others() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &["--max-memory", "33554432"]);
    let id = std::fs::read(sealed.server()).unwrap()[10..26].iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut held = vec![];
    for i in 0..60 {
        let mut stream = TcpStream::connect(served.addr).unwrap();
        let head = format!("POST /v2/models/{id}/operators/0 HTTP/1.1\r\nHost: t\r\nContent-Length: 30000000\r\n\r\n");
        let part: &[u8] = match i % 3 {
            0 => b"",
            1 => &head.as_bytes()[..20],
            _ => head.as_bytes(),
        };
        stream.write_all(part).unwrap();
        held.push(stream);
    }
    // Somebody who asks and never takes the answer.
    for _ in 0..20 {
        let mut stream = TcpStream::connect(served.addr).unwrap();
        write!(stream, "GET /v2/models/{id}/operators/0/hints HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        held.push(stream);
    }
    let mut remote = remote(sealed, &served.url, LONG).unwrap();
    let images = &sealed.images[..3];
    let run = remote.infer_batch_traced(images).unwrap();
    assert!(sealed.is_exact(images, &run));
    assert!(served.memory() < 200_000, "{} kB", served.memory());
    drop(held);
}

/// A well-formed request for operator 0 whose residues are all zero.
fn zeros(images: u32) -> (String, Vec<u8>) {
    let bundle = std::fs::read(mnist().server()).unwrap();
    let server = Server::load(&bundle, jali::Backend::fastest(), usize::MAX).unwrap();
    let operator = &server.model().operators()[0];
    let mut body = [b"JQ".as_slice(), &[jali_protocol::message::VERSION], &bundle[10..26], &[0; 4]].concat();
    body.extend(images.to_le_bytes());
    body.resize(body.len() + images as usize * operator.tiles() * jali_ring::wire::poly_len(operator.ring()), 0);
    (jali_net::model_name(server.model().id()), body)
}

#[test]
fn requests_that_nobody_waits_for_stay_within_the_limits() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &["--max-memory", "300000000"]);
    let (id, body) = zeros(100);
    let head = |index| format!("POST /v2/models/{id}/operators/{index} HTTP/1.1");
    assert_eq!(http(served.addr, &head(0), &body).0, 200);
    assert_eq!(http(served.addr, &head(1), &body).0, 400, "the body names another operator than the path");
    for _ in 0..40 {
        let mut stream = TcpStream::connect(served.addr).unwrap();
        let length = body.len();
        write!(stream, "{}\r\nHost: t\r\nContent-Length: {length}\r\n\r\n", head(0)).unwrap();
        stream.write_all(&body).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        assert!(served.memory() < 450_000, "{} kB", served.memory());
    }
    let mut remote = remote(sealed, &served.url, LONG).unwrap();
    let images = &sealed.images[..2];
    let run = remote.infer_batch_traced(images).unwrap();
    assert!(sealed.is_exact(images, &run));
    // Everything comes back.
    let begun = Instant::now();
    loop {
        let text = String::from_utf8(http(served.addr, "GET /metrics HTTP/1.1", b"").2).unwrap();
        if text.contains("jali_in_flight 0\n") {
            break;
        }
        assert!(begun.elapsed() < LONG, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn silent_connections_make_room() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &["--max-connections", "10"]);
    let mut held: Vec<_> = (0..10).map(|_| TcpStream::connect(served.addr).unwrap()).collect();
    held[1].write_all(b"PRI * HT").unwrap();
    held[2].write_all(b"GET /v2").unwrap();
    let mut remote = remote(sealed, &served.url, LONG).unwrap();
    let run = remote.infer_batch_traced(&sealed.images[..1]).unwrap();
    assert!(sealed.is_exact(&sealed.images[..1], &run));
}

#[test]
fn a_full_server_says_when_to_come_back() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &["--max-queue", "1", "--max-concurrent", "1"]);
    let id = std::fs::read(sealed.server()).unwrap()[10..26].iter().map(|b| format!("{b:02x}")).collect::<String>();
    let refused = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let (status, head, _) =
                        http(served.addr, &format!("GET /v2/models/{id}/operators/0/hints HTTP/1.1"), b"");
                    assert!(status == 200 || status == 503, "{head}");
                    if status == 503 {
                        assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
                        refused.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(refused.load(Ordering::Relaxed), "the limits were never reached");
    // A server without room for a single request says so for good.
    let tiny = Served::start(&sealed.server(), &["--max-memory", "1048576"]);
    let why = remote(sealed, &tiny.url, LONG).unwrap_err().to_string();
    assert!(why.contains("507") && why.contains("--max-memory"), "{why}");
    // Clients that come back get through, with exact results.
    std::thread::scope(|scope| {
        for i in 0..4 {
            let served = &served;
            scope.spawn(move || {
                let mut remote = remote(sealed, &served.url, LONG).unwrap();
                let images = &sealed.images[i..i + 1];
                let run = remote.infer_batch_traced(images).unwrap();
                assert!(sealed.is_exact(images, &run));
            });
        }
    });
}

#[test]
fn sixty_four_clients_at_once() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &[]);
    let round = || {
        std::thread::scope(|scope| {
            for i in 0..64 {
                let served = &served;
                scope.spawn(move || {
                    let mut remote = remote(sealed, &served.url, LONG).unwrap();
                    let images = &sealed.images[i..i + 1];
                    let run = remote.infer_batch_traced(images).unwrap();
                    assert!(sealed.is_exact(images, &run), "client {i}");
                });
            }
        });
        served.memory()
    };
    let (first, second) = (round(), round());
    assert!(second < first + first / 4, "memory grew from {first} to {second} kB");
}

#[test]
fn reload_and_stop_lose_no_request() {
    let sealed = mnist();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("server");
    std::fs::copy(sealed.server(), &place).unwrap();
    let mut served = Served::start(&place, &[]);
    let stop = AtomicBool::new(false);
    let ready = |served: &Served| http(served.addr, "GET /v2/health/ready HTTP/1.1", b"").0;
    std::thread::scope(|scope| {
        let (stop, url) = (&stop, &served.url);
        let load = scope.spawn(move || {
            let mut remote = remote(sealed, url, LONG).unwrap();
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let images = &sealed.images[done..done + 1];
                let run = remote.infer_batch_traced(images).unwrap();
                assert!(sealed.is_exact(images, &run));
                done += 1;
            }
            (done, remote.transport().retries())
        });
        // A file that changes underneath, a damaged one and the right one again: serving goes on.
        std::thread::sleep(Duration::from_millis(200));
        std::fs::write(&place, b"something else").unwrap();
        served.signal("HUP");
        std::thread::sleep(Duration::from_millis(200));
        std::fs::copy(sealed.server(), &place).unwrap();
        served.signal("HUP");
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        let (done, retries) = load.join().unwrap();
        assert!(done > 0 && retries == 0, "{done} images, {retries} retries");
    });
    // Another sealing under the same name: the old client is told, a new one works.
    let other = tempfile::tempdir().unwrap();
    seal_into(other.path(), true);
    std::fs::rename(other.path().join("server"), &place).unwrap();
    served.signal("HUP");
    let begun = Instant::now();
    let why = loop {
        match remote(sealed, &served.url, LONG) {
            Err(e) => break e.to_string(),
            Ok(_) => assert!(begun.elapsed() < LONG, "the new bundle was not taken"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(why.contains("another model"), "{why}");
    assert_eq!(ready(&served), 200);
    served.signal("TERM");
    assert!(served.child.wait().unwrap().success());
}

#[test]
fn a_server_killed_under_load_costs_time_and_no_result() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &[]);
    let addr = served.addr.to_string();
    let mut remote = remote(sealed, &served.url, LONG).unwrap();
    let mut running = Some(served);
    for i in 0..6 {
        let killer = {
            let mut victim = running.take().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(3 + 7 * i));
                victim.child.kill().unwrap();
                victim.child.wait().unwrap();
            })
        };
        let restart = {
            let addr = addr.clone();
            std::thread::spawn(move || {
                killer.join().unwrap();
                Served::start_on(&mnist().server(), &addr, &[])
            })
        };
        let images = &sealed.images[i as usize..i as usize + 2];
        let run = remote.infer_batch_traced(images).unwrap();
        assert!(sealed.is_exact(images, &run));
        running = Some(restart.join().unwrap());
    }
    // Gone for good: reported as such, in time.
    drop(running);
    let mut short = support::remote(sealed, &format!("http://{addr}"), Duration::from_millis(300)).err();
    assert!(matches!(short.take(), Some(JaliError::Net(_))));
}

#[test]
fn a_slow_and_breaking_link_only_costs_time() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &[]);
    let cut = Arc::new(AtomicBool::new(false));
    let addr = proxy(served.addr, Duration::from_millis(15), 5e6, cut.clone());
    let mut remote = remote(sealed, &format!("http://{addr}"), LONG).unwrap();
    let images = &sealed.images[..2];
    let begun = Instant::now();
    let run = remote.infer_batch_traced(images).unwrap();
    assert!(sealed.is_exact(images, &run));
    assert!(begun.elapsed() > Duration::from_millis(4 * 30), "four round trips");
    // Every connection breaks in the middle, then the link comes back.
    let breaker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(60));
        cut.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(150));
        cut.store(false, Ordering::Relaxed);
    });
    let run = remote.infer_batch_traced(images).unwrap();
    assert!(sealed.is_exact(images, &run) && remote.transport().retries() > 0);
    breaker.join().unwrap();
}

/// A server that answers over HTTP and lies in the answer that `lie` chooses.
fn lying(lie: impl Fn(usize, &str, Vec<u8>) -> Vec<u8> + Send + 'static) -> String {
    let sealed = mnist();
    let server = Server::load(&std::fs::read(sealed.server()).unwrap(), jali::Backend::fastest(), usize::MAX).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (count, mut stream) in listener.incoming().flatten().enumerate() {
            let mut bytes = vec![];
            let mut buffer = vec![0; 1 << 16];
            let (head, body) = loop {
                let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
                if let Some(end) = end {
                    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                    let length = head
                        .split("content-length: ")
                        .nth(1)
                        .map_or(0, |l| l.split("\r\n").next().unwrap().trim().parse::<usize>().unwrap());
                    if bytes.len() >= end + 4 + length {
                        break (head, bytes[end + 4..].to_vec());
                    }
                }
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
                    _ => return,
                }
            };
            let index = head.split("operators/").nth(1).unwrap();
            let index: usize = index.split(['/', ' ']).next().unwrap().parse().unwrap();
            let kind = if head.starts_with("get") { "hints" } else { "answer" };
            let honest = if kind == "hints" { server.hints(index).unwrap() } else { server.handle(&body) };
            let answer = lie(count, kind, honest);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer));
        }
    });
    url
}

#[test]
fn lies_over_the_network_are_told_and_not_tried_again() {
    let sealed = mnist();
    let images = &sealed.images[..1];
    let flip = |mut bytes: Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    // Four hints come first, then the layers' answers.
    let url = lying(|_, _, honest| honest);
    let run = remote(sealed, &url, LONG).unwrap().infer_batch_traced(images).unwrap();
    assert!(sealed.is_exact(images, &run));
    for wrong in 0..4 {
        let url = lying(move |n, _, honest| if n == wrong { flip(honest) } else { honest });
        let e = remote(sealed, &url, LONG).unwrap_err();
        assert!(matches!(e, JaliError::Protocol(ProtocolError::Hints { .. })), "{e}");
        let url = lying(move |n, _, honest| if n == 4 + wrong { flip(honest) } else { honest });
        let e = remote(sealed, &url, LONG).unwrap().infer_batch_traced(images).unwrap_err();
        assert!(matches!(e, JaliError::Protocol(ProtocolError::Rejected { .. })), "{e}");
    }
    let url = lying(|n, _, honest| if n == 5 { honest[..honest.len() - 1].to_vec() } else { honest });
    assert!(remote(sealed, &url, LONG).unwrap().infer_batch_traced(images).is_err());
    let bundle = sealed.client().display().to_string();
    let url = lying(|_, kind, honest| if kind == "answer" { vec![7; 100] } else { honest });
    let (code, _, err) = jali(&["infer", "--client", &bundle, "--server", &url, "--samples", "mnist", "--images", "2"]);
    assert!(code == 4 && err.contains("rejected") && err.contains("not tried any more"), "{code} {err}");
}

#[test]
fn a_server_that_could_be_overheard_does_not_start() {
    let sealed = mnist();
    let server = sealed.server().display().to_string();
    let (code, _, err) = jali(&["serve", &server, "--listen", "0.0.0.0:0", "--log", "none"]);
    assert!(code == 8 && err.contains("--tls-cert") && err.contains("--insecure"), "{code} {err}");
    let (code, _, err) = jali(&["serve", &sealed.client().display().to_string(), "--log", "none"]);
    assert!(code == 6 && err.contains("client bundle"), "{code} {err}");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "short\n").unwrap();
    let (code, _, err) = jali(&["serve", &server, "--token-file", &token.display().to_string(), "--log", "none"]);
    assert!(code != 0 && err.contains("at least 16"), "{code} {err}");
    assert!(client("http://127.0.0.1:1", LONG).get("/v2").is_err());
}
