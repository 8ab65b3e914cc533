//! One party's way through a circuit, message by message, without input or output.
//!
//! Both parties take the same steps at the same time. At an exchange each sends its share and adds
//! the other's; between exchanges everything is local.

mod kind;

use std::borrow::Cow;

use kind::{GateInputs, GateKind, open_planes, without_pads};

use crate::GuestError;
use crate::backend::Backend;
use crate::bits::{Plane, low_mask, pack, packed_bytes, plane_bytes, unpack};
use crate::circuit::{Circuit, LinearStep, StepOp, affine, copies, stream, sums};
use crate::gates::clamp::Clamp;
use crate::gates::shares::GateShares;
use crate::gates::thermometer::{finish, look_up};
use crate::sealing::Matrices;
use crate::stream::{Purpose, StreamKey};
use crate::ticket::Shares;
use crate::trace::Trace;

/// Where a party's shares come from.
pub(crate) enum Role {
    /// The server derives all of them.
    Server,
    /// The guest reads what was dealt.
    Guest(Shares),
}

/// What a party does next.
pub(crate) enum Next {
    /// It sends this and waits for the other's message.
    Exchange(Vec<u8>),
    /// Every shared step is done.
    Finished,
}

/// A party under way.
pub(crate) struct Party<'m> {
    circuit: &'m Circuit,
    matrices: &'m Matrices,
    backend: Backend,
    key: StreamKey,
    role: Role,
    /// By value: what both parties know, or, of a layer, this party's summand without the dropped
    /// bits.
    values: Vec<Vec<u32>>,
    /// The step that comes next.
    at: usize,
    waiting: Option<Waiting>,
    /// Messages received.
    received: usize,
    /// Whole summands of layers, by step, if a trace was asked for.
    pub(crate) summands: Option<Vec<Vec<u32>>>,
}

/// What the other's message completes.
enum Waiting {
    /// A clamp's sum.
    Sum { own: Vec<u32> },
    /// Looked-up bits of gates.
    Looked { gates: Gates, own: Vec<Plane> },
    /// The bits that gates open last.
    Bits { gates: Gates, own: Vec<Plane> },
    /// Results of gates.
    Values { gates: Gates, own: Vec<u32> },
}

/// Gates under way.
struct Gates {
    shares: GateShares,
    signs: Vec<Plane>,
    inputs: GateInputs,
}

impl<'m> Party<'m> {
    /// A party with the values that enter the circuit.
    pub(crate) fn new(
        circuit: &'m Circuit,
        matrices: &'m Matrices,
        backend: Backend,
        key: StreamKey,
        role: Role,
        entries: Vec<Vec<u32>>,
    ) -> Self {
        let mut values = vec![vec![]; circuit.steps.len() + 1];
        for (&id, entry) in circuit.entries.iter().zip(entries) {
            values[id] = entry;
        }
        Self { circuit, matrices, backend, key, role, values, at: 0, waiting: None, received: 0, summands: None }
    }

    fn is_server(&self) -> bool {
        matches!(self.role, Role::Server)
    }

    /// A value: masked, or of a layer this party's summand.
    pub(crate) fn value(&self, id: usize) -> &[u32] {
        &self.values[id]
    }

    /// Messages received so far.
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// Sets the values that enter the circuit: what the guest's first message holds.
    pub(crate) fn enter(&mut self, entries: Vec<Vec<u32>>) {
        self.received += 1;
        for (&id, entry) in self.circuit.entries.iter().zip(entries) {
            self.values[id] = entry;
        }
    }

    /// The step at which it waits for a message.
    pub(crate) fn step(&self) -> usize {
        self.at
    }

    /// Keeps what a comparison with the reference needs.
    pub(crate) fn keep_trace(&mut self) {
        self.summands = Some(vec![vec![]; self.circuit.steps.len() + 1]);
    }

    /// What was kept.
    pub(crate) fn take_trace(&mut self) -> Option<Trace> {
        let summands = self.summands.take()?;
        Some(Trace { summands, wires: std::mem::take(&mut self.values) })
    }

    pub(crate) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// The shares that the guest has not read yet.
    pub(crate) fn shares(&mut self) -> Option<&mut Shares> {
        match &mut self.role {
            Role::Guest(shares) => Some(shares),
            Role::Server => None,
        }
    }

    /// Runs to the next exchange.
    pub(crate) fn run(&mut self) -> Result<Next, GuestError> {
        let circuit = self.circuit;
        while let Some(s) = circuit.steps.get(self.at) {
            let step = self.at;
            if !s.is_clear {
                match &s.op {
                    StepOp::Linear(linear) => self.values[step + 1] = self.linear(step, linear)?,
                    StepOp::Clamp { terms, low, gate } => return self.begin_clamp(terms, *low, gate),
                    StepOp::Max { input, .. } => return self.begin_level(0, self.values[*input].clone()),
                    StepOp::Sum { input, windows } => self.values[step + 1] = sums(&self.values[*input], windows),
                    StepOp::Affine { input, shift, add } => {
                        self.values[step + 1] = affine(&self.values[*input], *shift, add);
                    }
                    StepOp::Copy { inputs, places } => {
                        self.values[step + 1] = copies(&self.values, inputs, places);
                    }
                }
            }
            self.at += 1;
        }
        Ok(Next::Finished)
    }

    /// This party's summand of a layer, without the bits that it drops.
    fn linear(&mut self, step: usize, linear: &LinearStep) -> Result<Vec<u32>, GuestError> {
        let n = linear.outputs();
        let mut sums = match (&mut self.role, self.circuit.last_layer()) {
            // The last layer's summand completes the output.
            (Role::Guest(shares), Some(last)) if last == step => {
                shares.values(self.backend, linear.bits, n).ok_or(GuestError::Ticket { step })?
            }
            _ => self.key.words(stream(step, 0), Purpose::Summand, n),
        };
        if let Some(matrix) = &self.matrices[step] {
            matrix.add_product(self.backend, &self.values[linear.input], &mut sums);
        }
        let mask = low_mask(linear.bits);
        if let Some(summands) = &mut self.summands {
            summands[step] = sums.iter().map(|s| s & mask).collect();
        }
        sums.iter_mut().for_each(|s| *s = (*s & mask) >> linear.drop);
        Ok(sums)
    }

    fn begin_clamp(&mut self, terms: &[usize], low: i64, gate: &Clamp) -> Result<Next, GuestError> {
        let mut sums = vec![0_u32; self.circuit.steps[self.at].count];
        let opens = terms.iter().any(|&t| self.circuit.is_summand(t));
        for &term in terms {
            // What both know counts once; the server brings it in.
            if self.circuit.is_summand(term) || self.is_server() || !opens {
                sums.iter_mut().zip(&self.values[term]).for_each(|(s, v)| *s = s.wrapping_add(*v));
            }
        }
        if self.is_server() || !opens {
            sums.iter_mut().for_each(|s| *s = s.wrapping_sub(low as u32));
        }
        let bits = gate.comparison.bits;
        sums.iter_mut().for_each(|s| *s &= low_mask(bits));
        if !opens {
            return self.compare(GateInputs::Clamp { sums });
        }
        let mut message = vec![];
        pack(self.backend, &sums, bits, &mut message);
        self.waiting = Some(Waiting::Sum { own: sums });
        Ok(Next::Exchange(message))
    }

    fn begin_level(&mut self, level: usize, values: Vec<u32>) -> Result<Next, GuestError> {
        let StepOp::Max { tree, .. } = &self.circuit.steps[self.at].op else { unreachable!("a level of a Max") };
        let Some(pairs) = tree.levels.get(level) else {
            self.values[self.at + 1] = tree.results.iter().map(|&p| values[p as usize]).collect();
            self.at += 1;
            return self.run();
        };
        let of = |places: &[u32]| places.iter().map(|&p| values[p as usize]).collect::<Vec<_>>();
        let inputs =
            GateInputs::Max { level, first: of(&pairs.first), second: of(&pairs.second), alone: of(&pairs.alone) };
        self.compare(inputs)
    }

    fn gate(&self) -> GateKind<'m> {
        match &self.circuit.steps[self.at].op {
            StepOp::Clamp { gate, .. } => GateKind::Clamp(gate),
            StepOp::Max { gate, .. } => GateKind::Max(gate),
            _ => unreachable!("only these steps have gates"),
        }
    }

    /// Looks up and sends the looked-up bits, if there are any to open.
    fn compare(&mut self, inputs: GateInputs) -> Result<Next, GuestError> {
        let (gate, is_server) = (self.gate(), self.is_server());
        let (level, u) = match &inputs {
            GateInputs::Clamp { sums } => (0, Cow::Borrowed(sums)),
            GateInputs::Max { level, first, second, .. } => {
                (*level, Cow::Owned(first.iter().zip(second).map(|(a, c)| a.wrapping_sub(*c)).collect()))
            }
        };
        let (comparison, widths) = (gate.comparison(), gate.widths());
        let step = gate.step(stream(self.at, level), u.len(), &widths);
        let shares = match &mut self.role {
            Role::Server => step.of_server(&self.key),
            Role::Guest(dealt) => dealt.of_gates(self.backend, &self.key, step)?,
        };
        let looked = look_up(self.backend, comparison, is_server, &u, &shares.tables, &shares.own);
        let gates = Gates { shares, signs: looked.signs, inputs };
        if comparison.variables == 0 {
            return self.send_bits(gates, &[]);
        }
        let own = without_pads(looked.opened, comparison.variables, gates.inputs.count());
        let message = plane_bytes(&own).to_vec();
        self.waiting = Some(Waiting::Looked { gates, own });
        Ok(Next::Exchange(message))
    }

    /// Finishes the comparison and sends the bits that decide.
    fn send_bits(&mut self, mut gates: Gates, opened: &[Plane]) -> Result<Next, GuestError> {
        let (gate, is_server) = (self.gate(), self.is_server());
        let (comparison, shares) = (gate.comparison(), &gates.shares);
        finish(self.backend, comparison, is_server, opened, &shares.tables, &shares.own, &mut gates.signs);
        gate.fold(is_server, &shares.own, &mut gates.signs);
        let own = without_pads(std::mem::take(&mut gates.signs), comparison.points(), gates.inputs.count());
        let message = plane_bytes(&own).to_vec();
        self.waiting = Some(Waiting::Bits { gates, own });
        Ok(Next::Exchange(message))
    }

    /// Computes and sends the share of the results.
    fn send_values(&mut self, gates: Gates, bits: &[Plane]) -> Result<Next, GuestError> {
        let (gate, is_server) = (self.gate(), self.is_server());
        let own = match (&gates.inputs, &gate) {
            (GateInputs::Clamp { sums }, GateKind::Clamp(g)) => {
                g.value(self.backend, is_server, sums, bits, &gates.shares)
            }
            (GateInputs::Max { first, second, .. }, GateKind::Max(g)) => {
                g.value(self.backend, is_server, first, second, bits, &gates.shares)
            }
            _ => unreachable!("a step has one kind of gate"),
        };
        let mut message = vec![];
        pack(self.backend, &own, gate.result_bits(), &mut message);
        self.waiting = Some(Waiting::Values { gates, own });
        Ok(Next::Exchange(message))
    }

    /// Adds the results' shares and goes on.
    fn finish_gates(&mut self, gates: Gates, own: Vec<u32>, theirs: Vec<u32>) -> Result<Next, GuestError> {
        let mask = low_mask(self.gate().result_bits());
        let mut results: Vec<u32> = own.iter().zip(theirs).map(|(a, b)| a.wrapping_add(b) & mask).collect();
        match gates.inputs {
            GateInputs::Clamp { .. } => {
                let StepOp::Clamp { low, .. } = self.circuit.steps[self.at].op else { unreachable!("a clamp") };
                results.iter_mut().for_each(|z| *z = z.wrapping_add(low as u32) & mask);
                self.values[self.at + 1] = results;
                self.at += 1;
                self.run()
            }
            GateInputs::Max { level, alone, .. } => {
                results.extend(alone);
                self.begin_level(level + 1, results)
            }
        }
    }

    /// Takes the other's message and runs to the next exchange.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Next, GuestError> {
        let number = self.received;
        self.received += 1;
        let refused = |expected: usize| GuestError::Message { number, expected, got: bytes.len() };
        let waiting = self.waiting.take().ok_or_else(|| refused(0))?;
        match waiting {
            Waiting::Sum { mut own } => {
                let bits = self.gate().comparison().bits;
                let theirs = unpack(self.backend, bytes, bits, own.len());
                let theirs = theirs.ok_or_else(|| refused(packed_bytes(own.len(), bits)))?;
                let mask = low_mask(bits);
                own.iter_mut().zip(theirs).for_each(|(a, b)| *a = a.wrapping_add(b) & mask);
                self.compare(GateInputs::Clamp { sums: own })
            }
            Waiting::Looked { gates, own } => {
                let planes = self.gate().comparison().variables;
                let opened = open_planes(own, bytes, planes, gates.inputs.count()).map_err(refused)?;
                self.send_bits(gates, &opened)
            }
            Waiting::Bits { gates, own } => {
                let planes = self.gate().comparison().points();
                let opened = open_planes(own, bytes, planes, gates.inputs.count()).map_err(refused)?;
                self.send_values(gates, &opened)
            }
            Waiting::Values { gates, own } => {
                let bits = self.gate().result_bits();
                let theirs = unpack(self.backend, bytes, bits, own.len());
                let theirs = theirs.ok_or_else(|| refused(packed_bytes(own.len(), bits)))?;
                self.finish_gates(gates, own, theirs)
            }
        }
    }
}
