//! Takes a batch of images through the network: masks, checks, unmasks, and runs the non-linear
//! part. It does no input or output: whoever drives it carries requests and answers.

use jali_mask::{PendingRequest, RequestContext, RequestEntropy};
use jali_model::{Execution, ModelError, Step, Tensor};
use jali_ring::Workspace;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::ProtocolError;
use crate::client::{ClientModel, ClientOperator};
use crate::message::{answer_len, decode_answer, decode_refusal, encode_request};
use crate::thread_pool::in_pool;

/// The step that the caller has to take next.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Carry these bytes to the server and pass its answer to [`Inference::receive`].
    Send {
        /// Index of the operator.
        operator: usize,
        /// The request.
        request: Vec<u8>,
    },
    /// The network's outputs, image by image: at least one for each.
    Done(Vec<Vec<Tensor>>),
}

/// Where an inference stands.
enum State<'m> {
    /// Between two operators: `next` goes on.
    Ready,
    /// An answer is outstanding: `receive` takes it, `again` asks once more.
    Waiting(Outstanding<'m>),
    /// A step failed or an answer was rejected: nothing follows.
    Failed,
    /// The outputs were given out: nothing follows.
    Done,
}

impl State<'_> {
    /// Returns words for errors, to follow "the inference".
    fn name(&self) -> &'static str {
        match self {
            Self::Ready => "waits for no answer",
            Self::Waiting(_) => "waits for an answer",
            Self::Failed => "is over: a step failed or an answer was rejected",
            Self::Done => "is over",
        }
    }
}

/// All that is kept until an answer comes.
struct Outstanding<'m> {
    /// Secrets, one for each strip of each image.
    pending: Vec<PendingRequest<'m>>,
    /// Packed inputs `[input][tile][coefficient]`: the strips of the first image, of the second,
    /// ...
    inputs: Vec<Vec<Vec<i64>>>,
}

/// Integer sums of every linear layer, `[image][layer][channel][position]`. They are activations:
/// secret to the client's side.
pub type Trace = Vec<Vec<Vec<i64>>>;

/// A batch of one or many images on its way through the network.
pub struct Inference<'m> {
    client: &'m ClientModel,
    executions: Vec<Execution<'m>>,
    context: RequestContext,
    /// Index of the operator whose turn it is.
    operator: usize,
    state: State<'m>,
    trace: Option<Trace>,
    /// Memory for unmasking, wiped at the end.
    workspace: Zeroizing<Workspace>,
}

impl std::fmt::Debug for Inference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inference(withheld)")
    }
}

impl<'m> Inference<'m> {
    /// Starts an inference of some images. `context` numbers the inference and its first image; the
    /// others are numbered from there.
    ///
    /// # Errors
    /// [`ProtocolError::Model`] if an image does not have the network's input shape,
    /// [`ProtocolError::BatchSize`] without images or for more than [`ClientModel::max_images`].
    pub fn new(client: &'m ClientModel, images: Vec<Tensor>, context: RequestContext) -> Result<Self, ProtocolError> {
        let (most, got) = (client.max_images(), images.len());
        if !(1..=most).contains(&got) {
            return Err(ProtocolError::BatchSize { most, got });
        }
        let start = |image| Execution::new(client.outline.graph(), image);
        Ok(Self {
            client,
            executions: images.into_iter().map(start).collect::<Result<_, _>>()?,
            context,
            operator: 0,
            state: State::Ready,
            trace: None,
            workspace: Zeroizing::default(),
        })
    }

    /// Keeps the integer sums of every linear layer for comparison with the reference.
    pub fn keep_trace(mut self) -> Self {
        self.trace = Some(vec![vec![]; self.executions.len()]);
        self
    }

    /// Returns the sums kept so far, or `None` if they are not kept.
    pub fn into_trace(self) -> Option<Trace> {
        self.trace
    }

    /// Runs on to the next linear layer and masks its inputs, or runs to the end. `entropy` is used
    /// for this request alone.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] while an answer is outstanding, after one was rejected, and after
    /// the end; errors of the network and of masking.
    pub fn next(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        match self.state {
            State::Ready => in_pool(|| self.advance(entropy)),
            _ => Err(self.order("next")),
        }
    }

    fn order(&self, called: &'static str) -> ProtocolError {
        ProtocolError::Order { called, state: self.state.name() }
    }

    fn advance(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        let (client, operator) = (self.client, self.client.operators.get(self.operator));
        let (mut outputs, mut inputs) = (vec![], vec![]);
        // The way through the network does not depend on the image, so all stop at the same node.
        let steps: Vec<_> = self.executions.par_iter_mut().map(|e| client.advance(e, operator)).collect();
        for step in steps {
            match step? {
                Advance::Done(output) => outputs.push(output),
                Advance::Packed(strips) => inputs.extend(strips),
            }
        }
        let Some(operator) = operator.filter(|_| !inputs.is_empty()) else {
            self.state = State::Done;
            return Ok(Action::Done(outputs));
        };
        self.send(operator, inputs, entropy)
    }

    /// Masks the inputs of the outstanding operator once more with fresh secrets, for when the
    /// request or its answer was lost. The old secrets are gone.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] unless an answer is outstanding.
    pub fn again(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        let (operator, Outstanding { inputs, .. }) = self.outstanding("again")?;
        in_pool(|| self.send(operator, inputs, entropy))
    }

    /// Takes what is kept for an answer; the inference counts as failed until somebody sets another
    /// state.
    fn outstanding(&mut self, called: &'static str) -> Result<(&'m ClientOperator, Outstanding<'m>), ProtocolError> {
        match (std::mem::replace(&mut self.state, State::Failed), self.client.operators.get(self.operator)) {
            (State::Waiting(outstanding), Some(operator)) => Ok((operator, outstanding)),
            (state, _) => {
                self.state = state;
                Err(self.order(called))
            }
        }
    }

    fn send(
        &mut self,
        operator: &'m ClientOperator,
        inputs: Vec<Vec<Vec<i64>>>,
        entropy: RequestEntropy,
    ) -> Result<Action, ProtocolError> {
        let (masked, pending): (Vec<_>, Vec<_>) =
            operator.key.mask_batch(&inputs, entropy, self.context)?.into_iter().unzip();
        self.state = State::Waiting(Outstanding { pending, inputs });
        let ring = operator.key.parameters().ring();
        let request = encode_request(self.client.id, self.operator as u32, ring, &masked);
        Ok(Action::Send { operator: self.operator, request })
    }

    /// Returns the bytes that the answer to the outstanding request has at most, so that more need
    /// not be read; 0 if none is outstanding.
    pub fn answer_len(&self) -> usize {
        match (&self.state, self.client.operators.get(self.operator)) {
            (State::Waiting(Outstanding { pending, .. }), Some(operator)) => {
                answer_len(operator.key.parameters().ring(), operator.key.form(), pending.len())
            }
            _ => 0,
        }
    }

    /// Takes the server's answer, whatever its bytes are. The request's secrets are gone
    /// afterwards.
    ///
    /// # Errors
    /// [`ProtocolError::Rejected`] unless the ciphertext check accepts for every image; the
    /// inference cannot go on then. [`ProtocolError::Order`] unless an answer is outstanding.
    pub fn receive(&mut self, answer: &[u8]) -> Result<(), ProtocolError> {
        let (operator, Outstanding { pending, .. }) = self.outstanding("receive")?;
        in_pool(|| self.finish(operator, pending, answer))
    }

    fn finish(
        &mut self,
        operator: &ClientOperator,
        pending: Vec<PendingRequest<'m>>,
        answer: &[u8],
    ) -> Result<(), ProtocolError> {
        let (key, layout, node) = (&operator.key, &operator.layout, operator.node);
        let ring = key.parameters().ring();
        // One path for malformed, missing and wrong answers.
        let decoded = decode_answer(answer, self.operator as u32, ring, key.form(), pending.len());
        let decoded: Vec<Option<_>> = match decoded {
            Some(answers) => answers.into_iter().map(Some).collect(),
            None => pending.iter().map(|_| None).collect(),
        };
        // Every request is used up and its secrets with it, whatever comes out. A refusal is the
        // server's own public word.
        let finished = key.finish_batch(pending.into_iter().zip(decoded).collect(), &self.workspace);
        let values = finished.map_err(|_| ProtocolError::Rejected {
            layer: self.client.outline.graph().nodes()[node].name.clone(),
            refusal: decode_refusal(answer),
        })?;
        let sums: Vec<Vec<i64>> =
            values.par_chunks_exact(layout.strips()).map(|strips| layout.unpack(strips)).collect();
        let scaling = self.client.outline.scaling(node)?;
        let provide = |(execution, sums): (&mut Execution<'m>, &Vec<i64>)| -> Result<(), ModelError> {
            execution.provide(scaling.dequantise(sums))
        };
        self.executions.par_iter_mut().zip(&sums).try_for_each(provide)?;
        if let Some(trace) = &mut self.trace {
            trace.iter_mut().zip(sums).for_each(|(trace, sums)| trace.push(sums));
        }
        self.operator += 1;
        self.state = State::Ready;
        Ok(())
    }
}

/// Where one image stops next.
enum Advance {
    /// A linear layer's input, quantised and packed: strip by strip.
    Packed(Vec<Vec<Vec<i64>>>),
    /// The outputs.
    Done(Vec<Tensor>),
}

impl ClientModel {
    /// Runs one image on to the operator whose turn it is and packs the input, or runs it to the
    /// end.
    fn advance(
        &self,
        execution: &mut Execution<'_>,
        operator: Option<&ClientOperator>,
    ) -> Result<Advance, ProtocolError> {
        match execution.step()? {
            Step::Done(output) => Ok(Advance::Done(output)),
            Step::Linear { node, input } => {
                let layer = || self.outline.graph().nodes()[node].name.clone();
                let operator = operator.filter(|o| o.node == node);
                let operator = operator.ok_or_else(|| ProtocolError::NoOperator { layer: layer() })?;
                let quantised = self.outline.scaling(node)?.quantise(&input.data);
                Ok(Advance::Packed(operator.layout.pack(&quantised)))
            }
        }
    }
}
