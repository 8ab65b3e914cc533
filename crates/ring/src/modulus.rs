//! Arithmetic modulo one prime below 2^50, free of secret-dependent branches.
//!
//! Reduction is Barrett's with a 64-bit quotient estimate. With `k` the bit length of `p` and `mu =
//! floor(2^(k+63) / p) < 2^64`, any `x < 2^(k+62)` has `floor(x/2^(k-2)) < 2^64`, and
//! `floor(floor(x/2^(k-2)) * mu / 2^65)` is at most two below `floor(x/p)`: the two roundings cost
//! less than one each. Two conditional subtractions finish. So a sum of 4096 products of residues
//! (`< 2^(2k+12) <= 2^(k+62)`) needs only one reduction.

use crate::RingError;

/// Largest bit length of a modulus: the 52-bit multiply-add backends need two spare bits.
pub const MAX_BITS: u32 = 50;

/// Products of residues that may be summed before one reduction ([`Modulus::reduce`]).
pub const MAX_LAZY_PRODUCTS: usize = 4096;

/// An odd prime `p` of 13 to 50 bits with its precomputed reciprocals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulus {
    value: u64,
    bits: u32,
    reciprocal: u64,
    constants: Constants,
}

/// Reciprocals and powers that the backends need of a modulus, computed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Constants {
    /// `floor(2^64 / p)`.
    pub(crate) barrett64: u64,
    /// `floor(2^52 / p)`.
    pub(crate) barrett52: u64,
    /// `c = 2^52 mod p` and `floor(c * 2^52 / p)`.
    pub(crate) pow52: [u64; 2],
    /// `1/p mod 2^52`.
    pub(crate) inverse52: u64,
}

/// Returns `x - p` if `x >= p`, else `x`, without a branch. Needs `x, p < 2^63`.
#[inline(always)]
fn subtract_once(x: u64, p: u64) -> u64 {
    let d = x.wrapping_sub(p);
    d.wrapping_add(p & (d >> 63).wrapping_neg())
}

impl Modulus {
    /// Prepares a prime for arithmetic.
    ///
    /// # Errors
    /// [`RingError::Modulus`] if `p` is not a prime of 13 to 50 bits.
    pub fn new(p: u64) -> Result<Self, RingError> {
        let bits = 64 - p.leading_zeros();
        if !(13..=MAX_BITS).contains(&bits) {
            return Err(RingError::Modulus { got: p, why: "must have 13 to 50 bits" });
        }
        if !crate::primes::is_prime(p) {
            return Err(RingError::Modulus { got: p, why: "must be prime" });
        }
        let power = |e: u32| ((1u128 << e) % u128::from(p)) as u64;
        let pair = |v: u64| [v, ((u128::from(v) << 52) / u128::from(p)) as u64];
        let constants = Constants {
            barrett64: ((1u128 << 64) / u128::from(p)) as u64,
            barrett52: (1u64 << 52) / p,
            pow52: pair(power(52)),
            // Newton: each step doubles the bits that are right, from the three of an odd number's
            // own square.
            inverse52: (0..5).fold(p, |x, _| x.wrapping_mul(2u64.wrapping_sub(p.wrapping_mul(x)))) & ((1 << 52) - 1),
        };
        Ok(Self { value: p, bits, reciprocal: ((1u128 << (bits + 63)) / u128::from(p)) as u64, constants })
    }

    /// Returns the prime itself.
    #[inline]
    pub fn value(&self) -> u64 {
        self.value
    }

    pub(crate) fn constants(&self) -> &Constants {
        &self.constants
    }

    /// Returns the prime's length in bits, the width of a packed residue.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Returns `x mod p` for `x < 2^(bits + 62)`: in particular for any `u64` and any sum of 4096
    /// products of residues.
    #[inline(always)]
    pub fn reduce(&self, x: u128) -> u64 {
        debug_assert!(x >> (self.bits + 62) == 0);
        let top = (x >> (self.bits - 2)) as u64;
        let quotient = ((u128::from(top) * u128::from(self.reciprocal)) >> 65) as u64;
        let r = (x as u64).wrapping_sub(quotient.wrapping_mul(self.value));
        subtract_once(subtract_once(r, self.value), self.value)
    }

    /// Returns `a + b mod p` for residues.
    #[inline(always)]
    pub fn add(&self, a: u64, b: u64) -> u64 {
        subtract_once(a + b, self.value)
    }

    /// Returns `a - b mod p` for residues.
    #[inline(always)]
    pub fn sub(&self, a: u64, b: u64) -> u64 {
        subtract_once(a + self.value - b, self.value)
    }

    /// Returns `a * b mod p` for residues.
    #[inline(always)]
    pub fn mul(&self, a: u64, b: u64) -> u64 {
        self.reduce(u128::from(a) * u128::from(b))
    }

    /// Returns the residue of a signed integer.
    #[inline(always)]
    pub fn lift(&self, x: i64) -> u64 {
        // p * 2^(64-k+1) > 2^63 makes the sum non-negative and leaves it below 2^66 <= 2^(k+62).
        let offset = i128::from(self.value) << (65 - self.bits);
        self.reduce((i128::from(x) + offset) as u128)
    }

    /// Returns the residue of a signed integer whose absolute value is below `p`.
    #[inline(always)]
    pub fn lift_small(&self, x: i64) -> u64 {
        debug_assert!(x.unsigned_abs() < self.value);
        x.wrapping_add((self.value as i64) & (x >> 63)) as u64
    }

    /// Returns whether all values are below `p`: one flag for all of them, so that the time does
    /// not tell which one was too large.
    pub fn are_residues(&self, values: &[u64]) -> bool {
        // As p < 2^63, v < p where the difference has a sign and v has none.
        values.iter().fold(1, |below, &v| below & ((v.wrapping_sub(self.value) & !v) >> 63)) == 1
    }

    /// Returns `a^e mod p`. Time depends on `e`, which must be public.
    pub fn pow_vartime(&self, a: u64, mut e: u64) -> u64 {
        let (mut base, mut r) = (a, 1);
        while e > 0 {
            if e & 1 == 1 {
                r = self.mul(r, base);
            }
            base = self.mul(base, base);
            e >>= 1;
        }
        r
    }

    /// Returns `a^-1 mod p` for a non-zero residue (Fermat).
    pub fn invert(&self, a: u64) -> u64 {
        self.pow_vartime(a, self.value - 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_modulus() -> impl Strategy<Value = Modulus> {
        (13u32..=50, 10usize..13).prop_filter_map("no prime", |(bits, log_n)| {
            let p = crate::primes::ntt_primes(1 << log_n, bits, 1).ok()?;
            Modulus::new(p[0]).ok()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_wide_division(m in some_modulus(), x in any::<u128>(), y in any::<i64>()) {
            let p = u128::from(m.value());
            let x = x >> (66 - m.bits());
            prop_assert_eq!(u128::from(m.reduce(x)), x % p);
            let (a, b) = ((x % p) as u64, (x / p % p) as u64);
            prop_assert_eq!(u128::from(m.mul(a, b)), u128::from(a) * u128::from(b) % p);
            prop_assert_eq!(u128::from(m.add(a, b)), (u128::from(a) + u128::from(b)) % p);
            prop_assert_eq!(m.add(m.sub(a, b), b), a);
            let small = y % m.value() as i64;
            prop_assert_eq!(m.lift_small(small), m.lift(small));
            prop_assert_eq!(i128::from(m.lift(y)), i128::from(y).rem_euclid(p as i128));
            if a != 0 { prop_assert_eq!(m.mul(a, m.invert(a)), 1); }
        }
    }

    #[test]
    fn worst_case_sums_reduce() {
        for bits in [14, 20, 33, 50] {
            let m = Modulus::new(crate::primes::ntt_primes(1024, bits, 1).unwrap()[0]).unwrap();
            let top = u128::from(m.value() - 1);
            let sum = top * top * MAX_LAZY_PRODUCTS as u128;
            assert_eq!(u128::from(m.reduce(sum)), sum % u128::from(m.value()));
            let largest = (1u128 << (m.bits() + 62)) - 1;
            assert_eq!(u128::from(m.reduce(largest)), largest % u128::from(m.value()));
        }
    }

    #[test]
    fn residues_are_told_from_larger_values() {
        for bits in [14, 33, 50] {
            let m = Modulus::new(crate::primes::ntt_primes(1024, bits, 1).unwrap()[0]).unwrap();
            let p = m.value();
            assert!(m.are_residues(&[]) && m.are_residues(&[0, 1, p - 1]));
            for large in [p, p + 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, (1 << 63) + p - 1, u64::MAX] {
                assert!(!m.are_residues(&[0, large, p - 1]), "{large}");
            }
        }
    }

    #[test]
    fn unusable_moduli_are_refused() {
        for p in [0, 1, 2, 4096, 12289 * 40961, (1 << 50) + 1, u64::MAX] {
            assert!(Modulus::new(p).is_err(), "{p}");
        }
    }
}
