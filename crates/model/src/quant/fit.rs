//! Turns the ranges that calibration saw into scales and integers.

use super::{QuantConfig, QuantLayer, Scaling};
use crate::ModelError;
use crate::op::Linear;

/// Largest absolute bias, in units of the accumulator.
pub(super) const MAX_BIAS: i64 = 9_000_000_000_000_000;
/// Absolute bias of a channel without weights: the channel's unit is chosen so.
pub(super) const DEAD_BIAS: f64 = (1u64 << 40) as f64;

/// The values that calibration saw at one input: first their range, which includes zero, then a
/// histogram of it.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    low: f32,
    high: f32,
    bins: Vec<f64>,
}

pub(super) const BINS: usize = 2048;

impl Default for Range {
    fn default() -> Self {
        Self { low: 0.0, high: 0.0, bins: vec![0.0; BINS] }
    }
}

impl Range {
    /// Smallest and largest value.
    pub(crate) fn ends(&self) -> (f64, f64) {
        (f64::from(self.low), f64::from(self.high))
    }

    /// Widens the range to hold these values.
    pub(crate) fn widen(&mut self, x: &[f32]) {
        (self.low, self.high) = x.iter().fold((self.low, self.high), |(low, high), &v| (low.min(v), high.max(v)));
    }

    /// Counts these values, which the range holds, in the histogram.
    pub(crate) fn count(&mut self, x: &[f32]) {
        let scale = BINS as f32 / (self.high - self.low);
        for v in x {
            let bin = ((v - self.low) * scale) as usize;
            self.bins[bin.min(BINS - 1)] += 1.0;
        }
    }

    /// Returns the part of the range, lowest and highest value, with the least squared error for
    /// `levels` steps. A value inside costs step^2/12 by rounding, one outside the squared distance
    /// by clipping.
    pub(crate) fn clip(&self, levels: f64) -> (f32, f32) {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let centre = |bin: usize| low + (high - low) * (bin as f64 + 0.5) / BINS as f64;
        let error = |part: f64| -> f64 {
            let rounding = (part * (high - low) / levels).powi(2) / 12.0;
            let cost = |(bin, n): (usize, &f64)| {
                let at = centre(bin);
                let beyond = (at - part * high).max(part * low - at);
                // Zeros cost nothing, as they are exact at any scale; counting them shifts all
                // candidates alike.
                n * if beyond <= 0.0 { rounding } else { beyond.powi(2) }
            };
            self.bins.iter().enumerate().map(cost).sum()
        };
        let best = f64::from(best_percent(20, |i| error(f64::from(i) / 100.0))) / 100.0;
        ((best * low) as f32, (best * high) as f32)
    }
}

/// Returns the percentage from `least` to 100 with the smallest error, the first of several.
fn best_percent(least: u8, error: impl Fn(u8) -> f64) -> u8 {
    let errors = (least..=100).map(|i| (error(i), i));
    errors.fold((f64::INFINITY, 100), |a, b| if b.0 < a.0 { b } else { a }).1
}

/// Returns the part of the largest weight, `max`, at which cutting off larger ones gives the least
/// squared error. Weights are rounded to integers up to `bound`.
fn best_part(row: &[f32], max: f32, bound: f32) -> f32 {
    let error = |part: f32| -> f64 {
        let scale = part * max / bound;
        let rounded = |w: f32| (w / scale).round().clamp(-bound, bound) * scale;
        row.iter().map(|&w| f64::from(w - rounded(w)).powi(2)).sum()
    };
    f32::from(best_percent(40, |i| error(f32::from(i) / 100.0))) / 100.0
}

/// Quantises one linear layer. `range` is what calibration saw at its input, and `known` the
/// smallest and largest input if these are known; `name` is for errors.
pub(super) fn quantise_layer(
    name: &str,
    linear: Linear<'_>,
    config: QuantConfig,
    range: &Range,
    known: Option<(f32, f32)>,
) -> Result<QuantLayer, ModelError> {
    let all = linear.weights().iter().chain(linear.bias());
    if let Some(index) = all.clone().position(|w| !w.is_finite()) {
        return Err(ModelError::NotFinite { what: format!("weights of \"{name}\""), index });
    }
    let levels = config.activation_bound();
    // A known range is taken unless calibration saw values outside of it.
    let known = known.filter(|(low, high)| range.low >= *low && range.high <= *high);
    let (low, high) = known.unwrap_or_else(|| range.clip(levels as f64));
    let (low, high) = (low.min(0.0), high.max(0.0));
    // An input that was always zero still needs a usable scale. Zero is one of the integers
    // whatever the range, so padding stays exact.
    let input_scale = if high > low { (high - low) / levels as f32 } else { 1.0 };
    let low = (low / input_scale).round() as i32;
    let high = low + levels as i32;

    let bound = config.weight_bound() as f32;
    let (mut weights, mut scales, mut bias) = (vec![], vec![], vec![]);
    for (row, &b) in linear.weights().chunks_exact(linear.fan_in()).zip(linear.bias()) {
        let max = row.iter().fold(0f32, |m, w| m.max(w.abs()));
        // At 8 bits nothing is gained by cutting weights off.
        let max = if config.weight_bits < 8 { max * best_part(row, max, bound) } else { max };
        let scale = max / bound;
        let resolved = |unit: f64| f64::from(b.abs()) / unit <= MAX_BIAS as f64;
        if !(scale.is_normal() && resolved(f64::from(scale) * f64::from(input_scale))) {
            // A dead channel: its weights are zero, or so small that all of them together are lost
            // beside the bias.
            weights.extend(row.iter().map(|_| 0));
            let unit = if b == 0.0 { 1.0 } else { f64::from(b.abs()) / DEAD_BIAS };
            scales.push(unit);
            bias.push((f64::from(b) / unit).round() as i64);
            continue;
        }
        weights.extend(row.iter().map(|w| (w / scale).round().clamp(-bound, bound) as i32));
        let unit = f64::from(scale) * f64::from(input_scale);
        scales.push(unit);
        bias.push((f64::from(b) / unit).round() as i64);
    }
    Ok(QuantLayer { weights, scaling: Scaling { scales, bias, input_scale, input_range: (low, high) } })
}
