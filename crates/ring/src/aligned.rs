//! Words that start on a cache line: a vector of 64 bytes that straddles two lines costs two accesses.

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
    /// All zero.
    pub(crate) fn zero(len: usize) -> Self {
        let words = vec![0; len + LINE - 1];
        // `align_offset` may say "never" in theory; then alignment, which only speed depends on, is given up.
        let start = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        Self { words, start, len }
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
        let mut out = Self::zero(self.len);
        out.copy_from_slice(self);
        out
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
        let (start, len) = (self.start, self.len);
        self.words.zeroize();
        // `Vec::zeroize` empties the vector as well.
        self.words.resize(len + LINE - 1, 0);
        self.start = start;
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
            let b = a.clone();
            assert!(a == b && b.as_ptr().addr().is_multiple_of(64));
            a.zeroize();
            assert!(a.iter().all(|&v| v == 0) && a.len() == len);
        }
    }
}
