//! Nodes of an ONNX file to nodes of ours.

use std::collections::HashMap;

use prost::Message;

use super::proto;
use crate::ModelError;
use crate::graph::{Conv, Gemm, Graph, Op, Pool, ValueId};
use crate::tensor::elements;

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const EXTERNAL: i32 = 1;

/// A constant of the file.
struct Constant {
    dims: Vec<usize>,
    floats: Vec<f32>,
    ints: Vec<i64>,
}

/// Reads an ONNX model from bytes.
///
/// # Errors
/// [`ModelError::Onnx`] if the bytes are no ONNX model, [`ModelError::Node`] naming the node that is not supported.
pub fn import(bytes: &[u8]) -> Result<Graph, ModelError> {
    let bad = |what: &str| ModelError::Onnx(what.into());
    let model = proto::Model::decode(bytes).map_err(|e| ModelError::Onnx(e.to_string()))?;
    if model.opset_import.is_empty() {
        return Err(bad("it names no operator set; is this an ONNX file?"));
    }
    let file = model.graph.ok_or_else(|| bad("it has no graph"))?;
    let mut constants = HashMap::new();
    for tensor in &file.initializer {
        constants.insert(tensor.name.clone(), constant(tensor)?);
    }
    let inputs: Vec<_> = file.input.iter().filter(|v| !constants.contains_key(&v.name)).collect();
    let [input] = inputs[..] else {
        return Err(ModelError::Onnx(format!("it has {} inputs, exactly one is supported", inputs.len())));
    };
    let [output] = &file.output[..] else {
        return Err(ModelError::Onnx(format!("it has {} outputs, exactly one is supported", file.output.len())));
    };
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for name in file.node.iter().flat_map(|n| &n.input).chain([&output.name]) {
        *uses.entry(name).or_default() += 1;
    }
    let mut graph = Graph::new(image_shape(input)?)?;
    let mut importer = Importer { values: HashMap::from([(input.name.clone(), 0)]), constants, uses };
    for node in &file.node {
        importer.node(&mut graph, node)?;
    }
    let value = importer.values.get(&output.name);
    graph.set_output(
        *value.ok_or_else(|| ModelError::Onnx(format!("nothing computes its output \"{}\"", output.name)))?,
    );
    if graph.linear_nodes().next().is_none() {
        return Err(bad("it has no convolution and no fully connected layer: there is nothing to outsource"));
    }
    Ok(graph)
}

/// Shape of the image without the batch dimension.
fn image_shape(input: &proto::ValueInfo) -> Result<Vec<usize>, ModelError> {
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims: Vec<Option<i64>> = shape.map(|s| s.dim.iter().map(|d| d.dim_value).collect()).unwrap_or_default();
    let fixed = dims.iter().skip(1).map(|d| d.and_then(|d| usize::try_from(d).ok()).filter(|&d| d > 0));
    match fixed.collect::<Option<Vec<_>>>() {
        Some(rest) if matches!(rest.len(), 1 | 3) => Ok(rest),
        _ => Err(ModelError::Shape {
            what: format!("input \"{}\"", input.name),
            expected: "[batch, channels, height, width] or [batch, features] with fixed sizes behind the batch".into(),
            got: format!("{dims:?}"),
        }),
    }
}

fn constant(t: &proto::TensorData) -> Result<Constant, ModelError> {
    let bad = |what: &str| ModelError::Onnx(format!("constant \"{}\": {what}", t.name));
    if t.data_location == EXTERNAL {
        return Err(bad("its data lies in another file, which is not supported yet; save the model as one file"));
    }
    let dims: Option<Vec<usize>> = t.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let dims = dims.ok_or_else(|| bad("a dimension is negative"))?;
    let count = elements(&dims).ok_or_else(|| bad("it is too large"))?;
    let (mut floats, mut ints) = (t.float_data.clone(), t.int64_data.clone());
    match t.data_type {
        FLOAT if !t.raw_data.is_empty() => {
            floats = t.raw_data.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        }
        INT64 if !t.raw_data.is_empty() => {
            ints = t.raw_data.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
        }
        FLOAT | INT64 => {}
        // Types that no supported operator reads stay empty and are reported where one needs them.
        _ => return Ok(Constant { dims, floats: vec![], ints: vec![] }),
    }
    let held = if t.data_type == FLOAT { floats.len() } else { ints.len() };
    if held != count {
        return Err(bad(&format!("its shape {dims:?} needs {count} values, the file holds {held}")));
    }
    Ok(Constant { dims, floats, ints })
}

/// Shape and values of a float constant.
type Weights<'a> = (&'a [usize], &'a [f32]);

struct Importer<'a> {
    values: HashMap<String, ValueId>,
    constants: HashMap<String, Constant>,
    uses: HashMap<&'a str, usize>,
}

/// A node with its attributes at hand.
struct Reading<'a> {
    node: &'a proto::Node,
    name: String,
}

impl Reading<'_> {
    fn fail(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Node { name: self.name.clone(), op: self.node.op_type.clone(), reason: reason.into() }
    }

    fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    /// A list of exactly `L` numbers that are not negative.
    fn sizes<const L: usize>(&self, name: &str, default: [usize; L]) -> Result<[usize; L], ModelError> {
        let Some(a) = self.attribute(name) else { return Ok(default) };
        let sizes: Option<Vec<usize>> = a.ints.iter().map(|&v| usize::try_from(v).ok()).collect();
        sizes
            .and_then(|v| v.try_into().ok())
            .ok_or_else(|| self.fail(format!("attribute {name} must be {L} numbers, got {:?}", a.ints)))
    }

    /// Explicit or automatic padding: top, left, bottom, right.
    fn padding(
        &self,
        input: &[usize],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
    ) -> Result<[usize; 4], ModelError> {
        let mode = self.attribute("auto_pad").map_or(b"NOTSET".as_slice(), |a| &a.s);
        let lower = match mode {
            b"NOTSET" | b"" => return self.sizes("pads", [0; 4]),
            b"VALID" => return Ok([0; 4]),
            b"SAME_UPPER" => false,
            b"SAME_LOWER" => true,
            other => return Err(self.fail(format!("auto_pad {} is unknown", String::from_utf8_lossy(other)))),
        };
        let [_, h, w] = *input else { return Err(self.fail("needs an input [channels, height, width]")) };
        let total = |size: usize, axis: usize| {
            let reach = kernel[axis].saturating_sub(1).saturating_mul(dilation[axis]).saturating_add(1);
            (size.div_ceil(stride[axis].max(1)) - 1)
                .saturating_mul(stride[axis])
                .saturating_add(reach)
                .saturating_sub(size)
        };
        let split = |total: usize| if lower { (total.div_ceil(2), total / 2) } else { (total / 2, total.div_ceil(2)) };
        let ((top, bottom), (left, right)) = (split(total(h, 0)), split(total(w, 1)));
        Ok([top, left, bottom, right])
    }
}

impl Importer<'_> {
    fn node(&mut self, graph: &mut Graph, node: &proto::Node) -> Result<(), ModelError> {
        let [output, ..] = &node.output[..] else {
            return Err(ModelError::Onnx(format!("a {} node has no output", node.op_type)));
        };
        let name = if node.name.is_empty() { output.clone() } else { node.name.clone() };
        let r = Reading { node, name };
        let value = match node.op_type.as_str() {
            "Constant" => {
                let t = r.attribute("value").and_then(|a| a.t.as_ref());
                let t = t.ok_or_else(|| r.fail("only a tensor \"value\" is supported"))?;
                self.constants.insert(output.clone(), constant(t)?);
                return Ok(());
            }
            "Identity" | "Dropout" => self.input(&r, 0)?,
            "Relu" => graph.push(r.name.clone(), Op::Relu, vec![self.input(&r, 0)?])?,
            "Flatten" => {
                if r.int("axis", 1) != 1 {
                    return Err(r.fail("only axis 1 is supported"));
                }
                graph.push(r.name.clone(), Op::Flatten, vec![self.input(&r, 0)?])?
            }
            "Reshape" => {
                if let Some(c) = self.reshaped_constant(&r)? {
                    self.constants.insert(output.clone(), c);
                    return Ok(());
                }
                self.reshape(graph, &r)?
            }
            "Conv" => self.conv(graph, &r)?,
            "Gemm" | "MatMul" => self.gemm(graph, &r)?,
            "BatchNormalization" => self.batch_norm(graph, &r)?,
            "MaxPool" | "AveragePool" | "GlobalAveragePool" => self.pool(graph, &r)?,
            "Add" => self.add(graph, &r)?,
            _ => {
                return Err(r.fail(
                    "is not supported; supported are Conv, Gemm, MatMul, BatchNormalization, Relu, MaxPool, AveragePool, \
                     GlobalAveragePool, Flatten, Reshape to one dimension, Add, Identity, Dropout, Constant",
                ));
            }
        };
        self.values.insert(output.clone(), value);
        Ok(())
    }

    /// The value behind the `i`-th input.
    fn input(&self, r: &Reading<'_>, i: usize) -> Result<ValueId, ModelError> {
        let name = r.node.input.get(i).ok_or_else(|| r.fail(format!("input {i} is missing")))?;
        self.values.get(name).copied().ok_or_else(|| {
            let why =
                if self.constants.contains_key(name) { "is a constant" } else { "is computed by no earlier node" };
            r.fail(format!("input \"{name}\" {why}"))
        })
    }

    /// The float constant behind the `i`-th input.
    fn weights(&self, r: &Reading<'_>, i: usize) -> Result<Option<Weights<'_>>, ModelError> {
        let Some(name) = r.node.input.get(i).filter(|n| !n.is_empty()) else { return Ok(None) };
        match self.constants.get(name) {
            Some(c) if c.floats.len() == c.dims.iter().product() && !c.floats.is_empty() => {
                Ok(Some((&c.dims, &c.floats)))
            }
            Some(_) => Err(r.fail(format!("constant \"{name}\" is not float32"))),
            None => Err(
                r.fail(format!("input \"{name}\" must be a constant: weights computed at run time are not supported"))
            ),
        }
    }

    fn conv(&self, graph: &mut Graph, r: &Reading<'_>) -> Result<ValueId, ModelError> {
        let x = self.input(r, 0)?;
        let (dims, weight) = self.weights(r, 1)?.ok_or_else(|| r.fail("has no weights"))?;
        let [filters, channels, kh, kw] = *dims else {
            return Err(
                r.fail(format!("weights must have four dimensions, got {dims:?}; only 2-D convolution is supported"))
            );
        };
        let kernel = r.sizes("kernel_shape", [kh, kw])?;
        if kernel != [kh, kw] {
            return Err(r.fail(format!("kernel_shape {kernel:?} differs from its weights {dims:?}")));
        }
        let (stride, dilation) = (r.sizes("strides", [1, 1])?, r.sizes("dilations", [1, 1])?);
        let padding = r.padding(graph.shape(x), kernel, stride, dilation)?;
        let groups = usize::try_from(r.int("group", 1)).map_err(|_| r.fail("group is negative"))?;
        let bias = self.weights(r, 2)?.map_or_else(|| vec![0.0; filters], |(_, b)| b.to_vec());
        let conv = Conv { weight: weight.to_vec(), bias, filters, channels, kernel, stride, padding, dilation, groups };
        graph.push(r.name.clone(), Op::Conv(conv), vec![x])
    }

    fn gemm(&self, graph: &mut Graph, r: &Reading<'_>) -> Result<ValueId, ModelError> {
        let x = self.input(r, 0)?;
        let (dims, weight) = self.weights(r, 1)?.ok_or_else(|| r.fail("has no weights"))?;
        let [rows, cols] = *dims else { return Err(r.fail(format!("weights must be a matrix, got {dims:?}"))) };
        if r.int("transA", 0) != 0 {
            return Err(r.fail("transA is not supported"));
        }
        let (alpha, beta) = (r.float("alpha", 1.0), r.float("beta", 1.0));
        let given = r.int("transB", 0) != 0;
        let (outputs, inputs) = if given { (rows, cols) } else { (cols, rows) };
        let at = |o: usize, i: usize| if given { weight[o * cols + i] } else { weight[i * cols + o] };
        let weight = (0..outputs).flat_map(|o| (0..inputs).map(move |i| alpha * at(o, i))).collect();
        let bias = match self.weights(r, 2)? {
            None => vec![0.0; outputs],
            Some((_, [one])) => vec![beta * one; outputs],
            Some((_, b)) => b.iter().map(|b| beta * b).collect(),
        };
        graph.push(r.name.clone(), Op::Gemm(Gemm { weight, bias, inputs, outputs }), vec![x])
    }

    /// Folds into the linear node in front: `y = g*(x - mean)/sqrt(var + eps) + b` is one scale and shift per channel.
    fn batch_norm(&self, graph: &mut Graph, r: &Reading<'_>) -> Result<ValueId, ModelError> {
        let x = self.input(r, 0)?;
        let part = |i| self.weights(r, i)?.map(|w| w.1).ok_or_else(|| r.fail("a parameter is missing"));
        let (gamma, beta, mean, var) = (part(1)?, part(2)?, part(3)?, part(4)?);
        if [beta.len(), mean.len(), var.len()] != [gamma.len(); 3] {
            return Err(r.fail("its parameters differ in length"));
        }
        let eps = r.float("epsilon", 1e-5);
        let scale: Vec<f32> = gamma.iter().zip(var).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let shift: Vec<f32> = beta.iter().zip(mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        if self.single_use(r) && graph.fold_scale(x, &scale, &shift) {
            return Ok(x);
        }
        Err(r.fail("can only be folded into a Conv or Gemm in front of it whose output nothing else uses"))
    }

    fn add(&self, graph: &mut Graph, r: &Reading<'_>) -> Result<ValueId, ModelError> {
        let constant = |i: usize| r.node.input.get(i).and_then(|n| self.constants.get(n));
        let (x, addend) = match (constant(0), constant(1)) {
            (None, None) => return graph.push(r.name.clone(), Op::Add, vec![self.input(r, 0)?, self.input(r, 1)?]),
            (None, Some(c)) => (self.input(r, 0)?, c),
            (Some(c), _) => (self.input(r, 1)?, c),
        };
        if self.single_use(r) && graph.fold_bias(x, &addend.floats) {
            return Ok(x);
        }
        Err(r.fail("a constant can only be added to a Conv or Gemm as its bias, one value per channel"))
    }

    /// Whether no other node reads the computed input of this one, so that it may be changed in place.
    fn single_use(&self, r: &Reading<'_>) -> bool {
        let computed = r.node.input.iter().filter(|n| self.values.contains_key(*n));
        computed.map(|n| self.uses.get(n.as_str()).copied().unwrap_or(0)).sum::<usize>() == 1
    }

    /// A constant in another shape, if the node reshapes one (exporters of older operator sets do).
    fn reshaped_constant(&self, r: &Reading<'_>) -> Result<Option<Constant>, ModelError> {
        let constant = |i: usize| r.node.input.get(i).and_then(|n| self.constants.get(n));
        let (Some(c), Some(target)) = (constant(0), constant(1)) else { return Ok(None) };
        let dims: Option<Vec<usize>> = target.ints.iter().map(|&d| usize::try_from(d).ok()).collect();
        match dims.filter(|d| elements(d) == Some(c.floats.len())) {
            Some(dims) => Ok(Some(Constant { dims, floats: c.floats.clone(), ints: vec![] })),
            None => Err(r.fail(format!("a constant of {:?} cannot take the shape {:?}", c.dims, target.ints))),
        }
    }

    fn reshape(&self, graph: &mut Graph, r: &Reading<'_>) -> Result<ValueId, ModelError> {
        let x = self.input(r, 0)?;
        let target = match r.node.input.get(1).and_then(|n| self.constants.get(n)) {
            Some(c) => &c.ints,
            None => return Err(r.fail("its target shape must be a constant")),
        };
        let features = graph.shape(x).iter().product::<usize>() as i64;
        match target[..] {
            // [batch, features] in any of its spellings.
            [batch, f] if matches!((batch, f), (0 | 1, -1)) || matches!(batch, -1..=1) && f == features => {
                graph.push(r.name.clone(), Op::Flatten, vec![x])
            }
            _ => Err(r.fail(format!("to {target:?} is not supported, only to [batch, features]"))),
        }
    }

    fn pool(&self, graph: &mut Graph, r: &Reading<'_>) -> Result<ValueId, ModelError> {
        let x = self.input(r, 0)?;
        let shape = graph.shape(x);
        let [_, h, w] = *shape else { return Err(r.fail("needs an input [channels, height, width]")) };
        if r.node.op_type == "GlobalAveragePool" {
            let pool = Pool { kernel: [h, w], stride: [1, 1], padding: [0; 4], count_padding: false, ceil: false };
            return graph.push(r.name.clone(), Op::AveragePool(pool), vec![x]);
        }
        let kernel = r.sizes("kernel_shape", [0, 0])?;
        let stride = r.sizes("strides", [1, 1])?;
        if r.sizes("dilations", [1, 1])? != [1, 1] {
            return Err(r.fail("dilated pooling is not supported"));
        }
        if r.node.output.len() > 1 {
            return Err(r.fail("its second output (indices) is not supported"));
        }
        let pool = Pool {
            kernel,
            stride,
            padding: r.padding(shape, kernel, stride, [1, 1])?,
            count_padding: r.int("count_include_pad", 0) != 0,
            ceil: r.int("ceil_mode", 0) != 0,
        };
        let op = if r.node.op_type == "MaxPool" { Op::MaxPool(pool) } else { Op::AveragePool(pool) };
        graph.push(r.name.clone(), op, vec![x])
    }
}
