//! BGV in our ring: `c0 + c1*s = m + t*e (mod q)`, `q` a product of primes, the last of them the
//! special prime `P` of key switching (Gentry, Halevi, Smart, ePrint 2012/099).
//!
//! * product of two ciphertexts: three components;
//! * relinearisation: the third component is cut into its residues (one digit per data prime), each
//!   extended to all primes and multiplied with a key that encrypts `P*s^2` in that digit's place;
//!   the sum is divided by `P`;
//! * rescaling (modulus switch): division by the last data prime.
//!
//! Both divisions first make the number divisible by adding a multiple of `t`, so that the message
//! only picks up a known factor: after dividing by `p` it is `m * p^-1 mod t` (the ciphertext keeps
//! count).

use jali_ring::sample::{self, BINOMIAL_MAX};
use jali_ring::{Backend, Coefficient, Modulus, Ntt, Poly, Ring, RingError};
use rand_core::Rng;

/// Errors of the textbook scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextbookError {
    /// From the ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The plaintext modulus is unusable.
    #[error("the plaintext modulus {0} must be an odd number below 2^20 that no prime of the ring divides")]
    Plaintext(u64),
    /// There is no prime left to drop.
    #[error("the ciphertext has only {0} prime(s) left")]
    Level(usize),
}

/// The scheme's public numbers: `data` primes and one special prime, one ring per level.
#[derive(Debug)]
pub struct Textbook {
    /// `rings[l]` has the first `l + 1` data primes.
    rings: Vec<Ring>,
    /// All data primes and the special one.
    full: Ring,
    t: u64,
}

/// The secret `s`, and the key that brings `s^2` back to `s`.
pub struct Keys {
    s: Poly<Ntt>,
    /// One pair for every data prime, over all primes.
    relinearise: Vec<[Poly<Ntt>; 2]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(withheld)")
    }
}

/// Two components; `t` times the error and the message stay below half of the primes that are left.
#[derive(Debug, Clone)]
pub struct Ciphertext {
    parts: [Poly<Ntt>; 2],
    /// What the message was multiplied with, modulo `t`.
    factor: u64,
}

/// `a` copied into fewer or the same primes.
fn cut(a: &Poly<Ntt>, ring: &Ring) -> Poly<Ntt> {
    let mut out = ring.zero();
    (0..ring.limbs()).for_each(|l| out.limb_mut(l).copy_from_slice(a.limb(l)));
    out
}

/// The inverse of `a` modulo `t`, by the extended Euclidean algorithm.
fn inverse_mod(a: u64, t: u64) -> u64 {
    let (mut r, mut old) = (i128::from(t), i128::from(a % t));
    let (mut s, mut old_s) = (0i128, 1i128);
    while r != 0 {
        let q = old / r;
        (old, r) = (r, old - q * r);
        (old_s, s) = (s, old_s - q * s);
    }
    old_s.rem_euclid(i128::from(t)) as u64
}

impl Textbook {
    /// `count` data primes and a special one, all of `bits` bits.
    ///
    /// # Errors
    /// [`TextbookError`] for sizes that the ring refuses or an unusable `t`.
    pub fn new(degree: usize, count: usize, bits: u32, t: u64, backend: Backend) -> Result<Self, TextbookError> {
        let all = vec![bits; count + 1];
        let full = Ring::with_backend(degree, &all, backend)?;
        let rings = (1..=count).map(|l| Ring::with_backend(degree, &all[..l], backend));
        let rings = rings.collect::<Result<_, _>>()?;
        if t.is_multiple_of(2)
            || !(3..1 << 20).contains(&t)
            || full.moduli().iter().any(|m| m.value().is_multiple_of(t))
        {
            return Err(TextbookError::Plaintext(t));
        }
        Ok(Self { rings, full, t })
    }

    /// The ring of fresh ciphertexts.
    pub fn top(&self) -> &Ring {
        &self.rings[self.rings.len() - 1]
    }

    fn ring_of(&self, p: &Poly<Ntt>) -> &Ring {
        &self.rings[p.limbs() - 1]
    }

    fn small<R: Rng>(&self, ring: &Ring, rng: &mut R) -> Poly<Coefficient> {
        let mut e = vec![0; ring.degree()];
        sample::centred_binomial(ring.backend(), rng, &mut e);
        e.iter_mut().for_each(|e| *e *= self.t as i64);
        ring.lift(&e, self.t as i64 * BINOMIAL_MAX)
    }

    /// Draws a secret and its relinearisation key.
    pub fn keys<R: Rng>(&self, rng: &mut R) -> Keys {
        let full = &self.full;
        let mut s = vec![0; full.degree()];
        sample::ternary(full.backend(), rng, &mut s);
        let s = full.forward(full.lift(&s, 1));
        let mut square = full.zero();
        full.mul_add(&mut square, &s, &s);
        let special = full.moduli()[full.limbs() - 1].value();
        let relinearise = (0..full.limbs() - 1)
            .map(|digit| {
                let a = full.uniform(rng);
                let mut b = full.forward(self.small(full, rng));
                full.mul_sub(&mut b, &a, &s);
                // P * s^2 modulo the digit's prime, 0 modulo the others.
                let m = full.moduli()[digit];
                full.add_scaled(digit, b.limb_mut(digit), square.limb(digit), m.reduce(u128::from(special)));
                [b, a]
            })
            .collect();
        Keys { s, relinearise }
    }

    /// Encrypts small coefficients.
    pub fn encrypt<R: Rng>(&self, keys: &Keys, m: &[i64], rng: &mut R) -> Ciphertext {
        let ring = self.top();
        let a = ring.uniform(rng);
        let mut b = ring.forward(self.small(ring, rng));
        ring.mul_sub(&mut b, &a, &cut(&keys.s, ring));
        ring.add_assign(&mut b, &self.plain(m));
        Ciphertext { parts: [b, a], factor: 1 }
    }

    /// A plaintext for [`Textbook::multiply_plain`].
    pub fn plain(&self, m: &[i64]) -> Poly<Ntt> {
        let ring = self.top();
        ring.forward(ring.lift(m, self.t as i64))
    }

    /// The message modulo `t`.
    pub fn decrypt(&self, keys: &Keys, c: &Ciphertext) -> Vec<u64> {
        let ring = self.ring_of(&c.parts[0]);
        let mut v = c.parts[0].clone();
        ring.mul_add(&mut v, &c.parts[1], &cut(&keys.s, ring));
        let v = ring.inverse(v);
        let undo = inverse_mod(c.factor, self.t);
        let mut residues = vec![0; ring.limbs()];
        (0..ring.degree())
            .map(|k| {
                residues.iter_mut().enumerate().for_each(|(l, r)| *r = v.limb(l)[k]);
                let value = self.centred(ring, &residues);
                (value.rem_euclid(i128::from(self.t)) as u128 * u128::from(undo) % u128::from(self.t)) as u64
            })
            .collect()
    }

    /// The centred value of at most two residues.
    fn centred(&self, ring: &Ring, residues: &[u64]) -> i128 {
        let q: i128 = ring.moduli().iter().map(|m| i128::from(m.value())).product();
        let mut v = i128::from(residues[0]);
        if let [m0, m1] = ring.moduli() {
            let p0 = m1.reduce(u128::from(m0.value()));
            let d = m1.mul(m1.sub(residues[1], m1.reduce(u128::from(residues[0]))), m1.invert(p0));
            v += i128::from(d) * i128::from(m0.value());
        }
        if v > q / 2 { v - q } else { v }
    }

    /// Ciphertext times plaintext.
    pub fn multiply_plain(&self, c: &Ciphertext, m: &Poly<Ntt>) -> Ciphertext {
        let ring = self.ring_of(&c.parts[0]);
        let product = |part: &Poly<Ntt>| {
            let mut out = ring.zero();
            ring.mul_add(&mut out, part, m);
            out
        };
        Ciphertext { parts: [product(&c.parts[0]), product(&c.parts[1])], factor: c.factor }
    }

    /// Ciphertext times ciphertext, relinearised.
    pub fn multiply(&self, keys: &Keys, a: &Ciphertext, b: &Ciphertext) -> Ciphertext {
        let ring = self.ring_of(&a.parts[0]);
        let ([a0, a1], [b0, b1]) = (&a.parts, &b.parts);
        let (mut low, mut middle, mut high) = (ring.zero(), ring.zero(), ring.zero());
        ring.mul_add(&mut low, a0, b0);
        ring.mul_add(&mut high, a1, b1);
        ring.sum_of_products(&mut middle, [[a0, b1], [a1, b0]]);
        let [mut c0, mut c1] = self.switch(keys, high);
        ring.add_assign(&mut c0, &low);
        ring.add_assign(&mut c1, &middle);
        Ciphertext { parts: [c0, c1], factor: a.factor * b.factor % self.t }
    }

    /// Two components that stand for `d * s^2`. Only at the top level, which is where the paper
    /// multiplies.
    fn switch(&self, keys: &Keys, d: Poly<Ntt>) -> [Poly<Ntt>; 2] {
        let (ring, full) = (self.top(), &self.full);
        let coefficients = ring.inverse(d);
        let mut sums = [full.zero(), full.zero()];
        for (digit, key) in keys.relinearise.iter().enumerate() {
            let mut extended: Poly<Coefficient> = full.zero();
            for (l, m) in full.moduli().iter().enumerate() {
                let source = coefficients.limb(digit).iter();
                extended.limb_mut(l).iter_mut().zip(source).for_each(|(o, &v)| *o = m.add(v, 0)); // primes of one size: v < 2p
            }
            let extended = full.forward(extended);
            sums.iter_mut().zip(key).for_each(|(sum, key)| full.mul_add(sum, &extended, key));
        }
        let [first, second] = sums;
        // The factor P that the key brings in goes away in the division: nothing to count.
        [self.divide(&first, full, ring), self.divide(&second, full, ring)]
    }

    /// Divides by the last prime of `from`, leaving the primes of `to`: `(v + t*k) / p` with `k`
    /// such that `p` divides.
    fn divide(&self, v: &Poly<Ntt>, from: &Ring, to: &Ring) -> Poly<Ntt> {
        let last = to.limbs();
        let p = from.moduli()[last];
        // delta = t * [-v * t^-1]_p, centred: a multiple of t that is -v modulo p.
        let mut tail = v.clone();
        from.inverse_limb(last, &mut tail);
        let minus_inverse = p.sub(0, p.invert(p.reduce(u128::from(self.t))));
        let k: Vec<i64> = tail
            .limb(last)
            .iter()
            .map(|&v| {
                let k = p.mul(v, minus_inverse);
                if k > p.value() / 2 { k as i64 - p.value() as i64 } else { k as i64 }
            })
            .collect();
        // The primes of one size come largest first: |k| is below all that are left.
        let mut out = to.forward(to.lift(&k, (p.value() / 2) as i64));
        for (l, m) in to.moduli().iter().enumerate() {
            let (t, inverse) = (m.reduce(u128::from(self.t)), m.invert(m.reduce(u128::from(p.value()))));
            // (v + t*k) / p, in the NTT domain.
            let mut sum = v.limb(l).to_vec();
            to.add_scaled(l, &mut sum, out.limb(l), t);
            let mut zero = vec![0; sum.len()];
            to.add_scaled(l, &mut zero, &sum, inverse);
            out.limb_mut(l).copy_from_slice(&zero);
        }
        out
    }

    /// Modulus switch: one data prime less.
    ///
    /// # Errors
    /// [`TextbookError::Level`] if only one is left.
    pub fn rescale(&self, c: &Ciphertext) -> Result<Ciphertext, TextbookError> {
        let from = self.ring_of(&c.parts[0]);
        let level = from.limbs();
        let to = level.checked_sub(2).and_then(|l| self.rings.get(l)).ok_or(TextbookError::Level(level))?;
        let last: &Modulus = &from.moduli()[level - 1];
        let parts = [self.divide(&c.parts[0], from, to), self.divide(&c.parts[1], from, to)];
        Ok(Ciphertext { parts, factor: c.factor * inverse_mod(last.value(), self.t) % self.t })
    }

    /// Adds a ciphertext of the same level and history.
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) {
        let limbs = a.parts[0].limbs();
        let ring = &self.rings[limbs - 1];
        a.parts.iter_mut().zip(&b.parts).for_each(|(a, b)| ring.add_assign(a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jali_ring::sample::{derive_key, stream};
    use proptest::prelude::*;

    const T: u64 = 65_537;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn products_decrypt_to_products(x in -100i64..100, w in -100i64..100, y in -100i64..100, v in -100i64..100, seed: u8) {
            let scheme = Textbook::new(8192, 2, 44, T, Backend::fastest()).unwrap();
            let mut rng = stream(&derive_key("jali textbook test", &[&[seed]]));
            let keys = scheme.keys(&mut rng);
            let wrap = |v: i64| v.rem_euclid(T as i64) as u64;
            let (cx, cw) = (scheme.encrypt(&keys, &[x, 1], &mut rng), scheme.encrypt(&keys, &[w], &mut rng));
            prop_assert_eq!(scheme.decrypt(&keys, &cx)[..2].to_vec(), vec![wrap(x), 1]);
            let plain = scheme.multiply_plain(&cx, &scheme.plain(&[w]));
            prop_assert_eq!(scheme.decrypt(&keys, &plain)[..3].to_vec(), vec![wrap(x * w), wrap(w), 0]);
            let hidden = scheme.multiply(&keys, &cx, &cw);
            prop_assert_eq!(scheme.decrypt(&keys, &hidden)[..3].to_vec(), vec![wrap(x * w), wrap(w), 0]);
            let mut sum = scheme.rescale(&hidden).unwrap();
            prop_assert_eq!(scheme.decrypt(&keys, &sum)[..3].to_vec(), vec![wrap(x * w), wrap(w), 0]);
            let other = scheme.multiply(&keys, &scheme.encrypt(&keys, &[y], &mut rng), &scheme.encrypt(&keys, &[v], &mut rng));
            scheme.add_assign(&mut sum, &scheme.rescale(&other).unwrap());
            prop_assert_eq!(scheme.decrypt(&keys, &sum)[0], wrap(x * w + y * v));
            prop_assert!(scheme.rescale(&sum).is_err());
        }
    }

    #[test]
    fn unusable_plaintext_moduli_are_refused() {
        for t in [0, 1, 2, 1 << 20, (1 << 20) + 1] {
            assert!(Textbook::new(4096, 1, 44, t, Backend::fastest()).is_err(), "{t}");
        }
    }
}
