//! A ring: degree, primes and their transforms.

use std::sync::Arc;

use rand_core::Rng;

use crate::backend::pointwise::{Add, AddScaled, LiftSmall, MulAdd, Scale, SumOfProducts};
use crate::crt::Crt;
use crate::ntt::NttPlan;
use crate::poly::{Coefficient, Domain, Ntt, Poly};
use crate::primes::ntt_primes;
use crate::{Backend, Modulus, RingError, Wanted, sample};

/// Smallest supported degree.
pub const MIN_DEGREE: usize = 1024;
/// Largest supported degree.
pub const MAX_DEGREE: usize = 32768;
/// Most primes of a ring that a file may ask for.
pub const MAX_LIMBS: usize = 32;
/// Bytes per coefficient and prime that the tables of roots take: root, quotient and their copy
/// lane by lane, both ways.
pub const TABLE_BYTES: usize = 2 * (16 + 14);

/// `Z_q[X]/(X^N + 1)` with `q` a product of distinct primes. Knows nothing about security: see
/// `jali-mask`.
#[derive(Debug)]
pub struct Ring {
    degree: usize,
    moduli: Vec<Modulus>,
    plans: Vec<Arc<NttPlan>>,
    crt: Crt,
    backend: Backend,
}

impl Ring {
    /// Makes the ring of the given degree. For every size in `prime_bits` it takes the largest
    /// prime of so many bits that is not yet taken, so the same arguments always give the same
    /// primes.
    ///
    /// # Errors
    /// [`RingError::Degree`], [`RingError::NoPrimes`], [`RingError::Modulus`], or
    /// [`RingError::Length`] without primes.
    pub fn new(degree: usize, prime_bits: &[u32]) -> Result<Self, RingError> {
        Self::with_backend(degree, prime_bits, Backend::fastest())
    }

    /// Makes the ring of [`Ring::new`] that computes with a given backend. Results do not depend on
    /// the backend.
    ///
    /// # Errors
    /// [`RingError`] as for [`Ring::new`].
    pub fn with_backend(degree: usize, prime_bits: &[u32], backend: Backend) -> Result<Self, RingError> {
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
        let plan = |&m: &Modulus| Ok(Arc::new(NttPlan::new(degree, m, backend)?));
        let plans = moduli.iter().map(plan).collect::<Result<_, RingError>>()?;
        Ok(Self { degree, crt: Crt::new(&moduli, backend), moduli, plans, backend })
    }

    /// Returns the ring of the first `limbs` primes alone, at least one; the tables of roots are
    /// shared.
    ///
    /// Methods that write elements of this ring may read elements of the whole ring: their first
    /// limbs count.
    pub fn leading(&self, limbs: usize) -> Self {
        let limbs = limbs.clamp(1, self.limbs());
        let (moduli, plans) = (self.moduli[..limbs].to_vec(), self.plans[..limbs].to_vec());
        Self { degree: self.degree, crt: Crt::new(&moduli, self.backend), moduli, plans, backend: self.backend }
    }

    /// Returns the degree `N`, the number of coefficients.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Returns the backend that everything here is computed with.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns the primes, limb by limb.
    pub fn moduli(&self) -> &[Modulus] {
        &self.moduli
    }

    /// Returns the number of primes.
    pub fn limbs(&self) -> usize {
        self.moduli.len()
    }

    /// Returns the transform modulo one prime.
    pub(crate) fn plan(&self, limb: usize) -> &NttPlan {
        &self.plans[limb]
    }

    /// Returns the recomposition of residues to integers.
    pub fn crt(&self) -> &Crt {
        &self.crt
    }

    /// Returns `log2(q)`, the size of the modulus in bits.
    pub fn log2_q(&self) -> f64 {
        self.moduli.iter().map(|m| (m.value() as f64).log2()).sum()
    }

    /// Returns the zero element.
    pub fn zero<D: Domain>(&self) -> Poly<D> {
        Poly::zero(self.limbs(), self.degree)
    }

    /// Returns whether a polynomial has this ring's degree and number of limbs.
    pub fn holds<D: Domain>(&self, p: &Poly<D>) -> bool {
        p.degree() == self.degree && p.limbs() == self.limbs()
    }

    /// Turns signed integer coefficients into a ring element. Missing high coefficients are zero.
    /// `bound` is a public bound of their absolute values: where it is below the prime, all of them
    /// are lifted the cheap way.
    ///
    /// # Panics
    /// If there are more coefficients than the degree (a programming error).
    pub fn lift(&self, coefficients: &[i64], bound: i64) -> Poly<Coefficient> {
        let missing = self.degree - coefficients.len();
        Poly::build(self.limbs(), self.degree, |out| {
            for m in &self.moduli {
                match (bound as u64) < m.value() {
                    true => self.backend.run(LiftSmall { modulus: m, values: coefficients, out }),
                    false => out.extend(coefficients.iter().map(|&c| m.lift(c))),
                }
                out.extend(std::iter::repeat_n(0, missing));
            }
        })
    }

    /// Transforms an element to the NTT domain.
    pub fn forward(&self, mut p: Poly<Coefficient>) -> Poly<Ntt> {
        self.forward_in_place(&mut p);
        p.retype()
    }

    /// Transforms an element to NTT values in its own memory and under its old type: for
    /// benchmarks.
    #[doc(hidden)]
    pub fn forward_in_place<D: Domain>(&self, p: &mut Poly<D>) {
        self.plans.iter().enumerate().for_each(|(l, plan)| plan.forward(p.limb_mut(l)));
    }

    /// Transforms NTT values back to coefficients in their own memory and under their old type: for
    /// benchmarks.
    #[doc(hidden)]
    pub fn inverse_in_place<D: Domain>(&self, p: &mut Poly<D>) {
        self.plans.iter().enumerate().for_each(|(l, plan)| plan.inverse(p.limb_mut(l)));
    }

    /// Transforms an element back to coefficients.
    pub fn inverse(&self, mut p: Poly<Ntt>) -> Poly<Coefficient> {
        self.inverse_in_place(&mut p);
        p.retype()
    }

    /// Transforms one limb's NTT values to coefficients in place and leaves the other limbs: for
    /// benchmarks.
    #[doc(hidden)]
    pub fn inverse_limb<D: Domain>(&self, limb: usize, p: &mut Poly<D>) {
        self.plans[limb].inverse(p.limb_mut(limb));
    }

    /// Transforms one limb's NTT values to coefficients in place. Only those `wanted` are computed
    /// for sure: the others may become anything.
    pub fn inverse_wanted(&self, limb: usize, values: &mut [u64], wanted: &Wanted) {
        self.plans[limb].inverse_some(values, false, wanted.runs(), &[]);
    }

    /// Draws a uniform element in the NTT domain (the transform is a bijection, so it is uniform in
    /// both).
    pub fn uniform<R: Rng>(&self, rng: &mut R) -> Poly<Ntt> {
        let mut out = self.zero();
        for (l, m) in self.moduli.iter().enumerate() {
            sample::uniform_mod(rng, m, out.limb_mut(l));
        }
        out
    }

    /// Computes `acc += a`.
    pub fn add_assign<D: Domain>(&self, acc: &mut Poly<D>, a: &Poly<D>) {
        (0..self.limbs()).for_each(|l| self.add_residues(l, acc.limb_mut(l), a.limb(l)));
    }

    /// Computes `acc += a` for residues modulo one prime, as many as the shorter list has.
    pub fn add_residues(&self, limb: usize, acc: &mut [u64], a: &[u64]) {
        self.backend.run(Add { modulus: &self.moduli[limb], acc, a });
    }

    /// Computes `values = values * factor + terms` in integers, on coefficients before they are
    /// lifted. Nothing may overflow.
    pub fn scale_coefficients(&self, values: &mut [i64], factor: i64, terms: &[i64]) {
        self.backend.run(Scale { values, factor, terms });
    }

    /// Computes `acc += a * b`, value by value in the NTT domain.
    pub fn mul_add(&self, acc: &mut Poly<Ntt>, a: &Poly<Ntt>, b: &Poly<Ntt>) {
        self.mul_and_add(acc, a, b, false);
    }

    /// Computes `acc -= a * b`, value by value in the NTT domain.
    pub fn mul_sub(&self, acc: &mut Poly<Ntt>, a: &Poly<Ntt>, b: &Poly<Ntt>) {
        self.mul_and_add(acc, a, b, true);
    }

    fn mul_and_add(&self, acc: &mut Poly<Ntt>, a: &Poly<Ntt>, b: &Poly<Ntt>, subtract: bool) {
        for (l, modulus) in self.moduli.iter().enumerate() {
            self.backend.for_modulus(modulus).run(MulAdd {
                modulus,
                acc: acc.limb_mut(l),
                a: a.limb(l),
                b: b.limb(l),
                subtract,
            });
        }
    }

    /// Computes `acc += scalar * a` in one limb, with a scalar below that limb's prime, for whole
    /// groups of eight words. A rest of fewer words is left as it is.
    pub fn add_scaled(&self, limb: usize, acc: &mut [u64], a: &[u64], scalar: u64) {
        let modulus = &self.moduli[limb];
        self.backend.for_modulus(modulus).run(AddScaled { modulus, acc, a, scalar });
    }

    /// Computes `out = a * b + c * d + ..` in the NTT domain, at most 8 products, in this ring's
    /// limbs. `out` and the factors may have more limbs, which are left alone.
    pub fn sum_of_products<const K: usize>(&self, out: &mut Poly<Ntt>, factors: [[&Poly<Ntt>; 2]; K]) {
        const { assert!(K <= 8, "so many always fit a sum") }
        for (l, modulus) in self.moduli.iter().enumerate() {
            let factors = factors.map(|pair| pair.map(|f| f.limb(l)));
            self.backend.for_modulus(modulus).run(SumOfProducts { modulus, out: out.limb_mut(l), factors });
        }
    }
}
