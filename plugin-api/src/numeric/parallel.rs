//! Parallel work over many tensors.

use std::sync::{Mutex, PoisonError};

/// Below this many bytes, a thread costs more than it saves.
const WORTH_IT: usize = 8 << 20;
/// More threads do not read memory faster.
const MOST: usize = 4;

/// Calls `work` on each of `items`, which have `bytes` bytes in total, in any order, on at most `threads` threads.
pub(crate) fn each<T: Send>(items: Vec<T>, bytes: usize, threads: usize, work: impl Fn(T) + Sync) {
    let threads = if bytes < WORTH_IT { 1 } else { threads.min(MOST).min(items.len()) };
    let queue = Mutex::new(items.into_iter());
    let one = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { break };
            work(item);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(one)));
        one();
    });
}

/// The first error of `check`, in the order of `items`, which have `bytes` bytes in total. Uses at most `threads`
/// threads.
///
/// # Errors
/// That error.
pub(crate) fn check<T: Send, E: Send>(
    items: impl Iterator<Item = T>,
    bytes: usize,
    threads: usize,
    check: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let first: Mutex<Option<(usize, E)>> = Mutex::new(None);
    each(items.enumerate().collect(), bytes, threads, |(index, item)| {
        if let Err(error) = check(item) {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(before, _)| index < *before) {
                *first = Some((index, error));
            }
        }
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_item_is_worked_on_once_and_the_first_error_is_told() {
        for (bytes, threads) in [(0, 9), (WORTH_IT, 0), (WORTH_IT, 1), (WORTH_IT, 9)] {
            let mut done = vec![0; 1000];
            each(done.iter_mut().collect(), bytes, threads, |item: &mut i32| *item += 1);
            assert_eq!(done, vec![1; 1000]);
            let asked = AtomicUsize::new(0);
            let odd = |item: usize| {
                asked.fetch_add(1, Ordering::Relaxed);
                if item < 300 || item.is_multiple_of(2) { Ok(()) } else { Err(item) }
            };
            assert_eq!(check(0..1000, bytes, threads, odd), Err(301));
            assert_eq!(check(0..300, bytes, threads, odd), Ok(()));
            assert_eq!(asked.into_inner(), 1300);
        }
    }

    #[test]
    fn no_more_threads_work_than_a_call_may_use() {
        for (threads, most) in [(0, 1), (1, 1), (2, 2), (64, MOST)] {
            let workers = Mutex::new(std::collections::BTreeSet::new());
            each((0..256).collect(), WORTH_IT, threads, |_| {
                workers.lock().unwrap().insert(format!("{:?}", std::thread::current().id()));
                std::thread::yield_now();
            });
            assert!((1..=most).contains(&workers.into_inner().unwrap().len()), "{threads}");
        }
    }
}
