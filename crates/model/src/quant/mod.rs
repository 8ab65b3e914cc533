//! Static post-training quantisation.
//!
//! Weights: symmetric per output channel. Activations: one scale per tensor and a range of integers
//! that need not be symmetric. Signed integers are packed anyway, so 255 steps from -30 to 225 cost
//! no more than from -127 to 128. The scale is the one with the least squared error on the
//! calibration values, clipping included. Below 8 bits weights are clipped in the same way, and
//! biases take up the mean error of every channel.

mod fit;

use serde::{Deserialize, Serialize};

pub(crate) use self::fit::Range;
use self::fit::{MAX_BIAS, quantise_layer};
use crate::execution::run;
use crate::graph::Graph;
use crate::preprocess::Preprocess;
use crate::tensor::Tensor;
use crate::training_range::{FirstActivations, Seen};
use crate::{ModelError, float, integer};

/// Sizes of weights and activations in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantConfig {
    weight_bits: u32,
    activation_bits: u32,
}

impl Default for QuantConfig {
    fn default() -> Self {
        Self { weight_bits: 8, activation_bits: 8 }
    }
}

impl QuantConfig {
    /// Checks the sizes: 2 to 8 bits for weights, 2 to 12 bits for activations.
    ///
    /// # Errors
    /// [`ModelError::Range`] for other sizes.
    pub fn new(weight_bits: u32, activation_bits: u32) -> Result<Self, ModelError> {
        for (what, max, got) in [("weight bits", 8, weight_bits), ("activation bits", 12, activation_bits)] {
            if !(2..=max).contains(&got) {
                return Err(ModelError::Range { what, min: 2, max, got });
            }
        }
        Ok(Self { weight_bits, activation_bits })
    }

    /// Returns the bits of a weight.
    pub fn weight_bits(&self) -> u32 {
        self.weight_bits
    }

    /// Returns the bits of an activation.
    pub fn activation_bits(&self) -> u32 {
        self.activation_bits
    }

    /// Returns the largest absolute weight.
    pub fn weight_bound(&self) -> i64 {
        (1 << (self.weight_bits - 1)) - 1
    }

    /// Returns the largest absolute activation, for signed and unsigned ranges alike. The plaintext
    /// modulus is chosen for it, so the choice does not tell the sign of anything.
    pub fn activation_bound(&self) -> i64 {
        (1 << self.activation_bits) - 1
    }

    /// Returns whether rounding is coarse enough for bias correction to pay:
    /// `docs/bring-your-model.md` has the measurement.
    fn is_coarse(&self) -> bool {
        self.weight_bits < 8 || self.activation_bits < 8
    }

    /// Returns the bits `k` of a plaintext modulus that holds every sum of `fan_in` products:
    /// `2^k > 2 * fan_in * max|w| * max|x|`. It follows from the shape alone (condition 7). The
    /// client adds the bias, which needs no room.
    pub fn plaintext_bits(&self, fan_in: usize) -> u32 {
        let span = 2 * fan_in as u128 * self.weight_bound() as u128 * self.activation_bound() as u128;
        128 - span.leading_zeros()
    }
}

/// One linear node in integers.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantLayer {
    /// Quantised weights, in the order of the float weights.
    pub weights: Vec<i32>,
    /// Scales between numbers and integers.
    pub scaling: Scaling,
}

/// How a linear node's input becomes integers and its sums become numbers again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Scale of an accumulator, per output channel: input scale times weight scale.
    pub scales: Vec<f64>,
    /// Bias in units of the accumulator, per output channel.
    pub bias: Vec<i64>,
    /// Scale of the input.
    pub input_scale: f32,
    /// Smallest and largest quantised input.
    pub input_range: (i32, i32),
}

impl Scaling {
    /// Checks that this can be the scaling of a layer with `outputs` outputs.
    ///
    /// # Errors
    /// Words that say why it cannot.
    pub(crate) fn check(&self, outputs: usize, config: QuantConfig) -> Result<(), String> {
        if self.scales.len() != outputs || self.bias.len() != outputs {
            return Err(format!("{} scales and {} biases for {outputs} outputs", self.scales.len(), self.bias.len()));
        }
        let (low, high) = (i64::from(self.input_range.0), i64::from(self.input_range.1));
        let bound = config.activation_bound();
        let sane = self.input_scale.is_finite() && self.input_scale > 0.0 && self.scales.iter().all(|s| s.is_finite());
        if !sane
            || low > high
            || low < -bound
            || high > bound
            || self.bias.iter().any(|b| b.unsigned_abs() > MAX_BIAS as u64)
        {
            return Err("a scale, bias or range outside its bounds".into());
        }
        Ok(())
    }

    /// Quantises inputs: rounds to the nearest integer, halves away from zero, and saturates
    /// (condition 4).
    pub fn quantise(&self, x: &[f32]) -> Vec<i32> {
        let (low, high) = (self.input_range.0 as f32, self.input_range.1 as f32);
        let inverse = 1.0 / self.input_scale;
        // This rounds halves away from zero, as `f32::round` does, but is vectorised: without
        // SSE4.1 `f32::round` is a call for every value, and a checked conversion to an integer
        // takes a handful of instructions. Added to 1.5 * 2^23, a number has no room for a
        // fraction, and the lower bits are the nearest integer, halves rounded to the even
        // neighbour. Clamping may come first, as the bounds are integers (below 2^12).
        const BESIDE: f32 = 12_582_912.0;
        let round = move |v: f32| {
            // NaN becomes 0. `clamp` is not used, as it may panic, nor `max` and `min`, as they
            // would turn NaN into a bound.
            let v = if v.is_nan() { 0.0 } else { v };
            let v = if v < low { low } else { v };
            let v = if v > high { high } else { v };
            let beside = v + BESIDE;
            let cut = v - (beside - BESIDE);
            let up = i32::from(cut >= 0.5) & i32::from(v > 0.0);
            let down = i32::from(cut <= -0.5) & i32::from(v < 0.0);
            (beside.to_bits() as i32).wrapping_sub(BESIDE.to_bits() as i32) + up - down
        };
        x.iter().map(move |v| round(v * inverse)).collect()
    }

    /// Adds the biases to sums `[channel][position]` and scales them back to numbers.
    pub fn dequantise(&self, sums: &[i64]) -> Vec<f32> {
        let positions = sums.len() / self.bias.len();
        let mut out = Vec::with_capacity(sums.len());
        for (part, (&b, &s)) in sums.chunks_exact(positions).zip(self.bias.iter().zip(&self.scales)) {
            out.extend(part.iter().map(|&v| ((v + b) as f64 * s) as f32));
        }
        out
    }
}

/// A quantised network.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantModel {
    graph: Graph,
    config: QuantConfig,
    preprocess: Preprocess,
    layers: Vec<Option<QuantLayer>>,
    first: Option<FirstActivations>,
}

impl QuantModel {
    /// Quantises a network, calibrated on images. `range` states the smallest and largest value of
    /// an image if they are known (0 and 1 for pixels divided by 255). If an image leaves it,
    /// calibration finds a range instead.
    ///
    /// # Errors
    /// [`ModelError::NoCalibration`] without images; [`ModelError::Shape`] if one does not fit;
    /// [`ModelError::NotFinite`] for unusable weights.
    pub fn calibrate(
        graph: Graph,
        config: QuantConfig,
        images: &[Tensor],
        range: Option<(f32, f32)>,
    ) -> Result<Self, ModelError> {
        Self::calibrate_on(graph, config, images.len(), |i| Ok(images[i].clone()), range)
    }

    /// Quantises a network, calibrated on `count` images. `image` is called for one after the
    /// other, two or three times for each, so that they need not be in memory together. `range` is
    /// as for [`QuantModel::calibrate`].
    ///
    /// # Errors
    /// [`ModelError`] as for [`QuantModel::calibrate`], or what `image` returns.
    pub fn calibrate_on<E: From<ModelError>>(
        graph: Graph,
        config: QuantConfig,
        count: usize,
        image: impl Fn(usize) -> Result<Tensor, E>,
        range: Option<(f32, f32)>,
    ) -> Result<Self, E> {
        if count == 0 {
            return Err(ModelError::NoCalibration.into());
        }
        let mut ranges = vec![Range::default(); graph.nodes().len()];
        for i in 0..count {
            run(&graph, image(i)?, |node, x| {
                ranges[node].widen(&x.data);
                float::linear(&graph, node, x)
            })?;
        }
        let mut seen = graph.trained().map(Seen::new);
        for i in 0..count {
            run(&graph, image(i)?, |node, x| {
                ranges[node].count(&x.data);
                let y = float::linear(&graph, node, x)?;
                seen.iter_mut().for_each(|s| s.add(node, &y));
                Ok(y)
            })?;
        }
        let mut model = Self::of_ranges(graph, config, &ranges, range)?;
        model.first = seen.and_then(|s| s.compared());
        if config.is_coarse() {
            model.correct_bias(count, &image)?;
        }
        Ok(model)
    }

    /// Moves every bias by the mean error that rounding causes in a channel's outputs on the
    /// calibration images (bias correction: Nagel et al., 2019, arXiv:1906.04721). Every layer is
    /// corrected by itself, for the inputs that it has in the float network.
    fn correct_bias<E: From<ModelError>>(
        &mut self,
        count: usize,
        image: &impl Fn(usize) -> Result<Tensor, E>,
    ) -> Result<(), E> {
        let mut errors: Vec<Vec<f64>> = vec![vec![]; self.layers.len()];
        for i in 0..count {
            run(&self.graph, image(i)?, |node, x| {
                let exact = float::linear(&self.graph, node, x)?;
                let scaling = &self.layer(node)?.scaling;
                let sums = integer::linear(self, node, &scaling.quantise(&x.data), &x.shape)?;
                let (rounded, channels) = (scaling.dequantise(&sums), scaling.bias.len());
                let positions = exact.len() / channels;
                errors[node].resize(channels, 0.0);
                for (c, e) in errors[node].iter_mut().enumerate() {
                    let part = c * positions..(c + 1) * positions;
                    let sum = |v: &[f32]| v[part.clone()].iter().map(|v| f64::from(*v)).sum::<f64>();
                    *e += (sum(&exact) - sum(&rounded)) / positions as f64;
                }
                Ok(exact)
            })?;
        }
        for (layer, errors) in self.layers.iter_mut().zip(&errors) {
            let Some(QuantLayer { scaling, .. }) = layer else { continue };
            for ((bias, &unit), error) in scaling.bias.iter_mut().zip(&scaling.scales).zip(errors) {
                let moved = *bias as f64 + error / count as f64 / unit;
                *bias = moved.round().clamp(-(MAX_BIAS as f64), MAX_BIAS as f64) as i64;
            }
        }
        Ok(())
    }

    /// Quantises a network without images and without running anything: for uses that depend on
    /// shapes alone.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for unusable weights.
    pub fn uncalibrated(graph: Graph, config: QuantConfig) -> Result<Self, ModelError> {
        let ranges = vec![Range::default(); graph.nodes().len()];
        Self::of_ranges(graph, config, &ranges, None)
    }

    /// Quantises a network by the ranges seen at the input of every node; `range` is that of an
    /// image if it is known.
    fn of_ranges(
        graph: Graph,
        config: QuantConfig,
        ranges: &[Range],
        range: Option<(f32, f32)>,
    ) -> Result<Self, ModelError> {
        let mut layers = vec![None; graph.nodes().len()];
        for (node, linear) in graph.linear_nodes() {
            let known = range.filter(|_| graph.nodes()[node].inputs[0] == 0);
            layers[node] = Some(quantise_layer(&graph.nodes()[node].name, linear, config, &ranges[node], known)?);
        }
        Ok(Self { graph, config, preprocess: Preprocess::default(), layers, first: None })
    }

    /// Sets how images become the network's inputs.
    ///
    /// # Errors
    /// [`ModelError::Preprocess`] if that does not fit the network.
    pub fn with_preprocess(mut self, preprocess: Preprocess) -> Result<Self, ModelError> {
        preprocess.check(self.graph.input_shape())?;
        self.preprocess = preprocess;
        Ok(self)
    }

    /// Returns how images become the network's inputs.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Returns how the first activations of the calibration images differ from those of training,
    /// if the file tells what those were.
    pub fn first_activations(&self) -> Option<FirstActivations> {
        self.first
    }

    /// Returns the float network.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the sizes of weights and activations.
    pub fn config(&self) -> QuantConfig {
        self.config
    }

    /// Returns a linear node in integers.
    ///
    /// # Errors
    /// [`ModelError::Node`] if it is not linear.
    pub fn layer(&self, node: usize) -> Result<&QuantLayer, ModelError> {
        self.layers.get(node).and_then(Option::as_ref).ok_or_else(|| ModelError::not_linear(node))
    }
}
