//! The owner's dealing service.

use super::*;

impl World {
    fn agree(&self, name: &str, tickets: u32) -> Value {
        let (to, tickets) = (self.recipient(), tickets.to_string());
        let args = ["deal", "sealed/owner", "--to", &to, "--tickets", &tickets, "--on-demand", "--out", name, "--json"];
        self.json(&args)
    }

    /// Deals from a batch that has been there before its wallet was given away.
    fn dealing(&self, batches: &[&str], more: &[&str]) -> Served {
        let paths: Vec<String> = batches.iter().map(|b| self.at(b).display().to_string()).collect();
        let owner = self.at("sealed/owner").display().to_string();
        let mut args = vec!["deal", &owner, "--listen", "127.0.0.1:0"];
        args.extend(more);
        args.extend(paths.iter().map(String::as_str));
        Served::of(&args, "dealing on ")
    }

    fn fetch<'a>(&self, wallet: &'a str, url: &'a str) -> [&'a str; 7] {
        ["tickets", wallet, "--key", "me.key", "--fetch", url, "--json"]
    }
}

#[test]
fn tickets_are_dealt_when_they_are_asked_for() {
    let world = World::new();
    let agreed = world.agree("batch", 100);
    assert!(agreed["wallet_bytes"].as_u64().unwrap() < 20_000, "a wallet without tickets");
    let served = world.serve(&["batch"]);
    let infer = world.infer("batch", &served.url, "3");
    world.fails(&refs(&infer), 17, "--fetch URL");
    assert_eq!(world.used_at_server("batch"), 0);
    let dealing = world.dealing(&["batch"], &[]);
    let fetched = world.json(&world.fetch("batch/wallet", &dealing.url));
    assert_eq!((fetched["fetched"].as_u64(), fetched["left"].as_u64()), (Some(64), Some(64)));
    let report = world.json(&refs(&infer));
    assert_eq!((report["correct"].as_u64(), world.left("batch"), world.used_at_server("batch")), (Some(3), 61, 3));
    // The service keeps nothing but how many it dealt, and goes on there after a restart.
    let files = |folder: &str| {
        let mut names: Vec<String> = std::fs::read_dir(world.at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(files("batch"), ["server", "server.dealing", "server.dealt", "server.used", "wallet"]);
    drop(dealing);
    let dealing = world.dealing(&["batch"], &[]);
    assert_eq!(world.json(&world.fetch("batch/wallet", &dealing.url))["fetched"], 36);
    world.fails(&world.fetch("batch/wallet", &dealing.url), 2, "all its tickets were dealt");
    assert_eq!(world.left("batch"), 97);
    let (_, _, metrics) = support::http(dealing.addr, "GET /metrics HTTP/1.1", b"");
    assert!(String::from_utf8(metrics).unwrap().contains("jali_tickets_dealt_total 36"));
}

#[test]
fn the_dealing_service_knows_whom_it_deals_to() {
    let world = World::new();
    for name in ["one", "two", "other"] {
        world.agree(name, 200);
    }
    let dealing = world.dealing(&["one", "two"], &["--rate", "1000000"]);
    world.fails(&world.fetch("other/wallet", &dealing.url), 8, "ask the owner");
    // The token of the server is none for the owner, and no credential opens another batch.
    let wallet = |name: &str| {
        let identity = GuestIdentity::read(&world.at("me.key")).unwrap();
        Wallet::open(&world.at(name).join("wallet"), &identity, None).unwrap()
    };
    let (one, two) = (wallet("one"), wallet("two"));
    let ask = |batch: &Wallet, secret: &[u8; 32]| {
        let path = format!("POST /v2/batches/{}/tickets HTTP/1.1", jali_bundle::hex(&batch.manifest().batch));
        let head = format!("{path}\r\nAuthorization: Bearer {}", jali_bundle::hex(secret));
        support::http(dealing.addr, &head, b"").0
    };
    for status in [ask(&one, one.token().bytes()), ask(&one, two.credential().bytes()), ask(&one, &[0; 32])] {
        assert_eq!(status, 401);
    }
    assert_eq!(ask(&one, one.credential().bytes()), 200);
    drop((one, two));
    // What that one took and did not keep is gone; the guest gets the rest.
    let fetched = world.json(&[&world.fetch("one/wallet", &dealing.url)[..], &["--count", "200"]].concat());
    assert_eq!(fetched["fetched"], 136);
    let served = world.serve(&["one"]);
    assert_eq!(world.json(&refs(&world.infer("one", &served.url, "2")))["correct"], 2);
    assert_eq!(world.used_at_server("one"), 66);
}

#[test]
fn mistakes_about_dealing_are_told() {
    let world = World::new();
    world.agree("batch", 200);
    world.deal("whole", 2);
    let listen = |address: &'static str, batches: &[&'static str]| {
        [&["deal", "sealed/owner", "--listen", address], batches].concat()
    };
    world.fails(&listen("127.0.0.1:0", &[]), 2, "<BATCH>");
    world.fails(&listen("127.0.0.1:0", &["whole"]), 2, "--on-demand");
    world.fails(&listen("0.0.0.0:0", &["batch"]), 8, "TLS");
    world.fails(&["deal", "sealed/owner", "--tickets", "1", "--out", "x"], 2, "--to");
    world.fails(&world.fetch("whole/wallet", "http://127.0.0.1:1"), 2, "all its tickets are in it");
    world.fails(&world.fetch("batch/wallet", "http://127.0.0.1:1"), 8, "cannot be reached");
    world.fails(&world.fetch("batch/wallet", "http://192.0.2.1:8434"), 8, "use https");
    let served = world.serve(&["batch"]);
    world.fails(&world.fetch("batch/wallet", &served.url), 8, "does not deal this batch");
    let dealing = world.dealing(&["batch"], &["--rate", "64"]);
    world.fails(&listen("127.0.0.1:0", &["batch"]), 10, "another process deals it");
    world.json(&world.fetch("batch/wallet", &dealing.url));
    // The next block comes in a minute.
    let mut waiting = world.command(&world.fetch("batch/wallet", &dealing.url)).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(waiting.try_wait().unwrap().is_none());
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert_eq!(world.left("batch"), 64);
    world.fails(&world.fetch("other", &dealing.url), 10, "other");
}
