//! Immutable, reference-counted memory that may belong to another library.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use fedplug_abi::{CPU, WireBuffer};

use crate::boundary::guard;
use crate::numeric::TensorBuf;

/// The alignment of every buffer that this library allocates, in bytes: a cache line, and the widest vector register.
/// Memory from elsewhere may start at any address. It can be read as elements if it starts at a multiple of their size.
pub const ALIGNMENT: usize = 64;

/// A piece of immutable memory. A clone shares it; dropping the last one releases it, in the library that made it.
///
/// It is CPU memory. The wire format has room for other devices.
pub struct Buffer {
    wire: WireBuffer,
}

/// What a buffer of this library keeps alive.
type Owner = Box<dyn Any + Send + Sync>;

extern "C" fn retain(owner: *const ()) {
    // SAFETY: `owner` came from `Arc::<Owner>::into_raw` in this library's `from_owner`, which also stored this
    // function's address.
    unsafe { Arc::<Owner>::increment_strong_count(owner.cast()) };
}

extern "C" fn release(owner: *const ()) {
    // A panic must not unwind into a foreign caller, and after a panic in `release` there is nothing left to save.
    // SAFETY: as in `retain`; the caller gives up its one reference.
    guard::quietly(|| drop(unsafe { Arc::<Owner>::from_raw(owner.cast()) }));
}

/// [`release`] at one address. A function may have several, and `into_owner` knows the buffers of this library by it.
static RELEASE: extern "C" fn(*const ()) = release;

impl Buffer {
    /// Shares memory that `owner` keeps alive, without copying it: for example a plugin's own tensor or a mapped file.
    ///
    /// It may start at any address, so a mapped file, an Arrow buffer or a NumPy array will do. A tensor over it needs
    /// an address that is a multiple of its element size. Multiples of [`ALIGNMENT`] are the fastest to read.
    ///
    /// # Safety
    /// Unless `len` is 0, `data` must point to `len` initialised bytes, at most `isize::MAX`, that are not written to
    /// while `owner` lives. Moving `owner` must leave the pointer valid. A `Vec` or an `Arc` qualifies; a `Box` does
    /// not, since it must be the only path to its memory.
    pub unsafe fn from_owner(data: *const u8, len: usize, owner: impl Any + Send + Sync) -> Self {
        let owner: Owner = Box::new(owner);
        let owner = Arc::into_raw(Arc::new(owner)).cast();
        // SAFETY: the caller promises the memory; `retain` and `release` match this kind of owner.
        Self { wire: unsafe { WireBuffer::new((data, len), (CPU, 0), owner, retain, RELEASE) } }
    }

    /// Allocates zeroed memory for `count` elements, and lets `fill` write it.
    ///
    /// # Panics
    /// If the size overflows. Aborts if memory runs out, as every allocation does.
    pub fn build<T: bytemuck::Pod>(count: usize, fill: impl FnOnce(&mut [T])) -> Self {
        let mut buf = TensorBuf::zeroed(count);
        fill(buf.as_mut_slice());
        buf.into_buffer()
    }

    /// A buffer with a copy of `elements`.
    pub fn copy_of<T: bytemuck::Pod>(elements: &[T]) -> Self {
        TensorBuf::copy_of(elements).into_buffer()
    }

    /// The owner of the memory and the pointer that came with it, if this library made the buffer from an owner of this
    /// type and there is no other reference. Otherwise returns the buffer unchanged.
    pub(crate) fn into_owner<O: Any + Send + Sync>(self) -> Result<(*const u8, O), Self> {
        let (owner, theirs) = self.wire.owner();
        // This library may only take apart its own owners.
        if !std::ptr::fn_addr_eq(theirs, RELEASE) {
            return Err(self);
        }
        let wire = std::mem::ManuallyDrop::new(self.wire);
        // SAFETY: as in `release`: `owner` came from `into_raw`, and this takes over the reference that `wire` held.
        match Arc::try_unwrap(unsafe { Arc::<Owner>::from_raw(owner.cast()) }) {
            Ok(owner) => owner.downcast().map(|owner| (wire.data(), *owner)).map_err(|owner| {
                let owner = Arc::into_raw(Arc::<Owner>::new(owner)).cast();
                // SAFETY: the same memory and owner as before.
                Self { wire: unsafe { WireBuffer::new((wire.data(), wire.len()), (CPU, 0), owner, retain, RELEASE) } }
            }),
            Err(shared) => {
                // `wire` keeps the reference.
                let _ = Arc::into_raw(shared);
                Err(Self { wire: std::mem::ManuallyDrop::into_inner(wire) })
            }
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.wire.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.wire.len() == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        if self.is_empty() {
            // An empty slice, at an address aligned for any element.
            // SAFETY: an empty slice reads no bytes.
            return unsafe { std::slice::from_raw_parts(NonNull::<Aligned>::dangling().as_ptr().cast(), 0) };
        }
        // SAFETY: `from_owner` and `import` require readable, immutable memory of this length while the owner lives.
        unsafe { std::slice::from_raw_parts(self.wire.data(), self.wire.len()) }
    }

    /// The memory as elements, if its length is a multiple of their size and its address is aligned for them.
    pub fn try_cast<T: bytemuck::Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.as_slice()).ok()
    }

    pub(crate) fn cast<T: bytemuck::Pod>(&self) -> &[T] {
        self.try_cast().expect("length and address were checked when the tensor or column was made")
    }

    /// Whether both share the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.wire.data(), other.wire.data()) && self.len() == other.len()
    }

    /// Exports a reference. A buffer from elsewhere keeps its own owner, so a tensor that crosses many times gains no
    /// layers.
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
            return Err(format!("is on a device of type {device}, but only CPU memory can be read"));
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
        // Cross a thousand times: the same memory, no layers of owners.
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

    /// Panics when dropped, with a payload that panics when dropped too.
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 { std::panic::panic_any(Bomb(false)) } else { panic!("again") }
        }
    }

    #[test]
    fn an_owner_that_panics_while_it_is_dropped_harms_nobody() {
        // SAFETY: there are no bytes.
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
        // SAFETY: there are no bytes.
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
            // SAFETY: these are 64 of the vector's bytes. The owner need not keep them alive, since the vector lives
            // until the end of the test.
            let buffer = unsafe { Buffer::from_owner(data, 64, ()) };
            let there = Buffer::import(buffer.export()).unwrap();
            assert_eq!(there.as_slice(), [1; 64]);
            assert_eq!(there.try_cast::<f64>().is_some(), offset % 8 == 0);
            assert_eq!(there.try_cast::<f32>().is_some(), offset % 4 == 0);
            assert_eq!(there.try_cast::<half::f16>().is_some(), offset % 2 == 0);
        }
        // Empty memory has no address and suits every element type.
        // SAFETY: there are no bytes.
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
            // SAFETY: the buffer is refused, so it is never read.
            let wire = unsafe { WireBuffer::new((data, len), (device, 0), owner, retain, release) };
            Buffer::import(wire).unwrap_err()
        };
        let data = Buffer::copy_of(&[0_u8]).as_slice().as_ptr();
        assert!(lie(std::ptr::null(), 65, CPU).contains("at no address"));
        assert!(lie(data, usize::MAX, CPU).contains("claims"));
        assert!(lie(data, 65, 2).contains("type 2"));
    }
}
