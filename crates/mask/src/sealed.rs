//! What the server gets of an operator. Everything in it is meant to be seen.

use jali_ring::{Ntt, Poly, Wanted};

use crate::Parameters;
use crate::shape::{MatrixShape, OperatorId};

/// A plain ring element with few non-zero coefficients: (index, value), indices rising.
pub type Tile = Vec<(u32, i32)>;

/// One row as the server gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedRow {
    /// Ring-LWE samples, dense, also where the plain tile is zero (condition 4).
    Hidden(Vec<Poly<Ntt>>),
    /// The small integers themselves; computed in [`Parameters::ring_of`] open rows.
    Open(Vec<Tile>),
}

/// The server's part of one operator. Everything in it is meant to be seen.
#[derive(Debug, Clone)]
pub struct SealedOperator {
    /// Model and position.
    pub id: OperatorId,
    /// The ring (the plaintext modulus in it is not sent to the server).
    pub parameters: Parameters,
    /// Coefficients that the client asks for.
    pub wanted: Wanted,
    /// Tiles per row.
    pub tiles: usize,
    /// Blocks of equally many rows, one after the other, each with tiles of its own: 1 for a dense
    /// matrix.
    pub blocks: usize,
    /// Seed of the public vector `a`: see [`crate::expand_public`].
    pub a_seed: [u8; 32],
    /// The matrix.
    pub rows: Vec<SealedRow>,
}

impl SealedOperator {
    /// What is known of it before its rows.
    pub fn head(&self) -> SealedHead {
        SealedHead {
            id: self.id,
            parameters: self.parameters.clone(),
            wanted: self.wanted.clone(),
            shape: MatrixShape { rows: self.rows.len(), blocks: self.blocks, tiles: self.tiles },
            a_seed: self.a_seed,
        }
    }
}

/// The public part of a sealed operator that is known before its rows.
#[derive(Debug, Clone)]
pub struct SealedHead {
    /// Model and position.
    pub id: OperatorId,
    /// The ring (the plaintext modulus in it is not sent to the server).
    pub parameters: Parameters,
    /// Coefficients that the client asks for.
    pub wanted: Wanted,
    /// Shape of the matrix.
    pub shape: MatrixShape,
    /// Seed of the public vector `a`: see [`crate::expand_public`].
    pub a_seed: [u8; 32],
}
