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
        Op::MaxPool(p) => pool(p, x, &node.shape, |values, _| values.fold(f32::NEG_INFINITY, f32::max)),
        Op::AveragePool(p) => pool(p, x, &node.shape, |values, window| {
            let (sum, inside) = values.fold((0.0, 0u32), |(s, n), v| (s + v, n + 1));
            sum / if p.count_padding { window as f32 } else { inside as f32 }
        }),
        Op::Conv(_) | Op::Gemm(_) => {
            let reason = "is linear and cannot run on the client".into();
            return Err(ModelError::Node { name: node.name.clone(), op: node.op.name().into(), reason });
        }
    };
    Ok(Tensor { shape: node.shape.clone(), data })
}

/// Applies `reduce` to the values of every window that lie inside the plane. Its second argument is the number of
/// positions of the window that lie inside the padded plane.
fn pool(
    p: &Pool,
    x: &Tensor,
    shape: &[usize],
    reduce: impl Fn(&mut dyn Iterator<Item = f32>, usize) -> f32,
) -> Vec<f32> {
    let (h, w) = (x.shape[1], x.shape[2]);
    let [top, left, bottom, right] = p.padding;
    let mut out = Vec::with_capacity(shape.iter().product());
    for plane in x.data.chunks_exact(h * w) {
        for i in 0..shape[1] {
            for j in 0..shape[2] {
                // Window in padded coordinates; with ceil it may reach beyond the padding.
                let (i0, j0) = (i * p.stride[0], j * p.stride[1]);
                let (i1, j1) = ((i0 + p.kernel[0]).min(h + top + bottom), (j0 + p.kernel[1]).min(w + left + right));
                let window = i1.saturating_sub(i0) * j1.saturating_sub(j0);
                let rows = i0.max(top)..i1.min(h + top);
                let cols = j0.max(left)..j1.min(w + left);
                let mut values =
                    rows.flat_map(|r| cols.clone().map(move |c| plane[(r - top) * w + c - left]));
                out.push(reduce(&mut values, window));
            }
        }
    }
    out
}
