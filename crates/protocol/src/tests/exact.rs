//! Whole networks through encoded messages equal the integer reference.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn encrypted_equals_plaintext_on_every_layer(
        seed in 0u64..1 << 40, leak in prop::sample::select(vec![0.0, 0.3, 0.8, 1.0]),
        w in 2u32..=8, a in 2u32..=12, entropy: u8, images in 2u64..6,
    ) {
        let model = quantised(seed, (w, a));
        let sealed = sealed(&model, leak, entropy);
        let server = server(&sealed);
        let batch: Vec<Tensor> = (0..images).map(|i| image(seed + 20 + i)).collect();
        let results = run_batch(&sealed.client, &server, batch.clone(), &mut |_, _| {}).unwrap();
        for (x, (output, trace)) in batch.into_iter().zip(results) {
            let reference = integer::run(&model, x).unwrap();
            prop_assert_eq!(trace, reference.accumulators);
            prop_assert_eq!(output, reference.output);
        }
        for i in 0..2 {
            // Also an image beyond what calibration saw: saturation must agree as well.
            let mut x = image(seed + 10 + i);
            x.data.iter_mut().for_each(|v| *v *= 1.0 + 2.0 * i as f32);
            let (output, trace) = run(&sealed.client, &server, x.clone(), &mut |_, _| {}).unwrap();
            let reference = integer::run(&model, x).unwrap();
            prop_assert_eq!(trace, reference.accumulators);
            prop_assert_eq!(output, reference.output);
        }
    }

    #[test]
    fn arbitrary_messages_never_panic(noise in prop::collection::vec(any::<u8>(), 0..300), at: usize, value: u8, cut: usize) {
        let model = quantised(1, (8, 8));
        let sealed = sealed(&model, 1.0, 1);
        let server = server(&sealed);
        prop_assert!(decode_refusal(&server.handle(&noise)).is_some());
        let mut inference = Inference::new(&sealed.client, vec![image(1)], RequestContext { counter: 0, image: 0 }).unwrap();
        let Action::Send { mut request, .. } = inference.next(RequestEntropy::from_os().unwrap()).unwrap() else { panic!() };
        let answer = server.handle(&request);
        let at_request = at % request.len();
        request[at_request] = value;
        let _ = server.handle(&request);
        request.truncate(cut % request.len());
        prop_assert!(decode_refusal(&server.handle(&request)).is_some());
        let mut answer = answer;
        let at = at % answer.len();
        prop_assume!(answer[at] != value);
        answer[at] = value;
        let rejected = inference.receive(&answer);
        prop_assert!(matches!(rejected, Err(ProtocolError::Rejected { .. })), "any changed byte of an answer is noticed");
    }
}

/// A strided stem on a plane that most rings need in strips, then, for each choice, a residual
/// block with a strided shortcut, depthwise and dilated convolutions, activations with negative
/// values, two branches that join, and two outputs.
fn wide_network(
    seed: u64,
    (height, width): (usize, usize),
    groups: usize,
    dilation: usize,
    stride: [usize; 2],
) -> Graph {
    let mut g = Graph::new(vec![3, height, width]).unwrap();
    let conv = |filters: usize, channels: usize, k: usize, stride, dilation: usize, groups, n: u64| {
        let count = filters * channels * k * k;
        let (weight, bias) = (numbers(seed + n, count), numbers(seed + n + 1, filters));
        let padding = [k / 2 * dilation; 4];
        let (kernel, dilation) = ([k; 2], [dilation; 2]);
        Op::Conv(Conv { weight, bias, filters, channels, kernel, stride, padding, dilation, groups })
    };
    let stem = g.push("stem".into(), conv(6, 3, 5, stride, 1, 1, 1), vec![0]).unwrap();
    let act = g.push("act".into(), Op::Activation(Activation::HardSwish), vec![stem]).unwrap();
    let depthwise = g.push("depthwise".into(), conv(6, 1, 3, [2, 2], 1, 6, 3), vec![act]).unwrap();
    let shortcut = g.push("shortcut".into(), conv(6, 6, 1, [2, 2], 1, 1, 5), vec![act]).unwrap();
    let sum = g.push("sum".into(), Op::ADD, vec![depthwise, shortcut]).unwrap();
    let leaky = g.push("leaky".into(), Op::Activation(Activation::LeakyRelu { alpha: 0.1 }), vec![sum]).unwrap();
    let dilated = g.push("dilated".into(), conv(6, 6 / groups, 3, [1, 1], dilation, groups, 7), vec![leaky]).unwrap();
    let both = g.push("both".into(), Op::Concat(0), vec![leaky, dilated]).unwrap();
    let mean = g
        .push(
            "mean".into(),
            Op::Reduce { kind: jali_model::ReduceKind::Mean, axes: vec![1, 2], keep: false },
            vec![both],
        )
        .unwrap();
    let gemm = |inputs, outputs, n| {
        Op::Gemm(Gemm {
            weight: numbers(seed + n, inputs * outputs),
            bias: numbers(seed + n + 1, outputs),
            inputs,
            outputs,
        })
    };
    g.push("classes".into(), gemm(12, 5, 9), vec![mean]).unwrap();
    g
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn networks_of_every_form_are_exact(
        seed in 0u64..1 << 40, size in (20usize..90, 20usize..60), groups in prop::sample::select(vec![1usize, 2, 3, 6]),
        dilation in 1usize..4, stride in [1usize..4, 1usize..4], leak in prop::sample::select(vec![0.0, 0.5, 1.0]),
    ) {
        let graph = wide_network(seed, size, groups, dilation, stride);
        let shape = vec![3, size.0, size.1];
        let image = |n: u64| Tensor::new("x", shape.clone(), numbers(seed + n, 3 * size.0 * size.1)).unwrap();
        let model = QuantModel::calibrate(graph, QuantConfig::default(), &[image(20), image(21)], None).unwrap();
        let sealed = sealed(&model, leak, 1);
        let server = server(&sealed);
        // Through its own bundle.
        let client = restored(&sealed.client.write(vec![]).unwrap().0, &server).unwrap();
        let images = vec![image(22), image(23), image(24)];
        let entropy = || RequestEntropy::from_os().unwrap();
        let context = RequestContext { counter: 0, image: 0 };
        let mut inference = Inference::new(&client, images.clone(), context).unwrap().keep_trace();
        let outputs = loop {
            match inference.next(entropy()).unwrap() {
                Action::Send { request, .. } => inference.receive(&server.handle(&request)).unwrap(),
                Action::Done(outputs) => break outputs,
            }
        };
        let traces = inference.into_trace().unwrap();
        for ((x, output), trace) in images.into_iter().zip(outputs).zip(traces) {
            let reference = integer::run(&model, x).unwrap();
            prop_assert_eq!(&output[0], &reference.output);
            prop_assert_eq!(trace, reference.accumulators);
        }
    }
}

/// Otherwise the test above is about less than it says.
#[test]
fn large_planes_are_cut_into_strips_and_groups_become_blocks() {
    let graph = wide_network(1, (100, 90), 3, 2, [1, 1]);
    let image = Tensor::new("x", vec![3, 100, 90], numbers(2, 27_000)).unwrap();
    let model = QuantModel::calibrate(graph, QuantConfig::default(), &[image], None).unwrap();
    let report = sealed(&model, 0.0, 1).report;
    let of = |name: &str| report.iter().find(|l| l.name == name).unwrap();
    assert!(of("stem").strips > 1 && of("depthwise").blocks > 1 && of("dilated").blocks == 3, "{report:?}");
}

#[test]
fn a_finished_or_waiting_inference_says_so() {
    let sealed = sealed(&quantised(3, (8, 8)), 1.0, 3);
    let mut inference =
        Inference::new(&sealed.client, vec![image(1)], RequestContext { counter: 0, image: 0 }).unwrap();
    assert!(matches!(inference.receive(&[]), Err(ProtocolError::Order { .. })));
    inference.next(RequestEntropy::from_os().unwrap()).unwrap();
    assert!(matches!(inference.next(RequestEntropy::from_os().unwrap()), Err(ProtocolError::Order { .. })));
    // After a rejected answer nothing follows, not even the same request again.
    assert!(matches!(inference.receive(&[]), Err(ProtocolError::Rejected { .. })));
    assert!(matches!(inference.next(RequestEntropy::from_os().unwrap()), Err(ProtocolError::Order { .. })));
    assert!(matches!(inference.again(RequestEntropy::from_os().unwrap()), Err(ProtocolError::Order { .. })));
}

#[test]
fn a_lost_request_is_masked_anew() {
    let model = quantised(4, (8, 8));
    let sealed = sealed(&model, 0.3, 3);
    let server = server(&sealed);
    let entropy = || RequestEntropy::from_os().unwrap();
    let context = RequestContext { counter: 0, image: 0 };
    let mut inference = Inference::new(&sealed.client, vec![image(1), image(2)], context).unwrap();
    assert!(inference.again(entropy()).is_err(), "nothing is outstanding");
    let outputs = loop {
        let Action::Send { request: lost, .. } = (match inference.next(entropy()).unwrap() {
            Action::Done(outputs) => break outputs,
            send => send,
        }) else {
            unreachable!()
        };
        let Action::Send { request, .. } = inference.again(entropy()).unwrap() else { panic!() };
        assert!(lost.len() == request.len() && lost != request);
        // The old answer belongs to a secret that is gone.
        let answer = server.handle(&request);
        inference.receive(&answer).unwrap();
    };
    for (i, output) in outputs.into_iter().enumerate() {
        assert_eq!(output[0], integer::run(&model, image(1 + i as u64)).unwrap().output);
    }
}
