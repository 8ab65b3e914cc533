//! How fast a vector unit can multiply and add, and threads can read memory, at best: row products
//! are measured against it.

use std::hint::black_box;

use rayon::prelude::*;

use super::lanes::{AHEAD, Lanes, prefetch};
use super::{Backend, Job};
use crate::{Modulus, RingError};

/// Multiplies with the sums in registers and operands in the first-level cache.
struct Peak {
    modulus: Modulus,
    repeats: usize,
}

/// Sums in flight: enough to hide the latency of a multiply-add.
const SUMS: usize = 8;
/// Products that are added to a sum before it is folded.
const ROUNDS: usize = 4000;
/// Different operands, in words: 4 KiB.
const OPERANDS: usize = 512;

impl Job for Peak {
    type Out = (usize, u64);

    #[inline(always)]
    fn run<V: Lanes>(self) -> (usize, u64) {
        let p = V::prime(&self.modulus);
        // Opaque, and different ones: the compiler would compute products of constants itself, and
        // a repeated product only once.
        let w = V::splat(black_box(V::constant(&self.modulus, 54321)[0]));
        let mut operands = [0; OPERANDS];
        for (i, word) in operands.iter_mut().enumerate() {
            *word = V::constant(&self.modulus, 12345 + i as u64)[0];
        }
        let operands = V::split(black_box(&operands));
        let mut sums = [V::no_products(); SUMS];
        for _ in 0..self.repeats {
            for sum in &mut sums {
                *sum = V::fold(*sum, &p);
            }
            for xs in operands.as_chunks::<SUMS>().0.iter().cycle().take(ROUNDS) {
                for (sum, x) in sums.iter_mut().zip(xs) {
                    *sum = V::accumulate(*sum, V::load(x), w, &p);
                }
            }
        }
        let mut words = [0; 8];
        let mut check = 0;
        for sum in sums {
            V::finish(V::fold(sum, &p), &p, &mut V::split_mut(&mut words)[0]);
            check ^= words[0];
        }
        (self.repeats * ROUNDS * SUMS * V::LANES, check)
    }
}

/// Reads bytes and combines them, nothing else.
struct Read<'a> {
    bytes: &'a [u8],
}

impl Job for Read<'_> {
    type Out = u64;

    #[inline(always)]
    fn run<V: Lanes>(self) -> u64 {
        // Independent sums, so that the compiler may use vectors.
        let mut sums = [0u8; 256];
        for (i, bytes) in self.bytes.as_chunks::<256>().0.iter().enumerate() {
            for line in 0..4 {
                prefetch(self.bytes, 256 * i + 64 * line + AHEAD);
            }
            for (s, b) in sums.iter_mut().zip(bytes) {
                *s ^= b;
            }
        }
        sums.iter().fold(0, |a, b| a ^ u64::from(*b))
    }
}

impl Backend {
    /// Reads memory on all threads, a part each, prefetched; returns a value that depends on it.
    /// For benchmarks.
    pub fn read(self, bytes: &[u8]) -> u64 {
        let part = bytes.len().div_ceil(rayon::current_num_threads()).max(1);
        bytes.par_chunks(part).map(|bytes| self.run(Read { bytes })).reduce(|| 0, |a, b| a ^ b)
    }

    /// Multiplies and adds residues held in the first-level cache, so often that the preparation
    /// does not count. Returns the number of products and a value that depends on them. For
    /// benchmarks.
    ///
    /// # Errors
    /// [`RingError`] never in practice: the modulus is fixed.
    pub fn multiply_in_cache(self) -> Result<(usize, u64), RingError> {
        let modulus = Modulus::new(crate::primes::ntt_primes(4096, 33, 1)?[0])?;
        Ok(self.run(Peak { modulus, repeats: 64 }))
    }
}
