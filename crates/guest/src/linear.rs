//! Products of a linear layer's weights and masked values, modulo `2^32`.
//!
//! Values stand as the graph has them, `[channel][row][column]`. A convolution runs over *planes*:
//! every channel, its padding and, for strides, its phases (every second or third place along an
//! axis), one after the other. An output that is one place further along a row reads all its inputs
//! one place further, so that the inputs of sixteen neighbouring outputs are sixteen neighbouring
//! words. Rows of a plane follow each other, hence the outputs of a whole plane are one run; the
//! few places of it that lie beyond the end of a row are computed and not used.

use std::ops::Range;
use std::sync::Arc;

use jali_model::{Conv, Gemm, Linear};

use crate::backend::Backend;
use crate::backend::products::{TILE, TOGETHER, Taps, dot, eight_filters, four_by_four, one_filter};
use crate::gathering::Gathering;
use crate::winograd::Tiles;

/// The weights of a linear layer, in the order in which they are multiplied.
#[derive(Clone)]
pub struct Matrix {
    shape: Shape,
    weights: Vec<u32>,
    /// Where sessions meet that share its products.
    gathering: Option<Arc<Gathering>>,
}

/// Bytes of a fully connected layer from which on sessions share its products: more than caches
/// hold.
const SHARED: usize = 8 << 20;

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrix").field("shape", &self.shape).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Dense {
        inputs: usize,
    },
    Conv(Planes),
    Tiles(Tiles),
    /// Numbers of 16 bits: a word of a plane holds those of two channels.
    Pairs {
        planes: Planes,
        /// Channels that a filter reads, before they were paired.
        of_filter: usize,
    },
}

/// How a convolution's inputs lie.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planes {
    channels: usize,
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    groups: usize,
    filters: usize,
    stride: [usize; 2],
    /// Zeros above and to the left.
    before: [usize; 2],
    /// Phases that some tap reads: vertical and horizontal.
    phases: Vec<[usize; 2]>,
    /// Height and width of a phase's plane.
    plane: [usize; 2],
    /// Where a tap finds its inputs, from the first word of its channel on.
    taps: Vec<usize>,
    /// Outputs of a plane, those beyond the ends of rows included, up to a whole tile.
    run: usize,
    /// Filters computed together: [`TOGETHER`] or 1.
    together: usize,
}

impl Planes {
    fn of(conv: &Conv, input: &[usize], output: &[usize]) -> Self {
        let (&[channels, height, width], &[filters, out_height, out_width]) = (input, output) else {
            unreachable!("a graph's convolution has planes")
        };
        let [stride_y, stride_x] = conv.stride;
        let reach = |kernel: usize, dilation: usize, stride: usize| (kernel - 1) * dilation / stride;
        let plane = [
            out_height + reach(conv.kernel[0], conv.dilation[0], stride_y),
            out_width + reach(conv.kernel[1], conv.dilation[1], stride_x),
        ];
        let (mut phases, mut taps) = (vec![], vec![]);
        for ky in 0..conv.kernel[0] {
            for kx in 0..conv.kernel[1] {
                let (y, x) = (ky * conv.dilation[0], kx * conv.dilation[1]);
                let phase = [y % stride_y, x % stride_x];
                let place = phases.iter().position(|p| *p == phase).unwrap_or_else(|| {
                    phases.push(phase);
                    phases.len() - 1
                });
                taps.push(place * plane[0] * plane[1] + y / stride_y * plane[1] + x / stride_x);
            }
        }
        let run = ((out_height - 1) * plane[1] + out_width).next_multiple_of(TILE);
        let together = if filters / conv.groups >= TOGETHER / 2 { TOGETHER } else { 1 };
        let before = [conv.padding[0], conv.padding[1]];
        let (groups, stride) = (conv.groups, conv.stride);
        Self {
            channels,
            height,
            width,
            out_height,
            out_width,
            groups,
            filters,
            stride,
            before,
            phases,
            plane,
            taps,
            run,
            together,
        }
    }

    /// Words of one channel's planes.
    fn channel(&self) -> usize {
        self.phases.len() * self.plane[0] * self.plane[1]
    }

    /// All planes, with zeros where there is padding.
    fn spread(&self, x: &[u32]) -> Vec<u32> {
        let mut out = vec![0; self.channels * self.channel() + TILE + self.run];
        let [rows, columns] = self.plane;
        for (channel, x) in x.chunks_exact(self.height * self.width).enumerate() {
            for (p, phase) in self.phases.iter().enumerate() {
                let out = &mut out[channel * self.channel() + p * rows * columns..][..rows * columns];
                for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                    let y = (row * self.stride[0] + phase[0]).wrapping_sub(self.before[0]);
                    if y < self.height {
                        self.spread_row(&x[y * self.width..][..self.width], phase[1], out);
                    }
                }
            }
        }
        out
    }

    fn spread_row(&self, x: &[u32], phase: usize, out: &mut [u32]) {
        let (stride, before) = (self.stride[1], self.before[1]);
        // The first place that is not padding.
        let first = before.saturating_sub(phase).div_ceil(stride);
        let start = first * stride + phase - before;
        if first >= out.len() || start >= x.len() {
            return;
        }
        let out = &mut out[first..];
        if stride == 1 {
            let n = out.len().min(x.len() - start);
            out[..n].copy_from_slice(&x[start..start + n]);
        } else {
            out.iter_mut().zip(x[start..].iter().step_by(stride)).for_each(|(o, x)| *o = *x);
        }
    }

    /// Weights `[filter][channel][tap]` as `[group][filters together][channel][tap][filter]`, zeros
    /// for filters that the last ones lack.
    fn arrange(&self, weights: &[u32]) -> Vec<u32> {
        let fan_in = weights.len() / self.filters;
        let (of_group, t) = (self.filters / self.groups, self.together);
        let mut out = vec![0; self.groups * of_group.div_ceil(t) * t * fan_in];
        let blocks = out.chunks_exact_mut(t * fan_in);
        for (b, out) in blocks.enumerate() {
            let per_group = of_group.div_ceil(t);
            let (group, first) = (b / per_group, b % per_group * t);
            for f in 0..t.min(of_group - first) {
                let row = &weights[(group * of_group + first + f) * fan_in..][..fan_in];
                out.iter_mut().skip(f).step_by(t).zip(row).for_each(|(o, w)| *o = *w);
            }
        }
        out
    }

    fn add_product<const PAIRS: bool>(&self, backend: Backend, weights: &[u32], x: &[u32], y: &mut [u32]) {
        let planes = self.spread(x);
        let (in_group, of_group) = (self.channels / self.groups, self.filters / self.groups);
        let tap = |channel: usize| self.taps.iter().map(move |tap| channel * self.channel() + tap);
        let places: Vec<usize> = (0..in_group).flat_map(tap).collect();
        let (outputs, t) = (self.out_height * self.out_width, self.together);
        let mut sums = vec![0; t * self.run];
        let blocks = weights.chunks_exact(t * places.len());
        for (b, weights) in blocks.enumerate() {
            let per_group = of_group.div_ceil(t);
            let (group, first) = (b / per_group, b % per_group * t);
            let planes = &planes[group * in_group * self.channel()..];
            let taps = Taps { planes, places: &places, weights };
            match t {
                TOGETHER => eight_filters::<PAIRS>(backend, taps, &mut sums),
                _ => one_filter::<PAIRS>(backend, taps, &mut sums),
            }
            for (f, sums) in sums.chunks_exact(self.run).take(of_group - first).enumerate() {
                let y = &mut y[(group * of_group + first + f) * outputs..][..outputs];
                for (y, sums) in y.chunks_exact_mut(self.out_width).zip(sums.chunks(self.plane[1])) {
                    y.iter_mut().zip(sums).for_each(|(y, s)| *y = y.wrapping_add(*s));
                }
            }
        }
    }
}

/// Puts numbers of 16 bits into words, two neighbouring planes of `size` numbers into one; of every
/// `together` planes, the last one stays alone if their number is odd.
fn pairs(numbers: &[u32], together: usize, size: usize) -> Vec<u32> {
    let mut out = Vec::with_capacity(numbers.len().div_ceil(together * size) * together.div_ceil(2) * size);
    for group in numbers.chunks_exact(together * size) {
        for pair in group.chunks(2 * size) {
            let (first, second) = pair.split_at(size);
            match second.is_empty() {
                true => out.extend(first.iter().map(|a| a & 0xffff)),
                false => out.extend(first.iter().zip(second).map(|(a, b)| a & 0xffff | b << 16)),
            }
        }
    }
    out
}

impl Matrix {
    /// A layer's weights in the order of the graph, modulo `2^32`, for inputs and outputs of these
    /// shapes, to give sums modulo `2^bits`. The weights of `linear` itself are not read.
    pub fn new(linear: Linear<'_>, input: &[usize], output: &[usize], weights: &[u32], bits: u32) -> Self {
        match linear {
            Linear::Gemm(Gemm { inputs, .. }) => {
                Self { shape: Shape::Dense { inputs: *inputs }, weights: weights.to_vec(), gathering: None }
            }
            Linear::Conv(conv) => {
                let (shape, weights) = match Tiles::of(conv, input, output, bits) {
                    Some(tiles) => {
                        let weights = tiles.arrange(weights);
                        (Shape::Tiles(tiles), weights)
                    }
                    None => {
                        let planes = Planes::of(conv, input, output);
                        let weights = planes.arrange(weights);
                        (Shape::Conv(planes), weights)
                    }
                };
                Self { shape, weights, gathering: None }
            }
        }
    }

    /// The same for numbers that both parties, or the guest, know in the clear: about three times
    /// as fast where weights and inputs have 16 bits with their signs. `range` bounds the inputs.
    pub fn in_the_clear(
        linear: Linear<'_>,
        input: &[usize],
        output: &[usize],
        weights: &[u32],
        (bits, range): (u32, [i64; 2]),
    ) -> Self {
        let is_short = |v: i64| i16::try_from(v).is_ok();
        let short = range.into_iter().all(is_short) && weights.iter().all(|&w| is_short(i64::from(w as i32)));
        let (Linear::Conv(conv), true) = (linear, short) else {
            return Self::new(linear, input, output, weights, bits);
        };
        if conv.channels == 1 {
            return Self::new(linear, input, output, weights, bits);
        }
        let &Conv { channels, filters, kernel, stride, padding, dilation, groups, .. } = conv;
        let (weight, bias, channels) = (vec![], vec![], channels.div_ceil(2));
        let paired = Conv { weight, bias, channels, filters, kernel, stride, padding, dilation, groups };
        let input = [paired.channels * conv.groups, input[1], input[2]];
        let planes = Planes::of(&paired, &input, output);
        let weights = planes.arrange(&pairs(weights, conv.channels, conv.kernel[0] * conv.kernel[1]));
        Self { shape: Shape::Pairs { planes, of_filter: conv.channels }, weights, gathering: None }
    }

    /// Has sessions that ask for products at the same time share them, where that pays.
    #[must_use]
    pub fn shared(mut self) -> Self {
        let is_large = self.bytes() >= SHARED && matches!(self.shape, Shape::Dense { .. });
        self.gathering = is_large.then(Arc::default);
        self
    }

    /// Adds the product with `x` to `y`, modulo `2^bits`: higher bits of `y` are anything.
    pub fn add_product(&self, backend: Backend, x: &[u32], y: &mut [u32]) {
        match &self.shape {
            Shape::Dense { inputs } => match &self.gathering {
                Some(gathering) => {
                    let compute = |rows, all: &[&[u32]]| self.dense(backend, *inputs, rows, all);
                    let product = gathering.product(x, y.len(), compute);
                    y.iter_mut().zip(product).for_each(|(y, p)| *y = y.wrapping_add(p));
                }
                None => {
                    for (row, y) in self.weights.chunks_exact(*inputs).zip(y) {
                        *y = y.wrapping_add(dot(backend, row, x));
                    }
                }
            },
            Shape::Conv(planes) => planes.add_product::<false>(backend, &self.weights, x, y),
            Shape::Tiles(tiles) => tiles.add_product(backend, &self.weights, x, y),
            Shape::Pairs { planes, of_filter } => {
                let x = pairs(x, *of_filter, planes.height * planes.width);
                planes.add_product::<true>(backend, &self.weights, &x, y);
            }
        }
    }

    /// The products of some rows of a fully connected layer with several inputs, in one pass over
    /// their weights.
    fn dense(&self, backend: Backend, inputs: usize, rows: Range<usize>, all: &[&[u32]]) -> Vec<Vec<u32>> {
        let mut out = vec![Vec::with_capacity(rows.len()); all.len()];
        let rows: Vec<&[u32]> = self.weights.chunks_exact(inputs).skip(rows.start).take(rows.len()).collect();
        for rows in rows.chunks(4) {
            for (out, all) in out.chunks_mut(4).zip(all.chunks(4)) {
                match (<[_; 4]>::try_from(rows), <[_; 4]>::try_from(all)) {
                    (Ok(rows), Ok(all)) => {
                        for sums in four_by_four(backend, rows, all) {
                            out.iter_mut().zip(sums).for_each(|(out, sum)| out.push(sum));
                        }
                    }
                    _ => {
                        let dots = |x| rows.iter().map(move |row| dot(backend, row, x));
                        out.iter_mut().zip(all).for_each(|(out, x)| out.extend(dots(*x)));
                    }
                }
            }
        }
        out
    }

    /// Bytes that the weights take.
    pub fn bytes(&self) -> usize {
        self.weights.len() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests;
