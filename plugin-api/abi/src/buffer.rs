//! Immutable, reference-counted memory. The library that allocated it also releases it.

use abi_stable::StableAbi;

/// DLPack's device type for the CPU.
pub const CPU: i32 = 1;

/// A piece of memory. Each value holds one reference to its owner.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireBuffer {
    data: *const u8,
    len: usize,
    /// DLPack's device type. Interface 1 supports only 1, the CPU.
    device_type: i32,
    device_id: i32,
    owner: *const (),
    retain: extern "C" fn(*const ()),
    release: extern "C" fn(*const ()),
}

// SAFETY: `new` requires memory that is never written to, and functions that any thread may call.
unsafe impl Send for WireBuffer {}
// SAFETY: as above.
unsafe impl Sync for WireBuffer {}

impl WireBuffer {
    /// Takes over one reference to `owner`.
    ///
    /// # Safety
    /// `data` must point to `len` initialised bytes on the device, which must not change while a reference to `owner`
    /// is held. `retain` adds a reference and `release` drops one; both must be callable from any thread and must not
    /// unwind.
    pub unsafe fn new(
        (data, len): (*const u8, usize),
        (device_type, device_id): (i32, i32),
        owner: *const (),
        retain: extern "C" fn(*const ()),
        release: extern "C" fn(*const ()),
    ) -> Self {
        Self { data, len, device_type, device_id, owner, retain, release }
    }

    /// The address of the first byte.
    pub fn data(&self) -> *const u8 {
        self.data
    }

    /// The length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "it is no container")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// DLPack's device type and the device number.
    pub fn device(&self) -> (i32, i32) {
        (self.device_type, self.device_id)
    }

    /// The owner and its `release` function. Together they identify who owns the memory.
    pub fn owner(&self) -> (*const (), extern "C" fn(*const ())) {
        (self.owner, self.release)
    }
}

impl Drop for WireBuffer {
    fn drop(&mut self) {
        (self.release)(self.owner);
    }
}

impl Clone for WireBuffer {
    fn clone(&self) -> Self {
        (self.retain)(self.owner);
        Self { ..*self }
    }
}
