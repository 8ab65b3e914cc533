//! Keeps the pool's threads from falling asleep within one side's part of a layer, or within a
//! whole inference.
//!
//! Such a part is a dozen short parallel steps with short serial ones between them. A thread that
//! goes to sleep in between is woken through the system's kernel, which takes longer than some of
//! the steps, and entering the pool from outside costs such a wake-up for every step: on two
//! virtual cores a tenth of an inference and more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it may sleep after all: more than any serial step of a
/// small network, and little enough to waste. Whatever lies below on the thread's stack goes on
/// after so long.
const PATIENCE: Duration = Duration::from_millis(1);
/// A thread that comes later than this was busy: it is not kept.
const LATE: Duration = Duration::from_micros(500);
/// Most threads that are kept awake: a layer's steps have no work for more.
const HELPERS: usize = 7;

/// Pieces of work under way. Where there are several, threads are not idle, and one that waited for
/// the steps of one would keep another waiting.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Runs `work` on a thread of the pool while others wait for its parallel steps without sleeping.
/// On a thread of the pool already, it just runs: whoever brought it there has done this, or `work`
/// is one of many things that run at once.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => rayon::scope(|_| keep_awake(work)),
    }
}

fn keep_awake<R>(work: impl FnOnce() -> R) -> R {
    let under_way = UnderWay::begin();
    if under_way.alone {
        let (mine, begin) = (rayon::current_thread_index(), Instant::now());
        for _ in 1..rayon::current_num_threads().min(HELPERS + 1) {
            let done = under_way.done.clone();
            // Nobody waits for these: `work` is not held up by what a helper may be doing when it
            // ends.
            rayon::spawn(move || {
                if rayon::current_thread_index() != mine && begin.elapsed() < LATE {
                    help(&done);
                }
            });
        }
    }
    work()
}

/// Counts a piece of work for as long as it lives, also when it panics.
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

/// Does the pool's work until `done`, until there is none for long, or until other work has come.
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
