//! The negacyclic number-theoretic transform for one prime.
//!
//! The order of the values is part of our wire format (masked inputs travel in the NTT domain), so
//! it is pinned by a test against direct evaluation. With `rev` the bit reversal, bit-reversed
//! order has at `i` the value at `psi^(2*rev(i) + 1)`; ours is that with every 64 values, seen as
//! eight rows of eight, turned to columns (`backend/transform.rs` says why).

use crate::backend::WantedRuns;
use crate::backend::transform::{Forward, Inverse, Tables, holds_rows};
use crate::backend::{Job, lanes::Lanes};
use crate::{Backend, Modulus, RingError};

/// Forward and inverse transform for one degree and prime.
#[derive(Debug)]
pub(crate) struct NttPlan {
    tables: Tables,
    backend: Backend,
}

/// Makes tables in the form that the lanes take.
pub(crate) struct MakeTables {
    pub(crate) modulus: Modulus,
    pub(crate) log_degree: u32,
    pub(crate) psi: u64,
}

impl Job for MakeTables {
    type Out = Tables;

    fn run<V: Lanes>(self) -> Tables {
        Tables::new::<V>(self.modulus, self.log_degree, self.psi)
    }
}

/// Returns [`holds_rows`] for a backend's lanes.
struct HoldsRows;

impl Job for HoldsRows {
    type Out = bool;

    fn run<V: Lanes>(self) -> bool {
        holds_rows::<V>()
    }
}

impl NttPlan {
    /// Precomputes the roots of unity of one degree and prime.
    ///
    /// # Errors
    /// [`RingError::Modulus`] unless `p = 1 (mod 2 * degree)`.
    pub(crate) fn new(degree: usize, modulus: Modulus, backend: Backend) -> Result<Self, RingError> {
        let psi = primitive_root(degree as u64, &modulus)
            .ok_or(RingError::Modulus { got: modulus.value(), why: "must be 1 modulo twice the degree" })?;
        let backend = backend.for_modulus(&modulus);
        let tables = backend.run(MakeTables { modulus, log_degree: degree.ilog2(), psi });
        Ok(Self { tables, backend })
    }

    /// Transforms coefficients to NTT values in place.
    pub(crate) fn forward(&self, values: &mut [u64]) {
        self.backend.run(Forward { tables: &self.tables, values });
    }

    /// Returns the tables if `backend` also computes the transforms and can
    /// [begin](Tables::begin_inverse) the inverse ones right after the products.
    pub(crate) fn begins(&self, backend: Backend) -> Option<&Tables> {
        Some(&self.tables).filter(|_| backend == self.backend && backend.run(HoldsRows))
    }

    /// Transforms NTT values to coefficients in place, scaled by `1/N`.
    pub(crate) fn inverse(&self, values: &mut [u64]) {
        self.backend.run(Inverse { tables: &self.tables, values, begun: false, wanted: None, ahead: &[] });
    }

    /// Transforms NTT values to the `wanted` coefficients in place, scaled by `1/N`; the others may
    /// become anything. `begun` says whether the transform has [begun](NttPlan::begins) already,
    /// and `ahead` is memory that will be read next and is prefetched meanwhile.
    pub(crate) fn inverse_some(&self, values: &mut [u64], begun: bool, wanted: &WantedRuns, ahead: &[u8]) {
        let wanted = Some(wanted).filter(|wanted| wanted.degree() == values.len());
        self.backend.run(Inverse { tables: &self.tables, values, begun, wanted, ahead });
    }
}

/// Finds a primitive `2N`-th root of unity, `N` being `degree`: the `(p-1)/(2N)`-th power of the
/// first of 2, 3, 4, .. for which that power is such a root, so that every build finds the same.
/// Returns `None` unless `p = 1 (mod 2N)`.
fn primitive_root(degree: u64, m: &Modulus) -> Option<u64> {
    let order = 2 * degree;
    if !(m.value() - 1).is_multiple_of(order) {
        return None;
    }
    // The power has order 2N exactly if its N-th power is -1; half of all bases do.
    let candidates = (2..256).map(|g| m.pow_vartime(g, (m.value() - 1) / order));
    candidates.into_iter().find(|&psi| m.pow_vartime(psi, degree) == m.value() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tests::place;
    use crate::primes::ntt_primes;

    fn plan(degree: usize, bits: u32, backend: Backend) -> NttPlan {
        NttPlan::new(degree, Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap(), backend).unwrap()
    }

    #[test]
    fn product_is_the_negacyclic_convolution() {
        for (degree, bits) in [(1024, 13 + 7), (1024, 26), (2048, 45), (4096, 33), (4096, 36), (4096, 50)] {
            let plan = plan(degree, bits, Backend::fastest());
            let m = Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap();
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
        for backend in Backend::available() {
            let plan = plan(1024, 26, backend);
            let m = Modulus::new(ntt_primes(1024, 26, 1).unwrap()[0]).unwrap();
            // The transform of X is the list of the roots themselves.
            let mut roots = vec![0; 1024];
            roots[1] = 1;
            plan.forward(&mut roots);
            let psi = roots[0];
            assert_eq!(m.pow_vartime(psi, 1024), m.value() - 1, "psi is a primitive 2N-th root");
            for i in 0..1024u64 {
                let rev = i.reverse_bits() >> (64 - 10);
                assert_eq!(roots[place(i as usize)], m.pow_vartime(psi, 2 * rev + 1), "position {i}");
            }
            // Which root psi is matters as well: known answer for p = 67104769, N = 1024.
            assert_eq!((m.value(), psi), (67_104_769, KNOWN_ROOT));
        }
    }

    const KNOWN_ROOT: u64 = 53_465_886;
}
