//! Checks which files a plugin's dependencies are loaded from. On Linux, libraries with the same soname are loaded only
//! once: a plugin that was linked with the libtorch next to it gets a different one if another plugin, or
//! `LD_LIBRARY_PATH`, has loaded it first. Then symbols may be missing or results may differ, without any message.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader32, FileHeader64};
use object::read::elf::FileHeader;
use object::{Endianness, ReadCache, ReadRef};

/// A dependency that is loaded from a different file than the plugin was linked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// The file that is loaded.
    pub loaded: PathBuf,
    /// The file that the plugin refers to.
    pub wanted: PathBuf,
}

/// The mismatched dependencies of a plugin: as they are loaded, or as they would be found if the plugin is not open.
pub(super) fn mismatches(plugin: &Path) -> Vec<Mismatch> {
    let Ok(file) = File::open(plugin) else { return Vec::new() };
    let data = ReadCache::new(file);
    // The byte after the magic number is the class: 32 or 64 bits. The loader reports unreadable files.
    let dynamic = match data.read_bytes_at(0, 5) {
        Ok([0x7f, b'E', b'L', b'F', 1]) => Dynamic::of::<FileHeader32<Endianness>, _>(&data),
        Ok([0x7f, b'E', b'L', b'F', 2]) => Dynamic::of::<FileHeader64<Endianness>, _>(&data),
        _ => return Vec::new(),
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped: Vec<&Path> = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..]))).collect();
    let searched = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let searched: Vec<PathBuf> = std::env::split_paths(&searched).filter(|path| path.is_absolute()).collect();
    dynamic.map(|dynamic| dynamic.mismatches(plugin, &mapped, &searched)).unwrap_or_default()
}

/// The dynamic section of a library: its dependencies and search folders.
#[derive(Default)]
struct Dynamic {
    needed: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Dynamic {
    fn of<'a, E: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(data: R) -> object::Result<Self> {
        let header = E::parse(data)?;
        let endian = header.endian()?;
        let table = header.sections(endian, data)?.dynamic_table(endian, data)?;
        let mut dynamic = Self::default();
        for entry in table.iter() {
            match entry.tag {
                DT_NEEDED => dynamic.needed.push(OsStr::from_bytes(table.string(entry)?).into()),
                DT_RPATH | DT_RUNPATH => {
                    dynamic.folders.extend(std::env::split_paths(OsStr::from_bytes(table.string(entry)?)));
                }
                _ => {}
            }
        }
        Ok(dynamic)
    }

    fn mismatches(&self, plugin: &Path, mapped: &[&Path], searched: &[PathBuf]) -> Vec<Mismatch> {
        let beside = plugin.parent().unwrap_or(Path::new("/"));
        let folders: Vec<PathBuf> = self.folders.iter().map(|folder| from_origin(folder, beside)).collect();
        let one = |name: &PathBuf| {
            let wanted = folders.iter().map(PathBuf::as_path).chain([beside]).map(|folder| folder.join(name));
            let wanted = wanted.filter_map(|path| path.canonicalize().ok()).next()?;
            let file = wanted.file_name();
            // A mapped file has its real name, which may be longer than the requested one.
            let named = |path: &&&Path| path.file_name() == file || path.file_name() == name.file_name();
            let loaded = mapped.iter().find(named).map(|path| path.to_path_buf());
            let loaded = loaded.or_else(|| searched.iter().find_map(|folder| folder.join(name).canonicalize().ok()))?;
            (loaded != wanted).then_some(Mismatch { loaded, wanted })
        };
        self.needed.iter().filter_map(one).collect()
    }
}

/// Replaces `$ORIGIN` in a folder of an rpath by the folder of the library.
fn from_origin(folder: &Path, beside: &Path) -> PathBuf {
    ["$ORIGIN", "${ORIGIN}"]
        .iter()
        .find_map(|word| Some(beside.join(folder.strip_prefix(word).ok()?)))
        .unwrap_or_else(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_from_elsewhere_is_named_with_the_one_in_its_place() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [here, there] = folders.each_ref().map(|folder| folder.path().canonicalize().unwrap());
        for file in [here.join("libtorch_cpu.so"), here.join("libc10.so.1.2"), there.join("libtorch_cpu.so")] {
            std::fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink("libc10.so.1.2", here.join("libc10.so.1")).unwrap();
        let plugin = here.join("libmodel_x.so");
        let needs = |folders: &[&str]| Dynamic {
            needed: ["libtorch_cpu.so", "libc10.so.1", "libc.so.6"].map(PathBuf::from).to_vec(),
            folders: folders.iter().map(PathBuf::from).collect(),
        };
        let (own, other, c10) =
            (here.join("libtorch_cpu.so"), there.join("libtorch_cpu.so"), here.join("libc10.so.1.2"));
        let mapped: [&Path; 3] = [&own, &c10, Path::new("/lib/libc.so.6")];
        for folders in [&["$ORIGIN"][..], &["${ORIGIN}/."], &[here.to_str().unwrap()], &[]] {
            assert_eq!(needs(folders).mismatches(&plugin, &mapped, std::slice::from_ref(&there)), []);
            let mismatch = needs(folders).mismatches(&plugin, &[&other, &c10], &[]);
            assert_eq!(mismatch, [Mismatch { loaded: other.clone(), wanted: own.clone() }]);
        }
        // Nothing is mapped yet; the library would be found in this folder.
        let mismatch = needs(&["$ORIGIN"]).mismatches(&plugin, &[], std::slice::from_ref(&there));
        assert_eq!(mismatch, [Mismatch { loaded: other, wanted: own }]);
    }

    #[test]
    fn a_program_tells_what_it_needs() {
        let program = std::env::current_exe().unwrap();
        let data = ReadCache::new(File::open(&program).unwrap());
        let dynamic = Dynamic::of::<FileHeader64<Endianness>, _>(&data);
        if cfg!(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")) {
            let needed = dynamic.unwrap().needed;
            assert!(needed.iter().any(|name| name.starts_with("libc.so.6")), "{needed:?}");
        }
        assert_eq!(mismatches(&program), []);
    }
}
