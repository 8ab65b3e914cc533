//! Nodes that move values: shapes, slices, padding, enlarging; and those that work along an axis.

use super::constant::{axis_of, slice_places, squeezed, target, unsqueezed};
use super::import::{Importer, Operand, Outcome, Reading, Refusal, unknown_operator};
use crate::graph::ValueId;
use crate::op::{Arithmetic, Constant, Op, Pool, Select, SelectKind};

const BATCH: &str = "export with a dynamic batch dimension or a batch of 1, and keep it in every reshape";

/// Places of an axis that an output takes.
type Places = Vec<Option<u32>>;

/// Longest axis that padding or enlarging may make: its places are listed, and a file of a few bytes can ask for any number.
const MAX_EXTENT: usize = 1 << 20;

impl Importer<'_, '_> {
    pub(super) fn moved(&mut self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        let value = match r.node.op_type.as_str() {
            "Split" => return self.split(r).map(Outcome::Values),
            "Concat" => self.concat(r)?,
            "Flatten" => self.flatten(r)?,
            "Reshape" => self.reshape(r)?,
            "Squeeze" | "Unsqueeze" => self.squeeze(r)?,
            "Transpose" => self.transpose(r)?,
            "Slice" => self.slice(r)?,
            "Gather" => self.gather(r)?,
            "Pad" => self.pad(r)?,
            "Resize" | "Upsample" => self.resize(r)?,
            "DepthToSpace" | "SpaceToDepth" => self.blocks(r)?,
            "Softmax" | "LogSoftmax" => self.softmax(r)?,
            "ReduceMean" | "ReduceMax" => self.reduce(r)?,
            "ArgMax" => {
                let x = self.value(r, 0)?;
                let axis = self.axis(x, r.int("axis", 0))?;
                let (keep, last) = (r.int("keepdims", 1) != 0, r.int("select_last_index", 0) != 0);
                self.push(r, Op::ArgMax { axis, keep, last }, vec![x])?
            }
            _ => return Err(unknown_operator(r)),
        };
        Ok(Outcome::Value(value))
    }

    /// Shape with the batch dimension that a single image has.
    fn batched(&self, x: ValueId) -> Vec<usize> {
        [&[1], self.graph.shape(x)].concat()
    }

    /// The value in a shape that the file gives with its batch dimension.
    fn with_batch(&mut self, r: &Reading<'_>, x: ValueId, shape: &[usize]) -> Result<ValueId, Refusal> {
        match shape.split_first() {
            Some((1, own)) if !own.is_empty() => self.shaped(r, x, own.to_vec()),
            _ => Err(Refusal {
                reason: format!("gives one image the shape {shape:?}, which has no batch dimension of 1 in front"),
                remedy: BATCH.into(),
            }),
        }
    }

    fn reshape(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let wanted = self.list(r, "shape", 1)?.ok_or("has no target shape")?;
        let shape = target(&self.batched(x), &wanted, r.int("allowzero", 0) != 0)
            .map_err(|reason| Refusal { reason, remedy: BATCH.into() })?;
        self.with_batch(r, x, &shape)
    }

    fn flatten(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let dims = self.batched(x);
        let axis = r.int("axis", 1);
        let axis = if axis == dims.len() as i64 { dims.len() } else { axis_of(axis, dims.len())? };
        let (outer, inner): (usize, usize) = (dims[..axis].iter().product(), dims[axis..].iter().product());
        self.with_batch(r, x, &[outer, inner])
    }

    fn squeeze(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let axes = self.list(r, "axes", 1)?;
        let dims = self.batched(x);
        let shape = match (r.node.op_type.as_str(), axes) {
            ("Unsqueeze", axes) => unsqueezed(&dims, &axes.ok_or("has no axes")?)?,
            (_, axes) => squeezed(&dims, axes.as_deref())?,
        };
        self.with_batch(r, x, &shape)
    }

    fn transpose(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let rank = self.graph.shape(x).len() + 1;
        let order: Vec<usize> = match r.list("perm") {
            Some(order) => order.iter().map(|&d| axis_of(d, rank)).collect::<Result<_, _>>()?,
            None => (0..rank).rev().collect(),
        };
        match order.split_first() {
            Some((0, own)) => {
                let order: Vec<usize> = own.iter().map(|d| d.saturating_sub(1)).collect();
                if order.iter().copied().eq(0..order.len()) {
                    Ok(x)
                } else {
                    self.push(r, Op::Transpose(order), vec![x])
                }
            }
            _ => Err(format!("moves the batch dimension (perm {order:?})").into()),
        }
    }

    fn concat(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let operands: Vec<Operand> = (0..r.node.input.len()).map(|i| self.operand(r, i)).collect::<Result<_, _>>()?;
        let value = |o: &Operand| if let Operand::Value(v) = o { Some(*v) } else { None };
        let values: Vec<ValueId> = operands.iter().filter_map(value).collect();
        let first = *values.first().ok_or("has no input that is computed")?;
        let axis = self.axis(first, r.int("axis", 1))?;
        let joined = if let [one] = values[..] { one } else { self.push(r, Op::Concat(axis), values.clone())? };
        if values.len() == operands.len() {
            return Ok(joined);
        }
        // Constants among them: zeros in their places, then the constants are added.
        let mut shape = self.graph.shape(joined).to_vec();
        let (mut places, mut parts, mut next): (Places, _, u32) = (vec![], vec![], 0);
        for (i, operand) in operands.iter().enumerate() {
            if let Operand::Value(v) = operand {
                let extent = self.graph.shape(*v)[axis] as u32;
                places.extend((next..next + extent).map(Some));
                next += extent;
                continue;
            }
            let (dims, data) = self.weights(r, i)?.ok_or("has an input that is missing")?;
            let own = dims.strip_prefix(&[1]).unwrap_or_default().to_vec();
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
        let constant = Constant { shape, data };
        self.push(r, Op::WithConstant { op: Arithmetic::Add, constant, constant_first: false }, vec![y])
    }

    fn select(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        kind: SelectKind,
        axes: Vec<(usize, Places)>,
        fill: f32,
    ) -> Result<ValueId, Refusal> {
        // What changes nothing needs no node.
        let shape = self.graph.shape(x);
        let same = |(axis, places): &(usize, Places)| places.iter().copied().eq((0..shape[*axis] as u32).map(Some));
        let axes: Vec<_> = axes.into_iter().filter(|a| !same(a)).collect();
        if axes.is_empty() {
            return Ok(x);
        }
        self.push(r, Op::Select(Select { kind, axes, fill }), vec![x])
    }

    fn slice(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let starts = self.list(r, "starts", 1)?.ok_or("has no starts")?;
        let ends = self.list(r, "ends", 2)?.ok_or("has no ends")?;
        let axes = self.list(r, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.ints(r, 4)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err("its starts, ends, axes and steps differ in length".into());
        }
        let rank = self.graph.shape(x).len() + 1;
        let mut selected = vec![];
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = axis_of(axis, rank)?;
            if axis == 0 && (start, step) == (0, 1) && !(0..1).contains(&end) {
                continue; // All images.
            }
            let axis = self.axis(x, axis as i64)?;
            let places = slice_places(self.graph.shape(x)[axis], start, end, step)?;
            selected.push((axis, places.into_iter().map(|p| Some(p as u32)).collect()));
        }
        self.select(r, x, SelectKind::Slice, selected, 0.0)
    }

    fn gather(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let axis = self.axis(x, r.int("axis", 0))?;
        let index = self.constant_input(r, 1).ok_or("its indices must be constant")?;
        let indices = index.as_ints().ok_or("its indices must be integers")?;
        let mut shape = self.graph.shape(x).to_vec();
        let place = |&i: &i64| Ok(Some(axis_of(i, shape[axis])? as u32));
        let places: Places = indices.iter().map(place).collect::<Result<_, String>>()?;
        let y = self.select(r, x, SelectKind::Slice, vec![(axis, places)], 0.0)?;
        shape.splice(axis..=axis, index.dims.iter().copied());
        self.shaped(r, y, shape)
    }

    fn split(&mut self, r: &Reading<'_>) -> Result<Vec<ValueId>, Refusal> {
        let x = self.value(r, 0)?;
        let axis = self.axis(x, r.int("axis", 0))?;
        let (extent, parts) = (self.graph.shape(x)[axis], r.node.output.len());
        let sizes: Vec<usize> = match self.list(r, "split", 1)? {
            Some(sizes) => sizes
                .iter()
                .map(|&s| usize::try_from(s).map_err(|_| "its sizes are negative"))
                .collect::<Result<_, _>>()?,
            None => {
                let each = extent.div_ceil(parts);
                (0..parts).map(|p| each.min(extent.saturating_sub(p * each))).collect()
            }
        };
        if sizes.len() != parts || sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s)) != Some(extent) {
            return Err(format!("cannot split {extent} into {sizes:?}").into());
        }
        let mut start = 0u32;
        let mut values = vec![];
        for size in sizes {
            let places = (start..start + size as u32).map(Some).collect();
            values.push(self.select(r, x, SelectKind::Slice, vec![(axis, places)], 0.0)?);
            start += size as u32;
        }
        Ok(values)
    }

    fn pad(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let pads = self.list(r, "pads", 1)?.ok_or("has no pads")?;
        let rank = self.graph.shape(x).len() + 1;
        let axes = self.ints(r, 3)?.unwrap_or_else(|| (0..rank as i64).collect());
        if pads.len() != 2 * axes.len() {
            return Err(format!("its pads must be {} numbers, got {pads:?}", 2 * axes.len()).into());
        }
        let (mode, fill) = (r.text("mode", "constant"), self.fill(r)?);
        let mut selected = vec![];
        for (i, &axis) in axes.iter().enumerate() {
            let (before, after) = (pads[i], pads[i + axes.len()]);
            if (before, after) == (0, 0) {
                continue;
            }
            let axis = self.axis(x, axis)?;
            let n = self.graph.shape(x)[axis] as i64;
            let end = n.checked_add(after).filter(|&e| e - before.min(0) < MAX_EXTENT as i64);
            let (Some(end), true) = (end, before > -n && before < MAX_EXTENT as i64) else {
                return Err(format!("its pads {pads:?} are out of range").into());
            };
            let place = |p: i64| -> Result<Option<u32>, Refusal> {
                let inside = match mode.as_str() {
                    "constant" => Some(p).filter(|p| (0..n).contains(p)),
                    "edge" => Some(p.clamp(0, n - 1)),
                    "reflect" => {
                        let p = if p < 0 { -p } else { p };
                        Some(if p >= n { 2 * (n - 1) - p } else { p }).filter(|p| (0..n).contains(p))
                    }
                    other => return Err(format!("its mode \"{other}\" is not supported").into()),
                };
                if inside.is_none() && mode != "constant" {
                    return Err("reflects more than there is".into());
                }
                Ok(inside.map(|p| p as u32))
            };
            selected.push((axis, (-before..end).map(place).collect::<Result<Places, _>>()?));
        }
        self.select(r, x, SelectKind::Pad, selected, fill)
    }

    fn resize(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let upsample = r.node.op_type == "Upsample";
        let mode = r.text("mode", "nearest");
        if mode != "nearest" {
            return Err(Refusal {
                reason: format!("interpolates ({mode})"),
                remedy: "only \"nearest\" is supported: use it, or resize images before the network".into(),
            });
        }
        let dims = self.batched(x);
        let old = upsample || self.opset < 11;
        let scales = match (r.attribute("scales"), old) {
            (Some(a), _) => Some(a.floats.clone()),
            (None, true) => self.weights(r, 1)?.map(|w| w.1),
            (None, false) => self.weights(r, 2)?.map(|w| w.1).filter(|s| !s.is_empty()),
        };
        let sizes = if old { None } else { self.ints(r, 3)? };
        let axes: Vec<usize> = match r.list("axes") {
            Some(axes) => axes.iter().map(|&a| axis_of(a, dims.len())).collect::<Result<_, _>>()?,
            None => (0..dims.len()).collect(),
        };
        let floor = |n: usize, s: f32| (n as f64 * f64::from(s)).floor() as usize;
        let (sizes, scales): (Vec<usize>, Vec<f64>) = match (sizes, scales) {
            (Some(sizes), _) if sizes.len() == axes.len() => {
                let size = |&s: &i64| usize::try_from(s).map_err(|_| "its sizes are negative");
                let sizes: Vec<usize> = sizes.iter().map(size).collect::<Result<_, _>>()?;
                let scales = sizes.iter().zip(&axes).map(|(&s, &a)| s as f64 / dims[a] as f64).collect();
                (sizes, scales)
            }
            (None, Some(scales)) if scales.len() == axes.len() => (
                axes.iter().zip(&scales).map(|(&a, &s)| floor(dims[a], s)).collect(),
                scales.iter().map(|&s| f64::from(s)).collect(),
            ),
            _ => return Err("has neither sizes nor scales for its dimensions".into()),
        };
        if r.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
            return Err("keeps an aspect ratio".into());
        }
        let transform = r.text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" });
        let rounding = r.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" });
        let mut selected = vec![];
        for ((&axis, &size), &scale) in axes.iter().zip(&sizes).zip(&scales) {
            let n = dims[axis];
            if size == n && scale == 1.0 {
                continue;
            }
            if size == 0 || size > MAX_EXTENT {
                return Err(format!("gives axis {axis} the size {size}, 1 to {MAX_EXTENT} are supported").into());
            }
            let place = |o: usize| -> Result<Option<u32>, Refusal> {
                let o = o as f64;
                let at = match transform.as_str() {
                    "asymmetric" => o / scale,
                    "half_pixel" => (o + 0.5) / scale - 0.5,
                    "pytorch_half_pixel" => {
                        if size > 1 {
                            (o + 0.5) / scale - 0.5
                        } else {
                            0.0
                        }
                    }
                    "align_corners" => {
                        if size > 1 {
                            o * (n - 1) as f64 / (size - 1) as f64
                        } else {
                            0.0
                        }
                    }
                    "half_pixel_symmetric" => {
                        let adjusted = size as f64 / (n as f64 * scale);
                        let offset = n as f64 / 2.0 * (1.0 - adjusted);
                        offset + (o + 0.5) / scale - 0.5
                    }
                    other => {
                        return Err(format!("its coordinate_transformation_mode \"{other}\" is not supported").into());
                    }
                };
                let whole = match rounding.as_str() {
                    "floor" => at.floor(),
                    "ceil" => at.ceil(),
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    "round_prefer_floor" => (at - 0.5).ceil(),
                    other => return Err(format!("its nearest_mode \"{other}\" is not supported").into()),
                };
                Ok(Some(whole.clamp(0.0, (n - 1) as f64) as u32))
            };
            let places = (0..size).map(place).collect::<Result<Places, _>>()?;
            selected.push((self.axis(x, axis as i64)?, places));
        }
        self.select(r, x, SelectKind::Resize, selected, 0.0)
    }

    /// DepthToSpace and SpaceToDepth: a shape, an order, a shape.
    fn blocks(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
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

    fn softmax(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let log = r.node.op_type == "LogSoftmax";
        if self.opset >= 13 {
            let axis = self.axis(x, r.int("axis", -1))?;
            return self.push(r, Op::Softmax { axis, log }, vec![x]);
        }
        // Older sets take everything from the axis on as one line.
        let axis = self.axis(x, r.int("axis", 1))?;
        let shape = self.graph.shape(x).to_vec();
        let lines = [&shape[..axis], &[shape[axis..].iter().product()]].concat();
        let flat = self.shaped(r, x, lines)?;
        let y = self.push(r, Op::Softmax { axis, log }, vec![flat])?;
        self.shaped(r, y, shape)
    }

    fn reduce(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let axes = self.list(r, "axes", 1)?.filter(|a| !a.is_empty());
        let Some(axes) = axes else {
            if r.int("noop_with_empty_axes", 0) != 0 {
                return Ok(x);
            }
            return Err("reduces the batch too: name its axes".into());
        };
        let mut axes: Vec<usize> = axes.iter().map(|&a| self.axis(x, a)).collect::<Result<_, _>>()?;
        axes.sort_unstable();
        axes.dedup();
        let keep = r.int("keepdims", 1) != 0;
        if !keep && axes.len() == self.graph.shape(x).len() {
            return Err("leaves nothing but the batch dimension: keep one (keepdims)".into());
        }
        if r.node.op_type == "ReduceMean" {
            return self.push(r, Op::Mean { axes, keep }, vec![x]);
        }
        // The largest of all positions is a pool with one window.
        let shape = self.graph.shape(x).to_vec();
        let (kernel, planes) = match (&shape[..], &axes[..]) {
            (&[_, h, w], [1, 2]) => ([h, w], x),
            (&[channels, length], [1]) => ([length, 1], self.shaped(r, x, vec![channels, length, 1])?),
            _ => return Err("takes the largest over other axes than all positions of a plane".into()),
        };
        let ([stride, dilation], padding) = ([[1, 1]; 2], [0; 4]);
        let pool = Pool { kernel, stride, dilation, padding, count_padding: false, ceil: false };
        let y = self.push(r, Op::MaxPool(pool), vec![planes])?;
        let ones = if keep { axes.len() } else { 0 };
        self.shaped(r, y, [&shape[..1], &[1, 1][..ones]].concat())
    }
}
