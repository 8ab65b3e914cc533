//! The two parties of an inference, without input or output: messages go in and come out.
//!
//! A session is consumed by every message, and gives itself back while it goes on: no message can
//! be taken twice or out of order.

use crate::GuestError;
use crate::backend::Backend;
use crate::bits::{low_mask, pack, packed_bytes, unpack};
use crate::circuit::{Circuit, StepOp, affine, copies, stream, sums};
use crate::party::{Next, Party, Role};
use crate::sealing::{GuestModel, ServerModel};
use crate::stream::{Purpose, StreamKey};
use crate::ticket::GuestTicket;
use crate::trace::Trace;

/// What follows a message.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Turn<S, D> {
    /// This message goes to the other party, whose next one the session takes.
    Goes {
        /// What to send.
        message: Vec<u8>,
        /// The session that goes on.
        session: S,
    },
    /// Nothing is sent; the session takes the other's next message.
    Waits(S),
    /// The inference has ended.
    Done(D),
}

/// What a server ends with.
#[derive(Debug)]
pub struct Served {
    /// The last message for the guest.
    pub message: Vec<u8>,
    /// What was kept, if [`ServerSession::traced`] asked for it.
    pub trace: Option<Trace>,
}

/// What a guest ends with.
#[derive(Debug)]
pub struct Output {
    /// The network's output as integers; [`jali_model::fixed::FixedNetwork::numbers`] scales them.
    pub integers: Vec<i64>,
    /// What was kept, if [`GuestStart::traced`] asked for it.
    pub trace: Option<Trace>,
}

/// A server's side of one inference.
pub struct ServerSession<'m> {
    party: Party<'m>,
    circuit: &'m Circuit,
    backend: Backend,
    /// Whether the guest's input has come.
    begun: bool,
}

impl std::fmt::Debug for ServerSession<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSession").field("received", &self.party.received()).finish_non_exhaustive()
    }
}

impl<'m> ServerSession<'m> {
    /// Waits for a guest's input; `key` is the server's half of the ticket, and serves this once.
    pub fn new(model: &'m ServerModel, backend: Backend, key: StreamKey) -> Self {
        let party = Party::new(&model.circuit, &model.matrices, backend, key, Role::Server, vec![]);
        Self { party, circuit: &model.circuit, backend, begun: false }
    }

    /// Takes the guest's message: the masked input first, then one for each exchange. The last turn
    /// is the message that ends the inference.
    ///
    /// # Errors
    /// [`GuestError::Message`] for another length or bits behind the last value. The session is
    /// gone then, and so is the ticket.
    pub fn receive(mut self, message: &[u8]) -> Result<Turn<Self, Served>, GuestError> {
        let next = if self.begun {
            self.party.receive(message)?
        } else {
            self.begun = true;
            self.enter(message)?;
            self.party.run()?
        };
        Ok(match next {
            Next::Exchange(message) => Turn::Goes { message, session: self },
            Next::Finished => Turn::Done(Served { message: self.output(), trace: self.party.take_trace() }),
        })
    }

    /// Reads the masked values that the guest begins with.
    fn enter(&mut self, message: &[u8]) -> Result<(), GuestError> {
        let sizes = self.circuit.entries.iter().map(|&id| (self.circuit.count(id), self.circuit.bits(id)));
        let expected = sizes.clone().map(|(n, bits)| packed_bytes(n, bits)).sum();
        let refused = || GuestError::Message { number: 0, expected, got: message.len() };
        let mut rest = (message.len() == expected).then_some(message).ok_or_else(refused)?;
        let mut entries = vec![];
        for (n, bits) in sizes {
            let (part, behind) = rest.split_at(packed_bytes(n, bits));
            rest = behind;
            entries.push(unpack(self.backend, part, bits, n).ok_or_else(refused)?);
        }
        self.party.enter(entries);
        Ok(())
    }

    /// The server's summand of the output, which it alone sends.
    fn output(&mut self) -> Vec<u8> {
        let (circuit, source) = (self.circuit, self.circuit.output.source);
        let mut values = self.party.value(source).to_vec();
        if circuit.last_layer().is_none() {
            let words = self.party.key().words(stream(circuit.steps.len(), 0), Purpose::Summand, values.len());
            let mask = low_mask(circuit.output_modulus());
            values.iter_mut().zip(words).for_each(|(v, w)| *v = v.wrapping_add(w) & mask);
            if let Some(summands) = &mut self.party.summands {
                summands[circuit.steps.len()] = values.clone();
            }
            values.iter_mut().for_each(|v| *v >>= circuit.output_drop());
        }
        let mut message = vec![];
        pack(self.backend, &values, circuit.output.bits, &mut message);
        message
    }

    /// Keeps its summands of layers, to compare the inference with the reference.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.party.keep_trace();
        self
    }

    /// The step of the circuit at which the session waits.
    pub fn step(&self) -> usize {
        self.party.step()
    }
}

/// A guest's side of one inference.
pub struct GuestSession<'m> {
    party: Party<'m>,
    circuit: &'m Circuit,
    backend: Backend,
    /// Whether all shared steps are done: the server's last message is missing.
    at_end: bool,
}

impl std::fmt::Debug for GuestSession<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestSession").field("received", &self.party.received()).finish_non_exhaustive()
    }
}

impl<'m> GuestSession<'m> {
    /// Computes what is open before anything hidden, and masks it: gives the first message, the
    /// masked input, and what goes on once it is sent. It uses the ticket up.
    ///
    /// # Errors
    /// [`GuestError::Input`] for another number of integers; [`GuestError::Ticket`] for a ticket of
    /// another network.
    pub fn begin(
        model: &'m GuestModel,
        backend: Backend,
        ticket: GuestTicket,
        input: &[i32],
    ) -> Result<(Vec<u8>, GuestStart<'m>), GuestError> {
        let circuit = &model.circuit;
        if input.len() != circuit.input_count {
            return Err(GuestError::Input { expected: circuit.input_count, got: input.len() });
        }
        let mut clear = in_the_clear(model, backend, input);
        let (key, shares) = ticket.open();
        let (mut message, mut entries) = (vec![], vec![]);
        for &id in &circuit.entries {
            let (bits, values) = (circuit.bits(id), std::mem::take(&mut clear[id]));
            let masks = key.words(stream(id, 0), Purpose::Input, values.len());
            let mask = low_mask(bits);
            let masked: Vec<u32> = values.iter().zip(masks).map(|(x, r)| x.wrapping_add(r) & mask).collect();
            pack(backend, &masked, bits, &mut message);
            entries.push(masked);
        }
        let party = Party::new(circuit, &model.matrices, backend, key, Role::Guest(shares), entries);
        Ok((message, GuestStart(Self { party, circuit, backend, at_end: false })))
    }

    fn turn(mut self, next: Next) -> Turn<Self, Output> {
        match next {
            Next::Exchange(message) => Turn::Goes { message, session: self },
            Next::Finished => {
                self.at_end = true;
                Turn::Waits(self)
            }
        }
    }

    /// Takes the server's message. At the end it gives the output's integers.
    ///
    /// # Errors
    /// [`GuestError::Message`] for another length or bits behind the last value;
    /// [`GuestError::Ticket`] for a ticket of another network. The session and the ticket are gone
    /// then.
    pub fn receive(mut self, message: &[u8]) -> Result<Turn<Self, Output>, GuestError> {
        if self.at_end {
            return self.output(message).map(Turn::Done);
        }
        let next = self.party.receive(message)?;
        Ok(self.turn(next))
    }

    /// Adds the server's summand of the output to the guest's.
    fn output(mut self, message: &[u8]) -> Result<Output, GuestError> {
        let (circuit, source) = (self.circuit, self.circuit.output.source);
        let (n, bits, backend) = (circuit.count(source), circuit.output.bits, self.backend);
        let number = self.party.received();
        let refused = || GuestError::Message { number, expected: packed_bytes(n, bits), got: message.len() };
        let theirs = unpack(backend, message, bits, n).ok_or_else(refused)?;
        let own = match circuit.last_layer() {
            Some(_) => self.party.value(source).to_vec(),
            None => {
                let shares = self.party.shares().and_then(|s| s.values(backend, circuit.output_modulus(), n));
                let mask = low_mask(circuit.output_modulus());
                let dealt = shares.ok_or(GuestError::Ticket { step: circuit.steps.len() })?;
                dealt.iter().map(|c| (c & mask) >> circuit.output_drop()).collect()
            }
        };
        if !self.party.shares().is_some_and(|s| s.is_empty()) {
            return Err(GuestError::Ticket { step: circuit.steps.len() });
        }
        let sign = 32 - bits;
        let sum = |(a, b): (&u32, u32)| match circuit.output.classes {
            // The number of a class has no sign.
            Some(_) => i64::from(a.wrapping_add(b) & low_mask(bits)),
            None => i64::from((a.wrapping_add(b) << sign) as i32 >> sign),
        };
        let integers = own.iter().zip(theirs).map(sum).collect();
        Ok(Output { integers, trace: self.party.take_trace() })
    }

    /// The step of the circuit at which the session waits.
    pub fn step(&self) -> usize {
        self.party.step()
    }
}

/// A guest whose first message is on its way: it computes up to the first exchange while the server
/// does.
#[derive(Debug)]
pub struct GuestStart<'m>(GuestSession<'m>);

impl<'m> GuestStart<'m> {
    /// Keeps all wires, to compare the inference with the reference.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.0.party.keep_trace();
        self
    }

    /// Runs to the first exchange, if there is one.
    ///
    /// # Errors
    /// [`GuestError::Ticket`] for a ticket of another network.
    pub fn run(mut self) -> Result<Turn<GuestSession<'m>, Output>, GuestError> {
        let next = self.0.party.run()?;
        Ok(self.0.turn(next))
    }

    /// The step of the circuit that comes first.
    pub fn step(&self) -> usize {
        self.0.step()
    }
}

/// The values that the guest computes alone, as words; empty where they are shared.
fn in_the_clear(model: &GuestModel, backend: Backend, input: &[i32]) -> Vec<Vec<u32>> {
    let circuit = &model.circuit;
    let mut values = vec![vec![]; circuit.steps.len() + 1];
    values[0] = input.iter().map(|&v| v as u32).collect();
    for (step, s) in circuit.steps.iter().enumerate().filter(|(_, s)| s.is_clear) {
        values[step + 1] = match &s.op {
            StepOp::Linear(linear) => {
                let Some(layer) = &model.clear[step] else { continue };
                let mut sums = vec![0; linear.outputs()];
                let places = sums.len() / layer.bias.len().max(1);
                sums.chunks_mut(places.max(1)).zip(&layer.bias).for_each(|(s, b)| s.fill(*b));
                layer.matrix.add_product(backend, &values[linear.input], &mut sums);
                let sign = 32 - linear.bits;
                sums.iter().map(|&s| ((s << sign) as i32 >> sign >> linear.drop) as u32).collect()
            }
            StepOp::Clamp { terms, low, gate } => {
                // Modulo 2^32, as what is clamped has fewer bits by the bound of every clamp's
                // input.
                let low = *low as u32;
                let mut sums = vec![low.wrapping_neg(); s.count];
                for &term in terms {
                    sums.iter_mut().zip(&values[term]).for_each(|(s, v)| *s = s.wrapping_add(*v));
                }
                let clamp = |y: u32| ((y as i32).max(0).min(gate.span as i32) as u32).wrapping_add(low);
                sums.iter_mut().for_each(|y| *y = clamp(*y));
                sums
            }
            StepOp::Max { input, tree, .. } => {
                let mut now = values[*input].clone();
                for level in &tree.levels {
                    let larger = |(a, c): (&u32, &u32)| (now[*a as usize] as i32).max(now[*c as usize] as i32) as u32;
                    let mut next: Vec<u32> = level.first.iter().zip(&level.second).map(larger).collect();
                    next.extend(level.alone.iter().map(|&p| now[p as usize]));
                    now = next;
                }
                tree.results.iter().map(|&p| now[p as usize]).collect()
            }
            StepOp::Sum { input, windows } => sums(&values[*input], windows),
            StepOp::Affine { input, shift, add } => affine(&values[*input], *shift, add),
            StepOp::Copy { inputs, places } => copies(&values, inputs, places),
        };
    }
    values
}
