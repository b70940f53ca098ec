//! Loading and queueing, with functions in the driver's place whose GPU is the CPU.

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_uint};

use tch::Kind;

use super::*;
use crate::fused::check::cases;

/// The number of a GPU that no machine has.
const GPU: i8 = i8::MAX;
const CUBIN: &[u8] = b"a CUBIN";
const CONTEXT: usize = 0x100;
const MODULE: usize = 0x200;
/// Functions have their kernel's number from here on.
const FUNCTION: usize = 0x1000;
const STREAM: usize = 0x300;
/// `CUDA_ERROR_INVALID_CONTEXT`.
const INVALID_CONTEXT: c_int = 201;

thread_local! {
    /// The contexts that this thread has pushed.
    static CONTEXTS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

fn handle(number: usize) -> Handle {
    Handle(std::ptr::without_provenance_mut(number))
}

fn in_context() -> bool {
    CONTEXTS.with_borrow(|contexts| contexts.last() == Some(&handle(CONTEXT)))
}

static DRIVER: Driver = {
    unsafe extern "C" fn init(flags: c_uint) -> c_int {
        flags as c_int
    }
    unsafe extern "C" fn error_string(code: c_int, text: *mut *const c_char) -> c_int {
        let found = if code == INVALID_CONTEXT { c"invalid device context" } else { c"not found" };
        // SAFETY: room for a text.
        unsafe { *text = found.as_ptr() };
        0
    }
    unsafe extern "C" fn device(device: *mut c_int, number: c_int) -> c_int {
        // SAFETY: room for a number.
        unsafe { *device = number + 1000 };
        if number == c_int::from(GPU) { 0 } else { 101 }
    }
    unsafe extern "C" fn attribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
        // SAFETY: room for a number.
        unsafe { *value = if attribute == 75 { 9 } else { 0 } };
        if device == c_int::from(GPU) + 1000 && [75, 76].contains(&attribute) { 0 } else { 1 }
    }
    unsafe extern "C" fn retain_context(context: *mut Handle, _: c_int) -> c_int {
        // SAFETY: room for a handle.
        unsafe { *context = handle(CONTEXT) };
        0
    }
    unsafe extern "C" fn push_context(context: Handle) -> c_int {
        CONTEXTS.with_borrow_mut(|contexts| contexts.push(context));
        0
    }
    unsafe extern "C" fn pop_context(context: *mut Handle) -> c_int {
        let Some(top) = CONTEXTS.with_borrow_mut(Vec::pop) else { return INVALID_CONTEXT };
        // SAFETY: room for a handle.
        unsafe { *context = top };
        0
    }
    unsafe extern "C" fn load(module: *mut Handle, image: *const c_void) -> c_int {
        // SAFETY: the image has as many bytes, and there is room for a handle.
        let image = unsafe {
            *module = handle(MODULE);
            std::slice::from_raw_parts(image.cast::<u8>(), CUBIN.len())
        };
        if !in_context() {
            return INVALID_CONTEXT;
        }
        c_int::from(image != CUBIN)
    }
    unsafe extern "C" fn function(function: *mut Handle, module: Handle, name: *const c_char) -> c_int {
        // SAFETY: a null-terminated name.
        let name = unsafe { CStr::from_ptr(name) };
        let Some(number) = kernel_names().iter().position(|known| *known == name) else { return 500 };
        // SAFETY: room for a handle.
        unsafe { *function = handle(FUNCTION + number) };
        c_int::from(module != handle(MODULE))
    }
    #[allow(clippy::too_many_arguments, reason = "it has the driver's")]
    unsafe extern "C" fn launch(
        function: Handle,
        blocks: c_uint,
        _: c_uint,
        _: c_uint,
        threads: c_uint,
        _: c_uint,
        _: c_uint,
        shared_bytes: c_uint,
        stream: *mut c_void,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> c_int {
        if !in_context() {
            return INVALID_CONTEXT;
        }
        assert!(extra.is_null() && threads <= 256 && shared_bytes <= 48 << 10);
        let (host, kernel) = (Kernels::on_host().0, (function.0.addr() - FUNCTION) as u32);
        // SAFETY: the arguments of this kernel, for tensors of the CPU.
        let failure = unsafe { (host.launch)(host, kernel, blocks, threads, shared_bytes, stream, arguments) };
        c_int::from(!failure.is_null())
    }
    Driver { init, error_string, device, attribute, retain_context, push_context, pop_context, load, function, launch }
};

fn compile(architecture: &str) -> Result<Vec<u8>, String> {
    assert_eq!(architecture, "sm_90");
    Ok(CUBIN.to_vec())
}

#[test]
fn kernels_are_found_by_name_and_queued_in_the_context_of_their_gpu() {
    let gpu = slot(i32::from(GPU)).unwrap().get_or_init(|| Gpu::load(&DRIVER, GPU, compile)).as_ref().unwrap();
    assert_eq!(gpu.functions.len(), kernel_names().len());
    let kernels = Kernels(&gpu.launcher);
    for kind in [Kind::Float, Kind::BFloat16] {
        for case in cases(kernels, Device::Cpu, kind, 1288).unwrap() {
            case.check(1.0).unwrap();
        }
    }
    assert!(CONTEXTS.with_borrow(Vec::is_empty));
    // SAFETY: a kernel that does not exist, and a launcher without kernels.
    let messages = unsafe {
        let other = Launcher { launch, most_threads: 256, gpu: i32::from(GPU) - 1 };
        let stream = std::ptr::without_provenance_mut(STREAM);
        [(&gpu.launcher, 1000), (&other, 0)]
            .map(|(launcher, kernel)| CStr::from_ptr(launch(launcher, kernel, 1, 1, 0, stream, null_mut())))
    };
    assert_eq!(messages, [c"no such kernel", c"the GPU has no kernels"]);
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let failed = Gpu::load(&DRIVER, 3, compile).unwrap_err();
    assert_eq!(failed, "not found");
    let failed = Gpu::load(&DRIVER, GPU, |_| Err("NVRTC for sm_90: no".to_owned())).unwrap_err();
    assert_eq!(failed, "NVRTC for sm_90: no");
    let failed = Gpu::load(&DRIVER, GPU, |_| Ok(b"another".to_vec())).unwrap_err();
    assert_eq!(failed, "not found");
    let failed = DRIVER.functions(handle(CONTEXT), CUBIN, &[c"swiglu_f32", c"swiglu_f64"]).unwrap_err();
    assert_eq!(failed, "`swiglu_f64`: not found");
    assert!(CONTEXTS.with_borrow(Vec::is_empty));
}

/// This machine's GPU 127: without one, the reason is given once.
#[test]
fn a_gpu_without_kernels_is_reported_once() {
    let mut reasons = Vec::new();
    for _ in 0..2 {
        assert!(of_gpu(GPU - 1, |why| reasons.push(why.to_owned())).is_none());
    }
    assert!(reasons.len() == 1 && !reasons[0].is_empty(), "{reasons:?}");
}
