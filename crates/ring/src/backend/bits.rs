//! Packed residues of any number of bits, eight at a time by VBMI's permutations: where they lie,
//! and how they are packed and unpacked.
#![allow(unsafe_code)]

// SAFETY, for every block of this file: instructions and memory as in `x86.rs`, (1) and (2) there.

use std::arch::x86_64::*;

/// Most bits of a residue that [`Places`] describe: shifted by up to 7 bits it still fits a lane,
/// and eight lie within 64 bytes.
pub(super) const MAX_PACKED_BITS: usize = 56;

/// Where eight packed residues of some number of bits lie.
pub(super) struct Places {
    /// For every byte of the lanes, the packed byte that may belong there.
    pub(super) spread: [u8; 64],
    /// The bit of its first byte at which every lane begins.
    pub(super) shifts: [u64; 8],
    /// For every packed byte, the byte of the shifted lanes that it comes from: once among the even
    /// lanes and once among the odd ones, as only neighbours may share a byte.
    select: [[u8; 64]; 2],
    /// The packed bytes that the even lanes, and the odd ones, have a part in.
    masks: [u64; 2],
}

impl Places {
    const fn new(bits: usize) -> Self {
        let mut places = Self { spread: [0; 64], shifts: [0; 8], select: [[0; 64]; 2], masks: [0; 2] };
        let mut lane = 0;
        while lane < 8 {
            let (start, shift) = (lane * bits / 8, lane * bits % 8);
            places.shifts[lane] = shift as u64;
            let mut byte = 0;
            while byte < 8 {
                places.spread[8 * lane + byte] = (start + byte) as u8;
                if 8 * byte < shift + bits {
                    places.select[lane % 2][start + byte] = (8 * lane + byte) as u8;
                    places.masks[lane % 2] |= 1 << (start + byte);
                }
                byte += 1;
            }
            lane += 1;
        }
        places
    }
}

/// The places for every number of bits, empty below 8.
pub(super) static PLACES: [Places; MAX_PACKED_BITS + 1] = {
    let mut all = [const { Places::new(0) }; MAX_PACKED_BITS + 1];
    let mut bits = 8;
    while bits <= MAX_PACKED_BITS {
        all[bits] = Places::new(bits);
        bits += 1;
    }
    all
};

/// Unpacks residues of `bits` bits, eight at a time, as far as whole eights go. Returns how many
/// these are, and whether one of them is not below `p`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn unpack_bits(bits: u32, p: u64, bytes: &[u8], out: &mut [u64]) -> (usize, bool) {
    let width = bits as usize;
    let Some(places) = PLACES.get(width).filter(|_| width >= 8) else { return (0, false) };
    let (mut done, mut large) = (0, 0);
    for (out, group) in out.as_chunks_mut::<8>().0.iter_mut().zip(bytes.chunks(width)) {
        let start = done / 8 * width;
        let mut rest = [0; 64];
        let group: &[u8; 64] = match bytes[start..].first_chunk() {
            Some(whole) => whole,
            None if group.len() == width => {
                rest[..width].copy_from_slice(group);
                &rest
            }
            None => break,
        };
        // SAFETY: (2); the instructions are those that this function is compiled for, which is
        // unsafe to call without them.
        unsafe {
            let spread = _mm512_loadu_si512(places.spread.as_ptr().cast());
            let shifts = _mm512_loadu_si512(places.shifts.as_ptr().cast());
            let spread = _mm512_permutexvar_epi8(spread, _mm512_loadu_si512(group.as_ptr().cast()));
            let mask = _mm512_set1_epi64(((1u64 << bits) - 1) as i64);
            let values = _mm512_and_si512(_mm512_srlv_epi64(spread, shifts), mask);
            large |= _mm512_cmpge_epu64_mask(values, _mm512_set1_epi64(p as i64));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
        }
        done += 8;
    }
    (done, large != 0)
}

/// Packs residues of `bits` bits, eight at a time, as far as whole eights go, and returns how many
/// these are. The rest of `out` may become anything.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn pack_bits(bits: u32, values: &[u64], out: &mut [u8]) -> usize {
    let width = bits as usize;
    let Some(places) = PLACES.get(width).filter(|_| width >= 8) else { return 0 };
    let mut done = 0;
    for values in values.as_chunks::<8>().0 {
        let Some(out) = out.get_mut(done / 8 * width..) else { break };
        if out.len() < width {
            break;
        }
        // SAFETY: (2) for what is loaded; the instructions as in `unpack_bits`.
        let packed = unsafe {
            let shifts = _mm512_loadu_si512(places.shifts.as_ptr().cast());
            let shifted = _mm512_sllv_epi64(_mm512_loadu_si512(values.as_ptr().cast()), shifts);
            let [even, odd] = [&places.select[0], &places.select[1]].map(|s| _mm512_loadu_si512(s.as_ptr().cast()));
            let even = _mm512_maskz_permutexvar_epi8(places.masks[0], even, shifted);
            _mm512_or_si512(even, _mm512_maskz_permutexvar_epi8(places.masks[1], odd, shifted))
        };
        match out.first_chunk_mut::<64>() {
            // SAFETY: (2). The bytes beyond the group are written again, by the next group or by
            // whoever packs the rest.
            Some(whole) => unsafe { _mm512_storeu_si512(whole.as_mut_ptr().cast(), packed) },
            None => {
                let mut bytes = [0u8; 64];
                // SAFETY: (2).
                unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), packed) };
                out[..width].copy_from_slice(&bytes[..width]);
            }
        }
        done += 8;
    }
    done
}
