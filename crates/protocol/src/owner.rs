//! The owner: chooses a ring and a layout for every layer, and seals the network.

use std::io::Write;
use std::ops::Range;

use jali_leak::Plan;
use jali_mask::noise::{MAX_FAILURE_LOG2, sum_log2};
use jali_mask::params::LayerShape;
use jali_mask::{LayerId, MaskError, NoiseReport, Parameters, ParametersLiteral, PlainRow, SealEntropy, Wanted};
use jali_model::{Linear, QuantConfig, QuantModel};
use jali_operator::{EncodedLayer, write_model};
use jali_pack::{Costs, LayerCounts, Layout, Prediction, Unbuilt};

use crate::ProtocolError;
use crate::client::{ClientLayer, ClientModel};

/// Degrees tried, smallest first.
const DEGREES: [usize; 5] = [2048, 4096, 8192, 16384, 32768];

/// Sealed bytes that are worth a millisecond of every image when rings and layouts are chosen: strips of large planes share one matrix, which
/// saves memory, and time only where the bus is slower than the kernels.
const BYTES_WORTH_A_MS: f64 = 50e6;

/// How much more a millisecond of the server weighs than one of the client, which has its machine to itself: a server works for many. Where two layouts
/// cost the same in all, as tiles and rows often do, it decides for fewer rows.
const SHARED: f64 = 0.25;

/// What is left of a layer's cost must be at most so much before its first prime grows for the sake of open rows: residues modulo a
/// larger prime take a byte more and are folded more often, which the counts of the cost model do not see.
const WORTH_A_LARGER_PRIME: f64 = 0.9;

/// Ring and layout of one layer.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// Checked parameters.
    pub parameters: Parameters,
    /// Layout.
    pub layout: Layout,
    /// What the costs that chose it expect.
    pub prediction: Prediction,
    /// What other answers would take.
    pub unbuilt: Vec<UnbuiltCost>,
    /// Numbers that go into and come out of the layer.
    values: usize,
    /// What the modulus was chosen for.
    shape: LayerShape,
    /// Rows that are going to be open.
    open_rows: usize,
}

/// What a layer would take at least with an answer that is not built, by whatever ring and layout would be best for it, before open rows are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnbuiltCost {
    /// Which answer.
    pub answer: Unbuilt,
    /// Milliseconds more than with the answer that is built, as layouts are weighed (a server's millisecond a quarter more, sealed bytes too); below 0 if it
    /// would be worth building.
    pub more_ms: f64,
    /// Bytes more, both ways together.
    pub more_bytes: i64,
}

fn counts(literal: &ParametersLiteral, layout: &Layout, values: usize, open_rows: usize) -> LayerCounts {
    let wanted = layout.wanted().dims.iter().map(|d| d.0).product();
    LayerCounts {
        degree: literal.degree,
        modulus_bits: literal.prime_bits.iter().sum(),
        limbs: literal.prime_bits.len(),
        tiles: layout.tiles(),
        row_tiles: layout.row_tiles(),
        strips: layout.strips(),
        rows: layout.rows(),
        short_rows: if literal.open_primes < literal.prime_bits.len() { open_rows } else { 0 },
        first_bits: literal.prime_bits.first().copied().unwrap_or(0),
        wanted,
        values,
    }
}

impl Blueprint {
    /// The cheapest choice for one linear node under the given costs. Besides these it depends on shapes and on whether
    /// anything is hidden, never on a weight (condition 7).
    ///
    /// # Errors
    /// [`ProtocolError::Layer`] if no degree has both room and security.
    pub fn choose(model: &QuantModel, node: usize, hidden: bool, costs: &Costs) -> Result<Self, ProtocolError> {
        let graph = model.graph();
        let n = &graph.nodes()[node];
        let fail = |reason: String| ProtocolError::Layer { layer: n.name.clone(), reason };
        let linear = n.op.linear().ok_or_else(|| fail("is not linear".into()))?;
        let input = graph.shape(n.inputs[0]);
        let values = input.iter().product::<usize>() + graph.shape(node + 1).iter().product::<usize>();
        let Cheapest { literal, layout, prediction, unbuilt } =
            cheapest(&model.config(), linear, input, values, hidden, costs).map_err(fail)?;
        let parameters = literal.try_into().map_err(|e: MaskError| fail(e.to_string()))?;
        let shape = layer_shape(&model.config(), linear, &layout, hidden);
        Ok(Self { parameters, layout, prediction, unbuilt, values, shape, open_rows: 0 })
    }

    /// The same layout for a layer that has hidden rows and so many open ones: primes that let the open rows do with one of
    /// them, where the costs expect that to be cheaper. `q` is larger then, within what security allows at this degree.
    ///
    /// # Errors
    /// [`ProtocolError::Mask`] never in practice.
    pub fn with_open_rows(mut self, open_rows: usize, costs: &Costs) -> Result<Self, ProtocolError> {
        self.open_rows = open_rows;
        let (degree, total) = (self.parameters.ring().degree(), self.prediction.total_ms());
        let counts = |literal: &ParametersLiteral| counts(literal, &self.layout, self.values, open_rows);
        if let Some((literal, prediction)) = cheaper_mixed(degree, &self.shape, open_rows, total, costs, counts) {
            self.parameters = literal.try_into()?;
            self.prediction = prediction;
        }
        Ok(self)
    }

    /// The counts that the layer's cost follows from.
    pub fn counts(&self) -> LayerCounts {
        counts(self.parameters.literal(), &self.layout, self.values, self.open_rows)
    }

    /// Ranges of weights that the rows hold, for policies that open whole rows.
    pub fn row_weights(&self, linear: Linear<'_>) -> Vec<Range<usize>> {
        let fan_in = linear.fan_in();
        let range = |row| {
            let outputs = self.layout.outputs_of_row(row);
            outputs.start * fan_in..outputs.end * fan_in
        };
        (0..self.layout.rows()).map(range).collect()
    }

    /// The row ranges of all layers of a network as they are when everything is hidden.
    ///
    /// # Errors
    /// As [`Blueprint::choose`].
    pub fn rows_of_all(model: &QuantModel, costs: &Costs) -> Result<Vec<Vec<Range<usize>>>, ProtocolError> {
        let rows = |(node, linear)| Ok(Self::choose(model, node, true, costs)?.row_weights(linear));
        model.graph().linear_nodes().map(rows).collect()
    }
}

/// What [`cheapest`] finds.
struct Cheapest {
    literal: ParametersLiteral,
    layout: Layout,
    prediction: Prediction,
    unbuilt: Vec<UnbuiltCost>,
}

/// The cheapest parameters and layout, or why there are none.
fn cheapest(
    config: &QuantConfig,
    linear: Linear<'_>,
    input: &[usize],
    values: usize,
    hidden: bool,
    costs: &Costs,
) -> Result<Cheapest, String> {
    let mut best: Option<(f64, ParametersLiteral, Layout, Prediction)> = None;
    // The best by each of the answers that are not built: what decides, and bytes.
    let mut others = Unbuilt::ALL.map(|answer| (answer, f64::INFINITY, 0));
    let mut why = String::from("no ring is large enough for one tile of the layer");
    for degree in DEGREES {
        let candidates = match Layout::candidates(linear, input, degree) {
            Ok(candidates) => candidates,
            Err(e) => {
                why = e.to_string();
                continue;
            }
        };
        for layout in candidates {
            let shape = layer_shape(config, linear, &layout, hidden);
            let literal = match ParametersLiteral::choose(degree, &shape) {
                Ok(literal) => literal,
                Err(e) => {
                    why = e.to_string();
                    continue;
                }
            };
            let counts = counts(&literal, &layout, values, 0);
            let prediction = costs.predict(&counts, hidden);
            let sealed = if hidden { counts.hidden_bytes(counts.rows) as f64 } else { 0.0 };
            let weigh = |p: &Prediction| p.total_ms() + SHARED * p.server_ms + sealed / BYTES_WORTH_A_MS;
            for (answer, least, all) in &mut others {
                let other = weigh(&costs.predict_unbuilt(&counts, hidden, *answer));
                if other < *least {
                    (*least, *all) = (other, counts.bytes() + counts.more_bytes(*answer));
                }
            }
            let total = weigh(&prediction);
            if best.as_ref().is_none_or(|b| total < b.0) {
                best = Some((total, literal, layout, prediction));
            }
        }
    }
    let (total, literal, layout, prediction) = best.ok_or(why)?;
    let built = counts(&literal, &layout, values, 0).bytes();
    let unbuilt = others.map(|(answer, least, all)| UnbuiltCost {
        answer,
        more_ms: least - total,
        more_bytes: all as i64 - built as i64,
    });
    Ok(Cheapest { literal, layout, prediction, unbuilt: unbuilt.into() })
}

/// Parameters by which open rows do with one prime, if there are any and they make the layer cheaper than `total_ms`. Too little
/// room for the larger modulus is no error: the layer stays as it is.
fn cheaper_mixed(
    degree: usize,
    shape: &LayerShape,
    open_rows: usize,
    total_ms: f64,
    costs: &Costs,
    counts: impl Fn(&ParametersLiteral) -> LayerCounts,
) -> Option<(ParametersLiteral, Prediction)> {
    let literal = ParametersLiteral::choose_mixed(degree, shape).ok().filter(|_| open_rows > 0)?;
    let prediction = costs.predict(&counts(&literal), true);
    (prediction.total_ms() < WORTH_A_LARGER_PRIME * total_ms).then_some((literal, prediction))
}

/// What a linear layer of this shape would take, without weights and without building anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// What the cost follows from.
    pub counts: LayerCounts,
    /// Expected times for one image.
    pub prediction: Prediction,
    /// Bytes of hidden rows as they are sealed.
    pub hidden_bytes: usize,
    /// Sizes of the primes, in bits.
    pub prime_bits: Vec<u32>,
}

impl Estimate {
    /// Of one linear layer with a fraction of its rows open; only the shape of `linear` counts.
    ///
    /// # Errors
    /// [`ProtocolError::Layer`] if it cannot be lowered.
    pub fn of(
        config: &QuantConfig,
        linear: Linear<'_>,
        (inputs, outputs): (&[usize], usize),
        open: f64,
        costs: &Costs,
    ) -> Result<Self, ProtocolError> {
        let values = inputs.iter().product::<usize>() + outputs;
        let fail = |reason| ProtocolError::Layer { layer: linear.kind(), reason };
        let hidden = open < 1.0;
        let Cheapest { mut literal, layout, mut prediction, .. } =
            cheapest(config, linear, inputs, values, hidden, costs).map_err(fail)?;
        let open_rows = (layout.rows() as f64 * open) as usize;
        let shape = layer_shape(config, linear, &layout, hidden);
        let counts = |literal: &ParametersLiteral| counts(literal, &layout, values, open_rows);
        if hidden
            && let Some(mixed) = cheaper_mixed(literal.degree, &shape, open_rows, prediction.total_ms(), costs, counts)
        {
            (literal, prediction) = mixed;
        }
        let counts = counts(&literal);
        let hidden_bytes = counts.hidden_bytes(counts.rows - open_rows);
        Ok(Self { counts, prediction, hidden_bytes, prime_bits: literal.prime_bits })
    }
}

fn layer_shape(config: &QuantConfig, linear: Linear<'_>, layout: &Layout, hidden: bool) -> LayerShape {
    let terms = (layout.row_outputs().min(linear.outputs()) * linear.fan_in()) as f64;
    LayerShape {
        tiles: layout.row_tiles(),
        plaintext_bits: config.plaintext_bits(linear.fan_in()),
        input_bound: config.activation_bound(),
        row_norm: config.weight_bound() as f64 * terms.sqrt(),
        hidden,
    }
}

/// How a layer is going to be sealed under a plan.
pub(crate) struct Choice {
    pub(crate) blueprint: Blueprint,
    /// Weights of every row.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Rows that the plan allows open, and that therefore are.
    pub(crate) open: Vec<bool>,
}

impl Choice {
    pub(crate) fn of(
        model: &QuantModel,
        plan: &Plan,
        (layer, node): (usize, usize),
        linear: Linear<'_>,
        costs: &Costs,
    ) -> Result<Self, ProtocolError> {
        let whole = plan.may_open_layer(layer);
        let mut blueprint = Blueprint::choose(model, node, !whole, costs)?;
        let ranges = blueprint.row_weights(linear);
        let open: Vec<bool> = ranges.iter().map(|range| plan.may_open(layer, range.clone())).collect();
        if !whole {
            blueprint = blueprint.with_open_rows(open.iter().filter(|o| **o).count(), costs)?;
        }
        Ok(Self { blueprint, ranges, open })
    }
}

/// What sealing did to one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Node name.
    pub name: String,
    /// `conv3x3`, `fc`.
    pub kind: String,
    /// `N`.
    pub ring_degree: usize,
    /// Size of every prime.
    pub primes_bits: Vec<u32>,
    /// Ring elements of a row.
    pub tiles: usize,
    /// Blocks of the matrix, each with tiles of its own.
    pub blocks: usize,
    /// Inputs of the matrix that one image becomes.
    pub strips: usize,
    /// Rows of the matrix, all blocks together.
    pub rows: usize,
    /// How many of these are computed modulo the first prime alone: open rows of a layer that has hidden ones.
    pub short_rows: usize,
    /// Weights of the layer.
    pub weights: usize,
    /// How many of them are sealed.
    pub weights_sealed: usize,
    /// How many the plan would have allowed to stay open among these.
    pub weights_allowed_but_sealed: usize,
    /// Noise bound and room.
    pub noise: NoiseReport,
    /// What a tile and a row hold.
    pub layout: String,
    /// What the layer's cost follows from.
    pub counts: LayerCounts,
    /// What the costs that chose ring and layout expect.
    pub prediction: Prediction,
    /// What other answers would take.
    pub unbuilt: Vec<UnbuiltCost>,
}

/// A sealed network: what each side gets.
pub struct Sealed {
    /// For the server, and for anybody's eyes.
    pub server: Vec<EncodedLayer>,
    /// For the client: secret.
    pub client: ClientModel,
    /// Layer by layer.
    pub report: Vec<LayerReport>,
}

impl Sealed {
    /// Writes the server's bundle. Returns the sink and the content hash.
    ///
    /// # Errors
    /// [`ProtocolError::Operator`] if the sink fails.
    pub fn write_server<W: Write>(&self, sink: W) -> Result<(W, [u8; 32]), ProtocolError> {
        Ok(write_model(sink, self.client.id, &self.server)?)
    }

    /// The server's bundle in memory.
    ///
    /// # Errors
    /// [`ProtocolError::Operator`] never in practice.
    pub fn server_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        Ok(self.write_server(vec![])?.0)
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(withheld)")
    }
}

/// Seals a network. `costs` choose rings and layouts. Rows are opened only where the plan allows every weight in them; `progress` hears of every layer done.
///
/// # Errors
/// [`ProtocolError::Leak`] for a plan of another network, [`ProtocolError::Layer`] if a layer cannot be lowered,
/// [`ProtocolError::Noise`] if the exact failure bound exceeds 2^-64 per inference.
pub fn seal(
    model: &QuantModel,
    plan: &Plan,
    costs: &Costs,
    entropy: &SealEntropy,
    mut progress: impl FnMut(usize),
) -> Result<Sealed, ProtocolError> {
    plan.validate(model.graph())?;
    let id = entropy.model_id();
    let (mut sealed, mut layers, mut report) = (vec![], vec![], vec![]);
    for (layer, (node, linear)) in model.graph().linear_nodes().enumerate() {
        let Choice { blueprint, ranges, open } = Choice::of(model, plan, (layer, node), linear, costs)?;
        let (counts, prediction) = (blueprint.counts(), blueprint.prediction);
        let Blueprint { parameters, layout, unbuilt, .. } = blueprint;
        let weights = &model.layer(node)?.weights;
        let pattern = layout.wanted();
        let degree = parameters.ring().degree();
        let wanted = Wanted::new(degree, pattern.start, pattern.dims)?;
        let rows: Vec<_> = (0..layout.rows()).map(|row| layout.row(weights, row)).collect();
        let plain: Vec<PlainRow<'_>> = rows.iter().zip(&open).map(|(tiles, &open)| PlainRow { tiles, open }).collect();
        let hidden = || ranges.iter().zip(&plain).filter(|(_, row)| !row.open).map(|(range, _)| range.clone());
        let layer_id = LayerId { model: id, layer: layer as u32 };
        let bound = model.config().activation_bound();
        let (server, key) = jali_mask::seal(&parameters, layer_id, &plain, layout.blocks(), &wanted, bound, entropy)?;
        report.push(LayerReport {
            name: model.graph().nodes()[node].name.clone(),
            kind: linear.kind(),
            ring_degree: degree,
            primes_bits: parameters.literal().prime_bits.clone(),
            tiles: layout.row_tiles(),
            blocks: layout.blocks(),
            strips: layout.strips(),
            rows: layout.rows(),
            short_rows: counts.short_rows,
            weights: weights.len(),
            weights_sealed: hidden().map(|r| r.len()).sum(),
            weights_allowed_but_sealed: hidden().flatten().filter(|&w| plan.may_open(layer, w..w + 1)).count(),
            noise: key.noise(),
            layout: layout.describe(),
            counts,
            prediction,
            unbuilt,
        });
        sealed.push(EncodedLayer::of(&server));
        layers.push(ClientLayer { node, layout, key });
        progress(layer + 1);
    }
    let got = sum_log2(report.iter().map(|r| r.noise.log2_failure + (r.strips as f64).log2()));
    if got > MAX_FAILURE_LOG2 {
        return Err(ProtocolError::Noise { got, limit: MAX_FAILURE_LOG2 });
    }
    let client = ClientModel { id, outline: model.outline()?, layers, origin: None };
    Ok(Sealed { server: sealed, client, report })
}
