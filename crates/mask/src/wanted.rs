//! Which coefficients of a row's product carry results.

use jali_ring::wire::{Reader, Writer};
use jali_ring::{Pruning, RingError};

use crate::MaskError;

/// A nested, strided set of coefficient indices, the same for every row of a layer:
/// `start + i*s0 + j*s1 + k*s2` for `i < n0, j < n1, k < n2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    degree: usize,
    start: usize,
    dims: [(usize, usize); 3],
    indices: Vec<u32>,
    pruning: Pruning,
}

/// A pattern that was read and not yet expanded: a few numbers, within the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedDims {
    degree: usize,
    start: usize,
    dims: [(usize, usize); 3],
    count: usize,
}

impl WantedDims {
    /// Checks the pattern; `dims` are (count, stride), outermost first.
    ///
    /// # Errors
    /// [`MaskError::Shape`] if it is empty or leaves `0..degree`.
    pub fn new(degree: usize, start: usize, dims: [(usize, usize); 3]) -> Result<Self, MaskError> {
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.0));
        let last = dims.iter().try_fold(start, |at, &(count, stride)| {
            count.saturating_sub(1).checked_mul(stride).and_then(|span| at.checked_add(span))
        });
        let (Some(count), Some(last)) = (count, last) else {
            return Err(MaskError::Shape { what: "wanted coefficients", expected: degree, got: usize::MAX });
        };
        if count == 0 || count > degree || last >= degree {
            return Err(MaskError::Shape { what: "wanted coefficients", expected: degree, got: count.max(last) });
        }
        Ok(Self { degree, start, dims, count })
    }

    /// Reads and checks a pattern (28 bytes).
    ///
    /// # Errors
    /// As [`WantedDims::new`], or [`RingError::Malformed`] if the bytes end.
    pub fn decode(r: &mut Reader<'_>, degree: usize) -> Result<Self, MaskError> {
        let mut next = || -> Result<usize, RingError> { Ok(r.u32()? as usize) };
        let start = next()?;
        let dims = [(next()?, next()?), (next()?, next()?), (next()?, next()?)];
        Self::new(degree, start, dims)
    }

    /// How many coefficients it names.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes that [`WantedDims::expand`] takes at most: four for an index, one to look for doubles, and the runs of a pruned
    /// transform.
    pub fn memory(&self) -> usize {
        4 * self.count + 2 * self.degree
    }

    /// The indices, one by one.
    ///
    /// # Errors
    /// [`MaskError::Shape`] if the pattern names an index twice.
    pub fn expand(self) -> Result<Wanted, MaskError> {
        let Self { degree, start, dims, count } = self;
        let mut indices = Vec::with_capacity(count);
        for i in 0..dims[0].0 {
            for j in 0..dims[1].0 {
                for k in 0..dims[2].0 {
                    indices.push((start + i * dims[0].1 + j * dims[1].1 + k * dims[2].1) as u32);
                }
            }
        }
        let mut seen = vec![false; degree];
        for &i in &indices {
            if std::mem::replace(&mut seen[i as usize], true) {
                return Err(MaskError::Shape { what: "distinct wanted coefficients", expected: count, got: count - 1 });
            }
        }
        Ok(Wanted { degree, start, dims, pruning: Pruning::new(degree, &indices), indices })
    }
}

impl Wanted {
    /// Checks and expands the pattern; `dims` are (count, stride), outermost first.
    ///
    /// # Errors
    /// [`MaskError::Shape`] if it is empty, leaves `0..degree`, or names an index twice.
    pub fn new(degree: usize, start: usize, dims: [(usize, usize); 3]) -> Result<Self, MaskError> {
        WantedDims::new(degree, start, dims)?.expand()
    }

    /// The ring's degree.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The indices in order.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// What a transform back may leave out.
    pub fn pruning(&self) -> &Pruning {
        &self.pruning
    }

    /// The wanted ones of all coefficients, in order.
    pub fn pick(&self, all: &[u64], out: &mut [u64]) {
        match self.dims[2] {
            // Neighbours are copied together.
            (run, 1) if run > 1 => {
                for (out, &first) in out.chunks_exact_mut(run).zip(self.indices.iter().step_by(run)) {
                    out.copy_from_slice(&all[first as usize..][..run]);
                }
            }
            _ => out.iter_mut().zip(&self.indices).for_each(|(o, &k)| *o = all[k as usize]),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.indices.len()
    }

    /// Writes the pattern (28 bytes).
    pub fn encode(&self, w: &mut Writer) {
        w.u32(self.start as u32);
        for (count, stride) in self.dims {
            w.u32(count as u32);
            w.u32(stride as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_inside_the_ring_and_name_nothing_twice() {
        let w = Wanted::new(1024, 5, [(2, 100), (2, 10), (3, 1)]).unwrap();
        assert_eq!(w.indices(), [5, 6, 7, 15, 16, 17, 105, 106, 107, 115, 116, 117]);
        let all: Vec<u64> = (0..1024).collect();
        for w in [w, Wanted::new(1024, 5, [(2, 100), (2, 10), (3, 2)]).unwrap()] {
            let mut picked = vec![0; 12];
            w.pick(&all, &mut picked);
            assert!(picked.iter().zip(w.indices()).all(|(&p, &i)| p == u64::from(i)));
        }
        for (start, dims) in [
            (0, [(0, 1), (1, 1), (1, 1)]),
            (1023, [(1, 1), (1, 1), (2, 1)]),
            (0, [(2, 0), (1, 1), (1, 1)]),
            (0, [(1, 1), (2, 2), (3, 1)]),
            (0, [(usize::MAX, 2), (usize::MAX, 2), (2, 1)]),
            (usize::MAX, [(1, 1), (1, 1), (2, 1)]),
        ] {
            assert!(Wanted::new(1024, start, dims).is_err(), "{start} {dims:?}");
        }
    }
}
