//! Owner, server and guest as processes: the whole way, mistakes, crashes, and strangers.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jali_net::ClientConfig;
use jali_net::guests::Hello;
use jali_net::guests::asking::{GuestConnection, Tickets};
use jali_tickets::{GuestIdentity, Token, Wallet, WalletInfo};
use serde_json::Value;
use support::Served;
use tempfile::TempDir;

#[path = "guests/dealing.rs"]
mod dealing;
#[path = "guests/lies.rs"]
mod lies;

/// A folder with a network sealed for guests, a guest's key, and batches.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.ok(&["guest", "key", "--out", "me.key"]);
        world.ok(&["seal", "--network", "mnist", "--for", "guests", "--out", "sealed"]);
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("jali"));
        command.args(args).current_dir(self.0.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let out = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, 0, "{args:?}\n{err}");
        out
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, say: &str) {
        let (got, out, err) = self.run(args);
        assert_eq!(got, code, "{args:?}\n{out}\n{err}");
        assert!(err.contains(say) || out.contains(say), "{args:?}: {say:?} is missing in:\n{err}\n{out}");
    }

    fn recipient(&self) -> String {
        let text = std::fs::read_to_string(self.at("me.key")).unwrap();
        text.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    fn deal(&self, name: &str, tickets: u32) -> Value {
        let (to, tickets) = (self.recipient(), tickets.to_string());
        self.json(&["deal", "sealed/owner", "--to", &to, "--tickets", &tickets, "--out", name, "--json"])
    }

    fn serve(&self, batches: &[&str]) -> Served {
        let paths: Vec<String> = batches.iter().map(|b| self.at(b).join("server").display().to_string()).collect();
        let args: Vec<&str> = std::iter::once("--tickets").chain(paths.iter().map(String::as_str)).collect();
        Served::start(&self.at("sealed/server"), &args)
    }

    fn infer<'a>(&self, batch: &str, url: &'a str, images: &'a str) -> Vec<String> {
        let wallet = format!("{batch}/wallet");
        [
            "infer",
            "--guest",
            &wallet,
            "--key",
            "me.key",
            "--server",
            url,
            "--samples",
            "mnist",
            "--images",
            images,
            "--json",
        ]
        .map(String::from)
        .to_vec()
    }

    fn left(&self, batch: &str) -> u64 {
        self.json(&["tickets", &format!("{batch}/wallet"), "--key", "me.key", "--json"])["left"].as_u64().unwrap()
    }

    fn used_at_server(&self, batch: &str) -> u64 {
        std::fs::read_to_string(self.at(batch).join("server.used")).unwrap().trim().parse().unwrap()
    }
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn an_afternoon_of_a_vendor_and_a_clinic() {
    let world = World::new();
    let dealt = world.deal("batch", 10);
    assert_eq!((dealt["tickets"].as_u64(), dealt["output_bits"].as_u64()), (Some(10), Some(1600)));
    assert!(dealt["server_bytes"].as_u64().unwrap() <= 4096);
    let served = world.serve(&["batch"]);
    let mut args = world.infer("batch", &served.url, "6");
    args.extend(["--transcript".into(), "transcript".into()]);
    let report = world.json(&refs(&args));
    assert_eq!((report["transport"].as_str(), report["correct"].as_u64()), (Some("websocket"), Some(6)));
    let images = report["images"].as_array().unwrap();
    assert!(images.iter().all(|i| i["signed"] == true && i.get("checked").is_none()));
    assert_eq!((world.left("batch"), world.used_at_server("batch")), (4, 6));
    let judged = world.json(&["judge", "transcript", "--owner", "sealed", "--batch", "batch/server", "--json"]);
    assert_eq!(judged["honest"], true);
    let text = world.ok(&["tickets", "batch/wallet"]);
    assert!(text.contains("mnist") && text.contains("--key FILE"), "{text}");
    assert!(world.ok(&["inspect", "sealed", "--verify"]).contains("owner for guests"));
    // More images than tickets: none is used.
    world.fails(&refs(&world.infer("batch", &served.url, "6")), 17, "ask the owner for more");
    assert_eq!(world.left("batch"), 4);
    assert_eq!(world.json(&refs(&world.infer("batch", &served.url, "4")))["correct"].as_u64(), Some(4));
    assert_eq!(world.left("batch"), 0);
    let (status, _, body) = support::http(served.addr, "GET /metrics HTTP/1.1", b"");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 200 && body.contains("jali_tickets_total 10"), "{body}");
}

/// Without its passphrase a locked owner's file deals nothing and judges nothing.
#[test]
fn an_owners_file_is_locked_with_a_passphrase() {
    let world = World::new();
    std::fs::write(world.at("secret"), "correct horse\n").unwrap();
    std::fs::write(world.at("wrong"), "battery\n").unwrap();
    let (unlock, wrong) = (["--passphrase-file", "secret"], ["--passphrase-file", "wrong"]);
    let to = world.recipient();
    let deal = ["deal", "sealed", "--to", &to, "--tickets", "2", "--out", "batch"];
    world.fails(&[&deal[..], &unlock].concat(), 7, "not locked");
    let seal = [&["seal", "--network", "mnist", "--for", "guests", "--out", "sealed"][..], &unlock].concat();
    world.fails(&seal, 10, "an owner's file is there already");
    std::fs::remove_dir_all(world.at("sealed")).unwrap();
    world.ok(&seal);
    world.fails(&deal, 7, "--passphrase-file");
    world.fails(&[&deal[..], &wrong].concat(), 7, "cannot be unlocked");
    world.ok(&[&deal[..], &unlock].concat());
    let served = world.serve(&["batch"]);
    let mut args = world.infer("batch", &served.url, "2");
    args.extend(["--transcript".into(), "transcript".into()]);
    assert_eq!(world.json(&refs(&args))["correct"], 2);
    let judge = ["judge", "transcript", "--owner", "sealed", "--batch", "batch"];
    world.fails(&judge, 7, "--passphrase-file");
    assert!(world.ok(&[&judge[..], &unlock].concat()).contains("honest"));
    world.fails(&["inspect", "sealed/owner"], 7, "--passphrase-file");
    assert!(world.ok(&[&["inspect", "sealed/owner", "--verify"][..], &unlock].concat()).contains("owner for guests"));
}

/// Far from the server fewer exchanges are worth larger tickets; beside it they are not.
#[test]
fn a_link_chooses_the_tables() {
    let world = World::new();
    let seal = |link: &str, out: &str| {
        world.json(&["seal", "--network", "mnist", "--for", "guests", "--link", link, "--out", out, "--json"])
    };
    let (near, far) = (seal("loopback", "near"), seal("wan", "far"));
    let of = |report: &Value, field: &str| report[field].as_u64().unwrap();
    assert!(of(&far, "exchanges") < of(&near, "exchanges"));
    assert!(of(&far, "ticket_bytes") > of(&near, "ticket_bytes"));
}

/// With top1 a ticket tells four bits of ten classes, and no probability.
#[test]
fn a_guest_may_get_the_class_alone() {
    let world = World::new();
    std::fs::remove_dir_all(world.at("sealed")).unwrap();
    world.ok(&["seal", "--network", "mnist", "--for", "guests", "--output", "top1", "--out", "sealed"]);
    let dealt = world.deal("batch", 10);
    assert_eq!(dealt["output_bits"].as_u64(), Some(40));
    let served = world.serve(&["batch"]);
    let report = world.json(&refs(&world.infer("batch", &served.url, "8")));
    assert_eq!(report["correct"].as_u64(), Some(8));
    for image in report["images"].as_array().unwrap() {
        let top = image["top"].as_array().unwrap();
        assert!(top.len() == 1 && top[0].get("probability").is_none(), "{image}");
    }
    let demo = world.json(&["demo", "--guest", "--network", "mnist", "--images", "8", "--output", "top1", "--json"]);
    assert_eq!((demo["exact"].as_bool(), demo["output_bits"].as_u64()), (Some(true), Some(4)));
    assert!(demo["correct"].as_u64().unwrap() >= 7);
}

#[test]
fn mistakes_are_told() {
    let world = World::new();
    world.deal("batch", 2);
    let served = world.serve(&["batch"]);
    world.fails(&["guest", "key", "--out", "me.key"], 10, "not overwritten");
    world.fails(&["deal", "sealed/owner", "--to", "nobody", "--tickets", "1", "--out", "other"], 2, "age1");
    assert!(!world.at("other").exists());
    let to = world.recipient();
    world.fails(&["deal", "sealed/owner", "--to", &to, "--tickets", "1", "--out", "batch"], 10, "another folder");
    world.fails(&["deal", "sealed/server", "--to", &to, "--tickets", "1", "--out", "other"], 6, "owner for guests");
    world.ok(&["guest", "key", "--out", "other.key"]);
    let wallet = ["infer", "--guest", "batch/wallet", "--samples", "mnist", "--images", "1", "--server", &served.url];
    let with = |more: &[&'static str]| -> Vec<&str> { wallet.iter().copied().chain(more.iter().copied()).collect() };
    world.fails(&with(&["--key", "other.key"]), 7, "another guest");
    let owner = "00".repeat(32);
    let other: Vec<&str> = with(&["--key", "me.key"]).into_iter().chain(["--owner", &owner]).collect();
    world.fails(&other, 6, "its owner's key is");
    world.fails(&wallet, 2, "--key");
    // Nothing of that has used a ticket.
    assert_eq!((world.left("batch"), world.used_at_server("batch")), (2, 0));
    // A server that lacks the batch; the guest's ticket is gone then.
    world.deal("second", 2);
    world.fails(&refs(&world.infer("second", &served.url, "1")), 8, "no such batch");
    // A batch serves on one server.
    let batch = world.at("batch/server").display().to_string();
    world.fails(&["serve", "sealed/server", "--tickets", &batch, "--listen", "127.0.0.1:0"], 10, "another server");
    world.fails(&["serve", "sealed/owner", "--listen", "127.0.0.1:0"], 6, "server");
    world.fails(&["judge", "batch/server", "--owner", "sealed", "--batch", "batch/server"], 6, "transcript");
}

/// Whoever puts an old key back into a wallet is refused by the server, which has its own mark.
#[test]
fn a_restored_wallet_is_refused() {
    let world = World::new();
    world.deal("batch", 4);
    let served = world.serve(&["batch"]);
    let key = std::fs::read(world.at("batch/wallet/key")).unwrap();
    world.ok(&refs(&world.infer("batch", &served.url, "2")));
    std::fs::write(world.at("batch/wallet/key"), key).unwrap();
    world.fails(&refs(&world.infer("batch", &served.url, "1")), 8, "used before");
    let body = String::from_utf8(support::http(served.addr, "GET /metrics HTTP/1.1", b"").2).unwrap();
    assert!(body.contains("jali_replays_total 1"), "{body}");
}

/// New batches in a folder come with SIGHUP; what is open stays open.
#[test]
#[cfg(unix)]
fn batches_are_read_again() {
    let world = World::new();
    let batches = world.at("batches").display().to_string();
    world.deal("batches/first", 4);
    let served = Served::start(&world.at("sealed/server"), &["--tickets", &batches]);
    world.ok(&refs(&world.infer("batches/first", &served.url, "1")));
    world.deal("batches/later", 4);
    world.fails(&refs(&world.infer("batches/later", &served.url, "1")), 8, "no such batch");
    served.signal("HUP");
    std::thread::sleep(Duration::from_millis(800));
    world.ok(&refs(&world.infer("batches/first", &served.url, "1")));
    world.ok(&refs(&world.infer("batches/later", &served.url, "1")));
    assert_eq!(world.used_at_server("batches/first"), 2);
}

fn kill(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// kill -9 of either side at any moment never makes a ticket serve twice: what a guest has used
/// only rises, so does what a server has used, and the server is never ahead of the guest.
#[test]
fn crashes_use_tickets_up_and_never_twice() {
    let world = World::new();
    world.deal("batch", 400);
    let mut served = world.serve(&["batch"]);
    let (mut at_guest, mut at_server) = (0, 0);
    for round in 0..24 {
        let child = world.command(&refs(&world.infer("batch", &served.url, "10"))).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + 7 * (round % 12)));
        match round % 3 {
            0 => kill(child),
            1 => {
                drop(served);
                kill(child);
                served = world.serve(&["batch"]);
            }
            _ => {
                let out = child.wait_with_output().unwrap();
                let err = String::from_utf8_lossy(&out.stderr);
                assert!(!err.contains("used before"), "{err}");
            }
        }
        let (guest, server) = (400 - world.left("batch"), world.used_at_server("batch"));
        assert!(guest >= at_guest && server >= at_server && server <= guest, "{guest} and {server}");
        (at_guest, at_server) = (guest, server);
    }
    let (code, _, err) = world.run(&refs(&world.infer("batch", &served.url, "5")));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn many_guests_at_once() {
    let world = World::new();
    let names: Vec<String> = (0..12).map(|i| format!("batch-{i}")).collect();
    names.iter().for_each(|name| {
        world.deal(name, 6);
    });
    let served = world.serve(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let guests: Vec<Child> =
        names.iter().map(|name| world.command(&refs(&world.infer(name, &served.url, "5"))).spawn().unwrap()).collect();
    for guest in guests {
        let out = guest.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(report["correct"].as_u64(), Some(5), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert!(names.iter().all(|name| world.used_at_server(name) == 5));
}

/// 64 guests, one image after the other on each of their connections: all get their classes, and
/// the server's memory does not grow from the first round to the last.
#[test]
#[cfg(target_os = "linux")]
fn sixty_four_guests_and_flat_memory() {
    let world = World::new();
    let names: Vec<String> = (0..64).map(|i| format!("batches/{i}")).collect();
    names.iter().for_each(|name| {
        world.deal(name, 12);
    });
    let batches = world.at("batches").display().to_string();
    let served = Served::start(&world.at("sealed/server"), &["--tickets", &batches]);
    let mut memory = vec![];
    for _ in 0..3 {
        let start = |name: &String| world.command(&refs(&world.infer(name, &served.url, "4"))).spawn().unwrap();
        let guests: Vec<Child> = names.iter().map(start).collect();
        for guest in guests {
            let out = guest.wait_with_output().unwrap();
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            assert_eq!(report["correct"].as_u64(), Some(4), "{}", String::from_utf8_lossy(&out.stderr));
        }
        memory.push(served.memory());
    }
    assert!(memory[2] < memory[0] + memory[0] / 4 + 8192, "kilobytes after each round: {memory:?}");
}

/// Over TLS, with an authority of the owner's own, and not with another one.
#[test]
fn guests_speak_tls() {
    use rcgen::{CertificateParams, KeyPair};
    let world = World::new();
    // Those of a connection that was not trusted are used up, too.
    world.deal("batch", 8);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(world.at("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(world.at("key.pem"), key.serialize_pem()).unwrap();
    let path = |name: &str| world.at(name).display().to_string();
    let (cert, secret, batch) = (path("cert.pem"), path("key.pem"), path("batch/server"));
    let served =
        Served::start(&world.at("sealed/server"), &["--tickets", &batch, "--tls-cert", &cert, "--tls-key", &secret]);
    let url = format!("https://localhost:{}", served.addr.port());
    let mut args = world.infer("batch", &url, "2");
    world.fails(&refs(&args), 8, "--ca-cert");
    args.extend(["--ca-cert".into(), cert]);
    let report = world.json(&refs(&args));
    assert_eq!(report["correct"].as_u64(), Some(2));
    // Without TLS this server is not spoken to.
    let plain = world.infer("batch", &format!("http://localhost:{}", served.addr.port()), "1");
    let (code, out, err) = world.run(&refs(&plain));
    assert_eq!(code, 8, "{out}{err}");
    // And nobody is, on another machine, in the clear.
    world.deal("second", 1);
    world.fails(&refs(&world.infer("second", "http://192.0.2.1:8433", "1")), 8, "use https");
}

/// Opens a connection with a wallet's public part and another token.
fn connect(world: &World, url: &str, token: Token, first: u32, count: u32) -> Result<GuestConnection, String> {
    let info = WalletInfo::read(&world.at("batch/wallet"), None).unwrap();
    let config =
        ClientConfig { url: url.into(), ca_cert: None, token: None, timeout: Duration::from_secs(10), insecure: false };
    let tickets = Tickets { manifest: info.manifest(), token: &token, first, count };
    let mut connection = GuestConnection::open(&config, tickets.manifest.model).map_err(|e| e.to_string())?;
    connection.show(&tickets).map_err(|e| e.to_string()).map(|()| connection)
}

#[test]
fn strangers_get_nothing() {
    let world = World::new();
    world.deal("batch", 4);
    let served = world.serve(&["batch"]);
    // A token of somebody's making uses no ticket.
    let refused = connect(&world, &served.url, Token::from_bytes([7; 32]), 0, 4).unwrap_err();
    assert!(refused.contains("no such batch"), "{refused}");
    assert_eq!(world.used_at_server("batch"), 0);
    // Not a WebSocket, another network, and bytes that are no greeting.
    let id = world.json(&["tickets", "batch/wallet", "--json"])["model_id"].as_str().unwrap().to_owned();
    let (status, ..) = support::http(served.addr, &format!("GET /v2/models/{id}/guests HTTP/1.1"), b"");
    assert!((400..500).contains(&status), "{status}");
    let other = "00".repeat(16);
    let (status, ..) = support::http(served.addr, &format!("GET /v2/models/{other}/guests HTTP/1.1"), b"");
    assert!((400..500).contains(&status), "{status}");
    assert!(Hello::decode(b"JALIGST1").is_none());
    // The server is as it was.
    world.ok(&refs(&world.infer("batch", &served.url, "2")));
}

/// A guest that is silent, or whose messages have another form or order, is let go without a word;
/// its tickets are used.
#[test]
fn silence_and_disorder_end_a_connection() {
    let world = World::new();
    world.deal("batch", 8);
    let batch = world.at("batch/server").display().to_string();
    let served = Served::start(&world.at("sealed/server"), &["--tickets", &batch, "--answer-time", "1"]);
    let identity = GuestIdentity::read(&world.at("me.key")).unwrap();
    let mut wallet = Wallet::open(&world.at("batch/wallet"), &identity, None).unwrap();
    let nonce = [0; 32].to_vec();
    // Nothing; a nonce cut short; a nonce with an input of another length.
    for (first, message) in [None, Some(vec![1; 31]), Some([nonce, vec![1; 65]].concat())].into_iter().enumerate() {
        let token = wallet.token().clone();
        wallet.take(1).unwrap();
        let mut connection = connect(&world, &served.url, token, first as u32, 1).unwrap();
        if let Some(message) = message {
            connection.send(message).unwrap();
        }
        let ended = connection.receive().unwrap_err().to_string();
        assert!(ended.contains("cannot be reached"), "{ended}");
        assert_eq!(world.used_at_server("batch"), first as u64 + 1);
    }
    drop(wallet);
    world.ok(&refs(&world.infer("batch", &served.url, "2")));
}

/// A file whose path is not to be looked at by others.
#[test]
#[cfg(unix)]
fn what_is_secret_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.deal("batch", 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["me.key", "sealed/owner", "sealed/server", "batch/server", "batch/wallet/key", "batch/wallet/tickets"]
    {
        assert_eq!(mode(&world.at(name)), 0o600, "{name}");
    }
}
