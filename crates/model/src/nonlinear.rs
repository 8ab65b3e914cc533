//! Computes what stands between linear layers, on the client and in f32.
//!
//! Exponentials and their like are our own (`branchless`): they give the same bits on every machine
//! for owner, client and reference, and do not branch on a value. So the time of a node follows
//! from its shape.

use crate::ModelError;
use crate::branchless;
use crate::graph::Node;
use crate::op::{Activation, Arithmetic, Constant, Op, Pool, ReduceKind, Resample, Select};
use crate::shape_inference::{spread, strides, walk};
use crate::tensor::Tensor;

/// Runs a non-linear node.
///
/// # Errors
/// [`ModelError::Node`] for a linear node: the server computes those.
pub fn apply(node: &Node, inputs: &[&Tensor]) -> Result<Tensor, ModelError> {
    let x = inputs[0];
    let data = match &node.op {
        Op::Activation(a) => {
            let mut data = x.data.clone();
            activate(*a, &mut data);
            data
        }
        Op::Flatten | Op::Reshape(_) => x.data.clone(),
        Op::Transpose(order) => {
            let strides = strides(&x.shape);
            walk(&node.shape, &order.iter().map(|&d| strides[d]).collect::<Vec<_>>()).map(|i| x.data[i]).collect()
        }
        Op::Arithmetic(op) => combine(*op, &node.shape, view(x), view(inputs[1])),
        Op::WithConstant { op, constant: Constant { shape, data }, constant_first } => {
            let (x, c) = (view(x), (&shape[..], &data[..]));
            let (a, b) = if *constant_first { (c, x) } else { (x, c) };
            combine(*op, &node.shape, a, b)
        }
        Op::Choose(constants) => choose(&node.shape, constants, inputs),
        Op::Concat(axis) => {
            let rows: usize = x.shape[..*axis].iter().product();
            let part = |row| inputs.iter().flat_map(move |t| t.data.chunks_exact(t.data.len() / rows).nth(row));
            (0..rows).flat_map(part).flatten().copied().collect()
        }
        Op::Select(s) => select(s, x),
        Op::MaxPool(p) => {
            pool(p, x, &node.shape, (f32::NEG_INFINITY, |a: f32, v| if v > a { v } else { a }), |max, _, _| max)
        }
        Op::AveragePool(p) => pool(p, x, &node.shape, (0.0, |a, v| a + v), |sum, inside, window| {
            sum / if p.count_padding { window as f32 } else { inside as f32 }
        }),
        Op::Softmax { axis, log } => along(x, *axis, x.shape[*axis], |line, out| softmax(line, out, *log)),
        Op::Resample(r) => resample(r, x),
        Op::Reduce { kind, axes, .. } => reduce(*kind, x, axes),
        Op::ArgMax { axis, last, .. } => along(x, *axis, 1, |line, out| out[0] = arg_max(line, *last)),
        Op::Conv(_) | Op::Gemm(_) => {
            let reason = "is linear and cannot run on the client".into();
            return Err(ModelError::Node { name: node.name.clone(), op: node.op.name().into(), reason });
        }
    };
    Ok(Tensor { shape: node.shape.clone(), data })
}

/// Applies a function to every value, in place. It is generic, so that each function becomes a
/// vectorised loop of its own.
fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
    x.iter_mut().for_each(|v| *v = f(*v));
}

/// Applies an activation to all values, in place.
pub(crate) fn activate(activation: Activation, x: &mut [f32]) {
    use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
    let hard = |v: f32, alpha: f32, beta: f32| (alpha * v + beta).clamp(0.0, 1.0);
    match activation {
        Activation::Relu => each(x, |v| v.max(0.0)),
        // Not `clamp`, which panics where a file says low > high: ONNX gives `high` then.
        Activation::Clip { low, high } => each(x, |v| v.max(low).min(high)),
        Activation::LeakyRelu { alpha } => each(x, |v| if v < 0.0 { alpha * v } else { v }),
        Activation::Sigmoid => each(x, branchless::sigmoid),
        Activation::HardSigmoid { alpha, beta } => each(x, |v| hard(v, alpha, beta)),
        Activation::HardSwish => each(x, |v| v * hard(v, 1.0 / 6.0, 0.5)),
        Activation::Tanh => each(x, branchless::tanh),
        Activation::Elu { alpha } => each(x, |v| branchless::elu(v, alpha, 1.0)),
        Activation::Gelu => each(x, |v| 0.5 * v * (1.0 + branchless::erf(v * FRAC_1_SQRT_2))),
        Activation::GeluTanh => {
            let factor = FRAC_2_PI.sqrt();
            each(x, |v| 0.5 * v * (1.0 + branchless::tanh(factor * (v + 0.044_715 * v * v * v))))
        }
        Activation::Erf => each(x, branchless::erf),
        Activation::Truncate => each(x, branchless::truncate),
        Activation::NonZero => each(x, |v| f32::from(u8::from(v != 0.0))),
        Activation::Abs => each(x, f32::abs),
        Activation::Sqrt => each(x, f32::sqrt),
        Activation::Exp => each(x, branchless::exp),
        Activation::Log => each(x, branchless::ln),
        Activation::Reciprocal => each(x, |v| 1.0 / v),
        Activation::Pow { exponent } => each(x, |v| branchless::pow(v, exponent)),
        Activation::Floor => each(x, branchless::floor),
        Activation::Ceil => each(x, branchless::ceil),
        Activation::Round => each(x, branchless::round),
        Activation::Sign => each(x, |v| f32::from(i8::from(v > 0.0) - i8::from(v < 0.0))),
        Activation::Sin => each(x, branchless::sin),
        Activation::Cos => each(x, branchless::cos),
        Activation::Atan => each(x, branchless::atan),
        Activation::Softplus => each(x, branchless::softplus),
        Activation::Softsign => each(x, |v| v / (1.0 + v.abs())),
        Activation::Mish => each(x, |v| v * branchless::tanh(branchless::softplus(v))),
        Activation::Selu { alpha, gamma } => each(x, |v| gamma * branchless::elu(v, alpha, 1.0)),
        Activation::Celu { alpha } => each(x, |v| branchless::elu(v, alpha, alpha)),
        Activation::Thresholded { alpha } => each(x, |v| if v > alpha { v } else { 0.0 }),
    }
}

/// A value's shape and numbers.
type View<'a> = (&'a [usize], &'a [f32]);

fn view(t: &Tensor) -> View<'_> {
    (&t.shape, &t.data)
}

fn combine(op: Arithmetic, shape: &[usize], (a_shape, a): View<'_>, (b_shape, b): View<'_>) -> Vec<f32> {
    let f = |a: f32, b: f32| match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
        Arithmetic::PRelu => branchless::pick(a < 0.0, a * b, a),
        Arithmetic::Max => a.max(b),
        Arithmetic::Min => a.min(b),
        Arithmetic::Pow => branchless::pow(a, b),
        Arithmetic::Less => f32::from(u8::from(a < b)),
        Arithmetic::LessOrEqual => f32::from(u8::from(a <= b)),
        Arithmetic::Equal => f32::from(u8::from(a == b)),
    };
    if a_shape == shape && b_shape == shape {
        return a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
    }
    let (a_strides, b_strides) = (spread(shape, a_shape), spread(shape, b_shape));
    walk(shape, &a_strides).zip(walk(shape, &b_strides)).map(|(i, j)| f(a[i], b[j])).collect()
}

/// Picks, for every place of `shape`, one of two values by a third, the condition. Both values are
/// read, so that nothing branches on the condition.
fn choose(shape: &[usize], constants: &[Option<Constant>; 3], inputs: &[&Tensor]) -> Vec<f32> {
    let mut computed = inputs.iter();
    let all = constants.each_ref().map(|constant| match constant {
        Some(c) => (&c.shape[..], &c.data[..]),
        None => computed.next().map_or((&[][..], &[][..]), |t| view(t)),
    });
    let [of_condition, of_a, of_b] = all.map(|(own, _)| spread(shape, own));
    let [(_, condition), (_, a), (_, b)] = all;
    let places = walk(shape, &of_condition).zip(walk(shape, &of_a)).zip(walk(shape, &of_b));
    places.map(|((c, i), j)| branchless::pick(condition[c] != 0.0, a[i], b[j])).collect()
}

/// Takes the selected elements axis by axis, in the order of the list.
fn select(s: &Select, x: &Tensor) -> Vec<f32> {
    let (mut shape, mut data) = (x.shape.clone(), x.data.clone());
    for (axis, places) in &s.axes {
        let run: usize = shape[axis + 1..].iter().product();
        let block = run * shape[*axis];
        let mut out = Vec::with_capacity(data.len() / shape[*axis] * places.len());
        for block in data.chunks_exact(block) {
            for place in places {
                match place {
                    Some(p) => out.extend_from_slice(&block[*p as usize * run..][..run]),
                    None => out.resize(out.len() + run, s.fill),
                }
            }
        }
        shape[*axis] = places.len();
        data = out;
    }
    data
}

/// Turns every line along an axis into a line of `length` values, which `f` writes.
fn along(x: &Tensor, axis: usize, length: usize, f: impl Fn(&[f32], &mut [f32])) -> Vec<f32> {
    let (extent, run): (usize, usize) = (x.shape[axis], x.shape[axis + 1..].iter().product());
    let mut out = vec![0.0; x.data.len() / extent * length];
    let (mut line, mut result) = (vec![0.0; extent], vec![0.0; length]);
    for (block, out) in x.data.chunks_exact(extent * run).zip(out.chunks_exact_mut(length * run)) {
        for i in 0..run {
            line.iter_mut().enumerate().for_each(|(k, v)| *v = block[k * run + i]);
            f(&line, &mut result);
            result.iter().enumerate().for_each(|(k, &v)| out[k * run + i] = v);
        }
    }
    out
}

/// Returns the index of the largest value, the last or the first of several. It finds the largest
/// value first and then where it stands, so that nothing branches on values.
fn arg_max(line: &[f32], last: bool) -> f32 {
    let top = line.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let places = |other: f32| line.iter().enumerate().map(move |(i, &v)| branchless::pick(v == top, i as f32, other));
    match last {
        true => places(0.0).fold(0.0, f32::max),
        false => places((line.len() - 1) as f32).fold((line.len() - 1) as f32, f32::min),
    }
}

fn softmax(line: &[f32], out: &mut [f32], log: bool) {
    let top = line.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(line).for_each(|(o, v)| *o = branchless::exp(v - top));
    let sum: f32 = out.iter().sum();
    if log {
        let sum = branchless::ln(sum);
        out.iter_mut().zip(line).for_each(|(o, v)| *o = v - top - sum);
    } else {
        out.iter_mut().for_each(|o| *o /= sum);
    }
}

/// Computes the weighted sums axis by axis, the last axis first while the value is still small.
fn resample(r: &Resample, x: &Tensor) -> Vec<f32> {
    let (mut shape, mut data) = (x.shape.clone(), x.data.clone());
    for axis in r.axes.iter().rev() {
        let run: usize = shape[axis.axis + 1..].iter().product();
        let block = run * shape[axis.axis];
        let places = axis.places.len() / axis.taps;
        let mut out = vec![0.0; data.len() / shape[axis.axis] * places];
        for (block, out) in data.chunks_exact(block).zip(out.chunks_exact_mut(run * places)) {
            let taps = axis.places.chunks_exact(axis.taps).zip(axis.weights.chunks_exact(axis.taps));
            for (out, (from, weights)) in out.chunks_exact_mut(run).zip(taps) {
                for (&from, &weight) in from.iter().zip(weights) {
                    let line = &block[from as usize * run..][..run];
                    out.iter_mut().zip(line).for_each(|(o, v)| *o += weight * v);
                }
            }
        }
        shape[axis.axis] = places;
        data = out;
    }
    data
}

fn reduce(kind: ReduceKind, x: &Tensor, axes: &[usize]) -> Vec<f32> {
    // A dimension that is reduced has stride 0 in the output.
    let kept: Vec<usize> = x.shape.iter().enumerate().map(|(d, &n)| if axes.contains(&d) { 1 } else { n }).collect();
    let mut target = strides(&kept);
    axes.iter().for_each(|&a| target[a] = 0);
    let count = axes.iter().map(|&a| x.shape[a]).product::<usize>() as f32;
    let places = || walk(&x.shape, &target).zip(&x.data);
    let all = |start: f32, step: &dyn Fn(f32, f32) -> f32| {
        let mut out = vec![start; kept.iter().product()];
        places().for_each(|(o, &v)| out[o] = step(out[o], v));
        out
    };
    match kind {
        ReduceKind::Mean => all(0.0, &|a, v| a + v).into_iter().map(|s| s / count).collect(),
        ReduceKind::Sum => all(0.0, &|a, v| a + v),
        ReduceKind::Max => all(f32::NEG_INFINITY, &f32::max),
        ReduceKind::Min => all(f32::INFINITY, &f32::min),
        ReduceKind::Product => all(1.0, &|a, v| a * v),
        ReduceKind::L1 => all(0.0, &|a, v| a + v.abs()),
        ReduceKind::L2 => all(0.0, &|a, v| a + v * v).into_iter().map(f32::sqrt).collect(),
        ReduceKind::SumSquare => all(0.0, &|a, v| a + v * v),
    }
}

/// Pools planes `[channel][row][column]` to the output's `shape`. For every window it folds the
/// values inside the plane with `step`, beginning with `start`. `finish` then makes the output of
/// three arguments: the result, the number of these values, and the number of the window's
/// positions inside the padded plane.
fn pool(
    p: &Pool,
    x: &Tensor,
    shape: &[usize],
    (start, step): (f32, impl Fn(f32, f32) -> f32),
    finish: impl Fn(f32, usize, usize) -> f32,
) -> Vec<f32> {
    let (h, w) = (x.shape[1], x.shape[2]);
    let [top, left, bottom, right] = p.padding;
    // Returns, for the window at `at` along an axis, how many of its taps lie inside the padded
    // plane, and the first pixel and the end of those inside the plane.
    let clip = |at: usize, axis: usize, size: usize, before: usize, after: usize| {
        let (base, step) = (at * p.stride[axis], p.dilation[axis]);
        let end = base + (p.kernel[axis] - 1) * step + 1;
        let padded = (end.min(size + before + after) - base).div_ceil(step);
        let first = base + before.saturating_sub(base).div_ceil(step) * step - before;
        (padded, first, end.saturating_sub(before).min(size))
    };
    let columns: Vec<_> = (0..shape[2]).map(|j| clip(j, 1, w, left, right)).collect();
    let rows: Vec<_> = (0..shape[1]).map(|i| clip(i, 0, h, top, bottom)).collect();
    let mut out = Vec::with_capacity(shape.iter().product());
    let mut folded = vec![start; w];
    for plane in x.data.chunks_exact(h * w) {
        for &(padded_rows, i, i_end) in &rows {
            // Folds the rows of the window first, all columns at once, which is vectorised.
            let mut inside_rows = 0;
            folded.fill(start);
            for row in (i..i_end).step_by(p.dilation[0]) {
                folded.iter_mut().zip(&plane[row * w..][..w]).for_each(|(f, &v)| *f = step(*f, v));
                inside_rows += 1;
            }
            for &(padded_columns, j, j_end) in &columns {
                let line = folded.get(j..j_end).unwrap_or_default();
                let (value, inside) = match p.dilation[1] {
                    1 => (line.iter().fold(start, |a, &v| step(a, v)), line.len()),
                    d => (line.iter().step_by(d).fold(start, |a, &v| step(a, v)), line.len().div_ceil(d)),
                };
                out.push(finish(value, inside_rows * inside, padded_rows * padded_columns));
            }
        }
    }
    out
}
