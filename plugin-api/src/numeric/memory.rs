//! Memory that is written first and shared afterwards.

mod block;

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use block::Block;
pub(crate) use block::LARGE;

use crate::buffer::ALIGNMENT;
use crate::{Buffer, Element, Result, Tensor};

/// Elements that are still writable, and become a tensor without a copy.
///
/// ```
/// use plugin_api::TensorBuf;
///
/// let mut buf = TensorBuf::<f32>::zeroed(4);
/// buf.as_mut_slice()[3] = 1.5;
/// let tensor = buf.freeze(&[2, 2])?;
/// assert_eq!(tensor.elements::<f32>()?, [0.0, 0.0, 0.0, 1.5]);
/// # Ok::<(), plugin_api::Error>(())
/// ```
pub struct TensorBuf<T> {
    data: NonNull<u8>,
    count: usize,
    block: Arc<Block>,
    elements: PhantomData<T>,
}

// SAFETY: a tensor buffer alone reads and writes its part of the block, which is plain memory.
unsafe impl<T: Send> Send for TensorBuf<T> {}
// SAFETY: as above; a shared one is only read.
unsafe impl<T: Sync> Sync for TensorBuf<T> {}

impl<T: bytemuck::Pod> TensorBuf<T> {
    /// Allocates `count` elements, all 0.
    ///
    /// # Panics
    /// If the size overflows. Aborts if memory runs out, as every allocation does.
    pub fn zeroed(count: usize) -> Self {
        Self::of(count, Block::zeroed(Self::bytes(count)))
    }

    /// Allocates a copy of `elements`.
    ///
    /// # Panics
    /// As [`zeroed`](Self::zeroed).
    pub fn copy_of(elements: &[T]) -> Self {
        let block = Block::uninitialised(Self::bytes(elements.len()));
        // SAFETY: the block is new, has that many bytes, and is aligned as `ALIGNED` asserts.
        unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr(), block.data.as_ptr().cast(), elements.len()) };
        Self::of(elements.len(), block)
    }

    /// Rejects element types that need more alignment than a block has. Used wherever a tensor buffer is created.
    ///
    /// ```compile_fail,E0080
    /// #[derive(Clone, Copy)]
    /// #[repr(C, align(128))]
    /// struct Wide([u8; 128]);
    /// // SAFETY: plain bytes without padding.
    /// unsafe impl bytemuck::Zeroable for Wide {}
    /// // SAFETY: as above.
    /// unsafe impl bytemuck::Pod for Wide {}
    /// plugin_api::TensorBuf::<Wide>::zeroed(1);
    /// ```
    const ALIGNED: () = assert!(align_of::<T>() <= ALIGNMENT, "elements are aligned to more than a buffer is");

    fn bytes(count: usize) -> usize {
        let () = Self::ALIGNED;
        count.checked_mul(size_of::<T>()).expect("a tensor's size overflows")
    }

    /// A tensor buffer of `count` elements over a whole block.
    fn of(count: usize, block: Block) -> Self {
        Self { data: block.data, count, block: Arc::new(block), elements: PhantomData }
    }

    fn start(&mut self) -> *mut T {
        self.data.as_ptr().cast()
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: this part of the block holds `count` elements. They were written before the tensor buffer was
        // created, are aligned as `ALIGNED` asserts, and belong to no other tensor buffer.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), self.count) }
    }

    /// The elements, writable.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.count) }
    }

    /// Converts this to a buffer, after which the memory is immutable.
    pub fn into_buffer(self) -> Buffer {
        let (data, len) = (self.data.as_ptr(), self.count * size_of::<T>());
        // SAFETY: the block owns `len` aligned, initialised bytes there, wherever its `Arc` moves, and no tensor buffer
        // remains that writes to them.
        unsafe { Buffer::from_owner(data, len, self.block) }
    }
}

impl<T: Element> TensorBuf<T> {
    /// Converts this to a tensor, after which the memory is immutable.
    ///
    /// # Errors
    /// If the number of elements is not the product of the shape.
    pub fn freeze(self, shape: &[usize]) -> Result<Tensor> {
        Tensor::new(T::DTYPE, shape, self.into_buffer())
    }

    /// Makes the memory of a tensor that this library froze writable again, if there is no other reference to the
    /// tensor. Otherwise returns the tensor. So memory that was handed out can be reused without a copy once its users
    /// are done.
    ///
    /// # Errors
    /// The tensor itself.
    pub fn reclaim(tensor: Tensor) -> std::result::Result<Self, Tensor> {
        if tensor.dtype() != T::DTYPE {
            return Err(tensor);
        }
        let (shape, buffer) = (tensor.shape().to_vec(), tensor.buffer().clone());
        drop(tensor);
        let count = buffer.len() / size_of::<T>();
        // Only `into_buffer` makes a buffer that a block owns, so this is the pointer that the tensor buffer wrote
        // through. A pointer from a shared slice would not do: nothing may be written through it.
        match buffer.into_owner::<Arc<Block>>() {
            Ok((data, block)) => {
                let () = Self::ALIGNED;
                let data = NonNull::new(data.cast_mut()).expect("a buffer does not begin at 0");
                Ok(Self { data, count, block, elements: PhantomData })
            }
            Err(buffer) => Err(Tensor::new(T::DTYPE, &shape, buffer).expect("it was such a tensor")),
        }
    }
}

impl<T: bytemuck::Pod> Default for TensorBuf<T> {
    /// An empty buffer.
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T> std::fmt::Debug for TensorBuf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} elements", self.count)
    }
}

/// One allocation for many tensors, which costs far less than one per tensor. The memory is freed when the last of the
/// tensors is dropped, so use another arena for tensors that live longer than the rest.
///
/// ```
/// use plugin_api::Arena;
///
/// let mut arena = Arena::of([6, 2].map(Arena::bytes::<f32>));
/// let [weight, bias] = [arena.alloc::<f32>(6), arena.alloc::<f32>(2)];
/// assert_eq!((weight.as_slice(), bias.as_slice()), (&[0.0; 6][..], &[0.0; 2][..]));
/// ```
#[derive(Debug)]
pub struct Arena {
    block: Arc<Block>,
    taken: usize,
}

impl Default for Arena {
    /// An empty arena.
    fn default() -> Self {
        Self::of([])
    }
}

impl Arena {
    /// The bytes that a tensor of `count` elements takes in an arena.
    pub const fn bytes<T>(count: usize) -> usize {
        count.saturating_mul(size_of::<T>()).saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
    }

    /// An arena for repeated use with the same size. It reuses the memory of the last such arena whose tensors are
    /// gone, with its old contents, or gets zeros. So two alternating models' worth of memory serves a federation's
    /// mean, and no round pays for new pages.
    pub(crate) fn in_turns(sizes: impl IntoIterator<Item = usize>) -> Self {
        let bytes = Self::sum(sizes);
        if bytes < LARGE {
            return Self::of([bytes]);
        }
        Block::in_turns(bytes).map_or_else(|| Self::of([bytes]), |block| Self { block: Arc::new(block), taken: 0 })
    }

    /// An arena for tensors of these sizes in bytes.
    ///
    /// # Panics
    /// If the size overflows. Aborts if memory runs out, as every allocation does.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        let bytes = Self::sum(sizes);
        Self { block: Arc::new(Block::zeroed(bytes)), taken: 0 }
    }

    /// Empties the arena and returns true, if it is large enough for these sizes and none of its tensors is left.
    ///
    /// ```
    /// # use plugin_api::Arena;
    /// let mut arena = Arena::of([Arena::bytes::<f32>(8)]);
    /// let buf = arena.alloc::<f32>(8);
    /// assert!(!arena.reset([Arena::bytes::<f32>(2)]), "what was taken is still there");
    /// drop(buf);
    /// assert!(arena.reset([Arena::bytes::<f32>(2)]) && !arena.reset([Arena::bytes::<f32>(99)]));
    /// ```
    pub fn reset(&mut self, sizes: impl IntoIterator<Item = usize>) -> bool {
        let fits = Self::sum(sizes) <= self.block.bytes && Arc::get_mut(&mut self.block).is_some();
        if fits {
            self.taken = 0;
        }
        fits
    }

    /// The number of bytes still free.
    pub fn left(&self) -> usize {
        self.block.bytes - self.taken
    }

    fn sum(sizes: impl IntoIterator<Item = usize>) -> usize {
        sizes.into_iter().map(Self::bytes::<u8>).fold(0, usize::saturating_add)
    }

    /// Allocates `count` elements in this arena: all 0, or with the contents from before it was emptied. If the arena
    /// is full, they get their own memory.
    pub fn alloc<T: bytemuck::Pod>(&mut self, count: usize) -> TensorBuf<T> {
        let bytes = Self::bytes::<T>(count);
        if self.left() < bytes {
            return TensorBuf::zeroed(count);
        }
        let () = TensorBuf::<T>::ALIGNED;
        // SAFETY: the block has that many bytes left, which were not taken since the arena was created or emptied.
        let data = unsafe { self.block.data.add(self.taken) };
        self.taken += bytes;
        TensorBuf { data, count, block: self.block.clone(), elements: PhantomData }
    }
}

#[cfg(test)]
mod tests;
