//! 128-bit accumulators, one reduction per coefficient.

use super::BLOCK;
use crate::Modulus;

/// Accumulators held at once: eight pairs stay in general registers' reach, more spill on every product.
const HELD: usize = 4;

pub(super) fn row(p: &Modulus, w: &[u64], x: &[&[u64]], out: &mut [u64]) {
    let blocks = w.chunks_exact(x.len() * BLOCK).zip(out.as_chunks_mut::<BLOCK>().0);
    for (block, (w, out)) in blocks.enumerate() {
        for (part, out) in out.as_chunks_mut::<HELD>().0.iter_mut().enumerate() {
            let (start, mut sums) = (part * HELD, [0u128; HELD]);
            for (w, x) in w.as_chunks::<BLOCK>().0.iter().zip(x) {
                let x = &x[block * BLOCK + start..][..HELD];
                for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(&w[start..start + HELD]) {
                    *sum += u128::from(x) * u128::from(w);
                }
            }
            for (o, &sum) in out.iter_mut().zip(&sums) {
                *o = p.reduce(sum);
            }
        }
    }
}
