//! Cells on several threads, each with its share of the cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::AuditError;

/// Runs `work` on all items with `jobs` of them at a time, each with its share of `threads`. Ends
/// early at the first error; what is under way is finished first.
///
/// # Errors
/// The first error of `work`; [`AuditError::Usage`] if threads cannot be started.
pub fn each<T: Sync>(
    items: &[T],
    jobs: usize,
    threads: usize,
    work: impl Fn(&T) -> Result<(), AuditError> + Sync,
) -> Result<(), AuditError> {
    let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let fail = |e: AuditError| {
        stop.store(true, Ordering::Relaxed);
        if let Ok(mut first) = failed.lock() {
            first.get_or_insert(e);
        }
    };
    let jobs = jobs.clamp(1, items.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let share = (threads / jobs).max(1);
                let pool = match rayon::ThreadPoolBuilder::new().num_threads(share).build() {
                    Ok(pool) => pool,
                    Err(e) => return fail(AuditError::Usage { what: format!("cannot start the threads: {e}") }),
                };
                // Inside the pool, so that the tensors' own parallelism stays within this share.
                pool.install(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        if let Err(e) = work(item) {
                            fail(e);
                        }
                    }
                });
            });
        }
    });
    failed.into_inner().ok().flatten().map_or(Ok(()), Err)
}
