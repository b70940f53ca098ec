//! Which devices there are.
//!
//! The plugin is linked against libtorch's CPU library alone, so that one build loads on every machine. Where there is
//! a GPU, libtorch's CUDA library is opened beside it before the first use of libtorch, and registers itself.

#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use plugin_api::{Error, Result};
use tch::{Cuda, Device};

use crate::native::{OnStream, Stream};

/// The devices of this machine, as an experiment names them.
pub(crate) fn devices() -> Vec<String> {
    let _ = cuda_library();
    let gpus = (0..Cuda::device_count().max(0)).map(|i| format!("cuda:{i}"));
    std::iter::once("cpu".to_owned()).chain(gpus).collect()
}

/// The device of this name, if it exists.
pub(crate) fn find(name: &str) -> Result<Device> {
    let library = cuda_library();
    let known = devices();
    if !known.iter().any(|device| device == name) {
        let known: Vec<_> = known.iter().map(|device| format!("`{device}`")).collect();
        let mut error = Error::config(format!("there is no device `{name}`"))
            .help(format!("this machine has: {}", known.join(", ")));
        if let (true, Err(cause)) = (name.starts_with("cuda"), library) {
            error = error.because_of(cause);
        }
        return Err(error);
    }
    match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
        Some(number) => Ok(Device::Cuda(number)),
        None => Ok(Device::Cpu),
    }
}

/// Where an instance computes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// The instance's own queue of a GPU's work, so that clients on one GPU do not wait for one another.
    stream: Option<Stream>,
    /// Whether the parameters' numbers lie in this process's memory, and are computed with by [`crate::cpu`].
    pub(crate) here: bool,
}

impl Place {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, stream: None, here: true }
    }

    /// A device.
    ///
    /// # Errors
    /// If a GPU has no stream for it.
    pub fn of(device: Device) -> Result<Self> {
        match device {
            Device::Cuda(number) => Ok(Self { device, stream: Some(Stream::of_gpu(number)?), here: false }),
            Device::Cpu => Ok(Self::cpu()),
            _ => Ok(Self { device, stream: None, here: false }),
        }
    }

    /// The CPU, treated as what is treated like a GPU.
    #[cfg(test)]
    pub(crate) fn as_if_elsewhere() -> Self {
        Self { here: false, ..Self::cpu() }
    }

    /// Lets this thread's work go to the instance's stream until what is returned is dropped.
    pub(crate) fn enter(&self) -> Result<Option<OnStream>> {
        self.stream.map(Stream::enter).transpose()
    }

    /// Waits until all copies that were begun are done.
    pub(crate) fn wait(&self) -> Result<()> {
        self.stream.map_or(Ok(()), Stream::wait)
    }

    /// The most bytes of a GPU that this process's tensors had at a time.
    pub(crate) fn peak_bytes(&self) -> Result<Option<i64>> {
        self.stream.map(Stream::peak_bytes).transpose()
    }
}

/// Opens the CUDA library, once in a process; otherwise says why not.
fn cuda_library() -> Result<(), String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED.get_or_init(open_cuda_library).clone()
}

#[cfg(target_os = "linux")]
fn open_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

    let driver = ["/dev/nvidiactl", "/dev/nvidia0"].iter().any(|path| Path::new(path).exists());
    if !driver {
        return Err("no NVIDIA driver is loaded".to_owned());
    }
    let path = beside_libtorch()?;
    // SAFETY: the library is libtorch's own, of the version that this plugin is linked against; its initialisers
    // register CUDA with the libtorch that is already loaded. It is never unloaded.
    match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!("`{}` could not be opened: {error}", path.display())),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_cuda_library() -> Result<(), String> {
    Err("CUDA is used on Linux only".to_owned())
}

/// Where `libtorch_cuda.so` lies: `FEDPLUG_LIBTORCH_CUDA`, or beside the loaded libtorch. By its real path, since it
/// finds its CUDA packages relative to itself.
#[cfg(target_os = "linux")]
fn beside_libtorch() -> Result<PathBuf, String> {
    let wanted = if let Some(path) = std::env::var_os("FEDPLUG_LIBTORCH_CUDA") {
        PathBuf::from(path)
    } else {
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("`/proc/self/maps`: {e}"))?;
        let loaded = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
        let libtorch = loaded.map(PathBuf::from).find(|path| path.ends_with("libtorch_cpu.so"));
        libtorch.ok_or("libtorch is linked statically")?.with_file_name("libtorch_cuda.so")
    };
    wanted.canonicalize().map_err(|e| format!("`{}`: {e}", wanted.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_others_are_named() {
        assert_eq!(devices()[0], "cpu");
        assert_eq!(find("cpu").unwrap(), Device::Cpu);
        let error = find("cuda:4096").unwrap_err();
        assert!(error.hint().unwrap().contains("`cpu`"), "{error}");
        assert!(find("gpu").is_err());
    }
}
