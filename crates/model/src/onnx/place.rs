//! Reads nodes that take elements from other places: slices, padding, repetition.

use super::constant::axis_of;
use super::fold_places::{gathered_dims, scattered, slice_places};
use super::importer::Importer;
use super::reading::{Operand, Outcome, Reading};
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Constant, Op, Select, SelectKind};
use crate::shape_inference;

/// ONNX operators that are read here.
pub(super) const OPERATORS: [&str; 10] =
    ["Expand", "Gather", "GatherND", "Pad", "Resize", "ScatterND", "Slice", "Split", "Tile", "Upsample"];

/// The places of an axis that an output takes; `None` stands for the value that fills.
pub(super) type Places = Vec<Option<u32>>;

/// Longest axis that padding, repeating or enlarging may make: its places are listed, and a file of
/// a few bytes can ask for any number.
pub(super) const MAX_EXTENT: usize = 1 << 20;

impl Importer<'_, '_> {
    pub(super) fn place(&mut self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        let value = match r.node.op_type.as_str() {
            "Split" => return self.split(r).map(Outcome::Values),
            "Slice" => self.slice(r)?,
            "Gather" => self.gather(r)?,
            "GatherND" => self.gather_nd(r)?,
            "Pad" => self.pad(r)?,
            "Tile" => self.tile(r)?,
            "Expand" => self.expand(r)?,
            "ScatterND" => self.scatter(r)?,
            _ => self.resize(r)?,
        };
        Ok(Outcome::Value(value))
    }

    /// Appends a selection of elements of `x`: along each of the `axes`, the elements at the places
    /// that are listed, or `fill` where there is none. `kind` is the ONNX operator that it stands
    /// for. Axes that stay as they are need no node.
    pub(super) fn select(
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

    /// Appends a selection of elements along axes that are counted as in the file.
    pub(super) fn select_along(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        kind: SelectKind,
        selected: Vec<(i64, Places)>,
        fill: f32,
    ) -> Result<ValueId, Refusal> {
        let (axes, places): (Vec<i64>, Vec<Places>) = selected.into_iter().unzip();
        let (x, axes) = self.along(r, x, &axes)?;
        let y = self.select(r, x, kind, axes.into_iter().zip(places).collect(), fill)?;
        self.settled(r, y)
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
        let dims = self.dims(x);
        let mut selected = vec![];
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = axis_of(axis, dims.len())?;
            let places = slice_places(dims[axis], start, end, step)?;
            // The whole of an axis, all images among them, is no selection.
            if !places.iter().copied().eq(0..dims[axis]) {
                selected.push((axis as i64, places.into_iter().map(|p| Some(p as u32)).collect()));
            }
        }
        self.select_along(r, x, SelectKind::Slice, selected, 0.0)
    }

    fn gather(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let mut dims = self.dims(x);
        let axis = axis_of(r.int("axis", 0), dims.len())?;
        let index = self.constant_input(r, 1).ok_or_else(|| {
            Refusal::new(
                "takes places that depend on the image",
                "end the network before it, or export with fixed sizes",
            )
        })?;
        let indices = index.as_ints().ok_or("its indices must be integers")?;
        let place = |&i: &i64| Ok(Some(axis_of(i, dims[axis])? as u32));
        let places: Places = indices.iter().map(place).collect::<Result<_, String>>()?;
        let (x, own) = self.along(r, x, &[axis as i64])?;
        let y = self.select(r, x, SelectKind::Slice, vec![(own[0], places)], 0.0)?;
        dims.splice(axis..=axis, index.dims.iter().copied());
        self.reshaped(r, y, &dims)
    }

    /// Appends a selection of whole sub-arrays at constant places, taken from one list.
    fn gather_nd(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let index = self.constant_input(r, 1).ok_or_else(|| {
            Refusal::new(
                "takes places that depend on the image",
                "end the network before it, or export with fixed sizes",
            )
        })?;
        if r.int("batch_dims", 0) != 0 {
            return Err("takes other places of every image (batch_dims)".into());
        }
        let dims = self.dims(x);
        let places = scattered(&dims, &index)?;
        if places.len() > MAX_EXTENT {
            return Err("is too large".into());
        }
        let list = self.reshaped(r, x, &[dims.iter().product()])?;
        let places = places.into_iter().map(|p| Some(p as u32)).collect();
        let y = self.select(r, list, SelectKind::Slice, vec![(0, places)], 0.0)?;
        self.reshaped(r, y, &gathered_dims(&dims, &index.dims))
    }

    fn split(&mut self, r: &Reading<'_>) -> Result<Vec<ValueId>, Refusal> {
        let x = self.value(r, 0)?;
        let dims = self.dims(x);
        let axis = axis_of(r.int("axis", 0), dims.len())?;
        let (extent, parts) = (dims[axis], r.node.output.len());
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
            values.push(self.select_along(r, x, SelectKind::Slice, vec![(axis as i64, places)], 0.0)?);
            start += size as u32;
        }
        Ok(values)
    }

    fn pad(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let pads = self.list(r, "pads", 1)?.ok_or("has no pads")?;
        let dims = self.dims(x);
        let axes = self.ints(r, 3)?.unwrap_or_else(|| (0..dims.len() as i64).collect());
        if pads.len() != 2 * axes.len() {
            return Err(format!("its pads must be {} numbers, got {pads:?}", 2 * axes.len()).into());
        }
        let (mode, fill) = (r.text("mode", "constant"), self.scalar(r, 2, "value", 0.0)?);
        let mut selected = vec![];
        for (i, &axis) in axes.iter().enumerate() {
            let (before, after) = (pads[i], pads[i + axes.len()]);
            if (before, after) == (0, 0) {
                continue;
            }
            let n = dims[axis_of(axis, dims.len())?] as i64;
            let end = n.checked_add(after).filter(|&e| e - before.min(0) < MAX_EXTENT as i64);
            let (Some(end), true) = (end, before > -n && before < MAX_EXTENT as i64) else {
                return Err(format!("its pads {pads:?} are out of range").into());
            };
            let place = |p: i64| -> Result<Option<u32>, Refusal> {
                let inside = match mode.as_str() {
                    "constant" => Some(p).filter(|p| (0..n).contains(p)),
                    "edge" => Some(p.clamp(0, n - 1)),
                    "wrap" => Some(p.rem_euclid(n)),
                    "reflect" => {
                        let p = if p < 0 { -p } else { p };
                        Some(if p >= n { 2 * (n - 1) - p } else { p }).filter(|p| (0..n).contains(p))
                    }
                    other => return Err(format!("its mode \"{other}\" is unknown").into()),
                };
                if inside.is_none() && mode != "constant" {
                    return Err("reflects more than there is".into());
                }
                Ok(inside.map(|p| p as u32))
            };
            selected.push((axis, (-before..end).map(place).collect::<Result<Places, _>>()?));
        }
        self.select_along(r, x, SelectKind::Pad, selected, fill)
    }

    /// Appends a repetition of everything along its axes.
    fn tile(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let repeats = self.ints(r, 1)?.ok_or("has no repeats")?;
        let dims = self.dims(x);
        if repeats.len() != dims.len() {
            return Err(format!("has {} repeats for {} dimensions", repeats.len(), dims.len()).into());
        }
        let mut selected = vec![];
        for (axis, (&times, &extent)) in repeats.iter().zip(&dims).enumerate().filter(|(_, (times, _))| **times != 1) {
            let times = usize::try_from(times).ok().filter(|&t| t > 0 && t.saturating_mul(extent) <= MAX_EXTENT);
            let times = times.ok_or_else(|| format!("repeats an axis of {extent} too often, or not at all"))?;
            let once = 0..extent as u32;
            selected.push((axis as i64, (0..times).flat_map(|_| once.clone()).map(Some).collect()));
        }
        self.select_along(r, x, SelectKind::Tile, selected, 0.0)
    }

    /// Appends a repetition of single elements, as often as another shape says.
    fn expand(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let wanted = self.ints(r, 1)?.ok_or("has no shape")?;
        let wanted: Vec<usize> = wanted
            .iter()
            .map(|&d| usize::try_from(d))
            .collect::<Result<_, _>>()
            .map_err(|_| "has a negative extent")?;
        let mut dims = self.dims(x);
        let target = shape_inference::broadcast(&dims, &wanted)?;
        if target.iter().any(|&d| d > MAX_EXTENT) {
            return Err(format!("makes an axis longer than {MAX_EXTENT}").into());
        }
        let x = if target.len() > dims.len() {
            dims.splice(0..0, std::iter::repeat_n(1, target.len() - dims.len()));
            self.reshaped(r, x, &dims)?
        } else {
            x
        };
        let more = dims.iter().zip(&target).enumerate().filter(|(_, (own, wanted))| own != wanted);
        let selected = more.map(|(axis, (_, &wanted))| (axis as i64, vec![Some(0); wanted])).collect();
        self.select_along(r, x, SelectKind::Expand, selected, 0.0)
    }

    /// Appends a value with parts replaced at constant places: value and updates are put into one
    /// list, from which the result takes its elements.
    fn scatter(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        if !matches!(r.text("reduction", "none").as_str(), "none") {
            return Err("combines what it replaces (reduction)".into());
        }
        let index = self.constant_input(r, 1).ok_or_else(|| {
            Refusal::new(
                "writes to places that depend on the image",
                "end the network before it, or export with fixed sizes",
            )
        })?;
        let dims = match self.operand(r, 0)? {
            Operand::Value(v) => self.dims(v),
            Operand::Constant(c) => c.dims.clone(),
        };
        let written = scattered(&dims, &index)?;
        let total: usize = dims.iter().product();
        if total + written.len() > MAX_EXTENT {
            return Err("is too large".into());
        }
        let mut places: Places = (0..total as u32).map(Some).collect();
        written.iter().enumerate().for_each(|(i, &at)| places[at] = Some((total + i) as u32));
        // A constant among the two: zeros in its places, then it is added.
        let mut constant = vec![0.0; total];
        let mut lists = vec![];
        for (i, count) in [(0, total), (2, written.len())] {
            match self.operand(r, i)? {
                Operand::Value(v) => lists.push(self.reshaped(r, v, &[count])?),
                Operand::Constant(_) => {
                    let (_, data) = self.weights(r, i)?.ok_or("has an input that is missing")?;
                    let from = if i == 0 { 0 } else { total };
                    for (slot, place) in constant.iter_mut().zip(&mut places) {
                        let at = place.and_then(|p| (p as usize).checked_sub(from)).filter(|&p| p < count);
                        if let Some(at) = at {
                            (*slot, *place) =
                                (*data.get(at).ok_or("has updates of another number than its indices name")?, None);
                        } else if let (Some(p), 0) = (place.as_mut(), from) {
                            *p -= total as u32;
                        }
                    }
                }
            }
        }
        let joined = match lists[..] {
            [one] => one,
            _ => self.push(r, Op::Concat(0), lists)?,
        };
        let y = self.select(r, joined, SelectKind::Slice, vec![(0, places)], 0.0)?;
        let y = if constant.iter().any(|&v| v != 0.0) {
            let constant = Constant { shape: vec![total], data: constant };
            let op = Op::WithConstant { op: crate::op::Arithmetic::Add, constant, constant_first: false };
            self.push(r, op, vec![y])?
        } else {
            y
        };
        self.reshaped(r, y, &dims)
    }
}
