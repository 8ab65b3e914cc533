//! Values as bits: planes of 512 gates, and values packed sixteen side by side.
//!
//! Sixteen neighbouring values are a *row*. A *plane* holds one bit of 512 values: bit `i` of word
//! `l` belongs to value `16 i + l`. Both orders let a loop over sixteen words work on sixteen
//! values at once, without moving anything between words.

use zeroize::Zeroize;

use crate::backend::{Backend, wide};

/// One bit of each of [`GATES`] values: bit `i` of word `l` belongs to value `16 i + l`.
pub(crate) type Plane = [u32; LANES];
/// Values that a [`Plane`] has a bit of.
pub(crate) const GATES: usize = 512;
/// Words of a plane, and values of a row.
pub(crate) const LANES: usize = 16;
/// A plane of zeros.
pub(crate) const ZERO: Plane = [0; LANES];
/// A plane of ones.
pub(crate) const ONES: Plane = [!0; LANES];

/// The `bits` low bits, at most 32.
#[inline(always)]
pub(crate) const fn low_mask(bits: u32) -> u32 {
    if bits >= 32 { !0 } else { (1 << bits) - 1 }
}

/// Planes that hold a bit of each of `n` values.
pub(crate) fn blocks(n: usize) -> usize {
    n.div_ceil(GATES)
}

/// Bytes of `n` values of `bits` bits each, packed.
pub(crate) fn packed_bytes(n: usize, bits: u32) -> usize {
    let (full, rest) = (n / GATES, n % GATES);
    size_of::<Plane>() * (full * bits as usize + (rest.div_ceil(LANES) * bits as usize).div_ceil(32))
}

/// `a`, or `b` where a bit of `choice` is set.
#[inline(always)]
pub(crate) fn choose(choice: &Plane, a: &Plane, b: &Plane) -> Plane {
    let mut out = ZERO;
    for l in 0..LANES {
        out[l] = a[l] ^ (choice[l] & (a[l] ^ b[l]));
    }
    out
}

#[inline(always)]
pub(crate) fn xor(into: &mut Plane, other: &Plane) {
    for l in 0..LANES {
        into[l] ^= other[l];
    }
}

#[inline(always)]
pub(crate) fn and(into: &mut Plane, other: &Plane) {
    for l in 0..LANES {
        into[l] &= other[l];
    }
}

/// The bit of value `16 row + lane`.
#[inline(always)]
pub(crate) fn bit(plane: &Plane, row: usize, lane: usize) -> u32 {
    (plane[lane] >> row) & 1
}

/// The planes of at most 512 values, from the lowest bit up. Missing values count as 0.
///
/// Sixteen transpositions of 32 x 32 bits, side by side (Hacker's Delight, section 7-3).
#[inline(always)]
pub(crate) fn planes(values: &[u32]) -> [Plane; 32] {
    let mut a = [ZERO; 32];
    let rows = values.chunks_exact(LANES);
    let (count, rest) = (rows.len(), rows.remainder());
    for (plane, row) in a.iter_mut().zip(rows) {
        plane.copy_from_slice(row);
    }
    if count < 32 {
        a[count][..rest.len()].copy_from_slice(rest);
    }
    let (mut step, mut mask) = (16, 0xffff_u32);
    while step > 0 {
        for k in (0..32).filter(|k| k & step == 0) {
            for l in 0..LANES {
                let swap = ((a[k][l] >> step) ^ a[k + step][l]) & mask;
                a[k + step][l] ^= swap;
                a[k][l] ^= swap << step;
            }
        }
        step >>= 1;
        mask ^= mask << step;
    }
    a
}

wide! {
    /// Packs the `bits` low bits of values, sixteen side by side: row after row from bit 0 of a
    /// group of sixteen words up. Pad values are 0.
    fn pack_rows(values: &[u32], bits: u32, out: &mut [Plane]) {
        let mask = low_mask(bits);
        let mut at = 0;
        for block in values.chunks(GATES) {
            let (mut words, mut used) = (ZERO, 0);
            for row in block.chunks(LANES) {
                let mut lanes = ZERO;
                lanes[..row.len()].copy_from_slice(row);
                for l in 0..LANES {
                    lanes[l] &= mask;
                    words[l] |= lanes[l] << used;
                }
                used += bits;
                if used >= 32 {
                    out[at] = words;
                    at += 1;
                    used -= 32;
                    for l in 0..LANES {
                        // A shift by 32 - 0 leaves nothing, which a shift of 32 bits cannot say.
                        words[l] = if used == 0 { 0 } else { lanes[l] >> (bits - used) };
                    }
                }
            }
            if used > 0 {
                out[at] = words;
                at += 1;
            }
        }
    }

    fn unpack_rows(bytes: &[u8], bits: u32, out: &mut [u32]) {
        let mask = low_mask(bits);
        let mut planes = bytes.chunks_exact(size_of::<Plane>());
        for block in out.chunks_mut(GATES) {
            let (mut words, mut left) = (ZERO, 0);
            for row in block.chunks_mut(LANES) {
                let mut lanes = words;
                if left < bits {
                    words = planes.next().map_or(ZERO, bytemuck::pod_read_unaligned);
                    for l in 0..LANES {
                        lanes[l] = if left == 0 { words[l] } else { lanes[l] | (words[l] << left) };
                    }
                    let used = bits - left;
                    for l in 0..LANES {
                        words[l] = if used == 32 { 0 } else { words[l] >> used };
                    }
                    left = 32 - used;
                } else {
                    for l in 0..LANES {
                        words[l] >>= bits;
                    }
                    left -= bits;
                }
                for l in 0..LANES {
                    lanes[l] &= mask;
                }
                row.copy_from_slice(&lanes[..row.len()]);
            }
        }
    }
}

/// Values packed: see [`packed_bytes`] for the length. Higher bits of the values are left out.
pub(crate) fn pack(backend: Backend, values: &[u32], bits: u32, out: &mut Vec<u8>) {
    let mut words = vec![ZERO; packed_bytes(values.len(), bits) / size_of::<Plane>()];
    pack_rows(backend, values, bits, &mut words);
    out.extend_from_slice(bytemuck::cast_slice(&words));
}

/// The `n` values of packed bytes, or `None` unless the length fits and every pad bit is 0.
pub(crate) fn unpack(backend: Backend, bytes: &[u8], bits: u32, n: usize) -> Option<Vec<u32>> {
    if bytes.len() != packed_bytes(n, bits) || !tail_is_zero(bytes, bits, n) {
        return None;
    }
    let mut out = vec![0; n];
    unpack_rows(backend, bytes, bits, &mut out);
    Some(out)
}

/// Whether the bits behind the last value are 0: the lanes that the last row lacks, and the bits
/// above the last row.
fn tail_is_zero(bytes: &[u8], bits: u32, n: usize) -> bool {
    let rest = n % GATES;
    if rest == 0 {
        return true;
    }
    let (rows, bits) = (rest.div_ceil(LANES), bits as usize);
    let tail = &bytes[packed_bytes(n - rest, bits as u32)..];
    let word =
        |plane: usize, lane: usize| -> u32 { bytemuck::pod_read_unaligned(&tail[(plane * LANES + lane) * 4..][..4]) };
    let lane_is_zero = |lane: usize| {
        let held = if lane < rest - (rows - 1) * LANES { rows } else { rows - 1 } * bits;
        (0..(rows * bits).div_ceil(32)).all(|plane| {
            let below = held.saturating_sub(32 * plane).min(32) as u32;
            word(plane, lane) & !low_mask(below) == 0
        })
    };
    (0..LANES).all(lane_is_zero)
}

/// Overwrites numbers with zeros, eight bytes at a time, in a way that is not optimised away.
pub(crate) fn wipe<T: bytemuck::Pod>(values: &mut [T]) {
    let (head, words, tail) = bytemuck::pod_align_to_mut::<T, u64>(values);
    words.zeroize();
    for rest in [head, tail] {
        bytemuck::cast_slice_mut::<T, u8>(rest).zeroize();
    }
}

/// Planes that stand in bytes, 64 bytes each; what is left over is not read.
pub(crate) fn planes_of(bytes: &[u8]) -> Vec<Plane> {
    bytes.chunks_exact(size_of::<Plane>()).map(bytemuck::pod_read_unaligned).collect()
}

/// Planes as bytes.
pub(crate) fn plane_bytes(planes: &[Plane]) -> &[u8] {
    bytemuck::cast_slice(planes)
}

/// The bits of planes in which a gate of `n` gates stands; the others are pads.
pub(crate) fn gate_mask(block: usize, n: usize) -> Plane {
    let held = (n - block * GATES).min(GATES);
    std::array::from_fn(|lane| low_mask((held.saturating_sub(lane)).div_ceil(LANES) as u32))
}

#[cfg(target_endian = "big")]
compile_error!("messages and tickets are little-endian words, which this crate reads as they stand");

#[cfg(test)]
mod tests {
    use super::*;

    fn made_up(n: usize) -> Vec<u32> {
        (0..n as u32).map(|i| i.wrapping_mul(0x9e37_79b9).rotate_left(i % 31) ^ i).collect()
    }

    #[test]
    fn packed_values_come_back() {
        for backend in Backend::all() {
            for n in [1, 15, 16, 17, 511, 512, 513, 1000] {
                for bits in 1..=32 {
                    let values: Vec<u32> = made_up(n).iter().map(|v| v & low_mask(bits)).collect();
                    let mut bytes = vec![];
                    pack(backend, &values, bits, &mut bytes);
                    assert_eq!(unpack(backend, &bytes, bits, n).as_ref(), Some(&values), "{n} of {bits} bits");
                    assert!(unpack(backend, &bytes[1..], bits, n).is_none());
                }
            }
        }
    }

    #[test]
    fn a_pad_bit_is_refused() {
        let backend = Backend::best();
        for (n, bits) in [(1, 5), (17, 20), (500, 31), (530, 7)] {
            let mut bytes = vec![];
            pack(backend, &vec![!0; n], bits, &mut bytes);
            let mut pads = 0;
            for place in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                if bad[place / 8] >> (place % 8) & 1 == 0 {
                    bad[place / 8] |= 1 << (place % 8);
                    assert!(unpack(backend, &bad, bits, n).is_none(), "bit {place} of {n} values of {bits} bits");
                    pads += 1;
                }
            }
            assert_eq!(pads, bytes.len() * 8 - n * bits as usize);
        }
    }

    #[test]
    fn planes_hold_the_bits_of_values() {
        let values = made_up(500);
        let planes = planes(&values);
        for (i, value) in values.iter().enumerate() {
            for (b, plane) in planes.iter().enumerate() {
                assert_eq!(bit(plane, i / LANES, i % LANES), value >> b & 1);
            }
        }
        assert_eq!(gate_mask(0, 500).iter().map(|w| w.count_ones()).sum::<u32>(), 500);
    }
}
