//! Whole networks, both parties played, compared with the integer reference wire by wire.

mod messages;
mod networks;

use jali_leak::Plan;
use jali_model::fixed::{FixedConfig, FixedNetwork, FixedOp};
use jali_model::{Graph, Tensor};

use crate::backend::Backend;
use crate::{
    GuestError, GuestSession, GuestTicket, Original, Output, SealedForGuests, Served, ServerSession, StreamKey, Tables,
    Trace, Turn, deal_traced, difference,
};

fn key(seed: u8) -> StreamKey {
    StreamKey::from_bytes([seed; 32])
}

/// What an inference left behind.
#[derive(Debug)]
struct Played {
    output: Output,
    server: Trace,
    /// Messages of the server and of the guest.
    messages: [Vec<Vec<u8>>; 2],
}

/// Plays both parties to the end or the first error.
fn play(
    sealed: &SealedForGuests,
    backend: Backend,
    ticket: GuestTicket,
    server: StreamKey,
    input: &[i32],
) -> Result<Played, GuestError> {
    let mut at_server = Some(ServerSession::new(&sealed.server, backend, server).traced());
    let (first, start) = GuestSession::begin(&sealed.guest, backend, ticket, input)?;
    let mut to_server = vec![first];
    let guest = match start.traced().run()? {
        Turn::Goes { message, session } => {
            to_server.push(message);
            session
        }
        Turn::Waits(session) => session,
        Turn::Done(_) => unreachable!("the server's last message is missing"),
    };
    let mut at_guest = Some(guest);
    let (mut messages, mut of_server) = ([vec![], vec![]], None);
    loop {
        let mut to_guest = vec![];
        for message in to_server.drain(..) {
            match at_server.take().unwrap().receive(&message)? {
                Turn::Goes { message, session } => {
                    to_guest.push(message);
                    at_server = Some(session);
                }
                Turn::Waits(session) => at_server = Some(session),
                Turn::Done(Served { message, trace }) => {
                    to_guest.push(message);
                    of_server = trace;
                }
            }
            messages[1].push(message);
        }
        for message in to_guest {
            match at_guest.take().unwrap().receive(&message)? {
                Turn::Goes { message, session } => {
                    to_server.push(message);
                    at_guest = Some(session);
                }
                Turn::Waits(session) => at_guest = Some(session),
                Turn::Done(output) => {
                    messages[0].push(message);
                    return Ok(Played { output, server: of_server.unwrap(), messages });
                }
            }
            messages[0].push(message);
        }
    }
}

/// Runs a network for some images under a plan, with every backend in turn.
fn check(graph: &Graph, plan: &Plan, images: &[Tensor], config: FixedConfig) -> (FixedNetwork, SealedForGuests) {
    let network = FixedNetwork::calibrate(graph, config, images, None).unwrap();
    let original = Original::new(network.clone(), graph, plan, key(1)).unwrap();
    check_sealed(&network, &original.clone().with_tables(Tables::Direct).seal().unwrap(), images);
    let sealed = original.seal().unwrap();
    check_sealed(&network, &sealed, images);
    let is_clamp = |s: &&jali_model::fixed::FixedStep| matches!(s.op, FixedOp::Clamp { .. });
    assert!(network.steps.iter().filter(is_clamp).all(|s| s.bits <= 32));
    (network, sealed)
}

fn check_sealed(network: &FixedNetwork, sealed: &SealedForGuests, images: &[Tensor]) {
    let backends = Backend::all();
    for (i, image) in images.iter().take(3).enumerate() {
        let backend = backends[i % backends.len()];
        let (server, guest) = (key(2 + 2 * i as u8), key(3 + 2 * i as u8));
        let (shares, masks) = deal_traced(&sealed.owner, backend, &server, &guest);
        let input = network.quantise(image).unwrap();
        let ticket_bytes = shares.len();
        let ticket = GuestTicket::new(guest, shares);
        let played = play(sealed, backend, ticket, server, &input).unwrap();
        let found = difference(network, &sealed.owner.circuit, &masks, &played.server, &played.output, &input);
        assert_eq!(found, None);
        let counts = sealed.owner.circuit.counts();
        let lengths = |messages: &[Vec<u8>]| messages.iter().map(Vec::len).sum::<usize>();
        assert_eq!(counts.bytes_down, lengths(&played.messages[0]));
        assert_eq!(counts.bytes_up, lengths(&played.messages[1]));
        assert_eq!(counts.exchanges + 1, played.messages[0].len());
        assert_eq!(counts.ticket_bytes, ticket_bytes);
        // With another image the reference has other numbers.
        let other: Vec<i32> = input.iter().map(|v| v ^ 0x55).collect();
        let found = difference(network, &sealed.owner.circuit, &masks, &played.server, &played.output, &other);
        // Where all is open, an output that is a class may be another image's, too.
        assert!(found.is_some() || counts.clamps == 0);
    }
}
