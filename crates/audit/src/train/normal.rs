//! Batch normalisation behind every layer but the last while a copy is trained (Ioffe and Szegedy
//! 2015), folded into weights and biases whenever the copy is looked at.

use burn::tensor::Tensor;
use jali_model::Graph;

use crate::network::{EPSILON, Layer, finish, forward_with, moments, per_output, vector};

/// Most spreads that a unit's mean may lie away from where it switches, if weights of it are
/// missing: what is missing would have spread it, so units that seem to be always on or off are
/// not.
const REACH: f32 = 1.0;

/// Returns layers that normalise and, where rows are open, compute on `images` what `layers` do.
/// Rows of which most is hidden get the factor and the bias that are usual among the open ones.
/// `hidden` is 1 where a weight is hidden.
pub(super) fn insert(graph: &Graph, layers: &[Layer], hidden: &[Vec<f32>], images: Tensor<4>) -> Vec<Layer> {
    let mut made = vec![];
    forward_with(graph, layers, images, &mut |index, layer, sums| {
        let layer = match index + 1 < layers.len() {
            true => begin(layer, &hidden[index], &sums),
            false => layer.clone(),
        };
        made.push(layer.clone());
        finish(&layer, sums)
    });
    made
}

/// One layer of [`insert`]; `sums` are what its weights give.
fn begin(layer: &Layer, hidden: &[f32], sums: &Tensor<4>) -> Layer {
    let (mean, variance) = moments(sums.clone());
    let list = |t: Tensor<4>| t.into_data().convert::<f32>().try_to_vec::<f32>().unwrap_or_default();
    let device = layer.bias.device();
    let mut biases = list(mean + per_output(&layer.bias));
    let mut gains = list(variance.add_scalar(EPSILON).sqrt());
    let shares: Vec<f32> = hidden
        .chunks_exact((hidden.len() / biases.len().max(1)).max(1))
        .map(|row| row.iter().sum::<f32>() / row.len() as f32)
        .collect();
    let usual = |values: &[f32], otherwise| {
        let known = values.iter().zip(&shares).filter(|(_, share)| **share <= 0.5);
        median(known.map(|(v, _)| *v).collect()).unwrap_or(otherwise)
    };
    let (usual_gain, usual_bias) = (usual(&gains, 1.0), usual(&biases, 0.0));
    for ((gain, bias), share) in gains.iter_mut().zip(&mut biases).zip(&shares) {
        if *share > 0.5 {
            (*gain, *bias) = (usual_gain, usual_bias);
        } else if *share > 0.0 {
            *gain = gain.max(bias.abs() / REACH);
        }
    }
    let (gain, bias) = (vector(&gains, &device), vector(&biases, &device));
    Layer { weight: layer.weight.clone(), bias, gain: Some(gain), normal: true }
}

fn median(mut values: Vec<f32>) -> Option<f32> {
    values.sort_by(f32::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Returns layers without normalisation that compute on `images` what `layers` do.
pub(super) fn fold(graph: &Graph, layers: &[Layer], images: Tensor<4>) -> Vec<Layer> {
    let mut seen = vec![];
    forward_with(graph, layers, images, &mut |_, layer, sums| {
        seen.push(layer.normal.then(|| moments(sums.clone())));
        finish(layer, sums)
    });
    layers.iter().zip(seen).map(|(layer, seen)| seen.map_or_else(|| layer.clone(), |m| folded(layer, m))).collect()
}

fn folded(layer: &Layer, (mean, variance): (Tensor<4>, Tensor<4>)) -> Layer {
    let rows = layer.bias.dims()[0];
    let spread = variance.add_scalar(EPSILON).sqrt().reshape([rows]);
    let factor = layer.gain.clone().unwrap_or_else(|| layer.bias.ones_like()) / spread;
    let weight = layer.weight.clone().reshape([rows as i32, -1]) * factor.clone().reshape([rows, 1]);
    let bias = layer.bias.clone() - mean.reshape([rows]) * factor;
    Layer::plain(weight.reshape([-1]), bias)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::Device;
    use jali_model::{Conv, Gemm, Op};

    use super::*;
    use crate::network;

    fn numbers(count: usize, from: usize) -> Vec<f32> {
        (from..from + count).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect()
    }

    fn small() -> (Graph, Vec<Layer>, Tensor<4>) {
        let mut g = Graph::new(vec![2, 6, 6]).unwrap();
        let conv = Conv {
            weight: numbers(3 * 2 * 9, 0),
            bias: numbers(3, 70),
            filters: 3,
            channels: 2,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1; 4],
            dilation: [1, 1],
            groups: 1,
        };
        let conv = g.push("conv".into(), Op::Conv(conv), vec![0]).unwrap();
        let relu = g.push("relu".into(), Op::RELU, vec![conv]).unwrap();
        let flat = g.push("flat".into(), Op::Flatten, vec![relu]).unwrap();
        let gemm = |inputs, outputs, from| {
            let (weight, bias) = (numbers(inputs * outputs, from), numbers(outputs, from + 5));
            Op::Gemm(Gemm { weight, bias, inputs, outputs })
        };
        let middle = g.push("middle".into(), gemm(3 * 36, 4, 11), vec![flat]).unwrap();
        let relu = g.push("relu 2".into(), Op::RELU, vec![middle]).unwrap();
        g.push("last".into(), gemm(4, 5, 23), vec![relu]).unwrap();
        let device = Device::flex();
        let layer = |(_, l): (usize, jali_model::Linear<'_>)| {
            Layer::plain(vector(l.weights(), &device), vector(l.bias(), &device))
        };
        let layers = g.linear_nodes().map(layer).collect();
        let images = network::images(&g, numbers(7 * 72, 3), &device);
        (g, layers, images)
    }

    fn outputs(graph: &Graph, layers: &[Layer], images: &Tensor<4>) -> Vec<f32> {
        network::forward(graph, layers, images.clone()).into_data().try_to_vec().unwrap()
    }

    fn near(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + b.abs()))
    }

    fn hidden(layers: &[Layer], is_hidden: impl Fn(usize, usize) -> bool) -> Vec<Vec<f32>> {
        let layer = |(l, layer): (usize, &Layer)| {
            (0..layer.weight.dims()[0]).map(|i| if is_hidden(l, i) { 1.0 } else { 0.0 }).collect()
        };
        layers.iter().enumerate().map(layer).collect()
    }

    #[test]
    fn what_is_open_computes_as_before() {
        let (g, layers, images) = small();
        let open = hidden(&layers, |_, _| false);
        let with = insert(&g, &layers, &open, images.clone());
        assert_eq!(with.iter().map(|l| l.normal).collect::<Vec<_>>(), [true, true, false]);
        assert!(near(&outputs(&g, &with, &images), &outputs(&g, &layers, &images)));
        let without = fold(&g, &with, images.clone());
        assert!(without.iter().all(|l| !l.normal && l.gain.is_none()));
        assert!(near(&outputs(&g, &without, &images), &outputs(&g, &layers, &images)));
    }

    /// The first filter's weights are so negative that it is always off.
    #[test]
    fn rows_that_look_dead_for_want_of_weights_live() {
        let (g, mut layers, images) = small();
        layers[0].bias = vector(&[-40.0, 0.1, 0.2], &Device::flex());
        let half = hidden(&layers, |l, i| l == 0 && i < 9);
        let list = |t: &Tensor<1>| t.clone().into_data().try_to_vec::<f32>().unwrap();
        let of_first = |hidden: &[Vec<f32>]| {
            let with = insert(&g, &layers, hidden, images.clone());
            (list(with[0].gain.as_ref().unwrap()), list(&with[0].bias))
        };
        let (gain, bias) = of_first(&half);
        assert!(bias[0] < -30.0 && gain[0] >= -bias[0] && gain[1] < 2.0, "{gain:?} {bias:?}");
        // All of it hidden: as the open ones are.
        let (gain, bias) = of_first(&hidden(&layers, |l, i| l == 0 && i < 18));
        assert!(gain[0] < 2.0 && bias[0].abs() < 1.0, "{gain:?} {bias:?}");
    }

    #[test]
    fn folding_changes_nothing() {
        let (g, layers, images) = small();
        let mut with = insert(&g, &layers, &hidden(&layers, |_, _| true), images.clone());
        with[0].gain = Some(vector(&[0.3, 2.0, -1.0], &Device::flex()));
        with[1].bias = vector(&[0.5, -0.5, 1.0, 0.0], &Device::flex());
        assert!(near(&outputs(&g, &fold(&g, &with, images.clone()), &images), &outputs(&g, &with, &images)));
    }
}
