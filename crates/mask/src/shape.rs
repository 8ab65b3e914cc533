//! Which operator, and of which shape.

/// Which operator of which sealed model: part of every key derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorId {
    /// [`crate::SealEntropy::model_id`].
    pub model: [u8; 16],
    /// Position among the model's operators.
    pub operator: u32,
}

/// Numbers of rows, blocks and tiles of a matrix. It is block-diagonal: equally many rows for each
/// block (1 for a dense one), one block after the other, and every row holds the tiles of its
/// block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixShape {
    /// Of all blocks together.
    pub rows: usize,
    /// Blocks with tiles of their own.
    pub blocks: usize,
    /// Tiles of every block.
    pub tiles: usize,
}
