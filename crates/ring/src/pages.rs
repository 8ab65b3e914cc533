//! Memory for what is read from end to end, in pages as large as the system gives. With pages of 4
//! KiB a processor spends more time on finding out where they lie than on reading them, above all
//! in a virtual machine.

use std::ops::{Deref, DerefMut};

#[cfg(not(target_family = "wasm"))]
use memmap2::MmapMut as Memory;
use zeroize::Zeroize;

/// Bytes of a large page, which begins at a multiple of its size.
const LARGE: usize = 2 << 20;

/// Where nothing can be mapped, memory is the allocator's.
#[cfg(target_family = "wasm")]
struct Memory(Vec<u64>);

#[cfg(target_family = "wasm")]
impl Memory {
    fn map_anon(len: usize) -> Result<Self, std::collections::TryReserveError> {
        let mut words = vec![];
        words.try_reserve_exact(len.div_ceil(8))?;
        words.resize(len.div_ceil(8), 0);
        Ok(Self(words))
    }
}

#[cfg(target_family = "wasm")]
impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[cfg(target_family = "wasm")]
impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// A fixed number of bytes, zero at first. Two MiB or more lie in large pages where the system has
/// some to give.
pub(crate) struct Pages {
    map: Memory,
    start: usize,
    len: usize,
}

impl Pages {
    /// Returns `len` zero bytes, or `None` if the memory cannot be had.
    pub(crate) fn zero(len: usize) -> Option<Self> {
        // Where a mapping begins is the system's choice. What lies before the first large page is
        // never touched and so takes no memory.
        let spare = if len < LARGE { 0 } else { LARGE };
        let map = Memory::map_anon(len.checked_add(spare)?).ok()?;
        let start = if len < LARGE { 0 } else { map.as_ptr().align_offset(LARGE).min(spare) };
        // Only speed depends on it.
        #[cfg(target_os = "linux")]
        if len >= LARGE {
            let _ = map.advise_range(memmap2::Advice::HugePage, start, len);
        }
        Some(Self { map, start, len })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }
}

impl Zeroize for Pages {
    fn zeroize(&mut self) {
        self.deref_mut().fill(0);
        zeroize::optimization_barrier(&**self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_and_large_ones_begin_where_they_can() {
        for len in [0, 1, 4096, LARGE - 1, LARGE, 2 * LARGE + 77] {
            let mut pages = Pages::zero(len).unwrap();
            assert_eq!(pages.len(), len);
            assert!(pages.iter().all(|&b| b == 0));
            assert!(len < LARGE || (pages.as_ptr() as usize).is_multiple_of(LARGE), "{len}");
            pages.fill(7);
            pages.zeroize();
            assert!(pages.iter().all(|&b| b == 0));
        }
        assert!(Pages::zero(usize::MAX).is_none());
        assert!(Pages::zero(usize::MAX / 2).is_none());
    }
}
