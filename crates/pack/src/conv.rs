//! Convolutions of stride 1.
//!
//! A plane of `H x W` with padding `pt, pl, pb, pr` and a kernel of `kh x kw` is laid out with row stride
//! `S = W + max(pl, pr)`, or the output width if that is larger (the zero columns serve the right edge of one row and the left edge of the next) in
//! `P = (H + pt + pb) * S` coefficients. A tile holds `C_t` channels, a row `M_t` filters:
//!
//! ```text
//! x[c][i][j]       at X^(c*P + (i+pt)*S + (j+pl))
//! w[m][c][di][dj]  at X^(m*C_t*P + off - c*P - di*S - dj),   off = (C_t-1)*P + (kh-1)*S + (kw-1)
//! y[m][i][j]       =  coefficient of X^(m*C_t*P + off + i*S + j)
//! ```
//!
//! # Why nothing else reaches a wanted coefficient
//! Let `Q = C_t*P`, `M_t*Q <= N`, and let all wanted indices be below `N`. Write `Hp = H+pt+pb`, `Wp = W+pl+pr`; output
//! sizes are `H' = Hp-kh+1`, `W' = Wp-kw+1`. Weights of filter `m'` stand in `[m'Q, m'Q + off]`, inputs in `[0, Q)`.
//!
//! * **The same filter.** A product of channels `c` (input) and `c'` (weight) lands at
//!   `mQ + off + (c-c')P + u - di*S - dj` with `u` the input's place in its plane. It is wanted as `(i, j)` if
//!   `(c-c')P + u = (i+di)*S + (j+dj)`. The right side is below `Hp*S + min(pl, pr)`, that is below `P + min(pl, pr)`,
//!   so `c-c'` is 0 (the wanted product, or `u` on a padding zero: `j+dj >= S` points at column `j+dj-S < pl` of the next
//!   row, which is padding), or 1 with `u < min(pl, pr) <= pl`, a padding zero at the start of the next channel.
//!   Two taps share a place only if `dj` of one is `S` or more. Such a tap meets nothing but padding (inputs stand in
//!   columns below `S`, and `j+dj >= S`), so it is left out, and every place holds one weight.
//! * **A smaller filter** `m' < m`: products end at `m'Q + off + Q - 1 <= mQ + off - 1`, below the first wanted of `m`.
//! * **A larger filter** `m' > m`: products start at `m'Q >= (m+1)Q`; the last wanted of `m` is
//!   `mQ + (C_t-1)P + (Hp-1)S + Wp - 1 <= (m+1)Q + min(pl, pr) - 1`. Only inputs at `u < min(pl, pr)` could reach it:
//!   padding zeros again.
//! * **Wrap-around.** The largest product index is `(M_t-1)Q + off + Q - 1 <= N + off - 1`; minus `N` it is below `off`,
//!   the first wanted index.

use jali_model::Conv;

use crate::PackError;
use crate::layout::{Tile, WantedPattern};

/// How one convolution stands in ring elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvLayout {
    degree: usize,
    /// Input channels, height, width.
    input: [usize; 3],
    filters: usize,
    kernel: [usize; 2],
    /// Top and left.
    padding: [usize; 2],
    /// Output height and width.
    output: [usize; 2],
    /// `S`.
    row_stride: usize,
    /// `P`.
    plane: usize,
    /// `C_t`.
    tile_channels: usize,
    /// `M_t`.
    row_filters: usize,
}

/// What is the same for all (C_t, M_t).
struct Geometry {
    row_stride: usize,
    plane: usize,
    output: [usize; 2],
}

fn geometry(conv: &Conv, input: [usize; 3]) -> Result<Geometry, PackError> {
    let unsupported = |what, got: String| Err(PackError::Unsupported { what, got });
    if conv.stride != [1, 1] {
        return unsupported("a stride other than 1", format!("{:?}", conv.stride));
    }
    if conv.dilation != [1, 1] {
        return unsupported("a dilation other than 1", format!("{:?}", conv.dilation));
    }
    if conv.groups != 1 {
        return unsupported("a grouped convolution", format!("{} groups", conv.groups));
    }
    let [_, h, w] = input;
    let [top, left, bottom, right] = conv.padding;
    // Wider than the zero columns need where a small kernel slides over much padding: outputs must not share a place.
    let row_stride = (w + left.max(right)).max(w + left + right + 1 - conv.kernel[1]);
    let plane = (h + top + bottom).saturating_mul(row_stride);
    Ok(Geometry {
        row_stride,
        plane,
        output: [h + top + bottom + 1 - conv.kernel[0], w + left + right + 1 - conv.kernel[1]],
    })
}

impl ConvLayout {
    /// A layout with the given numbers of channels per tile and filters per row.
    ///
    /// # Errors
    /// [`PackError::Unsupported`] for strides, dilations and groups; [`PackError::TooLarge`] if it does not fit.
    pub fn new(
        conv: &Conv,
        input: [usize; 3],
        degree: usize,
        tile_channels: usize,
        row_filters: usize,
    ) -> Result<Self, PackError> {
        let g = geometry(conv, input)?;
        // Step by step, so that no product overflows whatever a file says.
        let mut needed = g.plane;
        for factor in [tile_channels, row_filters] {
            needed = needed.saturating_mul(factor);
            if needed > degree || factor == 0 {
                return Err(PackError::TooLarge { what: "a tile of the convolution", needed, degree });
            }
        }
        let layout = Self {
            degree,
            input,
            filters: conv.filters,
            kernel: conv.kernel,
            padding: [conv.padding[0], conv.padding[1]],
            output: g.output,
            row_stride: g.row_stride,
            plane: g.plane,
            tile_channels,
            row_filters,
        };
        let last_wanted = (row_filters - 1) * tile_channels * g.plane
            + layout.offset()
            + (g.output[0] - 1) * g.row_stride
            + g.output[1];
        let needed = (row_filters * tile_channels * g.plane).max(last_wanted);
        if needed > degree {
            return Err(PackError::TooLarge { what: "a tile of the convolution", needed, degree });
        }
        Ok(layout)
    }

    /// Every useful (C_t, M_t) at this degree: for each number of tiles the most filters per row.
    ///
    /// # Errors
    /// As [`ConvLayout::new`] for the smallest one.
    pub fn candidates(conv: &Conv, input: [usize; 3], degree: usize) -> Result<Vec<Self>, PackError> {
        Self::new(conv, input, degree, 1, 1)?;
        let plane = geometry(conv, input)?.plane;
        let per_ring = degree / plane;
        let mut out = vec![];
        for tile_channels in 1..=per_ring.min(input[0]) {
            // A channel count that only pads the last tile is never better than the smaller one.
            if input[0].div_ceil(tile_channels) == input[0].div_ceil(tile_channels.max(2) - 1) && tile_channels > 1 {
                continue;
            }
            let most = (per_ring / tile_channels).min(conv.filters);
            out.extend((1..=most).rev().find_map(|m| Self::new(conv, input, degree, tile_channels, m).ok()));
        }
        Ok(out)
    }

    /// Input channels of one tile.
    pub fn tile_channels(&self) -> usize {
        self.tile_channels
    }

    /// Ring elements of an input.
    pub fn tiles(&self) -> usize {
        self.input[0].div_ceil(self.tile_channels)
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.filters.div_ceil(self.row_filters)
    }

    /// Filters of one row (the last may hold fewer).
    pub fn row_outputs(&self) -> usize {
        self.row_filters
    }

    fn offset(&self) -> usize {
        (self.tile_channels - 1) * self.plane + (self.kernel[0] - 1) * self.row_stride + self.kernel[1] - 1
    }

    /// Where the outputs of a row stand.
    pub fn wanted(&self) -> WantedPattern {
        let dims = [
            (self.row_filters, self.tile_channels * self.plane),
            (self.output[0], self.row_stride),
            (self.output[1], 1),
        ];
        WantedPattern { start: self.offset(), dims }
    }

    /// Inputs `[channel][i][j]` to tiles of `N` coefficients.
    pub fn pack(&self, x: &[i32]) -> Vec<Vec<i64>> {
        let [_, h, w] = self.input;
        let mut tiles = vec![vec![0; self.degree]; self.tiles()];
        for (channel, plane) in x.chunks_exact(h * w).enumerate() {
            let start = channel % self.tile_channels * self.plane;
            let tile = &mut tiles[channel / self.tile_channels];
            for (i, row) in plane.chunks_exact(w).enumerate() {
                let at = start + (i + self.padding[0]) * self.row_stride + self.padding[1];
                for (o, &v) in tile[at..at + w].iter_mut().zip(row) {
                    *o = i64::from(v);
                }
            }
        }
        tiles
    }

    /// One row of the matrix from weights `[filter][channel][kh][kw]`.
    pub fn row(&self, weights: &[i32], row: usize) -> Vec<Tile> {
        let [kh, kw] = self.kernel;
        let mut tiles = vec![Tile::new(); self.tiles()];
        for m in 0..self.row_filters.min(self.filters - row * self.row_filters) {
            for channel in 0..self.input[0] {
                let tile = &mut tiles[channel / self.tile_channels];
                let base =
                    m * self.tile_channels * self.plane + self.offset() - channel % self.tile_channels * self.plane;
                for di in 0..kh {
                    for dj in 0..kw.min(self.row_stride) {
                        let filter = row * self.row_filters + m;
                        let w = weights[((filter * self.input[0] + channel) * kh + di) * kw + dj];
                        if w != 0 {
                            tile.push(((base - di * self.row_stride - dj) as u32, w));
                        }
                    }
                }
            }
        }
        tiles.iter_mut().for_each(|t| t.sort_unstable_by_key(|&(i, _)| i));
        tiles
    }

    /// Wanted values `[row][M_t][i][j]` to outputs `[filter][i][j]`: only the last row's spare filters go.
    pub fn unpack(&self, mut values: Vec<i64>) -> Vec<i64> {
        values.truncate(self.filters * self.output[0] * self.output[1]);
        values
    }
}
