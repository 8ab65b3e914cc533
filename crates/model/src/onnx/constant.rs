//! Constants of a file, and what can be computed from constants alone: exporters write shapes as little programs.

use super::proto;
use crate::ModelError;
use crate::infer::{self, spread, strides, walk};
use crate::tensor::elements;

/// Element types of `onnx.proto`.
pub(super) mod kind {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const BFLOAT16: i32 = 16;
}

const EXTERNAL: i32 = 1;

/// Where a constant's bytes lie outside of the model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// File, relative to the model's folder.
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: usize,
}

/// Reads the bytes of an [`External`], or says why not.
pub type ReadExternal<'a> = &'a mut dyn FnMut(&External) -> Result<Vec<u8>, String>;

/// Values of a constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
    /// Of a type that no supported operator reads: reported where one needs it.
    Unread(i32),
}

/// A constant of the file, or one computed from constants.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) values: Values,
}

impl Constant {
    pub(super) fn ints(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], values: Values::Int(values) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::Float(v) => v.len(),
            Values::Int(v) => v.len(),
            Values::Unread(_) => 0,
        }
    }

    /// As 32-bit floats, whatever it is.
    pub(super) fn floats(&self) -> Option<Vec<f32>> {
        match &self.values {
            Values::Float(v) => Some(v.clone()),
            Values::Int(v) => Some(v.iter().map(|&v| v as f32).collect()),
            Values::Unread(_) => None,
        }
    }

    /// As integers, if it is of an integer type.
    pub(super) fn as_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(v) => Some(v),
            _ => None,
        }
    }

    /// Reads a tensor of the file.
    pub(super) fn read(t: &proto::TensorData, external: ReadExternal<'_>) -> Result<Self, ModelError> {
        let bad = |what: &str| ModelError::Onnx(format!("constant \"{}\": {what}", t.name));
        let dims: Option<Vec<usize>> = t.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims = dims.ok_or_else(|| bad("a dimension is negative"))?;
        let count = elements(&dims).ok_or_else(|| bad("it is too large"))?;
        let size = match t.data_type {
            kind::FLOAT | kind::INT32 => 4,
            kind::FLOAT16 | kind::BFLOAT16 => 2,
            kind::INT64 | kind::DOUBLE => 8,
            kind::UINT8 | kind::INT8 | kind::BOOL => 1,
            other => return Ok(Self { dims, values: Values::Unread(other) }),
        };
        let elsewhere = if t.data_location == EXTERNAL {
            let place = place(t, count * size).map_err(|why| bad(&why))?;
            let bytes = external(&place).map_err(|why| bad(&format!("its data in \"{}\": {why}", place.location)))?;
            Some(bytes)
        } else {
            None
        };
        let raw: &[u8] = elsewhere.as_deref().unwrap_or(&t.raw_data);
        if !raw.is_empty() && raw.len() != count * size {
            let (needed, held) = (count * size, raw.len());
            return Err(bad(&format!("its shape {dims:?} needs {needed} bytes, the file holds {held}")));
        }
        let half = |bits: u16, brain: bool| {
            if brain { half::bf16::from_bits(bits).to_f32() } else { half::f16::from_bits(bits).to_f32() }
        };
        let brain = t.data_type == kind::BFLOAT16;
        let small = || t.int32_data.iter().map(|&v| i64::from(v)).collect::<Vec<_>>();
        let values = match (t.data_type, raw.is_empty()) {
            (kind::FLOAT, true) => Values::Float(t.float_data.clone()),
            (kind::FLOAT, false) => {
                Values::Float(raw.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
            }
            (kind::DOUBLE, true) => Values::Float(t.double_data.iter().map(|&v| v as f32).collect()),
            (kind::DOUBLE, false) => {
                Values::Float(raw.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c) as f32).collect())
            }
            (kind::FLOAT16 | kind::BFLOAT16, true) => {
                Values::Float(t.int32_data.iter().map(|&v| half(v as u16, brain)).collect())
            }
            (kind::FLOAT16 | kind::BFLOAT16, false) => {
                Values::Float(raw.as_chunks::<2>().0.iter().map(|c| half(u16::from_le_bytes(*c), brain)).collect())
            }
            (kind::INT64, true) => Values::Int(t.int64_data.clone()),
            (kind::INT64, false) => {
                Values::Int(raw.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect())
            }
            (kind::INT32, false) => {
                Values::Int(raw.as_chunks::<4>().0.iter().map(|c| i64::from(i32::from_le_bytes(*c))).collect())
            }
            (kind::INT8, false) => Values::Int(raw.iter().map(|&v| i64::from(v as i8)).collect()),
            (_, false) => Values::Int(raw.iter().map(|&v| i64::from(v)).collect()),
            (_, true) => Values::Int(small()),
        };
        let constant = Self { dims, values };
        match constant.len() {
            held if held == count => Ok(constant),
            held => Err(bad(&format!("its shape {:?} needs {count} values, the file holds {held}", constant.dims))),
        }
    }
}

/// Where the data of a constant lies.
fn place(t: &proto::TensorData, length: usize) -> Result<External, String> {
    let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(v) => v.parse::<u64>().map(Some).map_err(|_| format!("its {key} \"{v}\" is no number")),
    };
    let location = entry("location").ok_or("it names no file that holds its data")?.to_string();
    let offset = number("offset")?.unwrap_or(0);
    match number("length")? {
        Some(got) if got != length as u64 => Err(format!("its shape needs {length} bytes, it names {got}")),
        _ => Ok(External { location, offset, length }),
    }
}

/// What an operator makes of constants; `None` if it is not computed here.
pub(super) fn fold(op: &str, inputs: &[&Constant], attributes: &Attributes<'_>) -> Option<Result<Constant, String>> {
    let first = inputs.first()?;
    Some(match op {
        "Gather" => gather(first, inputs.get(1)?, attributes.axis.unwrap_or(0)),
        "Concat" => concat(inputs, attributes.axis?),
        "Unsqueeze" | "Squeeze" | "Reshape" => reshape(op, first, inputs.get(1).and_then(|c| c.as_ints()), attributes),
        "Transpose" => transpose(first, attributes.order),
        "Cast" => cast(first, attributes.to),
        "CastLike" if inputs.len() == 2 => {
            cast(first, if inputs[1].as_ints().is_some() { kind::INT64 } else { kind::FLOAT })
        }
        "Slice" => slice(first, &inputs[1..]),
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" if inputs.len() == 2 => arithmetic(op, first, inputs[1]),
        "Equal" if inputs.len() == 2 && inputs.iter().all(|c| c.as_ints().is_some()) => {
            arithmetic(op, first, inputs[1])
        }
        "Expand" if inputs.len() == 2 => expand(first, inputs[1]),
        "Where" if inputs.len() == 3 => choose(first, inputs[1], inputs[2]),
        "Sqrt" => each(first, f32::sqrt, None),
        "Reciprocal" => each(first, f32::recip, None),
        "Floor" => each(first, f32::floor, None),
        "Ceil" => each(first, f32::ceil, None),
        "Neg" => each(first, |v| -v, Some(i64::wrapping_neg)),
        _ => return None,
    })
}

/// A function of every value; integers have one of their own.
fn each(c: &Constant, float: fn(f32) -> f32, int: Option<fn(i64) -> i64>) -> Result<Constant, String> {
    let values = match (&c.values, int) {
        (Values::Int(v), Some(int)) => Values::Int(v.iter().copied().map(int).collect()),
        _ => Values::Float(c.floats().ok_or("is of an unknown type")?.into_iter().map(float).collect()),
    };
    Ok(Constant { dims: c.dims.clone(), values })
}

/// Attributes that [`fold`] looks at.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) axis: Option<i64>,
    pub(super) axes: Option<&'a [i64]>,
    pub(super) order: Option<&'a [i64]>,
    pub(super) to: i32,
}

/// An axis that may be counted from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let from_start = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(from_start)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("axis {axis} does not exist, there are {rank} dimensions"))
}

/// Elements at the given places, of either type.
fn pick(c: &Constant, dims: Vec<usize>, places: impl Iterator<Item = usize>) -> Result<Constant, String> {
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
    if first.dims.len() != 1 || axis_of(axis, 1).is_err() || inputs.iter().any(|c| c.dims.len() != 1) {
        return Err("joins constants that are not lists".into());
    }
    let ints: Option<Vec<i64>> = inputs.iter().map(|c| c.as_ints()).collect::<Option<Vec<_>>>().map(|v| v.concat());
    if let Some(ints) = ints {
        return Ok(Constant::ints(ints));
    }
    let floats = inputs.iter().map(|c| c.floats()).collect::<Option<Vec<_>>>().ok_or("joins unknown types")?.concat();
    Ok(Constant { dims: vec![floats.len()], values: Values::Float(floats) })
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

/// The shape that `Reshape` gives: 0 copies an extent, -1 takes what is left.
pub(super) fn target(dims: &[usize], wanted: &[i64], zero_is_zero: bool) -> Result<Vec<usize>, String> {
    let fail = || format!("{dims:?} cannot take the shape {wanted:?}");
    let total = elements(dims).ok_or_else(fail)?;
    let known = |(i, &d): (usize, &i64)| match d {
        0 if !zero_is_zero => dims.get(i).copied().map(Some),
        -1 => Some(None),
        d => usize::try_from(d).ok().map(Some),
    };
    let shape: Vec<Option<usize>> = wanted.iter().enumerate().map(known).collect::<Option<_>>().ok_or_else(fail)?;
    let rest: usize = elements(&shape.iter().flatten().copied().collect::<Vec<_>>()).ok_or_else(fail)?;
    let left = match shape.iter().filter(|d| d.is_none()).count() {
        0 => 1,
        1 if rest > 0 && total.is_multiple_of(rest) => total / rest,
        _ => return Err(fail()),
    };
    let shape: Vec<usize> = shape.into_iter().map(|d| d.unwrap_or(left)).collect();
    if elements(&shape) == Some(total) { Ok(shape) } else { Err(fail()) }
}

/// Most dimensions of a constant whose shape is changed.
const MAX_DIMS: usize = 16;

pub(super) fn unsqueezed(dims: &[usize], axes: &[i64]) -> Result<Vec<usize>, String> {
    let rank = dims.len() + axes.len();
    if rank > MAX_DIMS {
        return Err(format!("makes {rank} dimensions, at most {MAX_DIMS} are supported"));
    }
    let axes: Vec<usize> = axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
    let mut old = dims.iter();
    let shape = (0..rank).map(|d| if axes.contains(&d) { Some(1) } else { old.next().copied() });
    shape.collect::<Option<_>>().ok_or_else(|| format!("axes {axes:?} name one dimension twice"))
}

pub(super) fn squeezed(dims: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, String> {
    if dims.len().max(axes.map_or(0, <[i64]>::len)) > MAX_DIMS {
        return Err(format!("has more than {MAX_DIMS} dimensions"));
    }
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&a| axis_of(a, dims.len())).collect::<Result<_, _>>()?,
        None => (0..dims.len()).filter(|&d| dims[d] == 1).collect(),
    };
    match axes.iter().find(|&&a| dims[a] != 1) {
        Some(a) => Err(format!("cannot drop axis {a} of {dims:?}, its extent is not 1")),
        None => Ok((0..dims.len()).filter(|d| !axes.contains(d)).map(|d| dims[d]).collect()),
    }
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

/// Places that `Slice` takes along an axis.
pub(super) fn slice_places(extent: usize, start: i64, end: i64, step: i64) -> Result<Vec<usize>, String> {
    let n = extent as i64;
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (start, end) = (from_end(start), from_end(end));
    match step {
        1.. => {
            let (start, end) = (start.clamp(0, n) as usize, end.clamp(0, n) as usize);
            Ok((start..end).step_by(step as usize).collect())
        }
        0 => Err("has a step of 0".into()),
        _ => {
            let (start, end) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
            let step = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
            Ok((end + 1..=start).rev().step_by(step).map(|i| i as usize).collect())
        }
    }
}

/// The shape that operands broadcast to, aligned at the last dimension. What a few bytes can ask for is bounded: two lists make a table of
/// any size, weights and their factors make no more than there is.
fn broadcast(operands: &[&Constant], target: &[usize]) -> Result<Vec<usize>, String> {
    let rank = operands.iter().map(|c| c.dims.len()).fold(target.len(), usize::max);
    if rank > MAX_DIMS {
        return Err(format!("has more than {MAX_DIMS} dimensions"));
    }
    let dims = operands.iter().try_fold(target.to_vec(), |dims, c| infer::broadcast(&dims, &c.dims))?;
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
    let (Some(condition_values), Some(x), Some(y)) = (condition.as_ints(), a.as_ints(), b.as_ints()) else {
        return Err("chooses between other constants than integers".into());
    };
    let dims = broadcast(&[condition, a, b], &[])?;
    let strides = [condition, a, b].map(|c| spread(&dims, &c.dims));
    let [of_condition, of_a, of_b] = strides.each_ref().map(|strides| walk(&dims, strides));
    let one = |((c, i), j)| match condition_values.get::<usize>(c)? {
        0 => y.get::<usize>(j).copied(),
        _ => x.get::<usize>(i).copied(),
    };
    let values: Option<Vec<i64>> = of_condition.zip(of_a).zip(of_b).map(one).collect();
    Ok(Constant { values: Values::Int(values.ok_or("takes elements that are not there")?), dims })
}

fn arithmetic(op: &str, a: &Constant, b: &Constant) -> Result<Constant, String> {
    let dims = broadcast(&[a, b], &[])?;
    let (a_strides, b_strides) = (spread(&dims, &a.dims), spread(&dims, &b.dims));
    let pairs = walk(&dims, &a_strides).zip(walk(&dims, &b_strides));
    let values = match (&a.values, &b.values) {
        (Values::Int(x), Values::Int(y)) => {
            let one = |(i, j): (usize, usize)| {
                let (x, y): (i64, i64) = (x[i], y[j]);
                match op {
                    "Add" => x.checked_add(y),
                    "Sub" => x.checked_sub(y),
                    "Mul" => x.checked_mul(y),
                    "Equal" => Some(i64::from(x == y)),
                    "Max" => Some(x.max(y)),
                    "Min" => Some(x.min(y)),
                    _ => x.checked_div(y),
                }
            };
            Values::Int(pairs.map(one).collect::<Option<_>>().ok_or("overflows")?)
        }
        _ => {
            let (x, y) = (a.floats().ok_or("is of an unknown type")?, b.floats().ok_or("is of an unknown type")?);
            let one = |(i, j): (usize, usize)| {
                let (x, y) = (x[i], y[j]);
                match op {
                    "Add" => x + y,
                    "Sub" => x - y,
                    "Mul" => x * y,
                    "Max" => x.max(y),
                    "Min" => x.min(y),
                    _ => x / y,
                }
            };
            Values::Float(pairs.map(one).collect())
        }
    };
    Ok(Constant { dims, values })
}
