//! Chinese remaindering by Garner's mixed-radix digits: `V = d0 + d1*p0 + d2*p0*p1 + ..`, `0 <= d_i
//! < p_i`.
//!
//! Centring compares digits with those of `(q-1)/2`; nothing branches on the value.

use zeroize::Zeroize;

use crate::backend::recompose::RecomposeTwo;
use crate::{Backend, Modulus};

/// Precomputed constants for one list of primes.
#[derive(Debug)]
pub struct Crt {
    moduli: Vec<Modulus>,
    /// `inverses[i][j] = p_j^-1 mod p_i` for `j < i`.
    inverses: Vec<Vec<u64>>,
    /// `p_0 * .. * p_(i-1)` modulo 2^64 (entry 0 is 1, the last entry is q).
    products: Vec<u64>,
    /// The products `p_0 * .. * p_(i-1)` as floating-point numbers, not reduced.
    products_f64: Vec<f64>,
    /// Digits of `(q-1)/2`.
    half: Vec<u64>,
    backend: Backend,
}

/// Returns 1 if `a < b` and 0 if not, without a branch. Needs both below 2^63.
fn less(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) >> 63
}

impl Crt {
    /// Precomputes the recomposition for distinct odd primes.
    pub(crate) fn new(moduli: &[Modulus], backend: Backend) -> Self {
        let inverses = moduli
            .iter()
            .enumerate()
            .map(|(i, m)| moduli[..i].iter().map(|p| m.invert(m.reduce(u128::from(p.value())))).collect())
            .collect();
        let (mut products, mut products_f64) = (vec![1u64], vec![1f64]);
        for (i, m) in moduli.iter().enumerate() {
            products.push(products[i].wrapping_mul(m.value()));
            products_f64.push(products_f64[i] * m.value() as f64);
        }
        // (q-1)/2 = (p_0 - 1)/2 + p_0 * ((p_1 - 1)/2 + ..): every digit is (p_i - 1)/2, since q is
        // odd.
        let half = moduli.iter().map(|m| (m.value() - 1) / 2).collect();
        Self { moduli: moduli.to_vec(), inverses, products, products_f64, half, backend }
    }

    /// Computes the digits of the value with the given residues, and returns 1 if the value exceeds
    /// `(q-1)/2` and 0 if not.
    fn digits(&self, residues: &[u64], digits: &mut [u64]) -> u64 {
        let (mut above, mut equal) = (0, 1);
        for (i, m) in self.moduli.iter().enumerate() {
            let mut d = residues[i];
            for j in 0..i {
                let reduced = m.reduce(u128::from(digits[j]));
                d = m.mul(m.sub(d, reduced), self.inverses[i][j]);
            }
            digits[i] = d;
        }
        for (&d, &h) in digits.iter().zip(&self.half).rev() {
            above |= equal & less(h, d);
            equal &= 1 ^ (less(h, d) | less(d, h));
        }
        above
    }

    /// Recomposes a value centred in `(-q/2, q/2)`, takes it modulo `2^bits` and centres it in
    /// `[-2^(bits-1), 2^(bits-1))`. `residues` has one residue for each limb, `digits` is scratch
    /// space of one word for each limb.
    pub fn centred_mod_power_of_two(&self, residues: &[u64], bits: u32, digits: &mut [u64]) -> i64 {
        let above = self.digits(residues, digits);
        let mut v = 0u64;
        for (&d, &p) in digits.iter().zip(&self.products) {
            v = v.wrapping_add(d.wrapping_mul(p));
        }
        v = v.wrapping_sub(self.products[self.moduli.len()] & above.wrapping_neg());
        ((v << (64 - bits)) as i64) >> (64 - bits)
    }

    /// Recomposes many values as [`Crt::centred_mod_power_of_two`] does one: value `i` of `out`
    /// from `residues[limb][i]`, all slices of the same length.
    pub fn centred_all_mod_power_of_two(&self, residues: &[&[u64]], bits: u32, out: &mut [i64]) {
        let mut done = 0;
        if let ([p0, p1], [r0, r1]) = (&*self.moduli, residues) {
            // Whole groups of lanes at once.
            done = out.len() / 8 * 8;
            let (residues, out) = ([&r0[..done], &r1[..done]], &mut out[..done]);
            let job = RecomposeTwo { moduli: [p0, p1], inverse: self.inverses[1][0], bits, residues, out };
            self.backend.for_modulus(p0).for_modulus(p1).run(job);
        }
        let (mut one, mut digits) = (vec![0; self.moduli.len()], vec![0; self.moduli.len()]);
        for (i, out) in out.iter_mut().enumerate().skip(done) {
            one.iter_mut().zip(residues).for_each(|(o, r)| *o = r[i]);
            *out = self.centred_mod_power_of_two(&one, bits, &mut digits);
        }
        one.zeroize();
        digits.zeroize();
    }

    /// Returns the centred value rounded to a floating-point number: for measuring noise, never for
    /// results.
    pub fn centred_f64(&self, residues: &[u64]) -> f64 {
        let mut digits = vec![0; self.moduli.len()];
        let above = self.digits(residues, &mut digits);
        if above == 1 {
            // q - V = 1 + sum (p_i - 1 - d_i) * P_i keeps the small difference exact where it
            // matters.
            let sum: f64 = digits
                .iter()
                .zip(&self.moduli)
                .zip(&self.products_f64)
                .map(|((&d, m), &p)| (m.value() - 1 - d) as f64 * p)
                .sum();
            -(sum + 1.0)
        } else {
            digits.iter().zip(&self.products_f64).map(|(&d, &p)| d as f64 * p).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Ring;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn recomposes_signed_integers(v in -(1i128 << 97)..(1i128 << 97), shift in 0u32..90, limbs in 1usize..4, bits in 1u32..62) {
            let ring = Ring::new(1024, &vec![34; limbs]).unwrap();
            let v = v >> shift;
            let q: i128 = ring.moduli().iter().map(|m| i128::from(m.value())).product();
            let v = if v.abs() <= (q - 1) / 2 { v } else { v % ((q - 1) / 2) };
            let residues: Vec<u64> = ring.moduli().iter().map(|m| v.rem_euclid(i128::from(m.value())) as u64).collect();
            let t = 1i128 << bits;
            let want = (v + t / 2).rem_euclid(t) - t / 2;
            let got = ring.crt().centred_mod_power_of_two(&residues, bits, &mut vec![0; limbs]);
            prop_assert_eq!(i128::from(got), want);
            for backend in crate::Backend::available() {
                let ring = Ring::with_backend(1024, &vec![34; limbs], backend).unwrap();
                let columns: Vec<Vec<u64>> = residues.iter().map(|&r| vec![r; 19]).collect();
                let columns: Vec<&[u64]> = columns.iter().map(|c| &c[..]).collect();
                let mut all = vec![0; 19];
                ring.crt().centred_all_mod_power_of_two(&columns, bits, &mut all);
                prop_assert!(all.iter().all(|&v| v == got), "{}", backend.name());
            }
            let float = ring.crt().centred_f64(&residues);
            prop_assert!((float - v as f64).abs() <= v.abs() as f64 * 1e-12);
        }
    }

    #[test]
    fn the_border_between_signs_is_exact() {
        let ring = Ring::new(1024, &[20, 21]).unwrap();
        let q: i128 = ring.moduli().iter().map(|m| i128::from(m.value())).product();
        for (v, want) in [((q - 1) / 2, (q - 1) / 2), ((q + 1) / 2, (q + 1) / 2 - q), (q - 1, -1), (0, 0)] {
            let residues: Vec<u64> = ring.moduli().iter().map(|m| (v % i128::from(m.value())) as u64).collect();
            assert_eq!(i128::from(ring.crt().centred_mod_power_of_two(&residues, 60, &mut [0; 2])), want);
            let (first, second, mut all) = ([residues[0]; 8], [residues[1]; 8], [0; 8]);
            ring.crt().centred_all_mod_power_of_two(&[&first, &second], 60, &mut all);
            assert_eq!(all.map(i128::from), [want; 8]);
        }
    }
}
