//! Which devices there are.
//!
//! The plugin is linked against libtorch's CPU library alone, so that one build loads on every machine. Where there is
//! a GPU, libtorch's CUDA library is opened beside it before the first use of libtorch, and registers itself.

#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use plugin_api::{Error, Result};
use tch::{Cuda, Device};

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

/// Lets products of this process's GPUs read 19 of 32 bits. tch has no call for it, so libtorch's own is looked up.
#[cfg(target_os = "linux")]
pub(crate) fn allow_tf32() -> Result<()> {
    use libloading::os::unix::{Library, RTLD_NOW};

    let missing = |e| {
        let error = Error::config("TensorFloat-32 cannot be switched on with this libtorch").at_key("precision");
        error.because(&e).help("take `fp32` or `bf16`")
    };
    // By its name the one that is loaded already is found; it is never unloaded.
    // SAFETY: the two symbols are `at::globalContext()` and `at::Context::setAllowTF32CuBLAS(bool)` of the libtorch that
    // this plugin is linked against, of the one version that tch is made for; the types are theirs, a reference being a
    // pointer and a member function's object its first argument.
    unsafe {
        let libtorch = Library::open(Some("libtorch_cpu.so"), RTLD_NOW).map_err(missing)?;
        let context =
            libtorch.get::<unsafe extern "C" fn() -> *mut ()>(b"_ZN2at13globalContextEv\0").map_err(missing)?;
        let set = libtorch.get::<unsafe extern "C" fn(*mut (), bool)>(b"_ZN2at7Context18setAllowTF32CuBLASEb\0");
        (set.map_err(missing)?)(context(), true);
        std::mem::forget(libtorch);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn allow_tf32() -> Result<()> {
    Err(Error::config("TensorFloat-32 is used on Linux only").at_key("precision").help("take `fp32` or `bf16`"))
}

/// Opens the CUDA library, once in a process; otherwise says why not.
fn cuda_library() -> Result<(), String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED.get_or_init(open_cuda_library).clone()
}

#[cfg(target_os = "linux")]
fn open_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    let driver = ["/dev/nvidiactl", "/dev/nvidia0"].iter().any(|path| Path::new(path).exists());
    if !driver {
        return Err("no NVIDIA driver is loaded".to_owned());
    }
    let path = beside_libtorch()?;
    // SAFETY: the library is libtorch's own, of the version that this plugin is linked against; its initialisers
    // register CUDA with the libtorch that is already loaded. It is never unloaded.
    match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
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

    /// Where there is no GPU it changes nothing, but it has to be found.
    #[test]
    #[cfg(target_os = "linux")]
    fn tensor_float_32_can_be_switched_on() {
        allow_tf32().unwrap();
    }

    #[test]
    fn the_cpu_is_always_there_and_others_are_named() {
        assert_eq!(devices()[0], "cpu");
        assert_eq!(find("cpu").unwrap(), Device::Cpu);
        let error = find("cuda:4096").unwrap_err();
        assert!(error.hint().unwrap().contains("`cpu`"), "{error}");
        assert!(find("gpu").is_err());
    }
}
