//! The part of a quantised network that a client needs: shapes, non-linear nodes and scales, but no
//! weight.

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, ValueId};
use crate::op::{Conv, Gemm, Op};
use crate::preprocess::Preprocess;
use crate::quant::{QuantConfig, QuantModel, Scaling};
use crate::{ModelError, Tensor};

/// A quantised network without its weights: its linear nodes keep their shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    graph: Graph,
    config: QuantConfig,
    preprocess: Preprocess,
    scalings: Vec<Option<Scaling>>,
}

/// The form in which it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    weight_bits: u32,
    activation_bits: u32,
    input: Vec<usize>,
    outputs: Vec<ValueId>,
    output_names: Vec<String>,
    preprocess: Preprocess,
    nodes: Vec<(String, Op, Vec<ValueId>, Option<Scaling>)>,
}

impl Outline {
    /// Returns the graph; weights and biases of its linear nodes are empty.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the sizes of weights and activations.
    pub fn config(&self) -> QuantConfig {
        self.config
    }

    /// Returns how images become the network's inputs.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Returns how a linear node's input and output are scaled.
    ///
    /// # Errors
    /// [`ModelError::Node`] if it is not linear.
    pub fn scaling(&self, node: usize) -> Result<&Scaling, ModelError> {
        self.scalings.get(node).and_then(Option::as_ref).ok_or_else(|| ModelError::not_linear(node))
    }

    /// Checks that an image fits the network's input.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if it does not.
    pub fn accepts(&self, image: &Tensor) -> Result<(), ModelError> {
        if image.shape == self.graph.input_shape() {
            return Ok(());
        }
        Err(ModelError::Shape {
            what: "the image".into(),
            expected: format!("{:?}", self.graph.input_shape()),
            got: format!("{:?}", image.shape),
        })
    }

    /// Encodes the outline as bytes.
    ///
    /// # Errors
    /// [`ModelError::Outline`] never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let nodes = self.graph.nodes().iter().zip(&self.scalings);
        let stored = Stored {
            weight_bits: self.config.weight_bits(),
            activation_bits: self.config.activation_bits(),
            input: self.graph.input_shape().to_vec(),
            outputs: self.graph.outputs().to_vec(),
            output_names: self.graph.output_names().to_vec(),
            preprocess: self.preprocess.clone(),
            nodes: nodes.map(|(n, s)| (n.name.clone(), n.op.clone(), n.inputs.clone(), s.clone())).collect(),
        };
        postcard::to_stdvec(&stored).map_err(|e| ModelError::Outline(e.to_string()))
    }

    /// Reads and checks what [`Outline::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ModelError::Outline`] for other bytes; the graph's own errors.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let fail = |why: String| ModelError::Outline(why);
        let (stored, rest): (Stored, _) = postcard::take_from_bytes(bytes).map_err(|e| fail(e.to_string()))?;
        if !rest.is_empty() {
            return Err(fail(format!("{} bytes follow its end", rest.len())));
        }
        let config = QuantConfig::new(stored.weight_bits, stored.activation_bits)?;
        let mut graph = Graph::new(stored.input)?;
        let mut scalings = Vec::with_capacity(stored.nodes.len());
        for (name, op, inputs, scaling) in stored.nodes {
            // Names are shown: control characters in them could forge lines of what is printed.
            if name.contains(char::is_control) {
                return Err(fail("the name of a node holds control characters".into()));
            }
            let outputs = op.linear().map(|l| l.outputs());
            match (&scaling, outputs) {
                (Some(scaling), Some(outputs)) => scaling.check(outputs, config).map_err(fail)?,
                (None, None) => {}
                _ => return Err(fail(format!("node \"{name}\" has scales and is not linear, or the reverse"))),
            }
            graph.push_outline(name, op, inputs)?;
            scalings.push(scaling);
        }
        if !graph.set_outputs(stored.outputs) {
            return Err(fail("its outputs are no values of it".into()));
        }
        let names = stored.output_names;
        if names.len() > graph.outputs().len() || names.iter().any(|n| n.contains(char::is_control)) {
            return Err(fail("names of outputs that are not its own, or hold control characters".into()));
        }
        graph.set_output_names(names);
        stored.preprocess.check(graph.input_shape())?;
        Ok(Self { graph, config, preprocess: stored.preprocess, scalings })
    }
}

impl QuantModel {
    /// Returns the network without its weights.
    ///
    /// # Errors
    /// [`ModelError`] never in practice: the graph was checked.
    pub fn outline(&self) -> Result<Outline, ModelError> {
        let mut graph = Graph::new(self.graph().input_shape().to_vec())?;
        let mut scalings = vec![];
        for (i, node) in self.graph().nodes().iter().enumerate() {
            let op = match &node.op {
                Op::Conv(c) => Op::Conv(Conv { weight: vec![], bias: vec![], ..c.clone() }),
                Op::Gemm(g) => Op::Gemm(Gemm { weight: vec![], bias: vec![], ..g.clone() }),
                other => other.clone(),
            };
            scalings.push(op.linear().map(|_| self.layer(i).map(|l| l.scaling.clone())).transpose()?);
            graph.push_outline(node.name.clone(), op, node.inputs.clone())?;
        }
        graph.set_outputs(self.graph().outputs().to_vec());
        graph.set_output_names(self.graph().output_names().to_vec());
        Ok(Outline { graph, config: self.config(), preprocess: self.preprocess().clone(), scalings })
    }
}
