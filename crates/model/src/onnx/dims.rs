//! Keeps track of the dimensions of values while a graph is imported: with or without the batch
//! dimension, and settled.

use super::constant::axis_of;
use super::importer::Importer;
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::Op;
use crate::shape_inference;

impl Importer<'_, '_> {
    /// Gives a value another shape, from which the batch dimension is left out.
    pub(super) fn shaped(&mut self, r: &Reading<'_>, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Refusal> {
        if self.graph.shape(x) == shape && !self.bare.contains(&x) {
            return Ok(x);
        }
        let op = if shape.len() == 1 { Op::Flatten } else { Op::Reshape(shape) };
        Ok(self.graph.push(format!("{}/shape", r.name), op, vec![x])?)
    }

    /// Returns the shape that the file gives a value, with the batch dimension of a single image.
    pub(super) fn dims(&self, x: ValueId) -> Vec<usize> {
        let shape = self.graph.shape(x);
        if self.bare.contains(&x) { shape.to_vec() } else { [&[1], shape].concat() }
    }

    /// Gives a value a shape in the file's view.
    pub(super) fn reshaped(&mut self, r: &Reading<'_>, x: ValueId, dims: &[usize]) -> Result<ValueId, Refusal> {
        match dims.split_first() {
            Some((1, own)) if !own.is_empty() => self.shaped(r, x, own.to_vec()),
            _ if self.bare.contains(&x) && self.graph.shape(x) == dims => Ok(x),
            _ => {
                self.single_image()?;
                let value = self.graph.push(format!("{}/shape", r.name), Op::Reshape(dims.to_vec()), vec![x])?;
                self.bare.insert(value);
                Ok(value)
            }
        }
    }

    /// Makes a value bare: with the batch dimension that the file gives it.
    pub(super) fn whole(&mut self, r: &Reading<'_>, x: ValueId) -> Result<ValueId, Refusal> {
        if self.bare.contains(&x) {
            return Ok(x);
        }
        self.single_image()?;
        let dims = self.dims(x);
        let value = self.graph.push(format!("{}/shape", r.name), Op::Reshape(dims), vec![x])?;
        self.bare.insert(value);
        Ok(value)
    }

    /// Refuses a node that looks at the batch dimension, if that has several images.
    pub(super) fn single_image(&self) -> Result<(), Refusal> {
        match self.batch {
            ..=1 => Ok(()),
            n => Err(Refusal::new(
                format!("works across the batch dimension, and the model's input is a batch of {n} images"),
                "export with a batch of 1: every image is run alone here",
            )),
        }
    }

    /// Takes the batch dimension off a bare value, if it has one in front.
    pub(super) fn settled(&mut self, r: &Reading<'_>, x: ValueId) -> Result<ValueId, Refusal> {
        let dims = self.graph.shape(x).to_vec();
        if self.bare.contains(&x) && dims.len() > 1 && dims[0] == 1 {
            self.shaped(r, x, dims[1..].to_vec())
        } else {
            Ok(x)
        }
    }

    pub(super) fn is_bare(&self, x: ValueId) -> bool {
        self.bare.contains(&x)
    }

    /// Translates axes of a value, which the file counts with the batch dimension. Returns them
    /// with the value to apply them to, a bare one where the batch dimension is among them. The
    /// result of what is done along them has to be [settled](Importer::settled).
    pub(super) fn along(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        axes: &[i64],
    ) -> Result<(ValueId, Vec<usize>), Refusal> {
        let rank = self.dims(x).len();
        let axes: Vec<usize> = axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
        if self.bare.contains(&x) || axes.contains(&0) {
            return Ok((self.whole(r, x)?, axes));
        }
        Ok((x, axes.into_iter().map(|a| a - 1).collect()))
    }

    /// Returns a constant's shape beside a value, without a batch dimension where the value has
    /// none. Also returns the value, which is bare if the constant has more dimensions.
    pub(super) fn beside(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        dims: &[usize],
    ) -> Result<(ValueId, Vec<usize>), Refusal> {
        let rank = self.graph.shape(x).len();
        let own = match dims.len().checked_sub(rank) {
            None | Some(0) => dims,
            Some(1) if dims[0] == 1 && !self.bare.contains(&x) => &dims[1..],
            _ => {
                if self.batch != 1 && dims.len() > rank && !self.bare.contains(&x) {
                    return Err(format!("its constant of shape {dims:?} has more dimensions than an image").into());
                }
                let x = self.whole(r, x)?;
                shape_inference::broadcast(self.graph.shape(x), dims)?;
                return Ok((x, dims.to_vec()));
            }
        };
        shape_inference::broadcast(self.graph.shape(x), own)?;
        Ok((x, own.to_vec()))
    }

    /// Returns two values in shapes that broadcast as the file says.
    pub(super) fn together(&mut self, r: &Reading<'_>, a: ValueId, b: ValueId) -> Result<(ValueId, ValueId), Refusal> {
        let ranks = [a, b].map(|v| self.dims(v).len());
        // Without a batch dimension in front a value may not be mistaken for one whose first
        // dimension stands elsewhere.
        if self.bare.contains(&a) != self.bare.contains(&b) && ranks[0].abs_diff(ranks[1]) > 0 {
            return Ok((self.whole(r, a)?, self.whole(r, b)?));
        }
        Ok((a, b))
    }
}
