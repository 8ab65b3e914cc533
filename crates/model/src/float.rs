//! The float reference: im2col and a matrix product by `ndarray` (matrixmultiply underneath), one thread per image.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

use crate::graph::Graph;
use crate::op::{Conv, Gemm, Linear};
use crate::tensor::Tensor;
use crate::{ModelError, execution};

/// Runs the network in the clear, to its first output.
///
/// # Errors
/// [`ModelError::Shape`] for an image of the wrong shape.
pub fn run(graph: &Graph, image: Tensor) -> Result<Tensor, ModelError> {
    Ok(run_all(graph, image)?.swap_remove(0))
}

/// Runs the network in the clear, to all its outputs.
///
/// # Errors
/// As [`run`].
pub fn run_all(graph: &Graph, image: Tensor) -> Result<Vec<Tensor>, ModelError> {
    execution::run(graph, image, |node, x| linear(graph, node, x))
}

/// One linear node.
///
/// # Errors
/// [`ModelError::Node`] if the node is not linear.
pub fn linear(graph: &Graph, node: usize, x: &Tensor) -> Result<Vec<f32>, ModelError> {
    let n = &graph.nodes()[node];
    match n.op.linear() {
        Some(Linear::Conv(c)) => conv(c, x, &n.shape),
        Some(Linear::Gemm(g)) => gemm(g, x),
        None => None,
    }
    .ok_or_else(|| ModelError::Node {
        name: n.name.clone(),
        op: n.op.name().into(),
        reason: "shapes do not fit a matrix product".into(),
    })
}

fn gemm(g: &Gemm, x: &Tensor) -> Option<Vec<f32>> {
    let mut y = g.bias.clone();
    let w = ArrayView2::from_shape((g.outputs, g.inputs), &g.weight).ok()?;
    let x = ArrayView2::from_shape((g.inputs, 1), &x.data).ok()?;
    general_mat_mul(1.0, &w, &x, 1.0, &mut ArrayViewMut2::from_shape((g.outputs, 1), &mut y).ok()?);
    Some(y)
}

fn conv(c: &Conv, x: &Tensor, shape: &[usize]) -> Option<Vec<f32>> {
    let out_plane = shape[1] * shape[2];
    let (fan_in, filters) = (c.channels * c.kernel[0] * c.kernel[1], c.filters / c.groups);
    let mut y: Vec<f32> = c.bias.iter().flat_map(|&b| std::iter::repeat_n(b, out_plane)).collect();
    for g in 0..c.groups {
        let columns = im2col(c, x, g, shape);
        let w =
            ArrayView2::from_shape((filters, fan_in), &c.weight[g * filters * fan_in..][..filters * fan_in]).ok()?;
        let columns = ArrayView2::from_shape((fan_in, out_plane), &columns).ok()?;
        let y = &mut y[g * filters * out_plane..][..filters * out_plane];
        general_mat_mul(1.0, &w, &columns, 1.0, &mut ArrayViewMut2::from_shape((filters, out_plane), y).ok()?);
    }
    Some(y)
}

/// The inputs of every product, `[channel][kh][kw][output position]`, zero where the window leaves the plane.
fn im2col(c: &Conv, x: &Tensor, group: usize, shape: &[usize]) -> Vec<f32> {
    let (h, w) = (x.shape[1], x.shape[2]);
    let mut columns = vec![0.0; c.channels * c.kernel[0] * c.kernel[1] * shape[1] * shape[2]];
    let mut rows = columns.chunks_exact_mut(shape[2]);
    for channel in 0..c.channels {
        let plane = &x.data[(group * c.channels + channel) * h * w..][..h * w];
        for di in 0..c.kernel[0] {
            for dj in 0..c.kernel[1] {
                for i in 0..shape[1] {
                    let Some(row) = rows.next() else { return columns };
                    let Some(y) = (i * c.stride[0] + di * c.dilation[0]).checked_sub(c.padding[0]).filter(|&y| y < h)
                    else {
                        continue;
                    };
                    for (j, o) in row.iter_mut().enumerate() {
                        let x = (j * c.stride[1] + dj * c.dilation[1]).checked_sub(c.padding[1]);
                        if let Some(x) = x.filter(|&x| x < w) {
                            *o = plane[y * w + x];
                        }
                    }
                }
            }
        }
    }
    columns
}
