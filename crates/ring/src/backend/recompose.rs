//! Recomposition of residues modulo two primes, the client's last step: see `crt.rs` for the
//! formulas.

use zeroize::Zeroize;

use super::Job;
use super::lanes::Lanes;
use crate::Modulus;

/// Writes to `out` the values with the given residues modulo `p0` and `p1`, centred modulo `q =
/// p0*p1`, then modulo `2^bits`. All slices have the same length, a multiple of 8.
pub(crate) struct RecomposeTwo<'a> {
    pub(crate) moduli: [&'a Modulus; 2],
    /// `p0^-1 mod p1`.
    pub(crate) inverse: u64,
    pub(crate) bits: u32,
    pub(crate) residues: [&'a [u64]; 2],
    pub(crate) out: &'a mut [i64],
}

impl Job for RecomposeTwo<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let [p0, p1] = [self.moduli[0].value(), self.moduli[1].value()];
        let p = V::prime(self.moduli[1]);
        // The first residue may exceed the second prime, by less than a factor of 2^17 (primes have
        // 33 to 50 bits): it is settled first.
        let bias = V::bias(&p, 0);
        let [factor, quotient] = V::constant(self.moduli[1], self.inverse);
        let (factor, quotient) = (V::splat(factor), V::splat(quotient));
        let (h0, h1, q) = ((p0 - 1) / 2, (p1 - 1) / 2, p0.wrapping_mul(p1));
        let (first, second) = (V::split(self.residues[0]), V::split(self.residues[1]));
        let mut digits = [0u64; 8];
        for (i, out) in self.out.chunks_exact_mut(V::LANES).enumerate() {
            let d0 = &self.residues[0][i * V::LANES..(i + 1) * V::LANES];
            let difference = V::enter(&second[i]).sub(V::enter(&first[i]).settle(&p), bias);
            difference.mul_constant(factor, quotient, &p).leave(&p, &mut V::split_mut(&mut digits)[0]);
            for k in 0..V::LANES {
                let (d0, d1) = (d0[k], digits[k]);
                // 1 if the value exceeds (q-1)/2; no branch on it.
                let above = (h1.wrapping_sub(d1) >> 63) | ((((d1 ^ h1).wrapping_sub(1)) & h0.wrapping_sub(d0)) >> 63);
                let v = d0.wrapping_add(d1.wrapping_mul(p0)).wrapping_sub(q & above.wrapping_neg());
                out[k] = ((v << (64 - self.bits)) as i64) >> (64 - self.bits);
            }
        }
        digits.zeroize();
    }
}
