//! The fastest that a vector unit can multiply and add: what a batch's rows are measured against.

use super::lanes::Lanes;
use super::{Job, Kernel};
use crate::{Modulus, RingError};

/// Products with everything in registers.
struct Peak {
    modulus: Modulus,
    rounds: usize,
}

/// Sums in flight: enough to hide the latency of a multiply-add.
const SUMS: usize = 8;

impl Job for Peak {
    type Out = (usize, u64);

    #[inline(always)]
    fn run<V: Lanes>(self) -> (usize, u64) {
        let p = V::prime(&self.modulus);
        let (x, w) = (V::splat(V::constant(&self.modulus, 12345)[0]), V::splat(V::constant(&self.modulus, 54321)[0]));
        let mut sums = [V::no_products(); SUMS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = V::accumulate(*sum, x, w, &p);
            }
        }
        let mut words = [0; 8];
        let mut check = 0;
        for sum in sums {
            V::finish(V::fold(sum, &p), &p, &mut V::split_mut(&mut words)[0]);
            check ^= words[0];
        }
        (self.rounds * SUMS * V::LANES, check)
    }
}

impl Kernel {
    /// Multiplies and adds residues held in registers, at most 4096 times each; returns the number of products and a value
    /// that depends on them. For benchmarks.
    ///
    /// # Errors
    /// [`RingError`] never in practice: the modulus is fixed.
    pub fn multiply_in_registers(self) -> Result<(usize, u64), RingError> {
        let modulus = Modulus::new(crate::primes::ntt_primes(4096, 33, 1)?[0])?;
        Ok(self.run(Peak { modulus, rounds: 4096 }))
    }
}
