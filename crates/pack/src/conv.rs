//! Convolutions with any kernel, stride, padding, dilation and number of groups.
//!
//! # Phases
//! Take an axis with stride `s`, dilation `d` and `p` zeros in front. Output `i` and tap `k` meet
//! at place `i*s + k*d` of the padded axis. *Phase* `a` is every `s`-th place from `a` on. With
//! `k*d = du*s + a`, `a < s`, output and tap meet at element `i + du` of phase `a`. So a strided
//! convolution is one of stride 1 over phase planes: each channel becomes a *virtual channel* for
//! each pair of phases that some tap needs and some pixel reaches. A dilated kernel is a longer one
//! with few taps. All phase planes of a layer have the same size `L = outputs + largest du` along
//! each axis.
//!
//! # Places
//! Let `KH` and `KW` be one more than the largest `du` and `dw`, and `LH` and `LW` the sizes of a
//! phase plane. In all phase planes the first `lead` and the last `trail` plane rows (columns) are
//! zeros. Of these, `ov = min(lead, trail, K - 1)` serve two neighbours at once. A tile holds `C_t`
//! virtual channels, a row `M_t` filters:
//!
//! ```text
//! S = LW - ov_w,   P = (LH - ov_h) * S,   Q = C_t * P,   off = (C_t-1)*P + (KH-1)*S + KW-1
//! x[v][u][w]       at X^(v*P + u*S + w)
//! w[m][v][du][dw]  at X^(m*Q + off - v*P - du*S - dw)
//! y[m][i][j]       =  coefficient of X^(m*Q + off + i*S + j)
//! ```
//!
//! # Why nothing else reaches a wanted coefficient
//! Let `M_t*Q <= N`, and let all wanted indices be below `N`. Take a product of input `(v, u, w)`
//! and weight `(m', v', du, dw)`. Before any wrap-around it lands on the wanted `(m, i, j)` if
//! `D*P + u*S + w = R`, with `D = (m'-m)*C_t + (v-v')` and `R = (i+du)*S + (j+dw)`. Inputs stand at
//! `u*S + w` in `[0, P)`, and `R < P + ov_h*S + ov_w`.
//!
//! * `D = 0` means `m' = m` and `v' = v`, as `|v-v'| < C_t`. If `j+dw < S`, the input is `u =
//!   i+du`, `w = j+dw`: the product is the wanted one. If not, the input stands in column `j+dw-S <
//!   ov_w` of the next plane row and is a zero. The wanted product is zero, too, as columns from
//!   `S` on are zeros.
//! * `D = 1`: the input stands below `ov_h*S + ov_w` in its plane. There it is in the first `ov_h`
//!   plane rows, which are zeros, or among the first `ov_w` zeros of the next plane row.
//! * `D >= 2` would need `R >= 2P`, but `ov_h*S + ov_w <= P`, as there is a plane row and a column
//!   that is not zero everywhere. `D < 0` makes the left side negative.
//! * **Wrap-around.** The largest product index is `(M_t-1)Q + off + Q - 1 <= N + off - 1`; minus
//!   `N` it is below `off`, the first wanted index.
//! * Taps with `dw >= S` or `du >= P/S` meet nothing but zeros. They are left out, so that every
//!   place holds one weight.
//!
//! # Groups
//! Channels of one group never meet filters of another: the matrix is block-diagonal, and a row has
//! elements for the tiles of its block only. A block is one group, or several groups whose virtual
//! channels share one tile (depthwise layers). In the latter case the filters of a group have no
//! taps for the channels of the others.
//!
//! # Strips
//! A plane that is too large is cut into strips of output rows, whose input rows overlap by `KH -
//! 1`. All strips have the same matrix: to the server they are so many inputs of a batch. Where
//! there are strips, planes share no plane rows (`ov_h = 0`).

use std::ops::Range;

use jali_model::Conv;
use jali_ring::{Steps, WantedPattern};

use crate::PackError;
use crate::layout::Tile;

/// Most strips of a plane.
const MAX_STRIPS: usize = 256;

/// The free choices of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvChoice {
    /// `C_t`, virtual channels of a tile.
    pub tile_channels: usize,
    /// `M_t`, filters of a row.
    pub row_filters: usize,
    /// Groups of a block: more than one only if a tile holds them all.
    pub block_groups: usize,
    /// Strips of a plane.
    pub strips: usize,
}

/// How one convolution stands in ring elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvLayout {
    degree: usize,
    choice: ConvChoice,
    geometry: Geometry,
    /// Height and width of an input plane.
    input: [usize; 2],
    /// Input channels and filters of one group, and the number of groups.
    group: [usize; 3],
    /// `S`, coefficients from one plane row to the next.
    row_stride: usize,
    /// `P`, coefficients from one plane to the next.
    plane: usize,
}

/// One axis of a convolution: its phases, taps and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Axis {
    stride: usize,
    /// Zeros in front of the first pixel.
    before: usize,
    size: usize,
    outputs: usize,
    /// Phases that some tap needs and some pixel reaches, rising.
    phases: Vec<usize>,
    /// Phase (index into `phases`) and offset of every tap; `None` for a tap that meets only
    /// padding.
    taps: Vec<Option<(usize, usize)>>,
    /// One more than the largest offset.
    reach: usize,
    /// Zeros at the start and the end of every phase.
    lead: usize,
    trail: usize,
}

impl Axis {
    fn new(conv: &Conv, size: usize, axis: usize) -> Result<Self, PackError> {
        let (kernel, stride, dilation) = (conv.kernel[axis], conv.stride[axis], conv.dilation[axis]);
        let (before, after) = (conv.padding[axis], conv.padding[axis + 2]);
        let outputs =
            jali_model::shape_inference::window(size, before.saturating_add(after), kernel, stride, dilation, false)
                .map_err(|got| PackError::Unsupported { what: "this window", got })?;
        let places = kernel.checked_mul(dilation).and_then(|k| k.checked_add(outputs.saturating_mul(stride)));
        if places.is_none_or(|p| p > u32::MAX as usize) {
            return Err(PackError::Unsupported { what: "a window of this size", got: format!("{kernel}") });
        }
        let reach = (kernel - 1) * dilation / stride + 1;
        let length = outputs + reach - 1;
        // Returns the elements of a phase that are pixels.
        let pixels = |phase: usize| -> Range<usize> {
            let first = before.saturating_sub(phase).div_ceil(stride);
            let end = (before + size).saturating_sub(phase).div_ceil(stride).min(length);
            first.min(end)..end
        };
        let mut phases: Vec<usize> = (0..kernel).map(|k| k * dilation % stride).collect();
        phases.sort_unstable();
        phases.dedup();
        let some = phases[0];
        phases.retain(|&p| !pixels(p).is_empty());
        let lead = phases.iter().map(|&p| pixels(p).start).min().unwrap_or(0);
        let trail = phases.iter().map(|&p| length - pixels(p).end).min().unwrap_or(0);
        // Nothing but padding everywhere: one phase of zeros stands for it.
        if phases.is_empty() {
            phases.push(some);
        }
        let tap = |k: usize| Some((phases.binary_search(&(k * dilation % stride)).ok()?, k * dilation / stride));
        let taps = (0..kernel).map(tap).collect();
        Ok(Self { stride, before, size, outputs, phases, taps, reach, lead, trail })
    }

    /// Returns the pixel at an element of a phase, or `None` if it is padding.
    fn pixel(&self, phase: usize, element: usize) -> Option<usize> {
        (element * self.stride + self.phases[phase]).checked_sub(self.before).filter(|&p| p < self.size)
    }

    /// Returns `ov`, the zeros that serve two neighbours.
    fn shared(&self) -> usize {
        self.lead.min(self.trail).min(self.reach - 1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Geometry {
    rows: Axis,
    columns: Axis,
}

impl Geometry {
    fn new(conv: &Conv, [_, h, w]: [usize; 3]) -> Result<Self, PackError> {
        Ok(Self { rows: Axis::new(conv, h, 0)?, columns: Axis::new(conv, w, 1)? })
    }

    /// Returns the number of pairs of phases.
    fn phases(&self) -> usize {
        self.rows.phases.len() * self.columns.phases.len()
    }

    /// Returns `S`, the coefficients from one plane row to the next.
    fn row_stride(&self) -> usize {
        self.columns.outputs + self.columns.reach - 1 - self.columns.shared()
    }

    /// Returns the output rows of a plane in one of `strips` strips.
    fn strip_rows(&self, strips: usize) -> usize {
        self.rows.outputs.div_ceil(strips)
    }

    /// Returns `P`, the coefficients from one plane to the next, for planes that are cut into
    /// `strips` strips.
    fn plane(&self, strips: usize) -> usize {
        let shared = if strips == 1 { self.rows.shared() } else { 0 };
        (self.strip_rows(strips) + self.rows.reach - 1 - shared).saturating_mul(self.row_stride())
    }
}

impl ConvLayout {
    /// Makes the layout of a convolution, for an input of shape `[channels, height, width]` and a
    /// ring of `degree`, with this choice.
    ///
    /// # Errors
    /// [`PackError::TooLarge`] if it does not fit the ring, [`PackError::Unsupported`] for groups
    /// or strips that do not divide the layer.
    pub fn new(conv: &Conv, input: [usize; 3], degree: usize, choice: ConvChoice) -> Result<Self, PackError> {
        let geometry = Geometry::new(conv, input)?;
        Self::with(conv, input, degree, choice, geometry)
    }

    fn with(
        conv: &Conv,
        input: [usize; 3],
        degree: usize,
        choice: ConvChoice,
        geometry: Geometry,
    ) -> Result<Self, PackError> {
        let unsupported = |what, got: usize| Err(PackError::Unsupported { what, got: got.to_string() });
        let ConvChoice { tile_channels, row_filters, block_groups, strips } = choice;
        let group = [conv.channels, conv.filters / conv.groups.max(1), conv.groups];
        // The last block may have fewer groups, but then every row must still have a filter.
        let filters = |groups: usize| (groups * group[1]).div_ceil(row_filters.max(1));
        if block_groups == 0
            || block_groups > conv.groups
            || filters(block_groups) != filters((conv.groups - 1) % block_groups + 1)
        {
            return unsupported("this number of groups in a block", block_groups);
        }
        if block_groups > 1 && tile_channels != block_groups * conv.channels * geometry.phases() {
            return unsupported("a block of several groups in more than one tile", block_groups);
        }
        if strips == 0 || strips > geometry.rows.outputs.min(MAX_STRIPS) {
            return unsupported("this number of strips", strips);
        }
        let (row_stride, plane) = (geometry.row_stride(), geometry.plane(strips));
        // Step by step, so that no product overflows whatever a file says.
        let mut needed = plane;
        for factor in [tile_channels, row_filters] {
            needed = needed.saturating_mul(factor);
            if needed > degree || factor == 0 {
                return Err(PackError::TooLarge { what: "a tile of the convolution", needed, degree });
            }
        }
        let layout = Self { degree, choice, geometry, input: [input[1], input[2]], group, row_stride, plane };
        let WantedPattern { start, steps } = layout.wanted();
        let needed = needed.max(steps.iter().fold(start + 1, |end, s| end + (s.count - 1) * s.stride));
        if needed > degree {
            return Err(PackError::TooLarge { what: "a tile of the convolution", needed, degree });
        }
        Ok(layout)
    }

    /// Returns every useful layout at `degree`: for each number of tiles the one with the most
    /// filters per row.
    ///
    /// # Errors
    /// [`PackError::TooLarge`] if not even a strip of one output row fits.
    pub fn candidates(conv: &Conv, input: [usize; 3], degree: usize) -> Result<Vec<Self>, PackError> {
        let geometry = Geometry::new(conv, input)?;
        let mut out = vec![];
        // As many strips as are needed to fit, and more while that lets more planes into a tile.
        let rows = geometry.rows.outputs;
        let strips = (1..=rows.min(MAX_STRIPS)).filter(|&k| k == 1 || rows.div_ceil(k) < rows.div_ceil(k - 1));
        for strips in strips {
            let per_ring = degree / geometry.plane(strips).max(1);
            out.extend(Self::with_strips(conv, input, degree, strips, &geometry));
            if per_ring >= 8 {
                break;
            }
        }
        if out.is_empty() {
            let strips = rows.min(MAX_STRIPS);
            let choice = ConvChoice { tile_channels: 1, row_filters: 1, block_groups: 1, strips };
            Self::with(conv, input, degree, choice, geometry)?;
        }
        Ok(out)
    }

    /// Returns every useful layout with planes cut into `strips` strips; `g` is the geometry of
    /// `conv` for the `input` shape, `degree` the ring's.
    fn with_strips(conv: &Conv, input: [usize; 3], degree: usize, strips: usize, g: &Geometry) -> Vec<Self> {
        let per_ring = degree / g.plane(strips).max(1);
        let make = |tile_channels: usize, row_filters, block_groups| {
            let choice = ConvChoice { tile_channels, row_filters, block_groups, strips };
            Self::with(conv, input, degree, choice, g.clone()).ok()
        };
        let (channels, filters) = (conv.channels * g.phases(), conv.filters / conv.groups);
        let mut out = vec![];
        for tile_channels in 1..=per_ring.min(channels) {
            // A channel count that only pads the last tile is never better than the smaller one.
            if channels.div_ceil(tile_channels) == channels.div_ceil(tile_channels.max(2) - 1) && tile_channels > 1 {
                continue;
            }
            let most = (per_ring / tile_channels).min(filters);
            out.extend((1..=most).rev().find_map(|m| make(tile_channels, m, 1)));
        }
        // Several groups in a tile.
        for groups in 2..=conv.groups.min(per_ring / channels) {
            let most = (per_ring / (groups * channels)).min(groups * filters);
            out.extend((1..=most).rev().find_map(|m| make(groups * channels, m, groups)));
        }
        out
    }

    /// Returns the choice that the layout was made with.
    pub fn choice(&self) -> ConvChoice {
        self.choice
    }

    /// Returns the blocks of the matrix.
    pub fn blocks(&self) -> usize {
        self.group[2].div_ceil(self.choice.block_groups)
    }

    /// Returns the strips of a plane: one image becomes so many inputs.
    pub fn strips(&self) -> usize {
        self.choice.strips
    }

    /// Returns the virtual channels of one group.
    fn group_channels(&self) -> usize {
        self.group[0] * self.geometry.phases()
    }

    /// Returns the tiles of a row: those of its block.
    pub fn row_tiles(&self) -> usize {
        (self.group_channels() * self.choice.block_groups).div_ceil(self.choice.tile_channels)
    }

    /// Returns the filters of one block.
    fn block_filters(&self) -> usize {
        self.group[1] * self.choice.block_groups
    }

    /// Returns the rows of one block.
    fn block_rows(&self) -> usize {
        self.block_filters().div_ceil(self.choice.row_filters)
    }

    /// Returns the rows of the matrix, all blocks together.
    pub fn rows(&self) -> usize {
        self.blocks() * self.block_rows()
    }

    /// Returns which filters this row computes.
    pub fn row_outputs(&self, row: usize) -> Range<usize> {
        let (block, row) = (row / self.block_rows(), row % self.block_rows());
        let start = block * self.block_filters();
        let end = (start + self.block_filters()).min(self.group[1] * self.group[2]);
        (start + row * self.choice.row_filters).min(end)..(start + (row + 1) * self.choice.row_filters).min(end)
    }

    /// Returns `off`, the first wanted index.
    fn offset(&self) -> usize {
        (self.choice.tile_channels - 1) * self.plane
            + (self.geometry.rows.reach - 1) * self.row_stride
            + self.geometry.columns.reach
            - 1
    }

    /// Returns where the outputs of a row stand in a row product.
    pub fn wanted(&self) -> WantedPattern {
        let filters = Steps { count: self.choice.row_filters, stride: self.choice.tile_channels * self.plane };
        let rows = Steps { count: self.geometry.strip_rows(self.strips()), stride: self.row_stride };
        let columns = Steps { count: self.geometry.columns.outputs, stride: 1 };
        WantedPattern { start: self.offset(), steps: [filters, rows, columns] }
    }

    /// Packs inputs `[channel][i][j]` into tiles of `N` coefficients: `[strip][tile][coefficient]`.
    pub fn pack(&self, x: &[i32]) -> Vec<Vec<Vec<i64>>> {
        let (step, [h, w]) = (self.geometry.strip_rows(self.strips()), self.input);
        let Geometry { rows, columns } = &self.geometry;
        // Plane rows that hold pixels end before `plane / row_stride`.
        let held = self.plane / self.row_stride;
        // Returns, for a phase of the columns, the first element of a plane row that is a pixel,
        // and which pixel it is.
        let span = |phase: usize| {
            (0..self.row_stride).find_map(|e| Some((e, columns.pixel(phase, e)?))).unwrap_or((self.row_stride, w))
        };
        let spans: Vec<(usize, usize)> = (0..columns.phases.len()).map(span).collect();
        (0..self.strips())
            .map(|strip| {
                let mut tiles = vec![vec![0; self.degree]; self.blocks() * self.row_tiles()];
                for (channel, plane) in x.chunks_exact(h * w).enumerate() {
                    for (a, phase) in
                        (0..rows.phases.len()).flat_map(|a| (0..columns.phases.len()).map(move |b| (a, b))).enumerate()
                    {
                        let (block, v) = self.place(channel, a);
                        let tile = &mut tiles[block * self.row_tiles() + v / self.choice.tile_channels];
                        let start = v % self.choice.tile_channels * self.plane;
                        let (first, pixel) = spans[phase.1];
                        for u in 0..held {
                            let Some(i) = rows.pixel(phase.0, strip * step + u) else { continue };
                            let line = &plane[i * w..][pixel..w];
                            let at = start + u * self.row_stride;
                            let out = tile[at + first..at + self.row_stride].iter_mut();
                            // Two forms of one loop: the compiler vectorises only the first.
                            if columns.stride == 1 {
                                out.zip(line).for_each(|(o, &v)| *o = i64::from(v));
                            } else {
                                out.zip(line.iter().step_by(columns.stride)).for_each(|(o, &v)| *o = i64::from(v));
                            }
                        }
                    }
                }
                tiles
            })
            .collect()
    }

    /// Returns the block of a channel, and the place in that block of the channel's virtual channel
    /// with the given pair of phases.
    fn place(&self, channel: usize, phases: usize) -> (usize, usize) {
        let per_block = self.group[0] * self.choice.block_groups;
        (channel / per_block, channel % per_block * self.geometry.phases() + phases)
    }

    /// Computes one row of the matrix from weights `[filter][channel of the group][kh][kw]`.
    pub fn row(&self, weights: &[i32], row: usize) -> Vec<Tile> {
        let Geometry { rows, columns } = &self.geometry;
        let (kh, kw) = (rows.taps.len(), columns.taps.len());
        let mut tiles = vec![Tile::new(); self.row_tiles()];
        let tile_plane = self.choice.tile_channels * self.plane;
        for (m, filter) in self.row_outputs(row).enumerate() {
            let group = filter / self.group[1];
            for channel in 0..self.group[0] {
                let taps = &weights[(filter * self.group[0] + channel) * kh * kw..][..kh * kw];
                for (&w, (down, right)) in
                    taps.iter().zip(rows.taps.iter().flat_map(|d| columns.taps.iter().map(move |r| (d, r))))
                {
                    let (&Some((a, du)), &Some((b, dw)), true) = (down, right, w != 0) else { continue };
                    if dw >= self.row_stride || du >= self.plane / self.row_stride {
                        continue;
                    }
                    let (_, v) = self.place(group * self.group[0] + channel, a * columns.phases.len() + b);
                    let at = m * tile_plane + self.offset()
                        - v % self.choice.tile_channels * self.plane
                        - du * self.row_stride
                        - dw;
                    tiles[v / self.choice.tile_channels].push((at as u32, w));
                }
            }
        }
        tiles.iter_mut().for_each(|t| t.sort_unstable_by_key(|&(i, _)| i));
        tiles
    }

    /// Unpacks the wanted values `[row][M_t][i][j]` of every strip to outputs `[filter][i][j]`.
    pub fn unpack(&self, strips: &[Vec<i64>]) -> Vec<i64> {
        let (step, outputs) = (self.geometry.strip_rows(self.strips()), self.geometry.rows.outputs);
        let columns = self.geometry.columns.outputs;
        let (slot, row_len) = (step * columns, self.choice.row_filters * step * columns);
        let mut out = Vec::with_capacity(self.group[1] * self.group[2] * outputs * columns);
        for row in 0..self.rows() {
            for m in 0..self.row_outputs(row).len() {
                for (strip, values) in strips.iter().enumerate() {
                    let rows = outputs.saturating_sub(strip * step).min(step);
                    out.extend(&values[row * row_len + m * slot..][..rows * columns]);
                }
            }
        }
        out
    }
}
