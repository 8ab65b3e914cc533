//! What the client computes between linear layers, in f32.

use crate::ModelError;
use crate::graph::{Node, Op, Pool};
use crate::tensor::Tensor;

/// Runs a non-linear node.
///
/// # Errors
/// [`ModelError::Node`] for a linear one: those belong to the server.
pub fn apply(node: &Node, inputs: &[&Tensor]) -> Result<Tensor, ModelError> {
    let x = inputs[0];
    let data = match &node.op {
        Op::Relu => x.data.iter().map(|v| v.max(0.0)).collect(),
        Op::Flatten => x.data.clone(),
        Op::Add => x.data.iter().zip(&inputs[1].data).map(|(a, b)| a + b).collect(),
        Op::MaxPool(p) => {
            pool(p, x, &node.shape, (f32::NEG_INFINITY, |a: f32, v| if v > a { v } else { a }), |max, _, _| max)
        }
        Op::AveragePool(p) => pool(p, x, &node.shape, (0.0, |a, v| a + v), |sum, inside, window| {
            sum / if p.count_padding { window as f32 } else { inside as f32 }
        }),
        Op::Conv(_) | Op::Gemm(_) => {
            let reason = "is linear and cannot run on the client".into();
            return Err(ModelError::Node { name: node.name.clone(), op: node.op.name().into(), reason });
        }
    };
    Ok(Tensor { shape: node.shape.clone(), data })
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
    // First and last coordinate of a window, clipped to the padded plane, and to the plane itself.
    let clip = |at: usize, axis: usize, size: usize, before: usize, after: usize| {
        let first = at * p.stride[axis];
        let end = (first + p.kernel[axis]).min(size + before + after);
        (end.saturating_sub(first), first.max(before) - before, end.min(size + before).saturating_sub(before))
    };
    let mut out = Vec::with_capacity(shape.iter().product());
    for plane in x.data.chunks_exact(h * w) {
        for i in 0..shape[1] {
            let (rows, i0, i1) = clip(i, 0, h, top, bottom);
            for j in 0..shape[2] {
                let (cols, j0, j1) = clip(j, 1, w, left, right);
                let (mut value, mut inside) = (start, 0);
                for row in i0..i1 {
                    let part = plane.get(row * w + j0..row * w + j1).unwrap_or_default();
                    value = part.iter().fold(value, |a, &v| step(a, v));
                    inside += part.len();
                }
                out.push(finish(value, inside, rows * cols));
            }
        }
    }
    out
}
