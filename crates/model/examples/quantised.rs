//! Prints, for networks that read noise, the cosine between the integers' outputs and the floats'
//! on six images: `cargo run --release -p jali-model --example quantised -- NET.onnx ...`.
#![allow(clippy::print_stdout)]

use jali_model::{ModelError, QuantConfig, QuantModel, Tensor, float, integer, onnx};

fn noise(shape: &[usize], seed: u64) -> Result<Tensor, ModelError> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    Tensor::new("noise", shape.to_vec(), (0..shape.iter().product()).map(|_| 2.0 * next() - 1.0).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let graph = onnx::import(&std::fs::read(&path)?)?;
        let shape = graph.input_shape().to_vec();
        let images: Vec<Tensor> = (1..9).map(|seed| noise(&shape, seed)).collect::<Result<_, _>>()?;
        let model = QuantModel::calibrate(graph, QuantConfig::default(), &images, None)?;
        let mut cosines = vec![];
        for seed in 77..83 {
            let x = noise(&shape, seed)?;
            let (float, trace) = (float::run(model.graph(), x.clone())?, integer::run(&model, x)?);
            cosines.push(cosine(&float.data, &trace.output.data));
        }
        println!("{path}: cosines {cosines:.3?}");
    }
    Ok(())
}
