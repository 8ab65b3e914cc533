//! Computes little programs over constants. Exporters write shapes as such programs, in which
//! integers must stay exact.

use super::constant::{Constant, Values, axis_of, kind};
use super::fold_arithmetic::{arithmetic, compares};
use super::fold_places::{MAX_DIMS, gather_nd, scatter, slice_places, squeezed, target, unsqueezed};
use super::importer::Importer;
use super::reading::{Outcome, Reading};
use super::refusal::Refusal;
use crate::shape_inference::{self, spread, strides, walk};
use crate::tensor::elements;

/// ONNX operators that are computed from constants (and shapes) only.
pub(super) const OPERATORS: [&str; 10] =
    ["Constant", "ConstantOfShape", "CumSum", "EyeLike", "IsNaN", "Mod", "NonZero", "Range", "Shape", "Size"];

/// Attributes that [`fold`] looks at.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) axis: Option<i64>,
    pub(super) axes: Option<&'a [i64]>,
    pub(super) order: Option<&'a [i64]>,
    pub(super) to: i32,
    pub(super) fmod: bool,
}

impl Importer<'_, '_> {
    /// Computes a node whose outputs depend on no value of the image; returns `None` if they do.
    pub(super) fn folded(&mut self, r: &Reading<'_>) -> Option<Result<Outcome, Refusal>> {
        match r.node.op_type.as_str() {
            "Shape" | "Size" => return Some(self.shape_of(r).map(Outcome::Constant)),
            "EyeLike" => return Some(self.eye_like(r).map(Outcome::Constant)),
            // Like a value that is computed: a float.
            "CastLike" if self.constant_input(r, 0).is_some() && self.constant_input(r, 1).is_none() => {
                let c = self.constant_input(r, 0)?;
                let floats = c.floats().ok_or_else(|| Refusal::from("is of a type that is not read"));
                let constant = |v| Outcome::Constant(Constant { dims: c.dims.clone(), values: Values::Float(v) });
                return Some(floats.map(constant));
            }
            _ => {}
        }
        let names = r.node.input.iter().filter(|n| !n.is_empty());
        let mut inputs: Vec<_> = names.map(|n| self.constants.get(n).cloned()).collect::<Option<_>>()?;
        let first = inputs.first()?.clone();
        match r.node.op_type.as_str() {
            "ConstantOfShape" => return Some(self.filled(r, &first).map(Outcome::Constant)),
            "Identity" | "Dropout" => return Some(Ok(Outcome::Constant(Constant::clone(&first)))),
            _ => {}
        }
        if r.node.op_type == "Slice" && inputs.len() == 1 {
            // Bounds were attributes before operator set 10.
            let bounds = ["starts", "ends", "axes"].into_iter().map_while(|name| r.list(name));
            inputs.extend(bounds.map(|list| std::rc::Rc::new(Constant::ints(list.to_vec()))));
        }
        let inputs: Vec<&Constant> = inputs.iter().map(|c| &**c).collect();
        let attributes = Attributes {
            axis: r.attribute("axis").map(|a| a.i),
            axes: r.list("axes").or(r.list("shape")),
            order: r.list("perm"),
            to: r.int("to", 0) as i32,
            fmod: r.int("fmod", 0) != 0,
        };
        match fold(&r.node.op_type, &inputs, &attributes) {
            Some(folded) => Some(folded.map(Outcome::Constant).map_err(Refusal::from)),
            None => Some(self.evaluated(r)),
        }
    }

    /// Computes `Shape` and `Size`, with the batch dimension of a single image.
    fn shape_of(&self, r: &Reading<'_>) -> Result<Constant, Refusal> {
        let dims: Vec<i64> = match self.constant_input(r, 0) {
            Some(c) => c.dims.iter().map(|&d| d as i64).collect(),
            None => self.dims(self.value(r, 0)?).iter().map(|&d| d as i64).collect(),
        };
        if r.node.op_type == "Size" {
            return Ok(Constant { dims: vec![], values: Values::Int(vec![dims.iter().product()]) });
        }
        let bound = |name, default| {
            let v = r.int(name, default);
            (if v < 0 { v.saturating_add(dims.len() as i64) } else { v }).clamp(0, dims.len() as i64) as usize
        };
        let (start, end) = (bound("start", 0), bound("end", i64::MAX));
        Ok(Constant::ints(dims.get(start..end).unwrap_or_default().to_vec()))
    }

    /// Makes a matrix of another value's shape with ones on a diagonal.
    fn eye_like(&self, r: &Reading<'_>) -> Result<Constant, Refusal> {
        let dims = match self.constant_input(r, 0) {
            Some(c) => c.dims.clone(),
            None => self.dims(self.value(r, 0)?),
        };
        let &[rows, cols] = &dims[..] else { return Err("makes a diagonal of something that is no matrix".into()) };
        elements(&dims).filter(|&n| n <= self.foldable()).ok_or("is too large")?;
        let k = r.int("k", 0);
        let one = |i: usize| f32::from(u8::from((i % cols) as i64 - (i / cols) as i64 == k));
        Ok(Constant { dims, values: Values::Float((0..rows * cols).map(one).collect()) })
    }

    /// Makes a constant that has one value everywhere.
    fn filled(&self, r: &Reading<'_>, shape: &Constant) -> Result<Constant, Refusal> {
        let dims = shape.as_ints().ok_or("has a shape that is no list of integers")?;
        let dims = dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| "has a negative extent")?;
        let n = elements(&dims).filter(|&n| n <= self.foldable()).ok_or("is too large")?;
        let one = match r.attribute("value").and_then(|a| a.t.as_ref()) {
            // Nothing of what a file beside the model holds is a single number.
            Some(t) => Constant::read(t, &mut |_| Err("its value lies in another file".into()))?.values,
            None => Values::Float(vec![0.0]),
        };
        let values = match one {
            Values::Float(v) => Values::Float(vec![*v.first().ok_or("has no value")?; n]),
            Values::Int(v) => Values::Int(vec![*v.first().ok_or("has no value")?; n]),
            Values::Unread(_) => return Err("has a value of a type that is not read".into()),
        };
        Ok(Constant { dims, values })
    }
}

/// Computes an operator on constants; returns `None` if it is not computed here.
pub(super) fn fold(op: &str, inputs: &[&Constant], attributes: &Attributes<'_>) -> Option<Result<Constant, String>> {
    let first = inputs.first()?;
    Some(match (op, inputs) {
        ("Gather", [c, index]) => gather(c, index, attributes.axis.unwrap_or(0)),
        ("Concat", _) => concat(inputs, attributes.axis?),
        ("Unsqueeze" | "Squeeze" | "Reshape", _) => {
            reshape(op, first, inputs.get(1).and_then(|c| c.as_ints()), attributes)
        }
        ("Transpose", _) => transpose(first, attributes.order),
        ("Cast", _) => cast(first, attributes.to),
        ("CastLike", [_, like]) => cast(first, if like.as_ints().is_some() { kind::INT64 } else { kind::FLOAT }),
        ("Slice", _) => slice(first, &inputs[1..]),
        ("Max" | "Min" | "Sum", [_, _, ..]) => {
            let op = if op == "Sum" { "Add" } else { op };
            let step = |all: Result<Constant, String>, c: &&Constant| arithmetic(op, &all?, c, false);
            inputs[1..].iter().fold(Ok(Constant::clone(first)), step)
        }
        ("Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod", &[a, b]) => arithmetic(op, a, b, attributes.fmod),
        (_, &[a, b]) if compares(op) => arithmetic(op, a, b, false),
        ("Not", _) => each(first, |v| f32::from(u8::from(v == 0.0)), Some(|v| i64::from(v == 0))),
        ("IsNaN", _) => each(first, |v| f32::from(u8::from(v.is_nan())), Some(|_| 0)),
        ("Expand", [_, shape]) => expand(first, shape),
        ("Where", [condition, a, b]) => choose(condition, a, b),
        ("Range", [start, limit, step]) => range(start, limit, step),
        ("NonZero", [c]) => non_zero(c),
        ("ScatterND", [c, indices, updates]) => scatter(c, indices, updates),
        ("GatherND", [c, indices]) => gather_nd(c, indices),
        ("CumSum", [c, axis]) => cumulated(c, axis.as_ints().and_then(|a| a.first().copied())?),
        ("Sin", _) => each(first, f32::sin, None),
        ("Cos", _) => each(first, f32::cos, None),
        ("Tan", _) => each(first, f32::tan, None),
        ("Sqrt", _) => each(first, f32::sqrt, None),
        ("Reciprocal", _) => each(first, f32::recip, None),
        ("Floor", _) => each(first, f32::floor, None),
        ("Ceil", _) => each(first, f32::ceil, None),
        ("Neg", _) => each(first, |v| -v, Some(i64::wrapping_neg)),
        ("Abs", _) => each(first, f32::abs, Some(i64::wrapping_abs)),
        ("Sign", _) => each(first, |v| f32::from(i8::from(v > 0.0) - i8::from(v < 0.0)), Some(i64::signum)),
        _ => return None,
    })
}

/// Applies a function to every value; integers have one of their own.
fn each(c: &Constant, float: fn(f32) -> f32, int: Option<fn(i64) -> i64>) -> Result<Constant, String> {
    let values = match (&c.values, int) {
        (Values::Int(v), Some(int)) => Values::Int(v.iter().copied().map(int).collect()),
        _ => Values::Float(c.floats().ok_or("is of an unknown type")?.into_iter().map(float).collect()),
    };
    Ok(Constant { dims: c.dims.clone(), values })
}

/// Returns the elements at the given places, of either type.
pub(super) fn pick(c: &Constant, dims: Vec<usize>, places: impl Iterator<Item = usize>) -> Result<Constant, String> {
    fn at<T: Copy>(v: &[T], places: impl Iterator<Item = usize>) -> Option<Vec<T>> {
        places.map(|i| v.get(i).copied()).collect()
    }
    let values = match &c.values {
        Values::Float(v) => at(v, places).map(Values::Float),
        Values::Int(v) => at(v, places).map(Values::Int),
        Values::Unread(_) => None,
    };
    Ok(Constant { dims, values: values.ok_or("takes elements that are not there")? })
}

fn gather(c: &Constant, index: &Constant, axis: i64) -> Result<Constant, String> {
    let axis = axis_of(axis, c.dims.len())?;
    let extent = c.dims[axis];
    let indices = index.as_ints().ok_or("its indices are not integers")?;
    let indices: Vec<usize> = indices.iter().map(|&i| axis_of(i, extent)).collect::<Result<_, _>>()?;
    let (outer, inner): (usize, usize) = (c.dims[..axis].iter().product(), c.dims[axis + 1..].iter().product());
    let dims = [&c.dims[..axis], &index.dims[..], &c.dims[axis + 1..]].concat();
    elements(&dims).ok_or("is too large")?;
    let places = (0..outer)
        .flat_map(|o| indices.iter().flat_map(move |&i| (0..inner).map(move |k| (o * extent + i) * inner + k)));
    pick(c, dims.clone(), places.collect::<Vec<_>>().into_iter())
}

fn concat(inputs: &[&Constant], axis: i64) -> Result<Constant, String> {
    let first = inputs[0];
    let axis = axis_of(axis, first.dims.len())?;
    let alike = |c: &&&Constant| {
        c.dims.len() == first.dims.len() && (0..c.dims.len()).all(|d| d == axis || c.dims[d] == first.dims[d])
    };
    if inputs.iter().filter(alike).count() != inputs.len() {
        return Err("joins constants whose shapes do not fit".into());
    }
    let outer: usize = first.dims[..axis].iter().product();
    fn join<T: Copy>(parts: &[&[T]], outer: usize) -> Vec<T> {
        let row = |o: usize| parts.iter().flat_map(move |p| &p[o * (p.len() / outer)..(o + 1) * (p.len() / outer)]);
        (0..outer).flat_map(row).copied().collect()
    }
    let mut dims = first.dims.clone();
    dims[axis] = inputs.iter().map(|c| c.dims[axis]).sum();
    elements(&dims).ok_or("is too large")?;
    let ints: Option<Vec<&[i64]>> = inputs.iter().map(|c| c.as_ints()).collect();
    let values = match ints {
        Some(ints) => Values::Int(join(&ints, outer.max(1))),
        None => {
            let floats: Option<Vec<Vec<f32>>> = inputs.iter().map(|c| c.floats()).collect();
            let floats = floats.ok_or("joins unknown types")?;
            Values::Float(join(&floats.iter().map(Vec::as_slice).collect::<Vec<_>>(), outer.max(1)))
        }
    };
    Ok(Constant { dims, values })
}

fn reshape(op: &str, c: &Constant, given: Option<&[i64]>, attributes: &Attributes<'_>) -> Result<Constant, String> {
    let given = given.or(attributes.axes);
    let dims = match op {
        "Reshape" => target(&c.dims, given.ok_or("has no target shape")?, false)?,
        "Unsqueeze" => unsqueezed(&c.dims, given.ok_or("has no axes")?)?,
        _ => squeezed(&c.dims, given)?,
    };
    Ok(Constant { dims, values: c.values.clone() })
}

fn transpose(c: &Constant, order: Option<&[i64]>) -> Result<Constant, String> {
    let rank = c.dims.len();
    let order: Vec<usize> = match order {
        Some(order) => order.iter().map(|&d| axis_of(d, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut seen = order.clone();
    seen.sort_unstable();
    if !seen.into_iter().eq(0..rank) {
        return Err(format!("{order:?} is no order of {rank} dimensions"));
    }
    let dims: Vec<usize> = order.iter().map(|&d| c.dims[d]).collect();
    let own = strides(&c.dims);
    let strides: Vec<usize> = order.iter().map(|&d| own[d]).collect();
    pick(c, dims.clone(), walk(&dims, &strides))
}

fn cast(c: &Constant, to: i32) -> Result<Constant, String> {
    let values = match to {
        kind::FLOAT | kind::DOUBLE | kind::FLOAT16 | kind::BFLOAT16 => {
            Values::Float(c.floats().ok_or("is of an unknown type")?)
        }
        _ => match &c.values {
            Values::Float(v) => Values::Int(v.iter().map(|&v| v as i64).collect()),
            other => other.clone(),
        },
    };
    Ok(Constant { dims: c.dims.clone(), values })
}

fn slice(c: &Constant, bounds: &[&Constant]) -> Result<Constant, String> {
    let list = |i: usize| bounds.get(i).map(|c| c.as_ints().ok_or("its bounds are not integers")).transpose();
    let (Some(starts), Some(ends)) = (list(0)?, list(1)?) else { return Err("has no bounds".into()) };
    let (axes, steps) = (list(2)?, list(3)?);
    let mut places: Vec<Vec<usize>> = c.dims.iter().map(|&d| (0..d).collect()).collect();
    for (i, (&start, &end)) in starts.iter().zip(ends).enumerate() {
        let axis = axes.map_or(Some(i as i64), |a| a.get(i).copied()).ok_or("has more bounds than axes")?;
        let (axis, step) = (axis_of(axis, c.dims.len())?, steps.and_then(|s| s.get(i)).copied().unwrap_or(1));
        places[axis] = slice_places(c.dims[axis], start, end, step)?;
    }
    // Row-major positions, axis by axis.
    let flat = places.iter().zip(&c.dims).fold(vec![0], |flat, (places, extent)| {
        flat.iter().flat_map(|f| places.iter().map(move |p| f * extent + p)).collect()
    });
    pick(c, places.iter().map(Vec::len).collect(), flat.into_iter())
}

/// Returns the shape that operands broadcast to, aligned at the last dimension. Its size is
/// bounded, as a few bytes can ask for a lot: two lists make a table of any size, whereas weights
/// and their factors make no more than there is.
pub(super) fn broadcast(operands: &[&Constant], target: &[usize]) -> Result<Vec<usize>, String> {
    let rank = operands.iter().map(|c| c.dims.len()).fold(target.len(), usize::max);
    if rank > MAX_DIMS {
        return Err(format!("has more than {MAX_DIMS} dimensions"));
    }
    let dims = operands.iter().try_fold(target.to_vec(), |dims, c| shape_inference::broadcast(&dims, &c.dims))?;
    let most = operands.iter().map(|c| 4 * c.len()).sum::<usize>().max(1 << 20);
    elements(&dims).filter(|&n| n <= most).ok_or("is too large")?;
    Ok(dims)
}

fn expand(c: &Constant, shape: &Constant) -> Result<Constant, String> {
    let target = shape.as_ints().ok_or("has a shape that is no list of integers")?;
    let target: Vec<usize> =
        target.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>().map_err(|_| "has a negative extent")?;
    let dims = broadcast(&[c], &target)?;
    pick(c, dims.clone(), walk(&dims, &spread(&dims, &c.dims)))
}

fn choose(condition: &Constant, a: &Constant, b: &Constant) -> Result<Constant, String> {
    fn pick<T: Copy>(mask: &[f32], a: &[T], b: &[T], dims: &[usize], strides: [Vec<usize>; 3]) -> Vec<T> {
        let [of_mask, of_a, of_b] = strides.each_ref().map(|strides| walk(dims, strides));
        let places = of_mask.zip(of_a).zip(of_b);
        places.map(|((c, i), j)| if mask[c] != 0.0 { a[i] } else { b[j] }).collect()
    }
    let dims = broadcast(&[condition, a, b], &[])?;
    let strides = [condition, a, b].map(|c| spread(&dims, &c.dims));
    let unknown = "chooses between constants of unknown types";
    let mask = condition.floats().ok_or(unknown)?;
    let values = match (a.as_ints(), b.as_ints()) {
        (Some(a), Some(b)) => Values::Int(pick(&mask, a, b, &dims, strides)),
        _ => {
            let (a, b) = (a.floats().ok_or(unknown)?, b.floats().ok_or(unknown)?);
            Values::Float(pick(&mask, &a, &b, &dims, strides))
        }
    };
    Ok(Constant { dims, values })
}

/// Returns `start, start + step, ...` up to `limit`.
fn range(start: &Constant, limit: &Constant, step: &Constant) -> Result<Constant, String> {
    const MOST: f64 = (1 << 20) as f64;
    let one = |c: &Constant| c.floats().filter(|v| v.len() == 1).map(|v| f64::from(v[0]));
    if let (Some(&[start]), Some(&[limit]), Some(&[step])) = (start.as_ints(), limit.as_ints(), step.as_ints()) {
        let count = (limit as f64 - start as f64) / step as f64;
        if step == 0 || count > MOST {
            return Err("counts without end, or further than is supported".into());
        }
        let count = count.ceil().max(0.0) as i64;
        return Ok(Constant::ints((0..count).map(|i| start + i * step).collect()));
    }
    let (Some(start), Some(limit), Some(step)) = (one(start), one(limit), one(step)) else {
        return Err("counts between constants that are not single numbers".into());
    };
    let count = (limit - start) / step;
    if !count.is_finite() || count > MOST {
        return Err("counts without end, or further than is supported".into());
    }
    let values: Vec<f32> = (0..count.ceil().max(0.0) as usize).map(|i| (start + i as f64 * step) as f32).collect();
    Ok(Constant { dims: vec![values.len()], values: Values::Float(values) })
}

/// Returns the places of values that are not zero, one row for every dimension.
fn non_zero(c: &Constant) -> Result<Constant, String> {
    let values = c.floats().ok_or("is of an unknown type")?;
    let strides = strides(&c.dims);
    let places: Vec<usize> = (0..values.len()).filter(|&i| values[i] != 0.0).collect();
    let row = |d: usize| {
        let (stride, extent) = (strides[d], c.dims[d]);
        places.iter().map(move |&i| (i / stride % extent) as i64)
    };
    let ints = (0..c.dims.len()).flat_map(row).collect();
    Ok(Constant { dims: vec![c.dims.len(), places.len()], values: Values::Int(ints) })
}

/// Returns, for every element, the sum of all elements up to it along an axis.
fn cumulated(c: &Constant, axis: i64) -> Result<Constant, String> {
    let axis = axis_of(axis, c.dims.len())?;
    let (extent, run): (usize, usize) = (c.dims[axis], c.dims[axis + 1..].iter().product());
    fn sums<T: Copy>(v: &mut [T], extent: usize, run: usize, add: fn(T, T) -> T) {
        for block in v.chunks_exact_mut((extent * run).max(1)) {
            (run..block.len()).for_each(|i| block[i] = add(block[i], block[i - run]));
        }
    }
    let mut out = c.clone();
    match &mut out.values {
        Values::Int(v) => sums(v, extent, run, i64::wrapping_add),
        Values::Float(v) => sums(v, extent, run, |a, b| a + b),
        Values::Unread(_) => return Err("is of an unknown type".into()),
    }
    Ok(out)
}
