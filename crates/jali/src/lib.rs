//! Jali: partially oblivious neural-network inference.
//!
//! An untrusted server runs the linear layers of a trained CNN on masked inputs with masked weights; the client, who
//! holds the keys, runs the rest. The owner chooses which weights stay hidden. Results equal the quantised plaintext
//! network bit for bit.
//!
//! ```
//! use jali::{Dataset, Network, Session};
//! # fn main() -> Result<(), jali::JaliError> {
//! let network = Network::Mnist;
//! let model = network.quantised(Default::default())?;
//! let plan = jali::Plan::hide_all(model.graph());
//! let mut session = Session::start(model, &plan, jali::Kernel::choose(None)?, |_| {})?;
//! let sample = &network.dataset().bundled_test()?[0];
//! let run = session.infer(sample.image.clone())?;
//! assert_eq!(run.output.argmax(), sample.label);
//! # Ok(())
//! # }
//! ```
//!
//! With the server in another process (`jali seal`, `jali serve`):
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//!
//! use jali::{Client, ClientConfig, Network, Remote, bundle};
//! # fn main() -> Result<(), jali::JaliError> {
//! let time = Duration::from_secs(60);
//! let (url, token) = ("https://host:8433".into(), Some(jali::read_token(Path::new("token.txt"))?));
//! let transport = Client::new(&ClientConfig { url, ca_cert: None, token, timeout: time, insecure: false })?;
//! let stored = bundle::load_client(Path::new("sealed/client"), None, &Default::default())?;
//! let mut remote = Remote::connect(stored, transport, None, time)?;
//! let samples = Network::Vgg3.dataset().bundled_test()?;
//! let run = remote.infer_batch(samples.into_iter().take(4).map(|s| s.image).collect())?;
//! println!("{:?}", run.outputs.iter().map(|o| o.argmax()).collect::<Vec<_>>());
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`network`] | the bundled networks, and models from files |
//! | [`bundle`] | sealed networks as files |
//! | [`calibration`] | the cost model of this machine |
//! | [`classes`] | what a network's output says about classes |
//! | [`dataset`] | bundled samples and full test sets |
//! | [`image_file`] | PNG, JPEG and .npy to tensors |
//! | [`memory`] | whether what is going to happen fits |
//! | [`remote`] | a client whose server is another process |
//! | [`session`] | client and server in one process, talking in encoded messages |
#![forbid(unsafe_code)]

pub mod bundle;
pub mod calibration;
pub mod classes;
pub mod dataset;
pub mod error;
pub mod image_file;
pub mod memory;
pub mod network;
pub mod remote;
pub mod session;
pub mod text_file;
pub mod visible;

pub use classes::Reading;
pub use dataset::{Dataset, Records, Sample};
pub use error::JaliError;
pub use jali_leak::Plan;
pub use jali_mask::AnswerKind;
pub use jali_model::{QuantConfig, QuantModel, Tensor};
pub use jali_net::auth::read_token;
pub use jali_net::{Client, ClientConfig};
pub use jali_pack::{ANY_HINTS, Costs, Link};
pub use jali_ring::Kernel;
pub use network::Network;
pub use remote::Remote;
pub use session::{BatchRun, ImageRun, LayerRun, Session};
