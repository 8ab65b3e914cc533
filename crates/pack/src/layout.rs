//! The layouts of convolutions and fully connected layers behind one type, and the numbers that
//! choose one.

use std::ops::Range;

use jali_model::Linear;
use jali_ring::WantedPattern;

use crate::{ConvChoice, ConvLayout, FcLayout, PackError};

/// A plain ring element with few non-zero coefficients: (index, value), indices rising.
pub type Tile = Vec<(u32, i32)>;

/// The numbers that a layer's layout at some degree follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutChoice {
    /// Virtual channels of a tile, or inputs of a fully connected layer.
    pub tile_inputs: usize,
    /// Most output channels of a row.
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
    /// Returns all layouts of a layer that are worth considering at `degree`, for an input of shape
    /// `input`; none if no tile of a fully connected layer fits. They depend on shapes only.
    ///
    /// # Errors
    /// [`PackError::Unsupported`] if the layer's kind is not supported, [`PackError::TooLarge`] if
    /// not even a strip of one output row of a convolution fits.
    pub fn candidates(linear: Linear<'_>, input: &[usize], degree: usize) -> Result<Vec<Self>, PackError> {
        Ok(match linear {
            Linear::Conv(c) => ConvLayout::candidates(c, planes(input)?, degree)?
                .into_iter()
                .map(|l| Self::Conv(Box::new(l)))
                .collect(),
            Linear::Gemm(g) => FcLayout::candidates(g.inputs, g.outputs, degree).into_iter().map(Self::Fc).collect(),
        })
    }

    /// Returns the choice that [`Layout::chosen`] makes the layout from again.
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

    /// Makes a layer's layout from a choice that was made before, for an input of shape `input` and
    /// a ring of `degree`.
    ///
    /// # Errors
    /// [`PackError::TooLarge`] or [`PackError::Unsupported`] if the choice does not fit the layer
    /// or the ring.
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

    /// Returns the tiles of one input of the matrix, all blocks together.
    pub fn tiles(&self) -> usize {
        self.blocks() * self.row_tiles()
    }

    /// Returns the tiles of a row: those of its block.
    pub fn row_tiles(&self) -> usize {
        match self {
            Self::Conv(l) => l.row_tiles(),
            Self::Fc(l) => l.tiles(),
        }
    }

    /// Returns the blocks of a block-diagonal matrix, all of one shape; 1 for a dense one.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Conv(l) => l.blocks(),
            Self::Fc(_) => 1,
        }
    }

    /// Returns the number of strips of a plane: one image becomes so many inputs of the matrix.
    pub fn strips(&self) -> usize {
        match self {
            Self::Conv(l) => l.strips(),
            Self::Fc(_) => 1,
        }
    }

    /// Returns the rows of the matrix, all blocks together.
    pub fn rows(&self) -> usize {
        match self {
            Self::Conv(l) => l.rows(),
            Self::Fc(l) => l.rows(),
        }
    }

    /// Returns the most output channels that one row computes.
    pub fn row_outputs(&self) -> usize {
        match self {
            Self::Conv(l) => l.choice().row_filters,
            Self::Fc(l) => l.row_outputs(),
        }
    }

    /// Describes in words what a tile holds, channels or inputs, and how many outputs a row
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

    /// Returns the output channels that one row computes.
    pub fn outputs_of_row(&self, row: usize) -> Range<usize> {
        match self {
            Self::Conv(l) => l.row_outputs(row),
            Self::Fc(l) => l.outputs_of_row(row),
        }
    }

    /// Returns where the outputs of a row stand in a row product.
    pub fn wanted(&self) -> WantedPattern {
        match self {
            Self::Conv(l) => l.wanted(),
            Self::Fc(l) => l.wanted(),
        }
    }

    /// Packs quantised inputs `[channel][position]` into tiles of `N` coefficients:
    /// `[strip][tile][coefficient]`.
    pub fn pack(&self, x: &[i32]) -> Vec<Vec<Vec<i64>>> {
        match self {
            Self::Conv(l) => l.pack(x),
            Self::Fc(l) => vec![l.pack(x)],
        }
    }

    /// Computes one row of the matrix from the layer's weights: an element for every tile of its
    /// block.
    pub fn row(&self, weights: &[i32], row: usize) -> Vec<Tile> {
        match self {
            Self::Conv(l) => l.row(weights, row),
            Self::Fc(l) => l.row(weights, row),
        }
    }

    /// Unpacks the wanted values `[row][wanted]` of every strip to outputs `[channel][position]`.
    pub fn unpack(&self, strips: &[Vec<i64>]) -> Vec<i64> {
        match self {
            Self::Conv(l) => l.unpack(strips),
            Self::Fc(l) => l.unpack(strips.first().map_or(&[], Vec::as_slice)),
        }
    }
}

/// Returns the shape `[channels, height, width]` of a convolution's input.
fn planes(input: &[usize]) -> Result<[usize; 3], PackError> {
    input
        .try_into()
        .map_err(|_| PackError::Unsupported { what: "a convolution of anything but planes", got: format!("{input:?}") })
}
