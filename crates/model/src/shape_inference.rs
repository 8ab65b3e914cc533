//! Computes the shapes of outputs, and checks that a node's attributes make sense at all.

use crate::op::{Constant, Conv, Linear, Op, Pool, Resample, ResampleAxis, Select};
use crate::tensor::elements;

/// Returns the output extent of a window of `kernel` taps that slides along an axis of `size`
/// elements with `pads` zeros around them, `pads` counting both ends. `ceil` rounds the extent up
/// instead of down.
///
/// # Errors
/// A sentence if the window does not fit, or `stride` or `dilation` is 0.
pub fn window(
    size: usize,
    pads: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    ceil: bool,
) -> Result<usize, String> {
    let reach = kernel.checked_sub(1).and_then(|k| k.checked_mul(dilation)).and_then(|k| k.checked_add(1));
    let padded = size.checked_add(pads);
    match (reach, padded, stride) {
        (Some(reach), Some(padded), 1..) if dilation > 0 && reach <= padded => {
            let room = padded - reach;
            Ok(if ceil { room.div_ceil(stride) } else { room / stride } + 1)
        }
        _ => {
            Err(format!("a window of {kernel} (stride {stride}, dilation {dilation}) does not fit {size} plus {pads}"))
        }
    }
}

/// Returns why a linear node's weights or biases do not fit its shape, or `None` if they do.
pub(crate) fn wrong_counts(op: &Op) -> Option<String> {
    let linear = op.linear()?;
    let weights = match linear {
        Linear::Conv(c) => elements(&[c.filters, c.channels, c.kernel[0], c.kernel[1]]),
        Linear::Gemm(g) => elements(&[g.outputs, g.inputs]),
    };
    let count = |what: &str, got: usize, want: Option<usize>| {
        let says = want.map_or("too many to count".into(), |n| n.to_string());
        (Some(got) != want).then(|| format!("has {got} {what}, its shape says {says}"))
    };
    count("weights", linear.weights().len(), weights)
        .or_else(|| count("biases", linear.bias().len(), Some(linear.outputs())))
}

/// Returns the shape of a node's output.
///
/// # Errors
/// Words that say why there is none.
pub(crate) fn infer(op: &Op, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let first = inputs[0];
    match op {
        Op::Conv(c) => convolved(c, first),
        Op::Gemm(g) if first == [g.inputs] => Ok(vec![g.outputs]),
        Op::Gemm(g) => Err(format!("needs an input [{}], got {first:?}", g.inputs)),
        Op::MaxPool(p) | Op::AveragePool(p) => pooled_planes(p, first),
        Op::Activation(_) => Ok(first.to_vec()),
        Op::Flatten => Ok(vec![elements(first).ok_or("is too large")?]),
        Op::Reshape(shape) if elements(shape) == elements(first) => Ok(shape.clone()),
        Op::Reshape(shape) => Err(format!("{first:?} cannot take the shape {shape:?}")),
        Op::Transpose(order) => transposed(order, first),
        Op::Arithmetic(_) => broadcast(first, inputs[1]),
        Op::WithConstant { constant: Constant { shape, data }, .. } => {
            if elements(shape) != Some(data.len()) {
                return Err(format!("its constant has {} values, its shape is {shape:?}", data.len()));
            }
            broadcast(first, shape)
        }
        Op::Choose(constants) => chosen(constants, inputs),
        Op::Concat(along) => joined(*along, inputs),
        Op::Select(select) => selected(select, first),
        Op::Softmax { axis, .. } => extent_of(first, *axis).map(|_| first.to_vec()),
        Op::Resample(resample) => resampled(resample, first),
        Op::Reduce { axes, keep, .. } => {
            axes.iter().try_for_each(|&a| extent_of(first, a).map(|_| ()))?;
            if !axes.is_sorted_by(|a, b| a < b) {
                return Err(format!("its axes {axes:?} do not rise"));
            }
            Ok(reduced(first, axes, *keep))
        }
        Op::ArgMax { axis, keep, .. } => extent_of(first, *axis).map(|_| reduced(first, &[*axis], *keep)),
    }
}

/// Returns the extent of an input along an axis, if it has that axis.
fn extent_of(input: &[usize], axis: usize) -> Result<usize, String> {
    input.get(axis).copied().ok_or_else(|| format!("has no axis {axis} in its input {input:?}"))
}

/// Returns channels, height and width of an input, if it has them.
fn planes(input: &[usize]) -> Result<[usize; 3], String> {
    input.try_into().map_err(|_| format!("needs an input [channels, height, width], got {input:?}"))
}

fn convolved(c: &Conv, input: &[usize]) -> Result<Vec<usize>, String> {
    let [channels, h, w] = planes(input)?;
    if c.groups == 0 || channels != c.channels.saturating_mul(c.groups) || !c.filters.is_multiple_of(c.groups) {
        return Err(format!(
            "{} groups of {} channels and {} filters do not fit an input of {channels} channels",
            c.groups, c.channels, c.filters
        ));
    }
    let [top, left, bottom, right] = c.padding;
    let rows = window(h, top.saturating_add(bottom), c.kernel[0], c.stride[0], c.dilation[0], false)?;
    let cols = window(w, left.saturating_add(right), c.kernel[1], c.stride[1], c.dilation[1], false)?;
    // The float reference lays out the inputs of every product, which a hostile window must not
    // make unbounded.
    if elements(&[c.channels, c.kernel[0], c.kernel[1], rows, cols]).is_none() {
        return Err(format!("{rows}x{cols} windows of {:?} are too many", c.kernel));
    }
    Ok(vec![c.filters, rows, cols])
}

fn pooled_planes(p: &Pool, input: &[usize]) -> Result<Vec<usize>, String> {
    let [channels, h, w] = planes(input)?;
    let (rows, cols) = (pooled(p, h, 0)?, pooled(p, w, 1)?);
    if elements(&[channels, rows, cols, p.kernel[0], p.kernel[1]]).is_none() {
        return Err(format!("{rows}x{cols} windows of {:?} are too many", p.kernel));
    }
    Ok(vec![channels, rows, cols])
}

fn transposed(order: &[usize], input: &[usize]) -> Result<Vec<usize>, String> {
    let mut seen = order.to_vec();
    seen.sort_unstable();
    if !seen.iter().copied().eq(0..input.len()) {
        return Err(format!("{order:?} is no order of the dimensions of {input:?}"));
    }
    Ok(order.iter().map(|&d| input[d]).collect())
}

fn chosen(constants: &[Option<Constant>; 3], inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    if let Some(c) = constants.iter().flatten().find(|c| elements(&c.shape) != Some(c.data.len())) {
        return Err(format!("a constant has {} values, its shape is {:?}", c.data.len(), c.shape));
    }
    let constants = constants.iter().flatten().map(|c| &c.shape[..]);
    inputs[1..].iter().copied().chain(constants).try_fold(inputs[0].to_vec(), |all, shape| broadcast(&all, shape))
}

fn joined(along: usize, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let first = inputs[0];
    extent_of(first, along)?;
    let mut shape = first.to_vec();
    for other in &inputs[1..] {
        let same = |(d, (a, b)): (usize, (&usize, &usize))| d == along || a == b;
        if other.len() != first.len() || !first.iter().zip(*other).enumerate().all(same) {
            return Err(format!("cannot join {first:?} and {other:?} along axis {along}"));
        }
        shape[along] = shape[along].saturating_add(other[along]);
    }
    Ok(shape)
}

fn selected(select: &Select, input: &[usize]) -> Result<Vec<usize>, String> {
    let mut shape = input.to_vec();
    for (along, places) in &select.axes {
        let extent = extent_of(input, *along)?;
        if places.iter().flatten().any(|&p| p as usize >= extent) {
            return Err(format!("takes an element beyond the {extent} of axis {along}"));
        }
        shape[*along] = places.len();
    }
    Ok(shape)
}

fn resampled(resample: &Resample, input: &[usize]) -> Result<Vec<usize>, String> {
    let mut shape = input.to_vec();
    for ResampleAxis { axis: along, taps, places, weights } in &resample.axes {
        let extent = extent_of(input, *along)?;
        let whole = *taps > 0 && places.len().is_multiple_of(*taps) && places.len() == weights.len();
        if !whole || places.iter().any(|&p| p as usize >= extent) || weights.iter().any(|w| !w.is_finite()) {
            return Err(format!("its weights along axis {along} do not fit its extent {extent}"));
        }
        shape[*along] = places.len() / taps;
    }
    Ok(shape)
}

/// Returns the output extent of a pool along an axis.
fn pooled(p: &Pool, size: usize, axis: usize) -> Result<usize, String> {
    let (before, after) = (p.padding[axis], p.padding[axis + 2]);
    let reach = p.kernel[axis].saturating_sub(1).saturating_mul(p.dilation[axis]).saturating_add(1);
    if before >= reach || after >= reach {
        return Err("its padding is as large as its window".into());
    }
    let n = window(size, before + after, p.kernel[axis], p.stride[axis], p.dilation[axis], p.ceil)?;
    // Rounded up, a last window that would start behind the plane is dropped, as PyTorch and ONNX
    // do.
    Ok(if (n - 1) * p.stride[axis] >= size + before { n - 1 } else { n })
}

fn reduced(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let part = |(d, &n): (usize, &usize)| match (axes.contains(&d), keep) {
        (false, _) => Some(n),
        (true, true) => Some(1),
        (true, false) => None,
    };
    shape.iter().enumerate().filter_map(part).collect()
}

/// Returns the common shape of two values, aligned at the last dimension; extents of 1 are
/// repeated.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], d: usize| (d + shape.len()).checked_sub(rank).map_or(1, |d| shape[d]);
    let extent = |d: usize| match (at(a, d), at(b, d)) {
        (x, y) if x == y || y == 1 => Some(x),
        (1, y) => Some(y),
        _ => None,
    };
    (0..rank).map(extent).collect::<Option<_>>().ok_or_else(|| format!("{a:?} and {b:?} do not fit together"))
}

/// Returns the row-major strides of a shape.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        out[d - 1] = out[d] * shape[d];
    }
    out
}

/// Returns the offsets of all places of `shape` in order, where a step along dimension `d` moves by
/// `strides[d]`.
pub(crate) fn walk<'a>(shape: &'a [usize], strides: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let mut place = vec![0; shape.len()];
    let (mut offset, total) = (0, shape.iter().product::<usize>());
    (0..total).map(move |_| {
        let here = offset;
        for d in (0..shape.len()).rev() {
            place[d] += 1;
            offset += strides[d];
            if place[d] < shape[d] {
                break;
            }
            offset -= strides[d] * shape[d];
            place[d] = 0;
        }
        here
    })
}

/// Returns the strides by which a value of shape `own` is read while [`walk`] goes over `shape`, to
/// which it broadcasts: a dimension that is repeated has stride 0.
pub(crate) fn spread(shape: &[usize], own: &[usize]) -> Vec<usize> {
    let (strides, missing) = (strides(own), shape.len() - own.len());
    let stride = |d: usize| if d < missing || own[d - missing] == 1 { 0 } else { strides[d - missing] };
    (0..shape.len()).map(stride).collect()
}
