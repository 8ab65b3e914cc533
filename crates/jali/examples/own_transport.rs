//! A way to the server of your own: here threads and channels, which stand for a queue, a serial
//! line or a message bus. It need not be trusted: answers and hints are checked before they are
//! used.
//!
//! ```sh
//! cargo run --release -p jali --example own_transport
//! ```
#![allow(clippy::print_stdout)]

use std::sync::mpsc::{Receiver, Sender, channel};

use jali::{Client, Delivery, InProcess, JaliError, Network, Request, Sealing, Transport};

/// Two channels to a thread that has the server.
struct Channels {
    requests: Sender<Vec<u8>>,
    answers: Receiver<Vec<u8>>,
    carried: usize,
}

impl Transport for Channels {
    fn hints(&mut self, _operator: usize, _most_bytes: usize) -> Result<Vec<u8>, JaliError> {
        // Only a client that was read from a file asks for hints; this one has them.
        Err(JaliError::Transport(std::io::Error::other("no hints over this line")))
    }

    fn send(&mut self, request: Request<'_>) -> Result<Delivery, JaliError> {
        self.carried += request.bytes.len();
        let gone = || JaliError::Transport(std::io::ErrorKind::BrokenPipe.into());
        self.requests.send(request.bytes.to_vec()).map_err(|_| gone())?;
        // A line that loses a message returns `Delivery::Lost`: the client masks the input anew and
        // sends again, until the line returns an error.
        Ok(Delivery::Answer(self.answers.recv().map_err(|_| gone())?))
    }
}

fn main() -> Result<(), JaliError> {
    let model = Network::Mnist.quantised(Default::default())?;
    let client: Client<InProcess> = Sealing::of(&model).seal()?.in_process()?;
    let server = client.transport().server();
    let (requests, incoming) = channel::<Vec<u8>>();
    let (outgoing, answers) = channel();
    std::thread::spawn(move || incoming.into_iter().try_for_each(|request| outgoing.send(server.handle(&request))));

    let mut client = client.over(Channels { requests, answers, carried: 0 })?;
    let sample = &Network::Mnist.dataset().bundled_test()?[0];
    let answer = client.infer(&sample.image)?;
    let said = answer.output().argmax();
    println!("a {} is taken for a {said}; {} bytes carried", sample.label, client.transport().carried);
    Ok(())
}
