//! The client: holds the keys, sees activations and results, and can recover the model. It belongs to the owner's
//! trust domain.

use std::collections::VecDeque;

use jali_leak::Origin;
use jali_mask::{AnswerKind, LayerKey, Masked, PendingRequest, Prepared, RequestContext, RequestEntropy};
use jali_model::{Execution, ModelError, Outline, Step, Tensor};
use jali_pack::{Columns, Layout};
use jali_ring::Workspace;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::ProtocolError;
use crate::awake::in_pool;
use crate::message::{MAX_IMAGES, answer_len, decode_answer, decode_refusal, encode_request};

/// One operator as the client knows it: a linear layer, or the part of one that takes some of its columns.
#[derive(Debug)]
pub struct ClientLayer {
    /// Index of the node in the graph. Parts of a node follow one another.
    pub node: usize,
    /// Which of the node's input channels it takes.
    pub columns: Columns,
    /// Where things stand in ring elements.
    pub layout: Layout,
    /// Keys, hints, check vectors.
    pub key: LayerKey,
}

/// All that a client holds for one sealed network.
pub struct ClientModel {
    pub(crate) id: [u8; 16],
    pub(crate) outline: Outline,
    pub(crate) layers: Vec<ClientLayer>,
    pub(crate) origin: Option<Origin>,
}

impl std::fmt::Debug for ClientModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientModel(withheld)")
    }
}

impl ClientModel {
    /// Where the plan comes from, to be kept in the bundle.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// The quantised network without its weights.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Public id of the sealed model.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Asks for answers of these kinds from now on, one for each operator.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] for another number of kinds; [`ProtocolError::Mask`] where hints would be needed again that were given up. Nothing changes then.
    pub fn ask_for(&mut self, kinds: &[AnswerKind]) -> Result<(), ProtocolError> {
        if kinds.len() != self.layers.len() {
            return Err(ProtocolError::Order("a kind of answer for every operator"));
        }
        // All or none: hints that are given up do not come back.
        self.layers.iter().zip(kinds).try_for_each(|(layer, kind)| layer.key.may_ask_for(*kind))?;
        self.layers.iter_mut().zip(kinds).try_for_each(|(layer, kind)| Ok(layer.key.ask_for(*kind)?))
    }

    /// The operators in order.
    pub fn layers(&self) -> &[ClientLayer] {
        &self.layers
    }

    /// Most images of one inference: each of their strips is an input of a request.
    pub fn max_images(&self) -> usize {
        MAX_IMAGES / self.layers.iter().map(|l| l.layout.strips()).max().unwrap_or(1)
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
        /// Index of the operator.
        layer: usize,
        /// The request.
        request: Vec<u8>,
    },
    /// The network's outputs, image by image: at least one for each.
    Done(Vec<Vec<Tensor>>),
}

/// Secrets for one image's way through the network, drawn before the image is known. Used once: consumed with the image.
pub struct PreparedImage {
    /// Layer by layer, one for each strip.
    layers: VecDeque<Vec<Prepared>>,
}

impl std::fmt::Debug for PreparedImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PreparedImage(withheld)")
    }
}

/// A batch of images on its way through the network, one or many.
pub struct Inference<'m> {
    client: &'m ClientModel,
    executions: Vec<Execution<'m>>,
    context: RequestContext,
    layer: usize,
    pending: Vec<PendingRequest<'m>>,
    /// Quantised inputs of the linear node that is being computed, image by image.
    values: Vec<Vec<i32>>,
    /// What its operators have given so far, image by image.
    sums: Vec<Vec<i64>>,
    /// Packed inputs of the operator whose answer is outstanding: the strips of the first image, of the second, ...
    inputs: Vec<Vec<Vec<i64>>>,
    /// Whether an answer was rejected: nothing follows then.
    rejected: bool,
    /// One for every image, or none.
    prepared: Vec<PreparedImage>,
    trace: Option<Vec<Vec<Vec<i64>>>>,
    /// Memory for unmasking, wiped at the end.
    workspace: Zeroizing<Workspace>,
}

impl std::fmt::Debug for Inference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inference(withheld)")
    }
}

impl<'m> Inference<'m> {
    /// Starts with images. `context` numbers the inference and the first image; the others follow.
    ///
    /// # Errors
    /// [`ProtocolError::Model`] if an image does not have the network's input shape, [`ProtocolError::Order`] without
    /// images or for more than [`ClientModel::max_images`].
    pub fn new(client: &'m ClientModel, images: Vec<Tensor>, context: RequestContext) -> Result<Self, ProtocolError> {
        if images.is_empty() || images.len() > client.max_images() {
            return Err(ProtocolError::Order("a batch of this size"));
        }
        let start = |image| Execution::new(client.outline.graph(), image);
        let executions = images.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self {
            client,
            executions,
            context,
            layer: 0,
            pending: vec![],
            values: vec![],
            sums: vec![],
            inputs: vec![],
            rejected: false,
            prepared: vec![],
            trace: None,
            workspace: Zeroizing::default(),
        })
    }

    /// Masks with secrets drawn earlier, one set for every image.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] if their number is not that of the images.
    pub fn with_prepared(mut self, prepared: Vec<PreparedImage>) -> Result<Self, ProtocolError> {
        if prepared.len() != self.executions.len() {
            return Err(ProtocolError::Order("prepared secrets for so many images"));
        }
        self.prepared = prepared;
        Ok(self)
    }

    /// Keeps the integer sums of every linear layer for comparison with the reference. They are activations: secret
    /// to the client's side.
    pub fn keep_trace(mut self) -> Self {
        self.trace = Some(vec![vec![]; self.executions.len()]);
        self
    }

    /// The sums kept so far, `[image][layer][channel][position]`.
    pub fn into_trace(self) -> Option<Vec<Vec<Vec<i64>>>> {
        self.trace
    }

    /// Runs on to the next linear layer and masks its inputs, or to the end. `entropy` is used for this request alone.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] while an answer is outstanding.
    pub fn next(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        if !self.pending.is_empty() {
            return Err(ProtocolError::Order("a new step: an answer is outstanding"));
        }
        if self.rejected {
            return Err(ProtocolError::Order("a new step: an answer was rejected"));
        }
        in_pool(|| self.advance(entropy))
    }

    fn advance(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        if self.values.is_empty() {
            // Where the network goes does not depend on the image: all stop at the same node.
            let layer = self.client.layers.get(self.layer);
            let mut outputs = vec![];
            let steps: Vec<_> = self.executions.par_iter_mut().map(|e| self.client.advance(e, layer)).collect();
            let mut values = vec![];
            for step in steps {
                match step? {
                    Advance::Done(output) => outputs.push(output),
                    Advance::Linear(x) => values.push(x),
                }
            }
            if values.is_empty() {
                return Ok(Action::Done(outputs));
            }
            self.values = values;
        }
        let layer = self.client.layers.get(self.layer).ok_or(ProtocolError::Order("this layer"))?;
        let pack = |x: &Vec<i32>| layer.layout.pack(&layer.columns.inputs(x));
        self.inputs = self.values.par_iter().flat_map_iter(pack).collect();
        let prepared = !self.prepared.is_empty();
        self.send(entropy, prepared)
    }

    /// Masks the inputs of the outstanding layer once more, with fresh secrets: for when the request or its answer was lost. The
    /// old secrets are gone.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] unless an answer is outstanding.
    pub fn again(&mut self, entropy: RequestEntropy) -> Result<Action, ProtocolError> {
        if self.pending.is_empty() {
            return Err(ProtocolError::Order("an answer"));
        }
        self.pending.clear();
        in_pool(|| self.send(entropy, false))
    }

    fn send(&mut self, entropy: RequestEntropy, prepared: bool) -> Result<Action, ProtocolError> {
        let layer = self.client.layers.get(self.layer).ok_or(ProtocolError::Order("this layer"))?;
        let (mut masked, mut pending) = (vec![], vec![]);
        let requests = if !prepared {
            layer.key.mask_batch(&self.inputs, entropy, self.context)?
        } else {
            let mut secrets = Vec::with_capacity(self.inputs.len());
            for prepared in &mut self.prepared {
                let strips = prepared.layers.pop_front().filter(|p| p.len() == layer.layout.strips());
                secrets.extend(strips.ok_or(ProtocolError::Order("prepared secrets"))?);
            }
            let mask = |(x, prepared): (&Vec<Vec<i64>>, Prepared)| -> Result<Masked<'m>, ProtocolError> {
                Ok(layer.key.mask_prepared(x, prepared)?)
            };
            self.inputs.par_iter().zip(secrets).map(mask).collect::<Result<_, _>>()?
        };
        for (x, request) in requests {
            masked.push(x);
            pending.push(request);
        }
        self.pending = pending;
        let ring = layer.key.parameters().ring();
        let asked = (self.layer as u32, layer.key.form().kind());
        let request = encode_request(self.client.id, asked, ring, &masked);
        Ok(Action::Send { layer: self.layer, request })
    }

    /// Bytes that the answer to the outstanding request has at most: more need not be read.
    pub fn answer_len(&self) -> usize {
        let layer = self.client.layers.get(self.layer).filter(|_| !self.pending.is_empty());
        layer.map_or(0, |l| answer_len(l.key.parameters().ring(), l.key.form(), self.pending.len()))
    }

    /// Takes the server's answer, whatever it is. The request's secrets are gone afterwards.
    ///
    /// # Errors
    /// [`ProtocolError::Rejected`] unless the ciphertext check accepts for every image; the inference cannot go on then.
    pub fn receive(&mut self, answer: &[u8]) -> Result<(), ProtocolError> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Err(ProtocolError::Order("an answer"));
        }
        in_pool(|| self.finish(pending, answer))
    }

    fn finish(&mut self, pending: Vec<PendingRequest<'m>>, answer: &[u8]) -> Result<(), ProtocolError> {
        let layer = &self.client.layers[self.layer];
        let (key, node) = (&layer.key, layer.node);
        let (ring, images) = (key.parameters().ring(), pending.len());
        // One path for malformed, missing and wrong answers.
        let (decoded, second): (Vec<Option<_>>, _) =
            match decode_answer(answer, self.layer as u32, ring, key.form(), images) {
                Some((answers, second)) => (answers.into_iter().map(Some).collect(), second),
                None => (pending.iter().map(|_| None).collect(), None),
            };
        // Every request is used up, and with it its secrets, whatever comes out.
        let batch = pending.into_iter().zip(decoded).collect();
        let finished = key.finish_batch(batch, second, &self.workspace);
        self.rejected = finished.is_err();
        // The refusal is the server's own public word.
        let values = finished.map_err(|_| ProtocolError::Rejected {
            layer: self.client.outline.graph().nodes()[node].name.clone(),
            refusal: decode_refusal(answer),
        })?;
        let unpacked = values.par_chunks_exact(layer.layout.strips()).map(|values| layer.layout.unpack(values));
        let parts: Vec<Vec<i64>> = unpacked.collect();
        match self.sums.is_empty() {
            true => self.sums = parts,
            false => self.sums.iter_mut().zip(parts).for_each(|(sums, part)| {
                sums.iter_mut().zip(part).for_each(|(sum, more)| *sum += more);
            }),
        }
        self.inputs.clear();
        self.layer += 1;
        if self.client.layers.get(self.layer).is_some_and(|next| next.node == node) {
            return Ok(());
        }
        self.values.clear();
        let (scaling, sums) = (self.client.outline.scaling(node)?, std::mem::take(&mut self.sums));
        let provide = |(execution, sums): (&mut Execution<'m>, &Vec<i64>)| -> Result<(), ModelError> {
            execution.provide(scaling.dequantise(sums))
        };
        self.executions.par_iter_mut().zip(&sums).try_for_each(provide)?;
        if let Some(trace) = &mut self.trace {
            trace.iter_mut().zip(sums).for_each(|(trace, sums)| trace.push(sums));
        }
        Ok(())
    }
}

impl ClientModel {
    /// Draws the secrets for one image ahead of it. `entropy` is used up.
    ///
    /// # Errors
    /// [`ProtocolError::Mask`] never in practice.
    pub fn prepare(&self, entropy: RequestEntropy, context: RequestContext) -> Result<PreparedImage, ProtocolError> {
        let keys: Vec<_> = self.layers.iter().map(|l| (&l.key, l.layout.strips())).collect();
        Ok(PreparedImage { layers: in_pool(|| LayerKey::prepare_all(&keys, entropy, context))?.into() })
    }
}

/// One image's next stop.
enum Advance {
    /// A linear layer's input, quantised.
    Linear(Vec<i32>),
    /// The outputs.
    Done(Vec<Tensor>),
}

impl ClientModel {
    /// Runs one image on to `layer` and quantises its input, or to the end.
    fn advance(&self, execution: &mut Execution<'_>, layer: Option<&ClientLayer>) -> Result<Advance, ProtocolError> {
        match execution.step()? {
            Step::Done(output) => Ok(Advance::Done(output)),
            Step::Linear { node, input } => {
                let layer = layer.filter(|l| l.node == node).ok_or(ProtocolError::Order("this layer"))?;
                Ok(Advance::Linear(self.outline.scaling(layer.node)?.quantise(&input.data)))
            }
        }
    }
}
