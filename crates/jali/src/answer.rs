//! Results of an inference: outputs, times and bytes, and, if asked for, the integers to compare.

use std::time::Duration;

use jali_model::{QuantModel, Tensor, integer};
use jali_protocol::ProtocolError;

use crate::JaliError;

/// Times and bytes that one operator took for one batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorRun {
    /// Time for masking (with the non-linear layers before it), checking and unmasking.
    pub client: Duration,
    /// Time from the request's bytes to the answer's bytes.
    pub server: Duration,
    /// Length of the request in bytes.
    pub bytes_up: usize,
    /// Length of the answer in bytes.
    pub bytes_down: usize,
}

/// One image's inference.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The network's outputs, at least one.
    pub outputs: Vec<Tensor>,
    /// Time from the image to the outputs.
    pub latency: Duration,
    /// Operator by operator.
    pub operators: Vec<OperatorRun>,
}

impl Answer {
    /// Returns the network's first output.
    pub fn output(&self) -> &Tensor {
        &self.outputs[0]
    }
}

/// A batch's inference.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchAnswer {
    /// The network's outputs, image by image, at least one for each.
    pub outputs: Vec<Vec<Tensor>>,
    /// Time from the images to the outputs.
    pub latency: Duration,
    /// Operator by operator, for the whole batch.
    pub operators: Vec<OperatorRun>,
}

impl BatchAnswer {
    /// Returns the answer of a batch of one image.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] for another number of images.
    pub fn into_single(self) -> Result<Answer, JaliError> {
        let Self { mut outputs, latency, operators } = self;
        match (outputs.pop(), outputs.len()) {
            (Some(outputs), 0) => Ok(Answer { outputs, latency, operators }),
            (last, more) => {
                let got = more + usize::from(last.is_some());
                Err(ProtocolError::BatchSize { most: 1, got }.into())
            }
        }
    }
}

/// An answer with the integers of every linear layer. They are activations: they say more about the
/// image than the outputs do, and are not printed.
#[derive(Clone, PartialEq)]
pub struct Traced<A> {
    /// The answer itself.
    pub answer: A,
    /// `[image][layer]`.
    pub(crate) trace: Vec<Vec<Vec<i64>>>,
}

impl<A: std::fmt::Debug> std::fmt::Debug for Traced<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traced").field("answer", &self.answer).finish_non_exhaustive()
    }
}

impl Traced<Answer> {
    /// Returns whether every linear layer's integers and the outputs equal the integer reference's,
    /// compared value by value.
    ///
    /// # Errors
    /// [`JaliError::Model`] if the reference cannot run.
    pub fn is_exact(&self, model: &QuantModel, image: &Tensor) -> Result<bool, JaliError> {
        equals_reference(model, image, &self.answer.outputs, self.trace.first())
    }
}

impl Traced<BatchAnswer> {
    /// Returns for each image whether every linear layer's integers and the outputs equal the
    /// integer reference's, compared value by value.
    ///
    /// # Errors
    /// [`JaliError::Model`] if the reference cannot run.
    pub fn are_exact(&self, model: &QuantModel, images: &[Tensor]) -> Result<Vec<bool>, JaliError> {
        let runs = images.iter().zip(&self.answer.outputs).zip(&self.trace);
        runs.map(|((image, outputs), trace)| equals_reference(model, image, outputs, Some(trace))).collect()
    }
}

fn equals_reference(
    model: &QuantModel,
    image: &Tensor,
    outputs: &[Tensor],
    trace: Option<&Vec<Vec<i64>>>,
) -> Result<bool, JaliError> {
    let reference = integer::run(model, image.clone())?;
    let wanted = [std::slice::from_ref(&reference.output), &reference.more_outputs].concat();
    Ok(trace == Some(&reference.accumulators) && outputs == wanted)
}
