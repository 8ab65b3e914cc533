//! A vendor, a server and a clinic that classifies without having the model; here on one machine
//! (`docs/guests.md` has the commands for three).
//!
//! ```sh
//! cargo run --release -p jali --example guests
//! ```
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use jali::guests::{Backend, GuestClient, GuestSealing};
use jali::parts::net::guests::GuestService;
use jali::parts::net::{ClientConfig, Config, Running};
use jali::parts::tickets::{Batch, Dealer, GuestIdentity, OwnerFile, ServerFile, Terms};
use jali::{JaliError, Network, Plan, Preprocess};

fn main() -> Result<(), JaliError> {
    let folder = std::env::temp_dir().join(format!("jali-guests-{}", std::process::id()));

    // The clinic: a key, whose recipient it tells the vendor.
    let identity = GuestIdentity::generate();

    // The vendor: two files, and tickets for the clinic. `owner` stays here.
    let (graph, data) = (Network::Mnist.graph()?, Network::Mnist.dataset());
    let sealing = GuestSealing::of(&graph, &data.bundled_calibration()?, Some((0.0, 1.0)), Default::default())?;
    sealing.save(&Plan::hide_all(&graph), "digits", &Preprocess::default(), &folder)?;
    let dealer = Dealer::new(OwnerFile::read(&folder, None)?, Backend::best());
    let terms = Terms { guest: identity.recipient(), tickets: 16, days: 1, on_demand: false };
    let dealt = dealer.deal(&folder.join("batch"), &terms, |_| {})?;
    println!("16 tickets: {} bytes for the clinic, {} for the server", dealt.wallet_bytes, dealt.server_bytes);

    // The server: its file, and its part of the tickets. (`jali serve --tickets` does the same.)
    let file = ServerFile::read(&folder)?;
    let batch = Batch::open(&dealt.server, &file)?;
    let service = GuestService::new(Arc::new(file), vec![Arc::new(batch)], Backend::best());
    let config = Config::loopback();
    let running = Running::start(config)?;
    running.serve_guests(vec![Arc::new(service)]);

    // The clinic: its wallet, its key, the vendor's public key, and where the server is.
    let (url, timeout) = (format!("http://{}", running.addr()), Duration::from_secs(60));
    let config = ClientConfig { url: url.clone(), ca_cert: None, token: None, timeout, insecure: false };
    let vendor = dealer.owner().public_key();
    let mut guest = GuestClient::open(&dealt.wallet, &identity, Some(&vendor), config)?;
    let samples = data.bundled_test()?;
    let mut right = 0;
    for (left, sample) in samples[..16].iter().enumerate().map(|(i, sample)| (15 - i as u32, sample)) {
        right += usize::from(guest.infer(&sample.image, left)?.output.argmax() == sample.label);
    }
    println!("{right} of 16 right over {url}; {} tickets left", guest.left());

    // Keys and tickets must not outlive the example.
    drop((guest, running));
    std::fs::remove_dir_all(&folder).map_err(|e| JaliError::Write { path: folder, why: e.to_string() })
}
