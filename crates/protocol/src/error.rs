//! Everything that can go wrong in this crate.

use jali_bundle::BundleError;
use jali_leak::LeakError;
use jali_mask::MaskError;
use jali_model::ModelError;
use jali_operator::OperatorError;
use jali_pack::PackError;
use jali_ring::RingError;

/// Errors of the roles.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// From the ring or a decoder.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// From the masked product.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// From the server's operators.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// From a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// From the network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// From the plan.
    #[error(transparent)]
    Leak(#[from] LeakError),
    /// A layer that cannot be lowered, or for which no secure parameters exist at any degree.
    #[error("layer \"{layer}\": {reason}")]
    Layer {
        /// Its name.
        layer: String,
        /// Why.
        reason: String,
    },
    /// The exact noise bound is too high.
    #[error(
        "the sealed network could give a wrong integer with probability 2^{got:.1} per inference, 2^{limit} is allowed"
    )]
    Noise {
        /// log2 of the bound.
        got: f64,
        /// log2 of what is allowed.
        limit: f64,
    },
    /// The server's answer to a layer failed the ciphertext check, could not be decoded, or was a
    /// refusal.
    #[error("layer \"{layer}\": the server's answer was rejected{}", refusal.map(|r| format!(" (it refused the request: {r})")).unwrap_or_default())]
    Rejected {
        /// Name of the layer.
        layer: String,
        /// What the server said instead of answering.
        refusal: Option<crate::message::Refusal>,
    },
    /// Hints that are not those of the sealed layer.
    #[error("layer \"{layer}\": the hints were rejected by the check")]
    Hints {
        /// Name of the layer.
        layer: String,
    },
    /// From lowering.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// An empty batch, or more images than one inference takes.
    #[error("a batch takes 1 to {most} images, this one has {got}")]
    BatchSize {
        /// Largest number of images.
        most: usize,
        /// Images given.
        got: usize,
    },
    /// The client's bundle and the network in it do not belong together: a linear layer has no
    /// operator.
    #[error("the client's bundle has no operator for the linear layer \"{layer}\"")]
    NoOperator {
        /// Name of the layer.
        layer: String,
    },
    /// There is no operator of this number, or it has its hints.
    #[error("operator {operator} does not wait for hints")]
    NoHintsExpected {
        /// Index of the operator.
        operator: usize,
    },
    /// The hints of some operators are missing.
    #[error("the hints of {missing} operator(s) are missing: fetch them from the server first")]
    HintsMissing {
        /// How many.
        missing: usize,
    },
    /// The caller did not follow the order of `next`, `receive` and `again`.
    #[error("\"{called}\" was called while the inference {state}")]
    Order {
        /// The method.
        called: &'static str,
        /// What the inference does.
        state: &'static str,
    },
}
