//! What both parties compute, step by step: public, and the same for owner, server and guest.

use jali_model::fixed::{FixedId, FixedInput, FixedNetwork, FixedOp, FixedOutput};
use jali_model::{Op, Pool};

use crate::gates::clamp::Clamp;
use crate::gates::comparison::{MAX_CHUNK, even_chunks};
use crate::gates::maximum::Maximum;
use crate::setup::Tables;

/// Most bits of a clamp's chunks, and of a max gate's: ticket bytes against opened bits.
const CLAMP_CHUNK: usize = 4;
const MAX_GATE_CHUNK: usize = 3;

/// A linear layer without its weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinearStep {
    pub(crate) input: FixedId,
    pub(crate) op: Op,
    pub(crate) input_shape: Vec<usize>,
    pub(crate) output_shape: Vec<usize>,
    /// Bits that are dropped of a sum.
    pub(crate) drop: u32,
    /// Bits of the modulus of its sums.
    pub(crate) bits: u32,
}

impl LinearStep {
    /// Numbers of its output.
    pub(crate) fn outputs(&self) -> usize {
        self.output_shape.iter().product()
    }

    /// Products of weights and inputs.
    pub(crate) fn products(&self) -> usize {
        let fan_in = match &self.op {
            Op::Conv(conv) => conv.channels * conv.kernel[0] * conv.kernel[1],
            Op::Gemm(gemm) => gemm.inputs,
            _ => 0,
        };
        self.outputs() * fan_in
    }
}

/// One level of a tree of maxima: pairs of places among the values of the level before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Level {
    pub(crate) first: Vec<u32>,
    pub(crate) second: Vec<u32>,
    /// Values that have no partner; they stand behind the maxima.
    pub(crate) alone: Vec<u32>,
}

/// The tree of maxima of all windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) levels: Vec<Level>,
    /// Where the results stand among the values of the last level.
    pub(crate) results: Vec<u32>,
}

/// What a step computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StepOp {
    Linear(LinearStep),
    Clamp {
        terms: Vec<FixedId>,
        low: i64,
        gate: Clamp,
    },
    Max {
        input: FixedId,
        gate: Maximum,
        tree: Tree,
    },
    /// Sums of these places.
    Sum {
        input: FixedId,
        windows: Vec<Vec<u32>>,
    },
    /// Shifted up by bits, and something public added.
    Affine {
        input: FixedId,
        shift: u32,
        add: Vec<u32>,
    },
    /// One more than a place among the inputs, or 0 for a zero.
    Copy {
        inputs: Vec<FixedId>,
        places: Vec<u32>,
    },
}

/// A step of the circuit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) op: StepOp,
    /// Numbers of its result.
    pub(crate) count: usize,
    /// Bits of the modulus of its result.
    pub(crate) bits: u32,
    /// Whether the guest alone computes it, in the clear.
    pub(crate) is_clear: bool,
}

/// A network as both parties compute it.
#[derive(Debug, Clone, PartialEq)]
pub struct Circuit {
    pub(crate) input: FixedInput,
    pub(crate) input_count: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) output: FixedOutput,
    /// Values that the guest masks and sends: the input, or what it computed of it in the clear.
    pub(crate) entries: Vec<FixedId>,
}

/// The chunks of a max gate's low bits.
fn max_gate_chunks(bits: usize, tables: Tables) -> Vec<usize> {
    let most = if tables == Tables::Direct && bits <= MAX_CHUNK { MAX_CHUNK } else { MAX_GATE_CHUNK };
    even_chunks(bits, most)
}

/// Names a stream of a party's key: a step, and a level of a tree within it.
pub(crate) fn stream(step: usize, level: usize) -> usize {
    step << 6 | level
}

impl Circuit {
    /// The circuit of a network in which these linear layers are wholly open, by their number in
    /// the graph.
    pub fn new(network: &FixedNetwork, is_open: &[bool], tables: Tables) -> Self {
        let mut steps: Vec<Step> = vec![];
        let clear = |steps: &[Step], id: FixedId| id.checked_sub(1).is_none_or(|step| steps[step].is_clear);
        for s in &network.steps {
            let (op, is_clear) = match &s.op {
                FixedOp::Linear(l) => {
                    // Constants between layers are open where everything before them is.
                    let open = l.layer.is_none_or(|layer| is_open.get(layer) == Some(&true));
                    let op = LinearStep {
                        input: l.input,
                        op: l.op.clone(),
                        input_shape: l.input_shape.clone(),
                        output_shape: l.output_shape.clone(),
                        drop: l.drop,
                        bits: l.bits,
                    };
                    (StepOp::Linear(op), open && clear(&steps, l.input))
                }
                FixedOp::Clamp { terms, low, span, bits } => {
                    let chunks = even_chunks(*bits as usize - 1, CLAMP_CHUNK);
                    let gate = Clamp::new(*bits, *span, s.bits, &chunks);
                    let is_clear = terms.iter().all(|&t| clear(&steps, t));
                    (StepOp::Clamp { terms: terms.clone(), low: *low, gate }, is_clear)
                }
                FixedOp::Max { input, pool } => {
                    let most = s.range[1] - s.range[0];
                    let bits = (2..32).find(|b| most < 1 << (b - 1)).unwrap_or(32);
                    let gate = Maximum::new(bits, s.bits, &max_gate_chunks(bits as usize - 1, tables));
                    let tree = Tree::of(pool, network.shape(*input), &s.shape);
                    (StepOp::Max { input: *input, gate, tree }, clear(&steps, *input))
                }
                FixedOp::Sum { input, pool } => {
                    let windows = windows(pool, network.shape(*input), &s.shape);
                    (StepOp::Sum { input: *input, windows }, clear(&steps, *input))
                }
                FixedOp::Affine { input, shift, add } => {
                    let op = StepOp::Affine { input: *input, shift: *shift, add: add.clone() };
                    (op, clear(&steps, *input))
                }
                FixedOp::Copy { inputs, places } => {
                    let is_clear = inputs.iter().all(|&i| clear(&steps, i));
                    (StepOp::Copy { inputs: inputs.clone(), places: places.clone() }, is_clear)
                }
            };
            let count = s.shape.iter().product();
            steps.push(Step { name: s.name.clone(), op, count, bits: s.bits, is_clear });
        }
        let input_count = network.shape(0).iter().product();
        let (input, output) = (network.input.clone(), network.output.clone());
        let mut circuit = Self { input, input_count, steps, output, entries: vec![] };
        circuit.entries = circuit.find_entries();
        circuit
    }

    /// How many steps it has.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Clear values that a shared step, or the output, takes.
    fn find_entries(&self) -> Vec<FixedId> {
        let mut entries: Vec<FixedId> = vec![];
        let shared = self.steps.iter().filter(|s| !s.is_clear).flat_map(|s| s.op.inputs());
        entries.extend(shared.chain([self.output.source]).filter(|&id| self.is_clear(id)));
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    /// Whether the guest knows a value in the clear.
    pub(crate) fn is_clear(&self, id: FixedId) -> bool {
        id.checked_sub(1).is_none_or(|step| self.steps[step].is_clear)
    }

    /// Numbers of a value.
    pub(crate) fn count(&self, id: FixedId) -> usize {
        id.checked_sub(1).map_or(self.input_count, |step| self.steps[step].count)
    }

    /// Bits of a value's modulus.
    pub(crate) fn bits(&self, id: FixedId) -> u32 {
        id.checked_sub(1).map_or(self.input.bits, |step| self.steps[step].bits)
    }

    /// The steps that both parties compute.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter(|(_, s)| !s.is_clear)
    }

    /// The layer whose sums are the output, unless the output is another value.
    pub(crate) fn last_layer(&self) -> Option<usize> {
        let step = self.output.source.checked_sub(1)?;
        self.is_summand(step + 1).then_some(step)
    }

    /// Bits of the modulus of the output before any are dropped.
    pub(crate) fn output_modulus(&self) -> u32 {
        let layer = self.last_layer().map(|step| &self.steps[step].op);
        match layer {
            Some(StepOp::Linear(linear)) => linear.bits,
            _ => self.output.bits + self.output.drop,
        }
    }

    /// Bits that are dropped of the output.
    pub(crate) fn output_drop(&self) -> u32 {
        let layer = self.last_layer().map(|step| &self.steps[step].op);
        match layer {
            Some(StepOp::Linear(linear)) => linear.drop,
            _ => self.output.drop,
        }
    }

    /// Whether a term of a clamp is a layer's sum, of which each party holds a summand.
    pub(crate) fn is_summand(&self, id: FixedId) -> bool {
        id.checked_sub(1)
            .is_some_and(|step| !self.steps[step].is_clear && matches!(self.steps[step].op, StepOp::Linear(_)))
    }
}

impl StepOp {
    /// What it takes.
    pub(crate) fn inputs(&self) -> Vec<FixedId> {
        match self {
            Self::Linear(LinearStep { input, .. })
            | Self::Max { input, .. }
            | Self::Sum { input, .. }
            | Self::Affine { input, .. } => vec![*input],
            Self::Clamp { terms: inputs, .. } | Self::Copy { inputs, .. } => inputs.clone(),
        }
    }
}

/// The sum of every window, modulo `2^32`: of values, of masked ones, or of masks.
pub(crate) fn sums(values: &[u32], windows: &[Vec<u32>]) -> Vec<u32> {
    windows.iter().map(|w| w.iter().fold(0, |sum: u32, &p| sum.wrapping_add(values[p as usize]))).collect()
}

/// Elements of several values by their places, one more than a place each, or 0 for a zero.
pub(crate) fn copies(values: &[Vec<u32>], inputs: &[FixedId], places: &[u32]) -> Vec<u32> {
    let all: Vec<u32> = inputs.iter().flat_map(|&i| values[i].iter().copied()).collect();
    places.iter().map(|&p| p.checked_sub(1).map_or(0, |p| all[p as usize])).collect()
}

/// Numbers shifted up, and something public added.
pub(crate) fn affine(values: &[u32], shift: u32, add: &[u32]) -> Vec<u32> {
    values.iter().zip(add).map(|(x, a)| (x << shift).wrapping_add(*a)).collect()
}

/// Places of every window inside of the planes, plane after plane.
fn windows(pool: &Pool, input: &[usize], output: &[usize]) -> Vec<Vec<u32>> {
    let (&[.., height, width], &[.., rows, columns]) = (input, output) else { return vec![] };
    let along = |place: usize, axis: usize, size: usize| {
        let tap =
            move |k: usize| (place * pool.stride[axis] + k * pool.dilation[axis]).wrapping_sub(pool.padding[axis]);
        (0..pool.kernel[axis]).map(tap).filter(move |&at| at < size).collect::<Vec<_>>()
    };
    let across: Vec<_> = (0..columns).map(|x| along(x, 1, width)).collect();
    let planes = input.iter().product::<usize>() / (height * width);
    let mut out = Vec::with_capacity(planes * rows * columns);
    for plane in 0..planes {
        for row in 0..rows {
            let down = along(row, 0, height);
            for across in &across {
                let places = down.iter().flat_map(|y| across.iter().map(move |x| (plane * height + y) * width + x));
                out.push(places.map(|place| place as u32).collect());
            }
        }
    }
    out
}

impl Tree {
    /// The maxima of all windows of a pool: over whole windows, or over their rows first where that
    /// takes fewer gates, as it does where windows overlap, and no more exchanges.
    fn of(pool: &Pool, input: &[usize], output: &[usize]) -> Self {
        let whole = {
            let mut tree = Self { levels: vec![], results: vec![] };
            tree.extend(windows(pool, input, output));
            tree
        };
        let &[.., columns] = output else { return whole };
        let across = Pool { kernel: [1, pool.kernel[1]], stride: [1, pool.stride[1]], ..pool.clone() };
        let across =
            Pool { padding: [0, pool.padding[1], 0, pool.padding[3]], dilation: [1, pool.dilation[1]], ..across };
        let mut between = input.to_vec();
        let last = between.len() - 1;
        between[last] = columns;
        let mut tree = Self { levels: vec![], results: vec![] };
        tree.extend(windows(&across, input, &between));
        let down = Pool { kernel: [pool.kernel[0], 1], stride: [pool.stride[0], 1], ..pool.clone() };
        let down = Pool { padding: [pool.padding[0], 0, pool.padding[2], 0], dilation: [pool.dilation[0], 1], ..down };
        let of_rows = std::mem::take(&mut tree.results);
        let place = |window: Vec<u32>| window.into_iter().map(|p| of_rows[p as usize]).collect();
        tree.extend(windows(&down, &between, output).into_iter().map(place).collect());
        let is_better = tree.gates() < whole.gates() && tree.levels.len() <= whole.levels.len();
        if is_better { tree } else { whole }
    }

    /// Gates of all levels.
    fn gates(&self) -> usize {
        self.levels.iter().map(|level| level.first.len()).sum()
    }

    /// Pairs the values of every window, until one is left of each. Windows may share values.
    fn extend(&mut self, mut windows: Vec<Vec<u32>>) {
        while windows.iter().any(|w| w.len() > 1) {
            let mut level = Level::default();
            let gates: u32 = windows.iter().map(|w| w.len() as u32 / 2).sum();
            for window in &mut windows {
                let mut next = vec![];
                for pair in window.chunks(2) {
                    match *pair {
                        [a, c] => {
                            next.push(level.first.len() as u32);
                            level.first.push(a);
                            level.second.push(c);
                        }
                        _ => {
                            next.push(gates + level.alone.len() as u32);
                            level.alone.push(pair[0]);
                        }
                    }
                }
                *window = next;
            }
            self.levels.push(level);
        }
        self.results = windows.iter().map(|w| w.first().copied().unwrap_or(0)).collect();
    }
}
