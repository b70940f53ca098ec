//! An allocator that counts the memory of a thread, in all tests that use this crate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// The bytes that are held, and the most so far, since counting began; none if nobody counts.
    static HELD: Cell<Option<(isize, isize)>> = const { Cell::new(None) };
}

/// The most bytes that a call holds at a time, of those that it allocates on this thread.
pub(super) fn peak(call: impl FnOnce()) -> usize {
    let before = HELD.replace(Some((0, 0)));
    call();
    HELD.replace(before).map_or(0, |(_, most)| most.unsigned_abs())
}

/// Makes a call whose memory does not count.
pub(super) fn uncounted(call: impl FnOnce()) {
    let before = HELD.take();
    call();
    HELD.set(before);
}

fn add(bytes: isize) {
    // A thread that ends allocates after its variables are gone.
    let _ = HELD.try_with(|held| {
        if let Some((now, most)) = held.get() {
            held.set(Some((now + bytes, most.max(now + bytes))));
        }
    });
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on unchanged to the system's allocator, whose promises are these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller keeps the promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_counted_and_not_the_sum() {
        let counted = peak(|| {
            for _ in 0..3 {
                drop(std::hint::black_box(vec![0_u8; 1000]));
            }
            let mut grown = std::hint::black_box(Vec::<u8>::with_capacity(10));
            grown.reserve_exact(2000);
            uncounted(|| drop(std::hint::black_box(vec![1_u8; 5000])));
            // Another thread's memory is its own.
            std::thread::scope(|scope| scope.spawn(|| drop(std::hint::black_box(vec![1_u8; 50_000]))).join().unwrap());
        });
        assert!((2000..4000).contains(&counted), "{counted}");
        assert_eq!(peak(|| ()), 0);
    }
}
