//! Weights in safetensors files: one, or several that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use plugin_api::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::impostor;

/// The file of a checkpoint that fits into one.
pub(crate) const SINGLE: &str = "model.safetensors";
/// What says which file holds which tensor where there are several.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Where weights lie.
#[derive(Debug)]
pub(crate) struct Weights {
    /// What an error names when it is of no single file.
    place: PathBuf,
    files: Vec<PathBuf>,
}

impl Weights {
    /// A single file.
    pub(crate) fn single(path: PathBuf) -> Self {
        Self { files: vec![path.clone()], place: path }
    }

    /// A checkpoint's: its single file, which need not exist, or the shards of its index.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() || !index.exists() {
            return Ok(Self::single(single));
        }
        let files = shards(&index)?.into_iter().map(|name| folder.join(name)).collect();
        Ok(Self { place: index, files })
    }

    /// Where the `wanted` tensors of these shapes lie. All that is missing, unexpected or of another shape is one error.
    /// Tensors that belong `elsewhere` are passed over. Reads no more than the files' headers.
    ///
    /// # Errors
    /// If a file cannot be read, or does not fit.
    pub(crate) fn find(&self, wanted: &[(&str, Vec<usize>)], elsewhere: impl Fn(&str) -> bool) -> Result<Found> {
        let mut problems = Vec::new();
        let mut found = Found { files: Vec::new(), places: BTreeMap::new() };
        for (number, path) in self.files.iter().enumerate() {
            let mut file = File::open(path).map_err(|e| Error::io(path, &e))?;
            let (start, header) = header(&mut file).map_err(|broken| {
                if let Some(error) = impostor::impostor(path, &beginning(&mut file)) {
                    return error;
                }
                let error = Error::data("is damaged, or no safetensors file").because_of(broken).in_file(path, None);
                error.help("if it was downloaded, delete it and fetch it again")
            })?;
            for name in header.offset_keys() {
                let Some(info) = header.info(&name) else { continue };
                let place = Place { file: number, start: start + info.data_offsets.0 as u64, info: info.clone() };
                if found.places.insert(name.clone(), place).is_some() {
                    problems.push(format!("`{name}` stands in two files"));
                }
            }
            found.files.push((path.clone(), file));
        }
        for (name, ours) in wanted {
            match found.places.get(*name).map(|place| &place.info) {
                None => problems.push(format!("`{name}` is missing")),
                Some(theirs) if theirs.shape != *ours => {
                    problems.push(format!("`{name}` has shape {:?}, not {ours:?}", theirs.shape));
                }
                Some(theirs) if kind(theirs.dtype).is_none() => {
                    problems.push(format!("`{name}` holds {:?}, which is no float", theirs.dtype));
                }
                Some(_) => {}
            }
        }
        let known = |name: &str| elsewhere(name) || wanted.iter().any(|(wanted, _)| *wanted == name);
        problems.extend(found.places.keys().filter(|name| !known(name)).map(|name| format!("`{name}` is unexpected")));
        if problems.is_empty() {
            return Ok(found);
        }
        let error = Error::data(format!("{} of its tensors do not fit the model", problems.len()));
        Err(problems.into_iter().fold(error.in_file(&self.place, None), Error::because_of))
    }
}

/// Tensors that were found in files, and fit.
#[derive(Debug)]
pub(crate) struct Found {
    files: Vec<(PathBuf, File)>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    file: usize,
    start: u64,
    info: TensorInfo,
}

impl Found {
    /// Reads one of them into memory of its size, as fp32.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(&mut self, name: &str, out: &mut [f32]) -> Result<()> {
        let place = self.places.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
        let (path, file) = &mut self.files[place.file];
        let (from, to) = place.info.data_offsets;
        let kind = kind(place.info.dtype).ok_or_else(|| Error::tensor(name, "is no float"))?;
        let read = |bytes: &mut [u8]| {
            file.seek(SeekFrom::Start(place.start))
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

/// Where the tensors of a safetensors file begin, and its header; or what is wrong with it.
fn header(file: &mut File) -> Result<(u64, Metadata), String> {
    let told = |e: std::io::Error| e.to_string();
    let size = file.metadata().map_err(told)?.len();
    let mut length = [0; size_of::<u64>()];
    file.read_exact(&mut length).map_err(|_| format!("it has {size} bytes"))?;
    let (before, length) = (length.len() as u64, u64::from_le_bytes(length));
    if length > size - before {
        return Err(format!("its header has {length} bytes, and the file {size}"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(told)?;
    // Offsets and sizes are checked by this type as it is read.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
    let whole = before + length + metadata.data_len() as u64;
    if whole == size { Ok((before + length, metadata)) } else { Err(format!("it has {size} of {whole} bytes")) }
}

/// The first bytes of a file that could not be used, as far as they can be read.
fn beginning(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.take(512).read_to_end(&mut bytes));
    // What cannot be read begins with nothing known.
    read.map_or_else(|_| Vec::new(), |_| bytes)
}

/// The names of the files that an index lists, each once.
///
/// # Errors
/// If it cannot be read, or lists something that is not a file beside it.
pub(crate) fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = impostor::read(index)?;
    let unusable = |message: String| Error::data(message).in_file(index, None);
    let Index { weight_map } =
        serde_json::from_slice(&text).map_err(|e| unusable("is no index of shards".to_owned()).because(&e))?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    match names.iter().find(|name| !is_file_name(name)) {
        Some(name) => Err(unusable(format!("lists `{name}`, which is no name of a file beside it"))),
        None if names.is_empty() => Err(unusable("lists no file".to_owned())),
        None => Ok(names.into_iter().collect()),
    }
}

/// Whether a name from outside stays in the folder that it is joined to.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.contains(['/', '\\']) && Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Whether a safetensors file is as long as its header says.
pub(crate) fn is_whole(path: &Path) -> bool {
    File::open(path).is_ok_and(|mut file| header(&mut file).is_ok())
}

/// libtorch's name of a float type; anything else cannot be a weight.
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
    fn an_index_names_each_shard_once_and_nothing_outside_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        let listed = |map: &str| {
            fs::write(&index, format!(r#"{{ "weight_map": {map} }}"#)).unwrap();
            shards(&index)
        };
        let two = r#"{ "a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors" }"#;
        assert_eq!(listed(two).unwrap(), ["1.safetensors", "2.safetensors"]);
        for outside in ["../x", "/x", "a/b", "..", ""] {
            assert!(listed(&format!(r#"{{ "a": "{outside}" }}"#)).unwrap_err().message().contains("no name of a file"));
        }
        assert!(listed("{}").unwrap_err().message().contains("lists no file"));
        assert!(listed("[]").unwrap_err().message().contains("no index"));
    }

    #[test]
    fn a_file_that_broke_off_is_not_whole() {
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
