//! Servers that lie, or send what no server sends.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jali_guest::Backend;
use jali_net::guests::GuestService;
use jali_net::{Config, Running};
use jali_tickets::{Batch, ServerFile};
use tungstenite::Message;

use super::*;

/// A server that computes with another network's weights and signs what comes of it.
fn lying(world: &World) -> Running {
    world.ok(&["seal", "--network", "mnist", "--for", "guests", "--out", "other"]);
    let mut file = ServerFile::read(&world.at("sealed")).unwrap();
    let batch = Batch::open(&world.at("batch/server"), &file).unwrap();
    file.model = ServerFile::read(&world.at("other")).unwrap().model;
    let config = Config::loopback();
    let running = Running::start(config).unwrap();
    running.serve_guests(vec![Arc::new(GuestService::new(Arc::new(file), vec![Arc::new(batch)], Backend::best()))]);
    running
}

/// The guest ends as with an honest server; what it kept convicts this one.
#[test]
fn a_transcript_convicts_a_server_that_lied() {
    let world = World::new();
    world.deal("batch", 4);
    let running = lying(&world);
    let url = format!("http://{}", running.addr());
    let mut args = world.infer("batch", &url, "2");
    args.extend(["--transcript".into(), "lie".into()]);
    let report = world.json(&refs(&args));
    assert!(report["images"].as_array().unwrap().iter().all(|i| i["signed"] == true));
    running.stop();
    // Evidence is never overwritten, and no ticket is used for what cannot be kept.
    for (path, says) in [("lie", "already"), ("nowhere/lie", "no such folder")] {
        let mut args = world.infer("batch", &url, "1");
        args.extend(["--transcript".into(), path.into()]);
        world.fails(&refs(&args), 1, says);
    }
    assert_eq!(world.left("batch"), 2);
    world.fails(&["judge", "lie", "--owner", "sealed", "--batch", "batch/server"], 4, "LIED");
    // The honest server, with the tickets that are left.
    let served = world.serve(&["batch"]);
    let mut args = world.infer("batch", &served.url, "2");
    args.extend(["--transcript".into(), "truth".into()]);
    assert_eq!(world.json(&refs(&args))["correct"], 2);
    world.ok(&["judge", "truth", "--owner", "sealed", "--batch", "batch/server"]);
}

/// What a server does after it has taken a guest's tickets.
#[derive(Clone, Copy)]
enum Does {
    Sends(&'static [u8]),
    SendsText,
    Closes,
    HangsUp,
    /// Answers the greeting with something else.
    Mumbles,
}

/// A server of one connection.
fn odd(does: Does) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept(stream).unwrap();
        let _hello = socket.read().unwrap();
        if let Does::Mumbles = does {
            socket.send(Message::Binary(vec![0, 0].into())).unwrap();
            return;
        }
        socket.send(Message::Binary(vec![0].into())).unwrap();
        let _input = socket.read().unwrap();
        match does {
            Does::Sends(bytes) => socket.send(Message::Binary(bytes.into())).unwrap(),
            Does::SendsText => socket.send(Message::Text("hello".into())).unwrap(),
            Does::Closes => socket.close(None).unwrap(),
            Does::HangsUp | Does::Mumbles => return,
        }
        // Until the guest is gone.
        while socket.read().is_ok() {}
    });
    url
}

#[test]
fn guests_of_odd_servers_end_with_a_sentence() {
    let world = World::new();
    world.deal("batch", 20);
    let cases = [
        (Does::Sends(&[]), "got 0 bytes"),
        (Does::Sends(&[1; 100]), "got 100 bytes"),
        (Does::SendsText, "text"),
        (Does::Closes, "the ticket is used"),
        (Does::HangsUp, "cannot be reached"),
        (Does::Mumbles, "something else"),
    ];
    for (i, (does, says)) in cases.into_iter().enumerate() {
        let url = odd(does);
        let (code, out, err) = world.run(&refs(&world.infer("batch", &url, "1")));
        assert!(code != 0 && code < 128, "{says}: {code}\n{err}");
        assert!(out.contains(says) || err.contains(says), "{says}: {code}\n{out}\n{err}");
        assert!(!err.contains("panicked"), "{err}");
        // A ticket that was shown is used, whatever became of it.
        assert_eq!(world.left("batch"), 19 - i as u64);
    }
}

/// A guest that is stopped while it waits and goes on later loses nothing.
#[test]
#[cfg(target_os = "linux")]
fn a_guest_that_was_stopped_goes_on() {
    let world = World::new();
    world.deal("batch", 2);
    let served = world.serve(&["batch"]);
    // The relay holds back what the server says, so that the guest waits in a read.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, server) = (format!("http://{}", listener.local_addr().unwrap()), served.addr);
    std::thread::spawn(move || {
        let (near, far) = (listener.accept().unwrap().0, std::net::TcpStream::connect(server).unwrap());
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        std::thread::sleep(Duration::from_secs(2));
        let _ = std::io::copy(&mut { far }, &mut { near });
    });
    let guest = world.command(&refs(&world.infer("batch", &url, "2"))).spawn().unwrap();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &guest.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    std::thread::sleep(Duration::from_secs(1));
    signal("-STOP");
    std::thread::sleep(Duration::from_millis(200));
    signal("-CONT");
    let out = guest.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["correct"], 2);
}

/// A guest that lacks a whole ticket connects to nobody.
#[test]
fn guests_connect_only_with_whole_tickets() {
    let world = World::new();
    world.deal("batch", 3);
    let tickets = world.at("batch/wallet/tickets");
    let mut bytes = std::fs::read(&tickets).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&tickets, bytes).unwrap();
    let (listener, connections) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicUsize::new(0)));
    let (url, counted) = (format!("http://{}", listener.local_addr().unwrap()), connections.clone());
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    world.fails(&refs(&world.infer("batch", &url, "3")), 6, "tickets");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}
