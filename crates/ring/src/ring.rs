//! A ring: degree, primes and their transforms.

use rand_core::Rng;

use crate::crt::Crt;
use crate::ntt::NttPlan;
use crate::poly::{Coefficient, Domain, Ntt, Poly};
use crate::primes::ntt_primes;
use crate::{Modulus, RingError, sample};

/// Smallest supported degree.
pub const MIN_DEGREE: usize = 1024;
/// Largest supported degree.
pub const MAX_DEGREE: usize = 32768;

/// `Z_q[X]/(X^N + 1)` with `q` a product of distinct primes. Knows nothing about security: see `jali-mask`.
#[derive(Debug)]
pub struct Ring {
    degree: usize,
    moduli: Vec<Modulus>,
    plans: Vec<NttPlan>,
    crt: Crt,
}

impl Ring {
    /// The ring of the given degree whose primes are, for every size in `prime_bits`, the largest of that size not yet
    /// taken. The same arguments always give the same primes.
    ///
    /// # Errors
    /// [`RingError::Degree`], [`RingError::NoPrimes`], [`RingError::Modulus`], or [`RingError::Length`] without primes.
    pub fn new(degree: usize, prime_bits: &[u32]) -> Result<Self, RingError> {
        if !degree.is_power_of_two() || !(MIN_DEGREE..=MAX_DEGREE).contains(&degree) {
            return Err(RingError::Degree { min: MIN_DEGREE, max: MAX_DEGREE, got: degree });
        }
        if prime_bits.is_empty() {
            return Err(RingError::Length { what: "primes of a ring", expected: 1, got: 0 });
        }
        let mut moduli = Vec::with_capacity(prime_bits.len());
        for (i, &bits) in prime_bits.iter().enumerate() {
            let earlier = prime_bits[..i].iter().filter(|&&b| b == bits).count();
            let primes = ntt_primes(degree, bits, earlier + 1)?;
            moduli.push(Modulus::new(primes[earlier])?);
        }
        let plans = moduli.iter().map(|&m| NttPlan::new(degree, m)).collect::<Result<_, _>>()?;
        Ok(Self { degree, crt: Crt::new(&moduli), moduli, plans })
    }

    /// The degree `N`.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The primes, limb by limb.
    pub fn moduli(&self) -> &[Modulus] {
        &self.moduli
    }

    /// Number of primes.
    pub fn limbs(&self) -> usize {
        self.moduli.len()
    }

    /// Recomposition of residues to integers.
    pub fn crt(&self) -> &Crt {
        &self.crt
    }

    /// log2 of `q`.
    pub fn log2_q(&self) -> f64 {
        self.moduli.iter().map(|m| (m.value() as f64).log2()).sum()
    }

    /// The zero element.
    pub fn zero<D: Domain>(&self) -> Poly<D> {
        Poly::zero(self.limbs(), self.degree)
    }

    /// Whether a polynomial has this ring's shape.
    pub fn holds<D: Domain>(&self, p: &Poly<D>) -> bool {
        p.degree() == self.degree && p.limbs() == self.limbs()
    }

    /// Signed integer coefficients as a ring element. Missing high coefficients are zero. `bound` is a public bound of
    /// their absolute values: below the prime, the cheap way is taken for all of them.
    ///
    /// # Panics
    /// If there are more coefficients than the degree (a programming error).
    pub fn lift(&self, coefficients: &[i64], bound: i64) -> Poly<Coefficient> {
        let mut out = self.zero();
        for (l, m) in self.moduli.iter().enumerate() {
            if (bound as u64) < m.value() {
                out.limb_mut(l).iter_mut().zip(coefficients).for_each(|(o, &c)| *o = m.lift_small(c));
                continue;
            }
            for (o, &c) in out.limb_mut(l)[..coefficients.len()].iter_mut().zip(coefficients) {
                *o = m.lift(c);
            }
        }
        out
    }

    /// To the NTT domain.
    pub fn forward(&self, mut p: Poly<Coefficient>) -> Poly<Ntt> {
        for (l, plan) in self.plans.iter().enumerate() {
            plan.forward(p.limb_mut(l));
        }
        p.retype()
    }

    /// Back to coefficients.
    pub fn inverse(&self, mut p: Poly<Ntt>) -> Poly<Coefficient> {
        for (l, plan) in self.plans.iter().enumerate() {
            plan.inverse(p.limb_mut(l));
        }
        p.retype()
    }

    /// A uniform element, drawn in the NTT domain (the transform is a bijection, so uniform in both).
    pub fn uniform<R: Rng>(&self, rng: &mut R) -> Poly<Ntt> {
        let mut out = self.zero();
        for (l, m) in self.moduli.iter().enumerate() {
            sample::uniform_mod(rng, m, out.limb_mut(l));
        }
        out
    }

    /// `acc += a`.
    pub fn add_assign<D: Domain>(&self, acc: &mut Poly<D>, a: &Poly<D>) {
        for (l, m) in self.moduli.iter().enumerate() {
            for (r, &x) in acc.limb_mut(l).iter_mut().zip(a.limb(l)) {
                *r = m.add(*r, x);
            }
        }
    }

    /// `acc += a * b`, coefficient by coefficient in the NTT domain.
    pub fn mul_add(&self, acc: &mut Poly<Ntt>, a: &Poly<Ntt>, b: &Poly<Ntt>) {
        for (l, m) in self.moduli.iter().enumerate() {
            for ((r, &x), &y) in acc.limb_mut(l).iter_mut().zip(a.limb(l)).zip(b.limb(l)) {
                *r = m.reduce(u128::from(x) * u128::from(y) + u128::from(*r));
            }
        }
    }

    /// `acc -= a * b`, coefficient by coefficient in the NTT domain.
    pub fn mul_sub(&self, acc: &mut Poly<Ntt>, a: &Poly<Ntt>, b: &Poly<Ntt>) {
        for (l, m) in self.moduli.iter().enumerate() {
            for ((r, &x), &y) in acc.limb_mut(l).iter_mut().zip(a.limb(l)).zip(b.limb(l)) {
                *r = m.sub(*r, m.mul(x, y));
            }
        }
    }

    /// `a * b + c * d` in the NTT domain with one reduction per coefficient.
    pub fn sum_of_two_products(&self, a: &Poly<Ntt>, b: &Poly<Ntt>, c: &Poly<Ntt>, d: &Poly<Ntt>) -> Poly<Ntt> {
        let mut out = self.zero();
        for (l, m) in self.moduli.iter().enumerate() {
            let factors = a.limb(l).iter().zip(b.limb(l)).zip(c.limb(l).iter().zip(d.limb(l)));
            for (o, ((&a, &b), (&c, &d))) in out.limb_mut(l).iter_mut().zip(factors) {
                *o = m.reduce(u128::from(a) * u128::from(b) + u128::from(c) * u128::from(d));
            }
        }
        out
    }
}
