//! Exact ranges of sums, and the moduli that hold them.
//!
//! Condition 1 of the guests' design: for every clamp, `span + 1 - 2^(b-1) <= sum - low < 2^(b-1)`
//! for all inputs in range, rounding errors included. It is computed from the weights, row by row,
//! and not estimated.

use super::draft::{Draft, DraftOp, DraftStep, Weights};
use super::ends::bits_of_class;
use super::scale::Scales;
use super::{FixedConfig, FixedId, FixedInput, FixedLinear, FixedNetwork, FixedOp, FixedOutput, FixedStep};
use crate::ModelError;
use crate::error::Offence;
use crate::graph::Graph;
use crate::op::{Conv, Gemm, Linear, Op};

/// Bits of a word: no modulus is larger.
const WORD: u32 = 32;
/// Most bits by which a clamped value's modulus is wider than the clamp's.
pub(super) const MAX_LIFT: u32 = 16;
/// Fewest bits that a layer may drop: below, weights are too coarse.
const MIN_DROP: u32 = 3;
/// Most bits that a layer drops.
const MAX_DROP: u32 = 14;

/// Bits of a two's complement number that holds this range.
pub(super) fn signed_bits([low, high]: [i64; 2]) -> u32 {
    let fits = |bits: &u32| low >= -(1_i64 << (bits - 1)) && high < 1_i64 << (bits - 1);
    (1..=62).find(fits).unwrap_or(63)
}

/// Fewest bits of a clamp: see the module.
fn clamp_bits([low, high]: [i64; 2], span: u32) -> u32 {
    let fits = |bits: &u32| low > i64::from(span) - (1_i64 << (bits - 1)) && high < 1_i64 << (bits - 1);
    (2..=62).find(fits).unwrap_or(63)
}

/// Gives steps numbers.
///
/// # Errors
/// [`ModelError::Unsupported`] for layers whose sums no modulus holds.
pub(super) fn fix(
    graph: &Graph,
    draft: Draft,
    scales: &Scales,
    config: FixedConfig,
) -> Result<FixedNetwork, ModelError> {
    let mut most = vec![MAX_DROP; draft.steps.len()];
    loop {
        let mut fixing = Fixing { graph, draft: &draft, scales, config, steps: vec![], output_scale: 0.0 };
        for (step, s) in draft.steps.iter().enumerate() {
            let fixed = fixing.step(step, s, most[step])?;
            fixing.steps.push(fixed);
        }
        let output = fixing.output();
        match fixing.moduli(output, &mut most)? {
            Some((steps, output, input_bits)) => {
                let input = FixedInput { scale: scales.of[0], range: scales.input, bits: input_bits };
                return Ok(FixedNetwork { head: draft.head, input, steps, output, tail: draft.tail });
            }
            // Some layer drops fewer bits now; that makes it narrower, and this end.
            None => continue,
        }
    }
}

struct Fixing<'a> {
    graph: &'a Graph,
    draft: &'a Draft,
    scales: &'a Scales,
    config: FixedConfig,
    steps: Vec<FixedStep>,
    output_scale: f64,
}

impl Fixing<'_> {
    fn range(&self, id: FixedId) -> [i64; 2] {
        id.checked_sub(1).map_or(self.scales.input, |step| self.steps[step].range)
    }

    fn step(&mut self, step: usize, s: &DraftStep, most_drop: u32) -> Result<FixedStep, ModelError> {
        let (op, range) = match &s.op {
            DraftOp::Linear { input, weights, input_shape, more_bias } => {
                return self.linear(step, s, (*input, input_shape), (weights, more_bias), most_drop);
            }
            DraftOp::Clamp { terms, .. } => {
                let (low, span) = (self.scales.low[step], self.scales.span[step]);
                let op = FixedOp::Clamp { terms: terms.clone(), low, span, bits: 0 };
                (op, [low, low + i64::from(span)])
            }
            DraftOp::Max { input, pool } => (FixedOp::Max { input: *input, pool: pool.clone() }, self.range(*input)),
            DraftOp::Sum { input, pool, count } => {
                let [low, high] = self.range(*input);
                let all = *count as i64;
                // Places outside count as zeros.
                let range = [(all * low).min(if pool.padding == [0; 4] { i64::MAX } else { 0 }), all * high];
                (FixedOp::Sum { input: *input, pool: pool.clone() }, range)
            }
            DraftOp::Affine { input, shift, add } => {
                let ([low, high], most) = (self.range(*input), add.iter().max().copied().unwrap_or(0));
                let range = [low << shift, (high << shift) + i64::from(most)];
                (FixedOp::Affine { input: *input, shift: *shift, add: add.clone() }, range)
            }
            DraftOp::Copy { inputs, places } => {
                let zero = places.contains(&0).then_some([0, 0]);
                let ranges = inputs.iter().map(|&i| self.range(i)).chain(zero);
                let range = ranges.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]).unwrap_or([0, 0]);
                (FixedOp::Copy { inputs: inputs.clone(), places: places.clone() }, range)
            }
        };
        Ok(FixedStep { name: s.name.clone(), op, shape: s.shape.clone(), range, bits: 0 })
    }

    fn linear(
        &mut self,
        step: usize,
        s: &DraftStep,
        (input, input_shape): (FixedId, &[usize]),
        (weights, more_bias): (&Weights, &[f32]),
        most_drop: u32,
    ) -> Result<FixedStep, ModelError> {
        let (linear, layer) = match weights {
            Weights::Node { node, layer } => (self.graph.nodes()[*node].op.linear(), Some(*layer)),
            Weights::Scaling(conv) => (Some(Linear::Conv(conv)), None),
        };
        let linear = linear.ok_or_else(|| ModelError::not_linear(step))?;
        let (op, output_shape) = match linear {
            Linear::Conv(c) => {
                let shape = if layer.is_some() { s.shape.clone() } else { input_shape.to_vec() };
                (Op::Conv(Conv { weight: vec![], bias: vec![], ..c.clone() }), shape)
            }
            Linear::Gemm(g) => (Op::Gemm(Gemm { weight: vec![], bias: vec![], ..*g }), s.shape.clone()),
        };
        let [low, high] = self.range(input);
        let padded = matches!(linear, Linear::Conv(c) if c.padding != [0; 4]);
        let x = if padded { [low.min(0), high.max(0)] } else { [low, high] };
        let in_scale = self.scales.of[input];
        let mut out_scale = self.scales.of[step + 1];
        if out_scale == 0.0 {
            // Nobody but the output uses it: as fine as its bits allow.
            out_scale = self.scale_of_output(linear, more_bias, x, in_scale);
            self.output_scale = out_scale;
        }
        let drop = drop_of(linear.fan_in(), x).min(most_drop);
        let (w, b) = (out_scale / in_scale * 2_f64.powi(drop as i32), out_scale * 2_f64.powi(drop as i32));
        let half = if drop > 0 { 1_i64 << (drop - 1) } else { 0 };
        let integers: Vec<i32> = linear.weights().iter().map(|v| (f64::from(*v) * w).round() as i32).collect();
        let more = |i: usize| more_bias.get(i).copied().unwrap_or(0.0);
        let bias: Vec<i64> =
            linear.bias().iter().enumerate().map(|(i, v)| (f64::from(v + more(i)) * b).round() as i64 + half).collect();
        let sums = range_of_sums(&integers, &bias, x);
        // One below and one above: what a ticket's rounding may add.
        let range = [(sums[0] >> drop) - 1, (sums[1] >> drop) + 1];
        let fixed = FixedLinear {
            input,
            op,
            input_shape: input_shape.to_vec(),
            output_shape,
            weights: integers,
            bias,
            drop,
            bits: 0,
            layer,
        };
        let op = FixedOp::Linear(fixed);
        Ok(FixedStep { name: s.name.clone(), op, shape: s.shape.clone(), range, bits: 0 })
    }

    /// The finest scale at which every output fits its bits.
    fn scale_of_output(&self, linear: Linear<'_>, more_bias: &[f32], x: [i64; 2], in_scale: f64) -> f64 {
        let fan_in = linear.fan_in();
        let [low, high] = x.map(|v| v as f64 / in_scale);
        let largest = linear.weights().chunks(fan_in).zip(linear.bias()).enumerate().map(|(i, (row, bias))| {
            let bias = f64::from(bias + more_bias.get(i).copied().unwrap_or(0.0));
            let ends = row.iter().fold((bias, bias), |(least, most), &w| {
                let (a, b) = (f64::from(w) * low, f64::from(w) * high);
                (least + a.min(b), most + a.max(b))
            });
            ends.0.abs().max(ends.1.abs())
        });
        let largest = largest.fold(0.0, f64::max);
        // Rounding of weights and sums needs a little room.
        let room = 2_f64.powi(self.config.output_bits as i32 - 1) * 0.98 - 4.0;
        if largest > 0.0 { room / largest } else { 1.0 }
    }

    fn output(&self) -> FixedOutput {
        let source = self.draft.output;
        let shape = self.draft.tail.input_shape().to_vec();
        if let Some(classes) = self.draft.classes {
            let bits = bits_of_class(classes);
            return FixedOutput { source, drop: 0, bits, classes: Some(classes), scale: 1.0, shape };
        }
        let bits = signed_bits(self.range(source));
        let is_linear = source > 0 && matches!(self.steps[source - 1].op, FixedOp::Linear(_));
        let drop = if is_linear { 0 } else { bits.saturating_sub(self.config.output_bits) };
        let scale = if self.scales.of[source] == 0.0 { self.output_scale } else { self.scales.of[source] };
        let scale = scale / 2_f64.powi(drop as i32);
        // One more bit where dropping may round up.
        let bits = bits - drop + u32::from(drop > 0);
        FixedOutput { source, drop, bits, classes: None, scale, shape }
    }

    /// Chooses moduli from the last step to the first, or lets a layer drop fewer bits and returns
    /// nothing.
    #[allow(clippy::type_complexity)]
    fn moduli(
        mut self,
        output: FixedOutput,
        most: &mut [u32],
    ) -> Result<Option<(Vec<FixedStep>, FixedOutput, u32)>, ModelError> {
        // What the users of a value need; of a linear layer the bits of its term.
        let mut needs = vec![1; self.steps.len() + 1];
        needs[output.source] = output.bits + output.drop;
        for step in (0..self.steps.len()).rev() {
            let need = needs[step + 1];
            let range = self.steps[step].range;
            let (mut raise, mut bits) = (vec![], need);
            let sums = self.sum_of_terms(step);
            match &mut self.steps[step].op {
                FixedOp::Linear(linear) => {
                    linear.bits = need + linear.drop;
                    if linear.bits > WORD {
                        most[step] = match WORD.checked_sub(need).filter(|&drop| drop >= MIN_DROP) {
                            Some(drop) => drop.min(linear.drop - 1),
                            None => return Err(self.too_wide(step, need)),
                        };
                        return Ok(None);
                    }
                    raise.push((linear.input, linear.bits));
                }
                FixedOp::Clamp { terms, low, span, bits } => {
                    let sums = sums.map(|v| v - *low);
                    *bits = clamp_bits(sums, *span).max(need.saturating_sub(MAX_LIFT));
                    raise.extend(terms.iter().map(|&t| (t, *bits)));
                }
                FixedOp::Max { input, .. } => {
                    let most = range[1] - range[0];
                    bits = need.max(signed_bits([-most, most]));
                    raise.push((*input, bits));
                }
                FixedOp::Sum { input, .. } | FixedOp::Affine { input, .. } => raise.push((*input, need)),
                FixedOp::Copy { inputs, .. } => raise.extend(inputs.iter().map(|&i| (i, need))),
            }
            self.steps[step].bits = bits;
            raise.into_iter().for_each(|(id, bits)| needs[id] = needs[id].max(bits));
        }
        Ok(Some((self.steps, output, needs[0])))
    }

    /// Range of a clamp's sum.
    fn sum_of_terms(&self, step: usize) -> [i64; 2] {
        match &self.steps[step].op {
            FixedOp::Clamp { terms, .. } => {
                terms.iter().map(|&t| self.range(t)).fold([0, 0], |a, b| [a[0] + b[0], a[1] + b[1]])
            }
            _ => [0, 0],
        }
    }

    fn too_wide(&self, step: usize, need: u32) -> ModelError {
        let s = &self.steps[step];
        ModelError::Unsupported {
            offences: vec![Offence {
                node: s.name.clone(),
                operator: "linear layer".into(),
                reason: format!("its sums need {need} bits and more for rounding, of {WORD} that there are"),
                remedy: "fewer activation bits, or smaller weights (weight decay), make them narrower".into(),
            }],
        }
    }
}

/// Bits that a layer drops, so that rounding its weights moves a result by less than a unit.
///
/// Rounding moves a sum by about `sqrt(fan_in / 12) * x`, where `x`, a typical input, is a quarter
/// of the largest.
fn drop_of(fan_in: usize, x: [i64; 2]) -> u32 {
    let typical = (x[1] - x[0]) as f64 / 4.0;
    let moved = (fan_in as f64 / 12.0).sqrt() * typical;
    ((moved / 0.7).log2().ceil().max(0.0) as u32).clamp(6, MAX_DROP)
}

/// Smallest and largest sum of any row.
fn range_of_sums(weights: &[i32], bias: &[i64], [low, high]: [i64; 2]) -> [i64; 2] {
    let fan_in = weights.len() / bias.len().max(1);
    let row = |(row, bias): (&[i32], &i64)| {
        row.iter().fold([*bias; 2], |[least, most], &w| {
            let (a, b) = (i64::from(w) * low, i64::from(w) * high);
            [least + a.min(b), most + a.max(b)]
        })
    };
    let rows = weights.chunks(fan_in.max(1)).zip(bias).map(row);
    rows.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]).unwrap_or([0, 0])
}
