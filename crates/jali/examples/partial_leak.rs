//! What hiding costs: the same network with all weights hidden, 80 % open in whole rows, and
//! all open.
//!
//! ```sh
//! cargo run --release -p jali --example partial_leak
//! ```
//! What open weights give away is another question: `docs/auditing.md`.
#![allow(clippy::print_stdout)]

use jali::{JaliError, Network, Plan, Sealing};

fn main() -> Result<(), JaliError> {
    let network = Network::Mnist;
    let model = network.quantised(Default::default())?;
    let seed = 1;
    let choices = [
        ("all hidden", Sealing::of(&model)),
        ("80 % open", Sealing::of(&model).leak(0.8, seed)?),
        ("all open", Sealing::of(&model).plan(&Plan::open_all(model.graph()))),
    ];
    let image = &network.dataset().bundled_test()?[0].image;
    for (name, sealing) in choices {
        let mut sealed = sealing.seal()?;
        let bytes = sealed.server_bytes()?;
        let hidden: usize = sealed.report().iter().map(|operator| operator.weights_hidden).sum();
        let mut client = sealed.in_process()?;
        // The first inference warms up.
        client.infer(image)?;
        let best = (0..20).map(|_| client.infer(image).map(|answer| answer.latency)).collect::<Result<Vec<_>, _>>()?;
        let best = best.into_iter().min().unwrap_or_default();
        println!("{name:>10}: {hidden:6} weights hidden, {bytes:9} bytes on the server, {best:.1?} an image");
    }
    Ok(())
}
