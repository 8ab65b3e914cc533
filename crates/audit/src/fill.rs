//! What an attacker puts where it does not know a weight.

use chacha20::ChaCha20Rng;
use jali_leak::{Order, Policy, Unit};
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

use crate::victim::{Layer, Victim};

/// A generator for one purpose of one cell.
pub fn generator(purpose: &str, seed: u64) -> ChaCha20Rng {
    let mut hasher = blake3::Hasher::new_derive_key("jali 1 audit: draws");
    hasher.update(purpose.as_bytes()).update(&seed.to_le_bytes());
    ChaCha20Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Zeros in the hidden places.
pub fn zeros(victim: &Victim, hidden: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let layer =
        |(layer, hidden): (&Layer, &Vec<f32>)| layer.weights.iter().zip(hidden).map(|(w, h)| w * (1.0 - h)).collect();
    victim.layers().iter().zip(hidden).map(layer).collect()
}

/// Draws from a normal distribution whose spread is estimated from the layer's open weights,
/// relative to the known scale of the output channel, cut off at that scale's largest weight.
/// Without enough open weights the spread follows from the scale: the largest of n normal values is
/// expected near `sigma * sqrt(2 ln n)`.
///
/// A policy that hides the largest weights says more: what is hidden exceeds every open weight, so
/// magnitudes are drawn from the tail, and the spread follows from where the tail starts and how
/// much of the layer lies in it.
///
/// A seed gives a weight the same luck whatever else is hidden, so that an attacker and its twin
/// differ by what they know alone.
pub fn statistics(victim: &Victim, hidden: &[Vec<f32>], policy: Option<Policy>, seed: u64) -> Vec<Vec<f32>> {
    let tail = policy.is_some_and(|p| p.order() == Order::Magnitude && p.unit() == Unit::Weights);
    let mut weights = zeros(victim, hidden);
    // The policy ranks all layers together, so one threshold serves all.
    let threshold = if tail { largest(&weights) } else { 0.0 };
    for (l, ((layer, hidden), out)) in victim.layers().iter().zip(hidden).zip(&mut weights).enumerate() {
        let mut rng = generator(&format!("fill of layer {l}"), seed);
        let open = hidden.iter().filter(|h| **h == 0.0).count();
        let share = open as f64 / hidden.len() as f64;
        let expected = 1.0 / (2.0 * (layer.fan_in.max(2) as f64).ln()).sqrt();
        let relative = |i: usize, w: f32| f64::from(w / layer.limit[i / layer.fan_in].max(f32::MIN_POSITIVE));
        let spread = if open < ENOUGH {
            expected
        } else {
            let known = out.iter().zip(hidden).enumerate().filter(|(_, (_, h))| **h == 0.0);
            let square: f64 = known.map(|(i, (w, _))| relative(i, *w).powi(2)).sum();
            (square / open as f64).sqrt()
        };
        let sigma = f64::from(threshold) / normal_quantile(0.5 + share.min(0.999_999) / 2.0).max(1e-3);
        for (i, (w, h)) in out.iter_mut().zip(hidden).enumerate() {
            let (normal, uniform): (f32, f64) = (rng.sample(StandardNormal), rng.random());
            if *h == 0.0 {
                continue;
            }
            let limit = layer.limit[i / layer.fan_in];
            *w = if tail && open > 0 {
                beyond(threshold, sigma as f32, limit, uniform).copysign(normal)
            } else {
                (normal * spread as f32 * limit).clamp(-limit, limit)
            };
        }
    }
    weights
}

/// Open weights of a layer from which its spread can be estimated.
const ENOUGH: usize = 32;

fn largest(weights: &[Vec<f32>]) -> f32 {
    weights.iter().flatten().fold(0.0, |m: f32, w| m.max(w.abs()))
}

/// The magnitude of a normal value, given that it lies between `from` and `limit`.
fn beyond(from: f32, sigma: f32, limit: f32, uniform: f64) -> f32 {
    // Beyond `from` a normal density falls about as fast as an exponential one with the rate at
    // `from`, and faster later.
    let rate = f64::from(from / (sigma * sigma)).max(1e-6);
    let magnitude = f64::from(from) - (1.0 - uniform).ln() / rate;
    (magnitude as f32).min(limit.max(from))
}

/// Inverse of the normal distribution function by bisection: it is called once a layer.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The normal distribution function, to 1e-7 (Abramowitz and Stegun 7.1.26).
fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly =
        ((((1.061_405_429 * t - 1.453_152_027) * t + 1.421_413_741) * t - 0.284_496_736) * t + 0.254_829_592) * t;
    let erf = 1.0 - poly * (-z * z).exp();
    if x >= 0.0 { 0.5 + erf / 2.0 } else { 0.5 - erf / 2.0 }
}
