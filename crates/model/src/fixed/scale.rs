//! Which values share a scale, and which scale.

use super::draft::{Bounds, Draft, DraftOp};
use super::{FixedConfig, FixedId};
use crate::graph::Graph;
use crate::quant::Range;
use crate::tensor::Tensor;
use crate::{ModelError, float, nonlinear};

/// Units of a number, for every value; 0 where only the output uses it.
pub(super) struct Scales {
    pub(super) of: Vec<f64>,
    /// Smallest and largest integer of the input.
    pub(super) input: [i64; 2],
    /// By step: smallest result of a clamp, 0 elsewhere.
    pub(super) low: Vec<i64>,
    /// By step: largest result of a clamp from the smallest on, 0 elsewhere.
    pub(super) span: Vec<u32>,
}

/// Largest result of a clamp of numbers that are compared at the end: 12 bits.
const FINE: u32 = (1 << 12) - 1;

/// Sets of values that have one scale.
struct Groups(Vec<usize>);

impl Groups {
    fn root(&mut self, id: FixedId) -> usize {
        let mut at = id;
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: FixedId, b: FixedId) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a] = b;
    }

    fn of(draft: &Draft) -> Self {
        let mut groups = Self((0..=draft.steps.len()).collect());
        for (step, s) in draft.steps.iter().enumerate() {
            match &s.op {
                DraftOp::Linear { .. } | DraftOp::Sum { .. } | DraftOp::Affine { .. } => {}
                DraftOp::Clamp { terms: inputs, .. } | DraftOp::Copy { inputs, .. } => {
                    inputs.iter().for_each(|&i| groups.join(i, step + 1));
                }
                DraftOp::Max { input, .. } => groups.join(*input, step + 1),
            }
        }
        groups
    }
}

/// What calibration sees of the values that clamps and the input stand for.
fn observe(graph: &Graph, draft: &Draft, images: &[Tensor]) -> Result<Vec<Option<Range>>, ModelError> {
    let mut ranges: Vec<Option<Range>> = vec![None; graph.nodes().len() + 1];
    ranges[draft.input] = Some(Range::default());
    for step in &draft.steps {
        if let DraftOp::Clamp { seen, .. } = step.op {
            ranges[seen] = Some(Range::default());
        }
    }
    for widen in [true, false] {
        for image in images {
            let values = all_values(graph, image)?;
            for (value, range) in values.iter().zip(&mut ranges) {
                match range {
                    Some(range) if widen => range.widen(&value.data),
                    Some(range) => range.count(&value.data),
                    None => {}
                }
            }
        }
    }
    Ok(ranges)
}

/// All values of the float network.
pub(super) fn all_values(graph: &Graph, image: &Tensor) -> Result<Vec<Tensor>, ModelError> {
    if image.shape != graph.input_shape() {
        return Err(ModelError::Shape {
            what: "the image".into(),
            expected: format!("{:?}", graph.input_shape()),
            got: format!("{:?}", image.shape),
        });
    }
    let mut values = vec![image.clone()];
    for (i, node) in graph.nodes().iter().enumerate() {
        values.push(match node.op.linear() {
            Some(_) => Tensor { shape: node.shape.clone(), data: float::linear(graph, i, &values[node.inputs[0]])? },
            None => nonlinear::apply(node, &node.inputs.iter().map(|&v| &values[v]).collect::<Vec<_>>())?,
        });
    }
    Ok(values)
}

/// Smallest and largest number that a clamp lets through.
fn bounds_of(bounds: Bounds, seen: (f32, f32)) -> (f64, f64) {
    let (low, high) = (f64::from(seen.0), f64::from(seen.1));
    match bounds {
        Bounds::Positive => (0.0, high),
        Bounds::Seen | Bounds::Fine => (low, high),
        Bounds::Given { low: least, high: most } => (low.max(f64::from(least)), high.min(f64::from(most))),
    }
}

/// Chooses scales.
///
/// # Errors
/// [`ModelError::Shape`] for an image that does not fit.
pub(super) fn choose(
    graph: &Graph,
    draft: &Draft,
    config: FixedConfig,
    images: &[Tensor],
    range: Option<(f32, f32)>,
) -> Result<Scales, ModelError> {
    let levels = ((1_u64 << config.activation_bits) - 1) as f64;
    let seen = observe(graph, draft, images)?;
    let (steps, mut groups) = (draft.steps.len(), Groups::of(draft));
    let mut of_group = vec![f64::INFINITY; steps + 1];
    let numbers = |value: usize| seen[value].as_ref().map_or((0.0, 0.0), |r| r.clip(levels));
    let input = match range {
        // Zeros of padding are integers of every scale.
        Some((low, high)) if draft.input == 0 => (f64::from(low.min(0.0)), f64::from(high.max(0.0))),
        _ => seen[draft.input].as_ref().map_or((0.0, 1.0), Range::ends),
    };
    // Pixels divided by 255 are integers; others get a bit more than activations.
    let input_levels = if input == (0.0, 1.0) { 255.0 } else { 2.0 * levels + 1.0 };
    let least = |of_group: &mut f64, span: f64, levels: f64| {
        *of_group = of_group.min(if span > 0.0 { levels / span } else { 1.0 });
    };
    least(&mut of_group[groups.root(0)], input.1 - input.0, input_levels);
    for (step, s) in draft.steps.iter().enumerate() {
        if let DraftOp::Clamp { bounds, seen, .. } = s.op {
            let (low, high) = bounds_of(bounds, numbers(seen));
            let levels = if bounds == Bounds::Fine { f64::from(FINE) } else { levels };
            least(&mut of_group[groups.root(step + 1)], high - low, levels);
        }
    }
    let mut of = vec![0.0; steps + 1];
    for id in 0..=steps {
        let root = groups.root(id);
        if of_group[root].is_finite() {
            of[id] = of_group[root];
        } else if let Some(DraftOp::Sum { input, count, .. }) = id.checked_sub(1).map(|s| &draft.steps[s].op) {
            // The sum of so many numbers stands for their mean.
            of[id] = of[*input] * *count as f64;
            of_group[root] = of[id];
        }
    }
    let integers = |(low, high): (f64, f64)| [low, high].map(|v| (v * of[0]).round() as i64);
    let (mut low, mut span) = (vec![0; steps], vec![0; steps]);
    for (step, s) in draft.steps.iter().enumerate() {
        if let DraftOp::Clamp { bounds, seen, .. } = s.op {
            let most = (1_u32 << config.activation_bits) - 1;
            let (least, _) = bounds_of(bounds, numbers(seen));
            low[step] = (least * of[step + 1]).round() as i64;
            span[step] = match bounds {
                Bounds::Given { high, .. } => {
                    let high = (f64::from(high) * of[step + 1]).round() as i64 - low[step];
                    u32::try_from(high.max(1)).unwrap_or(most).min(most)
                }
                Bounds::Fine => FINE,
                _ => most,
            };
        }
    }
    Ok(Scales { input: integers(input), of, low, span })
}
