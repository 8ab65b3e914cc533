//! The client's pass over all tiles of a request: `x[i] -= a[i]*s` (or `x[i] += m[i]` with pads made earlier), and with it the sums `z = sum_i a[i]*x[i]` (of the
//! values before) and `sum_i u[i]*x[i]` (of the values after). Every word is touched once.

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::Job;
use super::lanes::{Lanes, prefetch};
use crate::{Modulus, Ntt, Poly, Ring, RingError};

/// Coefficients that one job takes: the three sums of so many stay in the first-level cache.
const CHUNK: usize = 256;

/// The sums of one pass.
pub struct MaskSums {
    /// `sum_i a[i]*x[i]` before masking.
    pub z: Zeroizing<Poly<Ntt>>,
    /// `sum_i u[c][i]*x[i]` after masking.
    pub checks: [Zeroizing<Poly<Ntt>>; 2],
}

impl std::fmt::Debug for MaskSums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskSums(withheld)")
    }
}

/// What hides the tiles of a request.
#[derive(Debug, Clone, Copy)]
pub enum Pad<'a> {
    /// `x[i] - a[i]*s`: the secret itself.
    Secret(&'a Poly<Ntt>),
    /// `x[i] + m[i]`: pads computed earlier, one per tile.
    Ready(&'a [Poly<Ntt>]),
}

/// One tile's part of a chunk.
struct TileChunk<'a> {
    x: &'a mut [u64],
    a: &'a [u64],
    u: [&'a [u64]; 2],
    /// The secret, or the pad if there is one ready.
    pad: &'a [u64],
}

/// A chunk of coefficients of one limb, all tiles.
struct Chunk<'a> {
    modulus: &'a Modulus,
    /// Whether pads are ready.
    ready: bool,
    tiles: Vec<TileChunk<'a>>,
    z: &'a mut [u64],
    checks: [&'a mut [u64]; 2],
}

/// Masks all tiles of a request in place.
///
/// # Errors
/// [`RingError::Length`] if the numbers of tiles differ or an element belongs to another ring.
pub(crate) fn mask<'a>(
    ring: &Ring,
    x: &mut [Poly<Ntt>],
    a: &'a [Poly<Ntt>],
    pad: Pad<'a>,
    u: [&'a [Poly<Ntt>]; 2],
) -> Result<MaskSums, RingError> {
    let tiles = x.len();
    let lists = [&*x, a, u[0], u[1]];
    if let Some(list) = lists.iter().find(|list| list.len() != tiles || !list.iter().all(|p| ring.holds(p))) {
        return Err(RingError::Length { what: "tiles to mask", expected: tiles, got: list.len() });
    }
    let (fits, ready) = match pad {
        Pad::Secret(s) => (ring.holds(s), false),
        Pad::Ready(pads) => (pads.len() == tiles && pads.iter().all(|p| ring.holds(p)), true),
    };
    if !fits {
        return Err(RingError::Length { what: "elements of a mask", expected: tiles, got: 0 });
    }
    let zero = || Zeroizing::new(ring.zero::<Ntt>());
    let mut sums = MaskSums { z: zero(), checks: [zero(), zero()] };
    let per_limb = ring.degree() / CHUNK;
    let [first, second] = &mut sums.checks;
    let outs = sums.z.chunks_mut(CHUNK).zip(first.chunks_mut(CHUNK)).zip(second.chunks_mut(CHUNK));
    let mut chunks: Vec<Chunk<'_>> = outs
        .enumerate()
        .map(|(i, ((z, first), second))| {
            let modulus = &ring.moduli()[i / per_limb];
            Chunk { modulus, ready, tiles: Vec::with_capacity(tiles), z, checks: [first, second] }
        })
        .collect();
    for (i, x) in x.iter_mut().enumerate() {
        for (c, (x, chunk)) in x.chunks_mut(CHUNK).zip(&mut chunks).enumerate() {
            let (limb, at) = (c / per_limb, c % per_limb * CHUNK);
            let cut = |p: &'a Poly<Ntt>| &p.limb(limb)[at..at + CHUNK];
            let pad = match pad {
                Pad::Secret(s) => cut(s),
                Pad::Ready(pads) => cut(&pads[i]),
            };
            chunk.tiles.push(TileChunk { pad, x, a: cut(&a[i]), u: [cut(&u[0][i]), cut(&u[1][i])] });
        }
    }
    chunks.into_par_iter().with_min_len(2).for_each(|chunk| {
        ring.kernel().for_modulus(chunk.modulus).run(chunk);
    });
    Ok(sums)
}

/// Tiles that go into the sums together, which are in registers meanwhile.
const TOGETHER: usize = 4;

impl Job for Chunk<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { modulus, ready, mut tiles, z, checks: [first, second] } = self;
        let mut sums = [z, first, second];
        let (whole, rest) = tiles.as_chunks_mut::<TOGETHER>();
        let mut whole = whole.iter_mut().peekable();
        while let Some(tiles) = whole.next() {
            // While some tiles are worked on, the next ones' words are on their way.
            let next = whole.peek().map_or(&*rest, |next| &next[..]);
            mask_some::<V, TOGETHER>(modulus, ready, tiles, next, &mut sums);
        }
        for i in 0..rest.len() {
            let (tiles, next) = rest[i..].split_at_mut(1);
            if let [tile] = tiles {
                mask_some::<V, 1>(modulus, ready, std::array::from_mut(tile), next, &mut sums);
            }
        }
    }
}

/// Masks some tiles' part of a chunk and adds what they give to the three sums, all canonical before and after.
#[inline(always)]
fn mask_some<V: Lanes, const K: usize>(
    modulus: &Modulus,
    ready: bool,
    tiles: &mut [TileChunk<'_>; K],
    next: &[TileChunk<'_>],
    sums: &mut [&mut [u64]; 3],
) {
    let p = V::prime(modulus);
    let bias = V::bias(&p, 1);
    // A sum begins with the earlier one, times one.
    let one = V::splat(V::constant(modulus, 1)[0]);
    let none = V::no_products();
    for i in 0..CHUNK / V::LANES {
        for tile in next.iter().take(K) {
            prefetch(tile.a, i * V::LANES);
            prefetch(tile.u[0], i * V::LANES);
            prefetch(tile.u[1], i * V::LANES);
        }
        let mut acc = [none; 3];
        for s in 0..3 {
            acc[s] = V::accumulate(none, V::enter(&V::split(sums[s])[i]), one, &p);
        }
        for tile in tiles.iter_mut() {
            let x = &mut V::split_mut(tile.x)[i];
            let (noisy, a, pad) = (V::enter(x), V::enter(&V::split(tile.a)[i]), V::enter(&V::split(tile.pad)[i]));
            acc[0] = V::accumulate(acc[0], a, noisy, &p);
            let masked = if ready { noisy.add(pad) } else { noisy.sub(pad.mul(a, &p), bias) };
            masked.leave(&p, x);
            let masked = V::enter(x);
            acc[1] = V::accumulate(acc[1], masked, V::enter(&V::split(tile.u[0])[i]), &p);
            acc[2] = V::accumulate(acc[2], masked, V::enter(&V::split(tile.u[1])[i]), &p);
        }
        for s in 0..3 {
            V::finish(acc[s], &p, &mut V::split_mut(sums[s])[i]);
        }
    }
}
