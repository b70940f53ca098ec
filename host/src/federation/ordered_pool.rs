//! A pool of a few threads for many pieces of work. Results are taken one at a time and in order.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many results each worker may be ahead of the slowest item.
const AHEAD: usize = 16;

/// The memory in bytes that waiting results may take together. Each worker may have one result even above this limit.
const WAITING: usize = 1 << 30;

/// How much is in work at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The number of threads.
    workers: usize,
    /// How many items may be started but not taken.
    ahead: usize,
}

impl Limits {
    /// Limits for this many workers, if each result has this many bytes. Small results are limited by number only, so
    /// that a slow item leaves no worker idle. Large results are limited by memory.
    pub(crate) fn new(workers: usize, bytes: usize) -> Self {
        Self { workers, ahead: (WAITING / bytes.max(1)).clamp(workers, AHEAD.saturating_mul(workers).max(workers)) }
    }
}

/// The items that are not started yet.
struct Queue<'a, T> {
    items: std::iter::Enumerate<std::slice::IterMut<'a, T>>,
    started: usize,
    taken: usize,
    stopped: bool,
}

/// A queue that workers wait for.
struct SharedQueue<'a, T> {
    queue: Mutex<Queue<'a, T>>,
    /// Signals that more items may start.
    ready: Condvar,
    ahead: usize,
}

impl<'a, T> SharedQueue<'a, T> {
    fn new(items: &'a mut [T], ahead: usize) -> Self {
        let queue = Queue { items: items.iter_mut().enumerate(), started: 0, taken: 0, stopped: false };
        Self { queue: Mutex::new(queue), ready: Condvar::new(), ahead: ahead.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<'a, T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the next item may start, and returns it with its index; `None` if no other item starts.
    fn next(&self) -> Option<(usize, &'a mut T)> {
        let far = |queue: &mut Queue<'_, T>| !queue.stopped && queue.started >= queue.taken + self.ahead;
        let mut queue = self.ready.wait_while(self.lock(), far).unwrap_or_else(PoisonError::into_inner);
        if queue.stopped {
            return None;
        }
        queue.items.next().inspect(|(index, _)| queue.started = index + 1)
    }

    /// Notes that the results of this many items are taken, and whether to start others.
    fn taken(&self, count: usize, stopped: bool) {
        let mut queue = self.lock();
        (queue.taken, queue.stopped) = (count, stopped);
        drop(queue);
        self.ready.notify_all();
    }
}

/// Runs `work` on each item, on as many threads as there are workers. Passes the results to `take` on this thread, in
/// the items' order, whatever order they finish in. An item is started only if it is not too far after the next one to
/// be taken. After an error of `take`, no further item is started.
///
/// # Errors
/// The first error of `take`.
///
/// # Panics
/// If `work` panics.
pub(crate) fn in_order<T: Send, R: Send, E>(
    Limits { workers, ahead }: Limits,
    items: &mut [T],
    work: impl Fn(usize, &mut T) -> R + Sync,
    take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let count = items.len();
    let (queue, work) = (&SharedQueue::new(items, ahead), &work);
    let (sender, results) = channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, count.max(1)) {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some((index, item)) = queue.next() {
                    if sender.send((index, work(index, item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        take_in_order(queue, results, take)
    })
}

/// Passes the results to `take` in the items' order.
fn take_in_order<T, R, E>(
    queue: &SharedQueue<'_, T>,
    results: Receiver<(usize, R)>,
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for (index, result) in results {
        waiting.insert(index, result);
        while let Some(result) = waiting.remove(&next) {
            let outcome = take(next, result);
            next += 1;
            queue.taken(next, outcome.is_err());
            outcome?;
        }
    }
    Ok(())
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
            let done: Result<(), ()> =
                in_order(Limits { workers, ahead: 2 * workers }, &mut items, work, |index, result| {
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
        assert_eq!([472_000_000, 100_000_000, 1000, 0].map(|bytes| Limits::new(2, bytes).ahead), [2, 10, 32, 32]);
        assert_eq!(Limits::new(1, usize::MAX).ahead, 1);
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let mut items = vec![(); 1000];
        let work = |index: usize, (): &mut ()| {
            begun.fetch_add(1, Ordering::SeqCst);
            index
        };
        let done =
            in_order(
                Limits { workers: 2, ahead: 4 },
                &mut items,
                work,
                |index, _| if index == 3 { Err(index) } else { Ok(()) },
            );
        assert_eq!(done, Err(3));
        assert!(begun.into_inner() <= 4 + 4);
    }
}
