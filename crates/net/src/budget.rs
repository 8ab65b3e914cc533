//! Memory that all requests together may take. A request that does not fit is refused at once, so
//! the server does not grow, whatever arrives.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one unit.
const UNIT: usize = 4096;

/// A number of bytes to be shared, counted in units of 4096.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share(OwnedSemaphorePermit);

impl Budget {
    /// Makes a budget of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).clamp(1, u32::MAX as usize))))
    }

    /// Takes `bytes` bytes of the budget, or returns `None` if they are not free now.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        self.0.clone().try_acquire_many_owned(units).ok().map(Share)
    }

    /// Returns the bytes that are free now.
    pub fn free(&self) -> usize {
        self.0.available_permits() * UNIT
    }
}

impl Share {
    /// Adds another share to this one.
    pub fn join(&mut self, other: Self) {
        self.0.merge(other.0);
    }

    /// Gives back all but `bytes` bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let keep = bytes.div_ceil(UNIT);
        drop(self.0.split(self.0.num_permits().saturating_sub(keep)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let budget = Budget::new(10 * UNIT);
        let mut a = budget.take(4 * UNIT + 1).unwrap();
        assert!(budget.take(6 * UNIT).is_none());
        a.join(budget.take(5 * UNIT).unwrap());
        assert_eq!(budget.free(), 0);
        a.shrink(UNIT);
        assert_eq!(budget.free(), 9 * UNIT);
        drop(a);
        assert_eq!(budget.free(), 10 * UNIT);
        assert!(budget.take(usize::MAX).is_none());
    }
}
