//! Runs the network in the clear, in floats: windows are laid out and multiplied by `ndarray`
//! (`matrixmultiply` underneath), one thread per image.

use std::cell::RefCell;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, Slice};

use crate::graph::Graph;
use crate::op::{Conv, Gemm, Linear};
use crate::tensor::Tensor;
use crate::{ModelError, execution};

/// Most numbers of windows that are laid out at a time: as many as a second-level cache keeps
/// beside weights and sums.
const TOGETHER: usize = 1 << 17;

thread_local! {
    /// Windows of earlier products: new memory would have to be fetched page by page every time.
    static WINDOWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

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
/// [`ModelError::Shape`] for an image of the wrong shape.
pub fn run_all(graph: &Graph, image: Tensor) -> Result<Vec<Tensor>, ModelError> {
    execution::run(graph, image, |node, x| linear(graph, node, x))
}

/// Computes one linear node on the input `x`, bias included.
///
/// # Errors
/// [`ModelError::Node`] if the node is not linear.
pub fn linear(graph: &Graph, node: usize, x: &Tensor) -> Result<Vec<f32>, ModelError> {
    let n = &graph.nodes()[node];
    match n.op.linear() {
        Some(Linear::Conv(c)) => conv(c, x, &n.shape),
        Some(Linear::Gemm(g)) => Some(gemm(g, x)),
        None => None,
    }
    .ok_or_else(|| ModelError::Node {
        name: n.name.clone(),
        op: n.op.name().into(),
        reason: "shapes do not fit a matrix product".into(),
    })
}

/// Multiplies a matrix with a vector, row by row as the matrix is read.
fn gemm(g: &Gemm, x: &Tensor) -> Vec<f32> {
    g.weight.chunks_exact(g.inputs).zip(&g.bias).map(|(row, bias)| bias + dot(row, &x.data)).collect()
}

/// Returns the dot product: sums over every sixteenth product, then their sum. So it is vectorised
/// and always adds in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn conv(c: &Conv, x: &Tensor, shape: &[usize]) -> Option<Vec<f32>> {
    let plane = shape[1] * shape[2];
    let mut y = Vec::with_capacity(c.filters * plane);
    c.bias.iter().for_each(|&b| y.resize(y.len() + plane, b));
    if c.channels == 1 && c.filters == c.groups {
        depthwise(c, x, shape, &mut y);
        return Some(y);
    }
    let (fan_in, filters) = (c.channels * c.kernel[0] * c.kernel[1], c.filters / c.groups);
    let x_shape = &x.shape;
    let input = c.channels * x_shape[1] * x_shape[2];
    for g in 0..c.groups {
        let w =
            ArrayView2::from_shape((filters, fan_in), &c.weight[g * filters * fan_in..][..filters * fan_in]).ok()?;
        let mut y =
            ArrayViewMut2::from_shape((filters, plane), &mut y[g * filters * plane..][..filters * plane]).ok()?;
        let x = &x.data[g * input..][..input];
        if is_pointwise(c) {
            general_mat_mul(1.0, &w, &ArrayView2::from_shape((fan_in, plane), x).ok()?, 1.0, &mut y);
        } else {
            by_windows(c, (x, [x_shape[1], x_shape[2]]), shape, &w, &mut y)?;
        }
    }
    Some(y)
}

/// Returns whether the windows are the input itself.
fn is_pointwise(c: &Conv) -> bool {
    c.kernel == [1, 1] && c.stride == [1, 1] && c.padding == [0; 4]
}

/// Lays out the windows of some output rows at a time, multiplies them with the weights `w` of a
/// group, and adds the products to `y`, `[filter][position]`. `x` is the group's input in planes of
/// the size `input`, and `shape` the output's. Returns `None` if shapes do not fit.
fn by_windows(
    c: &Conv,
    (x, input): (&[f32], [usize; 2]),
    shape: &[usize],
    w: &ArrayView2<'_, f32>,
    y: &mut ArrayViewMut2<'_, f32>,
) -> Option<()> {
    let (fan_in, (rows, columns)) = (w.ncols(), (shape[1], shape[2]));
    let together = (TOGETHER / (fan_in * columns)).clamp(1, rows);
    let geometry = Geometry::new(c, input, columns);
    WINDOWS.with_borrow_mut(|windows| {
        for first in (0..rows).step_by(together) {
            let some = first..(first + together).min(rows);
            let positions = some.len() * columns;
            windows.resize(windows.len().max(fan_in * positions), 0.0);
            let windows = &mut windows[..fan_in * positions];
            geometry.lay_out(c, x, some.clone(), windows);
            let windows = ArrayView2::from_shape((fan_in, positions), &*windows).ok()?;
            let own = Slice::from(some.start * columns..some.end * columns);
            let mut y = y.slice_axis_mut(Axis(1), own);
            general_mat_mul(1.0, w, &windows, 1.0, &mut y);
        }
        Some(())
    })
}

/// Tells which pixels meet a tap.
struct Geometry {
    /// Height and width of the input.
    input: [usize; 2],
    columns: usize,
    /// For every tap along the width: the first output column whose pixel lies inside, and the one
    /// after the last.
    inside: Vec<(usize, usize)>,
}

impl Geometry {
    fn new(c: &Conv, input: [usize; 2], columns: usize) -> Self {
        let width = input[1];
        let inside = |tap: usize| {
            let offset = tap * c.dilation[1];
            let first = c.padding[1].saturating_sub(offset).div_ceil(c.stride[1]).min(columns);
            let end = (width + c.padding[1]).saturating_sub(offset).div_ceil(c.stride[1]).min(columns);
            (first, end.max(first))
        };
        Self { input, columns, inside: (0..c.kernel[1]).map(inside).collect() }
    }

    /// Lays out the inputs of every product for some output rows, `[channel][kh][kw][position]`,
    /// zero where the window leaves the plane.
    fn lay_out(&self, c: &Conv, x: &[f32], rows: std::ops::Range<usize>, out: &mut [f32]) {
        let [height, width] = self.input;
        if c.stride == [1, 1] && self.columns == width {
            return self.shift(c, x, rows, out);
        }
        let mut lines = out.chunks_exact_mut(self.columns);
        for plane in x.chunks_exact(height * width) {
            for di in 0..c.kernel[0] {
                for (dj, &(first, end)) in self.inside.iter().enumerate() {
                    for row in rows.clone() {
                        let Some(line) = lines.next() else { return };
                        let at = (row * c.stride[0] + di * c.dilation[0]).checked_sub(c.padding[0]);
                        let Some(at) = at.filter(|&at| at < height && first < end) else {
                            line.fill(0.0);
                            continue;
                        };
                        line[..first].fill(0.0);
                        line[end..].fill(0.0);
                        let start = at * width + first * c.stride[1] + dj * c.dilation[1] - c.padding[1];
                        let line = &mut line[first..end];
                        if c.stride[1] == 1 {
                            line.copy_from_slice(&plane[start..][..line.len()]);
                        } else {
                            let pixels = plane[start..].iter().step_by(c.stride[1]);
                            line.iter_mut().zip(pixels).for_each(|(o, v)| *o = *v);
                        }
                    }
                }
            }
        }
    }
}

impl Geometry {
    /// Does the work of [`Geometry::lay_out`] where an output row is as long as an input row and
    /// strides are 1: then a tap meets the plane itself, moved.
    fn shift(&self, c: &Conv, x: &[f32], rows: std::ops::Range<usize>, out: &mut [f32]) {
        let [height, width] = self.input;
        let size = rows.len() * width;
        let taps = (0..c.kernel[0]).flat_map(|di| (0..c.kernel[1]).map(move |dj| (di, dj)));
        let planes = x.chunks_exact(height * width).flat_map(|plane| taps.clone().map(move |tap| (plane, tap)));
        for (out, (plane, (di, dj))) in out.chunks_exact_mut(size).zip(planes) {
            // Place `k` of the output meets pixel `k + moved`.
            let moved = ((rows.start + di * c.dilation[0]) * width + dj * c.dilation[1]) as isize
                - (c.padding[0] * width + c.padding[1]) as isize;
            let first = (-moved).clamp(0, size as isize) as usize;
            let end = (plane.len() as isize - moved).clamp(first as isize, size as isize) as usize;
            out[..first].fill(0.0);
            out[end..].fill(0.0);
            let start = (first as isize + moved) as usize;
            if first < end {
                out[first..end].copy_from_slice(&plane[start..][..end - first]);
            }
            // Where the tap stands beside the plane, pixels of neighbouring rows were copied.
            let (left, right) = self.inside[dj];
            if left > 0 || right < width {
                for line in out.chunks_exact_mut(width) {
                    line[..left].fill(0.0);
                    line[right..].fill(0.0);
                }
            }
        }
    }
}

/// Adds a depthwise convolution to `y`: with one filter for each channel there are too few products
/// for a matrix.
fn depthwise(c: &Conv, x: &Tensor, shape: &[usize], y: &mut [f32]) {
    let (height, width) = (x.shape[1], x.shape[2]);
    let (rows, columns) = (shape[1], shape[2]);
    let geometry = Geometry::new(c, [height, width], columns);
    let taps = c.kernel[0] * c.kernel[1];
    let planes = x.data.chunks_exact(height * width).zip(c.weight.chunks_exact(taps));
    for ((plane, weights), y) in planes.zip(y.chunks_exact_mut(rows * columns)) {
        for (row, line) in y.chunks_exact_mut(columns).enumerate() {
            for di in 0..c.kernel[0] {
                let at = (row * c.stride[0] + di * c.dilation[0]).checked_sub(c.padding[0]);
                let Some(at) = at.filter(|&at| at < height) else { continue };
                for (dj, &(first, end)) in geometry.inside.iter().enumerate().filter(|(_, (a, b))| a < b) {
                    let weight = weights[di * c.kernel[1] + dj];
                    let start = at * width + first * c.stride[1] + dj * c.dilation[1] - c.padding[1];
                    let line = &mut line[first..end];
                    // Two forms of one loop: the compiler vectorises only the first.
                    if c.stride[1] == 1 {
                        line.iter_mut().zip(&plane[start..]).for_each(|(o, v)| *o += weight * v);
                    } else {
                        let pixels = plane[start..].iter().step_by(c.stride[1]);
                        line.iter_mut().zip(pixels).for_each(|(o, v)| *o += weight * v);
                    }
                }
            }
        }
    }
}
