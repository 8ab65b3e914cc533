//! The owner's files, a server and a client that meet over HTTP; here on one machine, with TLS and
//! a token between two (`docs/serving.md`).
//!
//! ```sh
//! cargo run --release -p jali --example two_machines
//! ```
#![allow(clippy::print_stdout)]

use jali::parts::net::{Config, Running};
use jali::{Backend, Client, Http, InProcess, JaliError, Network, Sealing};

fn main() -> Result<(), JaliError> {
    let folder = std::env::temp_dir().join(format!("jali-two-machines-{}", std::process::id()));

    // The owner: two files. `server` may be seen by anybody; whoever has `client` can recover the
    // model.
    let model = Network::Mnist.quantised(Default::default())?;
    let files = Sealing::of(&model).save(&folder)?;
    println!("for the server: {} bytes, for the client: {} bytes", files.server.bytes, files.client.bytes);

    // The server: it has its file and no key. (`jali serve sealed/server` does the same.)
    let server = InProcess::load(&files.server.path, Backend::fastest())?.server();
    let config = Config::loopback();
    let running = Running::start(config)?;
    running.serve(vec![server]);

    // The client: its file, and where the server is.
    let url = format!("http://{}", running.addr());
    let mut client = Client::open(&files.client.path)?.connect(Http::new(&url))?;
    let samples = Network::Mnist.dataset().bundled_test()?;
    let images: Vec<_> = samples.iter().take(16).map(|sample| sample.image.clone()).collect();
    let answer = client.infer_batch(&images)?;
    let right = samples.iter().zip(&answer.outputs).filter(|(s, outputs)| outputs[0].argmax() == s.label).count();
    let (up, down) = answer.operators.iter().fold((0, 0), |sum, o| (sum.0 + o.bytes_up, sum.1 + o.bytes_down));
    println!("{right} of 16 right over {url}; {up} bytes up, {down} bytes down");

    // The keys must not outlive the example.
    std::fs::remove_dir_all(&folder).map_err(|e| JaliError::Write { path: folder, why: e.to_string() })
}
