//! The functions of NVIDIA's driver that load kernels and queue them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// The driver's library.
const NAME: &str = "libcuda.so.1";

// Numbers of `cuda.h`.
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

/// A handle of the driver, such as a context. Any thread may use it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(pub(super) *mut c_void);

// SAFETY: the driver's functions may be called by any thread, with any thread's handles.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The functions, of a library that is never unloaded. Each returns an error's number, or 0.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) init: unsafe extern "C" fn(c_uint) -> c_int,
    pub(super) error_string: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
    pub(super) device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    pub(super) attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    pub(super) retain_context: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    pub(super) push_context: unsafe extern "C" fn(Handle) -> c_int,
    pub(super) pop_context: unsafe extern "C" fn(*mut Handle) -> c_int,
    pub(super) load: unsafe extern "C" fn(*mut Handle, *const c_void) -> c_int,
    pub(super) function: unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> c_int,
    pub(super) launch: unsafe extern "C" fn(
        Handle,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        *mut c_void,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_int,
}

impl Driver {
    /// The machine's, opened once.
    ///
    /// # Errors
    /// If there is none, or it lacks a function.
    pub(super) fn get() -> Result<&'static Self, String> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, String> {
        let failed = |error: libloading::Error| format!("`{NAME}`: {error}");
        // SAFETY: NVIDIA's driver, which libtorch's CUDA library has loaded before.
        let library = unsafe { Library::open(Some(NAME), RTLD_NOW | RTLD_LOCAL) }.map_err(failed)?;
        // SAFETY: the functions of `cuda.h`, with their types, in the versions that CUDA 12 and 13 declare.
        let functions = unsafe {
            let get = || -> Result<Self, libloading::Error> {
                Ok(Self {
                    init: *library.get(b"cuInit\0")?,
                    error_string: *library.get(b"cuGetErrorString\0")?,
                    device: *library.get(b"cuDeviceGet\0")?,
                    attribute: *library.get(b"cuDeviceGetAttribute\0")?,
                    retain_context: *library.get(b"cuDevicePrimaryCtxRetain\0")?,
                    push_context: *library.get(b"cuCtxPushCurrent_v2\0")?,
                    pop_context: *library.get(b"cuCtxPopCurrent_v2\0")?,
                    load: *library.get(b"cuModuleLoadData\0")?,
                    function: *library.get(b"cuModuleGetFunction\0")?,
                    launch: *library.get(b"cuLaunchKernel\0")?,
                })
            };
            get().map_err(failed)?
        };
        std::mem::forget(library);
        Ok(functions)
    }

    /// The text of an error's number, which lives as long as the driver; null of 0.
    pub(super) fn message(&self, code: c_int) -> *const c_char {
        if code == 0 {
            return std::ptr::null();
        }
        let mut text = std::ptr::null();
        // SAFETY: it writes a text of the driver's, or null.
        unsafe { (self.error_string)(code, &raw mut text) };
        if text.is_null() { c"an unknown CUDA error".as_ptr() } else { text }
    }

    /// # Errors
    /// That of the driver, if `code` is one.
    fn check(&self, code: c_int) -> Result<(), String> {
        let message = self.message(code);
        if message.is_null() {
            return Ok(());
        }
        // SAFETY: a null-terminated text.
        Err(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
    }

    /// A GPU's number in the driver.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub(super) fn find(&self, gpu: i8) -> Result<c_int, String> {
        let mut device = 0;
        // SAFETY: they take and write numbers.
        unsafe {
            self.check((self.init)(0))?;
            self.check((self.device)(&raw mut device, c_int::from(gpu)))?;
        }
        Ok(device)
    }

    /// The architecture of a GPU, as NVRTC names it: `sm_90`.
    ///
    /// # Errors
    /// If the driver fails.
    pub(super) fn architecture(&self, device: c_int) -> Result<String, String> {
        let read = |attribute| {
            let mut value = 0;
            // SAFETY: it takes and writes numbers.
            self.check(unsafe { (self.attribute)(&raw mut value, attribute, device) }).map(|()| value)
        };
        Ok(format!("sm_{}{}", read(COMPUTE_CAPABILITY_MAJOR)?, read(COMPUTE_CAPABILITY_MINOR)?))
    }

    /// The context of a GPU that libtorch uses too. It is kept for ever.
    ///
    /// # Errors
    /// If the driver fails.
    pub(super) fn context(&self, device: c_int) -> Result<Handle, String> {
        let mut context = Handle(null_mut());
        // SAFETY: it writes a handle.
        self.check(unsafe { (self.retain_context)(&raw mut context, device) }).map(|()| context)
    }

    /// The functions of these names in a CUBIN, which stays loaded in the context for ever.
    ///
    /// # Errors
    /// If the driver fails, or there is no function of a name.
    pub(super) fn functions(&self, context: Handle, cubin: &[u8], names: &[&CStr]) -> Result<Vec<Handle>, String> {
        let load = || {
            let mut module = Handle(null_mut());
            // SAFETY: a whole CUBIN, which the driver copies.
            self.check(unsafe { (self.load)(&raw mut module, cubin.as_ptr().cast()) })?;
            let find = |name: &&CStr| {
                let mut function = Handle(null_mut());
                // SAFETY: a module and a null-terminated name; it writes a handle.
                let found = self.check(unsafe { (self.function)(&raw mut function, module, name.as_ptr()) });
                found.map(|()| function).map_err(|error| format!("`{}`: {error}", name.to_string_lossy()))
            };
            names.iter().map(find).collect()
        };
        self.within(context, load)?
    }

    /// Makes the context this thread's current one during `work`.
    ///
    /// # Errors
    /// If the driver fails.
    pub(super) fn within<T>(&self, context: Handle, work: impl FnOnce() -> T) -> Result<T, String> {
        // SAFETY: a context of the driver, which is taken off again.
        self.check(unsafe { (self.push_context)(context) })?;
        let done = work();
        let mut top = Handle(null_mut());
        // SAFETY: it writes a handle.
        self.check(unsafe { (self.pop_context)(&raw mut top) }).map(|()| done)
    }
}
