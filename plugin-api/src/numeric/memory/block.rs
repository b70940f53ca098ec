//! Blocks of memory, from the allocator or the system.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use memmap2::{MmapMut, MmapOptions};

use crate::buffer::ALIGNMENT;

/// From this size in bytes, memory comes from the system and returns to it, in huge pages if the system has them: a
/// page fault per 4 KiB costs more than copying the 4 KiB.
pub(crate) const LARGE: usize = if cfg!(miri) { 1 << 12 } else { 1 << 21 };

/// The size that rotating arenas have, and memory of that size that waits for the next one.
struct Turns {
    bytes: usize,
    waiting: Option<MmapMut>,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { bytes: 0, waiting: None });

/// Memory with one owner.
#[derive(Debug)]
pub(super) struct Block {
    /// The start of the memory, at a multiple of [`ALIGNMENT`].
    pub(super) data: NonNull<u8>,
    pub(super) bytes: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Allocator(NonNull<u8>, Layout),
    /// Owns the pages until dropped.
    System(MmapMut),
}

// SAFETY: a block is plain memory, and the buffers over it do not overlap.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates this many zero bytes.
    pub(super) fn zeroed(bytes: usize) -> Self {
        Self::new(bytes, true)
    }

    /// Allocates this many bytes, which must be written before they are read.
    pub(super) fn uninitialised(bytes: usize) -> Self {
        Self::new(bytes, false)
    }

    /// Aligns memory here rather than in the allocator, which would zero aligned memory in a separate pass, even if the
    /// system has just provided it as zeros.
    fn new(bytes: usize, zeroed: bool) -> Self {
        if bytes == 0 {
            return Self { data: NonNull::<Aligned>::dangling().cast(), bytes, source: Source::Nothing };
        }
        let whole = bytes.checked_add(ALIGNMENT - 1).expect("a tensor's size overflows");
        let layout = Layout::from_size_align(whole, align_of::<u64>()).expect("a tensor's size overflows");
        if bytes >= LARGE
            && let Ok(map) = MmapOptions::new().len(bytes).map_anon()
        {
            // This helps on systems that give huge pages on request, which is most of them.
            // Miri does not support this advice.
            #[cfg(all(target_os = "linux", not(miri)))]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::of_map(bytes, map);
        }
        // SAFETY: the size of the layout is not 0.
        let start = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        let skip = start.addr().get().next_multiple_of(ALIGNMENT) - start.addr().get();
        // SAFETY: this moves at most `ALIGNMENT - 1` bytes, and the memory has that many bytes more than `bytes`.
        Self { data: unsafe { start.add(skip) }, bytes, source: Source::Allocator(start, layout) }
    }

    /// The memory of the last rotating block of this size, if it has been returned. Otherwise that memory waits for the
    /// next call once it is returned.
    pub(super) fn in_turns(bytes: usize) -> Option<Self> {
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = if turns.bytes == bytes { turns.waiting.take() } else { None };
        (turns.bytes, turns.waiting) = (bytes, None);
        waiting.map(|map| Self::of_map(bytes, map))
    }

    fn of_map(bytes: usize, mut map: MmapMut) -> Self {
        let data = NonNull::new(map.as_mut_ptr()).expect("mapped memory does not begin at 0");
        Self { data, bytes, source: Source::System(map) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.source, Source::Nothing) {
            Source::Nothing => {}
            // SAFETY: allocated in `new` with this layout.
            Source::Allocator(start, layout) => unsafe { dealloc(start.as_ptr(), layout) },
            Source::System(map) => {
                let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
                if turns.bytes == self.bytes && turns.waiting.is_none() {
                    turns.waiting = Some(map);
                }
            }
        }
    }
}

#[repr(align(64))]
struct Aligned;

/// Whether memory is waiting to be reused.
#[cfg(test)]
pub(super) fn one_waits() -> bool {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner).waiting.is_some()
}
