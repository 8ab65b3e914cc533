//! Dealing, looking up and finishing comparisons, 512 gates at a time.
//!
//! [`Comparison`] says what is dealt and opened, and why the result is right.

use super::comparison::{Chunk, Comparison, Factor, MAX_CHUNK, Monomial};
use crate::backend::wide;
use crate::bits::{GATES, LANES, ONES, Plane, ZERO, and, blocks, choose, planes, xor};

/// Entries of the largest table, and one more on each side.
const TABLE: usize = (1 << MAX_CHUNK) + 1;

/// What a look-up gives: shares, by block of 512 gates.
pub(crate) struct Looked {
    /// Shares of the opened bits, `variables` planes a block.
    pub(crate) opened: Vec<Plane>,
    /// Shares of `sign(u - r) ^ MSB(r)` without `P`, a plane for every point of a block.
    pub(crate) signs: Vec<Plane>,
}

/// The xor of products of planes.
#[inline(always)]
fn evaluate(sum: &[Monomial], variables: &[Plane]) -> Plane {
    let mut out = ZERO;
    for &monomial in sum {
        let (mut product, mut rest) = (ONES, monomial);
        while rest > 0 {
            and(&mut product, &variables[rest.trailing_zeros() as usize]);
            rest &= rest - 1;
        }
        xor(&mut out, &product);
    }
    out
}

/// The thermometer code `[i < r]` of a chunk of bits, from the lowest up: `2^bits - 1` planes.
#[inline(always)]
fn thermometer(bits: &[Plane], out: &mut [Plane; TABLE]) {
    for (k, bit) in bits.iter().enumerate() {
        let half = 1 << k;
        for i in 0..half - 1 {
            let below = out[i];
            for l in 0..LANES {
                out[half + i][l] = bit[l] & below[l];
                out[i][l] = bit[l] | below[l];
            }
        }
        out[half - 1] = *bit;
    }
}

/// The entry at an index, by a tree of choices on the index's bits: entry `i` of a table for
/// `less`, the one before it otherwise. `first` stands before the table and zeros behind it.
#[inline(always)]
fn look(less: bool, table: &[Plane], first: &Plane, index: &[Plane], scratch: &mut [Plane; TABLE]) -> Plane {
    let mut n = 1 << (index.len() - 1);
    if less {
        for i in 0..n - 1 {
            scratch[i] = choose(&index[0], &table[2 * i], &table[2 * i + 1]);
        }
        scratch[n - 1] = choose(&index[0], &table[2 * n - 2], &ZERO);
    } else {
        scratch[0] = choose(&index[0], first, &table[0]);
        for i in 1..n {
            scratch[i] = choose(&index[0], &table[2 * i - 1], &table[2 * i]);
        }
    }
    for bit in &index[1..] {
        n /= 2;
        for i in 0..n {
            scratch[i] = choose(bit, &scratch[2 * i], &scratch[2 * i + 1]);
        }
    }
    scratch[0]
}

/// The planes of `u - threshold`.
#[inline(always)]
fn subtract(u: &[Plane; 32], threshold: u32, bits: u32) -> [Plane; 32] {
    let (mut out, mut borrow) = ([ZERO; 32], ZERO);
    for i in 0..bits as usize {
        let constant = 0_u32.wrapping_sub(threshold >> i & 1);
        for l in 0..LANES {
            let (x, b) = (u[i][l], borrow[l]);
            out[i][l] = x ^ b ^ constant;
            borrow[l] = (!x & (b | constant)) | (b & constant);
        }
    }
    out
}

/// One chunk at every point: adds its shares to the opened bits and the signs.
struct ChunkShares<'a> {
    chunk: &'a Chunk,
    /// Its table.
    table: &'a [Plane],
    /// This party's share of the entry before it, which is 1.
    first: &'a Plane,
    /// `u` at the points.
    points: &'a [[Plane; 32]],
    /// This party's share of the variables' masks.
    masks: &'a [Plane],
}

impl ChunkShares<'_> {
    #[inline(always)]
    fn add_to(&self, opened: &mut [Plane], signs: &mut [Plane], scratch: &mut [Plane; TABLE]) {
        let Self { chunk, table, first, points, masks } = self;
        let once = if chunk.shared { 1 } else { points.len() };
        for point in 0..once {
            let index = &points[point][chunk.lowest..chunk.lowest + chunk.bits];
            let mut found = look(true, table, first, index, scratch);
            match chunk.less[point] {
                Some(variable) => {
                    opened[variable] = found;
                    xor(&mut opened[variable], &masks[variable]);
                }
                None if chunk.shared => signs.iter_mut().for_each(|s| xor(s, &found)),
                None => xor(&mut signs[point], &found),
            }
            if let Some(variable) = chunk.equal[point] {
                xor(&mut found, &look(false, table, first, index, scratch));
                xor(&mut found, &masks[variable]);
                opened[variable] = found;
            }
        }
    }
}

wide! {
    /// Turns the server's shares into the guest's, and returns `P(rho)`, a plane for every point of
    /// a block.
    ///
    /// `masks` are the values to compare with; `shares` comes as the server's tables and
    /// derivatives and leaves as the guest's; `own` is the xor of both parties' own bits.
    pub(crate) fn deal(how: &Comparison, masks: &[u32], shares: &mut [Plane], own: &[Plane]) -> Vec<Plane> {
        let mut constants = Vec::with_capacity(blocks(masks.len()) * how.points());
        let mut code = [ZERO; TABLE];
        let shares = shares.chunks_exact_mut(how.dealt_planes());
        let own = own.chunks_exact(how.own_planes());
        for ((r, shares), own) in masks.chunks(GATES).zip(shares).zip(own) {
            let r = planes(r);
            let (tables, derivatives) = shares.split_at_mut(how.tables);
            let mut at = 0;
            for chunk in &how.chunks {
                thermometer(&r[chunk.lowest..chunk.lowest + chunk.bits], &mut code);
                let entries = (1 << chunk.bits) - 1;
                for (share, entry) in tables[at..at + entries].iter_mut().zip(&code) {
                    xor(share, entry);
                }
                at += entries;
            }
            for (share, derivative) in derivatives.iter_mut().zip(&how.dealt) {
                xor(share, &evaluate(derivative, own));
            }
            constants.extend(how.sums.iter().map(|sum| evaluate(sum, own)));
        }
        constants
    }

    /// A party's shares of the bits to open, and of the signs so far. `shares` are its tables and
    /// derivatives; the public parts are the server's.
    pub(crate) fn look_up(how: &Comparison, is_server: bool, u: &[u32], shares: &[Plane], own: &[Plane]) -> Looked {
        let count = blocks(u.len());
        let mut opened = vec![ZERO; count * how.variables];
        let mut signs = vec![ZERO; count * how.points()];
        let mut scratch = [ZERO; TABLE];
        let first = if is_server { ONES } else { ZERO };
        let mut points = vec![[ZERO; 32]; how.points()];
        for (block, u) in u.chunks(GATES).enumerate() {
            points[0] = planes(u);
            if let Some(threshold) = how.threshold {
                points[1] = subtract(&points[0], threshold, how.bits);
            }
            let shares = &shares[block * how.dealt_planes()..][..how.tables];
            let masks = &own[block * how.own_planes()..][..how.variables];
            let opened = &mut opened[block * how.variables..][..how.variables];
            let signs = &mut signs[block * how.points()..][..how.points()];
            if is_server {
                for (sign, point) in signs.iter_mut().zip(&points) {
                    *sign = point[how.bits as usize - 1];
                }
            }
            let mut at = 0;
            for chunk in &how.chunks {
                let entries = (1 << chunk.bits) - 1;
                let table = &shares[at..at + entries];
                at += entries;
                ChunkShares { chunk, table, first: &first, points: &points, masks }.add_to(opened, signs, &mut scratch);
            }
        }
        Looked { opened, signs }
    }

    /// Adds `P`, without its constant, to a party's shares of the signs, once the bits are open.
    pub(crate) fn finish(
        how: &Comparison, is_server: bool, opened: &[Plane], shares: &[Plane], own: &[Plane], signs: &mut [Plane]
    ) {
        let mut products = vec![ONES; how.products.len()];
        for (block, signs) in signs.chunks_exact_mut(how.points()).enumerate() {
            let opened = &opened[block * how.variables..][..how.variables];
            let derivatives = &shares[block * how.dealt_planes() + how.tables..][..how.dealt.len()];
            let masks = &own[block * how.own_planes()..][..how.variables];
            for (i, product) in how.products.iter().enumerate().skip(1) {
                let mut bits = products[product.smaller];
                and(&mut bits, &opened[product.variable]);
                products[i] = bits;
            }
            for term in &how.terms {
                let mut bits = products[term.product];
                match term.factor {
                    Factor::One if !is_server => continue,
                    Factor::One => {}
                    Factor::Mask(variable) => and(&mut bits, &masks[variable]),
                    Factor::Dealt(which) => and(&mut bits, &derivatives[which]),
                }
                xor(&mut signs[term.point], &bits);
            }
        }
    }
}
