//! Imports a file: its inputs and outputs, its nodes in order, and a list of everything that is not
//! supported.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use prost::Message;

use super::constant::{Constant, External, ReadExternal, kind};
use super::importer::Importer;
use super::refusal::Refusal;
use super::{guard, proto};
use crate::ModelError;
use crate::error::Offence;
use crate::graph::{Graph, MAX_OUTPUTS};

/// Versions of ONNX's operator set whose operators are read with their right meaning.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;
/// Most bytes of other files that the model may name.
const MAX_EXTERNAL: u64 = 1 << 32;
/// A network, with facts and warnings about its file.
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
    /// Sentences that a user should read.
    pub warnings: Vec<String>,
}

/// Reads an ONNX model from bytes; all its data must be in them.
///
/// # Errors
/// [`ModelError`] as for [`import_with`].
pub fn import(bytes: &[u8]) -> Result<Graph, ModelError> {
    let mut none = |_: &super::External| Err("this file cannot be read from here".to_string());
    Ok(import_with(bytes, &mut none)?.graph)
}

/// Reads an ONNX model; `external` reads data that the model keeps in other files.
///
/// # Errors
/// [`ModelError::Onnx`] if the bytes are no ONNX model, [`ModelError::Unsupported`] naming all
/// nodes that cannot be run, [`ModelError::Shape`] for an input that is no image.
pub fn import_with(bytes: &[u8], external: ReadExternal<'_>) -> Result<Imported, ModelError> {
    import_owned(bytes.to_vec(), external)
}

/// Reads an ONNX model from bytes that it owns, and frees them as soon as all weights have been
/// read; `external` reads data that the model keeps in other files.
///
/// # Errors
/// [`ModelError`] as for [`import_with`].
pub fn import_owned(bytes: Vec<u8>, external: ReadExternal<'_>) -> Result<Imported, ModelError> {
    let imported = import_any(bytes, external)?;
    if imported.graph.linear_nodes().next().is_none() {
        return Err(offence(
            imported.outputs.join(", "),
            "Output",
            Refusal::new(
                "there is no convolution and no fully connected layer with constant weights before it",
                "there is nothing to outsource in such a model: run it where the images are",
            ),
        ));
    }
    Ok(imported)
}

/// Reads an ONNX model as [`import_owned`] does, but also one without a linear layer.
pub(super) fn import_any(bytes: Vec<u8>, external: ReadExternal<'_>) -> Result<Imported, ModelError> {
    guard::check(&bytes)?;
    let length = bytes.len();
    let mut model = proto::Model::decode(prost::bytes::Bytes::from(bytes))
        .map_err(|e| bad(format!("{e}; the file is damaged or cut off: export or download it again")))?;
    if let Some(graph) = &mut model.graph {
        make_printable(graph);
    }
    let mut warnings = vec![];
    let opset = opset_of(&model, &mut warnings)?;
    let mut file = model.graph.take().ok_or_else(|| bad("it has no graph".into()))?;
    let held = Cell::new(length);
    let mut counted = |data: &External| {
        held.set(held.get().saturating_add(data.length));
        match held.get() as u64 {
            0..=MAX_EXTERNAL => external(data),
            _ => Err(format!("the model names more than {MAX_EXTERNAL} bytes of other files")),
        }
    };
    let external: ReadExternal<'_> = &mut counted;
    let constants = constants_of(&mut file, external)?;
    drop(model);
    let file = file;
    let input = only_input(&file, &constants)?;
    if file.output.is_empty() || file.output.len() > MAX_OUTPUTS {
        return Err(bad(format!("it has {} outputs, 1 to {MAX_OUTPUTS} are supported", file.output.len())));
    }
    let mut uses: HashMap<&str, usize> = HashMap::new();
    count_uses(&file, &mut uses);
    let graph = Graph::new(image_shape(input)?)?;
    warnings.extend(of_input(input));
    assigned_once(&file, &input.name, &constants)?;
    let mut importer = Importer::new(graph, opset, &input.name, constants, uses, (&held, external));
    importer.batch = batch_of(input).unwrap_or(0);
    importer.shapes = file.value_info.iter().filter_map(|v| Some((v.name.as_str(), known_shape(v)?))).collect();
    for node in &file.node {
        importer.node(node)?;
    }
    let outputs: Vec<String> = file.output.iter().map(|o| o.name.clone()).collect();
    let graph = finished(importer, &outputs)?;
    Ok(Imported { graph, input: input.name.clone(), outputs, opset, warnings })
}

/// Makes the error of a file that is no ONNX model which we can read.
fn bad(what: String) -> ModelError {
    ModelError::Onnx(what)
}

/// Returns the operator set of a file, and warns of one that is newer than those known here.
fn opset_of(model: &proto::Model, warnings: &mut Vec<String>) -> Result<i64, ModelError> {
    let official = |domain: &str| matches!(domain, "" | "ai.onnx");
    let Some(opset) = model.opset_import.iter().find(|o| official(&o.domain)).map(|o| o.version) else {
        return Err(bad("it names no operator set; is this an ONNX file?".into()));
    };
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
    Ok(opset)
}

/// Takes the constants out of a file. They are given back one by one: with the last of them goes
/// the file's memory.
fn constants_of(
    file: &mut proto::Graph,
    external: ReadExternal<'_>,
) -> Result<HashMap<String, Rc<Constant>>, ModelError> {
    let mut constants = HashMap::new();
    for tensor in std::mem::take(&mut file.initializer) {
        let constant = Rc::new(Constant::read(&tensor, external)?);
        if let Some(twice) = constants.insert(tensor.name.clone(), constant).map(|_| tensor.name) {
            return Err(bad(format!("its constant \"{twice}\" is there twice")));
        }
    }
    Ok(constants)
}

/// Returns the one input that is no constant.
fn only_input<'f>(
    file: &'f proto::Graph,
    constants: &HashMap<String, Rc<Constant>>,
) -> Result<&'f proto::ValueInfo, ModelError> {
    let inputs: Vec<_> = file.input.iter().filter(|v| !constants.contains_key(&v.name)).collect();
    let [input] = inputs[..] else {
        let names: Vec<&str> = inputs.iter().map(|v| v.name.as_str()).collect();
        return Err(offence(
            names.join(", "),
            "Input",
            Refusal::new(
                format!("the model has {} inputs, exactly one is supported", inputs.len()),
                "export it with one image as its only input, and everything else as constants",
            ),
        ));
    };
    Ok(input)
}

/// Returns the graph of an importer that has read all nodes, with its outputs.
fn finished(importer: Importer<'_, '_>, outputs: &[String]) -> Result<Graph, ModelError> {
    let Importer { mut graph, values, unknown, offences, constants, .. } = importer;
    if !offences.is_empty() {
        return Err(ModelError::Unsupported { offences });
    }
    let value = |name: &String| match values.get(name) {
        Some(&value) => Ok(value),
        None if constants.contains_key(name) => {
            Err(bad(format!("its output \"{name}\" does not depend on the input: leave it out")))
        }
        None if unknown.contains(name) => Err(bad(format!("its output \"{name}\" is one that is not supported"))),
        None => Err(bad(format!("nothing computes its output \"{name}\" from the input"))),
    };
    let ids = outputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    graph.set_outputs(ids);
    graph.set_output_names(outputs.to_vec());
    Ok(graph)
}

/// Makes the error of a single thing that is not supported.
fn offence(node: String, operator: &str, Refusal { reason, remedy }: Refusal) -> ModelError {
    ModelError::Unsupported { offences: vec![Offence { node, operator: operator.into(), reason, remedy }] }
}

/// Counts how often each name is read, by branches of nodes too.
fn count_uses<'a>(graph: &'a proto::Graph, uses: &mut HashMap<&'a str, usize>) {
    for name in graph.node.iter().flat_map(|n| &n.input).chain(graph.output.iter().map(|o| &o.name)) {
        *uses.entry(name).or_default() += 1;
    }
    let branches = graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref());
    branches.for_each(|branch| count_uses(branch, uses));
}

/// Refuses a file in which a name stands for more than one value.
fn assigned_once(
    file: &proto::Graph,
    input: &str,
    constants: &HashMap<String, Rc<Constant>>,
) -> Result<(), ModelError> {
    let mut names: HashSet<&str> = constants.keys().map(String::as_str).collect();
    names.insert(input);
    for name in file.node.iter().flat_map(|n| &n.output).filter(|name| !name.is_empty()) {
        if !names.insert(name) {
            return Err(ModelError::Onnx(format!(
                "its value \"{name}\" is assigned twice; it is not clear which one is meant (onnx.checker says the same)"
            )));
        }
    }
    Ok(())
}

/// Returns the shape that a file states for a value, without a batch dimension of one in front, if
/// all other extents are fixed.
fn known_shape(value: &proto::ValueInfo) -> Option<Vec<usize>> {
    let shape = value.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    let (batch, own) = shape.dim.split_first()?;
    if batch.dim_value.is_some_and(|d| d != 1) {
        return None;
    }
    own.iter().map(|d| usize::try_from(d.dim_value?).ok().filter(|&d| d > 0)).collect()
}

/// Longest name that is shown as it is.
const LONGEST_NAME: usize = 200;

/// Makes names printable: they are shown, and control characters in them could forge lines of what
/// we print. Names of nodes are cut, too; other names say what belongs together and keep their
/// length.
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
        node.attribute.iter_mut().filter_map(|a| a.g.as_mut()).for_each(make_printable);
    }
    graph.initializer.iter_mut().for_each(|t| clean(&mut t.name));
    graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info).for_each(|v| clean(&mut v.name));
}

/// Returns the number of images that an input states.
fn batch_of(input: &proto::ValueInfo) -> Option<i64> {
    input.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?.dim.first()?.dim_value
}

/// Returns warnings about the input's type and batch.
fn of_input(input: &proto::ValueInfo) -> Vec<String> {
    let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else { return vec![] };
    let mut warnings = vec![];
    let name = &input.name;
    if !matches!(tensor.elem_type, 0 | kind::FLOAT | kind::FLOAT16 | kind::BFLOAT16 | kind::DOUBLE) {
        warnings.push(format!(
            "its input \"{name}\" is of an integer type: such networks mostly take pixels as they are (--input-scale 1)"
        ));
    }
    if let Some(n) = batch_of(input).filter(|&n| n > 1) {
        warnings.push(format!("its input \"{name}\" is a batch of {n} images: here every image is run alone"));
    }
    warnings
}

/// Writes extents as a file states them, with `?` for one that is left open.
fn shown(dims: &[Option<i64>]) -> String {
    let one = |d: &Option<i64>| d.map_or("?".into(), |d| d.to_string());
    format!("[{}]", dims.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Returns the shape of the image without the batch dimension.
fn image_shape(input: &proto::ValueInfo) -> Result<Vec<usize>, ModelError> {
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims: Vec<Option<i64>> = shape.map(|s| s.dim.iter().map(|d| d.dim_value).collect()).unwrap_or_default();
    let fixed = dims.iter().skip(1).map(|d| d.and_then(|d| usize::try_from(d).ok()).filter(|&d| d > 0));
    match fixed.collect::<Option<Vec<_>>>() {
        Some(rest) if matches!(rest.len(), 1..=3) => Ok(rest),
        Some(rest) if rest.len() > 3 => Err(ModelError::Shape {
            what: format!("input \"{}\"", input.name),
            expected: "an image, at most [batch, channels, height, width]: volumes and videos are not supported".into(),
            got: shown(&dims),
        }),
        _ => Err(ModelError::Shape {
            what: format!("input \"{}\"", input.name),
            expected: "[batch, channels, height, width], [batch, channels, length] or [batch, features] with fixed sizes \
                       behind the batch (export with a fixed image size, or fix it: onnxruntime.tools.make_dynamic_shape_fixed)"
                .into(),
            got: shown(&dims),
        }),
    }
}
