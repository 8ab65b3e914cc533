//! A node of a file with its attributes at hand, and what it becomes.

use std::rc::Rc;

use super::constant::Constant;
use super::proto;
use crate::graph::ValueId;

/// Shape and values of a float constant.
pub(super) type Weights = (Vec<usize>, Vec<f32>);

/// An input of a node: computed, or constant.
pub(super) enum Operand {
    Value(ValueId),
    Constant(Rc<Constant>),
}

/// The result of reading a node.
pub(super) enum Outcome {
    /// The computed value of its first output; other outputs are not there.
    Value(ValueId),
    /// A computed value for every output.
    Values(Vec<ValueId>),
    Constant(Constant),
    /// A constant for every output.
    Constants(Vec<Constant>),
}

/// A node with its attributes at hand.
pub(super) struct Reading<'a> {
    pub(super) node: &'a proto::Node,
    pub(super) name: String,
}

impl Reading<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.attribute(name).map_or(default.into(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }

    pub(super) fn list(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    /// Returns the name of the `i`-th input, or `None` for one that is left out.
    pub(super) fn input(&self, i: usize) -> Option<&str> {
        self.node.input.get(i).map(String::as_str).filter(|n| !n.is_empty())
    }
}
