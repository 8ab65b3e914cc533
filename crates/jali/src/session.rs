//! Client and server in one process. They share no state: every word between them is encoded to bytes and decoded
//! again, and the server is loaded from the sealed bytes.

use std::io::{BufReader, BufWriter, Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jali_leak::Plan;
use jali_mask::{AnswerKind, RequestContext, RequestEntropy, SealEntropy};
use jali_model::{QuantModel, Tensor, integer};
use jali_operator::OperatorError;
use jali_pack::Costs;
use jali_protocol::awake::in_pool;
use jali_protocol::{Action, ClientModel, Inference, LayerReport, PreparedImage, ProtocolError, SealedTo, Server};
use jali_ring::Kernel;

use crate::{JaliError, memory};

/// A sealed network with both sides at hand.
pub struct Session {
    model: QuantModel,
    client: ClientModel,
    server: Arc<Server>,
    report: Vec<LayerReport>,
    sealed_bytes: usize,
    counter: u64,
    prepared: Vec<PreparedImage>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(withheld)")
    }
}

/// What one linear layer took for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerRun {
    /// Masking (with the non-linear layers in front), checking and unmasking.
    pub client: Duration,
    /// From the request's bytes to the answer's bytes.
    pub server: Duration,
    /// Length of the request.
    pub bytes_up: usize,
    /// Length of the answer.
    pub bytes_down: usize,
}

/// A batch's inference.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRun {
    /// The network's first output, image by image.
    pub outputs: Vec<Tensor>,
    /// Its other outputs, image by image.
    pub more_outputs: Vec<Vec<Tensor>>,
    /// From the images to the outputs.
    pub latency: Duration,
    /// Layer by layer, for the whole batch.
    pub layers: Vec<LayerRun>,
    /// The integer sums, `[image][layer]`.
    pub traces: Vec<Vec<Vec<i64>>>,
}

impl BatchRun {
    /// Whether every linear layer's sums and the output of each image equal the integer reference's, compared value by value.
    ///
    /// # Errors
    /// [`JaliError::Model`] if the reference cannot run.
    pub fn are_exact(&self, model: &QuantModel, images: &[Tensor]) -> Result<Vec<bool>, JaliError> {
        let runs = images.iter().zip(self.outputs.iter().zip(&self.more_outputs)).zip(&self.traces);
        runs.map(|((image, outputs), trace)| equals_reference(model, image.clone(), outputs, trace)).collect()
    }

    /// Of a batch of one image.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] for a batch without images.
    pub fn into_single(self) -> Result<ImageRun, JaliError> {
        let Self { outputs, more_outputs, latency, layers, traces } = self;
        let (output, more, trace) =
            (outputs.into_iter().next(), more_outputs.into_iter().next(), traces.into_iter().next());
        let output = output.ok_or(ProtocolError::Order("an answer"))?;
        let (more_outputs, trace) = (more.unwrap_or_default(), trace.unwrap_or_default());
        Ok(ImageRun { output, more_outputs, latency, layers, trace })
    }
}

/// One image's inference.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRun {
    /// The network's first output.
    pub output: Tensor,
    /// Its other outputs.
    pub more_outputs: Vec<Tensor>,
    /// From the image to the output.
    pub latency: Duration,
    /// Layer by layer.
    pub layers: Vec<LayerRun>,
    /// The integer sums of every linear layer.
    pub trace: Vec<Vec<i64>>,
}

impl ImageRun {
    /// Whether every linear layer's sums and the output equal the integer reference's, compared value by value.
    ///
    /// # Errors
    /// [`JaliError::Model`] if the reference cannot run.
    pub fn is_exact(&self, model: &QuantModel, image: Tensor) -> Result<bool, JaliError> {
        equals_reference(model, image, (&self.output, &self.more_outputs), &self.trace)
    }
}

impl Session {
    /// Seals a network with randomness from the operating system and starts both sides. Rings and layouts are chosen by the
    /// built-in costs. `progress` hears of every layer sealed.
    ///
    /// # Errors
    /// [`JaliError::Protocol`]; [`JaliError::Memory`] before anything is sealed.
    pub fn start(
        model: QuantModel,
        plan: &Plan,
        kernel: Kernel,
        progress: impl FnMut(usize),
    ) -> Result<Self, JaliError> {
        Self::start_with(model, plan, &Costs::default(), kernel, progress)
    }

    /// As [`Session::start`], with costs of one's own: see [`crate::calibration`].
    ///
    /// # Errors
    /// [`JaliError::Protocol`]; [`JaliError::Memory`] before anything is sealed.
    pub fn start_with(
        model: QuantModel,
        plan: &Plan,
        costs: &Costs,
        kernel: Kernel,
        progress: impl FnMut(usize),
    ) -> Result<Self, JaliError> {
        memory::check(&model, plan, costs, |needs| needs.process)?;
        let entropy = SealEntropy::from_os().map_err(ProtocolError::from)?;
        let layers = jali_protocol::forecast(&model, plan, costs)?;
        let sealed_bytes: usize = layers.iter().map(|l| l.bytes).sum();
        let what = (&model, plan, costs);
        let Made { server, client, report, sealed_bytes } = match sealed_bytes <= memory::IN_MEMORY {
            true => in_memory(what, &entropy, kernel, progress)?,
            false => through_a_file(what, &entropy, kernel, progress)?,
        };
        Ok(Self { model, client, server: Arc::new(server), report, sealed_bytes, counter: 0, prepared: vec![] })
    }

    /// The quantised network.
    pub fn model(&self) -> &QuantModel {
        &self.model
    }

    /// What sealing did, layer by layer.
    pub fn report(&self) -> &[LayerReport] {
        &self.report
    }

    /// Bytes of memory that the server's matrices take.
    pub fn server_memory(&self) -> usize {
        self.server.model().memory()
    }

    /// Length of all that the server got.
    pub fn sealed_bytes(&self) -> usize {
        self.sealed_bytes
    }

    /// Bytes of the client's hints.
    pub fn hint_bytes(&self) -> usize {
        self.client.hint_bytes()
    }

    /// Asks for answers of these kinds from now on, one for each operator of the report. Results do not depend on it.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] for another number of kinds, or where hints would be needed again that were given up for a second component.
    pub fn ask_for(&mut self, kinds: &[AnswerKind]) -> Result<(), JaliError> {
        Ok(self.client.ask_for(kinds)?)
    }

    /// Draws the secrets of the next `images` images ahead, so that they have less to wait for. They are bound to no input then:
    /// SECURITY.md says what that costs.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] if the operating system has no randomness.
    pub fn prepare(&mut self, images: usize) -> Result<(), JaliError> {
        for _ in 0..images {
            let context = RequestContext { counter: self.counter, image: 0 };
            self.counter += 1;
            let entropy = RequestEntropy::from_os().map_err(ProtocolError::from)?;
            let prepared = self.client.prepare(entropy, context)?;
            self.prepared.push(prepared);
        }
        Ok(())
    }

    /// Classifies one image.
    ///
    /// # Errors
    /// [`JaliError::Protocol`], in particular if the ciphertext check rejects an answer.
    pub fn infer(&mut self, image: Tensor) -> Result<ImageRun, JaliError> {
        self.infer_batch(vec![image])?.into_single()
    }

    /// Classifies a batch of images together: the server reads its matrices once for every 16 of them.
    ///
    /// # Errors
    /// As [`Session::infer`]; also for an empty batch or one of more than 4096 images.
    pub fn infer_batch(&mut self, images: Vec<Tensor>) -> Result<BatchRun, JaliError> {
        let server = self.server();
        // Once for all layers of both sides.
        in_pool(|| self.infer_through(images, |_, request| Ok(server.handle(request))))
    }

    /// As [`Session::infer_batch`], with requests and answers carried by `carry`, which also gets the layer's index; a layer's
    /// server time is then all that it takes.
    ///
    /// # Errors
    /// As [`Session::infer_batch`], and [`JaliError::Carry`] for what `carry` returns.
    pub fn infer_through(
        &mut self,
        images: Vec<Tensor>,
        mut carry: impl FnMut(usize, &[u8]) -> std::io::Result<Vec<u8>>,
    ) -> Result<BatchRun, JaliError> {
        let count = images.len();
        // Taken out before they serve, whatever happens next.
        let prepared = match self.prepared.len() >= count {
            true => self.prepared.split_off(self.prepared.len() - count),
            false => vec![],
        };
        let counter = self.counter;
        self.counter += 1;
        drive(&self.client, images, counter, prepared, |Request { layer, bytes, .. }| {
            Ok(Carried::Answer(carry(layer, bytes).map_err(JaliError::Carry)?))
        })
    }

    /// The server's side, for carrying messages to it by other means.
    pub fn server(&self) -> Arc<Server> {
        self.server.clone()
    }
}

/// Both sides of a network that was sealed.
struct Made {
    server: Server,
    client: ClientModel,
    report: Vec<LayerReport>,
    sealed_bytes: usize,
}

type What<'a> = (&'a QuantModel, &'a Plan, &'a Costs);

// We make the bundle: its size is as large as the owner wants it.
const ANY_SIZE: usize = usize::MAX;

fn in_memory(
    (model, plan, costs): What<'_>,
    entropy: &SealEntropy,
    kernel: Kernel,
    progress: impl FnMut(usize),
) -> Result<Made, JaliError> {
    let SealedTo { sink, client, report, .. } =
        jali_protocol::seal_into(model, plan, costs, entropy, vec![], progress)?;
    let server = Server::load(&sink, kernel, ANY_SIZE).map_err(ProtocolError::from)?;
    Ok(Made { server, client, report, sealed_bytes: sink.len() })
}

fn through_a_file(
    (model, plan, costs): What<'_>,
    entropy: &SealEntropy,
    kernel: Kernel,
    progress: impl FnMut(usize),
) -> Result<Made, JaliError> {
    let fail = |why: String| JaliError::Write { path: std::env::temp_dir(), why };
    // It has no name: nothing is left behind. Nothing in it is secret.
    let file = tempfile::tempfile().map_err(|e| fail(e.to_string()))?;
    let sealed = jali_protocol::seal_into(model, plan, costs, entropy, BufWriter::new(file), progress);
    let SealedTo { sink, client, report, .. } = sealed.map_err(|e| match e {
        ProtocolError::Operator(OperatorError::Io(why)) => fail(why),
        other => other.into(),
    })?;
    let mut file = sink.into_inner().map_err(|e| fail(e.to_string()))?;
    let length = file.seek(SeekFrom::End(0)).map_err(|e| fail(e.to_string()))?;
    file.rewind().map_err(|e| fail(e.to_string()))?;
    let server = Server::read(BufReader::new(file), kernel, ANY_SIZE).map_err(ProtocolError::from)?;
    Ok(Made { server, client, report, sealed_bytes: length as usize })
}

/// Whether sums and output are those of the integer reference.
fn equals_reference(
    model: &QuantModel,
    image: Tensor,
    (output, more): (&Tensor, &Vec<Tensor>),
    trace: &[Vec<i64>],
) -> Result<bool, JaliError> {
    let reference = integer::run(model, image)?;
    Ok(trace == reference.accumulators && *output == reference.output && *more == reference.more_outputs)
}

/// A request on its way.
pub(crate) struct Request<'r> {
    /// Index of the operator.
    pub(crate) layer: usize,
    pub(crate) bytes: &'r [u8],
    /// Bytes that its answer has at most.
    pub(crate) most: usize,
}

/// What became of a request.
pub(crate) enum Carried {
    /// The server's answer.
    Answer(Vec<u8>),
    /// Nothing came back: the request has to be made anew.
    Lost,
}

/// Takes a batch through the network, with requests and answers carried by `carry`.
pub(crate) fn drive(
    client: &ClientModel,
    images: Vec<Tensor>,
    counter: u64,
    prepared: Vec<PreparedImage>,
    mut carry: impl FnMut(Request<'_>) -> Result<Carried, JaliError>,
) -> Result<BatchRun, JaliError> {
    let context = RequestContext { counter, image: 0 };
    let start = Instant::now();
    let mut layers = vec![];
    let mut inference = Inference::new(client, images, context)?.keep_trace();
    if !prepared.is_empty() {
        inference = inference.with_prepared(prepared)?;
    }
    let entropy = || RequestEntropy::from_os().map_err(ProtocolError::from);
    loop {
        let began = Instant::now();
        let mut action = inference.next(entropy()?)?;
        loop {
            let (layer, request) = match action {
                Action::Send { layer, request } => (layer, request),
                Action::Done(outputs) => {
                    let latency = start.elapsed();
                    let traces = inference.into_trace().unwrap_or_default();
                    let mut more_outputs = outputs;
                    let outputs = more_outputs.iter_mut().map(|o| o.remove(0)).collect();
                    return Ok(BatchRun { outputs, more_outputs, latency, layers, traces });
                }
            };
            let sent = Instant::now();
            let Carried::Answer(answer) = carry(Request { layer, bytes: &request, most: inference.answer_len() })?
            else {
                action = inference.again(entropy()?)?;
                continue;
            };
            let answered = Instant::now();
            inference.receive(&answer)?;
            let client = (sent - began) + answered.elapsed();
            let (bytes_up, bytes_down) = (request.len(), answer.len());
            layers.push(LayerRun { client, server: answered - sent, bytes_up, bytes_down });
            break;
        }
    }
}
