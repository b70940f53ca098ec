//! Weights in safetensors files: one, or several that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use plugin_api::{Error, Result};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::bridge;

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

    /// Copies the tensors into `wanted`. All that is missing, unexpected or of another shape is one error, and then
    /// nothing was copied. Tensors that belong `elsewhere` are passed over.
    ///
    /// # Errors
    /// If a file cannot be read, or does not fit.
    pub(crate) fn load(&self, wanted: &[(&str, &Tensor)], elsewhere: impl Fn(&str) -> bool) -> Result<()> {
        let read = |path: &PathBuf| fs::read(path).map_err(|e| Error::io(path, &e));
        let contents = self.files.iter().map(read).collect::<Result<Vec<_>>>()?;
        let mut problems = Vec::new();
        let mut found = BTreeMap::new();
        for (path, bytes) in self.files.iter().zip(&contents) {
            let file = SafeTensors::deserialize(bytes).map_err(|e| {
                let error = Error::data("is damaged, or no safetensors file").because(&e).in_file(path, None);
                error.help("if it was downloaded, delete it and fetch it again")
            })?;
            for (name, tensor) in file.tensors() {
                if found.insert(name.clone(), tensor).is_some() {
                    problems.push(format!("`{name}` stands in two files"));
                }
            }
        }
        for (name, ours) in wanted {
            match found.get(*name) {
                None => problems.push(format!("`{name}` is missing")),
                Some(theirs) if theirs.shape() != bridge::shape_of(ours) => {
                    problems.push(format!("`{name}` has shape {:?}, not {:?}", theirs.shape(), bridge::shape_of(ours)));
                }
                Some(theirs) if kind(theirs.dtype()).is_none() => {
                    problems.push(format!("`{name}` holds {:?}, which is no float", theirs.dtype()));
                }
                Some(_) => {}
            }
        }
        let known = |name: &str| elsewhere(name) || wanted.iter().any(|(wanted, _)| *wanted == name);
        problems.extend(found.keys().filter(|name| !known(name)).map(|name| format!("`{name}` is unexpected")));
        if !problems.is_empty() {
            let error = Error::data(format!("{} of its tensors do not fit the model", problems.len()));
            return Err(problems.into_iter().fold(error.in_file(&self.place, None), Error::because_of));
        }
        let _guard = tch::no_grad_guard();
        for (name, ours) in wanted {
            let theirs = found.get(*name).and_then(|theirs| Some((theirs.data(), kind(theirs.dtype())?)));
            let copied = theirs.map(|(data, kind)| {
                Tensor::f_from_data_size(data, &ours.size(), kind)
                    .and_then(|theirs| ours.shallow_clone().f_copy_(&theirs))
            });
            copied.transpose().map_err(|e| Error::tensor(*name, "could not be copied").because(&e))?;
        }
        Ok(())
    }
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
    let text = fs::read(index).map_err(|e| Error::io(index, &e))?;
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
    let whole = || -> Option<bool> {
        let mut file = File::open(path).ok()?;
        let size = file.metadata().ok()?.len();
        let mut length = [0; size_of::<u64>()];
        file.read_exact(&mut length).ok()?;
        let (start, length) = (length.len() as u64, u64::from_le_bytes(length));
        if length > size {
            return Some(false);
        }
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header).ok()?;
        let metadata: Metadata = serde_json::from_slice(&header).ok()?;
        Some(start + length + metadata.data_len() as u64 == size)
    };
    whole().unwrap_or(false)
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
