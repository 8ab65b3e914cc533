//! Randomness of one party for one ticket, in streams that are separate by type.
//!
//! A stream is ChaCha20 under the party's key of the ticket. Its nonce is the step of the circuit
//! and a [`Purpose`], so that two purposes never share bytes, and neither do two steps.

use chacha20::ChaCha20;
use cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bits::{Plane, wipe};

/// What random values serve for. Every variant is a stream of its own at every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Mask of a value that the guest brings: its input.
    Input,
    /// Mask of a linear layer's summand.
    Summand,
    /// The server's shares of a gate's tables and derivatives.
    Tables,
    /// A party's share of the masks of opened bits.
    OwnBits,
    /// A party's share of the value that defines a result's mask.
    Base,
    /// The server's share of a dealt value: which of a gate's.
    Share(u8),
    /// What hides the weights of a linear layer.
    Weights,
}

impl Purpose {
    fn number(self) -> u8 {
        match self {
            Self::Input => 1,
            Self::Summand => 2,
            Self::Tables => 3,
            Self::OwnBits => 4,
            Self::Base => 5,
            Self::Weights => 6,
            Self::Share(which) => 128 | which,
        }
    }
}

/// A key of a party for one ticket, or of the mask of a sealed model. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StreamKey([u8; 32]);

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKey(secret)")
    }
}

impl StreamKey {
    /// From bytes that came from the operating system or from a key derivation.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be kept where only its holder reads them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// XORs the stream of a step and a purpose into bytes.
    fn apply(&self, step: usize, purpose: Purpose, bytes: &mut [u8]) {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&(step as u32).to_le_bytes());
        nonce[4] = purpose.number();
        // One purpose of one step needs less than the 256 GB that a nonce has.
        ChaCha20::new(&self.0.into(), &nonce.into()).apply_keystream(bytes);
    }

    /// `n` uniform words.
    pub(crate) fn words(&self, step: usize, purpose: Purpose, n: usize) -> Vec<u32> {
        let mut words = vec![0_u32; n];
        self.apply(step, purpose, bytemuck::cast_slice_mut(&mut words));
        words
    }

    /// `n` words that are uniform modulo `2^bits`; their higher bits are anything.
    pub(crate) fn values(&self, step: usize, purpose: Purpose, n: usize, bits: u32) -> Vec<u32> {
        if bits > 16 {
            return self.words(step, purpose, n);
        }
        // Half as much randomness does.
        let mut halves = vec![0_u16; n];
        self.apply(step, purpose, bytemuck::cast_slice_mut(&mut halves));
        let values = halves.iter().map(|&h| u32::from(h)).collect();
        wipe(&mut halves);
        values
    }

    /// `n` uniform planes.
    pub(crate) fn planes(&self, step: usize, purpose: Purpose, n: usize) -> Vec<Plane> {
        let mut planes = vec![crate::bits::ZERO; n];
        self.apply(step, purpose, bytemuck::cast_slice_mut(&mut planes));
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_steps_have_streams_of_their_own() {
        let key = StreamKey::from_bytes([7; 32]);
        let purposes = [Purpose::Input, Purpose::Summand, Purpose::Tables, Purpose::OwnBits, Purpose::Base]
            .into_iter()
            .chain([Purpose::Weights, Purpose::Share(0), Purpose::Share(3)]);
        let mut seen = std::collections::HashSet::new();
        for purpose in purposes {
            for step in [0, 1, 0x1_0000] {
                assert!(seen.insert(key.words(step, purpose, 8)), "{purpose:?} at {step}");
            }
        }
    }
}
