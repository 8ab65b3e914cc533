//! Everything that can go wrong in this crate.

/// Errors of reading, checking, quantising and running a network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The bytes are not an ONNX model.
    #[error("not a readable ONNX model: {0}")]
    Onnx(String),
    /// Nodes that this version does not support, all of them.
    #[error("{} not supported:\n{}", count(offences.len()), list(offences))]
    Unsupported {
        /// Node by node.
        offences: Vec<Offence>,
    },
    /// A node that does not fit.
    #[error("node \"{name}\" ({op}): {reason}")]
    Node {
        /// Name of the node (its first output, if it has no name).
        name: String,
        /// ONNX operator.
        op: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Shapes do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// Which value.
        what: String,
        /// What is needed.
        expected: String,
        /// What was found.
        got: String,
    },
    /// An option outside its range.
    #[error("{what} must be {min} to {max}, got {got}")]
    Range {
        /// Which option.
        what: &'static str,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
        /// What was given.
        got: u32,
    },
    /// Input or weights hold NaN or infinity.
    #[error("{what} holds a value that is not a finite number (index {index})")]
    NotFinite {
        /// Which tensor.
        what: String,
        /// Position of the first such value.
        index: usize,
    },
    /// Numbers of the preprocessing that make no sense for the network.
    #[error("preprocessing: {field} {why}")]
    Preprocess {
        /// Field, as in `preprocess.json`.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Bytes that are not the outline of a network.
    #[error("not the outline of a network: {0}")]
    Outline(String),
    /// Calibration had nothing to work on.
    #[error("calibration needs at least one image")]
    NoCalibration,
}

/// One node of a file that cannot be run, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Offence {
    /// Name of the node (its first output, if it has no name).
    pub node: String,
    /// ONNX operator.
    pub operator: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

fn count(n: usize) -> String {
    if n == 1 { "1 node is".into() } else { format!("{n} nodes are") }
}

/// Lists every reason once, with the number of nodes that share it; only the first 20 reasons, so
/// that a message stays readable.
fn list(offences: &[Offence]) -> String {
    const SHOWN: usize = 20;
    let mut kinds: Vec<(&Offence, usize)> = vec![];
    for o in offences {
        let same = |(k, _): &&mut (&Offence, usize)| {
            (&k.operator, &k.reason, &k.remedy) == (&o.operator, &o.reason, &o.remedy)
        };
        match kinds.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => kinds.push((o, 1)),
        }
    }
    let line = |(o, count): &(&Offence, usize)| {
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        format!("  node \"{}\"{more} ({}): {}; {}", o.node, o.operator, o.reason, o.remedy)
    };
    let mut lines: Vec<String> = kinds.iter().take(SHOWN).map(line).collect();
    if kinds.len() > SHOWN {
        lines.push(format!("  and {} more kinds", kinds.len() - SHOWN));
    }
    lines.join("\n")
}

impl ModelError {
    /// Makes the error of a node that was taken for a linear one.
    pub(crate) fn not_linear(node: usize) -> Self {
        Self::Node { name: format!("#{node}"), op: "?".into(), reason: "is not a linear layer".into() }
    }
}
