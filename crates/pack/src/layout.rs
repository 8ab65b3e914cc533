//! Either layout behind one type, and the choice between them.

use std::ops::Range;

use jali_model::Linear;

use crate::{ConvLayout, FcLayout, PackError};

/// A plain ring element with few non-zero coefficients: (index, value), indices rising.
pub type Tile = Vec<(u32, i32)>;

/// Coefficients that hold outputs: `start` plus a nested pattern of (count, stride), outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPattern {
    /// Smallest index.
    pub start: usize,
    /// Outermost first.
    pub dims: [(usize, usize); 3],
}

/// What the choice of a layout weighs, in nanoseconds per coefficient and prime. The values were fitted by hand on the
/// development machine; a calibrated model replaces them in the speed issue. They influence speed and traffic only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// One product of the server.
    pub product: f64,
    /// One row: inverse transforms on both sides, unmasking, memory of hint and row secret.
    pub row: f64,
    /// One tile: sampling, transform and masking by the client, and its bytes on the wire.
    pub tile: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self { product: 1.0, row: 16.0, tile: 24.0 }
    }
}

/// Layout of one linear layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Convolution.
    Conv(ConvLayout),
    /// Fully connected layer.
    Fc(FcLayout),
}

impl Layout {
    /// The cheapest layout at this degree. Depends on shapes only.
    ///
    /// # Errors
    /// [`PackError`] if none fits or the layer's kind is not supported.
    pub fn choose(linear: Linear<'_>, input: &[usize], degree: usize, costs: &Costs) -> Result<Self, PackError> {
        let candidates: Vec<Self> = match linear {
            Linear::Conv(c) => {
                let input: [usize; 3] = input.try_into().map_err(|_| PackError::Unsupported {
                    what: "a convolution of anything but planes",
                    got: format!("{input:?}"),
                })?;
                ConvLayout::candidates(c, input, degree)?.into_iter().map(Self::Conv).collect()
            }
            Linear::Gemm(g) => FcLayout::candidates(g.inputs, g.outputs, degree).into_iter().map(Self::Fc).collect(),
        };
        let needed = linear.fan_in();
        let none = PackError::TooLarge { what: "a tile of the layer", needed, degree };
        candidates.into_iter().min_by(|a, b| a.cost(costs).total_cmp(&b.cost(costs))).ok_or(none)
    }

    /// Estimated cost per coefficient and prime.
    pub fn cost(&self, costs: &Costs) -> f64 {
        let (tiles, rows) = (self.tiles() as f64, self.rows() as f64);
        costs.product * tiles * rows + costs.row * rows + costs.tile * tiles
    }

    /// Ring elements of an input.
    pub fn tiles(&self) -> usize {
        match self {
            Self::Conv(l) => l.tiles(),
            Self::Fc(l) => l.tiles(),
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        match self {
            Self::Conv(l) => l.rows(),
            Self::Fc(l) => l.rows(),
        }
    }

    /// Output channels that one row computes.
    pub fn row_outputs(&self) -> usize {
        match self {
            Self::Conv(l) => l.row_outputs(),
            Self::Fc(l) => l.row_outputs(),
        }
    }

    /// Output channels of one row of a layer with `outputs` of them.
    pub fn outputs_of_row(&self, row: usize, outputs: usize) -> Range<usize> {
        let per_row = self.row_outputs();
        (row * per_row).min(outputs)..((row + 1) * per_row).min(outputs)
    }

    /// Where the outputs of a row stand.
    pub fn wanted(&self) -> WantedPattern {
        match self {
            Self::Conv(l) => l.wanted(),
            Self::Fc(l) => l.wanted(),
        }
    }

    /// Quantised inputs, `[channel][position]`, to tiles of `N` coefficients.
    pub fn pack(&self, x: &[i32]) -> Vec<Vec<i64>> {
        match self {
            Self::Conv(l) => l.pack(x),
            Self::Fc(l) => l.pack(x),
        }
    }

    /// One row of the matrix.
    pub fn row(&self, weights: &[i32], row: usize) -> Vec<Tile> {
        match self {
            Self::Conv(l) => l.row(weights, row),
            Self::Fc(l) => l.row(weights, row),
        }
    }

    /// Wanted values `[row][wanted]` to outputs `[channel][position]`.
    pub fn unpack(&self, values: Vec<i64>) -> Vec<i64> {
        match self {
            Self::Conv(l) => l.unpack(values),
            Self::Fc(l) => l.unpack(values),
        }
    }
}
