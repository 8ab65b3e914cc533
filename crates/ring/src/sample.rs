//! Samplers over a ChaCha20 stream. The stream's key comes from [`derive_key`], which separates
//! domains.
//!
//! None of the secret samplers branches or indexes on an accepted value: rejection (ternary,
//! uniform) looks only at values that are thrown away, and the binomial counts bits.

use std::convert::Infallible;

use chacha20::ChaCha20Legacy;
use cipher::{KeyIvInit, StreamCipher};
use rand_core::{Rng, TryRng};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::backend::Job;
use crate::backend::lanes::Lanes;
use crate::{Backend, Modulus};

/// A derived 256-bit key, zeroised on drop.
pub type Key = Zeroizing<[u8; 32]>;

/// Variance of [`centred_binomial`]: 21 + 21 fair bits give 42/4.
pub const BINOMIAL_VARIANCE: f64 = 10.5;
/// Largest absolute value of [`centred_binomial`].
pub const BINOMIAL_MAX: i64 = 21;

/// Derives a key with BLAKE3 in key-derivation mode over length-prefixed fields. `domain` must be a
/// constant of the program that no other call uses: it states protocol version and role.
pub fn derive_key(domain: &'static str, fields: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    finish(hasher)
}

/// Hashes one field with BLAKE3 in key-derivation mode, without its length: BLAKE3 hashes many
/// chunks of a long field at once only if nothing stands before it. For `domain` see
/// [`derive_key`].
pub fn digest(domain: &'static str, content: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    hasher.update(content);
    finish(hasher)
}

fn finish(mut hasher: blake3::Hasher) -> Key {
    let mut hash = hasher.finalize();
    let key = Zeroizing::new(*hash.as_bytes());
    hash.zeroize();
    hasher.zeroize();
    key
}

/// ChaCha20's key stream with nonce zero, as a generator. Its key and the rest of a block are wiped
/// on drop.
pub struct Stream(ChaCha20Legacy);

impl ZeroizeOnDrop for Stream where
    // True only with the features that wipe it.
    ChaCha20Legacy: ZeroizeOnDrop,
{
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream(withheld)")
    }
}

/// Returns the stream of pseudo-random bits for a key.
pub fn stream(key: &Key) -> Stream {
    Stream(ChaCha20Legacy::new((&**key).into(), &[0; 8].into()))
}

impl Stream {
    fn array<const L: usize>(&mut self) -> [u8; L] {
        let mut bytes = [0; L];
        self.0.apply_keystream(&mut bytes);
        bytes
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.array()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.array()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0);
        self.0.apply_keystream(bytes);
        Ok(())
    }
}

/// Fills `out` with residues uniform modulo `p`: words are cut to the bit length of `p`, and those
/// that are still too large are dropped.
pub fn uniform_mod<R: Rng>(rng: &mut R, p: &Modulus, out: &mut [u64]) {
    let mask = (1u64 << p.bits()) - 1;
    let mut buffer = Zeroizing::new([0u8; 4096]);
    let mut filled = 0;
    while filled < out.len() {
        rng.fill_bytes(&mut *buffer);
        for word in buffer.as_chunks::<8>().0 {
            if filled == out.len() {
                break;
            }
            let v = u64::from_le_bytes(*word) & mask;
            // Written always, kept only if below p: no branch on a kept value.
            out[filled] = v;
            filled += (v.wrapping_sub(p.value()) >> 63) as usize;
        }
    }
}

/// Base-3 digits of a word below [`POWER`], each uniform if the word is.
const DIGITS: usize = 20;
/// 3^20: four of five 32-bit words are below it.
const POWER: u32 = 3_486_784_401;
/// Words whose digits are computed together.
const WORDS: usize = 56;
/// Bytes that are drawn for them at a time: 80 words, of which nearly always enough are kept.
const WORD_BYTES: usize = 4 * 80;

/// Fills `out` with values uniform in {-1, 0, 1}: the base-3 digits, less one, of words below 3^20.
/// The values do not depend on the backend.
pub fn ternary<R: Rng>(backend: Backend, rng: &mut R, out: &mut [i64]) {
    let mut buffer = Zeroizing::new([0u8; WORD_BYTES]);
    let mut words = Zeroizing::new([0u64; WORDS]);
    let mut drawn = Zeroizing::new([0i64; WORDS * DIGITS]);
    for out in out.chunks_mut(WORDS * DIGITS) {
        let mut filled = 0;
        while filled < WORDS {
            rng.fill_bytes(&mut *buffer);
            for word in buffer.as_chunks::<4>().0 {
                if filled == WORDS {
                    break;
                }
                // Written always, kept only if below: no branch on a kept value.
                let word = u32::from_le_bytes(*word);
                words[filled] = u64::from(word);
                filled += (u64::from(word).wrapping_sub(u64::from(POWER)) >> 63) as usize;
            }
        }
        backend.run(Digits { words: &mut words, out: &mut drawn });
        out.copy_from_slice(&drawn[..out.len()]);
    }
}

/// Writes the base-3 digits, less one, of words below 2^32: the lowest digits of all words, then
/// the next ones.
struct Digits<'a> {
    words: &'a mut [u64; WORDS],
    out: &'a mut [i64; WORDS * DIGITS],
}

impl Job for Digits<'_> {
    type Out = ();

    /// Plain loops that the compiler makes vectors of: no lanes needed.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        for out in self.out.as_chunks_mut::<WORDS>().0 {
            for (out, word) in out.iter_mut().zip(&mut *self.words) {
                // floor(word / 3) for 32 bits, by a multiplication of 32-bit halves.
                let third = ((*word & 0xffff_ffff) * 0xaaaa_aaab) >> 33;
                *out = (*word - 3 * third) as i64 - 1;
                *word = third;
            }
        }
    }
}

/// Values that are drawn together: three from every two words of the stream.
const DRAWN: usize = 384;

/// Fills `out` with centred binomial values: 21 bits minus 21 bits, standard deviation 3.24. The
/// values do not depend on the backend.
pub fn centred_binomial<R: Rng>(backend: Backend, rng: &mut R, out: &mut [i64]) {
    let mut buffer = Zeroizing::new([0u8; DRAWN / 3 * 16]);
    let mut drawn = Zeroizing::new([0i64; DRAWN]);
    for out in out.chunks_mut(DRAWN) {
        rng.fill_bytes(&mut *buffer);
        backend.run(Differences { bytes: &buffer, out: &mut drawn });
        out.copy_from_slice(&drawn[..out.len()]);
    }
}

/// Writes [`DRAWN`] differences, each of 42 bits of the stream: the ones among the lower 21 bits
/// minus the ones among the upper 21. A third of the values takes the lower 42 bits of the even
/// words, a third those of the odd words, and a third the 22 bits that are left of an even word and
/// 20 of those left of an odd one.
struct Differences<'a> {
    bytes: &'a [u8; DRAWN / 3 * 16],
    out: &'a mut [i64; DRAWN],
}

impl Job for Differences<'_> {
    type Out = ();

    /// Plain loops that the compiler makes vectors of: no lanes needed.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        const HALF: u64 = (1 << 21) - 1;
        const BOTH: u64 = (1 << 42) - 1;
        let Self { bytes, out } = self;
        let (first, rest) = out.split_at_mut(DRAWN / 3);
        let (second, third) = rest.split_at_mut(DRAWN / 3);
        for (((first, second), third), pair) in first.iter_mut().zip(second).zip(third).zip(bytes.as_chunks::<16>().0) {
            let pair = u128::from_le_bytes(*pair);
            let (even, odd) = (pair as u64, (pair >> 64) as u64);
            *first = (even & BOTH) as i64;
            *second = (odd & BOTH) as i64;
            *third = ((even >> 42 | odd >> 42 << 22) & BOTH) as i64;
        }
        for value in out {
            // Both counts in one: with the upper bits flipped, ones are `lower + 21 - upper`.
            *value = i64::from((*value as u64 ^ (HALF << 21)).count_ones()) - BINOMIAL_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(seed: u8) -> Stream {
        stream(&derive_key("jali test", &[&[seed]]))
    }

    #[test]
    fn the_stream_is_chacha20() {
        // RFC 8439, appendix A.1, first vector: key, nonce and counter zero.
        let first = [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28];
        let mut bytes = vec![7; 4096];
        stream(&Key::new([0; 32])).fill_bytes(&mut bytes);
        assert_eq!(bytes[..16], first);
        // However it is cut.
        let (mut other, mut rest) = (stream(&Key::new([0; 32])), vec![0; 4096 - 17]);
        let mut one = [0];
        other.fill_bytes(&mut one);
        assert_eq!(one[0], bytes[0]);
        assert_eq!(other.next_u64().to_le_bytes(), bytes[1..9]);
        assert_eq!(other.next_u32().to_le_bytes(), bytes[9..13]);
        other.fill_bytes(&mut [0; 4]);
        other.fill_bytes(&mut rest);
        assert_eq!(rest, bytes[17..]);
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let keys = [
            derive_key("jali test a", &[b"ab", b"c"]),
            derive_key("jali test a", &[b"a", b"bc"]),
            derive_key("jali test a", &[b"abc"]),
            derive_key("jali test b", &[b"abc"]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn uniform_covers_the_range_evenly() {
        let p = Modulus::new(12289).unwrap();
        let mut v = vec![0; 1 << 18];
        uniform_mod(&mut rng(1), &p, &mut v);
        assert!(v.iter().all(|&x| x < 12289));
        // 64 equal classes, chi-square with 63 degrees of freedom: 134 is beyond 1 - 1e-6.
        let mut counts = [0f64; 64];
        v.iter().for_each(|&x| counts[(x * 64 / 12289) as usize] += 1.0);
        let chi: f64 = (0..64u64)
            .map(|c| {
                let width = ((c + 1) * 12289).div_ceil(64) - (c * 12289).div_ceil(64);
                let want = v.len() as f64 * width as f64 / 12289.0;
                (counts[c as usize] - want).powi(2) / want
            })
            .sum();
        assert!(chi < 134.0, "{chi}");
    }

    #[test]
    fn ternary_is_uniform_on_three_values() {
        for len in [1, 4, 5, 4096, 99_999] {
            let mut v = vec![9; len];
            ternary(Backend::fastest(), &mut rng(2), &mut v);
            assert!(v.iter().all(|x| (-1..=1).contains(x)));
        }
        let mut v = vec![0; 300_000];
        ternary(Backend::fastest(), &mut rng(3), &mut v);
        for value in -1..=1 {
            let n = v.iter().filter(|&&x| x == value).count() as f64;
            assert!((n - 1e5).abs() < 6.0 * 258.2, "{value}: {n}"); // six standard deviations
        }
    }

    #[test]
    fn ternary_takes_the_digits_of_small_words_with_every_backend() {
        for len in [1, WORDS, WORDS * DIGITS, WORDS * DIGITS + 1, 4096] {
            // The same draws, one by one.
            let (mut stream, mut want) = (rng(7), vec![]);
            while want.len() < len {
                let mut kept = vec![];
                while kept.len() < WORDS {
                    let mut bytes = [0; WORD_BYTES];
                    stream.fill_bytes(&mut bytes);
                    let words = bytes.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w));
                    kept.extend(words.filter(|&w| u64::from(w) < 3u64.pow(20)));
                }
                kept.truncate(WORDS);
                want.extend((0..20).flat_map(|d| kept.iter().map(move |w| i64::from(w / 3u32.pow(d) % 3) - 1)));
            }
            for backend in Backend::available() {
                let mut got = vec![9; len];
                ternary(backend, &mut rng(7), &mut got);
                assert_eq!(got, want[..len], "{}, {len}", backend.name());
            }
        }
        // The quotients are right at both ends of all that is divided.
        let mut words = [0; WORDS];
        words[..4].copy_from_slice(&[u64::from(POWER) - 1, 0, u64::from(u32::MAX), 3]);
        let mut out = [0; WORDS * DIGITS];
        Backend::fastest().run(Digits { words: &mut words, out: &mut out });
        for (i, word) in [POWER - 1, 0, u32::MAX, 3].into_iter().enumerate() {
            assert!((0..20).all(|d| out[d * WORDS + i] == i64::from(word / 3u32.pow(d as u32) % 3) - 1), "{word}");
        }
    }

    #[test]
    fn binomial_has_its_variance_and_range() {
        let mut v = vec![0; 400_000];
        centred_binomial(Backend::fastest(), &mut rng(4), &mut v);
        assert!(v.iter().all(|x| x.abs() <= BINOMIAL_MAX));
        let mean = v.iter().sum::<i64>() as f64 / v.len() as f64;
        let variance = v.iter().map(|x| x * x).sum::<i64>() as f64 / v.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - BINOMIAL_VARIANCE).abs() < 0.15, "{mean} {variance}");
    }

    #[test]
    fn binomial_takes_every_bit_once_with_every_backend() {
        for len in [1usize, 127, 128, 129, 383, 384, 385, 4096] {
            let mut bytes = vec![0; len.div_ceil(DRAWN) * DRAWN / 3 * 16];
            rng(6).fill_bytes(&mut bytes);
            let bit = |i: usize| i64::from(bytes[i / 8] >> (i % 8) & 1);
            let mut taken = vec![false; 8 * bytes.len()];
            for backend in Backend::available() {
                let mut values = vec![99; len];
                centred_binomial(backend, &mut rng(6), &mut values);
                taken.fill(false);
                for (i, value) in values.into_iter().enumerate() {
                    // Where bit k of a value stands in the stream.
                    let pair = (i / DRAWN * DRAWN / 3 + i % (DRAWN / 3)) * 128;
                    let place = |k: usize| match i % DRAWN / (DRAWN / 3) {
                        0 => pair + k,
                        1 => pair + 64 + k,
                        _ => pair + 42 + k + if k < 22 { 0 } else { 42 },
                    };
                    assert_eq!(value, (0..21).map(|k| bit(place(k)) - bit(place(21 + k))).sum::<i64>(), "{i} of {len}");
                    for k in 0..42 {
                        assert!(!std::mem::replace(&mut taken[place(k)], true));
                    }
                }
            }
        }
    }

    #[test]
    fn streams_are_pinned() {
        // Known answers: a change here re-draws every seal, so it must be deliberate.
        let mut t = vec![0; 8];
        ternary(Backend::fastest(), &mut rng(5), &mut t);
        let mut b = vec![0; 4];
        centred_binomial(Backend::fastest(), &mut rng(5), &mut b);
        let mut u = vec![0; 2];
        uniform_mod(&mut rng(5), &Modulus::new(12289).unwrap(), &mut u);
        assert_eq!((t, b, u), (vec![1, 0, -1, -1, 0, -1, 0, -1], vec![3, -2, -4, 2], vec![1163, 2290]));
    }
}
