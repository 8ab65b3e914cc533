//! NTT-friendly primes.

use crate::RingError;
use crate::modulus::MAX_BITS;

/// Returns whether `n` is prime. The test is Miller-Rabin with the first twelve primes as bases,
/// which decides every `n < 2^64` (Sorenson and Webster, "Strong pseudoprimes to twelve prime
/// bases", 2015).
pub fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    if let Some(&b) = BASES.iter().find(|&&b| n.is_multiple_of(b)) {
        return n == b;
    }
    let mul = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    BASES.iter().all(|&b| {
        let (mut x, mut base, mut e) = (1, b, odd);
        while e > 0 {
            if e & 1 == 1 {
                x = mul(x, base);
            }
            base = mul(base, base);
            e >>= 1;
        }
        if x == 1 {
            return true;
        }
        for _ in 0..twos {
            if x == n - 1 {
                return true;
            }
            x = mul(x, x);
        }
        false
    })
}

/// Returns the `count` largest primes of exactly `bits` bits with `p = 1 (mod 2 * degree)`, in
/// falling order.
///
/// # Errors
/// [`RingError::NoPrimes`] if there are not so many, or `bits` is not from 2 to 50.
pub fn ntt_primes(degree: usize, bits: u32, count: usize) -> Result<Vec<u64>, RingError> {
    let step = 2 * degree as u64;
    let none = RingError::NoPrimes { count, bits, step };
    if !(2..=MAX_BITS).contains(&bits) {
        return Err(none);
    }
    let (low, high) = (1u64 << (bits - 1), 1u64 << bits);
    let top = (high - 1) / step * step + 1;
    let found: Vec<u64> = (0..)
        .map_while(|i| top.checked_sub(i * step))
        .skip_while(|&c| c >= high)
        .take_while(|&c| c > low)
        .filter(|&c| is_prime(c))
        .take(count)
        .collect();
    if found.len() == count { Ok(found) } else { Err(none) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primality_agrees_with_trial_division() {
        let naive = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        assert!((0..20_000).all(|n| is_prime(n) == naive(n)));
        assert!(is_prime((1 << 61) - 1));
        assert!(!is_prime(3_215_031_751)); // strong pseudoprime to bases 2, 3, 5, 7
    }

    #[test]
    fn primes_have_the_promised_form() {
        for (degree, bits, count) in [(1024, 26, 1), (4096, 33, 2), (4096, 50, 4), (32768, 40, 8)] {
            let primes = ntt_primes(degree, bits, count).unwrap();
            assert_eq!(primes.len(), count);
            assert!(primes.windows(2).all(|w| w[0] > w[1]));
            for p in primes {
                assert!(is_prime(p) && p % (2 * degree as u64) == 1 && 64 - p.leading_zeros() == bits);
            }
        }
        assert!(ntt_primes(32768, 16, 1).is_err());
        assert!(ntt_primes(1024, 51, 1).is_err());
    }
}
