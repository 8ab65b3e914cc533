//! Noise of a real network against its bound.

use super::*;

/// The rigorous bound against noise measured on the shipped network: it holds, and is not loose by
/// more than 6 bits.
#[test]
fn noise_of_real_layers_is_under_the_bound_and_near_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../jali/bundled/vgg3.onnx");
    let graph = jali_model::onnx::import(&std::fs::read(path).unwrap()).unwrap();
    let data = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../jali/bundled/cifar10-test-1000.bin")).unwrap();
    let pixels = data[1..3073].iter().map(|&v| f32::from(v) / 255.0).collect();
    let x = Tensor::new("image", vec![3, 32, 32], pixels).unwrap();
    let model =
        QuantModel::calibrate(graph, QuantConfig::default(), std::slice::from_ref(&x), Some((0.0, 1.0))).unwrap();
    for plan in [Plan::hide_all(model.graph()), Plan::open_all(model.graph())] {
        let sealed = seal(&model, &plan, &Costs::default(), 5).unwrap();
        let server = server(&sealed);
        let mut layer = 0;
        let output = jali_model::execution::run(model.graph(), x.clone(), |node, x| {
            let (quant, client) = (model.layer(node)?, &sealed.client.operators()[layer]);
            let (mut values, mut measured) = (vec![], 0f64);
            for tiles in client.layout.pack(&quant.scaling.quantise(&x.data)) {
                let context = RequestContext { counter: 0, image: values.len() as u64 };
                let (masked, pending) = client.key.mask(&tiles, RequestEntropy::fixed([7; 32]), context).unwrap();
                let answer = server.model().operators()[layer].apply(&[masked]).unwrap().remove(0);
                let (sums, bits) = pending.finish_measuring_noise(Some(answer)).unwrap();
                values.push(sums);
                measured = measured.max(bits);
            }
            let report = client.key.noise();
            let name = &model.graph().nodes()[node].name;
            println!(
                "{name}: measured {measured:.1}, bound {:.1} of {:.1} bits",
                report.bound_bits, report.available_bits
            );
            assert!(
                measured <= report.bound_bits && report.bound_bits <= measured + 6.0,
                "{name}: {measured} {report:?}"
            );
            assert!(report.bound_bits <= report.available_bits, "{name}: {report:?}");
            layer += 1;
            Ok(quant.scaling.dequantise(&client.layout.unpack(&values)))
        });
        assert_eq!(output.unwrap()[0], integer::run(&model, x.clone()).unwrap().output);
    }
}
