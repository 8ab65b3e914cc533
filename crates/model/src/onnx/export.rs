//! [`Graph`] to ONNX files: for programs that train or run a network elsewhere, such as attackers
//! of an audit. Any number of images may go in at once.

use prost::Message;

use super::proto;
use crate::op::{Activation, Arithmetic, Linear, Op, Pool, ReduceKind};
use crate::{Graph, ModelError};

/// The operator set that is written: old enough for every importer that people use.
const OPSET: i64 = 17;
/// The version of the file format that goes with it.
const IR_VERSION: i64 = 8;
/// `FLOAT` and `INT64` of ONNX's types of elements.
const FLOAT: i32 = 1;
const INT64: i32 = 7;
/// Name of the input and of the first output.
const INPUT: &str = "image";
const OUTPUT: &str = "logits";

/// Writes a network as an ONNX file with the input `image`, `[batch, ...]`, and the output
/// `logits`.
///
/// # Errors
/// [`ModelError::Node`] for a node that is not one of those that attackers train through.
pub fn export(graph: &Graph) -> Result<Vec<u8>, ModelError> {
    let mut file = proto::Graph { name: "jali".into(), ..Default::default() };
    for (index, node) in graph.nodes().iter().enumerate() {
        let inputs = node.inputs.iter().map(|&value| name_of(graph, value)).collect();
        let mut writer = Writer { name: format!("{}.{}", index + 1, node.name), inputs, file: &mut file };
        let (op, attributes) = writer.node(&node.op, &node.shape).ok_or_else(|| ModelError::Node {
            name: node.name.clone(),
            op: node.op.name().into(),
            reason: "it cannot be written as an ONNX file here".into(),
        })?;
        let inputs = writer.inputs;
        file.node.push(proto::Node {
            input: inputs,
            output: vec![name_of(graph, index + 1)],
            name: node.name.clone(),
            op_type: op.into(),
            attribute: attributes,
            domain: String::new(),
        });
    }
    file.input.push(value_info(INPUT, graph.input_shape()));
    file.output.push(value_info(OUTPUT, graph.shape(graph.output())));
    let opset_import = vec![proto::Opset { domain: String::new(), version: OPSET }];
    Ok(proto::Model { ir_version: IR_VERSION, graph: Some(file), opset_import }.encode_to_vec())
}

fn name_of(graph: &Graph, value: usize) -> String {
    match value {
        0 => INPUT.into(),
        value if value == graph.output() => OUTPUT.into(),
        value => format!("value.{value}"),
    }
}

fn value_info(name: &str, shape: &[usize]) -> proto::ValueInfo {
    let batch = proto::Dimension { dim_value: None, dim_param: Some("batch".into()) };
    let fixed = shape.iter().map(|&n| proto::Dimension { dim_value: Some(n as i64), dim_param: None });
    let shape = proto::Shape { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor_type = proto::TensorType { elem_type: FLOAT, shape: Some(shape) };
    proto::ValueInfo { name: name.into(), r#type: Some(proto::Type { tensor_type: Some(tensor_type) }) }
}

fn attribute(name: &str, kind: i32) -> proto::Attribute {
    proto::Attribute { name: name.into(), r#type: kind, ..Default::default() }
}

fn ints(name: &str, values: &[usize]) -> proto::Attribute {
    proto::Attribute { ints: values.iter().map(|&n| n as i64).collect(), ..attribute(name, 7) }
}

fn int(name: &str, value: i64) -> proto::Attribute {
    proto::Attribute { i: value, ..attribute(name, 2) }
}

fn float(name: &str, value: f32) -> proto::Attribute {
    proto::Attribute { f: value, ..attribute(name, 1) }
}

/// A node under way.
struct Writer<'a> {
    name: String,
    inputs: Vec<String>,
    file: &'a mut proto::Graph,
}

type Written = (&'static str, Vec<proto::Attribute>);

impl Writer<'_> {
    /// Adds a constant of floats as the next input.
    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let raw_data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, FLOAT, raw_data);
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) {
        let name = format!("{}.{name}", self.name);
        let dims = shape.iter().map(|&n| n as i64).collect();
        let raw_data = raw_data.into();
        let data = proto::TensorData { dims, data_type, name: name.clone(), raw_data, ..Default::default() };
        self.file.initializer.push(data);
        self.inputs.push(name);
    }

    /// ONNX's name of an operation and its attributes; constants become further inputs.
    fn node(&mut self, op: &Op, shape: &[usize]) -> Option<Written> {
        Some(match op {
            Op::Activation(activation) => self.activation(*activation)?,
            Op::MaxPool(pool) => ("MaxPool", window(pool)),
            Op::AveragePool(pool) if pool.dilation == [1, 1] => {
                let mut attributes = window(pool);
                attributes.retain(|a| a.name != "dilations");
                attributes.push(int("count_include_pad", pool.count_padding.into()));
                ("AveragePool", attributes)
            }
            Op::Flatten => ("Flatten", vec![int("axis", 1)]),
            Op::Reshape(_) => {
                // 0 stands for the batch as it is.
                let to: Vec<i64> = std::iter::once(0).chain(shape.iter().map(|&n| n as i64)).collect();
                self.constant("shape", &[to.len()], INT64, to.iter().flat_map(|n| n.to_le_bytes()).collect());
                ("Reshape", vec![])
            }
            Op::Arithmetic(op) => (arithmetic(*op)?, vec![]),
            Op::WithConstant { op, constant, constant_first } => {
                self.floats("constant", &constant.shape, &constant.data);
                if *constant_first {
                    self.inputs.rotate_right(1);
                }
                (arithmetic(*op)?, vec![])
            }
            Op::Concat(axis) => ("Concat", vec![int("axis", *axis as i64 + 1)]),
            Op::Softmax { axis, log } => {
                (if *log { "LogSoftmax" } else { "Softmax" }, vec![int("axis", *axis as i64 + 1)])
            }
            Op::Reduce { kind: ReduceKind::Mean, axes, keep } => {
                let axes: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
                ("ReduceMean", vec![ints("axes", &axes), int("keepdims", (*keep).into())])
            }
            _ => self.linear(op.linear()?),
        })
    }

    fn linear(&mut self, linear: Linear<'_>) -> Written {
        let outputs = linear.outputs();
        let written = match linear {
            Linear::Conv(c) => {
                self.floats("weight", &[outputs, c.channels, c.kernel[0], c.kernel[1]], &c.weight);
                let window = [("kernel_shape", &c.kernel[..]), ("strides", &c.stride), ("pads", &c.padding)];
                let mut attributes: Vec<_> = window.iter().map(|(name, values)| ints(name, values)).collect();
                attributes.extend([ints("dilations", &c.dilation), int("group", c.groups as i64)]);
                ("Conv", attributes)
            }
            Linear::Gemm(g) => {
                self.floats("weight", &[outputs, g.inputs], &g.weight);
                ("Gemm", vec![int("transB", 1)])
            }
        };
        self.floats("bias", &[outputs], linear.bias());
        written
    }

    fn activation(&mut self, activation: Activation) -> Option<Written> {
        Some(match activation {
            Activation::Relu => ("Relu", vec![]),
            Activation::Clip { low, high } => {
                self.floats("low", &[], &[low]);
                self.floats("high", &[], &[high]);
                ("Clip", vec![])
            }
            Activation::LeakyRelu { alpha } => ("LeakyRelu", vec![float("alpha", alpha)]),
            Activation::Sigmoid => ("Sigmoid", vec![]),
            Activation::HardSigmoid { alpha, beta } => {
                ("HardSigmoid", vec![float("alpha", alpha), float("beta", beta)])
            }
            Activation::HardSwish => ("HardSwish", vec![]),
            Activation::Tanh => ("Tanh", vec![]),
            Activation::Elu { alpha } => ("Elu", vec![float("alpha", alpha)]),
            _ => return None,
        })
    }
}

fn window(pool: &Pool) -> Vec<proto::Attribute> {
    vec![
        ints("kernel_shape", &pool.kernel),
        ints("strides", &pool.stride),
        ints("pads", &pool.padding),
        ints("dilations", &pool.dilation),
        int("ceil_mode", pool.ceil.into()),
    ]
}

fn arithmetic(op: Arithmetic) -> Option<&'static str> {
    Some(match op {
        Arithmetic::Add => "Add",
        Arithmetic::Sub => "Sub",
        Arithmetic::Mul => "Mul",
        Arithmetic::Div => "Div",
        Arithmetic::PRelu => "PRelu",
        _ => return None,
    })
}
