//! Reads normalisations by statistics of the image itself, and puts them together from the client's
//! operations.

use super::constant::axis_of;
use super::importer::Importer;
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Activation, Arithmetic, Op, Pool, ReduceKind};

/// ONNX operators that are read here.
pub(super) const OPERATORS: [&str; 7] = [
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
];

impl Importer<'_, '_> {
    pub(super) fn normalise(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        match r.node.op_type.as_str() {
            "LayerNormalization" | "RMSNormalization" => self.layer_norm(r, x),
            "InstanceNormalization" | "GroupNormalization" => self.group_norm(r, x),
            "LpNormalization" => {
                let kind = if r.int("p", 2) == 1 { ReduceKind::L1 } else { ReduceKind::L2 };
                let norm = self.reduced(r, x, kind, &[r.int("axis", -1)], true)?;
                self.both(r, Arithmetic::Div, x, norm)
            }
            "MeanVarianceNormalization" => {
                let axes = r.list("axes").map_or_else(|| vec![0, 2, 3], <[i64]>::to_vec);
                self.standardised(r, x, &axes, 1e-9)
            }
            _ => self.local_response(r, x),
        }
    }

    /// Appends `x / sqrt(mean of x^2 + eps)` along axes.
    fn by_its_size(&mut self, r: &Reading<'_>, x: ValueId, axes: &[i64], eps: f32) -> Result<ValueId, Refusal> {
        let square = self.push(r, Op::Arithmetic(Arithmetic::Mul), vec![x, x])?;
        let mean = self.reduced(r, square, ReduceKind::Mean, axes, true)?;
        let variance = self.with_number(r, Arithmetic::Add, mean, eps)?;
        let deviation = self.push(r, Op::Activation(Activation::Sqrt), vec![variance])?;
        self.both(r, Arithmetic::Div, x, deviation)
    }

    /// Appends `(x - mean) / sqrt(variance + eps)` along axes.
    pub(super) fn standardised(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        axes: &[i64],
        eps: f32,
    ) -> Result<ValueId, Refusal> {
        let mean = self.reduced(r, x, ReduceKind::Mean, axes, true)?;
        let centred = self.both(r, Arithmetic::Sub, x, mean)?;
        self.by_its_size(r, centred, axes, eps)
    }

    fn layer_norm(&mut self, r: &Reading<'_>, x: ValueId) -> Result<ValueId, Refusal> {
        let rank = self.dims(x).len();
        let axis = axis_of(r.int("axis", -1), rank)?;
        let axes: Vec<i64> = (axis as i64..rank as i64).collect();
        let eps = r.float("epsilon", 1e-5);
        let y = match r.node.op_type.as_str() {
            "RMSNormalization" => self.by_its_size(r, x, &axes, eps)?,
            _ => self.standardised(r, x, &axes, eps)?,
        };
        let (dims, scale) = self.weights(r, 1)?.ok_or("has no scale")?;
        let y = self.with_constant(r, (Arithmetic::Mul, false), y, (&dims, scale))?;
        match self.weights(r, 2)? {
            Some((dims, shift)) => self.with_constant(r, (Arithmetic::Add, false), y, (&dims, shift)),
            None => Ok(y),
        }
    }

    /// Appends a normalisation of groups of channels, each as a whole; an instance norm has a group
    /// for every channel.
    fn group_norm(&mut self, r: &Reading<'_>, x: ValueId) -> Result<ValueId, Refusal> {
        let x = self.image(r, x)?;
        let shape = self.graph.shape(x).to_vec();
        let channels = shape[0];
        let groups = match r.node.op_type.as_str() {
            "GroupNormalization" => usize::try_from(r.int("num_groups", 0)).unwrap_or(0),
            _ => channels,
        };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(format!("has {groups} groups for {channels} channels").into());
        }
        let together = shape.iter().product::<usize>() / groups;
        let lines = self.shaped(r, x, vec![groups, together])?;
        let y = self.standardised(r, lines, &[2], r.float("epsilon", 1e-5))?;
        let y = self.shaped(r, y, shape.clone())?;
        let per_channel = |v: Vec<f32>| match v.len() {
            n if n == channels => Ok(v),
            // Before operator set 21 of a group norm: one for each group.
            n if n == groups => Ok(v.iter().flat_map(|&v| std::iter::repeat_n(v, channels / groups)).collect()),
            n => Err(Refusal::from(format!("has {n} scales or shifts for {channels} channels"))),
        };
        let scale = per_channel(self.weights(r, 1)?.ok_or("has no scale")?.1)?;
        let shift = per_channel(self.weights(r, 2)?.ok_or("has no shift")?.1)?;
        let mut one_each = vec![1; shape.len()];
        one_each[0] = channels;
        self.scale_and_shift(r, y, (one_each, scale, shift))
    }

    /// Appends `x / (bias + alpha/size * sum of x^2 over neighbouring channels)^beta`.
    fn local_response(&mut self, r: &Reading<'_>, x: ValueId) -> Result<ValueId, Refusal> {
        let x = self.image(r, x)?;
        let shape = self.graph.shape(x).to_vec();
        let (channels, positions) = (shape[0], shape[1..].iter().product());
        let size = usize::try_from(r.int("size", 0)).ok().filter(|&s| s > 0 && s <= 1 << 16).ok_or("has no size")?;
        let square = self.push(r, Op::Arithmetic(Arithmetic::Mul), vec![x, x])?;
        let plane = self.shaped(r, square, vec![1, channels, positions])?;
        // The sum over a window, divided by its size: an average pool that counts its padding.
        let pool = Pool {
            kernel: [size, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [(size - 1) / 2, 0, size - 1 - (size - 1) / 2, 0],
            count_padding: true,
            ceil: false,
        };
        let mean = self.push(r, Op::AveragePool(pool), vec![plane])?;
        let mean = self.shaped(r, mean, shape)?;
        let scaled = self.scaled(r, mean, r.float("alpha", 1e-4))?;
        let base = self.with_number(r, Arithmetic::Add, scaled, r.float("bias", 1.0))?;
        let power = Op::Activation(Activation::Pow { exponent: r.float("beta", 0.75) });
        let divisor = self.push(r, power, vec![base])?;
        self.both(r, Arithmetic::Div, x, divisor)
    }
}
