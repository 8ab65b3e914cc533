//! The client masks an input, and finishes the request once.

use jali_ring::sample::{self, BINOMIAL_MAX, Key, derive_key, stream};
use jali_ring::{Ntt, Poly};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::check::{Answer, Expected, Verified};
use crate::{LayerKey, MaskError, RequestEntropy};

/// What names a request besides its randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestContext {
    /// Counts the requests of one client.
    pub counter: u64,
    /// Index of the image within its batch.
    pub image: u64,
}

/// A request under way: holds its secrets, is consumed by finishing, and is neither cloned nor serialised (condition 2).
///
/// ```compile_fail,E0599
/// fn twice(pending: jali_mask::PendingRequest<'_>) {
///     let other = pending.clone(); // no such method
/// }
/// ```
pub struct PendingRequest<'k> {
    key: &'k LayerKey,
    pub(crate) s: Zeroizing<Poly<Ntt>>,
    /// `sum_i a[i]*(x[i] + t*e[i])`; absent when no row is hidden.
    z: Option<Zeroizing<Poly<Ntt>>>,
    expected: Expected,
}

impl std::fmt::Debug for PendingRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingRequest(layer {}, secrets withheld)", self.key.id.layer)
    }
}

impl LayerKey {
    /// Masks one input: `x` holds the coefficients of every tile. Returns what goes to the server and what stays.
    ///
    /// # Errors
    /// [`MaskError::Shape`] or [`MaskError::InputRange`] for an unfit input; [`MaskError::CheckKeyExhausted`].
    pub fn mask(
        &self,
        x: &[Vec<i64>],
        entropy: RequestEntropy,
        context: RequestContext,
    ) -> Result<(Vec<Poly<Ntt>>, PendingRequest<'_>), MaskError> {
        let ring = self.parameters.ring();
        if x.len() != self.tiles() {
            return Err(MaskError::Shape { what: "tiles of an input", expected: self.tiles(), got: x.len() });
        }
        if let Some(tile) = x.iter().find(|tile| tile.len() != ring.degree()) {
            return Err(MaskError::Shape { what: "coefficients of a tile", expected: ring.degree(), got: tile.len() });
        }
        if x.iter().flatten().any(|v| !(-self.input_bound..=self.input_bound).contains(v)) {
            return Err(MaskError::InputRange { bound: self.input_bound });
        }
        self.check.usable()?;
        let request = self.request_key(x, entropy, context);
        let mut s = Zeroizing::new(vec![0; ring.degree()]);
        sample::ternary(&mut stream(&derive_key("jali 1 request: secret", &[&*request])), &mut s);
        let s = Zeroizing::new(ring.forward(ring.lift(&s, 1)));

        let t = self.parameters.t();
        let bound = t * BINOMIAL_MAX + self.input_bound;
        let any_hidden = self.secrets.iter().any(Option::is_some);
        let noisy: Zeroizing<Vec<Poly<Ntt>>> = Zeroizing::new(
            x.par_iter()
                .enumerate()
                .map(|(i, x)| {
                    let mut v = Zeroizing::new(vec![0i64; ring.degree()]);
                    let errors = derive_key("jali 1 request: errors", &[&*request, &(i as u64).to_le_bytes()]);
                    sample::centred_binomial(&mut stream(&errors), &mut v);
                    v.iter_mut().zip(x).for_each(|(v, x)| *v = *v * t + x);
                    ring.forward(ring.lift(&v, bound))
                })
                .collect(),
        );
        let z = || -> Result<_, MaskError> {
            if !any_hidden {
                return Ok(None);
            }
            let batch = Zeroizing::new(self.a_row.prepare(ring, &[&noisy[..]])?);
            let product = Zeroizing::new(self.a_row.products(ring, &batch, 0..1)?);
            Ok(Some(Zeroizing::new(product.poly(ring, 0, 0))))
        };
        let mask = |(noisy, a): (&Poly<Ntt>, &Poly<Ntt>)| {
            let mut masked = noisy.clone();
            ring.mul_sub(&mut masked, a, &s);
            masked
        };
        let (z, masked) = rayon::join(z, || noisy.par_iter().zip(&self.a).map(mask).collect::<Vec<_>>());
        let z = z?;
        // Of the request only what the server sees; no secret of this request goes into the check.
        let expected = self.check.expect(ring, &self.wanted, &masked)?;
        Ok((masked, PendingRequest { key: self, s, z, expected }))
    }

    /// Key of everything that this request draws: operating-system randomness, bound to position, counter and content,
    /// so that even a stuck generator would not reuse a secret for another input (condition 2).
    fn request_key(&self, x: &[Vec<i64>], entropy: RequestEntropy, context: RequestContext) -> Key {
        let mut content = Zeroizing::new(Vec::with_capacity(x.len() * self.parameters.ring().degree() * 4));
        for v in x.iter().flatten() {
            content.extend_from_slice(&(*v as i32).to_le_bytes());
        }
        let fields: [&[u8]; 7] = [
            &*entropy.0,
            &self.parameters.identity(),
            &self.id.model,
            &self.id.layer.to_le_bytes(),
            &context.counter.to_le_bytes(),
            &context.image.to_le_bytes(),
            &content,
        ];
        derive_key("jali 1 request", &fields)
    }
}

impl PendingRequest<'_> {
    /// The layer that this request belongs to.
    pub fn layer_key(&self) -> &LayerKey {
        self.key
    }

    /// Checks the answer and, only if it is accepted, unmasks it: exact integers, `[row][wanted]`. Either way the
    /// request's secrets are gone afterwards. `None` stands for an answer that was missing or could not be decoded; it
    /// takes the same path as a wrong one.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`].
    pub fn finish(self, answer: Option<Answer>) -> Result<Vec<i64>, MaskError> {
        let verified = self.verify(answer)?;
        let crt = self.key.parameters.ring().crt();
        let bits = self.key.parameters.plaintext_bits();
        Ok(self.unmask(&verified, |residues, digits| crt.centred_mod_power_of_two(residues, bits, digits)))
    }

    /// log2 of the largest `|V|` of an accepted answer: for tests of the noise bound only.
    #[cfg(any(test, feature = "test-doors"))]
    pub fn finish_measuring_noise(self, answer: Option<Answer>) -> Result<(Vec<i64>, f64), MaskError> {
        let verified = self.verify(answer)?;
        let crt = self.key.parameters.ring().crt();
        let bits = self.key.parameters.plaintext_bits();
        let noise = self.unmask(&verified, |residues, _| crt.centred_f64(residues).abs());
        let values = self.unmask(&verified, |residues, digits| crt.centred_mod_power_of_two(residues, bits, digits));
        Ok((values, noise.into_iter().fold(0.0, f64::max).log2()))
    }

    fn verify(&self, answer: Option<Answer>) -> Result<Verified, MaskError> {
        let answer = answer.ok_or_else(|| self.key.check.reject())?;
        self.key.check.verify(self.key.parameters.ring(), &self.expected, answer)
    }

    /// `V = r + s*H + s'*z` at the wanted coefficients, each turned into a number by `read`. Taking [`Verified`] is what
    /// keeps this behind the check.
    fn unmask<T: Send>(&self, answer: &Verified, read: impl Fn(&[u64], &mut [u64]) -> T + Sync) -> Vec<T> {
        let (key, ring) = (self.key, self.key.parameters.ring());
        let wanted = key.wanted.indices();
        key.hints
            .par_iter()
            .zip(&key.secrets)
            .enumerate()
            .flat_map_iter(|(o, (hint, secret))| {
                let sum = match (secret, &self.z) {
                    (Some(secret), Some(z)) => ring.sum_of_two_products(&self.s, hint, secret, z),
                    _ => {
                        let mut sum = ring.zero();
                        ring.mul_add(&mut sum, &self.s, hint);
                        sum
                    }
                };
                let pads = Zeroizing::new(ring.inverse(sum));
                let parts: Vec<&[u64]> = (0..ring.limbs()).map(|l| answer.answer().part(o, l)).collect();
                let mut residues = Zeroizing::new(vec![0; ring.limbs()]);
                let mut digits = Zeroizing::new(vec![0; ring.limbs()]);
                let values: Vec<T> = wanted
                    .iter()
                    .enumerate()
                    .map(|(j, &k)| {
                        for (l, m) in ring.moduli().iter().enumerate() {
                            residues[l] = m.add(parts[l][j], pads.limb(l)[k as usize]);
                        }
                        read(&residues, &mut digits)
                    })
                    .collect();
                values
            })
            .collect()
    }
}
