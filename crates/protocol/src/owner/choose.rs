//! Chooses the cheapest ring and layout of a linear layer, from its shape and from whether anything
//! in it is hidden.

use std::ops::Range;

use jali_mask::params::OperatorShape;
use jali_mask::{MaskError, Parameters, ParametersLiteral};
use jali_model::{Linear, QuantConfig, QuantModel};
use jali_pack::{Costs, Layout, OperatorCounts, Prediction};

use crate::ProtocolError;

/// Degrees tried, smallest first.
const DEGREES: [usize; 5] = [2048, 4096, 8192, 16384, 32768];

/// Sealed bytes that weigh as much as a millisecond of every image. Bytes have to count, because
/// strips of large planes share one matrix: that always saves memory, but saves time only where the
/// bus is slower than the backend.
const BYTES_WORTH_A_MS: f64 = 50e6;

/// How much more a millisecond of the server weighs than one of the client: a server works for many
/// clients. Where two layouts cost the same in all, as those with more tiles and those with more
/// rows often do, it decides for fewer rows.
const SERVER_SURCHARGE: f64 = 0.25;

/// A larger first prime is taken for the sake of open rows if the expected cost falls below this
/// part of what it was. The margin is needed because residues modulo a larger prime take a byte
/// more and are folded more often, which the counts of the cost model do not see.
const WORTH_A_LARGER_PRIME: f64 = 0.9;

/// Ring and layout of one operator.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// Checked parameters.
    pub parameters: Parameters,
    /// Layout.
    pub layout: Layout,
    /// The times that the costs expect for one image.
    pub prediction: Prediction,
    /// Numbers that go into and come out of the layer.
    values: usize,
    /// The shape that the modulus was chosen for.
    shape: OperatorShape,
    /// Rows that will be open.
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

    /// Takes primes by which open rows do with the first one, if the costs expect that to be
    /// cheaper, and keeps the layout. `q` is larger then, within what security allows at this
    /// degree.
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

    /// Returns the counts that the operator's cost follows from.
    pub fn counts(&self) -> OperatorCounts {
        counts(self.parameters.literal(), &self.layout, self.values, self.open_rows)
    }

    /// Returns the range of weights that each row holds, for policies that open whole rows.
    pub fn row_weights(&self, linear: Linear<'_>) -> Vec<Range<usize>> {
        let fan_in = linear.fan_in();
        let range = |row| {
            let outputs = self.layout.outputs_of_row(row);
            outputs.start * fan_in..outputs.end * fan_in
        };
        (0..self.layout.rows()).map(range).collect()
    }

    /// Returns the ranges of weights of all rows of a network, `[layer][row]`, for the layouts that
    /// are chosen if everything is hidden.
    ///
    /// # Errors
    /// [`ProtocolError::Layer`] if a layer cannot be lowered.
    pub fn rows_of_all(model: &QuantModel, costs: &Costs) -> Result<Vec<Vec<Range<usize>>>, ProtocolError> {
        let rows = |(node, linear)| Ok(Self::choose(model, node, true, costs)?.row_weights(linear));
        model.graph().linear_nodes().map(rows).collect()
    }
}

/// All that a choice needs to know of a linear layer.
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

/// The parameters and the layout that [`Layer::cheapest`] finds.
struct Cheapest {
    /// Milliseconds as [`weigh`] adds them up.
    weight: f64,
    literal: ParametersLiteral,
    layout: Layout,
    prediction: Prediction,
}

impl Layer<'_> {
    /// Finds the cheapest parameters and layout.
    ///
    /// # Errors
    /// Words that say why there are none.
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

    /// Returns what the modulus of this layer in a layout must have room for.
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

/// Returns the weight of a layout in milliseconds: the expected ones, the server's a quarter more,
/// and those that sealed bytes stand for.
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

/// Returns parameters by which open rows do with one prime, if there are any and they make the
/// layer enough cheaper than `total_ms`. Too little room for the larger modulus is no error: the
/// layer stays as it is.
///
/// The arguments are the ring's `degree`, the `shape` that the modulus needs room for, the number
/// of rows that will be open, the milliseconds that the layer costs now, the costs, and the
/// `counts` of the layer for some parameters.
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

/// An estimate of what a linear layer of some shape takes, without weights and without building
/// anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Counts that the cost follows from.
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
    /// Numbers that come out of it.
    pub outputs: usize,
}

impl Estimate {
    /// Estimates one linear layer with the fraction `open` of its rows open, from 0 to 1.
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
