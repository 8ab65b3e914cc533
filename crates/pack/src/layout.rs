//! Either layout behind one type, and the choice between them.

use std::ops::Range;

use jali_model::Linear;
use jali_ring::WantedPattern;

use crate::{ConvChoice, ConvLayout, FcLayout, PackError};

/// A plain ring element with few non-zero coefficients: (index, value), indices rising.
pub type Tile = Vec<(u32, i32)>;

/// What makes a layout of a layer at a degree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutChoice {
    /// Virtual channels, or inputs of a fully connected layer, of a tile.
    pub tile_inputs: usize,
    /// Output channels of a row.
    pub row_outputs: usize,
    /// Groups of a block: 1 unless several share a tile.
    pub block_groups: usize,
    /// Strips that a plane is cut into.
    pub strips: usize,
}

/// Layout of one linear layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Convolution.
    Conv(Box<ConvLayout>),
    /// Fully connected layer.
    Fc(FcLayout),
}

impl Layout {
    /// All layouts worth considering at this degree, none if no tile of the layer fits. They depend
    /// on shapes only.
    ///
    /// # Errors
    /// [`PackError`] if the layer's kind is not supported.
    pub fn candidates(linear: Linear<'_>, input: &[usize], degree: usize) -> Result<Vec<Self>, PackError> {
        Ok(match linear {
            Linear::Conv(c) => ConvLayout::candidates(c, planes(input)?, degree)?
                .into_iter()
                .map(|l| Self::Conv(Box::new(l)))
                .collect(),
            Linear::Gemm(g) => FcLayout::candidates(g.inputs, g.outputs, degree).into_iter().map(Self::Fc).collect(),
        })
    }

    /// The choice that [`Layout::chosen`] makes the layout from again.
    pub fn choice(&self) -> LayoutChoice {
        match self {
            Self::Conv(l) => {
                let ConvChoice { tile_channels, row_filters, block_groups, strips } = l.choice();
                LayoutChoice { tile_inputs: tile_channels, row_outputs: row_filters, block_groups, strips }
            }
            Self::Fc(l) => {
                LayoutChoice { tile_inputs: l.run(), row_outputs: l.row_outputs(), block_groups: 1, strips: 1 }
            }
        }
    }

    /// A layout from a choice that was made before.
    ///
    /// # Errors
    /// [`PackError`] if the choice does not fit the layer.
    pub fn chosen(linear: Linear<'_>, input: &[usize], degree: usize, choice: LayoutChoice) -> Result<Self, PackError> {
        let LayoutChoice { tile_inputs, row_outputs, block_groups, strips } = choice;
        match linear {
            Linear::Conv(c) => {
                let choice = ConvChoice { tile_channels: tile_inputs, row_filters: row_outputs, block_groups, strips };
                Ok(Self::Conv(Box::new(ConvLayout::new(c, planes(input)?, degree, choice)?)))
            }
            Linear::Gemm(g) if [block_groups, strips] == [1, 1] => {
                Ok(Self::Fc(FcLayout::new(g.inputs, g.outputs, degree, tile_inputs, row_outputs)?))
            }
            Linear::Gemm(_) => Err(PackError::Unsupported {
                what: "blocks or strips of a fully connected layer",
                got: format!("{choice:?}"),
            }),
        }
    }

    /// Ring elements of one input of the matrix.
    pub fn tiles(&self) -> usize {
        self.blocks() * self.row_tiles()
    }

    /// Ring elements of a row: those of its block.
    pub fn row_tiles(&self) -> usize {
        match self {
            Self::Conv(l) => l.row_tiles(),
            Self::Fc(l) => l.tiles(),
        }
    }

    /// Blocks of a block-diagonal matrix, all of one shape; 1 for a dense one.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Conv(l) => l.blocks(),
            Self::Fc(_) => 1,
        }
    }

    /// Inputs of the matrix that one image becomes.
    pub fn strips(&self) -> usize {
        match self {
            Self::Conv(l) => l.strips(),
            Self::Fc(_) => 1,
        }
    }

    /// Rows of the matrix, all blocks together.
    pub fn rows(&self) -> usize {
        match self {
            Self::Conv(l) => l.rows(),
            Self::Fc(l) => l.rows(),
        }
    }

    /// Most output channels that one row computes.
    pub fn row_outputs(&self) -> usize {
        match self {
            Self::Conv(l) => l.choice().row_filters,
            Self::Fc(l) => l.row_outputs(),
        }
    }

    /// What one tile holds: input channels times planes, or a run of inputs; and what a row
    /// computes.
    pub fn describe(&self) -> String {
        match self {
            Self::Conv(l) => {
                let ConvChoice { tile_channels, row_filters, strips, .. } = l.choice();
                let mut text = format!("{tile_channels} ch x {row_filters} filters");
                if l.blocks() > 1 {
                    text += &format!(", {} blocks", l.blocks());
                }
                if strips > 1 {
                    text += &format!(", {strips} strips");
                }
                text
            }
            Self::Fc(l) => format!("{} in x {} out", l.run(), l.row_outputs()),
        }
    }

    /// Output channels of one row.
    pub fn outputs_of_row(&self, row: usize) -> Range<usize> {
        match self {
            Self::Conv(l) => l.row_outputs(row),
            Self::Fc(l) => l.outputs_of_row(row),
        }
    }

    /// Where the outputs of a row stand.
    pub fn wanted(&self) -> WantedPattern {
        match self {
            Self::Conv(l) => l.wanted(),
            Self::Fc(l) => l.wanted(),
        }
    }

    /// Quantised inputs, `[channel][position]`, to tiles of `N` coefficients, strip by strip.
    pub fn pack(&self, x: &[i32]) -> Vec<Vec<Vec<i64>>> {
        match self {
            Self::Conv(l) => l.pack(x),
            Self::Fc(l) => vec![l.pack(x)],
        }
    }

    /// One row of the matrix: an element for every tile of its block.
    pub fn row(&self, weights: &[i32], row: usize) -> Vec<Tile> {
        match self {
            Self::Conv(l) => l.row(weights, row),
            Self::Fc(l) => l.row(weights, row),
        }
    }

    /// Wanted values `[row][wanted]` of every strip to outputs `[channel][position]`.
    pub fn unpack(&self, strips: &[Vec<i64>]) -> Vec<i64> {
        match self {
            Self::Conv(l) => l.unpack(strips),
            Self::Fc(l) => l.unpack(strips.first().map_or(&[], Vec::as_slice)),
        }
    }
}

/// The shape of a convolution's input.
fn planes(input: &[usize]) -> Result<[usize; 3], PackError> {
    input
        .try_into()
        .map_err(|_| PackError::Unsupported { what: "a convolution of anything but planes", got: format!("{input:?}") })
}
