//! How sensitive the victim is to each weight: `mean over images of (w * dL/dw)^2`, the first-order
//! Taylor criterion with the empirical Fisher (Molchanov et al. 2019), the loss being that of the
//! victim's own label.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use jali_model::Tensor as Image;

use crate::AuditError;
use crate::network::{Layer, forward, images as batch, vector};
use crate::train::argmax;
use crate::victim::Victim;

/// Images that it is averaged over.
pub const IMAGES: usize = 100;

/// A score for every weight of every linear layer.
///
/// # Errors
/// [`AuditError::Model`] for images of another shape.
pub fn scores(victim: &Victim, images: &[Image], device: &Device) -> Result<Vec<Vec<f32>>, AuditError> {
    let answers = victim.answer(images)?;
    let mut sums: Vec<Tensor<1>> = victim.layers().iter().map(|l| vector(&l.weights, device).zeros_like()).collect();
    for (image, answer) in images.iter().zip(&answers) {
        let layers: Vec<Layer> = victim
            .layers()
            .iter()
            .map(|l| {
                Layer::plain(vector(&l.weights, device).autodiff().require_grad(), vector(&l.bias, device).autodiff())
            })
            .collect();
        let logits = forward(victim.graph(), &layers, batch(victim.graph(), image.data.clone(), device).autodiff());
        let class = argmax(answer);
        // The label by chance agrees with the victim's float copy nearly always; where it does not,
        // its loss is large, as it should be.
        let loss = log_softmax(logits, 1).slice([0..1, class..class + 1]).sum().neg();
        let mut gradients = loss.backward();
        for (sum, layer) in sums.iter_mut().zip(&layers) {
            if let Some(g) = layer.weight.grad_remove(&mut gradients) {
                let product = g * layer.weight.clone().inner();
                *sum = sum.clone() + product.clone() * product;
            }
        }
    }
    let count = images.len().max(1) as f32;
    let values = |t: Tensor<1>| (t / count).into_data().convert::<f32>().try_to_vec().unwrap_or_default();
    Ok(sums.into_iter().map(values).collect())
}
