//! What a party sees, exhaustively: for fixed randomness of its own and a fixed secret, the map
//! from all other randomness to its view is a bijection. So its view is uniform, whatever the
//! secret is.

use super::*;
use crate::bits::{GATES, LANES, ZERO, bit, blocks};
use crate::gates::shares::Drawn;

/// Gates at a time.
const BATCH: usize = 1 << 14;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Viewer {
    Server,
    Guest,
}

/// A gate with its secret inputs.
enum Gate<'a> {
    Clamp(&'a Clamp, u32),
    Max(&'a Maximum, [u32; 2]),
}

/// A number whose bits are handed out one after the other.
struct Numbers(u64);

impl Numbers {
    fn take(&mut self, bits: u32) -> u32 {
        let taken = (self.0 & ((1 << bits) - 1)) as u32;
        self.0 >>= bits;
        taken
    }
}

/// Appends bits to a view.
struct View {
    bits: u64,
    len: u32,
}

impl View {
    fn put(&mut self, value: u32, bits: u32) {
        self.bits |= u64::from(value & low_mask(bits)) << self.len;
        self.len += bits;
    }
}

fn get(planes: &[Plane], of_block: usize, gate: usize, which: usize) -> u32 {
    let place = gate % GATES;
    bit(&planes[gate / GATES * of_block + which], place / LANES, place % LANES)
}

fn set(planes: &mut [Plane], of_block: usize, gate: usize, which: usize, value: u32) {
    let place = gate % GATES;
    planes[gate / GATES * of_block + which][place % LANES] |= value << (place / LANES);
}

/// Shares whose randomness comes from a number for each gate. With `tied` the first two opened bits
/// have one mask: what must not be.
fn shares(step: GateStep<'_>, side: Viewer, tied: bool, mut numbers: impl FnMut(usize) -> Numbers) -> GateShares {
    let (own, dealt) = (step.comparison.own_planes(), step.comparison.dealt_planes());
    let of_server = side == Viewer::Server;
    let mut out = GateShares {
        tables: vec![ZERO; if of_server { step.table_planes() } else { 0 }],
        own: vec![ZERO; blocks(step.count) * own],
        base: vec![0; step.count],
        values: vec![vec![0; step.count]; if of_server { step.widths.len() } else { 0 }],
    };
    for gate in 0..step.count {
        let mut numbers = numbers(gate);
        let mut first = 0;
        for which in 0..own {
            let value = numbers.take(1);
            first = if which == 0 { value } else { first };
            set(&mut out.own, own, gate, which, if tied && which == 1 { first } else { value });
        }
        out.base[gate] = numbers.take(step.result_bits);
        if of_server {
            (0..dealt).for_each(|which| set(&mut out.tables, dealt, gate, which, numbers.take(1)));
            out.values.iter_mut().zip(step.widths).for_each(|(v, &bits)| v[gate] = numbers.take(bits));
        }
    }
    out
}

impl Gate<'_> {
    fn comparison(&self) -> &Comparison {
        match self {
            Self::Clamp(gate, _) => &gate.comparison,
            Self::Max(gate, _) => &gate.comparison,
        }
    }

    fn widths(&self) -> Vec<u32> {
        match self {
            Self::Clamp(gate, _) => gate.widths().to_vec(),
            Self::Max(gate, _) => gate.widths().to_vec(),
        }
    }

    fn step<'s>(&'s self, count: usize, widths: &'s [u32]) -> GateStep<'s> {
        match self {
            Self::Clamp(gate, _) => gate.step(STEP, count, widths),
            Self::Max(gate, _) => gate.step(STEP, count, widths),
        }
    }

    /// Bits of the inputs' masks.
    fn mask_bits(&self) -> u32 {
        match self {
            Self::Clamp(gate, _) => gate.comparison.bits,
            Self::Max(gate, _) => 2 * gate.value_bits,
        }
    }

    /// How many of the views there are of every kind. A view is what the viewer sees beyond its own
    /// randomness: masked inputs, opened bits, the masked result, and the guest's ticket.
    fn views(&self, viewer: Viewer, fixed: u64, tied: bool) -> Vec<u8> {
        let widths = self.widths();
        let one = self.step(1, &widths);
        let of_server = one.comparison.dealt_planes() as u32 + widths.iter().sum::<u32>();
        let drawn = one.comparison.own_planes() as u32 + one.result_bits;
        let total = self.mask_bits() + drawn + if viewer == Viewer::Guest { of_server } else { 0 };
        let mut seen = vec![0_u8; 1 << total];
        let batch = BATCH.min(seen.len());
        for first in (0..seen.len()).step_by(batch) {
            for view in self.batch(viewer, (fixed, first as u64), batch, tied) {
                assert_eq!(view.len, total);
                seen[view.bits as usize] = seen[view.bits as usize].saturating_add(1);
            }
        }
        seen
    }

    fn batch(&self, viewer: Viewer, (fixed, first): (u64, u64), count: usize, tied: bool) -> Vec<View> {
        let (widths, backend, bits) = (self.widths(), Backend::best(), self.mask_bits());
        let step = self.step(count, &widths);
        let drawn = |side: Viewer| {
            shares(step, side, tied, |gate| match side == viewer {
                true => Numbers(fixed),
                false => Numbers((first + gate as u64) >> bits),
            })
        };
        let masks: Vec<u32> = (0..count).map(|gate| Numbers(first + gate as u64).take(bits)).collect();
        let both = Drawn { server: drawn(Viewer::Server), guest: drawn(Viewer::Guest) };
        let mut ticket = vec![];
        let mut views: Vec<View> = masks.iter().map(|_| View { bits: 0, len: 0 }).collect();
        let how = self.comparison();
        let (opened, decided, results) = match self {
            Self::Clamp(gate, y) => {
                let u: Vec<u32> = masks.iter().map(|r| y.wrapping_add(*r) & low_mask(how.bits)).collect();
                views.iter_mut().zip(&u).for_each(|(view, u)| view.put(*u, how.bits));
                gate.deal_drawn(backend, step, both, &masks, &mut ticket);
                let shares = [drawn(Viewer::Server), with_ticket(step, drawn(Viewer::Guest), &ticket)];
                let (opened, decided) = compare(backend, how, &u, &shares, |s, own, signs| gate.fold(s, own, signs));
                let value = |s| gate.value(backend, s, &u, &decided, &shares[usize::from(!s)]);
                let results = [value(true), value(false)];
                (opened, decided, results)
            }
            Self::Max(gate, [a, c]) => {
                let half = gate.value_bits;
                let of = |shift: u32| masks.iter().map(|r| r >> shift & low_mask(half)).collect::<Vec<u32>>();
                let (r_a, r_c) = (of(0), of(half));
                let add =
                    |r: &[u32], x: u32| r.iter().map(|r| r.wrapping_add(x) & low_mask(half)).collect::<Vec<u32>>();
                let (a_hat, c_hat) = (add(&r_a, *a), add(&r_c, *c));
                for (i, view) in views.iter_mut().enumerate() {
                    view.put(a_hat[i], half);
                    view.put(c_hat[i], half);
                }
                gate.deal_drawn(backend, step, both, PairMasks { first: &r_a, second: &r_c }, &mut ticket);
                let shares = [drawn(Viewer::Server), with_ticket(step, drawn(Viewer::Guest), &ticket)];
                let u: Vec<u32> = a_hat.iter().zip(&c_hat).map(|(a, c)| a.wrapping_sub(*c)).collect();
                let (opened, decided) = compare(backend, how, &u, &shares, |s, own, signs| gate.fold(s, own, signs));
                let value = |s| gate.value(backend, s, &a_hat, &c_hat, &decided, &shares[usize::from(!s)]);
                let results = [value(true), value(false)];
                (opened, decided, results)
            }
        };
        let dealt = with_ticket(step, drawn(Viewer::Guest), &ticket);
        for (gate, view) in views.iter_mut().enumerate() {
            (0..how.variables).for_each(|which| view.put(get(&opened, how.variables, gate, which), 1));
            (0..how.points()).for_each(|which| view.put(get(&decided, how.points(), gate, which), 1));
            view.put(results[0][gate].wrapping_add(results[1][gate]), step.result_bits);
            if viewer == Viewer::Guest {
                let of_block = how.dealt_planes();
                (0..of_block).for_each(|which| view.put(get(&dealt.tables, of_block, gate, which), 1));
                dealt.values.iter().zip(&widths).for_each(|(v, &bits)| view.put(v[gate], bits));
            }
        }
        views
    }
}

/// The viewers' own randomness, some of it.
fn fixed(n: u8) -> Vec<u64> {
    words(77, 2 * usize::from(n)).chunks(2).map(|w| u64::from(w[0]) << 32 | u64::from(w[1])).collect()
}

fn are_uniform(gate: &Gate<'_>, viewer: Viewer, own: u8, what: &str) {
    for fixed in fixed(own) {
        assert!(gate.views(viewer, fixed, false).iter().all(|n| *n == 1), "{viewer:?}, {what}");
    }
}

#[test]
fn views_are_uniform_whatever_a_clamp_computes() {
    for clamp in [Clamp::new(3, 1, 2, &[1, 1]), Clamp::new(3, 1, 2, &[2])] {
        for y in [-2_i32, 0, 1, 3] {
            let gate = Gate::Clamp(&clamp, y as u32);
            are_uniform(&gate, Viewer::Server, 6, &format!("{y} into {clamp:?}"));
            are_uniform(&gate, Viewer::Guest, 1, &format!("{y} into {clamp:?}"));
        }
    }
    // More chunks, with derivatives that are dealt, and a lift: the server alone, as a ticket has
    // too many bits to go through all of them.
    for clamp in [Clamp::new(4, 1, 1, &[1, 1, 1]), Clamp::new(4, 3, 2, &[2, 1]), Clamp::new(3, 1, 4, &[1, 1])] {
        for y in [-2_i32, 0, 3] {
            are_uniform(&Gate::Clamp(&clamp, y as u32), Viewer::Server, 2, &format!("{y} into {clamp:?}"));
        }
    }
}

#[test]
fn views_are_uniform_whatever_a_maximum_computes() {
    for maximum in [Maximum::new(3, 3, &[1, 1]), Maximum::new(3, 3, &[2])] {
        for pair in [[0, 0], [0, 3], [2, 1]] {
            let gate = Gate::Max(&maximum, pair);
            are_uniform(&gate, Viewer::Server, 6, &format!("{pair:?} into {maximum:?}"));
        }
        are_uniform(&Gate::Max(&maximum, [1, 2]), Viewer::Guest, 1, &format!("{maximum:?}"));
    }
}

/// With one mask for two opened bits the views of some secrets differ: the tests above would see
/// it.
#[test]
fn one_mask_for_two_bits_shows() {
    let clamp = Clamp::new(4, 3, 2, &[2, 1]);
    let of = |y: i32| Gate::Clamp(&clamp, y as u32).views(Viewer::Server, fixed(1)[0], true);
    let first = of(0);
    assert!((-4..8).map(of).any(|seen| seen != first));
}
