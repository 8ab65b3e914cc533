//! What the client computes between linear layers, in f32.
//!
//! Exponentials and their like come from `libm`, so that owner, client and reference get the same bits on every machine.

use crate::ModelError;
use crate::graph::Node;
use crate::infer::{spread, strides, walk};
use crate::op::{Activation, Arithmetic, Constant, Op, Pool, Select};
use crate::tensor::Tensor;

/// Runs a non-linear node.
///
/// # Errors
/// [`ModelError::Node`] for a linear one: those belong to the server.
pub fn apply(node: &Node, inputs: &[&Tensor]) -> Result<Tensor, ModelError> {
    let x = inputs[0];
    let data = match &node.op {
        Op::Activation(a) => activate(*a, &x.data),
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
        Op::Mean { axes, .. } => mean(x, axes),
        Op::ArgMax { axis, last, .. } => along(x, *axis, 1, |line, out| {
            let better = |a: f32, b: f32| if *last { a >= b } else { a > b };
            let best = (1..line.len()).fold(0, |best, i| if better(line[i], line[best]) { i } else { best });
            out[0] = best as f32;
        }),
        Op::Conv(_) | Op::Gemm(_) => {
            let reason = "is linear and cannot run on the client".into();
            return Err(ModelError::Node { name: node.name.clone(), op: node.op.name().into(), reason });
        }
    };
    Ok(Tensor { shape: node.shape.clone(), data })
}

fn activate(activation: Activation, x: &[f32]) -> Vec<f32> {
    let each = |f: &dyn Fn(f32) -> f32| x.iter().map(|&v| f(v)).collect();
    let hard = |v: f32, alpha: f32, beta: f32| (alpha * v + beta).clamp(0.0, 1.0);
    match activation {
        Activation::Relu => x.iter().map(|v| v.max(0.0)).collect(),
        // Not `clamp`, which panics where a file says low > high; ONNX gives `high` then.
        Activation::Clip { low, high } => x.iter().map(|v| v.max(low).min(high)).collect(),
        Activation::LeakyRelu { alpha } => x.iter().map(|&v| if v < 0.0 { alpha * v } else { v }).collect(),
        Activation::Sigmoid => each(&|v| 1.0 / (1.0 + libm::expf(-v))),
        Activation::HardSigmoid { alpha, beta } => each(&|v| hard(v, alpha, beta)),
        Activation::HardSwish => each(&|v| v * hard(v, 1.0 / 6.0, 0.5)),
        Activation::Tanh => each(&libm::tanhf),
        Activation::Elu { alpha } => each(&|v| if v < 0.0 { alpha * libm::expm1f(v) } else { v }),
        Activation::Gelu => each(&|v| 0.5 * v * (1.0 + libm::erff(v * std::f32::consts::FRAC_1_SQRT_2))),
        Activation::GeluTanh => {
            let factor = (2.0 / std::f32::consts::PI).sqrt();
            each(&|v| 0.5 * v * (1.0 + libm::tanhf(factor * (v + 0.044_715 * v * v * v))))
        }
        Activation::Erf => each(&libm::erff),
        Activation::Truncate => each(&f32::trunc),
        Activation::NonZero => each(&|v| f32::from(u8::from(v != 0.0))),
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
        Arithmetic::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
    };
    if a_shape == shape && b_shape == shape {
        return a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
    }
    let (a_strides, b_strides) = (spread(shape, a_shape), spread(shape, b_shape));
    walk(shape, &a_strides).zip(walk(shape, &b_strides)).map(|(i, j)| f(a[i], b[j])).collect()
}

/// Axis by axis, the last one first while the value is still small.
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

/// Every line along an axis to a line of `length` values.
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

fn softmax(line: &[f32], out: &mut [f32], log: bool) {
    let top = line.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(line).for_each(|(o, v)| *o = libm::expf(v - top));
    let sum: f32 = out.iter().sum();
    if log {
        let sum = libm::logf(sum);
        out.iter_mut().zip(line).for_each(|(o, v)| *o = v - top - sum);
    } else {
        out.iter_mut().for_each(|o| *o /= sum);
    }
}

fn mean(x: &Tensor, axes: &[usize]) -> Vec<f32> {
    // A reduced dimension has stride 0 in the output.
    let kept: Vec<usize> = x.shape.iter().enumerate().map(|(d, &n)| if axes.contains(&d) { 1 } else { n }).collect();
    let mut target = strides(&kept);
    axes.iter().for_each(|&a| target[a] = 0);
    let count: usize = axes.iter().map(|&a| x.shape[a]).product();
    let mut sums = vec![0.0; kept.iter().product()];
    walk(&x.shape, &target).zip(&x.data).for_each(|(o, v)| sums[o] += v);
    sums.iter().map(|s| s / count as f32).collect()
}

/// Folds the values of every window that lie inside the plane from `start` with `step`. `finish` gets the result, the
/// number of these values, and the number of positions of the window that lie inside the padded plane.
fn pool(
    p: &Pool,
    x: &Tensor,
    shape: &[usize],
    (start, step): (f32, impl Fn(f32, f32) -> f32),
    finish: impl Fn(f32, usize, usize) -> f32,
) -> Vec<f32> {
    let (h, w) = (x.shape[1], x.shape[2]);
    let [top, left, bottom, right] = p.padding;
    // How many taps of a window lie inside the padded plane; first pixel and end of those inside the plane.
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
    for plane in x.data.chunks_exact(h * w) {
        for &(padded_rows, i, i_end) in &rows {
            for &(padded_columns, j, j_end) in &columns {
                let (mut value, mut inside) = (start, 0);
                for row in (i..i_end).step_by(p.dilation[0]) {
                    let line = plane.get(row * w + j..row * w + j_end).unwrap_or_default();
                    // Two forms of one loop: the compiler vectorises only the first.
                    if p.dilation[1] == 1 {
                        value = line.iter().fold(value, |a, &v| step(a, v));
                        inside += line.len();
                    } else {
                        value = line.iter().step_by(p.dilation[1]).fold(value, |a, &v| step(a, v));
                        inside += line.len().div_ceil(p.dilation[1]);
                    }
                }
                out.push(finish(value, inside, padded_rows * padded_columns));
            }
        }
    }
    out
}
