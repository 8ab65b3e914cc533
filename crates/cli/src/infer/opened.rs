//! Who computes for `jali infer`: a server in this process, or one elsewhere.

use std::path::Path;
use std::time::Duration;

use jali::{
    Backend, BatchAnswer, Client, Graph, Http, JaliError, Opening, Preprocess, QuantModel, Tensor, Transport, bundle,
};

use super::InferArgs;
use super::inputs::Inputs;
use crate::local::{Local, hidden_fraction};
use crate::pixels::{Calibration, calibrate_file, calibration_images, read_model_aloud};
use crate::text::note;

/// A client, and the model to compare with where this process has it.
pub(super) struct With {
    client: Client<Box<dyn Transport>>,
    reference: Option<QuantModel>,
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
    pub(super) fn graph(&self) -> &Graph {
        self.client.outline().graph()
    }

    pub(super) fn retries(&self) -> usize {
        self.client.transport().retries()
    }

    pub(super) fn run(&mut self, images: &[Tensor]) -> Result<Classified, JaliError> {
        let (answer, exact): (BatchAnswer, Vec<Option<bool>>) = match &self.reference {
            Some(model) => {
                let traced = self.client.infer_batch_traced(images)?;
                let exact = traced.are_exact(model, images)?.into_iter().map(Some).collect();
                (traced.answer, exact)
            }
            None => (self.client.infer_batch(images)?, vec![None; images.len()]),
        };
        Ok(Classified { outputs: answer.outputs, latency: answer.latency, exact })
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
            with: Some(With { client, reference: None }),
            calibration: None,
            weights_hidden: None,
        })
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
            with: Some(With { client: client.over(transport)?, reference: Some(model) }),
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
