//! Memory that is immutable, shared by reference count, and may belong to another library.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use fedplug_abi::{CPU, WireBuffer};

use crate::boundary::guard;
use crate::numeric::TensorBuf;

/// The alignment of every buffer that this library allocates, in bytes: a cache line, and the widest vector register. Memory
/// that comes from elsewhere may begin anywhere; as elements it can be read where it begins at a multiple of their size.
pub const ALIGNMENT: usize = 64;

/// A piece of immutable memory. A clone shares it; the last one releases it, in the library that made it.
///
/// It is CPU memory; the wire format has room for other devices.
pub struct Buffer {
    wire: WireBuffer,
}

/// What a buffer of this library keeps alive.
type Owner = Box<dyn Any + Send + Sync>;

extern "C" fn retain(owner: *const ()) {
    // SAFETY: `owner` came from `Arc::<Owner>::into_raw` in `from_owner` of this library, which also wrote this function's address.
    unsafe { Arc::<Owner>::increment_strong_count(owner.cast()) };
}

extern "C" fn release(owner: *const ()) {
    // A panic must not unwind into a foreign caller; a release that panics has nothing left to save.
    // SAFETY: as in `retain`; the caller gives up the one reference that it held.
    guard::quietly(|| drop(unsafe { Arc::<Owner>::from_raw(owner.cast()) }));
}

impl Buffer {
    /// Shares memory that `owner` keeps alive, without a copy: a plugin's own tensor, a mapped file.
    ///
    /// It may begin at any address, and so may be a mapped file, an Arrow buffer or a NumPy array. A tensor of it needs one
    /// that is a multiple of its elements' size; at a multiple of [`ALIGNMENT`] it is read fastest.
    ///
    /// # Safety
    /// Unless `len` is 0, `data` must point to `len` initialised bytes, at most `isize::MAX`, that nobody writes to while
    /// `owner` lives. Moving `owner` must leave the pointer valid: a `Vec` or an `Arc` does, a `Box` does not, since it is
    /// the only way to its memory.
    pub unsafe fn from_owner(data: *const u8, len: usize, owner: impl Any + Send + Sync) -> Self {
        let owner: Owner = Box::new(owner);
        let owner = Arc::into_raw(Arc::new(owner)).cast();
        // SAFETY: the caller promises the memory; `retain` and `release` are for such an owner.
        Self { wire: unsafe { WireBuffer::new((data, len), (CPU, 0), owner, retain, release) } }
    }

    /// New memory for `count` elements, zeroed, then written by `fill`.
    ///
    /// # Panics
    /// If the size overflows; aborts where there is no memory, as every allocation does.
    pub fn build<T: bytemuck::Pod>(count: usize, fill: impl FnOnce(&mut [T])) -> Self {
        let mut buf = TensorBuf::zeroed(count);
        fill(buf.as_mut_slice());
        buf.into_buffer()
    }

    /// New memory with a copy of `elements`.
    pub fn copy_of<T: bytemuck::Pod>(elements: &[T]) -> Self {
        TensorBuf::copy_of(elements).into_buffer()
    }

    /// What keeps the memory alive, and the pointer that came with it, if this library made the buffer of an owner of
    /// this type and nobody else holds it. Otherwise it stays as it was.
    pub(crate) fn into_owner<O: Any + Send + Sync>(self) -> Result<(*const u8, O), Self> {
        let (owner, theirs) = self.wire.owner();
        // Only this library's owners are its to take apart.
        if !std::ptr::fn_addr_eq(theirs, release as extern "C" fn(*const ())) {
            return Err(self);
        }
        let wire = std::mem::ManuallyDrop::new(self.wire);
        // SAFETY: as in `release`: `owner` came from `into_raw`, and the reference that `wire` held is taken over.
        match Arc::try_unwrap(unsafe { Arc::<Owner>::from_raw(owner.cast()) }) {
            Ok(owner) => owner.downcast().map(|owner| (wire.data(), *owner)).map_err(|owner| {
                let owner = Arc::into_raw(Arc::<Owner>::new(owner)).cast();
                // SAFETY: the same memory and owner as before.
                Self { wire: unsafe { WireBuffer::new((wire.data(), wire.len()), (CPU, 0), owner, retain, release) } }
            }),
            Err(shared) => {
                // The reference goes back to `wire`.
                let _ = Arc::into_raw(shared);
                Err(Self { wire: std::mem::ManuallyDrop::into_inner(wire) })
            }
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.wire.len()
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.wire.len() == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        if self.is_empty() {
            // Nothing, at an address that suits all elements.
            // SAFETY: no byte is read of an empty slice.
            return unsafe { std::slice::from_raw_parts(NonNull::<Aligned>::dangling().as_ptr().cast(), 0) };
        }
        // SAFETY: `from_owner` and `import` require readable, immutable memory of this length while the owner lives.
        unsafe { std::slice::from_raw_parts(self.wire.data(), self.wire.len()) }
    }

    /// The memory as elements, if its length is a multiple of their size, and its address one of their alignment.
    pub fn try_cast<T: bytemuck::Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.as_slice()).ok()
    }

    pub(crate) fn cast<T: bytemuck::Pod>(&self) -> &[T] {
        self.try_cast().expect("length and address were checked when the tensor or column was made")
    }

    /// Whether the two share their memory.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.wire.data(), other.wire.data()) && self.len() == other.len()
    }

    /// Hands out a reference. A buffer that came from elsewhere goes on with its own owner, so that a tensor that
    /// crosses many times gathers no layers.
    pub(crate) fn export(&self) -> WireBuffer {
        self.wire.clone()
    }

    #[cfg(test)]
    fn export_parts(self) -> (*const (), extern "C" fn(*const ())) {
        std::mem::ManuallyDrop::new(self.wire).owner()
    }

    pub(crate) fn import(wire: WireBuffer) -> Result<Self, String> {
        let (device, _) = wire.device();
        if device != CPU {
            return Err(format!("lies on a device of type {device}, and only CPU memory can be read"));
        }
        if wire.data().is_null() && wire.len() > 0 {
            return Err(format!("has {} bytes at no address", wire.len()));
        }
        if wire.len() > isize::MAX as usize {
            return Err(format!("claims {} bytes", wire.len()));
        }
        Ok(Self { wire })
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self { wire: self.wire.clone() }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {:?}", self.wire.len(), self.wire.data())
    }
}

#[repr(align(64))]
struct Aligned;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counted(Vec<u8>, Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_last_holder_releases_and_nobody_copies() {
        let drops = Arc::new(AtomicUsize::new(0));
        let memory = Counted(vec![7; 256], drops.clone());
        let start = memory.0.as_ptr().align_offset(ALIGNMENT);
        let data = memory.0[start..].as_ptr();
        // SAFETY: the vector is immutable and lives in the owner; `start` aligns the pointer.
        let buffer = unsafe { Buffer::from_owner(data, 64, memory) };
        // There and back a thousand times: the same memory, no layers of owners.
        let mut there = buffer.clone();
        for _ in 0..1000 {
            there = Buffer::import(there.export()).unwrap();
        }
        assert!(there.is_same(&buffer));
        drop(buffer);
        assert_eq!(there.as_slice(), [7; 64]);
        assert_eq!(drops.load(Ordering::SeqCst), 0);
        drop(there);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    /// Panics while it is dropped, with a payload that does so too.
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 { std::panic::panic_any(Bomb(false)) } else { panic!("again") }
        }
    }

    #[test]
    fn an_owner_that_panics_while_it_is_dropped_harms_nobody() {
        // SAFETY: no byte.
        drop(unsafe { Buffer::from_owner(std::ptr::null(), 0, Bomb(true)) });
    }

    #[test]
    fn only_the_last_holder_takes_memory_back_and_only_as_what_it_was() {
        let buffer = TensorBuf::copy_of(&[1.0_f32, 2.0]).into_buffer();
        let other = Buffer::import(buffer.export()).unwrap();
        let buffer = buffer.into_owner::<Vec<u8>>().unwrap_err();
        let buffer = buffer.into_owner::<Arc<String>>().unwrap_err();
        assert!(buffer.is_same(&other));
        drop(buffer);
        let other = other.into_owner::<Vec<u8>>().unwrap_err();
        assert_eq!(other.try_cast::<f32>().unwrap(), [1.0, 2.0]);
        let drops = Arc::new(AtomicUsize::new(0));
        // SAFETY: no byte.
        let counted = unsafe { Buffer::from_owner(std::ptr::null(), 0, Counted(Vec::new(), drops.clone())) };
        let (_, counted) = counted.into_owner::<Counted>().unwrap();
        assert_eq!(drops.load(Ordering::SeqCst), 0);
        drop(counted);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn memory_that_begins_anywhere_is_read_as_what_its_address_allows() {
        let memory = vec![1_u8; 256];
        let aligned = memory.as_ptr().align_offset(ALIGNMENT);
        for offset in 0..ALIGNMENT {
            let data = memory[aligned + offset..].as_ptr();
            // SAFETY: 64 of the vector's bytes; its clone's owner keeps nothing that they need, and it lives until the end.
            let buffer = unsafe { Buffer::from_owner(data, 64, ()) };
            let there = Buffer::import(buffer.export()).unwrap();
            assert_eq!(there.as_slice(), [1; 64]);
            assert_eq!(there.try_cast::<f64>().is_some(), offset % 8 == 0);
            assert_eq!(there.try_cast::<f32>().is_some(), offset % 4 == 0);
            assert_eq!(there.try_cast::<half::f16>().is_some(), offset % 2 == 0);
        }
        // Nothing is nowhere, and suits all.
        // SAFETY: no byte.
        let nothing = unsafe { Buffer::from_owner(std::ptr::null(), 0, ()) };
        assert_eq!(Buffer::import(nothing.export()).unwrap().try_cast::<f64>().unwrap(), [0.0; 0]);
    }

    #[test]
    fn memory_is_aligned_and_foreign_lies_are_refused() {
        for count in [0, 1, 3, 1000] {
            let buffer = Buffer::copy_of(&vec![1.0_f32; count]);
            assert_eq!(buffer.as_slice().as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(buffer.try_cast::<f32>().unwrap().len(), count);
        }
        let lie = |data: *const u8, len, device| {
            let (owner, release) = Buffer::copy_of(&[0_u8; 65]).export_parts();
            // SAFETY: nobody reads it, since it is refused.
            let wire = unsafe { WireBuffer::new((data, len), (device, 0), owner, retain, release) };
            Buffer::import(wire).unwrap_err()
        };
        let data = Buffer::copy_of(&[0_u8]).as_slice().as_ptr();
        assert!(lie(std::ptr::null(), 65, CPU).contains("at no address"));
        assert!(lie(data, usize::MAX, CPU).contains("claims"));
        assert!(lie(data, 65, 2).contains("type 2"));
    }
}
