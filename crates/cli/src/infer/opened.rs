//! Who computes for `jali infer`: a server in this process, or one elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jali::guests::{GuestClient, Kept};
use jali::{
    Backend, BatchAnswer, Client, Graph, Http, JaliError, Opening, Preprocess, QuantModel, Tensor, Transport, bundle,
};
use jali_net::ClientConfig;
use jali_tickets::GuestIdentity;

use super::InferArgs;
use super::inputs::Inputs;
use crate::local::{Local, hidden_fraction};
use crate::pixels::{Calibration, calibrate_file, calibration_images, read_model_aloud};
use crate::text::note;

/// Who asks.
pub(super) enum With {
    /// A client, and the model to compare with where this process has it.
    Keyed {
        /// Holds the keys.
        client: Box<Client<Box<dyn Transport>>>,
        /// What every layer is compared with.
        reference: Option<Box<QuantModel>>,
    },
    /// A guest with its wallet.
    Guest {
        /// Holds tickets.
        client: Box<GuestClient>,
        /// Images that follow, for which tickets are read ahead.
        left: usize,
        /// Where the next transcript goes, if they are kept.
        transcript: Option<PathBuf>,
    },
}

/// What became of a batch.
pub(super) struct Classified {
    /// All outputs of every image.
    pub(super) outputs: Vec<Vec<Tensor>>,
    pub(super) latency: Duration,
    /// Whether each image equals the reference, where there is one.
    pub(super) exact: Vec<Option<bool>>,
}

impl With {
    /// The network without its weights; of a guest's the part behind the last layer.
    pub(super) fn graph(&self) -> &Graph {
        match self {
            Self::Keyed { client, .. } => client.outline().graph(),
            Self::Guest { client, .. } => &client.description().network.tail,
        }
    }

    /// Whether a class comes alone, and not how likely it is.
    pub(super) fn gives_class_alone(&self) -> bool {
        match self {
            Self::Keyed { .. } => false,
            Self::Guest { client, .. } => client.description().network.output.classes.is_some(),
        }
    }

    pub(super) fn retries(&self) -> usize {
        match self {
            Self::Keyed { client, .. } => client.transport().retries(),
            // A ticket that may have been used is never shown again.
            Self::Guest { .. } => 0,
        }
    }

    pub(super) fn run(&mut self, images: &[Tensor]) -> Result<Classified, JaliError> {
        match self {
            Self::Keyed { client, reference: Some(model) } => {
                let traced = client.infer_batch_traced(images)?;
                let exact = traced.are_exact(model, images)?.into_iter().map(Some).collect();
                Ok(Classified { outputs: traced.answer.outputs, latency: traced.answer.latency, exact })
            }
            Self::Keyed { client, reference: None } => {
                let BatchAnswer { outputs, latency, .. } = client.infer_batch(images)?;
                Ok(Classified { outputs, latency, exact: vec![None; images.len()] })
            }
            Self::Guest { client, left, transcript } => {
                let mut done = Classified { outputs: vec![], latency: Duration::ZERO, exact: vec![None; images.len()] };
                for image in images {
                    *left = left.saturating_sub(1);
                    let answer = client.infer(image, u32::try_from(*left).unwrap_or(u32::MAX))?;
                    done.latency += answer.latency;
                    done.outputs.push(vec![answer.output]);
                    if let (Some(path), Some(transcript)) = (transcript.take(), answer.transcript) {
                        transcript.write(&path)?;
                    }
                }
                Ok(done)
            }
        }
    }
}

/// Who computes, for what.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) inputs: Inputs,
    /// Nobody, where no image can be read.
    pub(super) with: Option<With>,
    pub(super) calibration: Option<String>,
    pub(super) weights_hidden: Option<f64>,
}

impl Opened {
    /// With a server in another process, hints checked.
    pub(super) fn remote(args: &InferArgs, path: &Path, url: &str) -> anyhow::Result<Self> {
        let passphrase = args.passphrase_file.as_deref().map(bundle::read_passphrase).transpose()?;
        let opened = Client::open_with(path, &Opening { passphrase, pin: args.pin.pin(), ..Opening::default() })?;
        let inputs = Inputs::read(args, opened.outline().graph().input_shape(), opened.outline().preprocess())?;
        let mut http = Http::new(url).ca_cert(args.ca_cert.clone()).insecure(args.insecure);
        http = http.deadline(Duration::from_secs(args.deadline.into()));
        if let Some(path) = &args.token_file {
            http = http.token_file(path)?;
        }
        let client = opened.connect(Box::new(http) as Box<dyn Transport>)?;
        Ok(Self {
            name: bundle::of_path(path, bundle::CLIENT).display().to_string(),
            inputs,
            with: Some(With::Keyed { client: Box::new(client), reference: None }),
            calibration: None,
            weights_hidden: None,
        })
    }

    /// As a guest of a server in another process.
    pub(super) fn guest(args: &InferArgs, wallet: &Path, url: &str) -> anyhow::Result<Self> {
        let key = args.key.as_deref().context("--key is missing")?;
        if let Some(path) = &args.transcript {
            // Before a ticket is used, and never over an older one: it is evidence.
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            anyhow::ensure!(folder.is_dir(), "--transcript {}: there is no such folder", path.display());
            anyhow::ensure!(!path.exists(), "--transcript {}: it is there already: name another file", path.display());
        }
        let identity = GuestIdentity::read(key).map_err(JaliError::from)?;
        let config = ClientConfig {
            url: url.to_owned(),
            ca_cert: args.ca_cert.clone(),
            token: None,
            timeout: Duration::from_secs(args.deadline.into()),
            insecure: args.insecure,
        };
        let kept = if args.transcript.is_some() { Kept::Transcript } else { Kept::Nothing };
        let client = GuestClient::open(wallet, &identity, args.owner.as_ref(), config)?.keeping(kept);
        let network = client.description();
        let inputs = Inputs::read(args, network.network.head.input_shape(), &network.preprocess)?;
        let (left, name) = (inputs.good().len(), wallet.display().to_string());
        client.check_left(u32::try_from(left).unwrap_or(u32::MAX))?;
        let with = With::Guest { client: Box::new(client), left, transcript: args.transcript.clone() };
        Ok(Self { name, inputs, with: Some(with), calibration: None, weights_hidden: None })
    }

    /// With both sides in this process.
    pub(super) fn in_process(args: &InferArgs, path: &Path, backend: Backend) -> anyhow::Result<Self> {
        let graph = read_model_aloud(path)?;
        let preprocess = args.pixels.of_model(path, graph.input_shape())?;
        let inputs = Inputs::read(args, graph.input_shape(), &preprocess)?;
        let name = path.display().to_string();
        let good = inputs.good();
        if good.is_empty() {
            return Ok(Self { name, inputs, with: None, calibration: None, weights_hidden: None });
        }
        let (images, source) = calibration_of(args, good, graph.input_shape(), &preprocess)?;
        let model = calibrate_file(path, graph, args.common.bits, &images, &preprocess)?;
        let costs = args.over.costs(backend);
        let plan = args.leak.plan(&model, &costs)?;
        let Local { model, client, report, .. } = Local::start(model, &plan, &costs, backend)?;
        let transport: Box<dyn Transport> = Box::new(client.transport().clone());
        Ok(Self {
            name,
            inputs,
            calibration: Some(source),
            weights_hidden: Some(hidden_fraction(&report)),
            with: Some(With::Keyed { client: Box::new(client.over(transport)?), reference: Some(Box::new(model)) }),
        })
    }
}

/// What the quantisation is calibrated on, and its name.
fn calibration_of(
    args: &InferArgs,
    good: Vec<Tensor>,
    shape: &[usize],
    preprocess: &Preprocess,
) -> anyhow::Result<(Calibration, String)> {
    if let Some(folder) = &args.calibrate {
        return Ok((calibration_images(folder, shape, preprocess)?, format!("the images of {}", folder.display())));
    }
    note(
        "note: no --calibrate folder, so the given images set the quantisation scales; name a folder of typical images for results that do not depend on what is classified",
    )?;
    Ok((Calibration::Images(good), "the given images themselves".to_string()))
}
