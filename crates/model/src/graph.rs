//! The graph: nodes in an order in which they can run, with inferred shapes.

use crate::ModelError;
use crate::op::{Linear, Op};
use crate::shape_inference::{infer, wrong_counts};
use crate::tensor::elements;
use crate::training_range::Trained;

/// Most elements of all values of a graph together: bounds what a hostile file can make a run
/// allocate.
const MAX_TOTAL: usize = 1 << 30;
/// Most dimensions of a value.
const MAX_RANK: usize = 8;
/// Most outputs of a graph.
pub const MAX_OUTPUTS: usize = 64;

/// Number of a value: 0 is the image, `i + 1` the output of node `i`.
pub type ValueId = usize;

/// One node with its output's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Name from the file, or one that was made up.
    pub name: String,
    /// The operation that it computes.
    pub op: Op,
    /// The values that it takes.
    pub inputs: Vec<ValueId>,
    /// Shape of its output.
    pub shape: Vec<usize>,
}

/// A checked network with one input and at least one output.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    input: Vec<usize>,
    nodes: Vec<Node>,
    outputs: Vec<ValueId>,
    /// Names of the outputs; empty where none are known.
    output_names: Vec<String>,
    /// Mean and spread behind the first linear node in training, if the file tells them.
    trained: Option<Trained>,
    /// Elements of all values.
    total: usize,
}

impl Graph {
    /// Makes a graph without nodes for images of the given shape.
    ///
    /// # Errors
    /// [`ModelError::Shape`] unless the shape is `[channels, height, width]`, `[channels, length]`
    /// or `[features]`, non-empty and bounded.
    pub fn new(input: Vec<usize>) -> Result<Self, ModelError> {
        let total = elements(&input).filter(|&n| n > 0 && matches!(input.len(), 1..=3));
        let Some(total) = total else {
            return Err(ModelError::Shape {
                what: "the model's input".into(),
                expected: "[channels, height, width], [channels, length] or [features], not empty".into(),
                got: format!("{input:?}"),
            });
        };
        Ok(Self { input, nodes: vec![], outputs: vec![0], output_names: vec![], trained: None, total })
    }

    /// Returns the shape of the image.
    pub fn input_shape(&self) -> &[usize] {
        &self.input
    }

    /// Returns the nodes in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the first value that the network returns.
    pub fn output(&self) -> ValueId {
        self.outputs[0]
    }

    /// Returns all values that the network returns, in the order of the file.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Returns the names of the outputs, in their order; empty where none are known.
    pub fn output_names(&self) -> &[String] {
        &self.output_names
    }

    /// Makes a graph without nodes for a value of any shape, to compute constants with.
    ///
    /// # Errors
    /// [`ModelError::Shape`] unless the shape is bounded and not empty.
    pub(crate) fn of_any_shape(input: Vec<usize>) -> Result<Self, ModelError> {
        match elements(&input).filter(|&n| n > 0 && input.len() <= MAX_RANK) {
            Some(total) => {
                Ok(Self { input, nodes: vec![], outputs: vec![0], output_names: vec![], trained: None, total })
            }
            None => Err(ModelError::Shape {
                what: "a constant".into(),
                expected: format!("1 to {MAX_RANK} dimensions, not empty"),
                got: format!("{input:?}"),
            }),
        }
    }

    /// Appends a value of a given shape in place of one that cannot be computed, after which the
    /// graph cannot be run any more. Returns `None` for a shape that is empty or too large.
    pub(crate) fn assume(&mut self, name: &str, shape: Vec<usize>) -> Option<ValueId> {
        let n = elements(&shape).filter(|&n| n > 0 && shape.len() <= MAX_RANK && self.total + n <= MAX_TOTAL)?;
        self.total += n;
        self.nodes.push(Node { name: name.into(), op: Op::Reshape(shape.clone()), inputs: vec![0], shape });
        Some(self.nodes.len())
    }

    /// Returns the shape of a value.
    pub fn shape(&self, value: ValueId) -> &[usize] {
        if value == 0 { &self.input } else { &self.nodes[value - 1].shape }
    }

    /// Returns the linear nodes in order, each with its index.
    pub fn linear_nodes(&self) -> impl Iterator<Item = (usize, Linear<'_>)> {
        self.nodes.iter().enumerate().filter_map(|(i, n)| Some((i, n.op.linear()?)))
    }

    /// Returns the number of weights of all linear layers, biases not counted.
    pub fn weights(&self) -> usize {
        self.linear_nodes().map(|(_, l)| l.weights().len()).sum()
    }

    /// Checks a node's inputs and appends it; its value, which is returned, becomes the output.
    ///
    /// # Errors
    /// [`ModelError::Node`] if inputs, shapes or attributes do not fit.
    pub fn push(&mut self, name: String, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, ModelError> {
        if let Some(reason) = wrong_counts(&op) {
            return Err(ModelError::Node { name, op: op.name().into(), reason });
        }
        self.push_outline(name, op, inputs)
    }

    /// Appends a node as [`Graph::push`] does, but takes linear ones without their weights, too.
    pub(crate) fn push_outline(&mut self, name: String, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, ModelError> {
        let fail = |reason: String| ModelError::Node { name: name.clone(), op: op.name().into(), reason };
        let arity = op.arity().unwrap_or(inputs.len().max(1));
        if inputs.len() != arity || inputs.iter().any(|&v| v > self.nodes.len()) {
            return Err(fail(format!("needs {arity} earlier value(s) as input, got {}", inputs.len())));
        }
        let shape = infer(&op, &inputs.iter().map(|&v| self.shape(v)).collect::<Vec<_>>()).map_err(fail)?;
        let Some(n) = elements(&shape).filter(|&n| n > 0 && shape.len() <= MAX_RANK) else {
            return Err(fail(format!("its output {shape:?} is empty or too large")));
        };
        if self.total + n > MAX_TOTAL {
            return Err(fail(format!("with its output the values of the network are more than {MAX_TOTAL} numbers")));
        }
        self.total += n;
        self.nodes.push(Node { name, op, inputs, shape });
        self.outputs = vec![self.nodes.len()];
        Ok(self.nodes.len())
    }

    /// Folds a batch norm into the linear node of `value`: scales its output channels and shifts
    /// its bias. Returns `false`, with weights and bias unchanged, if the node is not linear or the
    /// lengths do not fit.
    pub(crate) fn fold_scale(&mut self, value: ValueId, scale: &[f32], shift: &[f32]) -> bool {
        // Once it is scaled again, a node's output does not have the mean and spread of its
        // normalisation any more.
        self.trained = self.trained.take().filter(|t| t.node + 1 != value);
        self.linear_mut(value, |weight, bias| {
            let fits = bias.len() == scale.len() && bias.len() == shift.len();
            if fits {
                let fan_in = weight.len() / bias.len();
                for (o, (b, (s, t))) in bias.iter_mut().zip(scale.iter().zip(shift)).enumerate() {
                    *b = *b * s + t;
                    weight[o * fan_in..][..fan_in].iter_mut().for_each(|w| *w *= s);
                }
            }
            fits
        })
    }

    /// Keeps the mean `beta` and the spread `|gamma|` that a normalisation, folded into the node of
    /// `value`, tells of training, if that is the first linear node.
    pub(crate) fn set_trained(&mut self, value: ValueId, gamma: &[f32], beta: &[f32]) {
        let first = self.linear_nodes().next();
        if let Some((node, linear)) = first.filter(|&(node, _)| node + 1 == value)
            && [gamma.len(), beta.len()] == [linear.bias().len(); 2]
        {
            let spread = gamma.iter().map(|g| g.abs()).collect();
            self.trained = Some(Trained { node, mean: beta.to_vec(), spread });
        }
    }

    /// Returns mean and spread behind the first linear node in training, if the file tells them.
    pub(crate) fn trained(&self) -> Option<&Trained> {
        self.trained.as_ref()
    }

    fn linear_mut(&mut self, value: ValueId, f: impl FnOnce(&mut [f32], &mut [f32]) -> bool) -> bool {
        match value.checked_sub(1).map(|i| &mut self.nodes[i].op) {
            Some(Op::Conv(c)) => f(&mut c.weight, &mut c.bias),
            Some(Op::Gemm(g)) => f(&mut g.weight, &mut g.bias),
            _ => false,
        }
    }

    /// Sets the names of the outputs.
    pub(crate) fn set_output_names(&mut self, names: Vec<String>) {
        self.output_names = names;
    }

    /// Makes other values the outputs. Returns `false`, without a change, if there are none or too
    /// many, or one does not exist.
    pub(crate) fn set_outputs(&mut self, values: Vec<ValueId>) -> bool {
        let fit = !values.is_empty() && values.len() <= MAX_OUTPUTS && values.iter().all(|&v| v <= self.nodes.len());
        if fit {
            self.outputs = values;
        }
        fit
    }
}
