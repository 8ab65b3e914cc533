//! Large products that several sessions ask for at the same time.
//!
//! A fully connected layer reads each of its weights once for a product, so that a large one takes
//! as long as memory takes to bring them. Whoever asks for a product while others are computed
//! waits for the end of that pass over the weights, and helps with it; the next pass then computes
//! the products of all who wait. Nobody waits for others to come.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

/// Rows of which a thread computes the products at a time.
const ROWS: usize = 64;

/// Where sessions meet.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is computed now.
    pass: Option<Arc<Pass>>,
    /// Who takes part in the next pass.
    waiting: Vec<Arc<Job>>,
}

/// A pass over the weights.
#[derive(Debug)]
struct Pass {
    jobs: Vec<Arc<Job>>,
    rows: usize,
    /// The first row that nobody has begun.
    next: AtomicUsize,
    /// Rows that are done.
    done: AtomicUsize,
}

/// A product that a session asks for.
#[derive(Debug)]
struct Job {
    inputs: Vec<u32>,
    outputs: Mutex<Outputs>,
}

#[derive(Debug)]
struct Outputs {
    values: Vec<u32>,
    is_done: bool,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.inputs.zeroize();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gathering {
    /// The product of all rows with these inputs. `compute` makes the products of some rows with
    /// several inputs, those of one input after those of another.
    pub(crate) fn product(
        &self,
        inputs: &[u32],
        rows: usize,
        compute: impl Fn(Range<usize>, &[&[u32]]) -> Vec<Vec<u32>>,
    ) -> Vec<u32> {
        let outputs = Mutex::new(Outputs { values: vec![0; rows], is_done: rows == 0 });
        let own = Arc::new(Job { inputs: inputs.to_vec(), outputs });
        let mut state = lock(&self.state);
        state.waiting.push(own.clone());
        loop {
            let mut outputs = lock(&own.outputs);
            if outputs.is_done {
                return std::mem::take(&mut outputs.values);
            }
            drop(outputs);
            let pass = state.pass.clone().unwrap_or_else(|| {
                let jobs = std::mem::take(&mut state.waiting);
                Arc::new(Pass { jobs, rows, next: 0.into(), done: 0.into() })
            });
            state.pass = Some(pass.clone());
            drop(state);
            let ended = pass.help(&compute);
            state = lock(&self.state);
            if ended {
                pass.jobs.iter().for_each(|job| lock(&job.outputs).is_done = true);
                state.pass = None;
                self.changed.notify_all();
            } else if state.pass.as_ref().is_some_and(|now| Arc::ptr_eq(now, &pass)) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Pass {
    /// Computes rows until none is left; returns whether this was the end of the pass.
    fn help(&self, compute: impl Fn(Range<usize>, &[&[u32]]) -> Vec<Vec<u32>>) -> bool {
        let inputs: Vec<&[u32]> = self.jobs.iter().map(|job| job.inputs.as_slice()).collect();
        loop {
            let first = self.next.fetch_add(ROWS, Ordering::Relaxed);
            if first >= self.rows {
                return false;
            }
            let rows = first..self.rows.min(first + ROWS);
            for (job, products) in self.jobs.iter().zip(compute(rows.clone(), &inputs)) {
                lock(&job.outputs).values[rows.clone()].copy_from_slice(&products);
            }
            // Whoever is last sees what the others have written: each held the outputs' locks.
            if self.done.fetch_add(rows.len(), Ordering::AcqRel) + rows.len() == self.rows {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Everybody gets the product of its own inputs, in fewer passes than products.
    #[test]
    fn who_waits_is_served_together() {
        let (gathering, computed) = (Gathering::default(), AtomicUsize::new(0));
        let rows = 2 * ROWS + 3;
        let compute = |rows: Range<usize>, all: &[&[u32]]| {
            computed.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            all.iter().map(|x| rows.clone().map(|row| x[0] + 1000 * row as u32).collect()).collect()
        };
        std::thread::scope(|scope| {
            for i in 0..16 {
                let (gathering, compute) = (&gathering, &compute);
                scope.spawn(move || {
                    for round in 0..3 {
                        let got = gathering.product(&[16 * round + i], rows, compute);
                        let want: Vec<u32> = (0..rows as u32).map(|row| 16 * round + i + 1000 * row).collect();
                        assert_eq!(got, want);
                    }
                });
            }
        });
        assert!(computed.load(Ordering::Relaxed) < 3 * 16 * 3, "no two shared a pass");
    }
}
