//! The negacyclic number-theoretic transform over lanes.
//!
//! Forward: Cooley-Tukey, natural order in, roots in bit-reversed order (Longa, Naehrig, ePrint
//! 2016/504), two or three levels at a time, so that every value is loaded and stored only once for
//! them. The last three levels work inside groups of eight neighbours. For them every 64 values are
//! turned from rows to columns, and stay so: position `64*g + 8*l + j` holds the value that
//! bit-reversed order has at `64*g + 8*j + l`. Inverse: Gentleman-Sande, the same steps backwards,
//! with `1/N` in the last.
//!
//! Nothing is reduced between the levels. Forward, a value grows by at most `2p` a level:
//! `2p*(1 + 15) <= 2^52` for the 47 bits that [`MAX_LANE_BITS`] allows. Inverse, sums double at
//! every level: values are settled after every pass if `p`, doubled at all levels, would not fit.

use super::Job;
use super::lanes::{Block64, Lanes, item_at, item_at_mut, prefetch_outer};
use super::wanted_runs::{ALL, Last, WantedRuns};
use crate::Modulus;

/// Largest prime, in bits, whose transforms run in vector lanes; larger ones take the portable
/// lane.
pub(crate) const MAX_LANE_BITS: u32 = 47;

/// Roots of unity in the form that one kind of lanes takes.
#[derive(Debug)]
pub(crate) struct Tables {
    modulus: Modulus,
    log_degree: u32,
    forward: Direction,
    inverse: Direction,
    /// `1/N`.
    scale: [u64; 2],
}

#[derive(Debug)]
struct Direction {
    /// Root and quotient of node `m + b`: block `b` of the level with `m` blocks.
    roots: Vec<[u64; 2]>,
    /// The roots of the three innermost levels, lane by lane, for every 64 values: `[node
    /// 1..8][root, quotient][lane]`.
    inner: Vec<InnerRoots>,
}

#[derive(Debug)]
#[repr(align(64))]
struct InnerRoots([[[u64; 8]; 2]; 7]);

impl Direction {
    /// Prepares one direction; `powers[i]` is the root of node `i`.
    fn new<V: Lanes>(m: &Modulus, powers: &[u64]) -> Self {
        let roots: Vec<[u64; 2]> = powers.iter().map(|&w| V::constant(m, w)).collect();
        let blocks = powers.len() / 8;
        let inner = (0..blocks / 8).map(|group| {
            InnerRoots(std::array::from_fn(|node| {
                let (level, index) = split_node(node + 1);
                std::array::from_fn(|part| {
                    std::array::from_fn(|lane| roots[((blocks + 8 * group + lane) << level) + index][part])
                })
            }))
        });
        Self { inner: inner.collect(), roots }
    }
}

/// Returns level and position of a node in a small tree whose nodes are counted level by level: 1 |
/// 2 3 | 4 5 6 7.
#[inline(always)]
fn split_node(node: usize) -> (u32, usize) {
    let level = node.ilog2();
    (level, node - (1 << level))
}

impl Tables {
    /// Computes the tables for `N = 2^log_degree`; `psi` is a primitive `2N`-th root of unity
    /// modulo the prime.
    pub(crate) fn new<V: Lanes>(modulus: Modulus, log_degree: u32, psi: u64) -> Self {
        let degree = 1usize << log_degree;
        let powers = |root: u64| {
            let mut out = vec![0; degree];
            let mut power = 1;
            for i in 0..degree {
                out[i.reverse_bits() >> (usize::BITS - log_degree)] = power;
                power = modulus.mul(power, root);
            }
            out
        };
        let scale = modulus.invert(degree as u64 % modulus.value());
        let mut inverse = powers(modulus.invert(psi));
        // The outermost level ends the inverse: its root carries 1/N for the differences.
        inverse[1] = modulus.mul(inverse[1], scale);
        Self {
            modulus,
            log_degree,
            forward: Direction::new::<V>(&modulus, &powers(psi)),
            inverse: Direction::new::<V>(&modulus, &inverse),
            scale: V::constant(&modulus, scale),
        }
    }
}

/// The transform of canonical coefficients to canonical NTT values, in place.
pub(crate) struct Forward<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) values: &'a mut [u64],
}

/// The transform of canonical NTT values to canonical coefficients, scaled by `1/N`, in place.
pub(crate) struct Inverse<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) values: &'a mut [u64],
    /// Whether [`Tables::begin_inverse`] and [`Tables::go_on`] have done the six innermost levels.
    pub(crate) begun: bool,
    /// Which coefficients are wanted, if not all are. The others may become anything.
    pub(crate) wanted: Option<&'a WantedRuns>,
    /// Bytes that will be read next: prefetched meanwhile, as a transform leaves the memory idle.
    pub(crate) ahead: &'a [u8],
}

/// Bytes to prefetch, and how far that has come.
struct Ahead<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Ahead<'_> {
    /// Prefetches the next eight cache lines; half a transform of 4096 values takes 64 steps.
    #[inline(always)]
    fn ask<V: Lanes>(&mut self) {
        // One lane takes so many steps that even the test whether to prefetch counts.
        if V::LANES > 1 && self.at < self.bytes.len() {
            for line in 0..8 {
                prefetch_outer(self.bytes, self.at + 64 * line);
            }
            self.at += 512;
        }
    }
}

/// Returns the roots of one block in lanes, those of nodes 1 to `S - 1`; entry 0 means nothing.
#[inline(always)]
fn block_roots<V: Lanes, const S: usize>(roots: &[[u64; 2]], first: usize) -> [(V, V); S] {
    let mut out = [(V::splat(0), V::splat(0)); S];
    for node in 1..S {
        let (level, index) = split_node(node);
        let [root, quotient] = roots[(first << level) + index];
        out[node] = (V::splat(root), V::splat(quotient));
    }
    out
}

#[inline(always)]
fn inner_roots<V: Lanes>(InnerRoots(inner): &InnerRoots, part: usize) -> [(V, V); 8] {
    let mut out = [(V::splat(0), V::splat(0)); 8];
    for node in 1..8 {
        let [root, quotient] = &inner[node - 1];
        out[node] = (V::load(&V::split(root)[part]), V::load(&V::split(quotient)[part]));
    }
    out
}

/// Computes one level of a forward pass on pairs that stand `HALF` apart. The trip counts are
/// constants, so that everything is unrolled and stays in registers.
#[inline(always)]
fn forward_level<V: Lanes, const S: usize, const HALF: usize>(
    x: &mut [V; S],
    roots: &[(V, V); S],
    bias: V,
    p: &V::Prime,
) {
    for block in 0..S / (2 * HALF) {
        let (root, quotient) = roots[S / (2 * HALF) + block];
        for j in 0..HALF {
            let i = 2 * HALF * block + j;
            let y = x[i + HALF].mul_constant(root, quotient, p);
            x[i + HALF] = x[i].sub(y, bias);
            x[i] = x[i].add(y);
        }
    }
}

#[inline(always)]
fn forward_butterflies<V: Lanes, const S: usize>(x: &mut [V; S], roots: &[(V, V); S], bias: V, p: &V::Prime) {
    if S == 8 {
        forward_level::<V, S, 4>(x, roots, bias, p);
    }
    if S >= 4 {
        forward_level::<V, S, 2>(x, roots, bias, p);
    }
    forward_level::<V, S, 1>(x, roots, bias, p);
}

/// Computes one level of an inverse pass on pairs that stand `HALF` apart; values have doubled
/// `doublings` times before.
#[inline(always)]
fn inverse_level<V: Lanes, const S: usize, const HALF: usize>(
    x: &mut [V; S],
    roots: &[(V, V); S],
    doublings: u32,
    p: &V::Prime,
) {
    let bias = V::bias(p, doublings);
    for block in 0..S / (2 * HALF) {
        let (root, quotient) = roots[S / (2 * HALF) + block];
        for j in 0..HALF {
            let i = 2 * HALF * block + j;
            let difference = x[i].sub(x[i + HALF], bias);
            x[i] = x[i].add(x[i + HALF]);
            x[i + HALF] = difference.mul_constant(root, quotient, p);
        }
    }
}

/// Computes all levels of an inverse pass on `S` values. These have doubled `doublings` times
/// before; `settle` says whether they are settled after every pass, and so after this one.
#[inline(always)]
fn inverse_butterflies<V: Lanes, const S: usize>(
    x: &mut [V; S],
    roots: &[(V, V); S],
    (doublings, settle): (u32, bool),
    p: &V::Prime,
) {
    inverse_level::<V, S, 1>(x, roots, doublings, p);
    if S >= 4 {
        inverse_level::<V, S, 2>(x, roots, doublings + 1, p);
    }
    if S == 8 {
        inverse_level::<V, S, 4>(x, roots, doublings + 2, p);
    }
    if settle {
        for x in x {
            *x = x.settle(p);
        }
    }
}

/// Loads the groups of lanes that a pass combines: number `i` of each of `S` runs of `run` groups,
/// which stand one after the other in `words`. `words` holds them all, and `i` is below `run`.
/// `enter` says whether the words are residues and not lazy values.
#[inline(always)]
pub(crate) fn load_runs<V: Lanes, const S: usize>(words: &[V::Words], i: usize, run: usize, enter: bool) -> [V; S] {
    debug_assert!(S * run <= words.len() && i < run);
    let mut x = [V::splat(0); S];
    for k in 0..S {
        let words = item_at(words, k * run + i);
        x[k] = if enter { V::enter(words) } else { V::load(words) };
    }
    x
}

/// Stores groups of lanes where [`load_runs`] takes them from.
#[inline(always)]
pub(crate) fn store_runs<V: Lanes, const S: usize>(words: &mut [V::Words], i: usize, run: usize, x: &[V; S]) {
    debug_assert!(S * run <= words.len() && i < run);
    for k in 0..S {
        x[k].store(item_at_mut(words, k * run + i));
    }
}

#[inline(always)]
fn forward_pass<V: Lanes, const S: usize>(t: &Tables, values: &mut [u64], blocks: usize, p: &V::Prime) {
    let bias = V::bias(p, 0);
    let block_len = values.len() / blocks;
    for (b, block) in values.chunks_exact_mut(block_len).enumerate() {
        let roots = block_roots::<V, S>(&t.forward.roots, blocks + b);
        let words = V::split_mut(block);
        let run = words.len() / S;
        let words = &mut words[..S * run];
        if blocks == 1 {
            for i in 0..run {
                let mut x = load_runs::<V, S>(words, i, run, true);
                forward_butterflies(&mut x, &roots, bias, p);
                store_runs(words, i, run, &x);
            }
        } else {
            for i in 0..run {
                let mut x = load_runs::<V, S>(words, i, run, false);
                forward_butterflies(&mut x, &roots, bias, p);
                store_runs(words, i, run, &x);
            }
        }
    }
}

/// Returns whether eight lanes hold a row of 64 values. These then stay in registers for three
/// levels and while they are turned.
pub(crate) const fn holds_rows<V: Lanes>() -> bool {
    V::LANES == 8
}

/// Computes the three innermost levels of eight columns and stores canonical values.
#[inline(always)]
fn forward_inner<V: Lanes>(mut x: [V; 8], inner: &InnerRoots, part: usize, out: &mut Block64, bias: V, p: &V::Prime) {
    forward_butterflies(&mut x, &inner_roots::<V>(inner, part), bias, p);
    let out = V::split_mut(out);
    for l in 0..8 {
        x[l].leave(p, &mut out[8 / V::LANES * l + part]);
    }
}

impl Tables {
    #[cfg(test)]
    pub(crate) fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// Returns whether lazy values are settled after every pass of the inverse. They start below 2p
    /// and double at every level; a difference adds its bias once more.
    #[inline(always)]
    fn settles<V: Lanes>(&self) -> bool {
        self.modulus.bits() + self.log_degree + 2 > V::CAPACITY
    }

    /// Computes the three innermost levels of the inverse for a block of 64 values below 2p, in
    /// lanes that [hold a row](holds_rows) of it, and turns it back to rows.
    #[inline(always)]
    pub(crate) fn begin_inverse<V: Lanes>(&self, mut x: [V; 8], block: usize, p: &V::Prime) -> [V; 8] {
        let inner = &self.inverse.inner[block];
        inverse_butterflies(&mut x, &inner_roots(inner, 0), (0, self.settles::<V>()), p);
        V::turn(x)
    }

    /// Computes the next three levels of the inverse for block number `block` of several elements,
    /// which stand `stride` words apart.
    #[inline(always)]
    pub(crate) fn go_on<V: Lanes>(&self, (elements, stride): (&mut [u64], usize), block: usize, p: &V::Prime) {
        let settle = self.settles::<V>();
        let roots = block_roots(&self.inverse.roots, (1 << (self.log_degree - 6)) + block);
        for element in elements.chunks_exact_mut(stride) {
            let words = V::split_mut(&mut element[64 * block..][..64]);
            let mut x = load_runs::<V, 8>(words, 0, 1, false);
            inverse_butterflies(&mut x, &roots, (if settle { 0 } else { 3 }, settle), p);
            store_runs(words, 0, 1, &x);
        }
    }
}

impl Job for Forward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (t, p) = (self.tables, V::prime(&self.tables.modulus));
        let levels = t.log_degree - 3;
        let mut done = 0;
        while done < levels {
            // The first pass takes what is left over, so that the others are whole.
            let now = if done == 0 && !levels.is_multiple_of(V::LEVELS) { levels % V::LEVELS } else { V::LEVELS };
            match now {
                1 => forward_pass::<V, 2>(t, self.values, 1 << done, &p),
                2 => forward_pass::<V, 4>(t, self.values, 1 << done, &p),
                _ => forward_pass::<V, 8>(t, self.values, 1 << done, &p),
            }
            done += now;
        }
        let bias = V::bias(&p, 0);
        for (block, inner) in self.values.as_chunks_mut::<64>().0.iter_mut().zip(&t.forward.inner) {
            if holds_rows::<V>() {
                // No copy, as in the inverse.
                let x = V::turn(load_runs(V::split(block), 0, 1, false));
                forward_inner(x, inner, 0, block, bias, &p);
                continue;
            }
            let rows = *block;
            for part in 0..8 / V::LANES {
                let x = V::columns(&rows, part);
                forward_inner(x, inner, part, block, bias, &p);
            }
        }
    }
}

/// Computes one column of the last pass of the inverse: column `i` of `S` runs of `run` groups of
/// lanes. Differences are scaled by their root, sums by `scale`.
#[inline(always)]
fn last_column<V: Lanes, const S: usize>(
    words: &mut [V::Words],
    (i, run): (usize, usize),
    roots: &[(V, V); S],
    (scale, quotient): (V, V),
    doublings: u32,
    p: &V::Prime,
) {
    let mut x = load_runs::<V, S>(words, i, run, false);
    inverse_butterflies(&mut x, roots, (doublings, false), p);
    for k in 0..S {
        let v = if k < S / 2 { x[k].mul_constant(scale, quotient, p) } else { x[k] };
        v.leave(p, item_at_mut(words, k * run + i));
    }
}

/// Computes one pass of the inverse, which combines `S` runs in each of `blocks` blocks. `growth`
/// is what [`inverse_butterflies`] takes: doublings before, and whether values are settled.
#[inline(always)]
fn inverse_pass<V: Lanes, const S: usize>(
    t: &Tables,
    values: &mut [u64],
    blocks: usize,
    growth: (u32, bool),
    ahead: &mut Ahead<'_>,
    p: &V::Prime,
) {
    let block_len = values.len() / blocks;
    let scale = (V::splat(t.scale[0]), V::splat(t.scale[1]));
    for (b, block) in values.chunks_exact_mut(block_len).enumerate() {
        let roots = block_roots::<V, S>(&t.inverse.roots, blocks + b);
        let words = V::split_mut(block);
        let run = words.len() / S;
        let words = &mut words[..S * run];
        if blocks == 1 {
            for i in 0..run {
                last_column(words, (i, run), &roots, scale, growth.0, p);
            }
        } else {
            for i in 0..run {
                ahead.ask::<V>();
                let mut x = load_runs::<V, S>(words, i, run, false);
                inverse_butterflies(&mut x, &roots, growth, p);
                store_runs(words, i, run, &x);
            }
        }
    }
}

/// Computes the last pass of the inverse, which combines eight runs, for the wanted outputs only.
#[inline(always)]
fn inverse_pruned<V: Lanes>(t: &Tables, values: &mut [u64], wanted: &WantedRuns, doublings: u32, p: &V::Prime) {
    let last = Last {
        roots: block_roots::<V, 8>(&t.inverse.roots, 1),
        scale: (V::splat(t.scale[0]), V::splat(t.scale[1])),
        bias: [V::bias(p, doublings), V::bias(p, doublings + 1), V::bias(p, doublings + 2)],
    };
    let words = V::split_mut(values);
    let run = words.len() / 8;
    let words = &mut words[..8 * run];
    for (mask, columns) in wanted.runs() {
        for i in columns.start..columns.end.min(run) {
            if mask == ALL {
                last_column(words, (i, run), &last.roots, last.scale, doublings, p);
            } else {
                let x = load_runs::<V, 8>(words, i, run, false);
                last.some(mask, &x, words, (i, run), p);
            }
        }
    }
}

impl Job for Inverse<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (t, p) = (self.tables, V::prime(&self.tables.modulus));
        let settle = t.settles::<V>();
        let mut ahead = Ahead { bytes: self.ahead, at: 0 };
        let begun = self.begun && holds_rows::<V>();
        if !begun {
            for (b, block) in self.values.as_chunks_mut::<64>().0.iter_mut().enumerate() {
                ahead.ask::<V>();
                if holds_rows::<V>() {
                    // All of the block is in registers before anything is written; a copy would
                    // only be in the way.
                    let x = t.begin_inverse::<V>(load_runs(V::split(block), 0, 1, true), b, &p);
                    store_runs(V::split_mut(block), 0, 1, &x);
                    continue;
                }
                let copy = *block;
                for part in 0..8 / V::LANES {
                    let mut x = load_runs(V::split(&copy), part, 8 / V::LANES, true);
                    inverse_butterflies::<V, 8>(&mut x, &inner_roots(&t.inverse.inner[b], part), (0, settle), &p);
                    V::rows(x, part, block);
                }
            }
        }
        let mut left = t.log_degree - if begun { 6 } else { 3 };
        while left > 0 {
            // Where the last pass can be pruned, it has to take three levels. So the levels that do
            // not fill a pass are taken right after the six innermost.
            let over = if holds_rows::<V>() && left < t.log_degree - 3 { left % V::LEVELS } else { 0 };
            let levels = if over > 0 { over } else { left.min(V::LEVELS) };
            let how = (if settle { 0 } else { t.log_degree - left }, settle);
            let blocks = 1 << (left - levels);
            match (levels, self.wanted.filter(|_| blocks == 1 && holds_rows::<V>())) {
                (1, _) => inverse_pass::<V, 2>(t, self.values, blocks, how, &mut ahead, &p),
                (2, _) => inverse_pass::<V, 4>(t, self.values, blocks, how, &mut ahead, &p),
                (_, Some(wanted)) => inverse_pruned::<V>(t, self.values, wanted, how.0, &p),
                (_, None) => inverse_pass::<V, 8>(t, self.values, blocks, how, &mut ahead, &p),
            }
            left -= levels;
        }
    }
}
