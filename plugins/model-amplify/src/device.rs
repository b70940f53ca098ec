//! The devices of this machine, and where a model computes.
//!
//! The plugin links libtorch's CPU library alone, so that one build loads on every machine. Where there is a GPU, it opens
//! libtorch's CUDA library before anything asks libtorch for CUDA: libtorch remembers the first answer.

use std::ffi::c_void;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;

use libloading::Library;
use plugin_api::{Error, Result};
use tch::{Cuda, Device};

use crate::fused::{self, Kernels};
use crate::native;
use crate::streams::StreamGuard;

/// The names of this machine's devices: `cpu`, `cuda:0`, ….
pub(crate) fn devices() -> Vec<String> {
    let gpus = (0..gpu_count()).map(|i| format!("cuda:{i}"));
    std::iter::once("cpu".to_owned()).chain(gpus).collect()
}

/// How many GPUs libtorch can use. Opens the CUDA library first.
pub(crate) fn gpu_count() -> i64 {
    // `find` reports why there is none.
    let _ = cuda_library();
    Cuda::device_count().max(0)
}

/// The device of this name.
///
/// # Errors
/// If this machine has no such device.
pub(crate) fn find(name: &str) -> Result<Device> {
    let known = devices();
    if !known.iter().any(|device| device == name) {
        let known: Vec<_> = known.iter().map(|device| format!("`{device}`")).collect();
        let mut error = Error::config(format!("there is no device `{name}`"))
            .help(format!("this machine has: {}", known.join(", ")));
        if let (true, Err(cause)) = (name.starts_with("cuda"), cuda_library()) {
            error = error.because_of(cause);
        }
        return Err(error);
    }
    match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
        Some(number) => Ok(Device::Cuda(number)),
        None => Ok(Device::Cpu),
    }
}

/// Where a model computes.
#[derive(Clone, Copy, Debug)]
pub struct DeviceContext {
    /// libtorch's device.
    pub device: Device,
    /// Whether parameters are in host memory, where [`fedplug_amplify_cpu`] can compute with them.
    pub(crate) on_host: bool,
    /// Fused kernels, if they were asked for and the device has them.
    pub(crate) kernels: Option<Kernels>,
}

impl DeviceContext {
    /// The CPU.
    pub fn cpu() -> Self {
        Self::new(Device::Cpu)
    }

    /// For a device.
    pub fn new(device: Device) -> Self {
        Self { device, on_host: device == Device::Cpu, kernels: None }
    }

    /// With fused kernels, on a GPU that can have them; `on_failure` gets the reason why not, once per process. The CPU has none.
    pub(crate) fn with_kernels(self, on_failure: impl FnOnce(&str)) -> Self {
        let kernels = self.gpu().map_or(self.kernels, |gpu| fused::of_gpu(gpu, on_failure));
        Self { kernels, ..self }
    }

    /// The CPU, used like a GPU: parameters in libtorch's memory, and all computation in libtorch.
    #[cfg(test)]
    pub(crate) fn simulated_gpu() -> Self {
        Self { on_host: false, kernels: Some(Kernels::on_host()), ..Self::cpu() }
    }

    /// The number of the GPU, if it is one.
    pub(crate) fn gpu(&self) -> Option<i8> {
        match self.device {
            Device::Cuda(number) => i8::try_from(number).ok(),
            _ => None,
        }
    }

    /// Puts this thread on a stream of the GPU until the guard is dropped. None on the CPU, and if the thread is on one
    /// already.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn enter(&self) -> Result<Option<StreamGuard>> {
        self.gpu().map_or(Ok(None), StreamGuard::enter)
    }

    /// Waits for all work of this thread's stream.
    ///
    /// # Errors
    /// If libtorch, or work that was started before, fails.
    pub(crate) fn wait(&self) -> Result<()> {
        self.gpu().map_or(Ok(()), native::wait)
    }

    /// The most bytes of the GPU that this process's tensors used at a time. None on the CPU.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn peak_bytes(&self) -> Result<Option<i64>> {
        self.gpu().map(native::peak_bytes).transpose()
    }

    /// The bytes of the GPU that new tensors can have. None on the CPU.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn free_bytes(&self) -> Result<Option<u64>> {
        self.gpu().map(|gpu| native::free_bytes(gpu).map(|bytes| bytes.max(0) as u64)).transpose()
    }

    /// Returns the unused memory that libtorch holds back for later tensors. Does nothing on the CPU.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn empty_cache(&self) -> Result<()> {
        self.gpu().map_or(Ok(()), |_| native::empty_cache())
    }

    /// As an experiment names it.
    pub(crate) fn name(&self) -> String {
        match self.device {
            Device::Cuda(number) => format!("cuda:{number}"),
            _ => "cpu".to_owned(),
        }
    }
}

/// Opens the CUDA library, once per process. The error says why it cannot be used.
fn cuda_library() -> Result<&'static Library, String> {
    static OPENED: OnceLock<Result<Library, String>> = OnceLock::new();
    OPENED.get_or_init(open_cuda_library).as_ref().map_err(String::clone)
}

/// The address of a function of the CUDA library.
///
/// # Errors
/// If there is no GPU, or no such function.
pub(crate) fn cuda_symbol(name: &str) -> Result<*mut c_void, String> {
    let library = cuda_library()?;
    // SAFETY: only the address is taken. The library is never closed.
    let found = unsafe { library.get::<*mut c_void>(name) };
    found.map(|symbol| *symbol).map_err(|error| error.to_string())
}

#[cfg(target_os = "linux")]
fn open_cuda_library() -> Result<Library, String> {
    use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

    let driver = ["/dev/nvidiactl", "/dev/nvidia0"].iter().any(|path| Path::new(path).exists());
    if !driver {
        return Err("no NVIDIA driver is loaded".to_owned());
    }
    let path = cuda_library_path()?;
    // It finds libtorch and CUDA through its own dependencies, so its symbols need not be global.
    // SAFETY: the library is libtorch's own, of the version that this plugin links; its initialisers register CUDA with the
    // loaded libtorch. It is never unloaded.
    let opened = unsafe { libloading::os::unix::Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
    opened.map(Library::from).map_err(|error| format!("`{}` could not be opened: {error}", path.display()))
}

#[cfg(not(target_os = "linux"))]
fn open_cuda_library() -> Result<Library, String> {
    Err("CUDA is supported on Linux only".to_owned())
}

/// The path of `libtorch_cuda.so`: `FEDPLUG_LIBTORCH_CUDA`, or beside the loaded libtorch. Links are resolved, since the
/// library finds CUDA's packages relative to its real path.
#[cfg(target_os = "linux")]
fn cuda_library_path() -> Result<PathBuf, String> {
    let path = if let Some(path) = std::env::var_os("FEDPLUG_LIBTORCH_CUDA") {
        PathBuf::from(path)
    } else {
        let libtorch = loaded_libraries()?.into_iter().find(|path| path.ends_with("libtorch_cpu.so"));
        libtorch.ok_or("libtorch is linked statically")?.with_file_name("libtorch_cuda.so")
    };
    path.canonicalize().map_err(|e| format!("`{}`: {e}", path.display()))
}

/// The files that this process has mapped, each once.
///
/// # Errors
/// If the system does not tell.
pub(crate) fn loaded_libraries() -> Result<Vec<PathBuf>, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("`/proc/self/maps`: {e}"))?;
    let mut paths: Vec<_> =
        maps.lines().filter_map(|line| line.find('/').map(|start| PathBuf::from(&line[start..]))).collect();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_always_a_device_and_unknown_devices_are_refused() {
        assert_eq!(devices()[0], "cpu");
        assert_eq!(find("cpu").unwrap(), Device::Cpu);
        let error = find("cuda:4096").unwrap_err();
        assert!(error.hint().unwrap().contains("`cpu`"), "{error}");
        assert!(find("gpu").is_err());
    }
}
