//! What hiding costs: the same network with all weights hidden, 80 % of its rows open, and all
//! open.
//!
//! ```sh
//! cargo run --release -p jali --example partial_leak
//! ```
//! What open weights give away is another question: `docs/auditing.md`.
#![allow(clippy::print_stdout)]

use jali::parts::leak::random_rows;
use jali::parts::protocol::{Blueprint, ProtocolError};
use jali::{Costs, JaliError, Network, Plan, Sealing};

fn main() -> Result<(), JaliError> {
    let network = Network::Mnist;
    let model = network.quantised(Default::default())?;
    // Rows are what sealing opens: a plan that allows half a row opens nothing of it.
    let rows = Blueprint::rows_of_all(&model, &Costs::default())?;
    let some = random_rows(model.graph(), &rows, 0.8, 1).map_err(ProtocolError::from)?;
    let plans = [
        ("all hidden", Plan::hide_all(model.graph())),
        ("80 % open", some),
        ("all open", Plan::open_all(model.graph())),
    ];
    let image = &network.dataset().bundled_test()?[0].image;
    for (name, plan) in plans {
        let mut sealed = Sealing::of(&model).plan(&plan).seal()?;
        let bytes = sealed.server_bytes()?;
        let hidden: usize = sealed.report().iter().map(|operator| operator.weights_sealed).sum();
        let mut client = sealed.in_process()?;
        // The first inference warms up.
        client.infer(image)?;
        let best = (0..20).map(|_| client.infer(image).map(|answer| answer.latency)).collect::<Result<Vec<_>, _>>()?;
        let best = best.into_iter().min().unwrap_or_default();
        println!("{name:>10}: {hidden:6} weights hidden, {bytes:9} bytes on the server, {best:.1?} an image");
    }
    Ok(())
}
