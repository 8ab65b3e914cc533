//! Reads nodes that only change shapes and orders, and joins.

use super::constant::axis_of;
use super::fold_places::{squeezed, target, unsqueezed};
use super::importer::Importer;
use super::place::{MAX_EXTENT, Places};
use super::reading::{Operand, Reading};
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Arithmetic, Op, SelectKind};

/// ONNX operators that are read here.
pub(super) const OPERATORS: [&str; 8] =
    ["Concat", "DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"];

const BATCH: &str = "export with a dynamic batch dimension or a batch of 1";

impl Importer<'_, '_> {
    pub(super) fn reshape_kinds(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let op = r.node.op_type.as_str();
        match op {
            "Concat" => return self.concat(r),
            "Transpose" => return self.transpose(r),
            "DepthToSpace" | "SpaceToDepth" => return self.blocks(r),
            _ => {}
        }
        let x = self.value(r, 0)?;
        let dims = self.dims(x);
        let shape = match op {
            "Flatten" => {
                let axis = r.int("axis", 1);
                let axis = if axis == dims.len() as i64 { dims.len() } else { axis_of(axis, dims.len())? };
                vec![dims[..axis].iter().product(), dims[axis..].iter().product()]
            }
            "Reshape" => {
                let wanted = self.list(r, "shape", 1)?.ok_or("has no target shape")?;
                target(&dims, &wanted, r.int("allowzero", 0) != 0).map_err(|reason| Refusal::new(reason, BATCH))?
            }
            "Unsqueeze" => unsqueezed(&dims, &self.list(r, "axes", 1)?.ok_or("has no axes")?)?,
            _ => squeezed(&dims, self.list(r, "axes", 1)?.as_deref())?,
        };
        self.reshaped(r, x, &shape)
    }

    fn transpose(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let rank = self.dims(x).len();
        let order: Vec<usize> = match r.list("perm") {
            Some(order) => order.iter().map(|&d| axis_of(d, rank)).collect::<Result<_, _>>()?,
            None => (0..rank).rev().collect(),
        };
        let (x, order) = match order.split_first() {
            Some((0, own)) if !self.is_bare(x) => (x, own.iter().map(|d| d.saturating_sub(1)).collect()),
            _ => (self.whole(r, x)?, order),
        };
        if order.iter().copied().eq(0..order.len()) {
            return self.settled(r, x);
        }
        let y = self.push(r, Op::Transpose(order), vec![x])?;
        self.settled(r, y)
    }

    fn concat(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let operands: Vec<Operand> = (0..r.node.input.len()).map(|i| self.operand(r, i)).collect::<Result<_, _>>()?;
        let value = |o: &Operand| if let Operand::Value(v) = o { Some(*v) } else { None };
        let mut values: Vec<ValueId> = operands.iter().filter_map(value).collect();
        let first = *values.first().ok_or("has no input that is computed")?;
        let mut axis = axis_of(r.int("axis", 1), self.dims(first).len())?;
        let whole = axis == 0 || values.iter().any(|&v| self.is_bare(v));
        if whole {
            values = values.into_iter().map(|v| self.whole(r, v)).collect::<Result<_, _>>()?;
        } else {
            axis -= 1;
        }
        let joined = if let [one] = values[..] { one } else { self.push(r, Op::Concat(axis), values.clone())? };
        if values.len() == operands.len() {
            return self.settled(r, joined);
        }
        // Constants among them: zeros in their places, then the constants are added.
        let mut shape = self.graph.shape(joined).to_vec();
        let (mut places, mut parts, mut next): (Places, _, u32) = (vec![], vec![], 0);
        let mut computed = values.into_iter();
        for (i, operand) in operands.iter().enumerate() {
            if let Operand::Value(_) = operand {
                let extent = computed.next().map_or(0, |v| self.graph.shape(v)[axis] as u32);
                places.extend((next..next + extent).map(Some));
                next += extent;
                continue;
            }
            let (dims, data) = self.weights(r, i)?.ok_or("has an input that is missing")?;
            let own = if whole { dims.clone() } else { dims.strip_prefix(&[1]).unwrap_or_default().to_vec() };
            let alike = own.len() == shape.len() && (0..shape.len()).all(|d| d == axis || own[d] == shape[d]);
            if !alike || places.len() + own[axis] > MAX_EXTENT {
                return Err(format!("joins a constant of the shape {dims:?} to values of the shape {shape:?}").into());
            }
            parts.push((places.len(), own[axis], data));
            places.resize(places.len() + own[axis], None);
        }
        shape[axis] = places.len();
        let y = self.select(r, joined, SelectKind::Pad, vec![(axis, places)], 0.0)?;
        let (outer, inner): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let mut data = vec![0.0; outer * shape[axis] * inner];
        for (at, extent, values) in parts {
            for (o, values) in values.chunks_exact((extent * inner).max(1)).enumerate() {
                data[(o * shape[axis] + at) * inner..][..values.len()].copy_from_slice(values);
            }
        }
        let y = self.push(
            r,
            Op::WithConstant {
                op: Arithmetic::Add,
                constant: crate::op::Constant { shape, data },
                constant_first: false,
            },
            vec![y],
        )?;
        self.settled(r, y)
    }

    /// Appends DepthToSpace or SpaceToDepth: a shape, an order, a shape.
    fn blocks(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let x = self.image(r, x)?;
        let b = usize::try_from(r.int("blocksize", 0)).ok().filter(|&b| b > 0).ok_or("has no blocksize")?;
        let [c, h, w] = *self.graph.shape(x) else { return Err("needs an input [channels, height, width]".into()) };
        let uneven = || format!("cannot cut {:?} into blocks of {b}", [c, h, w]);
        let square = b.checked_mul(b).ok_or_else(uneven)?;
        let (split, order, shape) = if r.node.op_type == "SpaceToDepth" {
            if h % b != 0 || w % b != 0 {
                return Err(uneven().into());
            }
            let order = if r.text("mode", "DCR") == "CRD" { vec![0, 2, 4, 1, 3] } else { vec![2, 4, 0, 1, 3] };
            (vec![c, h / b, b, w / b, b], order, vec![c * square, h / b, w / b])
        } else {
            if c % square != 0 {
                return Err(uneven().into());
            }
            let shape = vec![c / square, h * b, w * b];
            match r.text("mode", "DCR").as_str() {
                "DCR" => (vec![b, b, c / square, h, w], vec![2, 3, 0, 4, 1], shape),
                "CRD" => (vec![c / square, b, b, h, w], vec![0, 3, 1, 4, 2], shape),
                other => return Err(format!("its mode \"{other}\" is unknown").into()),
            }
        };
        let parts = self.shaped(r, x, split)?;
        let turned = self.push(r, Op::Transpose(order), vec![parts])?;
        self.shaped(r, turned, shape)
    }
}
