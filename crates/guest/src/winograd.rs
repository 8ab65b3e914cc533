//! Convolutions of three by three taps with fewer products: Winograd's F(2x2, 3x3).
//!
//! Four neighbouring outputs take sixteen products instead of thirty-six (Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks", 2015):
//!
//! ```text
//! Y = A' ((G g G') . (B' d B)) A        G has halves
//! ```
//!
//! With `2 G` instead of `G` all is integer, and gives `4 Y`. That is an identity over the
//! integers, so it holds modulo `2^32` too, for uniform words as well: `Y` comes out modulo `2^30`.
//! No layer with sums of more bits is computed like this.

use jali_model::Conv;

use crate::backend::products::{TOGETHER, Taps, eight_filters};
use crate::backend::{Backend, wide};
use crate::bits::LANES;

/// Most bits of sums.
const MAX_BITS: u32 = 30;
/// Channels and filters from which on the transforms pay.
const MIN_CHANNELS: usize = 8;
/// Products of a tile.
const POINTS: usize = 16;

/// A convolution's shape, in tiles of two by two outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tiles {
    channels: usize,
    filters: usize,
    /// Of the input.
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    /// Zeros above and to the left.
    before: [usize; 2],
    /// Tiles down and across.
    down: usize,
    across: usize,
    /// Words of all tiles, up to a whole vector.
    run: usize,
}

impl Tiles {
    /// The tiles of a convolution with sums of so many bits, if it has three by three taps next to
    /// each other and is large enough.
    pub(crate) fn of(conv: &Conv, input: &[usize], output: &[usize], bits: u32) -> Option<Self> {
        let (&[channels, height, width], &[filters, out_height, out_width]) = (input, output) else { return None };
        let is_plain = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1;
        let is_large = channels.min(filters) >= MIN_CHANNELS;
        if !is_plain || !is_large || bits > MAX_BITS {
            return None;
        }
        let before = [conv.padding[0], conv.padding[1]];
        let (down, across) = (out_height.div_ceil(2), out_width.div_ceil(2));
        let run = (down * across).next_multiple_of(LANES);
        Some(Self { channels, filters, height, width, out_height, out_width, before, down, across, run })
    }

    /// Weights `[filter][channel][tap]` as `[point][filters together][channel][filter]`, with zeros
    /// for filters that the last ones lack.
    pub(crate) fn arrange(&self, weights: &[u32]) -> Vec<u32> {
        let blocks = self.filters.div_ceil(TOGETHER);
        let mut out = vec![0; POINTS * blocks * self.channels * TOGETHER];
        for (filter, weights) in weights.chunks_exact(9 * self.channels).enumerate() {
            for (channel, taps) in weights.as_chunks::<9>().0.iter().enumerate() {
                for (point, value) in of_taps(taps).into_iter().enumerate() {
                    let block = point * blocks + filter / TOGETHER;
                    out[(block * self.channels + channel) * TOGETHER + filter % TOGETHER] = value;
                }
            }
        }
        out
    }

    /// Adds the product of arranged weights and inputs to `y`, modulo `2^30`: higher bits of `y`
    /// are anything.
    pub(crate) fn add_product(&self, backend: Backend, weights: &[u32], x: &[u32], y: &mut [u32]) {
        let (run, channels) = (self.run, self.channels);
        let inputs = of_inputs(backend, self, x);
        let places: Vec<usize> = (0..channels).map(|channel| channel * run).collect();
        let blocks = self.filters.div_ceil(TOGETHER);
        let mut products = vec![0; POINTS * TOGETHER * run];
        let mut tiles = vec![0; 4 * run];
        let outputs = self.out_height * self.out_width;
        for (block, y) in y.chunks_mut(TOGETHER * outputs).enumerate() {
            for (point, products) in products.chunks_exact_mut(TOGETHER * run).enumerate() {
                let weights = &weights[(point * blocks + block) * channels * TOGETHER..][..channels * TOGETHER];
                let planes = &inputs[point * channels * run..][..channels * run];
                eight_filters::<false>(backend, Taps { planes, places: &places, weights }, products);
            }
            for (filter, y) in y.chunks_exact_mut(outputs).enumerate() {
                let of_point = |point: usize| &products[(point * TOGETHER + filter) * run..][..run];
                of_products(backend, std::array::from_fn(of_point), &mut tiles);
                add_outputs(backend, self, &tiles, y);
            }
        }
    }
}

/// Sums or differences of two lines.
#[inline(always)]
fn combine(out: &mut [u32], first: &[u32], second: &[u32], add: bool) {
    for ((out, a), b) in out.iter_mut().zip(first).zip(second) {
        *out = if add { a.wrapping_add(*b) } else { a.wrapping_sub(*b) };
    }
}

/// Puts every second number of a row, which begins `before` places further, with the even places,
/// the others with the odd ones.
#[inline(always)]
fn part(x: &[u32], before: usize, even: &mut [u32], odd: &mut [u32]) {
    let (first, second) = match before % 2 {
        0 => (&mut even[before / 2..], &mut odd[before / 2..]),
        _ => (&mut odd[before / 2..], &mut even[before / 2 + 1..]),
    };
    let (pairs, rest) = x.as_chunks::<2>();
    for ((first, second), pair) in first.iter_mut().zip(second.iter_mut()).zip(pairs) {
        (*first, *second) = (pair[0], pair[1]);
    }
    if let Some(first) = first.get_mut(pairs.len()) {
        rest.iter().for_each(|x| *first = *x);
    }
    // Where the last place that is read is one of a pair.
    if first.len() > second.len() && pairs.len() > second.len() {
        first[second.len()] = pairs[second.len()][0];
    }
}

/// `d B` of a row: four lines of a number for each tile.
#[inline(always)]
fn along(even: &[u32], odd: &[u32], lines: [&mut [u32]; 4]) {
    let [l0, l1, l2, l3] = lines;
    let n = l0.len();
    let (e0, e1, o0, o1) = (&even[..n], &even[1..][..n], &odd[..n], &odd[1..][..n]);
    let (l1, l2, l3) = (&mut l1[..n], &mut l2[..n], &mut l3[..n]);
    for j in 0..n {
        l0[j] = e0[j].wrapping_sub(e1[j]);
        l1[j] = o0[j].wrapping_add(e1[j]);
        l2[j] = e1[j].wrapping_sub(o0[j]);
        l3[j] = o0[j].wrapping_sub(o1[j]);
    }
}

wide! {
    /// `B' d B` of all tiles, as `[point][channel][tile]`.
    fn of_inputs(tiles: &Tiles, x: &[u32]) -> Vec<u32> {
        let &Tiles { run, across, down, channels, height, width, before, .. } = tiles;
        let mut out = vec![0; POINTS * channels * run];
        let (mut even, mut odd) = (vec![0; across + 1], vec![0; across + 1]);
        // For each of four lines the even rows, then the odd ones.
        let size = (down + 1) * across;
        let mut lines = vec![0; 8 * size];
        for (channel, plane) in x.chunks_exact(height * width).enumerate() {
            for row in 0..2 * down + 2 {
                let y = row.wrapping_sub(before[0]);
                let at = row / 2 * across;
                let mut parts = lines.chunks_exact_mut(2 * size);
                let four = std::array::from_fn(|_| {
                    let line = parts.next().unwrap_or_default();
                    &mut line[row % 2 * size..][at..at + across]
                });
                if y < height {
                    part(&plane[y * width..][..width], before[1], &mut even, &mut odd);
                    along(&even, &odd, four);
                } else {
                    four.into_iter().for_each(|line| line.fill(0));
                }
            }
            for (q, line) in lines.chunks_exact(2 * size).enumerate() {
                let (upper, lower) = line.split_at(size);
                let n = down * across;
                let mut put = |v: usize, first: &[u32], second: &[u32], add: bool| {
                    combine(&mut out[((4 * v + q) * channels + channel) * run..][..n], first, second, add);
                };
                put(0, &upper[..n], &upper[across..], false);
                put(1, &lower[..n], &upper[across..], true);
                put(2, &upper[across..], &lower[..n], false);
                put(3, &lower[..n], &lower[across..], false);
            }
        }
        out
    }

    /// Adds what [`of_products`] made of all tiles to a filter's outputs.
    fn add_outputs(shape: &Tiles, tiles: &[u32], y: &mut [u32]) {
        for (row, y) in y.chunks_exact_mut(shape.out_width).enumerate() {
            let line = |place: usize| &tiles[place * shape.run + row / 2 * shape.across..][..shape.across];
            let (left, right) = (line(row % 2 * 2), line(row % 2 * 2 + 1));
            let (pairs, rest) = y.as_chunks_mut::<2>();
            for ((pair, left), right) in pairs.iter_mut().zip(left).zip(right) {
                *pair = [pair[0].wrapping_add(*left), pair[1].wrapping_add(*right)];
            }
            if let (Some(y), Some(left)) = (rest.first_mut(), left.last()) {
                *y = y.wrapping_add(*left);
            }
        }
    }

    /// `A' m A / 4` of all tiles of a filter: its upper left outputs, upper right, lower left,
    /// lower right.
    fn of_products(m: [&[u32]; POINTS], out: &mut [u32]) {
        let run = m[0].len();
        let (upper, lower) = out.split_at_mut(2 * run);
        let ((ul, ur), (ll, lr)) = (upper.split_at_mut(run), lower.split_at_mut(run));
        // A' on four numbers.
        let two = |a: u32, b: u32, c: u32, d: u32| {
            [a.wrapping_add(b).wrapping_add(c), b.wrapping_sub(c).wrapping_sub(d)]
        };
        for t in 0..run {
            let mut down = [[0; 2]; 4];
            for (x, down) in down.iter_mut().enumerate() {
                *down = two(m[x][t], m[4 + x][t], m[8 + x][t], m[12 + x][t]);
            }
            let upper = two(down[0][0], down[1][0], down[2][0], down[3][0]);
            let lower = two(down[0][1], down[1][1], down[2][1], down[3][1]);
            (ul[t], ur[t], ll[t], lr[t]) = (upper[0] >> 2, upper[1] >> 2, lower[0] >> 2, lower[1] >> 2);
        }
    }
}

/// `(2 G) g (2 G)'` of nine taps.
fn of_taps(taps: &[u32; 9]) -> [u32; POINTS] {
    // 2 G on three numbers.
    let four = |a: u32, b: u32, c: u32| {
        let outer = a.wrapping_add(c);
        [a.wrapping_mul(2), outer.wrapping_add(b), outer.wrapping_sub(b), c.wrapping_mul(2)]
    };
    let down: [[u32; 4]; 3] = std::array::from_fn(|x| four(taps[x], taps[3 + x], taps[6 + x]));
    let mut out = [0; POINTS];
    for y in 0..4 {
        out[4 * y..][..4].copy_from_slice(&four(down[0][y], down[1][y], down[2][y]));
    }
    out
}
