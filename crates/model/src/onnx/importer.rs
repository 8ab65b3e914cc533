//! Holds what is known while nodes are read, and answers what a node asks for.
//!
//! # The batch dimension
//! Every image runs alone, so a file's batch dimension is 1 and is left out here: a value that the
//! file calls `[1, 3, 32, 32]` has the shape `[3, 32, 32]`. Where a file moves or drops that
//! dimension (a reshape to one list, a transposition of it), the value is kept *bare*: with the
//! whole shape that the file gives it. [`Importer::dims`] is the file's view of either.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::constant::{Constant, ReadExternal, Values};
use super::proto;
use super::reading::{Operand, Outcome, Reading, Weights};
use super::refusal::{Refusal, unknown_operator};
use crate::ModelError;
use crate::error::Offence;
use crate::graph::{Graph, ValueId};
use crate::op::Op;

/// Most numbers that constants computed from constants may have together: the first, and the second
/// for every byte of the model (weights that are transposed, cast and reshaped count each time).
const FOLDED: (usize, usize) = (1 << 20, 8);

pub(super) struct Importer<'a, 'e> {
    pub(super) graph: Graph,
    pub(super) opset: i64,
    pub(super) values: HashMap<String, ValueId>,
    pub(super) constants: HashMap<String, Rc<Constant>>,
    /// How often each name is read.
    uses: HashMap<&'a str, usize>,
    /// Values that have several names, or are read through several.
    shared: HashSet<ValueId>,
    /// Bare values, whose shape is the file's whole shape.
    pub(super) bare: HashSet<ValueId>,
    /// Values that are a convolution's outputs in other places, with that convolution and how many
    /// of its channels make one of theirs.
    pub(super) spread: HashMap<ValueId, (ValueId, usize)>,
    /// Shapes that the file states for values, without the batch dimension. With them nodes are
    /// checked that follow one which is not supported.
    pub(super) shapes: HashMap<&'a str, Vec<usize>>,
    /// Names of outputs, of unknown shapes, of nodes that are not supported.
    pub(super) unknown: HashSet<String>,
    pub(super) offences: Vec<Offence>,
    /// Images that the file's input has, 0 if it leaves that open. With several, no node may look
    /// at the batch dimension.
    pub(super) batch: i64,
    /// Whether the nodes compute from a constant and not from an image.
    pub(super) is_constant: bool,
    /// Numbers in constants that were computed here.
    folded: usize,
    /// Bytes of the model, other files included.
    held: &'a Cell<usize>,
    pub(super) external: ReadExternal<'e>,
}

impl<'a, 'e> Importer<'a, 'e> {
    /// Makes an importer of a graph whose only value so far, the image, has this name; `held`
    /// counts the bytes of the model.
    pub(super) fn new(
        graph: Graph,
        opset: i64,
        input: &str,
        constants: HashMap<String, Rc<Constant>>,
        uses: HashMap<&'a str, usize>,
        (held, external): (&'a Cell<usize>, ReadExternal<'e>),
    ) -> Self {
        Self {
            graph,
            opset,
            values: HashMap::from([(input.to_owned(), 0)]),
            constants,
            uses,
            shared: HashSet::new(),
            bare: HashSet::new(),
            spread: HashMap::new(),
            shapes: HashMap::new(),
            unknown: HashSet::new(),
            offences: vec![],
            batch: 1,
            is_constant: false,
            folded: 0,
            held,
            external,
        }
    }

    /// Makes an importer of a graph whose image is a constant with this whole shape.
    pub(super) fn of_constant(
        graph: Graph,
        outer: &'a Importer<'_, '_>,
        input: &str,
        external: ReadExternal<'e>,
    ) -> Self {
        let mut inner = Self::new(graph, outer.opset, input, HashMap::new(), HashMap::new(), (outer.held, external));
        inner.bare.insert(0);
        inner.is_constant = true;
        inner
    }

    pub(super) fn node(&mut self, node: &'a proto::Node) -> Result<(), ModelError> {
        let Some(first) = node.output.iter().find(|o| !o.is_empty()) else {
            return Err(ModelError::Onnx(format!("a {} node has no output", node.op_type)));
        };
        let r = Reading { node, name: if node.name.is_empty() { first.clone() } else { node.name.clone() } };
        if let Some(branch) = self.branch(&r) {
            return self.inlined(node, branch);
        }
        let waits = node.input.iter().any(|i| self.unknown.contains(i));
        let outcome = match is_known(node) {
            false => Err(unknown_operator(&r)),
            true if waits => {
                // What can be said without shapes.
                if node.op_type == "MatMul" && !node.input.iter().any(|i| self.constants.contains_key(i)) {
                    self.offend(&r, Refusal::of_two_computed());
                }
                self.unknown.extend(node.output.iter().cloned());
                return Ok(());
            }
            true => self.outcome(&r),
        };
        match outcome {
            Ok(Outcome::Constant(c)) => {
                self.constants.insert(first.clone(), Rc::new(c));
            }
            Ok(Outcome::Constants(constants)) => {
                self.constants.extend(node.output.iter().cloned().zip(constants.into_iter().map(Rc::new)));
            }
            Ok(Outcome::Value(v)) => {
                if r.input(0).is_some_and(|i| self.values.get(i) == Some(&v) && self.uses.get(i) != Some(&1)) {
                    self.shared.insert(v);
                }
                self.values.insert(first.clone(), v);
                self.unknown.extend(node.output.iter().filter(|o| *o != first).cloned());
            }
            Ok(Outcome::Values(values)) => self.values.extend(node.output.iter().cloned().zip(values)),
            Err(refusal) => {
                self.offend(&r, refusal);
                self.assume(node);
            }
        }
        Ok(())
    }

    /// Returns the branch that an `If` runs, where its condition depends on no image.
    fn branch<'n>(&self, r: &Reading<'n>) -> Option<&'n proto::Graph> {
        if r.node.op_type != "If" || !r.node.domain.is_empty() && r.node.domain != "ai.onnx" {
            return None;
        }
        let holds = *self.constants.get(r.input(0)?)?.floats()?.first()? != 0.0;
        let name = if holds { "then_branch" } else { "else_branch" };
        r.node.attribute.iter().find(|a| a.name == name)?.g.as_ref()
    }

    /// Reads the nodes of a branch in place of the node that has it.
    fn inlined(&mut self, node: &'a proto::Node, branch: &'a proto::Graph) -> Result<(), ModelError> {
        for tensor in &branch.initializer {
            let constant = Constant::read(tensor, self.external)?;
            self.constants.insert(tensor.name.clone(), Rc::new(constant));
        }
        branch.node.iter().try_for_each(|node| self.node(node))?;
        for (outer, inner) in node.output.iter().zip(&branch.output) {
            if let Some(constant) = self.constants.get(&inner.name).cloned() {
                self.constants.insert(outer.clone(), constant);
            } else if let Some(&value) = self.values.get(&inner.name) {
                self.values.insert(outer.clone(), value);
                // It has two names now.
                self.shared.insert(value);
            } else {
                self.unknown.insert(outer.clone());
            }
        }
        Ok(())
    }

    fn offend(&mut self, r: &Reading<'_>, Refusal { reason, remedy }: Refusal) {
        self.offences.push(Offence { node: r.name.clone(), operator: r.node.op_type.clone(), reason, remedy });
    }

    /// Goes on behind a node that is not supported, where the file states the shapes of its
    /// outputs. The graph will not be used any more: all that counts is what else is not supported.
    fn assume(&mut self, node: &proto::Node) {
        for name in node.output.iter().filter(|o| !o.is_empty()) {
            let assumed = self.shapes.get(name.as_str()).and_then(|shape| self.graph.assume(name, shape.clone()));
            match assumed {
                Some(value) => {
                    self.values.insert(name.clone(), value);
                }
                None => {
                    self.unknown.insert(name.clone());
                }
            }
        }
    }

    fn outcome(&mut self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        if r.node.op_type == "Constant" {
            return self.constant(r).map(Outcome::Constant);
        }
        if let Some(folded) = self.folded(r) {
            let outcome = folded?;
            let numbers = match &outcome {
                Outcome::Constant(c) => c.len(),
                Outcome::Constants(all) => all.iter().map(Constant::len).sum(),
                _ => 0,
            };
            self.folded = self.folded.saturating_add(numbers);
            if self.folded > self.foldable() {
                return Err("makes the constants of the file too large".into());
            }
            return Ok(outcome);
        }
        self.compute(r)
    }

    /// Returns the most numbers that constants computed from constants may have together.
    pub(super) fn foldable(&self) -> usize {
        self.held.get().saturating_mul(FOLDED.1).saturating_add(FOLDED.0)
    }

    fn constant(&mut self, r: &Reading<'_>) -> Result<Constant, Refusal> {
        let scalar = |values| Constant { dims: vec![], values };
        for a in &r.node.attribute {
            return Ok(match a.name.as_str() {
                "value" => {
                    let t = a.t.as_ref().ok_or("has an attribute \"value\" without a tensor")?;
                    Constant::read(t, self.external)?
                }
                "value_float" => scalar(Values::Float(vec![a.f])),
                "value_int" => scalar(Values::Int(vec![a.i])),
                "value_floats" => Constant { dims: vec![a.floats.len()], values: Values::Float(a.floats.clone()) },
                "value_ints" => Constant::ints(a.ints.clone()),
                _ => continue,
            });
        }
        Err("has no value that is a tensor or a number".into())
    }

    /// Returns the `i`-th input, a constant or a computed value.
    pub(super) fn operand(&self, r: &Reading<'_>, i: usize) -> Result<Operand, Refusal> {
        let name = r.input(i).ok_or_else(|| format!("has no input {i}"))?;
        if let Some(c) = self.constants.get(name) {
            return Ok(Operand::Constant(c.clone()));
        }
        let value = self.values.get(name).copied();
        value.map(Operand::Value).ok_or_else(|| format!("its input \"{name}\" is computed by no earlier node").into())
    }

    /// Returns the computed value behind the `i`-th input.
    pub(super) fn value(&self, r: &Reading<'_>, i: usize) -> Result<ValueId, Refusal> {
        match self.operand(r, i)? {
            Operand::Value(v) => Ok(v),
            Operand::Constant(_) => Err(format!("its input {i} is a constant; it must be computed").into()),
        }
    }

    /// Returns the constant behind the `i`-th input, if there is one.
    pub(super) fn constant_input(&self, r: &Reading<'_>, i: usize) -> Option<Rc<Constant>> {
        self.constants.get(r.input(i)?).cloned()
    }

    /// Returns the integers of the `i`-th input, or `None` if it is left out.
    pub(super) fn ints(&self, r: &Reading<'_>, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        let Some(name) = r.input(i) else { return Ok(None) };
        let c = self.constants.get(name).ok_or_else(computed)?;
        let ints = c.as_ints().ok_or_else(|| format!("its input \"{name}\" must hold integers"))?;
        Ok(Some(ints.to_vec()))
    }

    /// Returns integers from an attribute or, in newer operator sets, from the `i`-th input.
    pub(super) fn list(&self, r: &Reading<'_>, attribute: &str, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        match r.list(attribute) {
            Some(list) => Ok(Some(list.to_vec())),
            None => self.ints(r, i),
        }
    }

    /// Returns a single number from the `i`-th input or, in older operator sets, from an attribute.
    pub(super) fn scalar(&self, r: &Reading<'_>, i: usize, attribute: &str, default: f32) -> Result<f32, Refusal> {
        let Some(name) = r.input(i).filter(|_| r.attribute(attribute).is_none()) else {
            return Ok(r.float(attribute, default));
        };
        let constant = self.constants.get(name).ok_or_else(computed)?;
        match constant.floats().as_deref() {
            Some([one]) if !one.is_nan() => Ok(*one),
            _ => Err(format!("its input {i} must be a single number").into()),
        }
    }

    /// Returns shape and floats of the constant behind the `i`-th input, or `None` if it is left
    /// out.
    pub(super) fn weights(&self, r: &Reading<'_>, i: usize) -> Result<Option<Weights>, Refusal> {
        let Some(name) = r.input(i) else { return Ok(None) };
        let c = self.constants.get(name).ok_or_else(|| {
            if !self.values.contains_key(name) {
                return format!("its input \"{name}\" is computed by no earlier node").into();
            }
            Refusal::new(
                "has weights that are computed from the image",
                "they cannot be sealed: use a network without such layers, or end it before them",
            )
        })?;
        let floats = c.floats().ok_or_else(|| format!("constant \"{name}\" is of a type that is not read"))?;
        if let Some(index) = floats.iter().position(|v| !v.is_finite()) {
            return Err(format!("constant \"{name}\" holds a value that is not a finite number (index {index})").into());
        }
        Ok(Some((c.dims.clone(), floats)))
    }

    /// Returns whether nothing else reads the computed input of this node, so that the node in
    /// front may be changed instead of appending this one.
    pub(super) fn single_use(&self, r: &Reading<'_>) -> bool {
        let computed = r.node.input.iter().filter_map(|n| Some((n.as_str(), *self.values.get(n)?)));
        let mut uses =
            computed.map(|(n, v)| self.uses.get(n).copied().unwrap_or(0) + usize::from(self.shared.contains(&v)));
        uses.next() == Some(1) && uses.next().is_none()
    }

    /// Appends a node. Its value is bare if one of its inputs is bare and has no fewer dimensions
    /// than the file gives any other input.
    pub(super) fn push(&mut self, r: &Reading<'_>, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, Refusal> {
        let rank = |&v: &ValueId| self.graph.shape(v).len();
        let of_bare = inputs.iter().filter(|v| self.bare.contains(v)).map(rank).max();
        let of_batched = inputs.iter().filter(|v| !self.bare.contains(v)).map(|v| rank(v) + 1).max();
        let value = self.graph.push(r.name.clone(), op, inputs)?;
        if of_bare.is_some() && of_bare >= of_batched {
            self.bare.insert(value);
        }
        Ok(value)
    }
}

fn computed() -> Refusal {
    Refusal::new(
        "needs a shape, a place or a bound that is computed from the image",
        "export with fixed sizes, so that shapes and places do not depend on the image",
    )
}

/// Returns whether a node's operator is one that is read.
fn is_known(node: &proto::Node) -> bool {
    let kinds = [
        &super::activation::OPERATORS[..],
        &super::linear::OPERATORS,
        &super::normalise::OPERATORS,
        &super::shapes::OPERATORS,
        &super::place::OPERATORS,
        &super::along::OPERATORS,
        &super::fold::OPERATORS,
    ];
    matches!(node.domain.as_str(), "" | "ai.onnx")
        && kinds.iter().any(|operators| operators.contains(&node.op_type.as_str()))
}

impl Importer<'_, '_> {
    /// Reads a node that depends on the image, or one that does not and that `fold` does not know.
    pub(super) fn compute(&mut self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        let op = r.node.op_type.as_str();
        let value = if super::activation::OPERATORS.contains(&op) {
            self.activation(r)?
        } else if super::linear::OPERATORS.contains(&op) {
            self.linear(r)?
        } else if super::normalise::OPERATORS.contains(&op) {
            self.normalise(r)?
        } else if super::along::OPERATORS.contains(&op) {
            self.reduce_or_rank(r)?
        } else if super::shapes::OPERATORS.contains(&op) {
            self.reshape_kinds(r)?
        } else if super::place::OPERATORS.contains(&op) {
            return self.place(r);
        } else {
            return Err(Refusal::new(
                "is only computed from constants",
                "remove what depends on the image before it, or end the network before it",
            ));
        };
        Ok(Outcome::Value(value))
    }
}
