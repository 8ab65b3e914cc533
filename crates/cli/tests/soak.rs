//! Long versions of what the other tests try briefly:
//!
//! ```sh
//! cargo test --release -p jali-cli --test soak -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jali::{Backend, Costs, Network, Tensor};
use jali_mask::{RequestContext, RequestEntropy, SealEntropy};
use jali_protocol::{Action, ClientModel, Inference, ProtocolError, Server, StoredClient};
use jali_testing::Random;
use support::{Served, mnist, remote};

/// Bytes of an answer before its first residue.
const HEAD: usize = 11;

/// Alters an honest answer; `other` is an honest answer to another request of the same layer.
/// `None` if the fault is none here.
fn lie(
    kind: usize,
    random: &mut Random,
    client: &ClientModel,
    layer: usize,
    honest: &[u8],
    other: &[u8],
) -> Option<Vec<u8>> {
    let key = &client.operators()[layer].key;
    let (ring, form) = (key.parameters().ring(), key.form());
    let (mut bytes, count) = (honest.to_vec(), form.count());
    let row_bytes = |row: usize| -> usize {
        ring.moduli()[..form.limbs()[row]].iter().map(|m| jali_ring::wire::packed_len(m, count)).sum()
    };
    let start = |row: usize| HEAD + (0..row).map(row_bytes).sum::<usize>();
    match kind {
        // One bit of one residue.
        0 => {
            let at = HEAD + random.below(bytes.len() - HEAD);
            bytes[at] ^= 1 << random.below(8);
        }
        // One residue plus the plaintext modulus, or plus one: invisible to a check of decoded
        // integers.
        1 => {
            let row = random.below(form.rows());
            let limb = random.below(form.limbs()[row]);
            let m = &ring.moduli()[limb];
            let before: usize = ring.moduli()[..limb].iter().map(|m| jali_ring::wire::packed_len(m, count)).sum();
            let at = start(row) + before;
            let length = jali_ring::wire::packed_len(m, count);
            let mut values = vec![0; count];
            jali_ring::wire::Reader::new(&bytes[at..at + length]).residues(ring.backend(), m, &mut values).unwrap();
            let k = random.below(count);
            let delta = if random.below(2) == 0 { 1 } else { key.parameters().t() as u64 % m.value() };
            values[k] = m.add(values[k], delta);
            let mut w = jali_ring::wire::Writer::new();
            w.residues(ring.backend(), m, &values);
            bytes[at..at + length].copy_from_slice(&w.finish());
        }
        // Rows swapped.
        2 => {
            let (a, b) = (random.below(form.rows()), random.below(form.rows()));
            if a == b || row_bytes(a) != row_bytes(b) {
                return None;
            }
            let (x, y) = (bytes[start(a)..][..row_bytes(a)].to_vec(), bytes[start(b)..][..row_bytes(b)].to_vec());
            bytes[start(a)..][..x.len()].copy_from_slice(&y);
            bytes[start(b)..][..y.len()].copy_from_slice(&x);
        }
        // A stale answer, or that of another image.
        3 => bytes = other.to_vec(),
        // Too short, too long.
        4 => bytes.truncate(random.below(bytes.len())),
        5 => bytes.push(0),
        // Another layer's number, another kind of message.
        6 => bytes[3] ^= 1,
        _ => bytes[1] ^= 3,
    }
    (bytes != honest).then_some(bytes)
}

/// Tells `count` lies in random layers of one network; every one must be rejected before anything
/// is unmasked.
fn lies(network: Network, leak: f64, count: usize, seed: u64) {
    let model = network.quantised(Default::default()).unwrap();
    let costs = Costs::default();
    let rows = jali_protocol::Blueprint::rows_of_all(&model, &costs).unwrap();
    let plan = jali_leak::random_rows(model.graph(), &rows, leak, 1).unwrap();
    let owner = jali_protocol::Owner { model: &model, plan: &plan, costs: &costs };
    let sealed = owner.seal(&SealEntropy::from_os().unwrap(), |_| {}).unwrap();
    let server = Server::load(&sealed.server, Backend::fastest(), usize::MAX).unwrap();
    let images: Vec<Tensor> = network.dataset().bundled_test().unwrap().into_iter().map(|s| s.image).collect();
    let (mut random, mut told, mut by_kind) = (Random(seed), 0, [0usize; 8]);
    let entropy = || RequestEntropy::from_os().unwrap();
    while told < count {
        let context = RequestContext { counter: told as u64, image: 0 };
        let image = images[random.below(images.len())].clone();
        let mut inference = Inference::new(&sealed.client, vec![image], context).unwrap();
        let target = random.below(sealed.client.operators().len());
        while let Action::Send { operator: layer, request } = inference.next(entropy()).unwrap() {
            let mut honest = server.handle(&request);
            if layer == target {
                // The same input under another secret: its answer is honest, and not this
                // request's.
                let other = honest;
                let Action::Send { request, .. } = inference.again(entropy()).unwrap() else { break };
                honest = server.handle(&request);
                let kind = random.below(8);
                let Some(wrong) = lie(kind, &mut random, &sealed.client, layer, &honest, &other) else { break };
                told += 1;
                by_kind[kind] += 1;
                let result = inference.receive(&wrong);
                assert!(
                    matches!(result, Err(ProtocolError::Rejected { .. })),
                    "lie {told} of kind {kind} in layer {layer}"
                );
                break;
            }
            inference.receive(&honest).unwrap();
        }
        if told % 1000 == 999 {
            println!("{told} lies told");
        }
    }
    println!("{}: {told} of {told} lies caught, by kind {by_kind:?}", network.name());
}

#[test]
fn some_lies_in_every_layer() {
    lies(Network::Mnist, 0.5, 60, 3);
}

#[test]
#[ignore = "minutes"]
fn ten_thousand_lies() {
    lies(Network::Mnist, 0.0, 4000, 5);
    lies(Network::Mnist, 0.5, 4000, 7);
    lies(Network::Vgg3, 0.6, 2000, 9);
}

#[test]
#[ignore = "minutes"]
fn ten_thousand_altered_hints() {
    let sealed = mnist();
    let server = Server::load(&std::fs::read(sealed.server()).unwrap(), Backend::fastest(), usize::MAX).unwrap();
    let bytes = std::fs::read(sealed.client()).unwrap();
    let mut random = Random(11);
    let mut stored = StoredClient::read(std::io::Cursor::new(&bytes)).unwrap();
    for told in 0..10_000 {
        let layer = random.below(stored.operators());
        let mut hints = server.hints(layer).unwrap();
        let at = random.below(hints.len());
        hints[at] ^= 1 << random.below(8);
        assert!(stored.accept_hints(layer, &hints).is_err(), "lie {told}");
    }
    println!("10000 of 10000 altered hints refused");
}

#[test]
#[ignore = "minutes"]
fn killed_again_and_again_under_load() {
    let sealed = mnist();
    let served = Served::start(&sealed.server(), &[]);
    let (addr, url) = (served.addr.to_string(), served.url.clone());
    let (stop, right, reported) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for c in 0..4 {
            let (stop, right, reported, url) = (&stop, &right, &reported, &url);
            scope.spawn(move || {
                let mut client = loop {
                    if let Ok(client) = remote(sealed, url, Duration::from_secs(5)) {
                        break client;
                    }
                };
                let mut i = c;
                while !stop.load(Ordering::Relaxed) {
                    let images = vec![sealed.images[i % 1000].clone()];
                    match client.infer_batch_traced(&images) {
                        Ok(run) => {
                            assert!(sealed.is_exact(&images, &run), "a silent wrong result");
                            right.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(jali::JaliError::Net(_)) => {
                            reported.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(e) => panic!("{e}"),
                    }
                    i += 4;
                }
            });
        }
        let (begun, mut random, mut running, mut kills) = (Instant::now(), Random(13), Some(served), 0);
        while begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(50 + random.below(700) as u64));
            drop(running.take()); // kill -9
            kills += 1;
            std::thread::sleep(Duration::from_millis(random.below(200) as u64));
            running = Some(Served::start_on(&sealed.server(), &addr, &[]));
        }
        stop.store(true, Ordering::Relaxed);
        println!("{kills} kills");
    });
    println!("{right:?} images right, {reported:?} reported as failed, none silently wrong");
    assert!(right.into_inner() > 100);
}
