//! Keeps the pool's threads awake during one side's part of an operator, or during a whole
//! inference.
//!
//! Such a part is a dozen short parallel steps with short serial ones between them. A thread that
//! falls asleep in between has to be woken through the system's kernel, which takes longer than
//! some of the steps. Entering the pool from outside costs such a wake-up for every step. On two
//! virtual cores this took a tenth of an inference and more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it may sleep: longer than any serial step of a small
/// network, and short enough to waste. A job that lies below on the thread's stack is held up for
/// that long.
const PATIENCE: Duration = Duration::from_millis(1);
/// A thread that comes later than this was busy with other work, and is not kept awake.
const LATE: Duration = Duration::from_micros(500);
/// Most threads that are kept awake: an operator's steps have no work for more.
const HELPERS: usize = 7;

/// Pieces of work under way. Where there are several, threads are not idle anyway, and a thread
/// that waited for the steps of one piece would keep another piece waiting.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Runs `work` on a thread of the pool while other threads wait for its parallel steps without
/// sleeping. If the caller is on a thread of the pool already, `work` just runs: then a caller
/// further up has kept threads awake, or `work` is one of many jobs that run at once.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        // There are no threads in a browser's worker, and no clock that this crate may ask.
        _ if cfg!(target_family = "wasm") => work(),
        Some(_) => work(),
        None => rayon::scope(|_| keep_awake(work)),
    }
}

/// Runs `work` while helpers on other threads of the pool look for its parallel steps, unless
/// another piece of work is under way.
fn keep_awake<R>(work: impl FnOnce() -> R) -> R {
    let under_way = UnderWay::begin();
    if under_way.alone {
        let (mine, begin) = (rayon::current_thread_index(), Instant::now());
        for _ in 1..rayon::current_num_threads().min(HELPERS + 1) {
            let done = under_way.done.clone();
            // Nothing waits for the helpers to end, so `work` is not held up by a job that a helper
            // is still doing.
            rayon::spawn(move || {
                if rayon::current_thread_index() != mine && begin.elapsed() < LATE {
                    help(&done);
                }
            });
        }
    }
    work()
}

/// Counts a piece of work for as long as it runs, also when it panics.
struct UnderWay {
    alone: bool,
    done: Arc<AtomicBool>,
}

impl UnderWay {
    fn begin() -> Self {
        Self { alone: UNDER_WAY.fetch_add(1, Ordering::Relaxed) == 0, done: Arc::default() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does the pool's work until `done` is set, until there has been none for [`PATIENCE`], or until
/// another piece of work is under way.
fn help(done: &AtomicBool) {
    let mut last = Instant::now();
    while !done.load(Ordering::Relaxed) && UNDER_WAY.load(Ordering::Relaxed) == 1 {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return;
        } else {
            (0..20).for_each(|_| std::hint::spin_loop());
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    fn sum() -> u64 {
        (0..50).map(|_| (0..1000u64).into_par_iter().sum::<u64>()).sum()
    }

    #[test]
    fn work_is_done_once_by_pools_of_any_size_together_and_within_one_another() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let nested = || keep_awake(|| sum() + keep_awake(sum));
            let all: Vec<u64> = pool.install(|| (0..8).into_par_iter().map(|_| nested()).collect());
            assert!(all.iter().all(|&s| s == 2 * 50 * 499_500), "{threads} threads");
            std::thread::scope(|s| {
                let runs: Vec<_> = (0..4).map(|_| s.spawn(|| pool.install(nested))).collect();
                assert!(runs.into_iter().all(|r| r.join().unwrap() == 2 * 50 * 499_500));
            });
        }
    }

    #[test]
    fn a_panic_passes_and_the_pool_goes_on() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let fails = || pool.install(|| keep_awake(|| -> u64 { panic!("as planned") }));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).is_err());
        assert_eq!(pool.install(|| keep_awake(sum)), 50 * 499_500);
    }
}
