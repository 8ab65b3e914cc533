//! Reasons why a node cannot be run, and what helps: each remedy fits its reason.

use super::reading::Reading;
use crate::ModelError;

/// The reason why a node cannot be run, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) remedy: String,
}

const EXPORT: &str = "change the network or how it is exported; docs/bring-your-model.md lists what is supported";
/// Remedy for a node that depends on no input and is not computed here.
pub(super) const FOLD: &str = "let another tool compute the constants of the file: onnxsim, or onnxruntime with \
                               optimized_model_filepath and ORT_ENABLE_BASIC";
/// Remedy for a node that only the end of a network needs.
const CUT: &str =
    "end the network before it (onnx.utils.extract_model names other outputs) and do this step where the images are";

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, remedy: EXPORT.into() }
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        reason.to_string().into()
    }
}

impl From<ModelError> for Refusal {
    fn from(e: ModelError) -> Self {
        match e {
            ModelError::Node { reason, .. } => reason.into(),
            other => other.to_string().into(),
        }
    }
}

impl Refusal {
    pub(super) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }

    /// Refuses a product of two computed values: attention, and anything else that multiplies
    /// activations as matrices.
    pub(super) fn of_two_computed() -> Self {
        Self::new(
            "is a product of two computed tensors (attention)",
            "only products with constants are sealed and computed by the server: use a network without attention, or end it \
             before this node",
        )
    }

    /// Refuses a node in training mode.
    pub(super) fn in_training_mode() -> Self {
        Self::new("is in training mode", "export the network in evaluation mode (model.eval())")
    }
}

/// Refuses an operator that is not read, with reason and remedy for those that people are likely to
/// bring.
pub(super) fn unknown_operator(r: &Reading<'_>) -> Refusal {
    if !matches!(r.node.domain.as_str(), "" | "ai.onnx") {
        return Refusal::new(
            format!("belongs to the operator set \"{}\", not to ONNX itself", r.node.domain),
            "export without fused or custom operators, and inline functions (onnx.inliner)",
        );
    }
    match r.node.op_type.as_str() {
        "QLinearConv"
        | "QLinearMatMul"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "ConvInteger"
        | "MatMulInteger"
        | "DynamicQuantizeLinear" => {
            Refusal::new("is quantised already", "give the float model: jali quantises it itself")
        }
        "LSTM" | "GRU" | "RNN" => Refusal::new(
            "is recurrent: its steps multiply computed states",
            "use a network of convolutions, or end it before this node",
        ),
        "Loop" | "Scan" | "If" => Refusal::new(
            "has a course that depends on data",
            "export by tracing with a fixed size (torch.onnx.export of an example), or let onnxsim remove branches whose \
             condition is constant",
        ),
        "Attention" | "MultiHeadAttention" => Refusal::of_two_computed(),
        "NonMaxSuppression" | "TopK" | "RoiAlign" | "Unique" | "NonZero" | "Compress" | "StringNormalizer" => {
            Refusal::new("gives shapes or places that depend on data", CUT)
        }
        "GridSample" | "AffineGrid" | "DeformConv" => {
            Refusal::new("reads from places that depend on data", "use fixed resizing, or end the network before it")
        }
        "ImageDecoder" | "DFT" | "STFT" | "MelWeightMatrix" => {
            Refusal::new("prepares the input", "prepare images before the network (preprocess.json, .npy files)")
        }
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Multinomial" | "Bernoulli" => {
            Refusal::new("draws random numbers", "export the network in evaluation mode (model.eval())")
        }
        _ => Refusal::new("is not supported", EXPORT),
    }
}
