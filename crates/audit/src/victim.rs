//! The victim: the quantised network that the server runs blindly, and what the worst-case attacker
//! knows of it.

use jali_leak::Plan;
use jali_model::execution::IMAGE;
use jali_model::graph::ValueId;
use jali_model::{Graph, Op, QuantModel, Tensor, integer};
use rayon::prelude::*;

use crate::AuditError;

/// One linear layer of the victim, in numbers.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Weights as the server multiplies them, scaled back.
    pub weights: Vec<f32>,
    /// Biases, scaled back: the attacker is granted them.
    pub bias: Vec<f32>,
    /// Largest weight that each output channel can hold (127 steps of its scale): the attacker is
    /// granted the scales.
    pub limit: Vec<f32>,
    /// Products per output value.
    pub fan_in: usize,
}

/// Smallest probability of which a logarithm is taken.
const SMALLEST: f32 = 1e-30;

/// Logarithms of probabilities less their mean: logits up to what no softmax tells.
fn centred(logs: Vec<f32>) -> Vec<f32> {
    let mean = logs.iter().sum::<f32>() / logs.len().max(1) as f32;
    logs.into_iter().map(|l| l - mean).collect()
}

/// The quantised network under attack.
#[derive(Debug, Clone)]
pub struct Victim {
    model: QuantModel,
    layers: Vec<Layer>,
}

impl Victim {
    /// Of a quantised network.
    ///
    /// # Errors
    /// [`AuditError::Model`] never in practice.
    pub fn new(model: QuantModel) -> Result<Self, AuditError> {
        let bound = model.config().weight_bound() as f32;
        let layer = |(node, linear): (usize, jali_model::Linear<'_>)| {
            let quant = model.layer(node)?;
            let (s, fan_in) = (&quant.scaling, linear.fan_in());
            let scales: Vec<f32> = s.scales.iter().map(|v| (v / f64::from(s.input_scale)) as f32).collect();
            let weights = quant.weights.iter().enumerate().map(|(i, &w)| w as f32 * scales[i / fan_in]).collect();
            let bias = s.bias.iter().zip(&s.scales).map(|(&b, v)| (b as f64 * v) as f32).collect();
            Ok(Layer { weights, bias, limit: scales.iter().map(|v| v * bound).collect(), fan_in })
        };
        let layers = model.graph().linear_nodes().map(layer).collect::<Result<_, AuditError>>()?;
        Ok(Self { model, layers })
    }

    /// Architecture.
    pub fn graph(&self) -> &Graph {
        self.model.graph()
    }

    /// The network itself.
    pub fn model(&self) -> &QuantModel {
        &self.model
    }

    /// Its linear layers, in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Answers of the victim: logits for every image.
    ///
    /// # Errors
    /// [`AuditError::Model`] for images of another shape.
    pub fn answer(&self, images: &[Tensor]) -> Result<Vec<Vec<f32>>, AuditError> {
        self.answer_behind(IMAGE, images)
    }

    /// Answers of what lies behind a value: logits for every tensor in that value's place.
    ///
    /// # Errors
    /// [`AuditError::Model`] for tensors of another shape, or if something behind the value needs
    /// more than it.
    pub fn answer_behind(&self, value: ValueId, tensors: &[Tensor]) -> Result<Vec<Vec<f32>>, AuditError> {
        let logits: fn(Vec<f32>) -> Vec<f32> = match self.last_softmax() {
            Some(true) => centred,
            Some(false) => |p| centred(p.into_iter().map(|p| p.max(SMALLEST).ln()).collect()),
            None => |logits| logits,
        };
        let run = |tensor: &Tensor| Ok(logits(integer::run_behind(&self.model, value, tensor.clone())?.output.data));
        tensors.par_iter().map(run).collect()
    }

    /// Whether the network ends in a softmax, and if so whether in one with a logarithm. It has no
    /// weight and hides nothing but a sum: attackers work with what is in front of it.
    fn last_softmax(&self) -> Option<bool> {
        let graph = self.graph();
        let last = graph.nodes()[..graph.output()].last()?;
        if let Op::Softmax { log, .. } = last.op { Some(log) } else { None }
    }

    /// The value of the logits: the network's output, or what a last softmax is computed of.
    pub fn logits(&self) -> ValueId {
        self.graph().output() - usize::from(self.last_softmax().is_some())
    }

    /// For every layer, 1 where the plan hides a weight and 0 where it may be open.
    pub fn hidden(&self, plan: &Plan) -> Vec<Vec<f32>> {
        let layer = |(l, layer): (usize, &Layer)| {
            let mut hidden = vec![1.0; layer.weights.len()];
            plan.open_ranges(l).iter().for_each(|&[start, end]| hidden[start..end].fill(0.0));
            hidden
        };
        self.layers.iter().enumerate().map(layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jali::Network;

    #[test]
    fn a_last_softmax_hides_nothing_but_a_sum() {
        let plain = Network::Mnist.graph().unwrap();
        let images = Network::Mnist.dataset().bundled_calibration().unwrap();
        let victim = |graph: Graph| {
            Victim::new(QuantModel::calibrate(graph, Default::default(), &images, Some((0.0, 1.0))).unwrap()).unwrap()
        };
        let wanted = victim(plain.clone());
        for log in [false, true] {
            let mut graph = plain.clone();
            graph.push("softmax".into(), Op::Softmax { axis: 0, log }, vec![plain.output()]).unwrap();
            let got = victim(graph);
            assert_eq!((got.logits(), wanted.logits()), (plain.output(), plain.output()));
            for (got, wanted) in got.answer(&images[..5]).unwrap().into_iter().zip(wanted.answer(&images[..5]).unwrap())
            {
                let largest = wanted.iter().fold(0f32, |m, w| m.max(w.abs()));
                let close = |(g, w): (&f32, f32)| (g - w).abs() < 1e-2 * largest;
                assert!(got.iter().zip(centred(wanted)).all(close), "{got:?}");
            }
        }
    }
}
