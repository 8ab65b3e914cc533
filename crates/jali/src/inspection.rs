//! What will become of a model, before anything is sealed: which nodes the server computes, with
//! rings, sizes and expected times.

use jali_model::onnx::Imported;
use jali_model::{Graph, Linear, Node, Offence, QuantConfig, QuantModel};
use jali_pack::Costs;
use jali_protocol::{Blueprint, OperatorForecast, ProtocolError, forecast};
use serde::Serialize;

use crate::{JaliError, Plan, memory};

/// What will become of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Its file.
    pub model: String,
    /// Whether it can be sealed.
    pub supported: bool,
    /// Version of ONNX's operators, if the file could be read so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// Its input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Its outputs.
    pub outputs: Vec<Value>,
    /// Its nodes, in the order in which they are computed.
    pub nodes: Vec<InspectedNode>,
    /// What all weights hidden take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub everything_hidden: Option<Totals>,
    /// What all weights open take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub everything_open: Option<Totals>,
    /// What a user should know before sealing.
    pub warnings: Vec<String>,
    /// Nodes that are in the way.
    pub offences: Vec<Offence>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Its shape, without a batch.
    pub shape: Vec<usize>,
}

/// A node of the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedNode {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub operator: &'static str,
    /// Who computes it: `server` or `client`.
    pub side: &'static str,
    /// Shape of what it gives.
    pub output_shape: Vec<usize>,
    /// More of a node that the server computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

/// A node of the server with everything hidden.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// What kind of linear layer it is.
    pub kind: String,
    /// Number of its weights.
    pub weights: usize,
    /// Degree of its ring.
    pub ring_degree: usize,
    /// Bits of the primes of its modulus.
    pub primes_bits: Vec<u32>,
    /// How inputs and outputs stand in ring elements.
    pub layout: String,
    /// Tiles of a row.
    pub tiles: usize,
    /// Rows.
    pub rows: usize,
    /// Bytes of the sealed rows.
    pub sealed_bytes: usize,
    /// Bytes of a request for one image.
    pub bytes_up: usize,
    /// Bytes of its answer.
    pub bytes_down: usize,
    /// Expected time of the client, in ms.
    pub predicted_client_ms: f64,
    /// Expected time of the server, in ms.
    pub predicted_server_ms: f64,
}

/// What a whole network takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    /// Number of weights.
    pub weights: usize,
    /// Bytes of the sealed rows.
    pub sealed_bytes: usize,
    /// Bytes that the server needs.
    pub server_memory_bytes: usize,
    /// Bytes that the client needs.
    pub client_memory_bytes: usize,
    /// Bytes at the worst moment when owner, server and client are one process.
    pub process_memory_bytes: usize,
    /// Bytes at the worst moment of sealing it into files.
    pub sealing_memory_bytes: usize,
    /// Bytes from the client for one image.
    pub bytes_up: usize,
    /// Bytes to the client for one image.
    pub bytes_down: usize,
    /// Round trips for one image.
    pub round_trips: usize,
    /// Expected time of the client, in ms.
    pub predicted_client_ms: f64,
    /// Expected time of the server, in ms.
    pub predicted_server_ms: f64,
    /// Expected time on the line, in ms.
    pub predicted_link_ms: f64,
}

impl Totals {
    fn of(graph: &Graph, layers: &[OperatorForecast]) -> Self {
        let needs = memory::Needs::of(graph, layers);
        let sum = |f: &dyn Fn(&OperatorForecast) -> usize| layers.iter().map(f).sum::<usize>();
        let ms = |f: &dyn Fn(&OperatorForecast) -> f64| layers.iter().map(f).sum::<f64>();
        Self {
            weights: sum(&|l| l.weights),
            sealed_bytes: sum(&|l| l.bytes),
            server_memory_bytes: sum(&|l| l.server_memory),
            client_memory_bytes: sum(&|l| l.client_memory),
            process_memory_bytes: needs.process,
            sealing_memory_bytes: needs.sealing,
            bytes_up: sum(&|l| l.counts.bytes_up()),
            bytes_down: sum(&|l| l.counts.bytes_down()),
            round_trips: layers.len(),
            predicted_client_ms: ms(&|l| l.prediction.client_ms),
            predicted_server_ms: ms(&|l| l.prediction.server_ms),
            predicted_link_ms: ms(&|l| l.prediction.link_ms),
        }
    }

    /// Returns the expected time for an image, in ms.
    pub fn total_ms(&self) -> f64 {
        self.predicted_client_ms + self.predicted_server_ms + self.predicted_link_ms
    }
}

impl Inspection {
    /// Returns what becomes of a model that was read from a file called `model`, at these costs.
    ///
    /// # Errors
    /// [`JaliError::Protocol`] if a layer cannot be forecast.
    pub fn of(model: String, imported: Imported, bits: QuantConfig, costs: &Costs) -> Result<Self, JaliError> {
        let Imported { graph, input, outputs, opset, warnings } = imported;
        let output = |(name, &id): (String, &usize)| Value { name, shape: graph.shape(id).to_vec() };
        let mut report = Self {
            opset: Some(opset),
            warnings,
            input: Some(Value { name: input, shape: graph.input_shape().to_vec() }),
            outputs: outputs.into_iter().zip(graph.outputs()).map(output).collect(),
            nodes: graph.nodes().iter().map(InspectedNode::of).collect(),
            ..Self::refused(model, vec![])
        };
        let model = QuantModel::uncalibrated(graph, bits)?;
        report.offences = cannot_be_lowered(&model, costs);
        if !report.offences.is_empty() {
            return Ok(report);
        }
        report.supported = true;
        let (graph, layers) = (model.graph(), |plan: &Plan| forecast(&model, plan, costs).map_err(JaliError::from));
        let hidden = layers(&Plan::hide_all(graph))?;
        report.everything_open = Some(Totals::of(graph, &layers(&Plan::open_all(graph))?));
        let totals = Totals::of(graph, &hidden);
        report.warnings.extend(warn(graph, &totals, &hidden));
        report.everything_hidden = Some(totals);
        for layer in hidden {
            let node = layer.node;
            report.nodes[node].layer = Some(Layer::of(layer));
        }
        Ok(report)
    }

    /// Returns the report of a model with nodes that are in the way.
    pub fn refused(model: String, offences: Vec<Offence>) -> Self {
        Self {
            model,
            supported: false,
            opset: None,
            input: None,
            outputs: vec![],
            nodes: vec![],
            everything_hidden: None,
            everything_open: None,
            warnings: vec![],
            offences,
        }
    }
}

impl InspectedNode {
    fn of(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            operator: node.op.name(),
            side: if node.op.linear().is_some() { "server" } else { "client" },
            output_shape: node.shape.clone(),
            layer: None,
        }
    }
}

impl Layer {
    fn of(l: OperatorForecast) -> Self {
        let counts = l.counts;
        Self {
            kind: l.kind,
            weights: l.weights,
            ring_degree: counts.degree,
            primes_bits: l.prime_bits,
            layout: l.layout,
            tiles: counts.row_tiles,
            rows: l.rows,
            sealed_bytes: l.bytes,
            bytes_up: counts.bytes_up(),
            bytes_down: counts.bytes_down(),
            predicted_client_ms: l.prediction.client_ms,
            predicted_server_ms: l.prediction.server_ms,
        }
    }
}

/// Linear layers that no ring has room for.
fn cannot_be_lowered(model: &QuantModel, costs: &Costs) -> Vec<Offence> {
    let refused = |(node, linear): (usize, Linear<'_>)| {
        let reason = match Blueprint::choose(model, node, true, costs) {
            Ok(_) => return None,
            Err(ProtocolError::Layer { reason, .. }) => reason,
            Err(e) => e.to_string(),
        };
        let n = &model.graph().nodes()[node];
        Some(Offence {
            node: n.name.clone(),
            operator: n.op.name().into(),
            reason: format!("{} cannot be lowered: {reason}", linear.kind()),
            remedy: "use narrower images, smaller kernels or fewer inputs".into(),
        })
    };
    model.graph().linear_nodes().filter_map(refused).collect()
}

/// What a user should know before sealing.
fn warn(graph: &Graph, totals: &Totals, layers: &[OperatorForecast]) -> Vec<String> {
    let mut warnings = vec![];
    if let Some(free) = memory::available()
        && totals.process_memory_bytes as u64 > free
    {
        warnings.push(format!(
            "owner, server and client in one process need about {:.2} GB, this machine has {:.2} GB free",
            totals.process_memory_bytes as f64 / 1e9,
            free as f64 / 1e9
        ));
    }
    let all = totals.predicted_client_ms + totals.predicted_server_ms;
    if let Some(l) = layers.iter().max_by(|a, b| a.prediction.total_ms().total_cmp(&b.prediction.total_ms()))
        && layers.len() > 2
        && l.prediction.total_ms() > 0.4 * all
    {
        let part = 100.0 * l.prediction.total_ms() / all.max(f64::MIN_POSITIVE);
        warnings.push(format!("node \"{}\" alone takes {part:.0} % of the time", l.name));
    }
    if graph.outputs().len() > 1 {
        warnings.push(format!("it has {} outputs; classes are read from the first", graph.outputs().len()));
    }
    warnings
}
