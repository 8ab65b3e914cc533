//! The integer reference, which an encrypted run must equal at every linear layer, bit for bit.
//!
//! It starts from the image and convolves plainly, output by output. It shares no code with the
//! packing or the masked product. With the client it shares the rounding (`quant`) and the
//! non-linear nodes (`nonlinear`).

use crate::ModelError;
use crate::execution::{self, Execution};
use crate::graph::ValueId;
use crate::op::{Conv, Gemm, Linear};
use crate::quant::QuantModel;
use crate::tensor::Tensor;

/// Result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The network's first output.
    pub output: Tensor,
    /// The others.
    pub more_outputs: Vec<Tensor>,
    /// For every linear node in order its sums before the bias, `[channel][position]`.
    pub accumulators: Vec<Vec<i64>>,
}

/// Runs the quantised network in the clear.
///
/// # Errors
/// [`ModelError::Shape`] for an image of the wrong shape.
pub fn run(model: &QuantModel, image: Tensor) -> Result<Trace, ModelError> {
    run_behind(model, execution::IMAGE, image)
}

/// Runs what comes behind a value of the quantised network in the clear, with a tensor in that
/// value's place. The trace has the sums of the linear nodes behind it alone.
///
/// # Errors
/// [`ModelError::Shape`] for a tensor of the wrong shape, or if a later node needs an earlier
/// value.
pub fn run_behind(model: &QuantModel, value: ValueId, tensor: Tensor) -> Result<Trace, ModelError> {
    let mut accumulators = vec![];
    let begun = Execution::behind(model.graph(), value, tensor)?;
    let mut outputs = execution::finish(begun, |node, x| {
        let layer = model.layer(node)?;
        let sums = linear(model, node, &layer.scaling.quantise(&x.data), &x.shape)?;
        let out = layer.scaling.dequantise(&sums);
        accumulators.push(sums);
        Ok(out)
    })?;
    let output = outputs.remove(0);
    Ok(Trace { output, more_outputs: outputs, accumulators })
}

/// An accumulator: 32 bits where the layer's shape guarantees that they suffice (twice as fast),
/// else 64.
pub(crate) trait Accumulator: Copy + Default + Into<i64> + std::ops::AddAssign {
    fn product(w: i32, x: i32) -> Self;
}

impl Accumulator for i32 {
    fn product(w: i32, x: i32) -> Self {
        w * x
    }
}

impl Accumulator for i64 {
    fn product(w: i32, x: i32) -> Self {
        Self::from(w) * Self::from(x)
    }
}

pub(crate) fn linear(model: &QuantModel, node: usize, x: &[i32], in_shape: &[usize]) -> Result<Vec<i64>, ModelError> {
    let (n, weights) = (&model.graph().nodes()[node], &model.layer(node)?.weights);
    Ok(match n.op.linear() {
        // The plaintext modulus has room for every sum, sign included.
        Some(Linear::Conv(c)) if model.config().plaintext_bits(c.channels * c.kernel[0] * c.kernel[1]) <= 32 => {
            conv::<i32>(c, weights, x, in_shape, &n.shape)
        }
        Some(Linear::Conv(c)) => conv::<i64>(c, weights, x, in_shape, &n.shape),
        Some(Linear::Gemm(g)) => gemm(g, weights, x),
        None => vec![],
    })
}

pub(crate) fn gemm(g: &Gemm, weights: &[i32], x: &[i32]) -> Vec<i64> {
    let dot = |row: &[i32]| row.iter().zip(x).map(|(&w, &x)| i64::from(w) * i64::from(x)).sum();
    weights.chunks_exact(g.inputs).map(dot).collect()
}

pub(crate) fn conv<A: Accumulator>(
    c: &Conv,
    weights: &[i32],
    x: &[i32],
    in_shape: &[usize],
    out_shape: &[usize],
) -> Vec<i64> {
    let (h, w) = (in_shape[1], in_shape[2]);
    let (rows, cols) = (out_shape[1], out_shape[2]);
    let mut y = vec![A::default(); c.filters * rows * cols];
    for filter in 0..c.filters {
        let group = filter / (c.filters / c.groups);
        for channel in 0..c.channels {
            let plane = &x[(group * c.channels + channel) * h * w..][..h * w];
            for di in 0..c.kernel[0] {
                for dj in 0..c.kernel[1] {
                    let weight = weights[((filter * c.channels + channel) * c.kernel[0] + di) * c.kernel[1] + dj];
                    // Output columns whose input column lies inside the plane.
                    let inside = |j: &usize| {
                        let at = j * c.stride[1] + dj * c.dilation[1];
                        at >= c.padding[1] && at - c.padding[1] < w
                    };
                    let (first, last) = ((0..cols).find(inside), (0..cols).rfind(inside));
                    let (Some(first), Some(last)) = (first, last) else { continue };
                    for i in 0..rows {
                        let at = i * c.stride[0] + di * c.dilation[0];
                        if at < c.padding[0] || at - c.padding[0] >= h {
                            continue;
                        }
                        let start = (at - c.padding[0]) * w + first * c.stride[1] + dj * c.dilation[1] - c.padding[1];
                        let out = &mut y[(filter * rows + i) * cols..][first..=last];
                        // Two forms of one loop: the compiler vectorises only the first.
                        if c.stride[1] == 1 {
                            out.iter_mut().zip(&plane[start..]).for_each(|(o, &v)| *o += A::product(weight, v));
                        } else {
                            let inputs = plane[start..].iter().step_by(c.stride[1]);
                            out.iter_mut().zip(inputs).for_each(|(o, &v)| *o += A::product(weight, v));
                        }
                    }
                }
            }
        }
    }
    y.into_iter().map(Into::into).collect()
}
