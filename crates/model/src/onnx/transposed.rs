//! Reads transposed convolutions as ordinary ones.
//!
//! Take an axis with stride `s` and dilation `d`: input `i` and tap `k` meet at place
//! `q = i*s + k*d`. Places of phase `a = q mod s` are `q = s*t + a`, with `t = i + u` for the taps
//! `k*d = s*u + a`. So output phase `a` is an ordinary convolution of stride 1 with the kernel
//! `w_a[u] = w[k]`, turned round. One convolution therefore computes `s_h * s_w` filters for every
//! output channel, from the same inputs and without the zeros that a convolution of the spread-out
//! input would multiply. The client then moves the outputs to their places (the sub-pixel
//! convolution of Shi et al., 2016, arXiv:1609.07009, section 3). Phases with fewer taps than
//! others have zeros among their weights.

use super::importer::Importer;
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Conv, Op, SelectKind};
use crate::tensor::elements;

/// One axis of a transposed convolution.
#[derive(Debug, Clone, Copy)]
struct Axis {
    stride: usize,
    dilation: usize,
    taps: usize,
    /// Largest `u` of any tap.
    reach: usize,
    /// First and last `t` that an output needs.
    first: usize,
    last: usize,
    /// Places between `first * s` and the first output.
    skip: usize,
    outputs: usize,
    size: usize,
}

impl Axis {
    /// Returns the number of zeros in front of the input and behind it; a negative number counts
    /// elements of the input that no output needs.
    fn padding(&self) -> (isize, isize) {
        let before = self.reach as isize - self.first as isize;
        let after = self.last as isize - (self.size as isize - 1);
        (before, after)
    }

    /// Returns the tap of a phase at place `v` of the turned kernel, if there is one.
    fn tap(&self, phase: usize, v: usize) -> Option<usize> {
        let at = self.stride * (self.reach - v) + phase;
        (at.is_multiple_of(self.dilation) && at / self.dilation < self.taps).then(|| at / self.dilation)
    }
}

/// The weights of a transposed convolution as its file has them, `[channel][filter of the
/// group][kh][kw]`.
struct Given<'a> {
    weight: &'a [f32],
    group_filters: usize,
    /// Channels of a group.
    own: usize,
    kernel: [usize; 2],
}

impl Given<'_> {
    /// Appends the weights of the convolution that gives all phases:
    /// `[filter][phase][channel][place of the turned kernel]`, zeros for places without a tap.
    fn turn(&self, filters: usize, [rows, columns]: [Axis; 2], out: &mut Vec<f32>) {
        let (kh, kw) = (rows.reach + 1, columns.reach + 1);
        for filter in 0..filters {
            let (group, f) = (filter / self.group_filters, filter % self.group_filters);
            for (a, b) in (0..rows.stride).flat_map(|a| (0..columns.stride).map(move |b| (a, b))) {
                for c in 0..self.own {
                    let channel = group * self.own + c;
                    let plane = (channel * self.group_filters + f) * self.kernel[0] * self.kernel[1];
                    for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                        let tap = rows.tap(a, i).zip(columns.tap(b, j));
                        out.push(tap.map_or(0.0, |(k, l)| self.weight[plane + k * self.kernel[1] + l]));
                    }
                }
            }
        }
    }
}

impl Importer<'_, '_> {
    pub(super) fn conv_transpose(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let (dims, weight) = self.weights(r, 1)?.ok_or("has no weights")?;
        let (x, n) = self.planes(r, x)?;
        let (channels, group_filters, kernel) = match (&dims[..], n) {
            (&[c, f, k], 1) => (c, f, [k, 1]),
            (&[c, f, kh, kw], 2) => (c, f, [kh, kw]),
            _ => return Err(format!("its weights {dims:?} do not fit an input of {n} spatial dimensions").into()),
        };
        let groups = usize::try_from(r.int("group", 1)).ok().filter(|&g| g > 0 && channels.is_multiple_of(g));
        let groups =
            groups.ok_or_else(|| format!("its group {} does not fit {channels} channels", r.int("group", 1)))?;
        let filters = group_filters.checked_mul(groups).ok_or("has too many filters")?;
        let size = self.graph.shape(x).to_vec();
        if size[0] != channels {
            return Err(format!("has weights for {channels} channels, its input has {}", size[0]).into());
        }
        let axes = self.axes_of_transposed(r, n, kernel, [size[1], size[2]])?;
        let [rows, columns] = axes;
        let phases = rows.stride * columns.stride;
        let own = channels / groups;
        let (kh, kw) = (rows.reach + 1, columns.reach + 1);
        let count = elements(&[filters, phases]).and_then(|f| elements(&[f, own, kh, kw]));
        // Zeros for phases with fewer taps: no more than a stride asks for, and bounded whatever a
        // file says.
        let count = count.filter(|&c| c <= self.foldable()).ok_or("is too large")?;
        let mut turned = Vec::with_capacity(count);
        let given = Given { weight: &weight, group_filters, own, kernel };
        given.turn(filters, axes, &mut turned);
        let bias = self.weights(r, 2)?.map_or_else(|| vec![0.0; filters], |(_, b)| b);
        if bias.len() != filters {
            return Err(format!("has {} biases for {filters} filters", bias.len()).into());
        }
        let bias = bias.iter().flat_map(|&b| std::iter::repeat_n(b, phases)).collect();
        let (x, padding) = self.cropped(r, x, axes)?;
        let conv = Conv {
            weight: turned,
            bias,
            filters: filters * phases,
            channels: own,
            kernel: [kh, kw],
            stride: [1, 1],
            padding,
            dilation: [1, 1],
            groups,
        };
        let y = self.push(r, Op::Conv(conv), vec![x])?;
        let (th, tw) = (rows.last - rows.first + 1, columns.last - columns.first + 1);
        let z = if phases == 1 {
            y
        } else {
            let parts = self.shaped(r, y, vec![filters, rows.stride, columns.stride, th, tw])?;
            let placed = self.push(r, Op::Transpose(vec![0, 3, 1, 4, 2]), vec![parts])?;
            self.shaped(r, placed, vec![filters, th * rows.stride, tw * columns.stride])?
        };
        let cut = |axis: usize, a: Axis| {
            (axis, (a.skip..a.skip + a.outputs).map(|p| Some(p as u32)).collect::<Vec<Option<u32>>>())
        };
        let z = self.select(r, z, SelectKind::Slice, vec![cut(1, rows), cut(2, columns)], 0.0)?;
        let z = self.unplaned(r, z, n)?;
        self.spread.insert(z, (y, phases));
        Ok(z)
    }

    /// Works out the two axes from attributes and sizes.
    fn axes_of_transposed(
        &self,
        r: &Reading<'_>,
        n: usize,
        kernel: [usize; 2],
        size: [usize; 2],
    ) -> Result<[Axis; 2], Refusal> {
        let given = Self::extents(r, "kernel_shape", n, kernel, 1)?;
        if given != kernel {
            return Err(format!("its kernel_shape {given:?} differs from its weights {kernel:?}").into());
        }
        let stride = Self::extents(r, "strides", n, [1, 1], 1)?;
        let dilation = Self::extents(r, "dilations", n, [1, 1], 1)?;
        let more = Self::extents(r, "output_padding", n, [0, 0], 0)?;
        let shape = r.list("output_shape").map(|_| Self::extents(r, "output_shape", n, [0, 0], 1)).transpose()?;
        let auto = r.text("auto_pad", "NOTSET");
        let pads = match r.list("pads") {
            Some(list) if list.len() == 2 * n => Some(list),
            Some(list) => return Err(format!("its attribute pads must be {} numbers, got {list:?}", 2 * n).into()),
            None => None,
        };
        let axis = |a: usize| -> Result<Axis, Refusal> {
            let (stride, dilation, taps, size) = (stride[a], dilation[a], kernel[a], size[a]);
            let bounded = |v: usize| (1..=1 << 16).contains(&v);
            if ![stride, dilation, taps].into_iter().all(bounded) || more[a] > 1 << 16 {
                return Err("has a stride, dilation, kernel or output padding of 0, or a very large one".into());
            }
            // All places, before anything is cut off.
            let full = (size - 1) * stride + (taps - 1) * dilation + 1;
            let total = |outputs: usize| (full + more[a]) as i64 - outputs as i64;
            let split = |total: i64| match auto.as_str() {
                "SAME_UPPER" => (total.max(0) / 2, total - total.max(0) / 2),
                _ => {
                    let before = total.max(0) - total.max(0) / 2;
                    (before, total - before)
                }
            };
            let (before, after) = match (shape, auto.as_str()) {
                (Some(shape), _) => split(total(shape[a])),
                (None, "SAME_UPPER" | "SAME_LOWER") => split(total(size * stride)),
                (None, "NOTSET" | "" | "VALID") => {
                    let pad = |i: usize| pads.filter(|_| a < n && auto != "VALID").map_or(0, |p| p[i]);
                    (pad(a), pad(a + n))
                }
                (None, other) => return Err(format!("its auto_pad \"{other}\" is unknown").into()),
            };
            let outputs = (full + more[a]) as i64 - before - after;
            if !(0..1 << 20).contains(&before) || !(1..=1 << 20).contains(&outputs) {
                return Err(format!("gives an axis {outputs} places, starting at {before}").into());
            }
            let (before, outputs) = (before as usize, outputs as usize);
            let first = before / stride;
            Ok(Axis {
                stride,
                dilation,
                taps,
                reach: (taps - 1) * dilation / stride,
                first,
                last: (before + outputs - 1) / stride,
                skip: before - first * stride,
                outputs,
                size,
            })
        };
        Ok([axis(0)?, axis(1)?])
    }

    /// Cuts off the input what no output needs. Returns it with the padding that is left: top,
    /// left, bottom, right.
    fn cropped(&mut self, r: &Reading<'_>, x: ValueId, axes: [Axis; 2]) -> Result<(ValueId, [usize; 4]), Refusal> {
        let mut selected = vec![];
        let mut padding = [0; 4];
        for (i, axis) in axes.iter().enumerate() {
            let (before, after) = axis.padding();
            padding[i] = before.max(0) as usize;
            padding[i + 2] = after.max(0) as usize;
            let from = (-before).max(0) as usize;
            let to = axis.size.saturating_sub((-after).max(0) as usize);
            if from >= to {
                return Err("has outputs that no input reaches".into());
            }
            selected.push((i + 1, (from..to).map(|p| Some(p as u32)).collect()));
        }
        Ok((self.select(r, x, SelectKind::Slice, selected, 0.0)?, padding))
    }
}
