//! The integer reference of a fixed-point network, with a ticket's roundings.
//!
//! It shares no code with the protocol: plain sums, windows and minima. A ticket decides how a sum
//! is rounded, by at most one unit; whoever compares says how.

use super::{FixedId, FixedLinear, FixedNetwork, FixedOp};
use crate::integer;
use crate::op::{Linear, Pool};

/// A sum that is about to lose its lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropping {
    /// Step of the sum; the number of steps for the output.
    pub step: usize,
    /// Place in the step's result.
    pub index: usize,
    /// The sum.
    pub sum: i64,
    /// Bits to drop.
    pub drop: u32,
}

/// All values of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Results of the steps, those of linear layers without the dropped bits.
    pub values: Vec<Vec<i64>>,
    /// What the guest learns.
    pub output: Vec<i64>,
}

/// Rounds down, which with the half in the bias is to the nearest.
pub fn to_nearest(dropping: Dropping) -> i64 {
    dropping.sum >> dropping.drop
}

/// Rounds as random tickets do, the same ones for one seed.
pub fn as_tickets_do(seed: u64) -> impl FnMut(Dropping) -> i64 {
    let mut state = seed;
    move |Dropping { sum, drop, .. }| {
        // Steele, Lea, Flood 2014: splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let (mask, low) = ((z >> 32) as i64 & ((1 << drop) - 1), z as i64 & ((1 << drop) - 1));
        let masked = sum + mask;
        (masked >> drop) - i64::from(low > masked & ((1 << drop) - 1))
    }
}

/// Runs a network on the integers of an image.
pub fn run(network: &FixedNetwork, input: &[i32], mut round: impl FnMut(Dropping) -> i64) -> Trace {
    let mut values: Vec<Vec<i64>> = vec![];
    let image: Vec<i64> = input.iter().map(|&v| i64::from(v)).collect();
    for (step, s) in network.steps.iter().enumerate() {
        let value = |id: FixedId| id.checked_sub(1).map_or(&image, |step| &values[step]);
        let result = match &s.op {
            FixedOp::Linear(linear) => {
                let sums = sums(linear, value(linear.input));
                let drop = linear.drop;
                sums.into_iter().enumerate().map(|(index, sum)| round(Dropping { step, index, sum, drop })).collect()
            }
            FixedOp::Clamp { terms, low, span, .. } => {
                let sum = |i: usize| terms.iter().map(|&t| value(t)[i]).sum::<i64>();
                (0..value(terms[0]).len()).map(|i| sum(i).max(*low).min(low + i64::from(*span))).collect()
            }
            FixedOp::Max { input, pool } => {
                window(pool, value(*input), network.shape(*input), &s.shape, |all| all.max().unwrap_or(0))
            }
            FixedOp::Sum { input, pool } => {
                window(pool, value(*input), network.shape(*input), &s.shape, |all| all.sum())
            }
            FixedOp::Affine { input, shift, add } => {
                value(*input).iter().zip(add).map(|(x, a)| (x << shift) + i64::from(*a)).collect()
            }
            FixedOp::Copy { inputs, places } => {
                let all: Vec<i64> = inputs.iter().flat_map(|&i| value(i).iter().copied()).collect();
                places.iter().map(|&p| p.checked_sub(1).map_or(0, |p| all[p as usize])).collect()
            }
        };
        values.push(result);
    }
    let (source, drop) = (network.output.source, network.output.drop);
    let last = source.checked_sub(1).map_or(&image, |step| &values[step]);
    let step = network.steps.len();
    let class = network.output.classes.map(|_| (1 << network.output.bits) - 1);
    let rounded = |(index, &sum): (usize, &i64)| match drop {
        // The number of the class stands in the lowest bits.
        0 => class.map_or(sum, |mask: i64| sum & mask),
        // Half of what is dropped rounds to the nearest.
        _ => round(Dropping { step, index, sum: sum + (1 << (drop - 1)), drop }),
    };
    let output = last.iter().enumerate().map(rounded).collect();
    Trace { values, output }
}

/// Sums of products plus bias.
fn sums(linear: &FixedLinear, x: &[i64]) -> Vec<i64> {
    let x: Vec<i32> = x.iter().map(|&v| v as i32).collect();
    let mut sums = match linear.op.linear() {
        Some(Linear::Conv(c)) => {
            integer::conv::<i64>(c, &linear.weights, &x, &linear.input_shape, &linear.output_shape)
        }
        Some(Linear::Gemm(g)) => integer::gemm(g, &linear.weights, &x),
        None => vec![],
    };
    let places = sums.len() / linear.bias.len().max(1);
    for (sums, bias) in sums.chunks_mut(places.max(1)).zip(&linear.bias) {
        sums.iter_mut().for_each(|s| *s += bias);
    }
    sums
}

/// A function of every window's values inside of the plane.
fn window(
    pool: &Pool,
    x: &[i64],
    input: &[usize],
    output: &[usize],
    f: impl Fn(&mut dyn Iterator<Item = i64>) -> i64,
) -> Vec<i64> {
    let (&[.., height, width], &[.., rows, columns]) = (input, output) else { return vec![] };
    let mut places = vec![vec![]; rows * columns];
    for (at, of) in places.iter_mut().enumerate() {
        for ky in 0..pool.kernel[0] {
            for kx in 0..pool.kernel[1] {
                let y = at / columns * pool.stride[0] + ky * pool.dilation[0];
                let x = at % columns * pool.stride[1] + kx * pool.dilation[1];
                let (y, x) = (y.wrapping_sub(pool.padding[0]), x.wrapping_sub(pool.padding[1]));
                if y < height && x < width {
                    of.push(y * width + x);
                }
            }
        }
    }
    let planes = x.chunks_exact(height * width);
    planes.flat_map(|plane| places.iter().map(|of| f(&mut of.iter().map(|&i| plane[i])))).collect()
}
