//! Fully connected layers `n -> m`: inputs in runs of `k`, outputs in runs of `r`, `r*k <= N`.
//!
//! ```text
//! x_i  at X^i        w[o][i]  at X^(o*k + k-1-i)        y_o = coefficient of X^(o*k + k-1)
//! ```
//!
//! # Why nothing else reaches a wanted coefficient
//! A product of `w[o'][i']` and `x_i` lands at `o'k + k-1 + (i-i')`. With `|i-i'| < k` that is
//! `ok + k-1` only for `o' = o`, `i' = i`. The largest index is `rk + k - 2 <= N + k - 2`; minus
//! `N` it is below `k-1`, the first wanted one.

use std::ops::Range;

use jali_ring::{Steps, WantedPattern};

use crate::PackError;
use crate::layout::Tile;

/// How one fully connected layer stands in ring elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FcLayout {
    degree: usize,
    inputs: usize,
    outputs: usize,
    /// `k`, inputs of a tile.
    run: usize,
    /// `r`, outputs of a row.
    row_outputs: usize,
}

impl FcLayout {
    /// Makes the layout of a layer with `inputs` inputs and `outputs` outputs in a ring of
    /// `degree`. A tile holds `run` inputs, and a row computes `row_outputs` outputs.
    ///
    /// # Errors
    /// [`PackError::TooLarge`] if `r*k > N` or either of them is 0.
    pub fn new(
        inputs: usize,
        outputs: usize,
        degree: usize,
        run: usize,
        row_outputs: usize,
    ) -> Result<Self, PackError> {
        let needed = run.saturating_mul(row_outputs);
        if needed > degree || needed == 0 {
            return Err(PackError::TooLarge { what: "a row of the fully connected layer", needed, degree });
        }
        Ok(Self { degree, inputs, outputs, run, row_outputs })
    }

    /// Returns a layout for every useful run length at `degree`: one for each number of tiles, with
    /// the most outputs per row.
    pub fn candidates(inputs: usize, outputs: usize, degree: usize) -> Vec<Self> {
        let mut out: Vec<Self> = vec![];
        for tiles in inputs.div_ceil(degree)..=inputs.min(256) {
            let run = inputs.div_ceil(tiles);
            if out.last().is_some_and(|l| l.run == run) {
                continue;
            }
            out.extend(Self::new(inputs, outputs, degree, run, (degree / run).min(outputs)));
        }
        out
    }

    /// Returns the inputs of one tile.
    pub fn run(&self) -> usize {
        self.run
    }

    /// Returns the tiles of an input, which are those of a row.
    pub fn tiles(&self) -> usize {
        self.inputs.div_ceil(self.run)
    }

    /// Returns the rows of the matrix.
    pub fn rows(&self) -> usize {
        self.outputs.div_ceil(self.row_outputs)
    }

    /// Returns the outputs of one row (the last may have fewer).
    pub fn row_outputs(&self) -> usize {
        self.row_outputs
    }

    /// Returns which outputs this row computes.
    pub fn outputs_of_row(&self, row: usize) -> Range<usize> {
        (row * self.row_outputs).min(self.outputs)..((row + 1) * self.row_outputs).min(self.outputs)
    }

    /// Returns where the outputs of a row stand in a row product.
    pub fn wanted(&self) -> WantedPattern {
        let one = Steps { count: 1, stride: 1 };
        WantedPattern { start: self.run - 1, steps: [one, one, Steps { count: self.row_outputs, stride: self.run }] }
    }

    /// Packs inputs into tiles of `N` coefficients.
    pub fn pack(&self, x: &[i32]) -> Vec<Vec<i64>> {
        let tile = |run: &[i32]| {
            let mut tile: Vec<i64> = run.iter().map(|&v| i64::from(v)).collect();
            tile.resize(self.degree, 0);
            tile
        };
        x.chunks(self.run).map(tile).collect()
    }

    /// Computes one row of the matrix from weights `[output][input]`.
    pub fn row(&self, weights: &[i32], row: usize) -> Vec<Tile> {
        let Range { start: first, end: last } = self.outputs_of_row(row);
        let tile =
            |tile: usize| {
                let inputs = tile * self.run..((tile + 1) * self.run).min(self.inputs);
                (first..last)
                    .flat_map(|o| {
                        let row = &weights[o * self.inputs..][..self.inputs];
                        // Rising indices: the last input of the run comes first.
                        inputs.clone().rev().filter(|&i| row[i] != 0).map(move |i| {
                            (((o - first) * self.run + self.run - 1 - (i - tile * self.run)) as u32, row[i])
                        })
                    })
                    .collect()
            };
        (0..self.tiles()).map(tile).collect()
    }

    /// Unpacks wanted values `[row][r]` to outputs.
    pub fn unpack(&self, values: &[i64]) -> Vec<i64> {
        values[..self.outputs.min(values.len())].to_vec()
    }
}
