//! The client: holds the keys, sees activations and results, and can recover the model. It belongs to the owner's
//! trust domain.

use jali_mask::{LayerKey, PendingRequest, RequestContext, RequestEntropy};
use jali_model::{Execution, QuantModel, Step, Tensor};
use jali_pack::Layout;

use crate::ProtocolError;
use crate::message::{decode_answer, decode_refusal, encode_request};

/// One linear layer as the client knows it.
#[derive(Debug)]
pub struct ClientLayer {
    /// Index of the node in the graph.
    pub node: usize,
    /// Where things stand in ring elements.
    pub layout: Layout,
    /// Keys, hints, check vectors.
    pub key: LayerKey,
}

/// All that a client holds for one sealed network.
pub struct ClientModel {
    pub(crate) id: [u8; 16],
    pub(crate) model: QuantModel,
    pub(crate) layers: Vec<ClientLayer>,
}

impl std::fmt::Debug for ClientModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientModel(withheld)")
    }
}

impl ClientModel {
    /// The quantised network.
    pub fn model(&self) -> &QuantModel {
        &self.model
    }

    /// The linear layers in order.
    pub fn layers(&self) -> &[ClientLayer] {
        &self.layers
    }

    /// Bytes of all hints.
    pub fn hint_bytes(&self) -> usize {
        self.layers.iter().map(|l| l.key.hint_bytes()).sum()
    }
}

/// What the caller has to do next.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Carry these bytes to the server and pass its answer to [`Inference::receive`].
    Send {
        /// Index of the linear layer.
        layer: usize,
        /// The request.
        request: Vec<u8>,
    },
    /// The network's output.
    Done(Tensor),
}

/// One image on its way through the network.
pub struct Inference<'m> {
    client: &'m ClientModel,
    execution: Execution<'m>,
    context: RequestContext,
    layer: usize,
    pending: Option<PendingRequest<'m>>,
    trace: Option<Vec<Vec<i64>>>,
}

impl std::fmt::Debug for Inference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inference(withheld)")
    }
}

impl<'m> Inference<'m> {
    /// Starts with an image. `context` numbers the inference and the image within its batch.
    ///
    /// # Errors
    /// [`ProtocolError::Model`] if the image does not have the network's input shape.
    pub fn new(client: &'m ClientModel, image: Tensor, context: RequestContext) -> Result<Self, ProtocolError> {
        let execution = Execution::new(client.model.graph(), image)?;
        Ok(Self { client, execution, context, layer: 0, pending: None, trace: None })
    }

    /// Keeps the integer sums of every linear layer for comparison with the reference. They are activations: secret
    /// to the client's side.
    pub fn keep_trace(mut self) -> Self {
        self.trace = Some(vec![]);
        self
    }

    /// The sums kept so far, `[layer][channel][position]`.
    pub fn into_trace(self) -> Option<Vec<Vec<i64>>> {
        self.trace
    }

    /// Runs on to the next linear layer and masks its input, or to the end. `entropy` is used for this request alone.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] while an answer is outstanding.
    pub fn next(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        if self.pending.is_some() {
            return Err(ProtocolError::Order("a new step: an answer is outstanding"));
        }
        let (node, input) = match self.execution.step()? {
            Step::Done(output) => return Ok(Action::Done(output)),
            Step::Linear { node, input } => (node, input),
        };
        let layer =
            self.client.layers.get(self.layer).filter(|l| l.node == node).ok_or(ProtocolError::Order("this layer"))?;
        let x = self.client.model.layer(node)?.quantise(&input.data);
        let (masked, pending) = layer.key.mask(&layer.layout.pack(&x), entropy, self.context)?;
        self.pending = Some(pending);
        let ring = layer.key.parameters().ring();
        let request = encode_request(self.client.id, self.layer as u32, ring, &masked);
        Ok(Action::Send { layer: self.layer, request })
    }

    /// Takes the server's answer, whatever it is. The request's secrets are gone afterwards.
    ///
    /// # Errors
    /// [`ProtocolError::Rejected`] unless the ciphertext check accepts; the inference cannot go on then.
    pub fn receive(&mut self, answer: &[u8]) -> Result<(), ProtocolError> {
        let pending = self.pending.take().ok_or(ProtocolError::Order("an answer"))?;
        let layer = &self.client.layers[self.layer];
        let (key, node) = (&layer.key, layer.node);
        let decoded = decode_answer(answer, self.layer as u32, key.parameters().ring(), key.wanted(), key.rows());
        // One path for malformed, missing and wrong answers. The refusal is the server's own public word.
        let values = pending.finish(decoded).map_err(|_| ProtocolError::Rejected {
            layer: self.client.model.graph().nodes()[node].name.clone(),
            refusal: decode_refusal(answer),
        })?;
        let sums = layer.layout.unpack(values);
        self.execution.provide(self.client.model.layer(node)?.dequantise(&sums))?;
        if let Some(trace) = &mut self.trace {
            trace.push(sums);
        }
        self.layer += 1;
        Ok(())
    }
}
