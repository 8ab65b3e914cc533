//! Gates on every input of small parameters, and at the edges of large ones.

use super::clamp::{Clamp, VALUES as CLAMP_VALUES};
use super::comparison::{Comparison, even_chunks};
use super::maximum::{Maximum, PairMasks, VALUES as MAX_VALUES};
use super::shares::{BothKeys, GateShares, GateStep};
use super::thermometer::{finish, look_up};
use crate::backend::Backend;
use crate::bits::{Plane, low_mask, packed_bytes, planes_of, unpack, xor};
use crate::stream::{Purpose, StreamKey};

mod views;

const STEP: usize = 3;

fn keys(seed: u8) -> [StreamKey; 2] {
    [StreamKey::from_bytes([seed; 32]), StreamKey::from_bytes([seed ^ 0x80; 32])]
}

fn words(seed: u8, n: usize) -> Vec<u32> {
    StreamKey::from_bytes([seed; 32]).words(0, Purpose::Input, n)
}

/// Both parties' shares of a step: the server's from its key, the guest's from its key and ticket.
fn both(step: GateStep<'_>, keys: &[StreamKey; 2], ticket: &[u8]) -> [GateShares; 2] {
    [step.of_server(&keys[0]), with_ticket(step, step.derived(&keys[1]), ticket)]
}

/// A guest's shares: what it derived, and what is in its ticket.
fn with_ticket(step: GateStep<'_>, mut guest: GateShares, mut ticket: &[u8]) -> GateShares {
    let (tables, rest) = ticket.split_at(step.table_planes() * size_of::<Plane>());
    guest.tables = planes_of(tables);
    ticket = rest;
    for &bits in step.widths {
        let (part, rest) = ticket.split_at(packed_bytes(step.count, bits));
        guest.values.push(if bits == 0 {
            vec![0; step.count]
        } else {
            unpack(Backend::best(), part, bits, step.count).expect("what was dealt")
        });
        ticket = rest;
    }
    assert!(ticket.is_empty());
    guest
}

/// Opens what both parties have a share of.
fn open(shares: [Vec<Plane>; 2]) -> Vec<Plane> {
    let [mut out, other] = shares;
    out.iter_mut().zip(&other).for_each(|(a, b)| xor(a, b));
    out
}

/// The bits that a comparison opens, and those that the gate opens behind it.
fn compare(
    backend: Backend,
    how: &Comparison,
    u: &[u32],
    shares: &[GateShares; 2],
    fold: impl Fn(bool, &[Plane], &mut [Plane]),
) -> (Vec<Plane>, Vec<Plane>) {
    let mut looked = [true, false].map(|server| {
        look_up(backend, how, server, u, &shares[usize::from(!server)].tables, &shares[usize::from(!server)].own)
    });
    let opened = open([looked[0].opened.clone(), looked[1].opened.clone()]);
    for (i, looked) in looked.iter_mut().enumerate() {
        let GateShares { tables, own, .. } = &shares[i];
        finish(backend, how, i == 0, &opened, tables, own, &mut looked.signs);
        fold(i == 0, own, &mut looked.signs);
    }
    let [a, b] = looked;
    (opened, open([a.signs, b.signs]))
}

/// Clamps `y` under the masks `r`, both parties played.
fn clamped(backend: Backend, clamp: &Clamp, y: &[i64], r: &[u32]) -> Vec<u32> {
    let (keys, n, mut ticket) = (keys(y.len() as u8), y.len(), vec![]);
    let both_keys = BothKeys { server: &keys[0], guest: &keys[1] };
    let result_masks = clamp.deal(backend, &both_keys, STEP, r, &mut ticket);
    let bits = clamp.comparison.bits;
    let u: Vec<u32> = y.iter().zip(r).map(|(y, r)| (*y as u32).wrapping_add(*r) & low_mask(bits)).collect();
    let widths = clamp.widths();
    let shares = both(clamp.step(STEP, n, &widths), &keys, &ticket);
    assert_eq!(shares[0].values.len(), CLAMP_VALUES);
    let (_, opened) =
        compare(backend, &clamp.comparison, &u, &shares, |server, own, signs| clamp.fold(server, own, signs));
    let [a, b] = [true, false].map(|s| clamp.value(backend, s, &u, &opened, &shares[usize::from(!s)]));
    let mask = low_mask(clamp.result_bits);
    (0..n).map(|i| a[i].wrapping_add(b[i]).wrapping_sub(result_masks[i]) & mask).collect()
}

/// Smallest and largest input for which a clamp is exact.
fn range(bits: u32, span: u32) -> (i64, i64) {
    (i64::from(span) + 1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1)
}

#[test]
fn every_clamp_of_few_bits_is_exact() {
    let (backends, mut wrong, mut pairs) = (Backend::all(), 0, 0);
    for bits in 4..=8_u32 {
        for span in [1, 2, 3, (1 << (bits - 2)) - 1, (1 << (bits - 1)) - 2] {
            let (low, high) = range(bits, span);
            let cases = || (0..1_u32 << bits).flat_map(|r| (low..=high).map(move |y| (y, r)));
            let (y, r): (Vec<i64>, Vec<u32>) = cases().unzip();
            for (i, most) in [2, 3, 4].into_iter().enumerate() {
                let backend = backends[i % backends.len()];
                let result_bits = (bits + 6 * i as u32).saturating_sub(2);
                let clamp = Clamp::new(bits, span, result_bits, &even_chunks(bits as usize - 1, most));
                for (i, z) in clamped(backend, &clamp, &y, &r).into_iter().enumerate() {
                    let want = y[i].clamp(0, i64::from(span)) as u32 & low_mask(result_bits);
                    assert_eq!(z, want, "{bits} bits, span {span}, y {}, r {}", y[i], r[i]);
                }
            }
            // One step beyond the range it is wrong for some mask: the range is no smaller than
            // said.
            let clamp = Clamp::new(bits, span, bits, &even_chunks(bits as usize - 1, 3));
            let (y, r): (Vec<i64>, Vec<u32>) = (0..1_u32 << bits).map(|r| (low - 1, r)).unzip();
            wrong += usize::from(clamped(Backend::best(), &clamp, &y, &r).iter().any(|z| *z != 0));
            pairs += 1;
        }
    }
    assert_eq!(wrong, pairs, "a range is wider than said");
}

#[test]
fn clamps_are_exact_at_the_edges() {
    for (backend, bits) in Backend::all().into_iter().flat_map(|b| [12, 15, 18, 21].map(|bits| (b, bits))) {
        for (span, result_bits) in [(255, 24), (511, bits), (511, (bits + 16).min(32)), (700, 26), (1023, 9)] {
            let (low, high) = range(bits, span);
            let n = 1100;
            let random = words(bits as u8, 2 * n);
            let edges = [low, low + 1, -1, 0, 1, i64::from(span) - 1, i64::from(span), i64::from(span) + 1, high];
            let input = |i: usize| match i % 2 {
                0 => edges[i / 2 % edges.len()],
                _ => low + i64::from(random[n + i]) % (high - low + 1),
            };
            let masks = |i: usize| match i % 16 {
                0..4 => [0, low_mask(bits), 1 << (bits - 1), low_mask(bits - 1)][i % 4],
                _ => random[i] & low_mask(bits),
            };
            let (y, r): (Vec<i64>, Vec<u32>) = (0..n).map(|i| (input(i), masks(i))).unzip();
            for most in [3, 4, 5] {
                let clamp = Clamp::new(bits, span, result_bits, &even_chunks(bits as usize - 1, most));
                for (i, z) in clamped(backend, &clamp, &y, &r).into_iter().enumerate() {
                    let want = y[i].clamp(0, i64::from(span)) as u32 & low_mask(result_bits);
                    assert_eq!(z, want, "{bits} bits, span {span}, y {}, r {}", y[i], r[i]);
                }
            }
        }
    }
}

#[test]
fn every_maximum_of_few_bits_is_exact() {
    for backend in Backend::all() {
        for (bits, value_bits, most) in [(6, 6, 9), (6, 24, 2), (7, 19, 3), (10, 32, 9), (10, 10, 4)] {
            let (span, n) = (1_u32 << (bits - 1), 1 << 12);
            let random = words(bits as u8, 4 * n);
            let value = |i: usize| if bits < 7 { i as u32 % span } else { random[2 * n + i] % span };
            let (a, c): (Vec<u32>, Vec<u32>) = (0..n)
                .map(|i| (value(i), if bits < 7 { i as u32 / span % span } else { random[3 * n + i] % span }))
                .unzip();
            let mask = low_mask(value_bits);
            let masks: Vec<u32> = random[..2 * n].iter().map(|r| r & mask).collect();
            let (first, second) = masks.split_at(n);
            let gate = Maximum::new(bits, value_bits, &even_chunks(bits as usize - 1, most));
            let (keys, mut ticket) = (keys(9), vec![]);
            let both_keys = BothKeys { server: &keys[0], guest: &keys[1] };
            let result = gate.deal(backend, &both_keys, STEP, PairMasks { first, second }, &mut ticket);
            let widths = gate.widths();
            let shares = both(gate.step(STEP, n, &widths), &keys, &ticket);
            assert_eq!(shares[1].values.len(), MAX_VALUES);
            let add = |x: &[u32], r: &[u32]| -> Vec<u32> {
                x.iter().zip(r).map(|(x, r)| x.wrapping_add(*r) & mask).collect()
            };
            let (a_hat, c_hat) = (add(&a, first), add(&c, second));
            let u: Vec<u32> = a_hat.iter().zip(&c_hat).map(|(a, c)| a.wrapping_sub(*c)).collect();
            let (_, opened) =
                compare(backend, &gate.comparison, &u, &shares, |server, own, signs| gate.fold(server, own, signs));
            let [x, y] =
                [true, false].map(|s| gate.value(backend, s, &a_hat, &c_hat, &opened, &shares[usize::from(!s)]));
            for i in 0..n {
                let m = x[i].wrapping_add(y[i]).wrapping_sub(result[i]) & mask;
                assert_eq!(m, a[i].max(c[i]), "{} and {} of {bits} bits", a[i], c[i]);
            }
        }
    }
}

/// What docs/guest.md says of the number of dealt derivatives.
#[test]
fn derivatives_are_as_many_as_counted_by_hand() {
    for (chunks, dealt) in [(1, 0), (2, 0), (3, 3), (4, 10), (5, 25), (6, 56)] {
        let how = Comparison::new(1 + 2 * chunks as u32, None, &vec![2; chunks]);
        assert_eq!((how.dealt.len(), how.variables), (dealt, 2 * chunks - 2), "{chunks} chunks");
    }
}
