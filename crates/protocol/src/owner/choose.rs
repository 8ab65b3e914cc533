//! The cheapest ring and layout of a linear layer, from its shape and from what is hidden.

use std::ops::Range;

use jali_mask::params::OperatorShape;
use jali_mask::{MaskError, Parameters, ParametersLiteral};
use jali_model::{Linear, QuantConfig, QuantModel};
use jali_pack::{Costs, Layout, OperatorCounts, Prediction};

use crate::ProtocolError;

/// Degrees tried, smallest first.
const DEGREES: [usize; 5] = [2048, 4096, 8192, 16384, 32768];

/// Sealed bytes that weigh like a millisecond of every image: strips of large planes share one
/// matrix, which saves memory, and time only where the bus is slower than the backend.
const BYTES_WORTH_A_MS: f64 = 50e6;

/// How much more a millisecond of the server weighs than one of the client: a server works for
/// many. Where two layouts cost the same in all, as tiles and rows often do, it decides for fewer
/// rows.
const SERVER_SURCHARGE: f64 = 0.25;

/// The first prime grows for the sake of open rows if so much of the cost is left at most: residues
/// modulo a larger prime take a byte more and are folded more often, which the counts of the cost
/// model do not see.
const WORTH_A_LARGER_PRIME: f64 = 0.9;

/// Ring and layout of one operator.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// Checked parameters.
    pub parameters: Parameters,
    /// Layout.
    pub layout: Layout,
    /// What the costs that chose it expect.
    pub prediction: Prediction,
    /// Numbers that go into and come out of the layer.
    values: usize,
    /// What the modulus was chosen for.
    shape: OperatorShape,
    /// Rows that are going to be open.
    open_rows: usize,
}

impl Blueprint {
    /// Chooses ring and layout of one linear node. Besides the costs they depend on shapes and on
    /// whether anything is hidden, never on a weight (condition 7).
    ///
    /// # Errors
    /// [`ProtocolError::Layer`] if no degree has both room and security, or the node is not linear.
    pub fn choose(model: &QuantModel, node: usize, hidden: bool, costs: &Costs) -> Result<Self, ProtocolError> {
        let graph = model.graph();
        let n = &graph.nodes()[node];
        let fail = |reason: String| ProtocolError::Layer { layer: n.name.clone(), reason };
        let linear = n.op.linear().ok_or_else(|| fail("it is not linear".into()))?;
        let input = graph.shape(n.inputs[0]);
        let layer = Layer {
            linear,
            input,
            values: input.iter().product::<usize>() + graph.shape(node + 1).iter().product::<usize>(),
            hidden,
        };
        let Cheapest { literal, layout, prediction, .. } = layer.cheapest(&model.config(), costs).map_err(fail)?;
        let parameters = literal.try_into().map_err(|e: MaskError| fail(e.to_string()))?;
        let shape = layer.shape(&model.config(), &layout);
        Ok(Self { parameters, layout, prediction, values: layer.values, shape, open_rows: 0 })
    }

    /// Keeps the layout and takes primes that let open rows do with one of them, where the costs
    /// expect that to be cheaper. `q` is larger then, within what security allows at this degree.
    ///
    /// # Errors
    /// [`ProtocolError::Mask`] if the parameters are not accepted, which the choice of primes
    /// prevents.
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

    /// Counts that the operator's cost follows from.
    pub fn counts(&self) -> OperatorCounts {
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

    /// Ranges of weights of all rows of a network, `[layer][row]`, as they are when everything is
    /// hidden.
    ///
    /// # Errors
    /// As [`Blueprint::choose`].
    pub fn rows_of_all(model: &QuantModel, costs: &Costs) -> Result<Vec<Vec<Range<usize>>>, ProtocolError> {
        let rows = |(node, linear)| Ok(Self::choose(model, node, true, costs)?.row_weights(linear));
        model.graph().linear_nodes().map(rows).collect()
    }
}

/// A linear layer as a choice sees it.
struct Layer<'a> {
    /// Only its shape counts.
    linear: Linear<'a>,
    /// Shape of its input.
    input: &'a [usize],
    /// Numbers that go into and come out of it.
    values: usize,
    /// Whether anything in it is hidden.
    hidden: bool,
}

/// What [`Layer::cheapest`] finds.
struct Cheapest {
    /// Milliseconds as layouts are weighed.
    weight: f64,
    literal: ParametersLiteral,
    layout: Layout,
    prediction: Prediction,
}

impl Layer<'_> {
    /// The cheapest parameters and layout, or why there are none.
    fn cheapest(&self, config: &QuantConfig, costs: &Costs) -> Result<Cheapest, String> {
        let mut best: Option<Cheapest> = None;
        let mut why = String::from("no ring is large enough for one tile of the layer");
        for degree in DEGREES {
            let candidates = match Layout::candidates(self.linear, self.input, degree) {
                Ok(candidates) => candidates,
                Err(e) => {
                    why = e.to_string();
                    continue;
                }
            };
            for layout in candidates {
                let literal = match ParametersLiteral::choose(degree, &self.shape(config, &layout)) {
                    Ok(literal) => literal,
                    Err(e) => {
                        why = e.to_string();
                        continue;
                    }
                };
                let counts = counts(&literal, &layout, self.values, 0);
                let prediction = costs.predict(&counts, self.hidden);
                let weight = weigh(&counts, &prediction, self.hidden);
                if best.as_ref().is_none_or(|best| weight < best.weight) {
                    best = Some(Cheapest { weight, literal, layout, prediction });
                }
            }
        }
        best.ok_or(why)
    }

    /// What a modulus for this layout has to have room for.
    fn shape(&self, config: &QuantConfig, layout: &Layout) -> OperatorShape {
        let fan_in = self.linear.fan_in();
        let terms = (layout.row_outputs().min(self.linear.outputs()) * fan_in) as f64;
        OperatorShape {
            tiles: layout.row_tiles(),
            plaintext_bits: config.plaintext_bits(fan_in),
            input_bound: config.activation_bound(),
            row_norm: config.weight_bound() as f64 * terms.sqrt(),
            hidden: self.hidden,
        }
    }
}

/// Milliseconds as layouts are weighed: expected ones, the server's a quarter more, and sealed
/// bytes.
fn weigh(counts: &OperatorCounts, prediction: &Prediction, hidden: bool) -> f64 {
    let sealed = if hidden { counts.hidden_bytes(counts.rows) as f64 } else { 0.0 };
    prediction.total_ms() + SERVER_SURCHARGE * prediction.server_ms + sealed / BYTES_WORTH_A_MS
}

fn counts(literal: &ParametersLiteral, layout: &Layout, values: usize, open_rows: usize) -> OperatorCounts {
    OperatorCounts {
        degree: literal.degree,
        modulus_bits: literal.prime_bits.iter().sum(),
        limbs: literal.prime_bits.len(),
        tiles: layout.tiles(),
        row_tiles: layout.row_tiles(),
        strips: layout.strips(),
        rows: layout.rows(),
        short_rows: if literal.open_primes < literal.prime_bits.len() { open_rows } else { 0 },
        first_bits: literal.prime_bits.first().copied().unwrap_or(0),
        wanted: layout.wanted().count(),
        values,
    }
}

/// Parameters by which open rows do with one prime, if there are any and they make the layer
/// cheaper than `total_ms`. Too little room for the larger modulus is no error: the layer stays as
/// it is.
fn cheaper_mixed(
    degree: usize,
    shape: &OperatorShape,
    open_rows: usize,
    total_ms: f64,
    costs: &Costs,
    counts: impl Fn(&ParametersLiteral) -> OperatorCounts,
) -> Option<(ParametersLiteral, Prediction)> {
    let literal = ParametersLiteral::choose_mixed(degree, shape).ok().filter(|_| open_rows > 0)?;
    let prediction = costs.predict(&counts(&literal), true);
    (prediction.total_ms() < WORTH_A_LARGER_PRIME * total_ms).then_some((literal, prediction))
}

/// What a linear layer of some shape would take, without weights and without building anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// What the cost follows from.
    pub counts: OperatorCounts,
    /// Expected times for one image.
    pub prediction: Prediction,
    /// Bytes of hidden rows as they are sealed.
    pub hidden_bytes: usize,
    /// Sizes of the primes, in bits.
    pub prime_bits: Vec<u32>,
}

/// A linear layer by its shape.
#[derive(Debug, Clone, Copy)]
pub struct LayerShape<'a> {
    /// The layer; its weights are not looked at.
    pub linear: Linear<'a>,
    /// Shape of its input.
    pub input: &'a [usize],
    /// Numbers that it puts out.
    pub outputs: usize,
}

impl Estimate {
    /// Estimates one linear layer with a fraction of its rows open.
    ///
    /// # Errors
    /// [`ProtocolError::Layer`] if it cannot be lowered.
    pub fn of(config: &QuantConfig, shape: LayerShape<'_>, open: f64, costs: &Costs) -> Result<Self, ProtocolError> {
        let LayerShape { linear, input, outputs } = shape;
        let fail = |reason| ProtocolError::Layer { layer: linear.kind(), reason };
        let values = input.iter().product::<usize>() + outputs;
        let layer = Layer { linear, input, values, hidden: open < 1.0 };
        let Cheapest { mut literal, layout, mut prediction, .. } = layer.cheapest(config, costs).map_err(fail)?;
        let open_rows = (layout.rows() as f64 * open) as usize;
        let shape = layer.shape(config, &layout);
        let counts = |literal: &ParametersLiteral| counts(literal, &layout, values, open_rows);
        if layer.hidden
            && let Some(mixed) = cheaper_mixed(literal.degree, &shape, open_rows, prediction.total_ms(), costs, counts)
        {
            (literal, prediction) = mixed;
        }
        let counts = counts(&literal);
        let hidden_bytes = counts.hidden_bytes(counts.rows - open_rows);
        Ok(Self { counts, prediction, hidden_bytes, prime_bits: literal.prime_bits })
    }
}
