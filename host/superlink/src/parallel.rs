//! A few threads over a list.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::Error;

/// Whether the work is no longer wanted. Asked often.
pub(crate) type Abort<'a> = &'a (dyn Fn() -> bool + Sync);

/// Calls `work` with each index below `count`, in order of starting, on up to `threads` threads. The first error ends
/// all; `work` gets a function that says whether that has happened or `abort` says so.
pub(crate) fn for_each(
    count: usize,
    threads: usize,
    abort: Abort<'_>,
    work: impl Fn(usize, Abort<'_>) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first_error = Mutex::new(None);
    let over = || failed.load(Ordering::Relaxed) || abort();
    let run = || {
        while !over() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Err(error) = work(index, &over) {
                failed.store(true, Ordering::Relaxed);
                lock(&first_error).get_or_insert(error);
            }
        }
    };
    let threads = threads.min(count);
    if threads <= 1 {
        run();
    } else {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(run);
            }
            run();
        });
    }
    match lock(&first_error).take() {
        Some(error) => Err(error),
        None if next.load(Ordering::Relaxed) < count => Err(Error::Stopped),
        None => Ok(()),
    }
}

/// Locks. A panic of another holder is none of ours: what is guarded here is consistent between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sleeps, unless `abort` says that it is in vain.
pub(crate) fn pause(time: std::time::Duration, abort: Abort<'_>) {
    let until = std::time::Instant::now() + time;
    while !abort() {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(std::time::Duration::from_millis(50)));
    }
}
