//! Products and sums, coefficient by coefficient, in the NTT domain.

use super::Job;
use super::lanes::{AHEAD, Lanes, prefetch};
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

/// `out = a * b + c * d`; `b` and `c` come from memory, the others are at hand.
pub(crate) struct TwoProducts<'a> {
    pub(crate) modulus: &'a Modulus,
    pub(crate) out: &'a mut [u64],
    pub(crate) factors: [&'a [u64]; 4],
}

impl Job for TwoProducts<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let p = V::prime(self.modulus);
        let [a, b, c, d] = self.factors.map(V::split);
        let factors = a.iter().zip(b).zip(c.iter().zip(d)).enumerate();
        for (out, (i, ((a, b), (c, d)))) in V::split_mut(self.out).iter_mut().zip(factors) {
            prefetch::<V, _>(self.factors[1], i * V::LANES + AHEAD / 8);
            prefetch::<V, _>(self.factors[2], i * V::LANES + AHEAD / 8);
            let first = V::enter(a).mul(V::enter(b), &p);
            first.add(V::enter(c).mul(V::enter(d), &p)).leave(&p, out);
        }
    }
}

/// `acc += scalar * a`, the scalar below `p`.
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
