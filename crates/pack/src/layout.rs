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

/// Layout of one linear layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Convolution.
    Conv(ConvLayout),
    /// Fully connected layer.
    Fc(FcLayout),
}

impl Layout {
    /// All layouts worth considering at this degree, none if no tile of the layer fits. They depend on shapes only.
    ///
    /// # Errors
    /// [`PackError`] if the layer's kind is not supported.
    pub fn candidates(linear: Linear<'_>, input: &[usize], degree: usize) -> Result<Vec<Self>, PackError> {
        Ok(match linear {
            Linear::Conv(c) => ConvLayout::candidates(c, planes(input)?, degree)?.into_iter().map(Self::Conv).collect(),
            Linear::Gemm(g) => FcLayout::candidates(g.inputs, g.outputs, degree).into_iter().map(Self::Fc).collect(),
        })
    }

    /// The choice that [`Layout::chosen`] makes the layout from again.
    pub fn choice(&self) -> [usize; 2] {
        match self {
            Self::Conv(l) => [l.tile_channels(), l.row_outputs()],
            Self::Fc(l) => [l.run(), l.row_outputs()],
        }
    }

    /// A layout from a choice that was made before.
    ///
    /// # Errors
    /// [`PackError`] if the layer's kind is not supported or the choice does not fit.
    pub fn chosen(linear: Linear<'_>, input: &[usize], degree: usize, choice: [usize; 2]) -> Result<Self, PackError> {
        let [first, second] = choice;
        Ok(match linear {
            Linear::Conv(c) => Self::Conv(ConvLayout::new(c, planes(input)?, degree, first, second)?),
            Linear::Gemm(g) => Self::Fc(FcLayout::new(g.inputs, g.outputs, degree, first, second)?),
        })
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

    /// What one tile holds: input channels times planes, or a run of inputs; and what a row computes.
    pub fn describe(&self) -> String {
        match self {
            Self::Conv(l) => format!("{} ch x {} filters", l.tile_channels(), l.row_outputs()),
            Self::Fc(l) => format!("{} in x {} out", l.run(), l.row_outputs()),
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

/// The shape of a convolution's input.
fn planes(input: &[usize]) -> Result<[usize; 3], PackError> {
    input
        .try_into()
        .map_err(|_| PackError::Unsupported { what: "a convolution of anything but planes", got: format!("{input:?}") })
}
