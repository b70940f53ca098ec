//! The kernels of each GPU of this process, compiled when they are first asked for.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use tch::Device;

use super::driver::{Driver, Handle};
use super::{Kernels, Launcher, SOURCE, check, kernel_names};

/// The GPUs that can have kernels: as many as libtorch knows at most.
const MOST_GPUS: usize = 128;

/// The kernels of each GPU, or why it has none.
static GPUS: [OnceLock<Result<Gpu, String>>; MOST_GPUS] = [const { OnceLock::new() }; MOST_GPUS];

/// The kernels of a GPU that were compared with the plain path.
static CHECKED: [OnceLock<Result<Kernels, String>>; MOST_GPUS] = [const { OnceLock::new() }; MOST_GPUS];

#[derive(Debug)]
struct Gpu {
    driver: &'static Driver,
    context: Handle,
    /// By the kernels' numbers.
    functions: Vec<Handle>,
    launcher: Launcher,
}

/// The kernels of this GPU, which are compiled and compared with the plain path first. `on_failure` gets the reason if
/// they cannot be used, once per process.
pub(crate) fn of_gpu(gpu: i8, on_failure: impl FnOnce(&str)) -> Option<Kernels> {
    let checked = CHECKED.get(usize::try_from(gpu).ok()?)?;
    let mut is_first = false;
    let kernels = checked.get_or_init(|| {
        is_first = true;
        let kernels = compiled(gpu)?;
        let device = Device::Cuda(usize::try_from(gpu).unwrap_or_default());
        check::compare(kernels, device, 4.0).map(|()| kernels)
    });
    match kernels {
        Ok(kernels) => Some(*kernels),
        Err(reason) => {
            if is_first {
                on_failure(reason);
            }
            None
        }
    }
}

fn compiled(gpu: i8) -> Result<Kernels, String> {
    let compile = |architecture: &str| super::compile(SOURCE, architecture);
    let loaded = slot(i32::from(gpu)).ok_or("no such GPU")?.get_or_init(|| Gpu::load(Driver::get()?, gpu, compile));
    loaded.as_ref().map(|gpu| Kernels(&gpu.launcher)).map_err(Clone::clone)
}

fn slot(gpu: i32) -> Option<&'static OnceLock<Result<Gpu, String>>> {
    GPUS.get(usize::try_from(gpu).ok()?)
}

impl Gpu {
    /// `compile` gives a CUBIN for an architecture.
    fn load(
        driver: &'static Driver,
        gpu: i8,
        compile: impl FnOnce(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let device = driver.find(gpu)?;
        let cubin = compile(&driver.architecture(device)?)?;
        let context = driver.context(device)?;
        let functions = driver.functions(context, &cubin, &kernel_names())?;
        let launcher = Launcher { launch, most_threads: 256, gpu: i32::from(gpu) };
        Ok(Self { driver, context, functions, launcher })
    }
}

/// Queues a kernel on a stream of the launcher's GPU. Returns null, or a text that is never freed.
///
/// # Safety
/// `launcher` must be that of a [`Gpu`] in [`GPUS`], and the arguments those of the kernel, in memory of that GPU,
/// which must live until the stream has come so far.
unsafe extern "C" fn launch(
    launcher: *const Launcher,
    kernel: u32,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    stream: *mut c_void,
    arguments: *mut *mut c_void,
) -> *const c_char {
    // SAFETY: the caller's promise.
    let number = unsafe { (*launcher).gpu };
    let Some(Ok(gpu)) = slot(number).and_then(OnceLock::get) else {
        return c"the GPU has no kernels".as_ptr();
    };
    let Some(&function) = gpu.functions.get(kernel as usize) else { return c"no such kernel".as_ptr() };
    let driver = gpu.driver;
    // SAFETY: a function of a loaded module, and the caller's promise. The driver copies the arguments.
    let queue = || unsafe {
        (driver.launch)(function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, arguments, null_mut())
    };
    match driver.within(gpu.context, queue) {
        Ok(code) => driver.message(code),
        Err(_) => c"the GPU's context cannot be used".as_ptr(),
    }
}

#[cfg(test)]
mod tests;
