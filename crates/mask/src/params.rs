//! Parameter sets: a literal becomes a value only if it is secure, so an insecure value cannot
//! exist.

use std::sync::Arc;

use jali_ring::{Ring, RingError};

use crate::MaskError;
use crate::noise;

/// Bits of `q` for 128-bit classical security with a ternary secret: Bossuat et al., "Security
/// Guidelines for Implementing Homomorphic Encryption" (ePrint 2024/463), table for uniform ternary
/// secrets.
const MAX_LOG2_Q: [(usize, u32); 6] = [(1024, 26), (2048, 53), (4096, 106), (8192, 214), (16384, 430), (32768, 868)];

/// Largest size in bits of `q` at this degree, or `None` for a degree outside the table.
pub fn max_log2_q(degree: usize) -> Option<u32> {
    MAX_LOG2_Q.iter().find(|(n, _)| *n == degree).map(|(_, bits)| *bits)
}

/// Smallest and largest plaintext modulus in bits.
const PLAINTEXT_BITS: (u32, u32) = (2, 48);
/// Largest size of one prime when parameters are chosen here: with larger ones no backend
/// transforms in vector lanes, and takes eight times as long.
const LARGEST_PRIME: u32 = 47;
/// Smallest: two check scalars per limb let a lie in one limb pass with probability `p^-2`, at most
/// 2^-64.
pub const SMALLEST_PRIME: u32 = 33;

/// Unchecked numbers, as they come from a file or a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParametersLiteral {
    /// Ring degree `N`.
    pub degree: usize,
    /// Size in bits of every prime.
    pub prime_bits: Vec<u32>,
    /// `k` of the plaintext modulus `t = 2^k`.
    pub plaintext_bits: u32,
    /// How many of the first primes open rows are computed modulo: at least one, at most all.
    pub open_primes: usize,
}

/// A ring and a plaintext modulus with at least 128 bits of security (classical).
#[derive(Debug, Clone)]
pub struct Parameters {
    literal: ParametersLiteral,
    ring: Arc<Ring>,
    open_ring: Arc<Ring>,
}

impl TryFrom<ParametersLiteral> for Parameters {
    type Error = MaskError;

    fn try_from(literal: ParametersLiteral) -> Result<Self, MaskError> {
        let ParametersLiteral { degree, prime_bits, plaintext_bits, open_primes } = &literal;
        let limit = max_log2_q(*degree).ok_or(RingError::Degree { min: 1024, max: 32768, got: *degree })?;
        let got = prime_bits.iter().fold(0u32, |sum, &b| sum.saturating_add(b));
        if got > limit {
            return Err(MaskError::Insecure { degree: *degree, got, limit });
        }
        if !(1..=prime_bits.len()).contains(open_primes) {
            return Err(MaskError::Shape {
                what: "primes of open rows",
                expected: prime_bits.len(),
                got: *open_primes,
            });
        }
        let (min, max) = PLAINTEXT_BITS;
        let room = prime_bits[..*open_primes].iter().sum::<u32>().saturating_sub(2);
        if !(min..=max.min(room)).contains(plaintext_bits) {
            return Err(MaskError::Plaintext { got: *plaintext_bits, min, max: max.min(room) });
        }
        let ring = Arc::new(Ring::new(*degree, prime_bits)?);
        let open_ring =
            if *open_primes == prime_bits.len() { ring.clone() } else { Arc::new(ring.leading(*open_primes)) };
        Ok(Self { literal, ring, open_ring })
    }
}

impl Parameters {
    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The ring of a row's residues: of all primes, or of those that open rows are computed modulo.
    /// A masked input modulo the first primes is a masked input in that ring, under the same
    /// secret: the server has it in any case.
    pub fn ring_of(&self, open: bool) -> &Ring {
        if open { &self.open_ring } else { &self.ring }
    }

    /// Whether all primes are large enough for the ciphertext check.
    pub(crate) fn fit_for_checking(&self) -> Result<(), MaskError> {
        match self.literal.prime_bits.iter().find(|&&b| b < SMALLEST_PRIME) {
            Some(&got) => Err(MaskError::SmallPrime { got, min: SMALLEST_PRIME }),
            None => Ok(()),
        }
    }

    /// The numbers that it was made from.
    pub fn literal(&self) -> &ParametersLiteral {
        &self.literal
    }

    /// `k` of `t = 2^k`.
    pub fn plaintext_bits(&self) -> u32 {
        self.literal.plaintext_bits
    }

    /// The plaintext modulus `t`.
    pub fn t(&self) -> i64 {
        1 << self.literal.plaintext_bits
    }

    /// Everything that identifies the set, as bytes for key derivation.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let mut out = (self.ring.degree() as u64).to_le_bytes().to_vec();
        out.extend(self.literal.plaintext_bits.to_le_bytes());
        out.extend((self.literal.open_primes as u32).to_le_bytes());
        self.ring.moduli().iter().for_each(|m| out.extend(m.value().to_le_bytes()));
        out
    }

    /// The smallest modulus for an operator of this shape. Depends on shapes and on nothing that a
    /// weight decides (condition 7): the sealed noise enters with its expected norm, and the exact
    /// bound is checked when sealing.
    ///
    /// # Errors
    /// [`MaskError::NoParameters`] if noise and security leave no room.
    pub fn choose(degree: usize, shape: &OperatorShape) -> Result<Self, MaskError> {
        ParametersLiteral::choose(degree, shape)?.try_into()
    }
}

impl ParametersLiteral {
    /// The numbers of [`Parameters::choose`], without building the ring.
    ///
    /// # Errors
    /// As [`Parameters::choose`].
    pub fn choose(degree: usize, shape: &OperatorShape) -> Result<Self, MaskError> {
        let limit = max_log2_q(degree).ok_or(RingError::Degree { min: 1024, max: 32768, got: degree })?;
        let needed = noise::needed_modulus_bits(degree, shape);
        let count = needed.div_ceil(LARGEST_PRIME);
        let needed = needed.max(count * SMALLEST_PRIME);
        // Split into near-equal sizes, larger ones first.
        let prime_bits: Vec<u32> = (0..count).map(|i| needed / count + u32::from(i < needed % count)).collect();
        if needed > limit {
            let plaintext_bits = shape.plaintext_bits;
            return Err(MaskError::NoParameters { degree, tiles: shape.tiles, plaintext_bits, needed, limit });
        }
        let open_primes = prime_bits.len();
        Ok(Self { degree, prime_bits, plaintext_bits: shape.plaintext_bits, open_primes })
    }

    /// As [`ParametersLiteral::choose`] for an operator with hidden rows and open ones, so that one
    /// prime is enough for the open ones: it is larger than all hidden ones would have, and `q`
    /// with it.
    ///
    /// # Errors
    /// As [`ParametersLiteral::choose`]; also if the open rows need more than one prime of 47 bits.
    pub fn choose_mixed(degree: usize, shape: &OperatorShape) -> Result<Self, MaskError> {
        let hidden = Self::choose(degree, shape)?;
        let open = Self::choose(degree, &OperatorShape { hidden: false, ..shape.clone() })?;
        let none = |needed, limit| {
            let plaintext_bits = shape.plaintext_bits;
            Err(MaskError::NoParameters { degree, tiles: shape.tiles, plaintext_bits, needed, limit })
        };
        let first = open.prime_bits.iter().sum();
        if first > LARGEST_PRIME {
            return none(first, LARGEST_PRIME);
        }
        let needed: u32 = hidden.prime_bits.iter().sum();
        // Near-equal sizes for what is left, larger ones first, as there.
        let left = needed.saturating_sub(first);
        let count = left.div_ceil(LARGEST_PRIME).max(1);
        let left = left.max(count * SMALLEST_PRIME);
        let mut prime_bits = vec![first];
        prime_bits.extend((0..count).map(|i| left / count + u32::from(i < left % count)));
        let (total, limit) = (first + left, max_log2_q(degree).unwrap_or(0));
        if total > limit {
            return none(total, limit);
        }
        Ok(Self { degree, prime_bits, plaintext_bits: shape.plaintext_bits, open_primes: 1 })
    }
}

/// What the choice of a modulus may depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShape {
    /// Ring elements per row.
    pub tiles: usize,
    /// `k` of `t = 2^k`.
    pub plaintext_bits: u32,
    /// Largest absolute input value.
    pub input_bound: i64,
    /// Upper bound of a row's Euclidean norm, from shapes: `max|w| * sqrt(non-zero positions)`.
    pub row_norm: f64,
    /// Whether any row is hidden.
    pub hidden: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(degree: usize, prime_bits: &[u32]) -> ParametersLiteral {
        ParametersLiteral { degree, prime_bits: prime_bits.to_vec(), plaintext_bits: 20, open_primes: prime_bits.len() }
    }

    #[test]
    fn the_128_bit_table_is_a_wall() {
        for (degree, largest) in
            [(1024, vec![26]), (2048, vec![27, 26]), (4096, vec![36, 35, 35]), (8192, vec![43, 43, 43, 43, 42])]
        {
            let sum: u32 = largest.iter().sum();
            assert_eq!(Some(sum), max_log2_q(degree));
            assert!(Parameters::try_from(literal(degree, &largest)).is_ok(), "{degree}");
            let mut above = largest.clone();
            above[0] += 1;
            let error = Parameters::try_from(literal(degree, &above)).unwrap_err();
            assert_eq!(error, MaskError::Insecure { degree, got: sum + 1, limit: sum });
        }
        assert!(Parameters::try_from(literal(512, &[20])).is_err());
        assert!(Parameters::try_from(literal(65536, &[40])).is_err());
        assert!(Parameters::try_from(literal(4096, &[])).is_err());
        assert!(Parameters::try_from(literal(4096, &[u32::MAX, u32::MAX])).is_err());
        let wide = ParametersLiteral { degree: 4096, prime_bits: vec![30], plaintext_bits: 29, open_primes: 1 };
        assert!(Parameters::try_from(wide).is_err());
        // Of the primes of open rows there is at least one, and room for the plaintext in them.
        for (open_primes, plaintext_bits, fits) in
            [(0, 20, false), (1, 20, true), (1, 34, false), (2, 34, true), (3, 20, false)]
        {
            let mixed = ParametersLiteral { degree: 4096, prime_bits: vec![35, 35], plaintext_bits, open_primes };
            assert_eq!(Parameters::try_from(mixed).is_ok(), fits, "{open_primes} {plaintext_bits}");
        }
    }

    #[test]
    fn chosen_sizes_are_those_of_the_design() {
        // conv 3x3 32 -> 32 on 32x32, hidden, 11 tiles, t = 2^25: about 65.5 bits at N = 4096.
        let mut shape =
            OperatorShape { tiles: 11, plaintext_bits: 25, input_bound: 255, row_norm: 127.0 * 17.0, hidden: true };
        let bits: u32 = Parameters::choose(4096, &shape).unwrap().literal().prime_bits.iter().sum();
        assert!((65..=67).contains(&bits), "{bits}");
        // The same open: one prime of 43 to 47 bits at N = 2048.
        shape.hidden = false;
        let open = Parameters::choose(2048, &shape).unwrap();
        assert!(open.literal().prime_bits.len() == 1 && (43..=47).contains(&open.literal().prime_bits[0]));
        // However little an operator needs, no prime is so small that the check gets thin.
        let small = OperatorShape { tiles: 1, plaintext_bits: 12, hidden: true, ..shape.clone() };
        assert!(Parameters::choose(4096, &small).unwrap().literal().prime_bits.iter().all(|&b| b >= SMALLEST_PRIME));
        // Mixed: one prime that does for the open rows, and at least as much as hidden ones need
        // together.
        shape.hidden = true;
        let mixed = Parameters::try_from(ParametersLiteral::choose_mixed(4096, &shape).unwrap()).unwrap();
        let sizes = &mixed.literal().prime_bits;
        assert!(sizes.len() == 2 && (43..=47).contains(&sizes[0]) && sizes[1] >= SMALLEST_PRIME, "{sizes:?}");
        assert!(
            sizes.iter().sum::<u32>() >= bits && mixed.ring_of(true).limbs() == 1 && mixed.ring_of(false).limbs() == 2
        );
        // Hidden weights do not fit N = 2048.
        shape.hidden = true;
        assert!(matches!(Parameters::choose(2048, &shape), Err(MaskError::NoParameters { limit: 53, .. })));
    }
}
