//! Walks a graph. Non-linear nodes run here. At every linear node it stops and waits for a result
//! from elsewhere: the float reference, the integer reference, or a server.

use crate::graph::{Graph, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::{ModelError, nonlinear};

/// The value that is the image.
pub const IMAGE: ValueId = 0;

/// A graph under way for one image.
#[derive(Debug, Clone)]
pub struct Execution<'g> {
    graph: &'g Graph,
    values: Vec<Option<Tensor>>,
    uses: Vec<usize>,
    next: usize,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// This linear node needs its output, computed from `input`.
    Linear {
        /// Index of the node.
        node: usize,
        /// Its input.
        input: Tensor,
    },
    /// The network's outputs, at least one.
    Done(Vec<Tensor>),
}

impl<'g> Execution<'g> {
    /// Starts a walk with an image.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if it does not have the network's input shape.
    pub fn new(graph: &'g Graph, image: Tensor) -> Result<Self, ModelError> {
        Self::behind(graph, IMAGE, image)
    }

    /// Starts a walk behind a value, which takes the place of all that comes before: no later node
    /// may need anything else from there.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if it does not have that value's shape.
    pub fn behind(graph: &'g Graph, value: ValueId, tensor: Tensor) -> Result<Self, ModelError> {
        if tensor.shape != graph.shape(value) {
            let what = if value == IMAGE { "the image".into() } else { format!("value {value}") };
            return Err(ModelError::Shape {
                what,
                expected: format!("{:?}", graph.shape(value)),
                got: format!("{:?}", tensor.shape),
            });
        }
        let mut uses = vec![0; graph.nodes().len() + 1];
        graph.nodes().iter().skip(value).flat_map(|n| &n.inputs).for_each(|&v| uses[v] += 1);
        graph.outputs().iter().for_each(|&v| uses[v] += 1);
        let mut values = vec![None; graph.nodes().len() + 1];
        values[value] = Some(tensor);
        Ok(Self { graph, values, uses, next: value })
    }

    /// Runs on to the next linear node or to the end. Called again without [`Execution::provide`],
    /// it returns the same step.
    ///
    /// # Errors
    /// [`ModelError`] if a value is missing (only after an error).
    pub fn step(&mut self) -> Result<Step, ModelError> {
        if let Some(node) = self.advance()? {
            return Ok(Step::Linear { node, input: self.input(node)?.clone() });
        }
        let output = |&v: &usize| self.value(v).cloned();
        Ok(Step::Done(self.graph.outputs().iter().map(output).collect::<Result<_, _>>()?))
    }

    /// Runs on to the next linear node and returns its index, or runs to the end and returns
    /// `None`.
    fn advance(&mut self) -> Result<Option<usize>, ModelError> {
        while let Some(node) = self.graph.nodes().get(self.next) {
            if node.op.linear().is_some() {
                return Ok(Some(self.next));
            }
            if let (Op::Activation(activation), &[input]) = (&node.op, &node.inputs[..])
                && self.uses[input] == 1
                && let Some(mut value) = self.values[input].take()
            {
                // Nobody else needs the input: it becomes the output.
                nonlinear::activate(*activation, &mut value.data);
                self.finish_node(value);
                continue;
            }
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|&v| self.value(v)).collect::<Result<_, _>>()?;
            let output = nonlinear::apply(node, &inputs)?;
            self.finish_node(output);
        }
        Ok(None)
    }

    /// Returns the input of a linear node.
    fn input(&self, node: usize) -> Result<&Tensor, ModelError> {
        self.value(self.graph.nodes()[node].inputs[0])
    }

    /// Takes the output of the linear node that [`Execution::step`] stopped at.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if the number of values is not the node's.
    pub fn provide(&mut self, data: Vec<f32>) -> Result<(), ModelError> {
        let shape = self.graph.shape(self.next + 1).to_vec();
        let what = format!("the output of node \"{}\"", self.graph.nodes()[self.next].name);
        let output = Tensor::new(&what, shape, data)?;
        self.finish_node(output);
        Ok(())
    }

    fn finish_node(&mut self, output: Tensor) {
        for &input in &self.graph.nodes()[self.next].inputs {
            self.uses[input] -= 1;
            if self.uses[input] == 0 {
                self.values[input] = None;
            }
        }
        self.next += 1;
        self.values[self.next] = Some(output);
    }

    fn value(&self, id: usize) -> Result<&Tensor, ModelError> {
        self.values[id].as_ref().ok_or_else(|| ModelError::Shape {
            what: "a value".into(),
            expected: "computed before use".into(),
            got: "nothing".into(),
        })
    }
}

/// Runs a whole graph and returns its outputs, at least one. `linear` computes every linear node
/// from the node's index and input.
///
/// # Errors
/// [`ModelError::Shape`] for an image of the wrong shape, and what `linear` returns.
pub fn run(
    graph: &Graph,
    image: Tensor,
    linear: impl FnMut(usize, &Tensor) -> Result<Vec<f32>, ModelError>,
) -> Result<Vec<Tensor>, ModelError> {
    finish(Execution::new(graph, image)?, linear)
}

/// Runs to the end and returns the graph's outputs, at least one. `linear` is as for [`run`].
///
/// # Errors
/// What `linear` returns, and [`ModelError::Shape`] if a value is missing.
pub fn finish(
    mut execution: Execution<'_>,
    mut linear: impl FnMut(usize, &Tensor) -> Result<Vec<f32>, ModelError>,
) -> Result<Vec<Tensor>, ModelError> {
    while let Some(node) = execution.advance()? {
        let output = linear(node, execution.input(node)?)?;
        execution.provide(output)?;
    }
    let output = |&v: &usize| execution.value(v).cloned();
    execution.graph.outputs().iter().map(output).collect()
}
