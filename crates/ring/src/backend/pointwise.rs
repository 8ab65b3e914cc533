//! Products and sums, value by value, most of them in the NTT domain.

use super::Job;
use super::lanes::{AHEAD, Lanes, item_at, prefetch};
use crate::Modulus;

/// `acc = acc + a * b` or `acc - a * b`.
pub(crate) struct MulAdd<'a> {
    pub(crate) modulus: &'a Modulus,
    pub(crate) acc: &'a mut [u64],
    pub(crate) a: &'a [u64],
    pub(crate) b: &'a [u64],
    pub(crate) subtract: bool,
}

impl Job for MulAdd<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let p = V::prime(self.modulus);
        let bias = V::bias(&p, 1);
        let factors = V::split(self.a).iter().zip(V::split(self.b));
        for (acc, (a, b)) in V::split_mut(self.acc).iter_mut().zip(factors) {
            let (sum, product) = (V::enter(acc), V::enter(a).mul(V::enter(b), &p));
            let sum = if self.subtract { sum.sub(product, bias) } else { sum.add(product) };
            sum.leave(&p, acc);
        }
    }
}

/// `out = sum a * b` over some products. `b` comes from memory and is prefetched, `a` is in a
/// cache.
pub(crate) struct SumOfProducts<'a, const K: usize> {
    pub(crate) modulus: &'a Modulus,
    pub(crate) out: &'a mut [u64],
    pub(crate) factors: [[&'a [u64]; 2]; K],
}

impl<const K: usize> Job for SumOfProducts<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let p = V::prime(self.modulus);
        let len = self.factors.iter().flatten().fold(self.out.len(), |len, f| len.min(f.len())) / V::LANES;
        let mut words = [[V::split(&[]); 2]; K];
        for (words, factors) in words.iter_mut().zip(&self.factors) {
            *words = [&V::split(factors[0])[..len], &V::split(factors[1])[..len]];
        }
        for (i, out) in V::split_mut(self.out)[..len].iter_mut().enumerate() {
            let mut sum = V::no_products();
            for k in 0..K {
                let [a, b] = words[k];
                prefetch(self.factors[k][1], i * V::LANES + AHEAD / 8);
                sum = V::accumulate(sum, V::enter(item_at(a, i)), V::enter(item_at(b, i)), &p);
            }
            V::finish(sum, &p, out);
        }
    }
}

/// `acc += scalar * a` with a scalar below `p`.
pub(crate) struct AddScaled<'a> {
    pub(crate) modulus: &'a Modulus,
    pub(crate) acc: &'a mut [u64],
    pub(crate) a: &'a [u64],
    pub(crate) scalar: u64,
}

impl Job for AddScaled<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let p = V::prime(self.modulus);
        // The scalar may be secret: no quotient is computed from it, as for public constants.
        let scalar = [self.scalar; 8];
        let scalar = V::enter(&V::split(&scalar)[0]);
        for (acc, a) in V::split_mut(self.acc).iter_mut().zip(V::split(self.a)) {
            V::enter(acc).add(V::enter(a).mul(scalar, &p)).leave(&p, acc);
        }
    }
}

/// `acc = acc + a`, both canonical, of any length.
pub(crate) struct Add<'a> {
    pub(crate) modulus: &'a Modulus,
    pub(crate) acc: &'a mut [u64],
    pub(crate) a: &'a [u64],
}

impl Job for Add<'_> {
    type Out = ();

    /// A plain loop that the compiler makes vectors of: no lanes needed.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        self.acc.iter_mut().zip(self.a).for_each(|(acc, &a)| *acc = self.modulus.add(*acc, a));
    }
}

/// Appends to `out` the residues of signed integers below `p` in absolute value.
pub(crate) struct LiftSmall<'a> {
    pub(crate) modulus: &'a Modulus,
    pub(crate) values: &'a [i64],
    pub(crate) out: &'a mut Vec<u64>,
}

impl Job for LiftSmall<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        self.out.extend(self.values.iter().map(|&v| self.modulus.lift_small(v)));
    }
}

/// `values = values * factor + terms` in integers that do not overflow.
pub(crate) struct Scale<'a> {
    pub(crate) values: &'a mut [i64],
    pub(crate) factor: i64,
    pub(crate) terms: &'a [i64],
}

impl Job for Scale<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        self.values.iter_mut().zip(self.terms).for_each(|(v, x)| *v = *v * self.factor + x);
    }
}
