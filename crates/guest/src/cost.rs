//! What a circuit takes: gates, exchanges and bytes, exactly, from the shapes alone.

use crate::bits::{Plane, blocks, packed_bytes};
use crate::circuit::{Circuit, Step, StepOp};
use crate::gates::comparison::Comparison;

/// What a product of a linear layer takes a guest.
const PRODUCT_NS: f64 = 0.022;
/// What the gates take a guest for each byte of their tickets.
const TICKET_BYTE_NS: f64 = 0.96;

/// Gates, exchanges and bytes of an inference or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Clamps.
    pub clamps: usize,
    /// Max gates.
    pub maxima: usize,
    /// Bytes of the guest's part of a ticket.
    pub ticket_bytes: usize,
    /// Messages that both parties send at the same time.
    pub exchanges: usize,
    /// Bytes that the guest sends.
    pub bytes_up: usize,
    /// Bytes that the server sends.
    pub bytes_down: usize,
    /// Products of linear layers, for each party that has them.
    pub products: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.clamps += other.clamps;
        self.maxima += other.maxima;
        self.ticket_bytes += other.ticket_bytes;
        self.exchanges += other.exchanges;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.products += other.products;
    }
}

impl Counts {
    /// One exchange of so many bytes each way.
    fn exchange(&mut self, bytes: usize) {
        self.exchanges += 1;
        self.bytes_up += bytes;
        self.bytes_down += bytes;
    }

    /// Predicted time of the guest's part of an inference on one thread, in ms: to compare plans
    /// by. It is within a quarter of what vgg3 and mnist took with 0 to 7 layers open (AMD EPYC
    /// Zen 5, AVX-512); `jali plan inspect --guest` measures.
    pub fn predicted_guest_ms(&self) -> f64 {
        1e-6 * (PRODUCT_NS * self.products as f64 + TICKET_BYTE_NS * self.ticket_bytes as f64)
    }

    /// A comparison of `n` values, and what a gate sends behind it.
    fn gates(&mut self, comparison: &Comparison, n: usize, widths: &[u32], result_bits: u32) {
        let planes = blocks(n) * size_of::<Plane>();
        self.ticket_bytes += planes * comparison.dealt_planes();
        self.ticket_bytes += widths.iter().map(|&bits| packed_bytes(n, bits)).sum::<usize>();
        if comparison.variables > 0 {
            self.exchange(planes * comparison.variables);
        }
        self.exchange(planes * comparison.points());
        self.exchange(packed_bytes(n, result_bits));
    }
}

/// A layer with the gates behind it: what a table shows in one line.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Name of the layer's node.
    pub name: String,
    /// What it is: `conv` and so on, or `input` for what comes before any layer.
    pub kind: &'static str,
    /// The steps of it, from the first to one behind the last.
    pub steps: std::ops::Range<usize>,
    /// Whether the guest computes the layer alone, in the clear.
    pub is_clear: bool,
    /// Bits of the modulus of its sums, `k`.
    pub sum_bits: u32,
    /// Bits of the values that are opened, `b`.
    pub opened_bits: u32,
    /// Gates, exchanges and bytes of the layer and its gates.
    pub counts: Counts,
}

impl Circuit {
    /// Gates, exchanges and bytes of an inference.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for part in self.parts() {
            all += part.counts;
        }
        all
    }

    /// Gates, exchanges and bytes, layer by layer. The masked input belongs to the first part that
    /// both parties compute, the output to the last part.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = vec![];
        for (step, s) in self.steps.iter().enumerate() {
            if let StepOp::Linear(linear) = &s.op {
                parts.push(Part {
                    name: s.name.clone(),
                    kind: linear.op.name(),
                    steps: step..step,
                    is_clear: s.is_clear,
                    sum_bits: linear.bits,
                    opened_bits: linear.bits - linear.drop,
                    counts: Counts::default(),
                });
            } else if parts.is_empty() {
                let (name, kind) = (s.name.clone(), "input");
                let (sum_bits, opened_bits, counts) = (s.bits, s.bits, Counts::default());
                parts.push(Part { name, kind, steps: step..step, is_clear: s.is_clear, sum_bits, opened_bits, counts });
            }
            if let Some(part) = parts.last_mut() {
                part.steps.end = step + 1;
                part.counts += self.counts_of(s);
            }
        }
        let first = parts.iter().position(|p| !p.is_clear).unwrap_or(parts.len().saturating_sub(1));
        let entries: usize = self.entries.iter().map(|&id| packed_bytes(self.count(id), self.bits(id))).sum();
        if let Some(part) = parts.get_mut(first) {
            part.counts.bytes_up += entries;
        }
        if let Some(part) = parts.last_mut() {
            let n = self.count(self.output.source);
            part.counts.bytes_down += packed_bytes(n, self.output.bits);
            part.counts.ticket_bytes += packed_bytes(n, self.output_modulus());
        }
        parts
    }

    fn counts_of(&self, s: &Step) -> Counts {
        let mut counts = Counts::default();
        match &s.op {
            StepOp::Linear(linear) => counts.products = linear.products(),
            _ if s.is_clear => {}
            StepOp::Clamp { terms, gate, .. } => {
                counts.clamps = s.count;
                if terms.iter().any(|&t| self.is_summand(t)) {
                    counts.exchange(packed_bytes(s.count, gate.comparison.bits));
                }
                counts.gates(&gate.comparison, s.count, &gate.widths(), gate.result_bits);
            }
            StepOp::Max { gate, tree, .. } => {
                for level in &tree.levels {
                    counts.maxima += level.first.len();
                    counts.gates(&gate.comparison, level.first.len(), &gate.widths(), gate.value_bits);
                }
            }
            StepOp::Sum { .. } | StepOp::Affine { .. } | StepOp::Copy { .. } => {}
        }
        counts
    }
}
