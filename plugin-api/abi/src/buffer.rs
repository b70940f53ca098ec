//! Memory that is immutable, shared by reference count, and released by the library that made it.

use abi_stable::StableAbi;

/// DLPack's device type of the CPU.
pub const CPU: i32 = 1;

/// A piece of memory. Whoever holds one holds one reference of its owner.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireBuffer {
    data: *const u8,
    len: usize,
    /// DLPack's device type: 1 is the CPU, and the only one that interface 1 carries.
    device_type: i32,
    device_id: i32,
    owner: *const (),
    retain: extern "C" fn(*const ()),
    release: extern "C" fn(*const ()),
}

// SAFETY: `new` requires memory that nobody writes to, and functions that any thread may call.
unsafe impl Send for WireBuffer {}
// SAFETY: as above.
unsafe impl Sync for WireBuffer {}

impl WireBuffer {
    /// Takes over one reference of `owner`.
    ///
    /// # Safety
    /// `data` must point to `len` initialised bytes on the device, which stay as they are as long as a reference of `owner`
    /// is held. `retain` adds a reference and `release` takes one away, from any thread and without unwinding.
    pub unsafe fn new(
        (data, len): (*const u8, usize),
        (device_type, device_id): (i32, i32),
        owner: *const (),
        retain: extern "C" fn(*const ()),
        release: extern "C" fn(*const ()),
    ) -> Self {
        Self { data, len, device_type, device_id, owner, retain, release }
    }

    /// Where it begins.
    pub fn data(&self) -> *const u8 {
        self.data
    }

    /// How many bytes it has.
    #[expect(clippy::len_without_is_empty, reason = "it is no container")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// DLPack's device type and the device's number.
    pub fn device(&self) -> (i32, i32) {
        (self.device_type, self.device_id)
    }

    /// Its owner, and the function that gives a reference of it back: whose the memory is.
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
