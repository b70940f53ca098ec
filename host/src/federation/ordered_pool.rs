//! A pool of a few threads for many pieces of work. Results are taken one at a time and in order.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, PoisonError};

/// How many results each worker may be ahead of the slowest item.
const AHEAD: usize = 16;

/// The memory in bytes that waiting results may take together. Each worker may have one result even above this limit.
const WAITING: usize = 1 << 30;

/// How many items may be started but not taken, if each result has this many bytes. Small results are limited by number
/// only, so that a slow item leaves no worker idle. Large results are limited by memory.
pub(crate) fn ahead(workers: usize, bytes: usize) -> usize {
    (WAITING / bytes.max(1)).clamp(workers, AHEAD.saturating_mul(workers).max(workers))
}

struct Queue<'a, T> {
    items: std::iter::Enumerate<std::slice::IterMut<'a, T>>,
    next: usize,
    taken: usize,
    stopped: bool,
}

/// Runs `work` on each item, on as many threads as there are `workers`. Passes the results to `take` on this thread, in
/// the items' order, whatever order they finish in. An item is started only if it is fewer than `ahead` items after the
/// next one to be taken. After an error of `take`, no further item is started.
///
/// # Errors
/// The first error of `take`.
///
/// # Panics
/// If `work` panics.
pub(crate) fn in_order<T: Send, R: Send, E>(
    (workers, ahead): (usize, usize),
    items: &mut [T],
    work: impl Fn(usize, &mut T) -> R + Sync,
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let count = items.len();
    let queue = Mutex::new(Queue { items: items.iter_mut().enumerate(), next: 0, taken: 0, stopped: false });
    let (room, work) = (Condvar::new(), &work);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let (sender, results) = channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, count.max(1)) {
            let (sender, room, lock) = (sender.clone(), &room, &lock);
            scope.spawn(move || {
                loop {
                    let far = |queue: &mut Queue<'_, T>| !queue.stopped && queue.next >= queue.taken + ahead.max(1);
                    let mut held = room.wait_while(lock(), far).unwrap_or_else(PoisonError::into_inner);
                    if held.stopped {
                        break;
                    }
                    let Some((index, item)) = held.items.next() else { break };
                    held.next = index + 1;
                    drop(held);
                    if sender.send((index, work(index, item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut outcome = Ok(());
        'all: for (index, result) in results {
            waiting.insert(index, result);
            while let Some(result) = waiting.remove(&next) {
                outcome = take(next, result);
                next += 1;
                let mut held = lock();
                held.taken = next;
                held.stopped = outcome.is_err();
                drop(held);
                room.notify_all();
                if outcome.is_err() {
                    break 'all;
                }
            }
        }
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn results_come_in_order_and_never_far_ahead() {
        for workers in [1, 3] {
            let (begun, taken, furthest) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
            let mut items: Vec<usize> = (0..20).collect();
            let mut seen = Vec::new();
            let work = |index: usize, item: &mut usize| {
                let ahead = begun.fetch_add(1, Ordering::SeqCst) - taken.load(Ordering::SeqCst);
                furthest.fetch_max(ahead, Ordering::SeqCst);
                // The first item is the slowest.
                std::thread::sleep(Duration::from_millis(if index == 0 { 50 } else { 1 }));
                *item * 2
            };
            let done: Result<(), ()> = in_order((workers, 2 * workers), &mut items, work, |index, result| {
                taken.fetch_add(1, Ordering::SeqCst);
                seen.push((index, result));
                Ok(())
            });
            assert!(done.is_ok());
            assert_eq!(seen, (0..20).map(|i| (i, 2 * i)).collect::<Vec<_>>());
            assert!(furthest.into_inner() <= 2 * workers);
        }
    }

    #[test]
    fn large_results_wait_one_a_worker_and_small_ones_in_numbers() {
        assert_eq!([472_000_000, 100_000_000, 1000, 0].map(|bytes| ahead(2, bytes)), [2, 10, 32, 32]);
        assert_eq!(ahead(1, usize::MAX), 1);
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let mut items = vec![(); 1000];
        let work = |index: usize, (): &mut ()| {
            begun.fetch_add(1, Ordering::SeqCst);
            index
        };
        let done = in_order((2, 4), &mut items, work, |index, _| if index == 3 { Err(index) } else { Ok(()) });
        assert_eq!(done, Err(3));
        assert!(begun.into_inner() <= 4 + 4);
    }
}
