//! The owner: chooses a ring and a layout for every layer, and seals the network.

use std::io::Write;
use std::ops::Range;

use jali_leak::Plan;
use jali_mask::noise::{MAX_FAILURE_LOG2, sum_log2};
use jali_mask::params::LayerShape;
use jali_mask::{
    AnswerKind, KeepHints, LayerId, LayerKey, LayerSetting, MaskError, MatrixShape, NoiseReport, Parameters,
    ParametersLiteral, PlainMatrix, SealEntropy, SealedHead, Wanted, seal_matrix,
};
use jali_model::{Linear, QuantConfig, QuantModel};
use jali_operator::ModelWriter;
use jali_pack::{Answer, Columns, Costs, LayerCounts, Layout, Prediction};
use jali_ring::RowStore;

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

/// What is left of a layer's cost must be at most so much before whole rows come back instead of wanted coefficients: they take bytes that the link, or other
/// requests of the server, may miss.
const WORTH_WHOLE_ROWS: f64 = 0.9;

/// What is left of a layer's cost must be at most so much before its open columns become a part of their own.
const WORTH_A_PART: f64 = 0.9;

/// Ring and layout of one operator.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// Checked parameters.
    pub parameters: Parameters,
    /// Layout.
    pub layout: Layout,
    /// What the client will ask for.
    pub answer: Answer,
    /// What the costs that chose it expect.
    pub prediction: Prediction,
    /// What other answers would take.
    pub others: Vec<OtherAnswer>,
    /// Numbers that go into and come out of the layer.
    values: usize,
    /// What the modulus was chosen for.
    shape: LayerShape,
    /// Rows that are going to be open.
    open_rows: usize,
}

/// What a layer would take with another answer, by whatever ring and layout would be best for it, before open rows are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OtherAnswer {
    /// Which answer.
    pub answer: Answer,
    /// Milliseconds more than with the answer that was chosen, as layouts are weighed (a server's millisecond a quarter more, sealed bytes too).
    pub more_ms: f64,
    /// Bytes more, both ways together.
    pub more_bytes: i64,
}

/// What comes back, as the mask's crate says it: `jali_pack` does not know that.
pub fn answer_kind(answer: Answer) -> AnswerKind {
    AnswerKind { whole_rows: answer.whole_rows, second_component: answer.second_component }
}

fn counts(
    literal: &ParametersLiteral,
    layout: &Layout,
    answer: Answer,
    (values, open_rows): (usize, usize),
) -> LayerCounts {
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
        answer,
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
        Self::of_part(model, (node, &Columns::All), hidden, costs)
    }

    /// The same for some of the node's columns.
    fn of_part(
        model: &QuantModel,
        (node, columns): (usize, &Columns),
        hidden: bool,
        costs: &Costs,
    ) -> Result<Self, ProtocolError> {
        let graph = model.graph();
        let n = &graph.nodes()[node];
        let fail = |reason: String| ProtocolError::Layer { layer: n.name.clone(), reason };
        let linear = n.op.linear().ok_or_else(|| fail("is not linear".into()))?;
        let part = columns.part(linear).map_err(|e| fail(e.to_string()))?;
        let input = columns.shape(graph.shape(n.inputs[0]));
        let values = input.iter().product::<usize>() + graph.shape(node + 1).iter().product::<usize>();
        let Cheapest { literal, layout, answer, prediction, others } =
            cheapest(&model.config(), part.linear(), &input, values, hidden, costs).map_err(fail)?;
        let parameters = literal.try_into().map_err(|e: MaskError| fail(e.to_string()))?;
        let shape = layer_shape(&model.config(), part.linear(), &layout, hidden);
        Ok(Self { parameters, layout, answer, prediction, others, values, shape, open_rows: 0 })
    }

    /// The same layout for a layer that has hidden rows and so many open ones: primes that let the open rows do with one of
    /// them, where the costs expect that to be cheaper. `q` is larger then, within what security allows at this degree.
    ///
    /// # Errors
    /// [`ProtocolError::Mask`] never in practice.
    pub fn with_open_rows(mut self, open_rows: usize, costs: &Costs) -> Result<Self, ProtocolError> {
        self.open_rows = open_rows;
        let (degree, total) = (self.parameters.ring().degree(), self.prediction.total_ms());
        let counts = |literal: &ParametersLiteral| counts(literal, &self.layout, self.answer, (self.values, open_rows));
        if let Some((literal, prediction)) = cheaper_mixed(degree, &self.shape, open_rows, total, costs, counts) {
            self.parameters = literal.try_into()?;
            self.prediction = prediction;
        }
        Ok(self)
    }

    /// The counts that the layer's cost follows from.
    pub fn counts(&self) -> LayerCounts {
        counts(self.parameters.literal(), &self.layout, self.answer, (self.values, self.open_rows))
    }

    /// Milliseconds as layouts are weighed.
    fn weight(&self) -> f64 {
        weigh(&self.counts(), &self.prediction, self.open_rows, self.shape.hidden)
    }

    /// The same operator with hints in every answer.
    fn with_second_component(&self, costs: &Costs) -> Self {
        let mut other = self.clone();
        other.answer.second_component = true;
        other.prediction = costs.predict(&other.counts(), self.shape.hidden);
        // The others are compared with what is chosen now.
        let (more_ms, more_bytes) =
            (other.weight() - self.weight(), (other.counts().bytes() - self.counts().bytes()) as i64);
        other.others.retain(|o| !o.answer.second_component);
        for o in &mut other.others {
            (o.more_ms, o.more_bytes) = (o.more_ms - more_ms, o.more_bytes - more_bytes);
        }
        other
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
#[derive(Clone)]
struct Cheapest {
    literal: ParametersLiteral,
    layout: Layout,
    answer: Answer,
    prediction: Prediction,
    others: Vec<OtherAnswer>,
}

/// Milliseconds as layouts are weighed, of which so many rows are open.
fn weigh(counts: &LayerCounts, prediction: &Prediction, open_rows: usize, hidden: bool) -> f64 {
    let sealed = if hidden { counts.hidden_bytes(counts.rows - open_rows) as f64 } else { 0.0 };
    prediction.total_ms() + SHARED * prediction.server_ms + sealed / BYTES_WORTH_A_MS
}

/// The cheapest parameters, layout and answer, or why there are none.
fn cheapest(
    config: &QuantConfig,
    linear: Linear<'_>,
    input: &[usize],
    values: usize,
    hidden: bool,
    costs: &Costs,
) -> Result<Cheapest, String> {
    // The best for each answer.
    let mut best: [Option<(f64, ParametersLiteral, Layout, Prediction)>; Answer::WEIGHED.len()] = [const { None }; 3];
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
            for (answer, best) in Answer::WEIGHED.into_iter().zip(&mut best) {
                let counts = counts(&literal, &layout, answer, (values, 0));
                let prediction = costs.predict(&counts, hidden);
                let total = weigh(&counts, &prediction, 0, hidden);
                if best.as_ref().is_none_or(|b| total < b.0) {
                    *best = Some((total, literal.clone(), layout.clone(), prediction));
                }
            }
        }
    }
    let [Some(wanted), Some(whole), Some(second)] = best else { return Err(why) };
    let bytes = |of: &(f64, ParametersLiteral, Layout, Prediction), answer| {
        counts(&of.1, &of.2, answer, (values, 0)).bytes() as i64
    };
    let all = [wanted, whole, second];
    let chosen = usize::from(all[1].0 < WORTH_WHOLE_ROWS * all[0].0);
    let (total, built) = (all[chosen].0, bytes(&all[chosen], Answer::WEIGHED[chosen]));
    let others = Answer::WEIGHED.iter().zip(&all).enumerate().filter(|(i, _)| *i != chosen);
    let others = others.map(|(_, (&answer, of))| OtherAnswer {
        answer,
        more_ms: of.0 - total,
        more_bytes: bytes(of, answer) - built,
    });
    let others = others.collect();
    let (_, literal, layout, prediction) = all[chosen].clone();
    Ok(Cheapest { literal, layout, answer: Answer::WEIGHED[chosen], prediction, others })
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
        let Cheapest { mut literal, layout, answer, mut prediction, .. } =
            cheapest(config, linear, inputs, values, hidden, costs).map_err(fail)?;
        let open_rows = (layout.rows() as f64 * open) as usize;
        let shape = layer_shape(config, linear, &layout, hidden);
        let counts = |literal: &ParametersLiteral| counts(literal, &layout, answer, (values, open_rows));
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

/// How an operator is going to be sealed under a plan: a linear layer, or a part of one that takes some of its columns.
pub(crate) struct Choice {
    /// Index of the linear layer.
    pub(crate) layer: usize,
    /// Its node in the graph.
    pub(crate) node: usize,
    pub(crate) columns: Columns,
    pub(crate) blueprint: Blueprint,
    /// Which of its weights the plan allows open.
    pub(crate) allowed: Vec<bool>,
    /// Weights of every row, among its own.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Rows that the plan allows open, and that therefore are.
    pub(crate) open: Vec<bool>,
}

impl Choice {
    /// All operators of a network, with hints within what the costs allow.
    pub(crate) fn all(model: &QuantModel, plan: &Plan, costs: &Costs) -> Result<Vec<Self>, ProtocolError> {
        let mut choices = vec![];
        for (layer, (node, linear)) in model.graph().linear_nodes().enumerate() {
            choices.extend(Self::parts(model, plan, (layer, node), linear, costs)?);
        }
        limit_hints(&mut choices, costs);
        Ok(choices)
    }

    /// The operators of a layer: one, or, where that is cheaper, one for its hidden columns and one in a ring of its own for those that the plan allows open
    /// for every output.
    fn parts(
        model: &QuantModel,
        plan: &Plan,
        at: (usize, usize),
        linear: Linear<'_>,
        costs: &Costs,
    ) -> Result<Vec<Self>, ProtocolError> {
        let whole = Self::of(model, plan, at, Columns::All, costs)?;
        let allowed = plan.permissions(at.0);
        let open: Vec<bool> = (0..linear.columns()).map(|c| linear.column(c).flatten().all(|w| allowed[w])).collect();
        // Fails where one of them has no columns, or needs another ring than there is.
        let parts = || -> Result<Vec<Self>, ProtocolError> {
            let hidden = Columns::those(linear, |c| !open[c])?;
            let open = Columns::those(linear, |c| open[c])?;
            [hidden, open].into_iter().map(|columns| Self::of(model, plan, at, columns, costs)).collect()
        };
        if let Ok(parts) = parts()
            && parts.iter().map(|part| part.blueprint.weight()).sum::<f64>() < WORTH_A_PART * whole.blueprint.weight()
        {
            return Ok(parts);
        }
        Ok(vec![whole])
    }

    fn of(
        model: &QuantModel,
        plan: &Plan,
        (layer, node): (usize, usize),
        columns: Columns,
        costs: &Costs,
    ) -> Result<Self, ProtocolError> {
        let linear = model.graph().nodes()[node].op.linear().ok_or(ProtocolError::Order("a linear layer"))?;
        let allowed = columns.weights(plan.permissions(layer), linear.outputs()).into_owned();
        let whole = allowed.iter().all(|&allowed| allowed);
        let mut blueprint = Blueprint::of_part(model, (node, &columns), !whole, costs)?;
        let ranges = blueprint.row_weights(columns.part(linear)?.linear());
        let open: Vec<bool> = ranges.iter().map(|range| allowed[range.clone()].iter().all(|&a| a)).collect();
        if !whole {
            blueprint = blueprint.with_open_rows(open.iter().filter(|o| **o).count(), costs)?;
        }
        Ok(Self { layer, node, columns, blueprint, allowed, ranges, open })
    }

    /// Number of primes of every row.
    pub(crate) fn row_limbs(&self) -> Vec<usize> {
        let parameters = &self.blueprint.parameters;
        self.open.iter().map(|&open| parameters.ring_of(open).limbs()).collect()
    }

    /// Bytes of the hints that the client keeps, and of the rows' secrets beside them, as this machine's kernel holds them.
    pub(crate) fn hint_bytes(&self) -> usize {
        let secrets = usize::from(self.open.contains(&false));
        match self.blueprint.answer.second_component {
            true => 0,
            false => RowStore::bytes_needed(self.blueprint.parameters.ring(), &self.row_limbs(), 1 + secrets),
        }
    }
}

/// Lets hints come with every answer, where that costs least for the memory it saves, until those of the other operators are within the limit.
fn limit_hints(choices: &mut [Choice], costs: &Costs) {
    let mut kept: u64 = choices.iter().map(|c| c.hint_bytes() as u64).sum();
    if kept <= costs.hint_bytes {
        return;
    }
    let mut others: Vec<(f64, usize, Blueprint)> = vec![];
    for (i, choice) in choices.iter().enumerate() {
        let other = choice.blueprint.with_second_component(costs);
        let more = other.prediction.total_ms() - choice.blueprint.prediction.total_ms();
        others.push((more / choice.hint_bytes().max(1) as f64, i, other));
    }
    others.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, i, other) in others {
        if kept <= costs.hint_bytes {
            break;
        }
        kept -= choices[i].hint_bytes() as u64;
        choices[i].blueprint = other;
    }
}

/// What sealing did to one operator: a linear layer, or a part of one.
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
    pub others: Vec<OtherAnswer>,
}

/// A sealed network in memory: what each side gets.
pub struct Sealed {
    /// The server's bundle, for anybody's eyes.
    pub server: Vec<u8>,
    /// For the client: secret.
    pub client: ClientModel,
    /// Layer by layer.
    pub report: Vec<LayerReport>,
}

impl Sealed {
    /// The server's bundle.
    ///
    /// # Errors
    /// Never.
    pub fn server_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        Ok(self.server.clone())
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(withheld)")
    }
}

/// The client's part of a sealed network, to be stored: it has no hints, which whoever reads it gets from the server.
pub struct ClosedClient(ClientModel);

impl std::fmt::Debug for ClosedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClosedClient(withheld)")
    }
}

impl ClosedClient {
    /// Public id of the sealed model.
    pub fn id(&self) -> [u8; 16] {
        self.0.id
    }

    /// Says where the plan comes from that it was sealed with: it goes into the bundle.
    pub fn set_origin(&mut self, origin: jali_leak::Origin) {
        self.0.set_origin(origin);
    }

    /// Writes the client's bundle. Returns the sink and the content hash.
    ///
    /// # Errors
    /// [`ProtocolError::Operator`] if the sink fails.
    pub fn write<W: Write>(&self, sink: W) -> Result<(W, [u8; 32]), ProtocolError> {
        self.0.write(sink)
    }
}

/// What sealing into a sink gives.
#[derive(Debug)]
pub struct SealedTo<W, C> {
    /// The sink, which holds the server's bundle.
    pub sink: W,
    /// Content hash of the server's bundle.
    pub server_hash: [u8; 32],
    /// The client's part.
    pub client: C,
    /// Layer by layer.
    pub report: Vec<LayerReport>,
}

/// Seals a network into memory. `costs` choose rings, layouts and kinds of answers. Rows and columns are opened only where the plan allows
/// every weight in them; `progress` hears of every layer done.
///
/// # Errors
/// As [`seal_to`].
pub fn seal(
    model: &QuantModel,
    plan: &Plan,
    costs: &Costs,
    entropy: &SealEntropy,
    progress: impl FnMut(usize),
) -> Result<Sealed, ProtocolError> {
    let SealedTo { sink: server, client, report, .. } = seal_into(model, plan, costs, entropy, vec![], progress)?;
    Ok(Sealed { server, client, report })
}

/// Seals a network whose server's bundle goes to a sink as it is made; the client can be used at once.
///
/// # Errors
/// As [`seal_to`].
pub fn seal_into<W: Write>(
    model: &QuantModel,
    plan: &Plan,
    costs: &Costs,
    entropy: &SealEntropy,
    sink: W,
    progress: impl FnMut(usize),
) -> Result<SealedTo<W, ClientModel>, ProtocolError> {
    Sealing::new(model, plan, costs, entropy)?.run(KeepHints::Yes, sink, progress)
}

/// Seals a network whose server's bundle goes to a sink as it is made, and whose client is to be stored: a few rows of a layer are in memory
/// at a time.
///
/// # Errors
/// [`ProtocolError::Leak`] for a plan of another network, [`ProtocolError::Layer`] if a layer cannot be lowered,
/// [`ProtocolError::Noise`] if the exact failure bound exceeds 2^-64 per inference (what the sink holds is of no use then),
/// [`ProtocolError::Operator`] if the sink fails.
pub fn seal_to<W: Write>(
    model: &QuantModel,
    plan: &Plan,
    costs: &Costs,
    entropy: &SealEntropy,
    sink: W,
    progress: impl FnMut(usize),
) -> Result<SealedTo<W, ClosedClient>, ProtocolError> {
    let SealedTo { sink, server_hash, client, report } =
        Sealing::new(model, plan, costs, entropy)?.run(KeepHints::No, sink, progress)?;
    Ok(SealedTo { sink, server_hash, client: ClosedClient(client), report })
}

/// A network that is about to be sealed.
struct Sealing<'a> {
    model: &'a QuantModel,
    entropy: &'a SealEntropy,
    id: [u8; 16],
    choices: Vec<Choice>,
}

impl<'a> Sealing<'a> {
    fn new(model: &'a QuantModel, plan: &Plan, costs: &Costs, entropy: &'a SealEntropy) -> Result<Self, ProtocolError> {
        plan.validate(model.graph())?;
        Ok(Self { model, entropy, id: entropy.model_id(), choices: Choice::all(model, plan, costs)? })
    }

    fn wanted(choice: &Choice) -> Result<Wanted, ProtocolError> {
        let pattern = choice.blueprint.layout.wanted();
        Ok(Wanted::new(choice.blueprint.parameters.ring().degree(), pattern.start, pattern.dims)?)
    }

    fn setting<'c>(&self, index: usize, choice: &'c Choice, wanted: &'c Wanted) -> LayerSetting<'c> {
        LayerSetting {
            parameters: &choice.blueprint.parameters,
            id: LayerId { model: self.id, layer: index as u32 },
            wanted,
            input_bound: self.model.config().activation_bound(),
            kind: answer_kind(choice.blueprint.answer),
        }
    }

    fn shape(choice: &Choice) -> MatrixShape {
        let layout = &choice.blueprint.layout;
        MatrixShape { rows: layout.rows(), blocks: layout.blocks(), tiles: layout.row_tiles() }
    }

    fn run<W: Write>(
        mut self,
        keep: KeepHints,
        sink: W,
        mut progress: impl FnMut(usize),
    ) -> Result<SealedTo<W, ClientModel>, ProtocolError> {
        let head = |(index, choice): (usize, &Choice)| -> Result<(SealedHead, Vec<bool>), ProtocolError> {
            let wanted = Self::wanted(choice)?;
            let head = self.setting(index, choice, &wanted).head(Self::shape(choice), self.entropy)?;
            Ok((head, choice.open.clone()))
        };
        let heads = self.choices.iter().enumerate().map(head).collect::<Result<Vec<_>, _>>()?;
        let mut out = ModelWriter::new(sink, self.id, &heads)?;
        drop(heads);
        let (mut layers, mut report) = (vec![], vec![]);
        for (index, choice) in std::mem::take(&mut self.choices).into_iter().enumerate() {
            let key = self.operator(index, &choice, keep, &mut out)?;
            let layer = choice.layer;
            report.push(self.report(&choice, &key)?);
            layers.push(ClientLayer {
                node: choice.node,
                columns: choice.columns,
                layout: choice.blueprint.layout,
                key,
            });
            progress(layer + 1);
        }
        let got = sum_log2(report.iter().map(|r: &LayerReport| r.noise.log2_failure + (r.strips as f64).log2()));
        if got > MAX_FAILURE_LOG2 {
            return Err(ProtocolError::Noise { got, limit: MAX_FAILURE_LOG2 });
        }
        let (sink, server_hash) = out.finish()?;
        let client = ClientModel { id: self.id, outline: self.model.outline()?, layers, origin: None };
        Ok(SealedTo { sink, server_hash, client, report })
    }

    /// Seals one operator.
    fn operator<W: Write>(
        &self,
        index: usize,
        choice: &Choice,
        keep: KeepHints,
        out: &mut ModelWriter<W>,
    ) -> Result<LayerKey, ProtocolError> {
        let linear = self.linear(choice.node)?;
        let weights = choice.columns.weights(&self.model.layer(choice.node)?.weights, linear.outputs());
        let layout = &choice.blueprint.layout;
        let row = |row| layout.row(&weights, row);
        let matrix = PlainMatrix { shape: Self::shape(choice), open: &choice.open, row: &row };
        let wanted = Self::wanted(choice)?;
        let setting = self.setting(index, choice, &wanted);
        seal_matrix(setting, &matrix, keep, self.entropy, |rows| Ok(out.rows(&rows)?))
    }

    fn linear(&self, node: usize) -> Result<Linear<'a>, ProtocolError> {
        self.model.graph().nodes()[node].op.linear().ok_or(ProtocolError::Order("a linear layer"))
    }

    fn report(&self, choice: &Choice, key: &LayerKey) -> Result<LayerReport, ProtocolError> {
        let Choice { node, columns, blueprint, allowed, ranges, open, .. } = choice;
        let layout = &blueprint.layout;
        let hidden = || ranges.iter().zip(open).filter(|(_, open)| !**open).map(|(range, _)| range.clone());
        let counts = blueprint.counts();
        Ok(LayerReport {
            name: self.model.graph().nodes()[*node].name.clone(),
            kind: self.linear(*node)?.kind(),
            ring_degree: blueprint.parameters.ring().degree(),
            primes_bits: blueprint.parameters.literal().prime_bits.clone(),
            tiles: layout.row_tiles(),
            blocks: layout.blocks(),
            strips: layout.strips(),
            rows: layout.rows(),
            short_rows: counts.short_rows,
            weights: allowed.len(),
            weights_sealed: hidden().map(|r| r.len()).sum(),
            weights_allowed_but_sealed: hidden().flatten().filter(|&w| allowed[w]).count(),
            noise: key.noise(),
            layout: columns.describe() + &layout.describe(),
            counts,
            prediction: blueprint.prediction,
            others: blueprint.others.clone(),
        })
    }
}
