//! The negacyclic number-theoretic transform for one prime.
//!
//! The transform itself is `tfhe-ntt` 0.7.1 behind this type. Two of its habits are kept out: for primes from 2^50.4
//! on its results can be wrong ([`Modulus`] ends at 2^50), and what it returns may be unreduced (reduced here).
//! The order of the values is part of our wire format (masked inputs travel in the NTT domain), so it is pinned by a
//! test against direct evaluation: position `i` holds the value at `psi^(2*rev(i) + 1)`, `rev` the bit reversal.

use tfhe_ntt::prime64::Plan;

use crate::{Modulus, RingError};

/// Forward and inverse transform for one degree and prime.
pub(crate) struct NttPlan {
    plan: Plan,
    modulus: Modulus,
}

impl std::fmt::Debug for NttPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NttPlan").field("modulus", &self.modulus).finish_non_exhaustive()
    }
}

impl NttPlan {
    /// Precomputes the roots of unity. Needs `p = 1 (mod 2 * degree)`.
    pub(crate) fn new(degree: usize, modulus: Modulus) -> Result<Self, RingError> {
        let plan = Plan::try_new(degree, modulus.value())
            .ok_or(RingError::Modulus { got: modulus.value(), why: "must be 1 modulo twice the degree" })?;
        Ok(Self { plan, modulus })
    }

    /// Coefficients to NTT values, in place.
    pub(crate) fn forward(&self, values: &mut [u64]) {
        self.plan.fwd(values);
        self.reduce(values);
    }

    /// NTT values to coefficients, in place, scaled by `1/N`.
    pub(crate) fn inverse(&self, values: &mut [u64]) {
        self.plan.inv(values);
        self.plan.normalize(values);
        self.reduce(values);
    }

    fn reduce(&self, values: &mut [u64]) {
        let p = self.modulus.value();
        for v in values {
            let d = v.wrapping_sub(p);
            *v = d.wrapping_add(p & (d >> 63).wrapping_neg());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primes::ntt_primes;

    fn plan(degree: usize, bits: u32) -> NttPlan {
        NttPlan::new(degree, Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap()).unwrap()
    }

    #[test]
    fn product_is_the_negacyclic_convolution() {
        for (degree, bits) in [(1024, 13 + 7), (1024, 26), (2048, 45), (4096, 33), (4096, 36), (4096, 50)] {
            let plan = plan(degree, bits);
            let m = plan.modulus;
            // Largest residues everywhere, then a pattern.
            for seed in [m.value() - 1, 12_345] {
                let gen_at =
                    |i: usize| if seed == 12_345 { m.reduce(u128::from(seed).pow(3) * i as u128) } else { seed };
                let (a, b): (Vec<u64>, Vec<u64>) = (0..degree).map(|i| (gen_at(i), gen_at(i + 7))).unzip();
                let mut naive = vec![0; degree];
                for i in 0..degree {
                    for j in 0..degree {
                        let v = m.mul(a[i], b[j]);
                        let k = (i + j) % degree;
                        naive[k] = if i + j < degree { m.add(naive[k], v) } else { m.sub(naive[k], v) };
                    }
                }
                let (mut fa, mut fb) = (a.clone(), b.clone());
                plan.forward(&mut fa);
                plan.forward(&mut fb);
                let mut c: Vec<u64> = fa.iter().zip(&fb).map(|(&x, &y)| m.mul(x, y)).collect();
                plan.inverse(&mut c);
                assert!(c == naive, "degree {degree}, {bits} bits");
            }
        }
    }

    #[test]
    fn order_of_values_is_pinned() {
        let plan = plan(1024, 26);
        let m = plan.modulus;
        // The transform of X is the list of the roots themselves.
        let mut roots = vec![0; 1024];
        roots[1] = 1;
        plan.forward(&mut roots);
        let psi = roots[0];
        assert_eq!(m.pow_vartime(psi, 1024), m.value() - 1, "psi is a primitive 2N-th root");
        for (i, &root) in roots.iter().enumerate() {
            let rev = (i as u64).reverse_bits() >> (64 - 10);
            assert_eq!(root, m.pow_vartime(psi, 2 * rev + 1), "position {i}");
        }
        // Which root psi is matters as well: known answer for p = 67104769, N = 1024.
        assert_eq!((m.value(), psi), (67_104_769, KNOWN_ROOT));
    }

    const KNOWN_ROOT: u64 = 53_465_886;
}
