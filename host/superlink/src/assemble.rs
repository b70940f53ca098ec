//! An array's memory, filled from the chunks of its stream.

use std::ops::{Deref, DerefMut, Range};

use bytes::Bytes;
use memmap2::MmapMut;

use crate::content::{Array, DType, size};
use crate::error::Error;
use crate::npy;

/// The alignment of an array's data.
const ALIGNMENT: usize = 64;

/// Arrays of at least this many bytes have pages of their own, which go back to the system when the array is dropped.
/// The allocator would keep much of such memory, fragmented, until the end.
const OWN_PAGES: usize = 1 << 20;

/// An array that is being received. The head is read first; then memory is taken, once, for all of it.
pub(crate) struct Assembly {
    /// The stream's head, as far as it is here.
    head: Vec<u8>,
    body: Option<Body>,
    dimensions: usize,
}

struct Body {
    about: npy::Head,
    /// May be longer than the data.
    memory: Memory,
    data: Range<usize>,
    filled: usize,
}

impl Assembly {
    pub(crate) fn new(dimensions: usize) -> Self {
        Self { head: Vec::new(), body: None, dimensions }
    }

    /// An array without a head: takes its memory if `admit` allows that many bytes.
    pub(crate) fn plain(
        dtype: DType,
        shape: Vec<u64>,
        admit: impl FnOnce(u64) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let dimensions = shape.len();
        let body = Body::new(npy::Head { dtype, shape, fortran: false, big_endian: false }, admit)?;
        Ok(Self { head: Vec::new(), body: Some(body), dimensions })
    }

    /// Appends the next bytes of the stream. `admit` is asked once, before memory is taken.
    pub(crate) fn append(
        &mut self,
        mut bytes: &[u8],
        admit: impl FnOnce(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.body.is_none() {
            // The length is known after 12 bytes at most.
            loop {
                let wanted = match npy::length(&self.head)? {
                    Some(length) => length,
                    None => (self.head.len() + 1).max(8),
                };
                if self.head.len() == wanted {
                    break;
                }
                let (some, rest) = bytes.split_at((wanted - self.head.len()).min(bytes.len()));
                self.head.extend(some);
                bytes = rest;
                if self.head.len() < wanted {
                    return Ok(());
                }
            }
            self.body = Some(Body::new(npy::read(&self.head, self.dimensions)?, admit)?);
        }
        let Some(body) = &mut self.body else { return Ok(()) };
        let room = body.data.len() - body.filled;
        if bytes.len() > room {
            return Err(Error::protocol("array", format!("{} bytes more than its shape says", bytes.len() - room)));
        }
        let start = body.data.start + body.filled;
        body.memory[start..start + bytes.len()].copy_from_slice(bytes);
        body.filled += bytes.len();
        Ok(())
    }

    /// How much of the stream is here.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, |body| body.filled)
    }

    /// A part of the stream that is here.
    pub(crate) fn read(&self, range: Range<usize>) -> Vec<u8> {
        let head = self.head.len();
        let mut bytes = self.head[range.start.min(head)..range.end.min(head)].to_vec();
        if let Some(body) = &self.body {
            let part = range.start.saturating_sub(head)..range.end.saturating_sub(head);
            bytes.extend(&body.memory[body.data.start + part.start..body.data.start + part.end]);
        }
        bytes
    }

    /// The array, once all of the stream is here.
    pub(crate) fn finish(self) -> Result<Array, Error> {
        let Some(Body { about, mut memory, data, filled }) = self.body else {
            return Err(Error::protocol("array", "its head is incomplete"));
        };
        if filled != data.len() {
            return Err(Error::protocol("array", format!("{filled} bytes of {}", data.len())));
        }
        let width = about.dtype.size();
        if about.big_endian {
            npy::swap_bytes(&mut memory[data.clone()], width);
        }
        let (memory, data) = if about.fortran && about.shape.len() > 1 && !data.is_empty() {
            let (mut other, place) = Memory::for_data(data.len())?;
            npy::from_fortran(&memory[data], &mut other[place.clone()], &about.shape, width);
            (other, place)
        } else {
            (memory, data)
        };
        Array::new(about.dtype, about.shape, Bytes::from_owner(memory).slice(data))
    }
}

impl Body {
    fn new(about: npy::Head, admit: impl FnOnce(u64) -> Result<(), Error>) -> Result<Self, Error> {
        let bytes = size(about.dtype, &about.shape)
            .ok_or_else(|| Error::protocol("array", format!("shape {:?} is too large", about.shape)))?;
        admit(bytes)?;
        let length = usize::try_from(bytes).map_err(|_| Error::protocol("array", "too large for this machine"))?;
        let (memory, data) = Memory::for_data(length)?;
        Ok(Self { about, memory, data, filled: 0 })
    }
}

/// Memory that begins as zeros. The system hands out its pages when they are first written.
enum Memory {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Memory {
    /// Memory for this many bytes of data, and where in it aligned data lies.
    fn for_data(length: usize) -> Result<(Self, Range<usize>), Error> {
        if length >= OWN_PAGES {
            let pages = MmapMut::map_anon(length);
            let pages = pages.map_err(|error| Error::protocol("array", format!("no memory for it: {error}")))?;
            return Ok((Self::Pages(pages), 0..length));
        }
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok((Self::Heap(memory), start..start + length))
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(memory) => memory,
            Self::Pages(pages) => pages,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(memory) => memory,
            Self::Pages(pages) => pages,
        }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
