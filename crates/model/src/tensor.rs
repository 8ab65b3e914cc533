//! Dense f32 tensors without a batch dimension.

use crate::ModelError;

/// Most elements of one tensor: bounds what a hostile file can make us allocate (1 GiB of f32).
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Row-major values with their shape: `[channels, height, width]` or `[features]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Extent of every dimension.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

/// Returns the number of elements of a shape, if it is within [`MAX_ELEMENTS`].
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS)
}

impl Tensor {
    /// Makes a tensor, and checks that the number of values fits the shape and that all are finite.
    /// Errors call it `what`.
    ///
    /// # Errors
    /// [`ModelError::Shape`], [`ModelError::NotFinite`].
    pub fn new(what: &str, shape: Vec<usize>, data: Vec<f32>) -> Result<Self, ModelError> {
        if elements(&shape) != Some(data.len()) {
            return Err(ModelError::Shape {
                what: what.into(),
                expected: format!("{shape:?}"),
                got: format!("{} values", data.len()),
            });
        }
        // All values are tested in one vectorised pass; the first that is not finite is looked for
        // only if there is one.
        let is_special = |v: &f32| u32::from(v.to_bits() & 0x7f80_0000 == 0x7f80_0000);
        if data.iter().fold(0, |any, v| any | is_special(v)) != 0 {
            let index = data.iter().position(|v| !v.is_finite()).unwrap_or(0);
            return Err(ModelError::NotFinite { what: what.into(), index });
        }
        Ok(Self { shape, data })
    }

    /// Returns the index of the largest value (the first of several).
    pub fn argmax(&self) -> usize {
        let best = |best: usize, i: usize| if self.data[i] > self.data[best] { i } else { best };
        (0..self.data.len()).fold(0, best)
    }

    /// Returns the softmax of the values: probabilities from logits.
    pub fn softmax(&self) -> Vec<f32> {
        let top = self.data.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp: Vec<f32> = self.data.iter().map(|v| (v - top).exp()).collect();
        let sum: f32 = exp.iter().sum();
        exp.into_iter().map(|e| e / sum).collect()
    }
}
