//! Which coefficients of a row product are outputs: a pattern of few numbers, and its indices.

use crate::RingError;
use crate::backend::WantedRuns;
use crate::wire::{Reader, Writer};

/// A number of indices at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// How many.
    pub count: usize,
    /// Distance of neighbours.
    pub stride: usize,
}

/// A nested, strided set of coefficient indices: `start + i*s0 + j*s1 + k*s2` for `i < n0, j < n1,
/// k < n2`, the same for every row of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPattern {
    /// Smallest index.
    pub start: usize,
    /// Counts `n` and strides `s`, outermost first.
    pub steps: [Steps; 3],
}

impl WantedPattern {
    /// Reads and checks a pattern (28 bytes) for elements of `degree` coefficients.
    ///
    /// # Errors
    /// [`RingError::Malformed`] if the bytes end; as [`WantedPattern::check`].
    pub fn decode(r: &mut Reader<'_>, degree: usize) -> Result<Self, RingError> {
        let mut next = || -> Result<usize, RingError> { Ok(r.u32()? as usize) };
        let start = next()?;
        let mut steps = [Steps { count: 0, stride: 0 }; 3];
        for steps in &mut steps {
            *steps = Steps { count: next()?, stride: next()? };
        }
        let pattern = Self { start, steps };
        pattern.check(degree)?;
        Ok(pattern)
    }

    /// Writes the pattern (28 bytes).
    pub fn encode(&self, w: &mut Writer) {
        w.u32(self.start as u32);
        for Steps { count, stride } in self.steps {
            w.u32(count as u32);
            w.u32(stride as u32);
        }
    }

    /// Returns the number of coefficients that the pattern names, or `usize::MAX` if that does not
    /// fit.
    pub fn count(&self) -> usize {
        self.steps.iter().fold(1, |n, steps| n.saturating_mul(steps.count))
    }

    /// Returns the bytes that [`WantedPattern::expand`] takes at most: four for each index, one for
    /// each coefficient to look for doubles, and the runs of a transform.
    pub fn memory(&self, degree: usize) -> usize {
        self.count().saturating_mul(4).saturating_add(2 * degree)
    }

    /// Checks that the pattern is not empty and stays within `degree` coefficients.
    ///
    /// # Errors
    /// [`RingError::Length`] if it does not.
    pub fn check(&self, degree: usize) -> Result<(), RingError> {
        let last = self.steps.iter().fold(self.start, |at, steps| {
            at.saturating_add(steps.count.saturating_sub(1).saturating_mul(steps.stride))
        });
        let count = self.count();
        if count == 0 || count > degree || last >= degree {
            let got = if count == 0 { 0 } else { count.max(last) };
            return Err(RingError::Length { what: "wanted coefficients", expected: degree, got });
        }
        Ok(())
    }

    /// Lists the indices one by one, for elements of `degree` coefficients.
    ///
    /// # Errors
    /// [`RingError::Length`] if the pattern is empty, leaves the element, or names an index twice.
    pub fn expand(self, degree: usize) -> Result<Wanted, RingError> {
        self.check(degree)?;
        let [outer, middle, inner] = self.steps;
        let mut indices = Vec::with_capacity(self.count());
        for i in 0..outer.count {
            for j in 0..middle.count {
                let first = self.start + i * outer.stride + j * middle.stride;
                indices.extend((0..inner.count).map(|k| (first + k * inner.stride) as u32));
            }
        }
        let mut seen = vec![false; degree];
        for &i in &indices {
            if std::mem::replace(&mut seen[i as usize], true) {
                let (what, expected) = ("distinct wanted coefficients", indices.len());
                return Err(RingError::Length { what, expected, got: expected - 1 });
            }
        }
        Ok(Wanted { degree, pattern: self, runs: WantedRuns::new(degree, &indices), indices })
    }
}

/// The wanted coefficients of an element, index by index, and what a transform back may leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    degree: usize,
    pattern: WantedPattern,
    indices: Vec<u32>,
    runs: WantedRuns,
}

impl Wanted {
    /// Makes a set of any indices, which need not form a pattern.
    #[cfg(test)]
    pub(crate) fn of_indices(degree: usize, indices: &[u32]) -> Self {
        let pattern = WantedPattern { start: 0, steps: [Steps { count: 0, stride: 0 }; 3] };
        Self { degree, pattern, runs: WantedRuns::new(degree, indices), indices: indices.to_vec() }
    }

    /// Returns the ring degree.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Returns the pattern of the indices.
    pub fn pattern(&self) -> &WantedPattern {
        &self.pattern
    }

    /// Returns the indices in the pattern's order.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Returns what the last pass of a transform back has to compute.
    pub(crate) fn runs(&self) -> &WantedRuns {
        &self.runs
    }

    /// Copies the wanted coefficients out of `all`, in order.
    pub fn pick(&self, all: &[u64], out: &mut [u64]) {
        match self.pattern.steps[2] {
            // Neighbours are copied together.
            Steps { count: run, stride: 1 } if run > 1 => {
                for (out, &first) in out.chunks_exact_mut(run).zip(self.indices.iter().step_by(run)) {
                    out.copy_from_slice(&all[first as usize..][..run]);
                }
            }
            _ => out.iter_mut().zip(&self.indices).for_each(|(o, &k)| *o = all[k as usize]),
        }
    }

    /// Returns the number of wanted coefficients.
    pub fn count(&self) -> usize {
        self.indices.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(start: usize, steps: [(usize, usize); 3]) -> WantedPattern {
        WantedPattern { start, steps: steps.map(|(count, stride)| Steps { count, stride }) }
    }

    #[test]
    fn patterns_stay_inside_the_ring_and_name_nothing_twice() {
        let w = pattern(5, [(2, 100), (2, 10), (3, 1)]).expand(1024).unwrap();
        assert_eq!(w.indices(), [5, 6, 7, 15, 16, 17, 105, 106, 107, 115, 116, 117]);
        let all: Vec<u64> = (0..1024).collect();
        for w in [w, pattern(5, [(2, 100), (2, 10), (3, 2)]).expand(1024).unwrap()] {
            let mut picked = vec![0; 12];
            w.pick(&all, &mut picked);
            assert!(picked.iter().zip(w.indices()).all(|(&p, &i)| p == u64::from(i)));
        }
        for (start, steps) in [
            (0, [(0, 1), (1, 1), (1, 1)]),
            (1023, [(1, 1), (1, 1), (2, 1)]),
            (0, [(2, 0), (1, 1), (1, 1)]),
            (0, [(1, 1), (2, 2), (3, 1)]),
            (0, [(usize::MAX, 2), (usize::MAX, 2), (2, 1)]),
            (usize::MAX, [(1, 1), (1, 1), (2, 1)]),
        ] {
            assert!(pattern(start, steps).expand(1024).is_err(), "{start} {steps:?}");
        }
    }
}
