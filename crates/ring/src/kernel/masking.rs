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

impl Job for Chunk<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { modulus, ready, tiles, z, checks: [first, second] } = self;
        let p = V::prime(modulus);
        let bias = V::bias(&p, 1);
        let (z, first, second) = (V::split_mut(z), V::split_mut(first), V::split_mut(second));
        let mut tiles = tiles.into_iter().peekable();
        while let Some(tile) = tiles.next() {
            // While one tile is worked on, the next one's words are on their way.
            let [next_a, next_u0, next_u1] = match tiles.peek() {
                Some(next) => [next.a, next.u[0], next.u[1]],
                None => [&[][..]; 3],
            };
            let x = V::split_mut(tile.x);
            let (a, pad) = (V::split(tile.a), V::split(tile.pad));
            let (u0, u1) = (V::split(tile.u[0]), V::split(tile.u[1]));
            for i in 0..x.len() {
                prefetch::<V, _>(next_a, i * V::LANES);
                prefetch::<V, _>(next_u0, i * V::LANES);
                prefetch::<V, _>(next_u1, i * V::LANES);
                let (noisy, a) = (V::enter(&x[i]), V::enter(&a[i]));
                V::load(&z[i]).add(a.mul(noisy, &p)).settle(&p).store(&mut z[i]);
                let pad = V::enter(&pad[i]);
                let masked = if ready { noisy.add(pad) } else { noisy.sub(pad.mul(a, &p), bias) };
                let masked = masked.settle(&p);
                masked.leave(&p, &mut x[i]);
                V::load(&first[i]).add(masked.mul(V::enter(&u0[i]), &p)).settle(&p).store(&mut first[i]);
                V::load(&second[i]).add(masked.mul(V::enter(&u1[i]), &p)).settle(&p).store(&mut second[i]);
            }
        }
        for words in [z, first, second] {
            for word in words {
                V::load(word).leave(&p, word);
            }
        }
    }
}
