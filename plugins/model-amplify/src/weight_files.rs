//! Weights in safetensors files: a single one, or shards that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use plugin_api::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::placeholder;

/// The file of a checkpoint that is not sharded.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The index of a sharded checkpoint: which file holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The files that hold a model's weights.
#[derive(Debug)]
pub(crate) struct WeightFiles {
    /// The file that errors name: the single one, or the index.
    main: PathBuf,
    files: Vec<PathBuf>,
}

impl WeightFiles {
    /// A single file.
    pub(crate) fn single(path: PathBuf) -> Self {
        Self { files: vec![path.clone()], main: path }
    }

    /// Those of a checkpoint: its single file, which need not exist, or the shards of its index.
    ///
    /// # Errors
    /// If the index cannot be read or used.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() || !index.exists() {
            return Ok(Self::single(single));
        }
        let files = shards(&index)?.into_iter().map(|name| folder.join(name)).collect();
        Ok(Self { main: index, files })
    }

    /// Locates tensors of the `wanted` names and shapes. Reads only the files' headers.
    ///
    /// # Errors
    /// If a file cannot be read. If tensors are missing, have another shape or type, or are unexpected and not `ignored`: one
    /// error lists them all.
    pub(crate) fn locate(
        &self,
        wanted: &[(&str, Vec<usize>)],
        ignored: impl Fn(&str) -> bool,
    ) -> Result<LocatedTensors> {
        let mut problems = Vec::new();
        let mut located = LocatedTensors { files: Vec::new(), tensors: BTreeMap::new() };
        for (number, path) in self.files.iter().enumerate() {
            let mut file = File::open(path).map_err(|e| Error::io(path, &e))?;
            let (start, header) = header(&mut file).map_err(|cause| {
                if let Some(error) = placeholder::detect(path, &first_bytes(&mut file)) {
                    return error;
                }
                let error = Error::data("is damaged, or not a safetensors file").because_of(cause).in_file(path, None);
                error.help("if it was downloaded, delete it and download it again")
            })?;
            for name in header.offset_keys() {
                let Some(info) = header.info(&name) else { continue };
                let location =
                    TensorLocation { file: number, start: start + info.data_offsets.0 as u64, info: info.clone() };
                if located.tensors.insert(name.clone(), location).is_some() {
                    problems.push(format!("`{name}` is in two files"));
                }
            }
            located.files.push((path.clone(), file));
        }
        for (name, ours) in wanted {
            match located.tensors.get(*name).map(|location| &location.info) {
                None => problems.push(format!("`{name}` is missing")),
                Some(theirs) if theirs.shape != *ours => {
                    problems.push(format!("`{name}` has shape {:?}, not {ours:?}", theirs.shape));
                }
                Some(theirs) if kind(theirs.dtype).is_none() => {
                    problems.push(format!("`{name}` holds {:?}, which is not a float type", theirs.dtype));
                }
                Some(_) => {}
            }
        }
        let known = |name: &str| ignored(name) || wanted.iter().any(|(wanted, _)| *wanted == name);
        problems
            .extend(located.tensors.keys().filter(|name| !known(name)).map(|name| format!("`{name}` is unexpected")));
        if problems.is_empty() {
            return Ok(located);
        }
        let error = Error::data(format!("{} of its tensors do not fit the model", problems.len()));
        Err(problems.into_iter().fold(error.in_file(&self.main, None), Error::because_of))
    }
}

/// Tensors in files, by name. The wanted ones have the right shape and a float type.
#[derive(Debug)]
pub(crate) struct LocatedTensors {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, TensorLocation>,
}

#[derive(Debug)]
struct TensorLocation {
    /// The file's index.
    file: usize,
    /// The first byte in the file.
    start: u64,
    info: TensorInfo,
}

impl LocatedTensors {
    /// Reads a tensor as fp32. `out` has its number of elements.
    ///
    /// # Errors
    /// If there is no such tensor, or it cannot be read.
    pub(crate) fn read(&mut self, name: &str, out: &mut [f32]) -> Result<()> {
        let location = self.tensors.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
        let (path, file) = &mut self.files[location.file];
        let (from, to) = location.info.data_offsets;
        let kind = kind(location.info.dtype).ok_or_else(|| Error::tensor(name, "is not of a float type"))?;
        let read = |bytes: &mut [u8]| {
            file.seek(SeekFrom::Start(location.start))
                .and_then(|_| file.read_exact(bytes))
                .map_err(|e| Error::io(path, &e))
        };
        if kind == Kind::Float {
            return read(bytemuck::cast_slice_mut(out));
        }
        let mut bytes = vec![0; to - from];
        read(&mut bytes)?;
        let theirs = Tensor::f_from_data_size(&bytes, &[out.len() as i64], kind);
        let converted = theirs.and_then(|theirs| theirs.f_to_kind(Kind::Float)?.f_copy_data(out, out.len()));
        converted.map_err(|e| Error::tensor(name, "could not be copied").because(&e))
    }
}

/// The offset of a safetensors file's first tensor, and its header; or why it is unusable.
fn header(file: &mut File) -> Result<(u64, Metadata), String> {
    let text = |e: std::io::Error| e.to_string();
    let size = file.metadata().map_err(text)?.len();
    let mut length = [0; size_of::<u64>()];
    file.read_exact(&mut length).map_err(|_| format!("it has {size} bytes"))?;
    let (before, length) = (length.len() as u64, u64::from_le_bytes(length));
    if length > size - before {
        return Err(format!("its header has {length} bytes, and the file {size}"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(text)?;
    // Reading this type checks offsets and sizes.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
    let whole = before + length + metadata.data_len() as u64;
    if whole == size { Ok((before + length, metadata)) } else { Err(format!("it has {size} of {whole} bytes")) }
}

/// The first bytes of an unusable file, as far as they can be read.
fn first_bytes(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.take(512).read_to_end(&mut bytes));
    if read.is_ok() { bytes } else { Vec::new() }
}

/// The names of an index's shards, each once, sorted.
///
/// # Errors
/// If it cannot be read, lists no shard, or lists one outside its folder.
pub(crate) fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = placeholder::read(index)?;
    let unusable = |message: String| Error::data(message).in_file(index, None);
    let Index { weight_map } =
        serde_json::from_slice(&text).map_err(|e| unusable("is not an index of shards".to_owned()).because(&e))?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    match names.iter().find(|name| !is_file_name(name)) {
        Some(name) => Err(unusable(format!("lists `{name}`, which is not the name of a file in its folder"))),
        None if names.is_empty() => Err(unusable("lists no file".to_owned())),
        None => Ok(names.into_iter().collect()),
    }
}

/// Whether a name from outside is that of a file directly in the folder that it is joined to.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.contains(['/', '\\']) && Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Whether a safetensors file has the length that its header says.
pub(crate) fn is_whole(path: &Path) -> bool {
    File::open(path).is_ok_and(|mut file| header(&mut file).is_ok())
}

/// libtorch's name of a float type; none for other types, which weights cannot have.
fn kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F64 => Some(Kind::Double),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn shards_lists_each_shard_once_and_refuses_files_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        let listed = |map: &str| {
            fs::write(&index, format!(r#"{{ "weight_map": {map} }}"#)).unwrap();
            shards(&index)
        };
        let two = r#"{ "a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors" }"#;
        assert_eq!(listed(two).unwrap(), ["1.safetensors", "2.safetensors"]);
        for outside in ["../x", "/x", "a/b", "..", ""] {
            assert!(
                listed(&format!(r#"{{ "a": "{outside}" }}"#)).unwrap_err().message().contains("not the name of a file")
            );
        }
        assert!(listed("{}").unwrap_err().message().contains("lists no file"));
        assert!(listed("[]").unwrap_err().message().contains("not an index"));
    }

    #[test]
    fn is_whole_detects_truncated_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SINGLE);
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![3], &[0; 12]).unwrap();
        let bytes = safetensors::serialize([("a", view)], None).unwrap();
        for (length, whole) in [(0, false), (7, false), (20, false), (bytes.len() - 1, false), (bytes.len(), true)] {
            fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(is_whole(&path), whole, "{length} of {} bytes", bytes.len());
        }
        assert!(!is_whole(&folder.path().join("absent")));
    }
}
