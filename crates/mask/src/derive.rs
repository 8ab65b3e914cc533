//! What is drawn from the keys of an operator.

use std::ops::Range;

use jali_ring::sample::{self, Key, derive_key, stream};
use jali_ring::{Ntt, Poly, Ring};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::check::SCALARS;

/// Some elements of the public vector `a` of an operator, one uniform element per tile, from its
/// seed.
pub fn expand_public(ring: &Ring, seed: &[u8; 32], tiles: Range<usize>) -> Vec<Poly<Ntt>> {
    let element = |i: u64| ring.uniform(&mut stream(&derive_key("jali 1 expand a", &[seed, &i.to_le_bytes()])));
    tiles.into_par_iter().map(|i| element(i as u64)).collect()
}

/// The secret of a hidden row, from its key.
pub(crate) fn row_secret(ring: &Ring, key: &Key) -> Zeroizing<Poly<Ntt>> {
    let mut s = Zeroizing::new(vec![0; ring.degree()]);
    sample::ternary(ring.backend(), &mut stream(key), &mut s);
    Zeroizing::new(ring.forward(ring.lift(&s, 1)))
}

/// The secret scalars of the check, `[scalar][limb][row]`, from their key.
pub(crate) fn check_scalars(ring: &Ring, key: &Key, rows: usize) -> [Vec<Vec<u64>>; SCALARS] {
    let mut stream = stream(key);
    [(); SCALARS].map(|()| {
        let per_limb = ring.moduli().iter().map(|m| {
            let mut alpha = vec![0; rows];
            sample::uniform_mod(&mut stream, m, &mut alpha);
            alpha
        });
        per_limb.collect()
    })
}
