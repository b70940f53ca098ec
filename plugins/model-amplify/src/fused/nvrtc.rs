//! NVRTC, NVIDIA's compiler in a library, which PyTorch for CUDA brings along.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::device::loaded_libraries;

/// Names of the library, the best first.
const NAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc.so.12"];

/// A program that is compiled: `nvrtcProgram`.
type Program = *mut c_void;

/// The functions of the library, which is never unloaded.
#[derive(Debug)]
pub(super) struct Nvrtc {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
}

impl Nvrtc {
    /// Opens the library: `FEDPLUG_NVRTC`, or beside the CUDA libraries that this process has loaded, or wherever the
    /// system finds it.
    ///
    /// # Errors
    /// One line for each place where it was looked for.
    pub(super) fn find() -> Result<Self, String> {
        let named = std::env::var_os("FEDPLUG_NVRTC").map(|path| vec![PathBuf::from(path)]);
        let mut failures = Vec::new();
        for path in named.unwrap_or_else(places) {
            match Self::open(&path) {
                Ok(library) => return Ok(library),
                Err(error) => failures.push(error),
            }
        }
        Err(format!("NVRTC could not be opened: {}", failures.join("; ")))
    }

    fn open(path: &Path) -> Result<Self, String> {
        open_builtins(path);
        let failed = |error: libloading::Error| format!("`{}`: {error}", path.display());
        // SAFETY: NVIDIA's library, whose initialisers have no conditions.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(failed)?;
        // SAFETY: the functions of `nvrtc.h`, with their types, which are the same in all versions since 11.1.
        let functions = unsafe {
            let get = || -> Result<Self, libloading::Error> {
                Ok(Self {
                    error_string: *library.get(b"nvrtcGetErrorString\0")?,
                    create: *library.get(b"nvrtcCreateProgram\0")?,
                    compile: *library.get(b"nvrtcCompileProgram\0")?,
                    destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                    log_size: *library.get(b"nvrtcGetProgramLogSize\0")?,
                    log: *library.get(b"nvrtcGetProgramLog\0")?,
                    cubin_size: *library.get(b"nvrtcGetCUBINSize\0")?,
                    cubin: *library.get(b"nvrtcGetCUBIN\0")?,
                })
            };
            get().map_err(failed)?
        };
        std::mem::forget(library);
        Ok(functions)
    }

    /// Compiles CUDA C++ for a GPU of this architecture, such as `sm_90`, to a CUBIN.
    ///
    /// # Errors
    /// The library's error, with the first lines of the compiler's log.
    pub(super) fn compile(&self, source: &str, architecture: &str) -> Result<Vec<u8>, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
        let options = options.map(|option| CString::new(option).unwrap_or_default());
        let options = options.each_ref().map(|option| option.as_ptr());
        let mut program = null_mut();
        // SAFETY: null-terminated texts that outlive the calls, and a program that is destroyed once. The sizes are
        // those of what is written.
        unsafe {
            let code = (self.create)(&raw mut program, source.as_ptr(), c"kernels.cu".as_ptr(), 0, null(), null());
            self.check(code)?;
            let code = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let compiled = match self.check(code) {
                Ok(()) => self.output(program, self.cubin_size, self.cubin),
                Err(error) => Err(self.with_log(error, program)),
            };
            (self.destroy)(&raw mut program);
            compiled.map_err(|error| format!("NVRTC for {architecture}: {error}"))
        }
    }

    /// # Safety
    /// `program` must be a program, and the functions those that write an output of it and its size.
    unsafe fn output(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        write: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: it writes a number.
        self.check(unsafe { size(program, &raw mut bytes) })?;
        let mut out = vec![0_u8; bytes];
        // SAFETY: it writes as many bytes.
        self.check(unsafe { write(program, out.as_mut_ptr().cast()) })?;
        Ok(out)
    }

    /// # Safety
    /// `program` must be a program.
    unsafe fn with_log(&self, error: String, program: Program) -> String {
        // SAFETY: the caller's promise.
        let log = unsafe { self.output(program, self.log_size, self.log) }.unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.trim_end_matches('\0').lines().map(str::trim).filter(|line| !line.is_empty());
        std::iter::once(&*error).chain(lines.take(3)).collect::<Vec<_>>().join(": ")
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the text of any code, which the library owns.
        Err(unsafe { CStr::from_ptr((self.error_string)(code)) }.to_string_lossy().into_owned())
    }
}

/// Opens the library that NVRTC opens by its name when it compiles, and does not always find.
fn open_builtins(nvrtc: &Path) {
    let entries = nvrtc.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so")) {
        // SAFETY: NVIDIA's library, which holds data. If it cannot be opened, NVRTC says so.
        if let Ok(library) = unsafe { Library::open(Some(entry.path()), RTLD_NOW | RTLD_LOCAL) } {
            std::mem::forget(library);
        }
    }
}

/// Where PyTorch for CUDA has the library, and its plain names, for the system to find.
fn places() -> Vec<PathBuf> {
    let libraries = loaded_libraries().unwrap_or_default();
    let is_of = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["libtorch_cuda.so", "libtorch_cpu.so", "libcudart.so", "libcudart-"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    places_beside(libraries.iter().filter(is_of).filter_map(|path| path.parent()))
}

fn places_beside<'a>(folders: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        // `torch/lib` and `nvidia/…/lib` are neighbours in Python's packages.
        for part in ["", "../../nvidia/cu13/lib", "../../nvidia/cuda_nvrtc/lib"] {
            let paths = NAMES.iter().filter_map(|name| folder.join(part).join(name).canonicalize().ok());
            found.extend(paths.filter(|path| !found.contains(path)).collect::<Vec<_>>());
        }
    }
    found.extend(NAMES.iter().map(PathBuf::from));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_beside_the_libraries_of_cuda_first() {
        let site = tempfile::tempdir().unwrap();
        let [torch, cuda] = ["torch/lib", "nvidia/cu13/lib"].map(|part| site.path().join(part));
        [&torch, &cuda].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        std::fs::write(cuda.join("libnvrtc.so.13"), "").unwrap();
        let library = cuda.join("libnvrtc.so.13").canonicalize().unwrap();
        let names = NAMES.map(PathBuf::from);
        for folders in [vec![torch.as_path()], vec![cuda.as_path()], vec![torch.as_path(), cuda.as_path()]] {
            assert_eq!(places_beside(folders.into_iter()), [&[library.clone()][..], &names].concat());
        }
        assert_eq!(places_beside(std::iter::empty()), names);
    }

    #[test]
    fn a_library_that_is_none_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnvrtc.so.13");
        std::fs::write(&path, "no library").unwrap();
        let error = Nvrtc::open(&path).unwrap_err();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
