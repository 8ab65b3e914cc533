//! Both sides in this process: seal a bundled network with every weight hidden and classify ten
//! digits.
//!
//! ```sh
//! cargo run --release -p jali --example in_process
//! ```
#![allow(clippy::print_stdout)]

use jali::{JaliError, Network, Sealing};

fn main() -> Result<(), JaliError> {
    let network = Network::Mnist;
    // The trained network in integers: what the server computes is exact on these.
    let model = network.quantised(Default::default())?;
    let sealed = Sealing::of(&model).seal()?;
    for operator in sealed.report() {
        let (name, kind) = (&operator.name, &operator.kind);
        println!("{name} ({kind}): {} of {} weights hidden", operator.weights_hidden, operator.weights);
    }
    let mut client = sealed.in_process()?;
    for sample in network.dataset().bundled_test()?.iter().take(10) {
        // Traced, to be compared with the network in the clear; `infer` otherwise.
        let traced = client.infer_traced(&sample.image)?;
        assert!(traced.is_exact(&model, &sample.image)?, "every layer equals the plaintext reference");
        let (said, took) = (traced.answer.output().argmax(), traced.answer.latency);
        println!("a {} is taken for a {said} ({:.1} ms)", sample.label, took.as_secs_f64() * 1e3);
    }
    Ok(())
}
