//! Segments of shared memory, used again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memmap2::MmapRaw;
use plugin_api::{Buffer, Error, Result};

use crate::config::reason;

/// The alignment of what is in a segment.
pub(crate) const ALIGNMENT: usize = plugin_api::buffer::ALIGNMENT;

/// How many bytes of segments that nobody uses are kept.
const KEPT: usize = 1 << 30;

/// The smallest segment.
const LEAST: usize = 1 << 16;

/// A piece of anonymous memory that processes share.
#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    map: MmapRaw,
}

/// A segment for as long as its content is the same. The last owner gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    /// A number that no other lease has.
    pub(crate) number: u64,
    segment: Option<Segment>,
}

#[derive(Debug, Default)]
struct Pool {
    numbers: u64,
    free: Vec<Segment>,
    /// All that exist, by number.
    exist: BTreeSet<u64>,
    /// Those on lease, by address.
    leased: BTreeMap<usize, Weak<Lease>>,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { numbers: 0, free: Vec::new(), exist: BTreeSet::new(), leased: BTreeMap::new() });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Segment {
    #[cfg(target_os = "linux")]
    fn new(number: u64, size: usize) -> std::io::Result<Self> {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
        let file = memfd_create("fedplug", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, size as u64)?;
        // Nobody can make it shorter and so end a process that reads it.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let file = File::from(file);
        let map = MmapRaw::map_raw(&file)?;
        Ok(Self { number, file, map })
    }

    #[cfg(not(target_os = "linux"))]
    fn new(_: u64, _: usize) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

impl Lease {
    /// Takes a segment of at least this size, whose content is whatever it was.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn new(size: usize) -> Result<Arc<Self>> {
        let mut pool = pool();
        pool.numbers += 1;
        let number = pool.numbers;
        // The smallest that is large enough, unless most of it would be of no use.
        let fits = |segment: &Segment| segment.map.len() >= size && segment.map.len() / 2 <= size.max(LEAST);
        let sizes = pool.free.iter().enumerate().filter(|(_, segment)| fits(segment));
        let best = sizes.min_by_key(|(_, segment)| segment.map.len()).map(|(place, _)| place);
        let segment = match best {
            Some(place) => pool.free.swap_remove(place),
            None => {
                let size = size.max(LEAST).next_multiple_of(LEAST);
                let segment = Segment::new(number, size).map_err(|error| {
                    Error::other(format!("{size} bytes of shared memory are not to be had")).because_of(reason(&error))
                })?;
                pool.exist.insert(number);
                segment
            }
        };
        let address = segment.map.as_ptr().addr();
        let lease = Arc::new(Self { number, segment: Some(segment) });
        pool.leased.insert(address, Arc::downgrade(&lease));
        Ok(lease)
    }

    /// The lease in whose segment this memory is, and where.
    pub(crate) fn of(buffer: &Buffer) -> Option<(Arc<Self>, usize)> {
        let address = buffer.as_slice().as_ptr().addr();
        let (start, lease) =
            pool().leased.range(..=address).next_back().map(|(start, lease)| (*start, lease.clone()))?;
        let lease = lease.upgrade()?;
        let offset = address - start;
        (offset + buffer.len() <= lease.size()).then_some((lease, offset))
    }

    fn map(&self) -> &MmapRaw {
        &self.segment().map
    }

    fn segment(&self) -> &Segment {
        self.segment.as_ref().expect("it is there until the lease is dropped")
    }

    /// The number of the segment.
    pub(crate) fn of_segment(&self) -> u64 {
        self.segment().number
    }

    /// The size of the segment.
    pub(crate) fn size(&self) -> usize {
        self.map().len()
    }

    /// The file that another process maps.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.segment().file.as_fd()
    }

    /// Writes into a lease that nobody else has seen yet.
    pub(crate) fn fill(&self, offset: usize, bytes: &[u8]) {
        assert!(offset.checked_add(bytes.len()).is_some_and(|end| end <= self.size()), "beyond the end of the segment");
        // SAFETY: the range is within the mapping. `bytes` are elsewhere, since no buffer over this lease exists before
        // its content is complete.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map().as_mut_ptr().add(offset), bytes.len()) };
    }

    /// A part of it as a buffer, which holds the lease.
    ///
    /// # Errors
    /// If there is no such part.
    pub(crate) fn buffer(self: &Arc<Self>, offset: usize, len: usize) -> Result<Buffer> {
        if offset.checked_add(len).is_none_or(|end| end > self.size()) || !offset.is_multiple_of(ALIGNMENT) {
            return Err(Error::other(format!("the Python process returned {len} bytes at {offset}, where none are")));
        }
        // SAFETY: the range is within the mapping, which the lease keeps. The process has answered, and does not write into
        // a lease after that; nobody else gets it before the lease ends.
        Ok(unsafe { Buffer::from_owner(self.map().as_ptr().add(offset), len, self.clone()) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(segment) = self.segment.take() else { return };
        let mut pool = pool();
        pool.leased.remove(&segment.map.as_ptr().addr());
        pool.free.push(segment);
        let mut bytes: usize = pool.free.iter().map(|segment| segment.map.len()).sum();
        // The one that was given back first goes first.
        while bytes > KEPT {
            let segment = pool.free.remove(0);
            bytes -= segment.map.len();
            pool.exist.remove(&segment.number);
        }
    }
}

/// Of these segments, those that exist no more.
pub(crate) fn gone(known: &BTreeSet<u64>) -> Vec<u64> {
    let pool = pool();
    known.iter().copied().filter(|number| !pool.exist.contains(number)).collect()
}
