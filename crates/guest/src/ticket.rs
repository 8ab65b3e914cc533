//! Reading a ticket: shares in the order of the circuit.

use crate::GuestError;
use crate::backend::Backend;
use crate::bits::{Plane, packed_bytes, planes_of, unpack, wipe};
use crate::gates::shares::{GateShares, GateStep};
use crate::stream::StreamKey;

/// A guest's half of a ticket: its key, and the shares that were dealt. It serves one inference.
pub struct GuestTicket {
    key: StreamKey,
    shares: ShareBytes,
}

impl std::fmt::Debug for GuestTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestTicket").field("bytes", &self.shares.0.len()).finish_non_exhaustive()
    }
}

impl GuestTicket {
    /// A key and the shares that [`crate::deal`] made for it.
    pub fn new(key: StreamKey, shares: Vec<u8>) -> Self {
        Self { key, shares: ShareBytes(shares) }
    }

    /// A copy of its key: what an owner needs to compare an inference with the reference.
    pub fn key(&self) -> StreamKey {
        self.key.clone()
    }

    /// Bytes of the shares.
    pub fn bytes(&self) -> usize {
        self.shares.0.len()
    }

    pub(crate) fn open(self) -> (StreamKey, Shares) {
        (self.key, Shares { bytes: self.shares, at: 0 })
    }
}

/// The bytes of a ticket's shares, wiped when dropped.
struct ShareBytes(Vec<u8>);

impl Drop for ShareBytes {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Shares that are read from the front.
pub(crate) struct Shares {
    bytes: ShareBytes,
    at: usize,
}

impl Shares {
    /// The next `n` bytes.
    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let part = self.bytes.0.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(part)
    }

    /// A party's shares of a step of gates: what it derives, and what was dealt.
    pub(crate) fn of_gates(
        &mut self,
        backend: Backend,
        key: &StreamKey,
        gates: GateStep<'_>,
    ) -> Result<GateShares, GuestError> {
        let missing = GuestError::Ticket { step: gates.step >> 6 };
        let mut shares = gates.derived(key);
        let tables = self.take(gates.table_planes() * size_of::<Plane>()).ok_or_else(|| missing.clone())?;
        shares.tables = planes_of(tables);
        for &bits in gates.widths {
            shares.values.push(match bits {
                0 => vec![0; gates.count],
                _ => self.values(backend, bits, gates.count).ok_or_else(|| missing.clone())?,
            });
        }
        Ok(shares)
    }

    /// The next `n` values of so many bits.
    pub(crate) fn values(&mut self, backend: Backend, bits: u32, n: usize) -> Option<Vec<u32>> {
        unpack(backend, self.take(packed_bytes(n, bits))?, bits, n)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.0.len()
    }
}
