//! Reads nodes that work along axes: softmax, sums, the largest value and its place.

use super::importer::Importer;
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Activation, Arithmetic, Op, ReduceKind};

/// ONNX operators that are read here.
pub(super) const OPERATORS: [&str; 14] = [
    "ArgMax",
    "ArgMin",
    "LogSoftmax",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Softmax",
    "ReduceLogSum",
    "ReduceLogSumExp",
];

impl Importer<'_, '_> {
    pub(super) fn reduce_or_rank(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let kind = match r.node.op_type.as_str() {
            "Softmax" | "LogSoftmax" => return self.softmax(r),
            "ArgMax" | "ArgMin" => return self.place_of_largest(r),
            "ReduceMean" => ReduceKind::Mean,
            "ReduceSum" => ReduceKind::Sum,
            "ReduceMax" => ReduceKind::Max,
            "ReduceMin" => ReduceKind::Min,
            "ReduceProd" => ReduceKind::Product,
            "ReduceL1" => ReduceKind::L1,
            "ReduceL2" => ReduceKind::L2,
            _ => ReduceKind::SumSquare,
        };
        let x = self.value(r, 0)?;
        let axes = match self.list(r, "axes", 1)?.filter(|a| !a.is_empty()) {
            Some(axes) => axes,
            None if r.int("noop_with_empty_axes", 0) != 0 => return Ok(x),
            None => (0..self.dims(x).len() as i64).collect(),
        };
        let keep = r.int("keepdims", 1) != 0;
        match r.node.op_type.as_str() {
            "ReduceLogSum" => {
                let sum = self.reduced(r, x, ReduceKind::Sum, &axes, keep)?;
                self.push(r, Op::Activation(Activation::Log), vec![sum])
            }
            "ReduceLogSumExp" => {
                // From the largest on, so that nothing overflows.
                let top = self.reduced(r, x, ReduceKind::Max, &axes, true)?;
                let below = self.both(r, Arithmetic::Sub, x, top)?;
                let powers = self.push(r, Op::Activation(Activation::Exp), vec![below])?;
                let sum = self.reduced(r, powers, ReduceKind::Sum, &axes, keep)?;
                let log = self.push(r, Op::Activation(Activation::Log), vec![sum])?;
                let top = if keep { top } else { self.reduced(r, top, ReduceKind::Max, &axes, false)? };
                self.both(r, Arithmetic::Add, log, top)
            }
            _ => self.reduced(r, x, kind, &axes, keep),
        }
    }

    /// Appends a node that makes one value of all along some axes, which are counted as in the
    /// file. `keep` keeps these axes with extent 1.
    pub(super) fn reduced(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        kind: ReduceKind,
        axes: &[i64],
        keep: bool,
    ) -> Result<ValueId, Refusal> {
        let (x, mut axes) = self.along(r, x, axes)?;
        // A value without a dimension of its own is kept as a bare one.
        let x = if !keep && axes.len() == self.graph.shape(x).len() && !self.is_bare(x) {
            axes.iter_mut().for_each(|a| *a += 1);
            self.whole(r, x)?
        } else {
            x
        };
        axes.sort_unstable();
        axes.dedup();
        let y = self.push(r, Op::Reduce { kind, axes, keep }, vec![x])?;
        self.settled(r, y)
    }

    fn softmax(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let log = r.node.op_type == "LogSoftmax";
        if self.opset >= 13 {
            let (x, axes) = self.along(r, x, &[r.int("axis", -1)])?;
            let y = self.push(r, Op::Softmax { axis: axes[0], log }, vec![x])?;
            return self.settled(r, y);
        }
        // Older sets take everything from the axis on as one line.
        let (x, axes) = self.along(r, x, &[r.int("axis", 1)])?;
        let (axis, shape) = (axes[0], self.graph.shape(x).to_vec());
        let lines = [&shape[..axis], &[shape[axis..].iter().product()]].concat();
        let bare = self.is_bare(x);
        let flat = if bare { self.reshaped(r, x, &lines)? } else { self.shaped(r, x, lines)? };
        let axis = axis.min(self.graph.shape(flat).len() - 1);
        let y = self.push(r, Op::Softmax { axis, log }, vec![flat])?;
        if bare { self.reshaped(r, y, &shape) } else { self.shaped(r, y, shape) }
    }

    fn place_of_largest(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let mut x = self.value(r, 0)?;
        if r.node.op_type == "ArgMin" {
            x = self.scaled(r, x, -1.0)?;
        }
        let (x, axes) = self.along(r, x, &[r.int("axis", 0)])?;
        let (keep, last) = (r.int("keepdims", 1) != 0, r.int("select_last_index", 0) != 0);
        let y = self.push(r, Op::ArgMax { axis: axes[0], keep, last }, vec![x])?;
        self.settled(r, y)
    }
}
