//! What the parties send: uniform, of fixed lengths, and checked when it comes.

use super::networks::{images, residual};
use super::*;

/// A sealed network, one input of it, and a plan under which everything is hidden.
fn sealed() -> (SealedForGuests, Vec<i32>) {
    let graph = residual();
    let images = images(&[3, 9, 11]);
    let network = FixedNetwork::calibrate(&graph, FixedConfig::default(), &images, None).unwrap();
    let sealed = crate::seal(&network, &graph, &Plan::hide_all(&graph), &key(1)).unwrap();
    let input = network.quantise(&images[0]).unwrap();
    (sealed, input)
}

/// Keys of inference number `n`.
fn keys(n: u32) -> (StreamKey, StreamKey) {
    let of = |party: &str| StreamKey::from_bytes(blake3::derive_key(party, &n.to_le_bytes()));
    (of("server"), of("guest"))
}

fn played(sealed: &SealedForGuests, input: &[i32], n: u32) -> Played {
    let (server, guest) = keys(n);
    let backend = Backend::best();
    let shares = crate::deal(&sealed.owner, backend, &server, &guest);
    play(sealed, backend, GuestTicket::new(guest, shares), server, input).unwrap()
}

/// Every bit that either party sends is a fair coin over tickets, for one fixed input. A bit that
/// is 0 in every run is a pad: the others must be as many as the circuit says.
#[test]
fn messages_are_uniform_for_a_fixed_input() {
    let (sealed, input) = sealed();
    const RUNS: u32 = 1024;
    let mut ones: [Vec<Vec<u32>>; 2] = [vec![], vec![]];
    for n in 0..RUNS {
        for (ones, messages) in ones.iter_mut().zip(played(&sealed, &input, n).messages) {
            ones.resize(messages.len(), vec![]);
            for (ones, message) in ones.iter_mut().zip(messages) {
                ones.resize(message.len() * 8, 0);
                let bits = message.iter().flat_map(|byte| (0..8).map(move |b| u32::from(byte >> b & 1)));
                ones.iter_mut().zip(bits).for_each(|(sum, bit)| *sum += bit);
            }
        }
    }
    let all: Vec<f64> = ones.iter().flatten().flatten().filter(|n| **n > 0).map(|n| f64::from(*n)).collect();
    let (mean, deviation) = (f64::from(RUNS) / 2.0, f64::from(RUNS).sqrt() / 2.0);
    // Of tens of thousands of fair coins the most extreme one stays within 5.5 deviations.
    let worst = all.iter().map(|n| (n - mean).abs() / deviation).fold(0.0, f64::max);
    assert!(worst < 5.5, "a bit is off by {worst} deviations");
    // Their squares sum to the number of coins: neither biased together nor too even.
    let n = all.len() as f64;
    let chi = all.iter().map(|n| ((n - mean) / deviation).powi(2)).sum::<f64>();
    assert!((chi - n).abs() < 6.0 * (2.0 * n).sqrt(), "{chi} for {n} bits");
    assert!(n > 30_000.0, "only {n} bits were ever 1");
}

/// A guest that lies at every opening sees messages of the same number and lengths.
#[test]
fn a_lying_guest_changes_nothing_that_the_server_does() {
    let (sealed, input) = sealed();
    let honest = played(&sealed, &input, 1);
    // Another ticket's messages: right in form, wrong in every value.
    let lies = played(&sealed, &input, 2).messages[1].clone();
    let mut server = ServerSession::new(&sealed.server, Backend::best(), keys(1).0);
    let mut lengths = vec![];
    for lie in &lies {
        match server.receive(lie).unwrap() {
            Turn::Goes { message, session } => {
                lengths.push(message.len());
                server = session;
            }
            Turn::Waits(session) => server = session,
            Turn::Done(served) => {
                lengths.push(served.message.len());
                break;
            }
        }
    }
    assert_eq!(lengths, honest.messages[0].iter().map(Vec::len).collect::<Vec<_>>());
}

/// With another key and the same messages of the guest, about half of the bits of each message of
/// the server are others: its key masks all of them, the last one too.
#[test]
fn the_servers_key_masks_every_message() {
    let (sealed, input) = sealed();
    let honest = played(&sealed, &input, 1);
    let answers = |n: u32| {
        let mut server = Some(ServerSession::new(&sealed.server, Backend::best(), keys(n).0));
        let mut out = vec![];
        for message in &honest.messages[1] {
            match server.take().unwrap().receive(message).unwrap() {
                Turn::Goes { message, session } => {
                    out.push(message);
                    server = Some(session);
                }
                Turn::Waits(session) => server = Some(session),
                Turn::Done(served) => out.push(served.message),
            }
        }
        out
    };
    let (first, second) = (answers(1), answers(2));
    assert_eq!(first, honest.messages[0]);
    for (number, (a, b)) in first.iter().zip(&second).enumerate() {
        // Pads are zero in both.
        let used: u32 = a.iter().zip(b).map(|(a, b)| (a | b).count_ones()).sum();
        let differ: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
        let part = f64::from(differ) / f64::from(used.max(1));
        // Of two fair bits that are not both 0, two thirds differ.
        assert!((0.4..0.9).contains(&part), "{part} of message {number} differs");
    }
}

/// Steps a server to message `number` of an honest guest and gives it something else there.
fn server_gets(sealed: &SealedForGuests, honest: &[Vec<u8>], number: usize, bad: &[u8]) -> Option<GuestError> {
    let mut server = ServerSession::new(&sealed.server, Backend::best(), keys(1).0);
    for message in &honest[..number] {
        server = match server.receive(message).unwrap() {
            Turn::Goes { session, .. } | Turn::Waits(session) => session,
            Turn::Done(_) => return None,
        };
    }
    server.receive(bad).err()
}

/// Another length, or a bit where no value stands, is refused at every message.
#[test]
fn messages_of_another_form_are_refused() {
    let (sealed, input) = sealed();
    let honest = played(&sealed, &input, 1).messages;
    // A bit that no ticket sets is a pad.
    let mut ever = honest[1].clone();
    for n in 2..42 {
        for (ever, message) in ever.iter_mut().zip(&played(&sealed, &input, n).messages[1]) {
            ever.iter_mut().zip(message).for_each(|(e, m)| *e |= m);
        }
    }
    for (number, (message, ever)) in honest[1].iter().zip(&ever).enumerate() {
        let longer: Vec<u8> = message.iter().copied().chain([0]).collect();
        let mut bad = vec![message[..message.len() - 1].to_vec(), longer, vec![]];
        let pads: Vec<usize> = (0..message.len() * 8).filter(|bit| ever[bit / 8] >> (bit % 8) & 1 == 0).collect();
        for at in [pads.first(), pads.get(pads.len() / 2), pads.last()].into_iter().flatten() {
            let mut padded = message.clone();
            padded[at / 8] |= 1 << (at % 8);
            bad.push(padded);
        }
        for bad in &bad {
            let refused = server_gets(&sealed, &honest[1], number, bad);
            let is_named = matches!(refused, Some(GuestError::Message { number: n, .. }) if n == number);
            assert!(is_named, "{refused:?} for {} bytes at {number}", bad.len());
        }
    }
}

/// A ticket that is cut or too long is noticed at the latest when the output is read.
#[test]
fn tickets_of_another_length_are_refused() {
    let (sealed, input) = sealed();
    let (server, guest) = keys(1);
    let backend = Backend::best();
    let shares = crate::deal(&sealed.owner, backend, &server, &guest);
    let cut = shares[..shares.len() - 64].to_vec();
    let long: Vec<u8> = shares.iter().copied().chain([0; 64]).collect();
    for shares in [cut, long, vec![]] {
        let ticket = GuestTicket::new(guest.clone(), shares);
        let refused = play(&sealed, backend, ticket, server.clone(), &input).unwrap_err();
        assert!(matches!(refused, GuestError::Ticket { .. }), "{refused:?}");
    }
}
