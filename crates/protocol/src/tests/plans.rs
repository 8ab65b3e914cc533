//! What a plan allows, and what choices depend on.

use super::*;

#[test]
fn only_what_the_plan_allows_is_open() {
    let model = quantised(4, (8, 8));
    let rows = Blueprint::rows_of_all(&model, &Costs::default()).unwrap();
    for leak in [0.0, 0.2, 0.5, 0.9, 1.0] {
        let plan = random_rows(model.graph(), &rows, leak, 7).unwrap();
        let sealed = seal(&model, &plan, &Costs::default(), 1).unwrap();
        let server = server(&sealed);
        let open: usize = sealed.report.iter().map(|l| l.weights - l.weights_hidden).sum();
        let allowed = (plan.fraction_permitted() * model.graph().weights() as f64).round() as usize;
        // This policy opens whole rows of the hidden layout, so sealing can use all that it allows.
        assert_eq!(open, allowed, "leak {leak}");
        for (layer, (report, operator)) in sealed.report.iter().zip(server.model().operators()).enumerate() {
            let may = rows[layer].iter().filter(|r| plan.may_open(layer, (*r).clone())).count();
            assert!(report.weights_allowed_but_hidden == 0);
            if plan.may_open_layer(layer) {
                assert_eq!((operator.hidden_rows(), report.weights_hidden), (0, 0));
            } else {
                assert_eq!(operator.rows() - operator.hidden_rows(), may, "leak {leak}, layer {layer}");
            }
        }
    }
    // A permission for part of a row opens nothing and is counted.
    let mut partial = vec![vec![]; rows.len()];
    partial[2].push(0..99);
    let plan = random_rows(model.graph(), &partial, 0.04, 1).unwrap();
    let sealed = seal(&model, &plan, &Costs::default(), 1).unwrap();
    assert_eq!(sealed.report[2].weights_allowed_but_hidden, 99);
    assert!(sealed.report.iter().all(|l| l.weights_hidden == l.weights));
}

#[test]
fn open_rows_of_partly_open_layers_take_one_prime() {
    // Wide enough to have many rows.
    let mut g = Graph::new(vec![3, 10, 9]).unwrap();
    let a = g.push("a".into(), conv(64, 3, [3, 3], [1, 1, 1, 1], 5), vec![0]).unwrap();
    let r = g.push("r".into(), Op::RELU, vec![a]).unwrap();
    g.push("b".into(), conv(24, 64, [3, 3], [1, 1, 1, 1], 6), vec![r]).unwrap();
    let model = QuantModel::calibrate(g, QuantConfig::default(), &[image(1), image(2)], None).unwrap();
    let (hidden, partly) = (sealed(&model, 0.0, 1), sealed(&model, 0.8, 1));
    let short = |s: &Sealed| s.report.iter().map(|l| l.short_rows).sum::<usize>();
    assert!(short(&hidden) == 0 && short(&partly) > 0);
    for layer in partly.report.iter().filter(|l| l.short_rows > 0) {
        assert!(layer.short_rows < layer.rows && layer.primes_bits.len() > 1, "{layer:?}");
        // A prime for the open rows, and room in it for their noise as in all primes for that of
        // hidden ones.
        assert!(layer.noise.log2_failure < -64.0 && layer.noise.bound_bits < layer.noise.available_bits, "{layer:?}");
    }
    // Fewer residues come back.
    let down = |sealed: &Sealed| {
        let (server, mut bytes) = (server(sealed), 0);
        let (output, trace) = run(&sealed.client, &server, image(7), &mut |_, answer| bytes += answer.len()).unwrap();
        let reference = integer::run(&model, image(7)).unwrap();
        assert!(trace == reference.accumulators && output == reference.output);
        // One residue of any row, wrong by one.
        for at in [17, bytes / 5, bytes / 3] {
            let flip = &mut |_, answer: &mut Vec<u8>| {
                let at = at % answer.len();
                answer[at] ^= 1;
            };
            let lie = run(&sealed.client, &server, image(7), flip);
            assert!(lie.is_err(), "byte {at}");
        }
        bytes
    };
    assert!(down(&partly) < down(&hidden));
}

/// The same network with all weights and biases zero.
fn zeroed(graph: &Graph) -> Graph {
    let mut g = Graph::new(graph.input_shape().to_vec()).unwrap();
    for node in graph.nodes() {
        let op = match node.op.clone() {
            Op::Conv(c) => Op::Conv(Conv { weight: vec![0.0; c.weight.len()], bias: vec![0.0; c.bias.len()], ..c }),
            Op::Gemm(f) => Op::Gemm(Gemm { weight: vec![0.0; f.weight.len()], bias: vec![0.0; f.bias.len()], ..f }),
            other => other,
        };
        g.push(node.name.clone(), op, node.inputs.clone()).unwrap();
    }
    g
}

#[test]
fn choices_do_not_depend_on_weights() {
    let (graph, costs) = (network(1), Costs::default());
    let rows = Blueprint::rows_of_all(&quantised(1, (8, 8)), &costs).unwrap();
    // Everything hidden, and some rows open.
    for leak in [0.0, 0.6] {
        let plan = random_rows(&graph, &rows, leak, 1).unwrap();
        let quantised = |graph: Graph| {
            QuantModel::calibrate(graph, QuantConfig::default(), std::slice::from_ref(&image(1)), None).unwrap()
        };
        let choices = |model: &QuantModel| {
            let planned = crate::owner::build::PlannedOperator::all(model, &plan, &costs).unwrap().into_iter();
            let shown = planned.map(|o| {
                (o.node, o.blueprint.parameters.literal().clone(), o.blueprint.layout.clone(), o.open.clone())
            });
            shown.collect::<Vec<_>>()
        };
        let (one, other) = (quantised(graph.clone()), quantised(zeroed(&graph)));
        assert_eq!(choices(&one), choices(&other));
        let length = |model: &QuantModel| {
            let sealed = seal(model, &plan, &costs, 1).unwrap();
            let bundle = Bundle::open(std::io::Cursor::new(&sealed.server), Kind::Server).unwrap();
            let hidden = sealed.report.iter().enumerate().filter(|(_, o)| o.weights_hidden == o.weights);
            let hidden: Vec<String> = hidden.map(|(operator, _)| format!("rows {operator} ")).collect();
            let own = bundle.sections().iter().filter(|s| hidden.iter().any(|h| s.name.starts_with(h)));
            own.map(|s| s.len).sum::<u64>()
        };
        let hidden = length(&one);
        assert!(leak > 0.0 || hidden > 100_000);
        assert_eq!(hidden, length(&other), "the length of hidden operators tells nothing about their weights");
    }
}

#[test]
fn layers_that_cannot_be_sealed_are_named() {
    let mut g = Graph::new(vec![1, 1, 40_000]).unwrap();
    g.push("wide".into(), conv(1, 1, [1, 3], [0; 4], 1), vec![0]).unwrap();
    let x = Tensor::new("x", vec![1, 1, 40_000], numbers(1, 40_000)).unwrap();
    let model = QuantModel::calibrate(g, QuantConfig::default(), &[x], None).unwrap();
    let plan = Plan::hide_all(model.graph());
    let error = seal(&model, &plan, &Costs::default(), 1).unwrap_err().to_string();
    assert!(error.contains("\"wide\"") && error.contains("coefficients"), "{error}");
    let foreign = Plan::hide_all(&network(1));
    assert!(seal(&model, &foreign, &Costs::default(), 1).is_err());
}
