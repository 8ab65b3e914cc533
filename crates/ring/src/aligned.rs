//! Words that start on a cache line: a vector of 64 bytes that straddles two lines costs two
//! accesses.

use zeroize::Zeroize;

/// Words per cache line.
const LINE: usize = 8;

/// A fixed number of words, the first at a multiple of 64 bytes.
#[derive(Default)]
pub(crate) struct AlignedWords {
    words: Vec<u64>,
    start: usize,
    len: usize,
}

impl AlignedWords {
    /// Returns `len` words, all zero.
    pub(crate) fn zero(len: usize) -> Self {
        let words = vec![0; len + LINE - 1];
        // `align_offset` may say "never" in theory; then alignment, which only speed depends on, is
        // given up.
        let start = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        Self { words, start, len }
    }

    /// Returns `len` words that `fill` appends, so that nothing is written twice. Missing words are
    /// zero, surplus ones are cut off.
    pub(crate) fn build(len: usize, fill: impl FnOnce(&mut Vec<u64>)) -> Self {
        let mut words: Vec<u64> = Vec::with_capacity(len + LINE - 1);
        let start = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        words.resize(start, 0);
        fill(&mut words);
        // A vector that grew may have moved; then only alignment is lost.
        words.resize(start + len, 0);
        Self { words, start, len }
    }

    /// Returns the number of words that memory is held for.
    pub(crate) fn capacity(&self) -> usize {
        self.words.len()
    }

    /// Changes the length to `len` words, whose content may be anything. If the memory is large
    /// enough, it is used again; if not, it is wiped and replaced.
    pub(crate) fn resize(&mut self, len: usize) {
        match self.start + len <= self.words.len() {
            true => self.len = len,
            false => {
                self.zeroize();
                *self = Self::zero(len);
            }
        }
    }
}

impl std::ops::Deref for AlignedWords {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.words[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedWords {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.words[self.start..self.start + self.len]
    }
}

impl Clone for AlignedWords {
    fn clone(&self) -> Self {
        Self::build(self.len, |words| words.extend_from_slice(self))
    }
}

impl PartialEq for AlignedWords {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for AlignedWords {}

impl Zeroize for AlignedWords {
    fn zeroize(&mut self) {
        // The slice, not the vector, which would be emptied; all at once, not word by word.
        self.words.fill(0);
        zeroize::optimization_barrier(&self.words[..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_start_on_a_line_and_survive_wiping() {
        for len in [0, 1, 7, 8, 4096] {
            let mut a = AlignedWords::zero(len);
            assert!(a.as_ptr().addr().is_multiple_of(64) && a.len() == len);
            a.fill(7);
            let built = AlignedWords::build(len, |v| v.extend(std::iter::repeat_n(7, len)));
            assert!(built == a && built.as_ptr().addr().is_multiple_of(64));
            assert!(AlignedWords::build(len, |v| v.push(7)).len() == len);
            let b = a.clone();
            assert!(a == b && b.as_ptr().addr().is_multiple_of(64));
            a.zeroize();
            assert!(a.iter().all(|&v| v == 0) && a.len() == len);
        }
    }
}
