//! The oracle: no blocking, no lazy reduction, the machine's own division.

use super::BLOCK;
use crate::Modulus;

pub(super) fn row(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    let (p, tiles) = (u128::from(p.value()), x.len());
    for (k, o) in out.iter_mut().enumerate() {
        let (block, lane) = (k / BLOCK, k % BLOCK);
        *o = 0;
        for (tile, x) in x.iter().enumerate() {
            let w = w[(block * tiles + tile) * BLOCK + lane];
            *o = ((u128::from(*o) + u128::from(x[k]) * u128::from(w)) % p) as u64;
        }
    }
}
