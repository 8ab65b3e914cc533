//! The failure bound: how likely is a wrong integer.
//!
//! `V_j = sum_i (W_i + t*e'_i)(x_i + t*e_i)` at one coefficient is a constant part (from `W`, `e'`,
//! `x`) plus `t * sum_i <W_i + t*e'_i, e_i>`. The constant part is the wanted integer, below `t/2`,
//! plus at most `t * max|x| * sum_i ||e'_i||_1`; together `M`. A centred binomial of 42 bits is
//! subgaussian with variance 10.5, so with `B^2 = sum_i ||W_i + t*e'_i||^2`
//!
//! ```text
//! Pr[|V_j| >= q/2] <= 2 exp(-(q/2 - M)^2 / (2 * 10.5 * t^2 * B^2))
//! ```
//!
//! rigorous for `x` chosen independently of `e`. `B` and `M` are computed
//! exactly, in integers, from the row that was drawn.

use jali_ring::sample::BINOMIAL_VARIANCE;

use crate::params::OperatorShape;

/// Largest acceptable probability of any wrong integer in one inference, as a power of two.
pub const MAX_FAILURE_LOG2: f64 = -64.0;

/// What sealing learned about one row, exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowNorms {
    /// `sum_i ||W_i + t*e'_i||^2`.
    pub(crate) squared: u128,
    /// `sum_i ||e'_i||_1`.
    pub(crate) error_l1: u128,
    /// log2 of the product of the primes that the row is computed modulo.
    pub(crate) log2_q: f64,
}

impl RowNorms {
    /// `M` and the standard deviation factor `sqrt(10.5) * t * B`, as floating-point numbers.
    fn scales(&self, plaintext_bits: u32, input_bound: i64) -> (f64, f64) {
        let t = (plaintext_bits as f64).exp2();
        let m = t / 2.0 + t * input_bound as f64 * self.error_l1 as f64;
        (m, BINOMIAL_VARIANCE.sqrt() * t * (self.squared as f64).sqrt())
    }

    /// log2 of the bound for one coefficient.
    fn log2_failure(&self, plaintext_bits: u32, input_bound: i64) -> f64 {
        let half_q = (self.log2_q - 1.0).exp2();
        let (m, deviation) = self.scales(plaintext_bits, input_bound);
        if half_q <= m {
            return 0.0;
        }
        let sigmas = (half_q - m) / deviation;
        (1.0 - sigmas * sigmas / 2.0 * std::f64::consts::LOG2_E).min(0.0)
    }
}

/// The noise of one sealed operator against the room that its modulus leaves, for the row with the
/// least room to spare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseReport {
    /// log2 of what `|V|` stays below except with probability 2^-64 for the whole operator, in
    /// bits.
    pub bound_bits: f64,
    /// log2(q/2), in bits.
    pub available_bits: f64,
    /// log2 of the probability that any wanted integer of the operator is wrong.
    pub log2_failure: f64,
}

impl NoiseReport {
    pub(crate) fn new(rows: &[RowNorms], outputs_per_row: usize, shape: (u32, i64)) -> Self {
        let (plaintext_bits, input_bound) = shape;
        let outputs = (rows.len() * outputs_per_row) as f64;
        // Pr <= 2^-64 / outputs for each: sigmas^2 / 2 * log2(e) = 1 + 64 + log2(outputs).
        let sigmas = (2.0 * (1.0 - MAX_FAILURE_LOG2 + outputs.log2()) * std::f64::consts::LN_2).sqrt();
        let bounds = rows.iter().map(|r| {
            let (m, deviation) = r.scales(plaintext_bits, input_bound);
            ((m + sigmas * deviation).max(1.0).log2(), r.log2_q - 1.0)
        });
        let spare = |(bound, available): &(f64, f64)| available - bound;
        let (bound_bits, available_bits) =
            bounds.min_by(|a, b| spare(a).total_cmp(&spare(b))).unwrap_or((0.0, f64::INFINITY));
        let failures = rows.iter().map(|r| r.log2_failure(plaintext_bits, input_bound));
        let log2_failure = sum_log2(failures) + (outputs_per_row as f64).log2();
        Self { bound_bits, available_bits, log2_failure }
    }
}

/// log2 of the sum of numbers given by their log2.
pub fn sum_log2(logs: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = logs.collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + logs.iter().map(|l| (l - top).exp2()).sum::<f64>().log2()
}

/// Bits of modulus that an operator needs for 2^-64 per inference, from its shape alone. The sealed
/// error enters with its expected norm and ten per cent above; a network may have 2^24 outputs.
pub(crate) fn needed_modulus_bits(degree: usize, shape: &OperatorShape) -> u32 {
    let t = (shape.plaintext_bits as f64).exp2();
    let coefficients = (degree * shape.tiles) as f64;
    // Mean of |e'| for variance 10.5 is close to sqrt(2/pi) * 3.24 = 2.585.
    let (norm, l1) = if shape.hidden {
        (t * (BINOMIAL_VARIANCE * coefficients).sqrt() * 1.1 + shape.row_norm, 2.6 * 1.1 * coefficients)
    } else {
        (shape.row_norm, 0.0)
    };
    let sigmas = (2.0 * (1.0 - MAX_FAILURE_LOG2 + 24.0) * std::f64::consts::LN_2).sqrt();
    let half_q = t / 2.0 + t * shape.input_bound as f64 * l1 + sigmas * BINOMIAL_VARIANCE.sqrt() * t * norm;
    // Primes lie a little below their power of two.
    (half_q.log2() + 1.02).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add() {
        assert!((sum_log2([-3.0, -3.0].into_iter()) + 2.0).abs() < 1e-12);
        assert!((sum_log2([-100.0, -2000.0].into_iter()) + 100.0).abs() < 1e-12);
        assert_eq!(sum_log2([].into_iter()), f64::NEG_INFINITY);
    }

    #[test]
    fn bound_matches_a_value_worked_out_by_hand() {
        // t = 2^10, B^2 = 2^40, no sealed error: deviation = 3.2404 * 2^30, M = 2^9. At q/2 = 2^36
        // that is 19.75 deviations: log2(2 exp(-19.75^2/2)) = 1 - 281.4.
        let mut row = RowNorms { squared: 1 << 40, error_l1: 0, log2_q: 37.0 };
        let p = row.log2_failure(10, 255);
        assert!((p - (1.0 - 281.39)).abs() < 0.1, "{p}");
        // Room smaller than the constant part: certain failure, not a wrapped number.
        row.log2_q = 7.6;
        assert_eq!(row.log2_failure(10, 255), 0.0);
    }
}
