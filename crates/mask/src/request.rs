//! The client masks an input, and finishes the request once.

use jali_ring::sample::{self, BINOMIAL_MAX, Key, derive_key, stream};
use jali_ring::{Ntt, Poly, Workspace};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::check::{Expected, Verified};
use crate::key::OperatorKey;
use crate::unmask::{Secrets, recompose};
use crate::{MaskError, RequestEntropy};

/// What names a request besides its randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestContext {
    /// Counts the requests of one client.
    pub counter: u64,
    /// Index of the image within its batch.
    pub image: u64,
}

/// A request under way: holds its secrets, is consumed by finishing, and is neither cloned nor
/// serialised (condition 2).
///
/// ```compile_fail,E0599
/// fn twice(pending: jali_mask::PendingRequest<'_>) {
///     let other = pending.clone(); // no such method
/// }
/// ```
pub struct PendingRequest<'k> {
    key: &'k OperatorKey,
    pub(crate) secrets: Secrets,
    expected: Expected,
}

impl std::fmt::Debug for PendingRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingRequest(operator {}, secrets withheld)", self.key.id.operator)
    }
}

/// Masked tiles for the server, and what stays.
pub type Masked<'k> = (Vec<Poly<Ntt>>, PendingRequest<'k>);

impl OperatorKey {
    /// Masks one input: `x` holds the coefficients of every tile. Returns what goes to the server
    /// and what stays.
    ///
    /// # Errors
    /// [`MaskError::Shape`] or [`MaskError::InputRange`] for an unfit input;
    /// [`MaskError::CheckKeyExhausted`].
    pub fn mask(
        &self,
        x: &[Vec<i64>],
        entropy: RequestEntropy,
        context: RequestContext,
    ) -> Result<Masked<'_>, MaskError> {
        self.mask_one(x, &entropy, context)
    }

    /// Masks the inputs of a batch in parallel, each with its own secrets: `context` names the
    /// first image, the others follow.
    ///
    /// # Errors
    /// As [`OperatorKey::mask`].
    pub fn mask_batch(
        &self,
        batch: &[Vec<Vec<i64>>],
        entropy: RequestEntropy,
        context: RequestContext,
    ) -> Result<Vec<Masked<'_>>, MaskError> {
        let image = |(i, x): (usize, &Vec<Vec<i64>>)| {
            self.mask_one(x, &entropy, RequestContext { image: context.image + i as u64, ..context })
        };
        batch.par_iter().enumerate().map(image).collect()
    }

    /// The image index and the content in `context` and `x` keep the secrets of a batch apart.
    fn mask_one(
        &self,
        x: &[Vec<i64>],
        entropy: &RequestEntropy,
        context: RequestContext,
    ) -> Result<Masked<'_>, MaskError> {
        self.check_input(x)?;
        self.check.usable()?;
        let request = self.request_key(x, entropy, context);
        let (s, mut tiles) = rayon::join(|| self.secret(&request), || self.noisy(x, &request));
        // In place: the noisy input becomes the masked one. Of the request, only what the server
        // sees goes into the check's sums.
        let sums = self.vectors.mask(self.parameters.ring(), &mut tiles, &s)?;
        let expected = self.check.expect(self.parameters.ring(), &self.form, sums.checks)?;
        let z = if self.row_keys.iter().any(Option::is_some) { sums.z } else { vec![] };
        Ok((tiles, PendingRequest { key: self, secrets: Secrets { s, z }, expected }))
    }

    fn check_input(&self, x: &[Vec<i64>]) -> Result<(), MaskError> {
        let ring = self.parameters.ring();
        if x.len() != self.tiles() {
            return Err(MaskError::Shape { what: "tiles of an input", expected: self.tiles(), got: x.len() });
        }
        if let Some(tile) = x.iter().find(|tile| tile.len() != ring.degree()) {
            return Err(MaskError::Shape { what: "coefficients of a tile", expected: ring.degree(), got: tile.len() });
        }
        // The sign of one of the two differences, for all of them: no branch on an input, and
        // vectorised.
        let bound = self.input_bound;
        let beyond =
            |tile: &Vec<i64>| tile.iter().fold(0, |any, v| any | bound.wrapping_sub(*v) | v.wrapping_add(bound));
        match x.par_iter().map(beyond).reduce(|| 0, |a, b| a | b) < 0 {
            true => Err(MaskError::InputRange { bound }),
            false => Ok(()),
        }
    }

    /// The request's secret `s`.
    fn secret(&self, request: &Key) -> Zeroizing<Poly<Ntt>> {
        let ring = self.parameters.ring();
        let mut s = Zeroizing::new(vec![0; ring.degree()]);
        sample::ternary(ring.backend(), &mut stream(&derive_key("jali 1 request: secret", &[&**request])), &mut s);
        Zeroizing::new(ring.forward(ring.lift(&s, 1)))
    }

    /// `x[i] + t*e[i]` for all tiles.
    fn noisy(&self, x: &[Vec<i64>], request: &Key) -> Vec<Poly<Ntt>> {
        let (ring, t) = (self.parameters.ring(), self.parameters.t());
        let bound = t * BINOMIAL_MAX + self.input_bound;
        let scratch = || Zeroizing::new(vec![0i64; ring.degree()]);
        let tile = |v: &mut Zeroizing<Vec<i64>>, i: usize| {
            let errors = derive_key("jali 1 request: errors", &[&**request, &(i as u64).to_le_bytes()]);
            sample::centred_binomial(ring.backend(), &mut stream(&errors), v);
            ring.scale_coefficients(v, t, &x[i]);
            ring.forward(ring.lift(v, bound))
        };
        (0..x.len()).into_par_iter().map_init(scratch, tile).collect()
    }

    /// Key of everything that this request draws: operating-system randomness, bound to position,
    /// counter and content, so that even a stuck generator would not reuse a secret for another
    /// input (condition 2).
    fn request_key(&self, x: &[Vec<i64>], entropy: &RequestEntropy, context: RequestContext) -> Key {
        // Two bytes hold every input that quantisation makes; what the bound is does not depend on
        // the input.
        let short = self.input_bound <= i64::from(i16::MAX);
        let tile = self.parameters.ring().degree() * if short { 2 } else { 4 };
        let digest = |bytes: &mut Zeroizing<Vec<u8>>, tiles: &[Vec<i64>]| {
            bytes.resize(tiles.len() * tile, 0);
            for (bytes, x) in bytes.chunks_exact_mut(tile).zip(tiles) {
                match short {
                    true => bytes.as_chunks_mut().0.iter_mut().zip(x).for_each(|(b, v)| *b = (*v as i16).to_le_bytes()),
                    false => {
                        bytes.as_chunks_mut().0.iter_mut().zip(x).for_each(|(b, v)| *b = (*v as i32).to_le_bytes())
                    }
                }
            }
            sample::digest("jali 1 request: content of tiles", bytes)
        };
        // Two tiles of a small ring are as much as is hashed at once.
        let buffer = || Zeroizing::new(Vec::with_capacity(2 * tile));
        let digests: Vec<Key> = x.par_chunks(2).map_init(buffer, digest).collect();
        let mut content = Zeroizing::new(Vec::with_capacity(9 + 32 * digests.len()));
        content.extend((x.len() as u64).to_le_bytes());
        content.push(u8::from(short));
        digests.iter().for_each(|digest| content.extend_from_slice(&**digest));
        self.derive("jali 1 request", entropy, context, &content)
    }

    fn derive(&self, domain: &'static str, entropy: &RequestEntropy, context: RequestContext, content: &[u8]) -> Key {
        let fields: [&[u8]; 7] = [
            &*entropy.0,
            &self.parameters.identity(),
            &self.id.model,
            &self.id.operator.to_le_bytes(),
            &context.counter.to_le_bytes(),
            &context.image.to_le_bytes(),
            content,
        ];
        derive_key(domain, &fields)
    }
}

impl PendingRequest<'_> {
    /// The key of the operator that this request is for.
    pub fn operator_key(&self) -> &OperatorKey {
        self.key
    }

    /// Checks the answer and, only if it is accepted, unmasks it: exact integers, `[row][wanted]`.
    /// Either way the request's secrets are gone afterwards. `None` stands for an answer that was
    /// missing or could not be decoded; it takes the same path as a wrong one.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`]; [`MaskError::NoHints`] for a key that was sealed to be
    /// stored.
    pub fn finish(self, answer: Option<Answer>) -> Result<Vec<i64>, MaskError> {
        let workspace = Zeroizing::new(Workspace::default());
        Ok(self.key.finish_batch(vec![(self, answer)], &workspace)?.swap_remove(0))
    }

    /// log2 of the largest `|V|` of an accepted answer: for tests of the noise bound only.
    #[cfg(any(test, feature = "test-doors"))]
    pub fn finish_measuring_noise(self, answer: Option<Answer>) -> Result<(Vec<i64>, f64), MaskError> {
        let (key, verified) = (self.key, self.verify(answer)?);
        let workspace = Zeroizing::new(Workspace::default());
        let unmasking = key.unmasking.as_ref().ok_or(MaskError::NoHints)?;
        let batch = vec![(self.secrets, verified)];
        let ring = key.parameters.ring();
        let residues = unmasking.unmask(ring, &key.form, key.blocks, batch, &workspace)?.swap_remove(0);
        let noise = recompose(&key.parameters, &key.form, &residues, |crt, residues, out| {
            for (j, out) in out.iter_mut().enumerate() {
                *out = crt.centred_f64(&residues.iter().map(|r| r[j]).collect::<Vec<_>>()).abs();
            }
        });
        Ok((key.numbers(&residues), noise.into_iter().fold(0.0, f64::max).log2()))
    }

    fn verify(&self, answer: Option<Answer>) -> Result<Verified, MaskError> {
        let answer = answer.ok_or(MaskError::AnswerRejected)?;
        self.key.check.verify(self.key.parameters.ring(), &self.key.form, &self.expected, answer)
    }
}

impl OperatorKey {
    /// Finishes the requests of a batch, each with its answer, as [`PendingRequest::finish`] does:
    /// all are checked, and unmasked only if all are accepted. Hints and secrets of rows are read
    /// once for 16 requests. The memory of `workspace` holds secrets afterwards: it is to be wiped
    /// when no more requests follow soon.
    ///
    /// # Errors
    /// [`MaskError::AnswerRejected`] if any answer is; [`MaskError::Shape`] for a request of
    /// another key; [`MaskError::NoHints`].
    pub fn finish_batch<'k>(
        &'k self,
        batch: Vec<(PendingRequest<'k>, Option<Answer>)>,
        workspace: &Zeroizing<Workspace>,
    ) -> Result<Vec<Vec<i64>>, MaskError> {
        if batch.iter().any(|(request, _)| !std::ptr::eq(request.key, self)) {
            return Err(MaskError::Shape { what: "requests of this key", expected: batch.len(), got: 0 });
        }
        let unmasking = self.unmasking.as_ref().ok_or(MaskError::NoHints)?;
        if batch.is_empty() {
            return Ok(vec![]);
        }
        let check = |(request, answer): (PendingRequest<'k>, Option<Answer>)| {
            let verified = request.verify(answer);
            verified.map(|verified| (request.secrets, verified))
        };
        // All are checked before the first failure counts, so that every rejection is counted.
        let checked: Vec<Result<_, MaskError>> = batch.into_par_iter().map(check).collect();
        let checked: Vec<_> = checked.into_iter().collect::<Result<_, _>>()?;
        let ring = self.parameters.ring();
        let residues = unmasking.unmask(ring, &self.form, self.blocks, checked, workspace)?;
        Ok(residues.par_iter().map(|residues| self.numbers(residues)).collect())
    }

    /// The integers that residues of `V` stand for.
    fn numbers(&self, residues: &[u64]) -> Vec<i64> {
        let bits = self.parameters.plaintext_bits();
        recompose(&self.parameters, &self.form, residues, |crt, residues, out| {
            crt.centred_all_mod_power_of_two(residues, bits, out);
        })
    }
}
