//! The file: its inputs and outputs, nodes in order, and a list of everything that is not supported.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use prost::Message;

use super::constant::{Attributes, Constant, External, ReadExternal, Values, fold, kind};
use super::{guard, proto};
use crate::error::Offence;
use crate::graph::{Graph, MAX_OUTPUTS, ValueId};
use crate::op::Op;
use crate::tensor::elements;
use crate::{ModelError, infer};

/// Versions of ONNX's operator set whose operators are read as they are meant.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;
/// Most bytes that the model may name in other files.
const MAX_EXTERNAL: usize = 1 << 32;
/// Numbers that constants computed from constants may have together: so many, and so many for every byte of the model
/// (weights that are transposed, cast and reshaped count each time).
const FOLDED: (usize, usize) = (1 << 20, 8);

/// A network with what there is to say about its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The network.
    pub graph: Graph,
    /// Name of its input.
    pub input: String,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Version of the operator set.
    pub opset: i64,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Reads an ONNX model from bytes; all its data must be in them.
///
/// # Errors
/// As [`import_with`].
pub fn import(bytes: &[u8]) -> Result<Graph, ModelError> {
    let mut none = |_: &super::External| Err("this file cannot be read from here".to_string());
    Ok(import_with(bytes, &mut none)?.graph)
}

/// Reads an ONNX model; `external` reads data that the model keeps in other files.
///
/// # Errors
/// [`ModelError::Onnx`] if the bytes are no ONNX model, [`ModelError::Unsupported`] naming all nodes that cannot be run,
/// [`ModelError::Shape`] for an input that is no image.
pub fn import_with(bytes: &[u8], external: ReadExternal<'_>) -> Result<Imported, ModelError> {
    let imported = import_any(bytes, external)?;
    if imported.graph.linear_nodes().next().is_none() {
        return Err(offence(
            imported.outputs.join(", "),
            "Output",
            Refusal {
                reason: "there is no convolution and no fully connected layer with constant weights before it".into(),
                remedy: "there is nothing to outsource in such a model: run it where the images are".into(),
            },
        ));
    }
    Ok(imported)
}

/// As [`import_with`], also without a linear layer.
pub(super) fn import_any(bytes: &[u8], external: ReadExternal<'_>) -> Result<Imported, ModelError> {
    let bad = |what: String| ModelError::Onnx(what);
    guard::check(bytes)?;
    let mut model = proto::Model::decode(bytes)
        .map_err(|e| bad(format!("{e}; the file is damaged or cut off: export or download it again")))?;
    if let Some(graph) = &mut model.graph {
        make_printable(graph);
    }
    let official = |domain: &str| matches!(domain, "" | "ai.onnx");
    let Some(opset) = model.opset_import.iter().find(|o| official(&o.domain)).map(|o| o.version) else {
        return Err(bad("it names no operator set; is this an ONNX file?".into()));
    };
    let mut warnings = vec![];
    if opset < *OPSETS.start() {
        return Err(bad(format!(
            "its operator set {opset} is too old: convert it to {OPSETS:?} (onnx.version_converter)"
        )));
    }
    if !OPSETS.contains(&opset) {
        warnings.push(format!(
            "operator set {opset} is newer than those known here ({OPSETS:?}); compare results with your framework's"
        ));
    }
    let file = model.graph.ok_or_else(|| bad("it has no graph".into()))?;
    let held = Cell::new(bytes.len());
    let mut counted = |data: &External| {
        held.set(held.get().saturating_add(data.length));
        match held.get() {
            0..=MAX_EXTERNAL => external(data),
            _ => Err(format!("the model names more than {MAX_EXTERNAL} bytes of other files")),
        }
    };
    let external: ReadExternal<'_> = &mut counted;
    let mut constants = HashMap::new();
    for tensor in &file.initializer {
        constants.insert(tensor.name.clone(), Rc::new(Constant::read(tensor, external)?));
    }
    let inputs: Vec<_> = file.input.iter().filter(|v| !constants.contains_key(&v.name)).collect();
    let [input] = inputs[..] else {
        let names: Vec<&str> = inputs.iter().map(|v| v.name.as_str()).collect();
        return Err(offence(
            names.join(", "),
            "Input",
            Refusal {
                reason: format!("the model has {} inputs, exactly one is supported", inputs.len()),
                remedy: "export it with one image as its only input, and everything else as constants".into(),
            },
        ));
    };
    if file.output.is_empty() || file.output.len() > MAX_OUTPUTS {
        return Err(bad(format!("it has {} outputs, 1 to {MAX_OUTPUTS} are supported", file.output.len())));
    }
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for name in file.node.iter().flat_map(|n| &n.input).chain(file.output.iter().map(|o| &o.name)) {
        *uses.entry(name).or_default() += 1;
    }
    let graph = Graph::new(image_shape(input)?)?;
    warnings.extend(of_input(input));
    let values = HashMap::from([(input.name.clone(), 0)]);
    let mut importer = Importer {
        graph,
        opset,
        values,
        constants,
        uses,
        shared: HashSet::new(),
        unknown: HashSet::new(),
        offences: vec![],
        folded: 0,
        held: &held,
        external,
    };
    for node in &file.node {
        importer.node(node)?;
    }
    let Importer { mut graph, values, unknown, offences, .. } = importer;
    if !offences.is_empty() {
        return Err(ModelError::Unsupported { offences });
    }
    let value = |name: &String| match values.get(name) {
        Some(&value) => Ok(value),
        None if unknown.contains(name) => Err(bad(format!("its output \"{name}\" is one that is not supported"))),
        None => Err(bad(format!("nothing computes its output \"{name}\" from the input"))),
    };
    let outputs: Vec<String> = file.output.iter().map(|o| o.name.clone()).collect();
    let ids = outputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    graph.set_outputs(ids);
    Ok(Imported { graph, input: input.name.clone(), outputs, opset, warnings })
}

/// A single thing in the way.
fn offence(node: String, operator: &str, Refusal { reason, remedy }: Refusal) -> ModelError {
    ModelError::Unsupported { offences: vec![Offence { node, operator: operator.into(), reason, remedy }] }
}

/// Longest name that is shown as it is.
const LONGEST_NAME: usize = 200;

/// Names are shown: control characters in them could forge lines of what we print. Names of nodes are cut, too; others say what
/// belongs together and keep their length.
fn make_printable(graph: &mut proto::Graph) {
    let clean = |name: &mut String| {
        if name.contains(char::is_control) {
            *name = name.replace(char::is_control, "\u{fffd}");
        }
    };
    for node in &mut graph.node {
        for name in [&mut node.name, &mut node.op_type, &mut node.domain] {
            clean(name);
            if name.chars().count() > LONGEST_NAME {
                *name = name.chars().take(LONGEST_NAME).chain(['\u{2026}']).collect();
            }
        }
        node.input.iter_mut().chain(&mut node.output).for_each(clean);
    }
    graph.initializer.iter_mut().for_each(|t| clean(&mut t.name));
    graph.input.iter_mut().chain(&mut graph.output).for_each(|v| clean(&mut v.name));
}

/// What there is to say about the input's type and batch.
fn of_input(input: &proto::ValueInfo) -> Vec<String> {
    let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else { return vec![] };
    let mut warnings = vec![];
    let name = &input.name;
    if !matches!(tensor.elem_type, 0 | kind::FLOAT | kind::FLOAT16 | kind::BFLOAT16 | kind::DOUBLE) {
        warnings.push(format!(
            "its input \"{name}\" is of an integer type: such networks mostly take pixels as they are (--input-scale 1)"
        ));
    }
    let batch = tensor.shape.as_ref().and_then(|s| s.dim.first()).and_then(|d| d.dim_value);
    if let Some(n) = batch.filter(|&n| n > 1) {
        warnings.push(format!("its input \"{name}\" is a batch of {n} images: here every image is run alone"));
    }
    warnings
}

/// Shape of the image without the batch dimension.
fn image_shape(input: &proto::ValueInfo) -> Result<Vec<usize>, ModelError> {
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims: Vec<Option<i64>> = shape.map(|s| s.dim.iter().map(|d| d.dim_value).collect()).unwrap_or_default();
    let fixed = dims.iter().skip(1).map(|d| d.and_then(|d| usize::try_from(d).ok()).filter(|&d| d > 0));
    match fixed.collect::<Option<Vec<_>>>() {
        Some(rest) if matches!(rest.len(), 1..=3) => Ok(rest),
        _ => Err(ModelError::Shape {
            what: format!("input \"{}\"", input.name),
            expected: "[batch, channels, height, width], [batch, channels, length] or [batch, features] with fixed sizes \
                       behind the batch (export with a fixed image size, or fix it: onnxruntime.tools.make_dynamic_shape_fixed)"
                .into(),
            got: format!("{dims:?}"),
        }),
    }
}

pub(super) struct Importer<'a, 'e> {
    pub(super) graph: Graph,
    pub(super) opset: i64,
    values: HashMap<String, ValueId>,
    constants: HashMap<String, Rc<Constant>>,
    /// How often each name is read.
    uses: HashMap<&'a str, usize>,
    /// Values with several names, or read through several.
    shared: HashSet<ValueId>,
    /// Values that nodes would compute that are not supported.
    unknown: HashSet<String>,
    offences: Vec<Offence>,
    /// Numbers in constants that were computed here.
    folded: usize,
    /// Bytes of the model, other files included.
    held: &'a Cell<usize>,
    external: ReadExternal<'e>,
}

/// Shape and values of a float constant.
type Weights = (Vec<usize>, Vec<f32>);

/// What an input of a node is.
pub(super) enum Operand {
    Value(ValueId),
    Constant(Rc<Constant>),
}

/// What becomes of a node.
pub(super) enum Outcome {
    /// Its first output; the others are not there.
    Value(ValueId),
    /// One for every output.
    Values(Vec<ValueId>),
    Constant(Constant),
}

/// Why a node cannot be run, and what to do.
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) remedy: String,
}

const EXPORT: &str = "change the network or how it is exported; docs/bring-your-model.md lists what is supported";

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, remedy: EXPORT.into() }
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        reason.to_string().into()
    }
}

impl From<ModelError> for Refusal {
    fn from(e: ModelError) -> Self {
        match e {
            ModelError::Node { reason, .. } => reason.into(),
            other => other.to_string().into(),
        }
    }
}

/// Why an operator is not there, and what to do, for those that people are likely to bring.
pub(super) fn unknown_operator(r: &Reading<'_>) -> Refusal {
    let refusal = |reason: &str, remedy: &str| Refusal { reason: reason.into(), remedy: remedy.into() };
    if !matches!(r.node.domain.as_str(), "" | "ai.onnx") {
        let reason = format!("belongs to the operator set \"{}\", not to ONNX itself", r.node.domain);
        return refusal(&reason, "export without fused or custom operators, and inline functions (onnx.inliner)");
    }
    match r.node.op_type.as_str() {
        "QLinearConv"
        | "QLinearMatMul"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "ConvInteger"
        | "MatMulInteger"
        | "DynamicQuantizeLinear" => refusal("is quantised already", "give the float model: jali quantises it itself"),
        "ConvTranspose" => refusal("is not lowered", "use Resize (nearest) and a convolution instead"),
        "LSTM" | "GRU" | "RNN" | "Loop" | "Scan" | "If" => {
            refusal("has a state or a branch that depends on data", "recurrent networks are not supported; unroll it")
        }
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" | "LpNormalization" => {
            refusal("normalises with statistics of the image", "train with batch normalisation, which is folded")
        }
        _ => refusal("is not supported", EXPORT),
    }
}

/// A node with its attributes at hand.
pub(super) struct Reading<'a> {
    pub(super) node: &'a proto::Node,
    pub(super) name: String,
}

impl Reading<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.attribute(name).map_or(default.into(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }

    pub(super) fn list(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    /// The name of the `i`-th input; `None` for one that is left out.
    pub(super) fn input(&self, i: usize) -> Option<&str> {
        self.node.input.get(i).map(String::as_str).filter(|n| !n.is_empty())
    }
}

impl<'a> Importer<'a, '_> {
    fn node(&mut self, node: &'a proto::Node) -> Result<(), ModelError> {
        let Some(first) = node.output.iter().find(|o| !o.is_empty()) else {
            return Err(ModelError::Onnx(format!("a {} node has no output", node.op_type)));
        };
        let r = Reading { node, name: if node.name.is_empty() { first.clone() } else { node.name.clone() } };
        let official = matches!(node.domain.as_str(), "" | "ai.onnx");
        let known = official && (super::nodes::OPERATORS.contains(&node.op_type.as_str()));
        let waits = node.input.iter().any(|i| self.unknown.contains(i));
        let outcome = match known {
            false => Err(unknown_operator(&r)),
            true if waits => {
                self.forget(node);
                return Ok(());
            }
            true => self.outcome(&r),
        };
        match outcome {
            Ok(Outcome::Constant(c)) => {
                self.constants.insert(first.clone(), Rc::new(c));
            }
            Ok(Outcome::Value(v)) => {
                if r.input(0).is_some_and(|i| self.values.get(i) == Some(&v) && self.uses.get(i) != Some(&1)) {
                    self.shared.insert(v);
                }
                self.values.insert(first.clone(), v);
                self.unknown.extend(node.output.iter().filter(|o| *o != first).cloned());
            }
            Ok(Outcome::Values(values)) => self.values.extend(node.output.iter().cloned().zip(values)),
            Err(Refusal { reason, remedy }) => {
                self.offences.push(Offence { node: r.name, operator: node.op_type.clone(), reason, remedy });
                self.forget(node);
            }
        }
        Ok(())
    }

    fn forget(&mut self, node: &proto::Node) {
        self.unknown.extend(node.output.iter().cloned());
    }

    fn outcome(&mut self, r: &Reading<'_>) -> Result<Outcome, Refusal> {
        match r.node.op_type.as_str() {
            "Constant" => return self.constant(r).map(Outcome::Constant),
            // With the batch dimension that a single image has.
            "Shape" => {
                let dims: Vec<i64> = match self.operand(r, 0)? {
                    Operand::Constant(c) => c.dims.iter().map(|&d| d as i64).collect(),
                    Operand::Value(v) => [1].into_iter().chain(self.graph.shape(v).iter().map(|&d| d as i64)).collect(),
                };
                let bound = |name, default| {
                    let v = r.int(name, default);
                    (if v < 0 { v.saturating_add(dims.len() as i64) } else { v }).clamp(0, dims.len() as i64) as usize
                };
                let (start, end) = (bound("start", 0), bound("end", i64::MAX));
                return Ok(Outcome::Constant(Constant::ints(dims.get(start..end).unwrap_or_default().to_vec())));
            }
            // Like a value that is computed: a float.
            "CastLike" if self.constant_input(r, 0).is_some() && self.constant_input(r, 1).is_none() => {
                let c = self.constant_input(r, 0).ok_or("has no input")?;
                let floats = c.floats().ok_or("is of a type that is not read")?;
                return Ok(Outcome::Constant(Constant { dims: c.dims.clone(), values: Values::Float(floats) }));
            }
            "Identity" | "Dropout" if self.constant_input(r, 0).is_some() => {
                let c = self.constant_input(r, 0).ok_or("has no input")?;
                return Ok(Outcome::Constant(Constant::clone(&c)));
            }
            _ => {}
        }
        if let Some(folded) = self.fold(r) {
            let constant = folded?;
            self.folded = self.folded.saturating_add(constant.len());
            if self.folded > self.foldable() {
                return Err("makes the constants of the file too large".into());
            }
            return Ok(Outcome::Constant(constant));
        }
        self.compute(r)
    }

    /// A constant, if all inputs are and the operator is one that is computed here.
    fn fold(&self, r: &Reading<'_>) -> Option<Result<Constant, Refusal>> {
        let names = r.node.input.iter().filter(|n| !n.is_empty());
        let mut inputs: Vec<Rc<Constant>> = names.map(|n| self.constants.get(n).cloned()).collect::<Option<_>>()?;
        if r.node.op_type == "ConstantOfShape" {
            return Some(self.filled(r, inputs.first()?));
        }
        if r.node.op_type == "Slice" && inputs.len() == 1 {
            // Bounds were attributes before operator set 10.
            let bounds = ["starts", "ends", "axes"].into_iter().map_while(|name| r.list(name));
            inputs.extend(bounds.map(|list| Rc::new(Constant::ints(list.to_vec()))));
        }
        let inputs: Vec<&Constant> = inputs.iter().map(|c| &**c).collect();
        let attributes = Attributes {
            axis: r.attribute("axis").map(|a| a.i),
            axes: r.list("axes").or(r.list("shape")),
            order: r.list("perm"),
            to: r.int("to", 0) as i32,
        };
        fold(&r.node.op_type, &inputs, &attributes).map(|c| c.map_err(Refusal::from))
    }

    fn foldable(&self) -> usize {
        self.held.get().saturating_mul(FOLDED.1).saturating_add(FOLDED.0)
    }

    /// The same value everywhere.
    fn filled(&self, r: &Reading<'_>, shape: &Constant) -> Result<Constant, Refusal> {
        let dims = shape.as_ints().ok_or("has a shape that is no list of integers")?;
        let dims = dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| "has a negative extent")?;
        let n = elements(&dims).filter(|&n| n <= self.foldable()).ok_or("is too large")?;
        let one = match r.attribute("value").and_then(|a| a.t.as_ref()) {
            // Nothing of what a file beside the model holds is a single number.
            Some(t) => Constant::read(t, &mut |_| Err("its value lies in another file".into()))?.values,
            None => Values::Float(vec![0.0]),
        };
        let values = match one {
            Values::Float(v) => Values::Float(vec![*v.first().ok_or("has no value")?; n]),
            Values::Int(v) => Values::Int(vec![*v.first().ok_or("has no value")?; n]),
            Values::Unread(_) => return Err("has a value of a type that is not read".into()),
        };
        Ok(Constant { dims, values })
    }

    fn constant(&mut self, r: &Reading<'_>) -> Result<Constant, Refusal> {
        let scalar = |values| Constant { dims: vec![], values };
        for a in &r.node.attribute {
            return Ok(match a.name.as_str() {
                "value" => {
                    let t = a.t.as_ref().ok_or("has an attribute \"value\" without a tensor")?;
                    Constant::read(t, self.external)?
                }
                "value_float" => scalar(Values::Float(vec![a.f])),
                "value_int" => scalar(Values::Int(vec![a.i])),
                "value_floats" => Constant { dims: vec![a.floats.len()], values: Values::Float(a.floats.clone()) },
                "value_ints" => Constant::ints(a.ints.clone()),
                _ => continue,
            });
        }
        Err("has no value that is a tensor or a number".into())
    }

    /// What the `i`-th input is.
    pub(super) fn operand(&self, r: &Reading<'_>, i: usize) -> Result<Operand, Refusal> {
        let name = r.input(i).ok_or_else(|| format!("has no input {i}"))?;
        if let Some(c) = self.constants.get(name) {
            return Ok(Operand::Constant(c.clone()));
        }
        let value = self.values.get(name).copied();
        value.map(Operand::Value).ok_or_else(|| format!("its input \"{name}\" is computed by no earlier node").into())
    }

    /// The computed value behind the `i`-th input.
    pub(super) fn value(&self, r: &Reading<'_>, i: usize) -> Result<ValueId, Refusal> {
        match self.operand(r, i)? {
            Operand::Value(v) => Ok(v),
            Operand::Constant(_) => Err(format!("its input {i} is a constant; it must be computed").into()),
        }
    }

    /// The constant behind the `i`-th input, if there is one.
    pub(super) fn constant_input(&self, r: &Reading<'_>, i: usize) -> Option<Rc<Constant>> {
        self.constants.get(r.input(i)?).cloned()
    }

    /// Integers from the `i`-th input; `None` if it is left out.
    pub(super) fn ints(&self, r: &Reading<'_>, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        let Some(name) = r.input(i) else { return Ok(None) };
        let c = self.constants.get(name).ok_or_else(|| format!("its input \"{name}\" must be a constant"))?;
        let ints = c.as_ints().ok_or_else(|| format!("its input \"{name}\" must hold integers"))?;
        Ok(Some(ints.to_vec()))
    }

    /// Integers from an attribute or, in newer operator sets, an input.
    pub(super) fn list(&self, r: &Reading<'_>, attribute: &str, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        match r.list(attribute) {
            Some(list) => Ok(Some(list.to_vec())),
            None => self.ints(r, i),
        }
    }

    /// Shape and floats of the constant behind the `i`-th input; `None` if it is left out.
    pub(super) fn weights(&self, r: &Reading<'_>, i: usize) -> Result<Option<Weights>, Refusal> {
        let Some(name) = r.input(i) else { return Ok(None) };
        let c = self.constants.get(name).ok_or_else(|| Refusal {
            reason: format!("its input \"{name}\" must be a constant"),
            remedy: "weights that are computed at run time cannot be sealed".into(),
        })?;
        let floats = c.floats().ok_or_else(|| format!("constant \"{name}\" is of a type that is not read"))?;
        if let Some(index) = floats.iter().position(|v| !v.is_finite()) {
            return Err(format!("constant \"{name}\" holds a value that is not a finite number (index {index})").into());
        }
        Ok(Some((c.dims.clone(), floats)))
    }

    /// Whether nothing else reads the computed input of this node, so that the node in front may be changed in its place.
    pub(super) fn single_use(&self, r: &Reading<'_>) -> bool {
        let computed = r.node.input.iter().filter_map(|n| Some((n.as_str(), *self.values.get(n)?)));
        let mut uses =
            computed.map(|(n, v)| self.uses.get(n).copied().unwrap_or(0) + usize::from(self.shared.contains(&v)));
        uses.next() == Some(1) && uses.next().is_none()
    }

    /// Appends a node.
    pub(super) fn push(&mut self, r: &Reading<'_>, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, Refusal> {
        Ok(self.graph.push(r.name.clone(), op, inputs)?)
    }

    /// Appends a node that only changes the shape, unless it is there already.
    pub(super) fn shaped(&mut self, r: &Reading<'_>, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Refusal> {
        if self.graph.shape(x) == shape {
            return Ok(x);
        }
        let op = if shape.len() == 1 { Op::Flatten } else { Op::Reshape(shape) };
        Ok(self.graph.push(format!("{}/shape", r.name), op, vec![x])?)
    }

    /// An axis of a value, which the file counts with the batch dimension.
    pub(super) fn axis(&self, x: ValueId, axis: i64) -> Result<usize, Refusal> {
        let axis = super::constant::axis_of(axis, self.graph.shape(x).len() + 1)?;
        axis.checked_sub(1).ok_or_else(|| Refusal {
            reason: "works along the batch dimension".into(),
            remedy: "the network must treat every image alone".into(),
        })
    }

    /// A constant's shape without a batch dimension, for a value of this shape.
    pub(super) fn without_batch(&self, dims: &[usize], x: ValueId) -> Result<Vec<usize>, Refusal> {
        let rank = self.graph.shape(x).len();
        let own = match dims.len().checked_sub(rank) {
            None | Some(0) => dims,
            Some(1) if dims[0] == 1 => &dims[1..],
            _ => return Err(format!("its constant of shape {dims:?} has more dimensions than its input").into()),
        };
        infer::broadcast(self.graph.shape(x), own)?;
        Ok(own.to_vec())
    }
}
