//! Dealing tickets: the owner walks through the circuit on masks alone.

use zeroize::Zeroize;

use crate::backend::Backend;
use crate::bits::{low_mask, pack};
use crate::circuit::{LinearStep, StepOp, copies, stream, sums};
use crate::gates::maximum::PairMasks;
use crate::gates::shares::BothKeys;
use crate::sealing::OwnerModel;
use crate::stream::{Purpose, StreamKey};

/// Masks of a ticket's values, by value: what [`crate::difference`] compares an inference with.
pub struct Masks(pub(crate) Vec<Vec<u32>>);

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masks").field("values", &self.0.len()).finish_non_exhaustive()
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// Deals one ticket: the guest's shares. The server's half is its key.
pub fn deal(owner: &OwnerModel, backend: Backend, server: &StreamKey, guest: &StreamKey) -> Vec<u8> {
    deal_traced(owner, backend, server, guest).0
}

/// Deals one ticket and keeps all masks: with them an inference can be compared with the reference,
/// and read. [`deal`] forgets them.
pub fn deal_traced(owner: &OwnerModel, backend: Backend, server: &StreamKey, guest: &StreamKey) -> (Vec<u8>, Masks) {
    let circuit = &owner.circuit;
    let keys = BothKeys { server, guest };
    let mut dealing = Dealing {
        owner,
        backend,
        keys,
        ticket: Vec::with_capacity(circuit.counts().ticket_bytes),
        masks: Masks(vec![vec![]; circuit.steps.len() + 1]),
    };
    for &id in &circuit.entries {
        let mask = low_mask(circuit.bits(id));
        let words = guest.words(stream(id, 0), Purpose::Input, circuit.count(id));
        dealing.masks.0[id] = words.iter().map(|w| w & mask).collect();
    }
    for (step, _) in circuit.shared() {
        dealing.masks.0[step + 1] = dealing.step(step);
    }
    dealing.output();
    (dealing.ticket, dealing.masks)
}

struct Dealing<'a> {
    owner: &'a OwnerModel,
    backend: Backend,
    keys: BothKeys<'a>,
    ticket: Vec<u8>,
    masks: Masks,
}

impl Dealing<'_> {
    fn mask(&self, id: usize) -> &[u32] {
        &self.masks.0[id]
    }

    /// Masks of a step's result; of a layer those of its whole sums.
    fn step(&mut self, step: usize) -> Vec<u32> {
        let s = &self.owner.circuit.steps[step];
        match &s.op {
            StepOp::Linear(linear) => self.linear(step, linear),
            StepOp::Clamp { terms, gate, .. } => {
                let mut sums = vec![0_u32; s.count];
                for &term in terms {
                    let drop = self.dropped_of(term);
                    sums.iter_mut().zip(self.mask(term)).for_each(|(s, r)| *s = s.wrapping_add(r >> drop));
                }
                let mask = low_mask(gate.comparison.bits);
                sums.iter_mut().for_each(|s| *s &= mask);
                gate.deal(self.backend, &self.keys, stream(step, 0), &sums, &mut self.ticket)
            }
            StepOp::Max { input, gate, tree } => {
                let mut values = self.mask(*input).to_vec();
                for (level, pairs) in tree.levels.iter().enumerate() {
                    let of = |places: &[u32]| places.iter().map(|&p| values[p as usize]).collect::<Vec<_>>();
                    let (first, second) = (of(&pairs.first), of(&pairs.second));
                    let masks = PairMasks { first: &first, second: &second };
                    let mut next = gate.deal(self.backend, &self.keys, stream(step, level), masks, &mut self.ticket);
                    next.extend(of(&pairs.alone));
                    values = next;
                }
                tree.results.iter().map(|&p| values[p as usize]).collect()
            }
            StepOp::Sum { input, windows } => sums(self.mask(*input), windows),
            StepOp::Affine { input, shift, .. } => self.mask(*input).iter().map(|r| r << shift).collect(),
            StepOp::Copy { inputs, places } => copies(&self.masks.0, inputs, places),
        }
    }

    /// Bits that the mask of a term loses before it is summed: those that its layer drops.
    fn dropped_of(&self, term: usize) -> u32 {
        match term.checked_sub(1).map(|step| &self.owner.circuit.steps[step]) {
            Some(s) if !s.is_clear => match &s.op {
                StepOp::Linear(linear) => linear.drop,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// `W r - bias`, and both parties' streams; of the last layer the server's alone.
    fn linear(&self, step: usize, linear: &LinearStep) -> Vec<u32> {
        let n = linear.outputs();
        let mut masks = self.keys.server.words(stream(step, 0), Purpose::Summand, n);
        if let Some(matrix) = &self.owner.matrices[step] {
            matrix.add_product(self.backend, self.mask(linear.input), &mut masks);
        }
        let bias = &self.owner.biases[step];
        for (masks, bias) in masks.chunks_mut(n / bias.len().max(1)).zip(bias) {
            masks.iter_mut().for_each(|r| *r = r.wrapping_sub(*bias));
        }
        if self.owner.circuit.last_layer() != Some(step) {
            let guest = self.keys.guest.words(stream(step, 0), Purpose::Summand, n);
            masks.iter_mut().zip(guest).for_each(|(r, g)| *r = r.wrapping_add(g));
        }
        let mask = low_mask(linear.bits);
        masks.iter_mut().for_each(|r| *r &= mask);
        masks
    }

    /// What the guest adds to the server's last message to see the output.
    fn output(&mut self) {
        let circuit = &self.owner.circuit;
        let output = &circuit.output;
        let constants: Vec<u32> = match circuit.last_layer() {
            Some(_) => self.mask(output.source).iter().map(|r| r.wrapping_neg()).collect(),
            None => {
                let n = circuit.count(output.source);
                let server = self.keys.server.words(stream(circuit.steps.len(), 0), Purpose::Summand, n);
                let half = if output.drop > 0 { 1 << (output.drop - 1) } else { 0 };
                let constant = |(r, s): (&u32, u32)| r.wrapping_neg().wrapping_sub(s).wrapping_add(half);
                self.mask(output.source).iter().zip(server).map(constant).collect()
            }
        };
        pack(self.backend, &constants, circuit.output_modulus(), &mut self.ticket);
    }
}
