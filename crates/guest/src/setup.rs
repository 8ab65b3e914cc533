//! What is public about how a network is shared: which rows are hidden, and which tables are dealt.

use jali_leak::Plan;
use jali_model::fixed::{FixedLinear, FixedNetwork, FixedOp};

use crate::GuestError;
use crate::circuit::Circuit;

/// How much of a layer is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Weights in hidden rows.
    pub hidden: usize,
    /// Weights of the layer.
    pub of: usize,
}

/// Bits of a hidden weight as the keyed mode quantises it.
const WEIGHT_BITS: usize = 8;

impl Hidden {
    /// Bits of the hidden weights, eight for each: what the bits that tickets tell are compared
    /// with.
    pub fn bits(&self) -> usize {
        WEIGHT_BITS * self.hidden
    }

    /// The part of the weights that is hidden.
    pub fn fraction(&self) -> f64 {
        self.hidden as f64 / self.of.max(1) as f64
    }
}

impl std::iter::Sum for Hidden {
    fn sum<I: Iterator<Item = Self>>(layers: I) -> Self {
        layers.fold(Self::default(), |all, layer| Self { hidden: all.hidden + layer.hidden, of: all.of + layer.of })
    }
}

/// How maxima are compared: ticket bytes against exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tables {
    /// By tables of three bits: about three bytes a comparison, and an exchange that opens what was
    /// looked up in them.
    #[default]
    Small,
    /// By one table, where differences have few enough bits: up to 64 bytes, and no such exchange.
    Direct,
}

/// What is public about how a network is shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// By step: whether each row is hidden.
    rows: Vec<Vec<bool>>,
    tables: Tables,
}

impl Setup {
    /// Of a network under a plan: rows of which it allows every weight to be open stay open.
    pub(crate) fn of(network: &FixedNetwork, plan: &Plan, tables: Tables) -> Self {
        let rows = network.steps.iter().map(|s| match &s.op {
            FixedOp::Linear(linear) => {
                let (outputs, fan_in) = linear.size();
                // Constants between layers are hidden unless everything before them is open.
                let may_open =
                    |row| linear.layer.is_some_and(|layer| plan.may_open(layer, row * fan_in..(row + 1) * fan_in));
                (0..outputs).map(|row| !may_open(row)).collect()
            }
            _ => vec![],
        });
        Self { rows: rows.collect(), tables }
    }

    /// As they were stored, by step.
    ///
    /// # Errors
    /// [`GuestError::Weights`] if they are another network's.
    pub fn from_stored(network: &FixedNetwork, rows: Vec<Vec<bool>>, tables: Tables) -> Result<Self, GuestError> {
        for step in 0..network.steps.len() {
            let expected = network.layer(step).map_or(0, |linear| linear.size().0);
            if rows.get(step).map(Vec::len) != Some(expected) {
                return Err(GuestError::Weights { step });
            }
        }
        Ok(Self { rows, tables })
    }

    /// By step: whether each row is hidden.
    pub fn rows(&self) -> &[Vec<bool>] {
        &self.rows
    }

    /// How maxima are compared.
    pub fn tables(&self) -> Tables {
        self.tables
    }

    /// Keeps the rows and changes the tables.
    #[must_use]
    pub(crate) fn with(self, tables: Tables) -> Self {
        Self { tables, ..self }
    }

    /// The circuit of a network that is shared like this.
    pub fn circuit(&self, network: &FixedNetwork) -> Circuit {
        let mut open = vec![];
        for (s, rows) in network.steps.iter().zip(&self.rows) {
            if let FixedOp::Linear(FixedLinear { layer: Some(layer), .. }) = &s.op {
                open.resize(open.len().max(layer + 1), false);
                open[*layer] = !rows.contains(&true);
            }
        }
        Circuit::new(network, &open, self.tables)
    }
}
