//! Reads classes from a network's output, which depends on the graph's last operation.

use jali_model::{Activation, Arithmetic, Graph, Op, Tensor};

/// How the first output of a network is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// One score for each class, largest best; a single one is positive for class 1.
    Scores,
    /// One probability for each class, already; a single one is that of class 1.
    Probabilities,
    /// The logarithm of a probability for each class; a single one is that of class 1.
    Logarithms,
    /// The class itself.
    Class,
    /// Several positions (a map, boxes): no single class.
    Other,
}

impl Reading {
    /// Returns how the first output of a network is read.
    pub fn of(graph: &Graph) -> Self {
        Self::of_output(graph, 0)
    }

    /// Returns which output of a network is read as classes. A single output is the one. Of several
    /// it is the one with as many classes as there are `labels`. Without labels it is the first
    /// that could be one, if all of these have equally many classes.
    pub fn output(graph: &Graph, labels: Option<usize>) -> Option<usize> {
        let count = graph.outputs().len();
        if count == 1 {
            return Some(0);
        }
        let candidates = (0..count).filter_map(|at| Some((at, Self::of_output(graph, at).classes(graph, at)?)));
        let candidates: Vec<(usize, usize)> = candidates.collect();
        if let Some(labels) = labels {
            return candidates.iter().find(|(_, classes)| *classes == labels).map(|(at, _)| *at);
        }
        let first = candidates.first()?;
        candidates.iter().all(|(_, classes)| *classes == first.1).then_some(first.0)
    }

    /// Returns how output number `at` of a network is read.
    pub fn of_output(graph: &Graph, at: usize) -> Self {
        let Some(&output) = graph.outputs().get(at) else { return Self::Other };
        let mut value = output;
        // Extents of this output that are not 1: classes have at most one.
        let extents = graph.shape(output).iter().filter(|&&d| d > 1).count();
        let op = loop {
            match value.checked_sub(1).and_then(|node| graph.nodes().get(node)) {
                Some(n) if matches!(n.op, Op::Reshape(_) | Op::Flatten | Op::Transpose(_)) => value = n.inputs[0],
                Some(n) => break Some(&n.op),
                None => break None,
            }
        };
        match op {
            Some(Op::ArgMax { .. }) if extents == 0 => Self::Class,
            Some(Op::ArgMax { .. }) => Self::Other,
            _ if extents > 1 => Self::Other,
            Some(Op::Softmax { log: true, .. }) => Self::Logarithms,
            Some(
                Op::Softmax { log: false, .. } | Op::Activation(Activation::Sigmoid | Activation::HardSigmoid { .. }),
            ) => Self::Probabilities,
            Some(op) if !gives_scores(op) => Self::Other,
            _ => Self::Scores,
        }
    }

    /// Returns a probability for each class, or `None` where the output has none. Scores become
    /// probabilities by softmax, a single score by the logistic function.
    pub fn probabilities(self, output: &Tensor) -> Option<Vec<f32>> {
        let two = |p: f32| vec![1.0 - p, p];
        match (self, &output.data[..]) {
            (Self::Class | Self::Other, _) | (_, []) => None,
            (Self::Scores, &[score]) => Some(two(1.0 / (1.0 + (-score).exp()))),
            (Self::Probabilities, &[p]) => Some(two(p)),
            (Self::Logarithms, &[l]) => Some(two(l.exp())),
            (Self::Scores, _) => Some(output.softmax()),
            (Self::Probabilities, p) => Some(p.to_vec()),
            (Self::Logarithms, l) => Some(l.iter().map(|l| l.exp()).collect()),
        }
    }

    /// Returns the class that an output names, if it names one.
    pub fn class(self, output: &Tensor) -> Option<usize> {
        match (self, &output.data[..]) {
            (Self::Other, _) | (_, []) => None,
            (Self::Class, &[class, ..]) => Some(class.max(0.0) as usize),
            (Self::Scores, &[score]) => Some(usize::from(score > 0.0)),
            (Self::Probabilities, &[p]) => Some(usize::from(p > 0.5)),
            (Self::Logarithms, &[l]) => Some(usize::from(l.exp() > 0.5)),
            _ => Some(output.argmax()),
        }
    }

    /// Returns the number of classes of output number `output`, where that is known.
    pub fn classes(self, graph: &Graph, output: usize) -> Option<usize> {
        match (self, graph.shape(*graph.outputs().get(output)?).iter().product()) {
            (Self::Class | Self::Other, _) => None,
            (_, 1) => Some(2),
            (_, n) => Some(n),
        }
    }
}

/// Returns whether a list that comes from this operation may be scores of classes. Values that were
/// joined, cut out, or normalised to a length are boxes, coordinates or an embedding.
fn gives_scores(op: &Op) -> bool {
    use Activation as A;
    match op {
        Op::Activation(a) => {
            matches!(
                a,
                A::Relu | A::Clip { .. } | A::LeakyRelu { .. } | A::Elu { .. } | A::Gelu | A::GeluTanh | A::HardSwish
            )
        }
        Op::Arithmetic(Arithmetic::Div) | Op::Concat(_) | Op::Select(_) | Op::Resample(_) | Op::Choose(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_with(shape: &[usize], ops: Vec<Op>) -> Reading {
        let mut graph = Graph::new(shape.to_vec()).unwrap();
        let mut value = 0;
        for op in ops {
            value = graph.push("n".into(), op, vec![value]).unwrap();
        }
        Reading::of(&graph)
    }

    fn tensor(data: &[f32]) -> Tensor {
        Tensor::new("t", vec![data.len()], data.to_vec()).unwrap()
    }

    #[test]
    fn the_last_operator_tells_how_an_output_is_read() {
        let softmax = |log| Op::Softmax { axis: 0, log };
        assert_eq!(ends_with(&[10], vec![Op::RELU]), Reading::Scores);
        assert_eq!(ends_with(&[10], vec![softmax(false)]), Reading::Probabilities);
        assert_eq!(ends_with(&[10, 1, 1], vec![softmax(false), Op::Flatten]), Reading::Probabilities);
        assert_eq!(ends_with(&[10], vec![softmax(true)]), Reading::Logarithms);
        assert_eq!(ends_with(&[1], vec![Op::Activation(Activation::Sigmoid)]), Reading::Probabilities);
        let arg_max = |axis| Op::ArgMax { axis, keep: false, last: false };
        assert_eq!(ends_with(&[10], vec![arg_max(0)]), Reading::Class);
        assert_eq!(ends_with(&[10, 4, 4], vec![arg_max(0)]), Reading::Other);
        assert_eq!(ends_with(&[10, 4, 4], vec![softmax(false)]), Reading::Other);
    }

    #[test]
    fn probabilities_are_not_made_of_probabilities() {
        let p = [0.1, 0.7, 0.2];
        assert_eq!(Reading::Probabilities.probabilities(&tensor(&p)), Some(p.to_vec()));
        let logs: Vec<f32> = p.iter().map(|p: &f32| p.ln()).collect();
        let back = Reading::Logarithms.probabilities(&tensor(&logs)).unwrap();
        assert!(back.iter().zip(p).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(Reading::Scores.probabilities(&tensor(&[0.0])), Some(vec![0.5, 0.5]));
        assert_eq!(Reading::Other.probabilities(&tensor(&p)), None);
    }

    #[test]
    fn single_values_are_classes_too() {
        assert_eq!(Reading::Class.class(&tensor(&[7.0])), Some(7));
        assert_eq!(Reading::Scores.class(&tensor(&[-0.1])), Some(0));
        assert_eq!(Reading::Scores.class(&tensor(&[0.1])), Some(1));
        assert_eq!(Reading::Probabilities.class(&tensor(&[0.4])), Some(0));
        assert_eq!(Reading::Logarithms.class(&tensor(&[-0.1])), Some(1));
        assert_eq!(Reading::Scores.class(&tensor(&[1.0, 3.0, 2.0])), Some(1));
        assert_eq!(Reading::Other.class(&tensor(&[1.0, 3.0])), None);
    }
}
