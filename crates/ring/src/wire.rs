//! Little-endian reading and writing with a bound on everything, and residues packed to the bit
//! width of their prime.
//!
//! [`Reader`] never allocates more than its input justifies: every element that it returns was paid
//! for by bytes.

use rayon::prelude::*;

use crate::{Backend, Modulus, Ntt, Poly, Ring, RingError};

/// Appends values to a byte buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Makes an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes a buffer with room for `bytes` bytes. It does not move while so many are written, so
    /// none of them stays behind elsewhere.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Returns the bytes that were written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes raw bytes, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes one byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }

    /// Writes four bytes, little-endian.
    pub fn u32(&mut self, v: u32) {
        self.raw(&v.to_le_bytes());
    }

    /// Writes eight bytes, little-endian.
    pub fn u64(&mut self, v: u64) {
        self.raw(&v.to_le_bytes());
    }

    /// Writes a number in groups of seven bits, low first: 1 to 10 bytes.
    pub fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.u8(v as u8 | 0x80);
            v >>= 7;
        }
        self.u8(v as u8);
    }

    /// Writes residues modulo `p`, packed without gaps and padded to a whole byte.
    pub fn residues(&mut self, backend: Backend, p: &Modulus, values: &[u64]) {
        pack_residues(backend, p, values, self.space(packed_len(p, values.len())));
    }

    /// Appends `bytes` zero bytes and returns them to be overwritten.
    pub fn space(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + bytes, 0);
        &mut self.bytes[start..]
    }

    /// Writes ring elements one after the other, packed in parallel.
    pub fn polys<'p>(&mut self, ring: &Ring, polys: impl IntoIterator<Item = &'p Poly<Ntt>>) {
        let polys: Vec<_> = polys.into_iter().collect();
        let len = poly_len(ring);
        self.space(len * polys.len()).par_chunks_exact_mut(len).zip(polys).for_each(|(mut out, p)| {
            for (l, m) in ring.moduli().iter().enumerate() {
                let (part, rest) = out.split_at_mut(packed_len(m, ring.degree()));
                pack_residues(ring.backend(), m, p.limb(l), part);
                out = rest;
            }
        });
    }

    /// Writes a ring element, limb by limb.
    pub fn poly(&mut self, ring: &Ring, p: &Poly<Ntt>) {
        for (l, m) in ring.moduli().iter().enumerate() {
            self.residues(ring.backend(), m, p.limb(l));
        }
    }
}

/// Residues that are packed together: they fill as many whole words as a residue has bits.
const GROUP: usize = 64;

/// Repeats a statement for each of the 64 places of a group. The compiler does not unroll a loop of
/// that length, and the shifts are constants only when it is unrolled.
macro_rules! each_place {
    ($place:ident => $statement:expr) => {
        each_place!($place, $statement, [
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
        ])
    };
    ($place:ident, $statement:expr, [$($i:literal)*]) => {
        $({
            const $place: usize = $i;
            $statement
        })*
    };
}

/// Packs a group into `W` words.
#[inline(never)]
fn pack_group<const W: usize>(values: &[u64; GROUP], words: &mut [u64; GROUP]) {
    *words = [0; GROUP];
    each_place!(I => {
        words[I * W / 64] |= values[I] << (I * W % 64);
        if I * W % 64 + W > 64 {
            words[I * W / 64 + 1] = values[I] >> (64 - I * W % 64);
        }
    });
}

/// Unpacks a group from `W` words, each value cut to `W` bits.
#[inline(never)]
fn unpack_group<const W: usize>(words: &[u64; GROUP], values: &mut [u64; GROUP]) {
    each_place!(I => {
        let high = if I * W % 64 + W > 64 { words[I * W / 64 + 1] << (64 - I * W % 64) } else { 0 };
        values[I] = (words[I * W / 64] >> (I * W % 64) | high) & (u64::MAX >> (64 - W));
    });
}

/// Calls [`pack_group`] or [`unpack_group`] for the widths of real parameter sets, and returns
/// `false` from the caller for others.
macro_rules! by_width {
    ($function:ident, $width:expr, $from:expr, $to:expr, [$($w:literal)*]) => {
        match $width {
            $($w => $function::<$w>($from, $to),)*
            _ => return false,
        }
    };
}

/// Packs one group if its width is among those compiled; returns whether it did.
fn pack_known(width: u32, values: &[u64; GROUP], words: &mut [u64; GROUP]) -> bool {
    by_width!(pack_group, width, values, words, [33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50]);
    true
}

/// Unpacks one group if its width is among those compiled; returns whether it did.
fn unpack_known(width: u32, words: &[u64; GROUP], values: &mut [u64; GROUP]) -> bool {
    by_width!(unpack_group, width, words, values, [33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50]);
    true
}

/// Packs residues into exactly [`packed_len`] bytes.
///
/// # Panics
/// If `out` has another length (a programming error).
pub fn pack_residues(backend: Backend, p: &Modulus, values: &[u64], out: &mut [u8]) {
    assert_eq!(out.len(), packed_len(p, values.len()), "bytes of packed residues");
    pack(backend, p.bits(), values, out);
}

/// Packs values of `width` bits each, padded to whole bytes.
pub(crate) fn pack(backend: Backend, width: u32, values: &[u64], out: &mut [u8]) {
    let mut words = [0; GROUP];
    let done = backend.pack_bits(width, values, out);
    let mut at = done * width as usize / 8;
    let (groups, mut rest) = values[done..].as_chunks::<GROUP>();
    for (i, group) in groups.iter().enumerate() {
        if !pack_known(width, group, &mut words) {
            rest = &values[done + i * GROUP..];
            break;
        }
        let place = out[at..at + 8 * width as usize].as_chunks_mut::<8>().0;
        place.iter_mut().zip(&words).for_each(|(place, word)| *place = word.to_le_bytes());
        at += 8 * width as usize;
    }
    pack_few(width, rest, &mut out[at..]);
}

/// Packs any number of values of any width, in bits, below 64.
fn pack_few(width: u32, values: &[u64], out: &mut [u8]) {
    let (mut word, mut used, mut at) = (0u64, 0, 0);
    for &v in values {
        word |= v << used;
        used += width;
        if used >= 64 {
            if let Some(place) = out[at..].first_chunk_mut() {
                *place = word.to_le_bytes();
            }
            at += 8;
            used -= 64;
            // The part of `v` that did not fit; a shift by `width` gives 0, as `v < 2^width`.
            word = v >> (width - used);
        }
    }
    let rest = out.len() - at;
    out[at..].copy_from_slice(&word.to_le_bytes()[..rest]);
}

/// Returns the bytes that `count` packed residues modulo `p` take.
pub fn packed_len(p: &Modulus, count: usize) -> usize {
    bits_len(p.bits(), count)
}

/// Returns the bytes of a row of `count` residues modulo each of the given primes.
fn row_len(moduli: &[Modulus], count: usize) -> usize {
    moduli.iter().map(|m| packed_len(m, count)).sum()
}

/// Returns the bytes of rows of `count` residues each, a row modulo as many of the first primes as
/// `limbs` says.
pub fn rows_len(moduli: &[Modulus], limbs: &[usize], count: usize) -> usize {
    limbs.iter().map(|&limbs| row_len(&moduli[..limbs], count)).sum()
}

/// Returns the bytes that one packed ring element takes.
pub fn poly_len(ring: &Ring) -> usize {
    element_len(ring.degree(), ring.moduli().iter().map(Modulus::bits))
}

/// Returns the bytes that one packed element of a ring takes, from its degree and the sizes of its
/// primes in bits: for a ring that does not exist yet.
pub fn element_len(degree: usize, prime_bits: impl IntoIterator<Item = u32>) -> usize {
    prime_bits.into_iter().map(|bits| bits_len(bits, degree)).sum()
}

/// Returns the bytes of `count` packed numbers of `bits` bits.
fn bits_len(bits: u32, count: usize) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Takes values from the front of a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Makes a reader that starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Returns an error at the current position.
    pub fn malformed(&self, what: &'static str) -> RingError {
        RingError::Malformed { offset: self.offset, what }
    }

    /// Returns the number of bytes not yet taken.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// Takes the next `len` bytes.
    ///
    /// # Errors
    /// [`RingError::Malformed`] if fewer are left, as for all methods below that take bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], RingError> {
        if len > self.remaining() {
            return Err(self.malformed("the data ends too early"));
        }
        let out = &self.bytes[self.offset..self.offset + len];
        self.offset += len;
        Ok(out)
    }

    /// Takes `L` bytes.
    pub fn array<const L: usize>(&mut self) -> Result<[u8; L], RingError> {
        let mut out = [0; L];
        out.copy_from_slice(self.raw(L)?);
        Ok(out)
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, RingError> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes a number of four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, RingError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes a number of eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, RingError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a count in four bytes.
    ///
    /// # Errors
    /// [`RingError::Length`], which names it `what`, if it exceeds `max`.
    pub fn count(&mut self, max: usize, what: &'static str) -> Result<usize, RingError> {
        let n = self.u32()? as usize;
        if n > max { Err(RingError::Length { what, expected: max, got: n }) } else { Ok(n) }
    }

    /// Takes a number in groups of seven bits, as [`Writer::varint`] writes it; only the shortest
    /// form is accepted.
    pub fn varint(&mut self) -> Result<u64, RingError> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 || shift > 0 && byte == 0 {
                return Err(self.malformed("a number is too long"));
            }
            v |= group << shift;
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err(self.malformed("a number is too long"))
    }

    /// Takes `out.len()` packed residues modulo `p`; a value `>= p` or non-zero padding is refused.
    pub fn residues(&mut self, backend: Backend, p: &Modulus, out: &mut [u64]) -> Result<(), RingError> {
        let start = self.offset;
        let bytes = self.raw(packed_len(p, out.len()))?;
        let (width, mask) = (p.bits() as usize, (1u64 << p.bits()) - 1);
        // A residue of at most 50 bits lies within eight bytes from the byte that it starts in.
        let word = |at: usize| match bytes[at..].first_chunk() {
            Some(whole) => u64::from_le_bytes(*whole),
            None => {
                let mut word = [0; 8];
                word[..bytes.len() - at].copy_from_slice(&bytes[at..]);
                u64::from_le_bytes(word)
            }
        };
        let (checked, large) = backend.unpack_bits(p.bits(), p.value(), bytes, out);
        // Whole groups of the rest come first.
        let mut done = checked;
        let (groups, _) = out[done..].as_chunks_mut::<GROUP>();
        let mut words = [0; GROUP];
        for (group, bytes) in groups.iter_mut().zip(bytes[done * width / 8..].chunks_exact(8 * width)) {
            words.iter_mut().zip(bytes.as_chunks().0).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
            if !unpack_known(p.bits(), &words, group) {
                break;
            }
            done += GROUP;
        }
        for (i, o) in out.iter_mut().enumerate().skip(done) {
            let bit = i * width;
            *o = (word(bit / 8) >> (bit % 8)) & mask;
        }
        let used = out.len() * width;
        let padding = if used.is_multiple_of(8) { 0 } else { bytes[used / 8] >> (used % 8) };
        if large || !p.are_residues(&out[checked..]) {
            return Err(RingError::Malformed { offset: start, what: "a residue is not below its prime" });
        }
        if padding != 0 {
            return Err(RingError::Malformed { offset: start, what: "padding bits are not zero" });
        }
        Ok(())
    }

    /// Takes a ring element, limb by limb.
    pub fn poly(&mut self, ring: &Ring) -> Result<Poly<Ntt>, RingError> {
        if self.remaining() < poly_len(ring) {
            return Err(self.malformed("the data ends too early"));
        }
        let mut result = Ok(());
        let out = Poly::build(ring.limbs(), ring.degree(), |out| {
            for m in ring.moduli() {
                let start = out.len();
                // Zeroes that stay in the cache until they are overwritten.
                out.resize(start + ring.degree(), 0);
                if result.is_ok() {
                    result = self.residues(ring.backend(), m, &mut out[start..]);
                }
            }
        });
        result.map(|()| out)
    }

    /// Takes `count` ring elements and unpacks them in parallel.
    pub fn polys(&mut self, ring: &Ring, count: usize) -> Result<Vec<Poly<Ntt>>, RingError> {
        let (start, len) = (self.offset, poly_len(ring));
        let bytes = self.raw(len.saturating_mul(count))?;
        let one = |(i, bytes): (usize, &[u8])| {
            let shift = |e: RingError| e.moved(start + i * len);
            Reader::new(bytes).poly(ring).map_err(shift)
        };
        bytes.par_chunks_exact(len).enumerate().map(one).collect()
    }

    /// Takes rows of residues and unpacks them in parallel into `out`, row after row. A row has
    /// `count` residues modulo each of as many of the first primes of `ring` as its entry of
    /// `limbs` says.
    pub fn residue_rows(
        &mut self,
        ring: &Ring,
        limbs: &[usize],
        count: usize,
        mut out: &mut [u64],
    ) -> Result<(), RingError> {
        let mut rows = Vec::with_capacity(limbs.len());
        for &limbs in limbs {
            let (row, rest) = std::mem::take(&mut out).split_at_mut(limbs * count);
            rows.push((self.offset, self.raw(row_len(&ring.moduli()[..limbs], count))?, row));
            out = rest;
        }
        rows.into_par_iter().try_for_each(|(start, bytes, row)| {
            let mut r = Reader::new(bytes);
            let mut parts = ring.moduli().iter().zip(row.chunks_exact_mut(count));
            parts.try_for_each(|(m, out)| r.residues(ring.backend(), m, out)).map_err(|e| e.moved(start))
        })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`RingError::Malformed`] if bytes are left.
    pub fn finish(self) -> Result<(), RingError> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.malformed("unexpected bytes follow the end")) }
    }
}

#[cfg(test)]
mod tests;
