//! Changes of checkpoints on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

/// Rewrites a safetensors file.
pub(crate) fn rewrite(
    path: &Path,
    change: impl Fn(&str, safetensors::Dtype, Vec<usize>, Vec<u8>) -> Option<(safetensors::Dtype, Vec<usize>, Vec<u8>)>,
) {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        if let Some(changed) = change(&name, view.dtype(), view.shape().to_vec(), view.data().to_vec()) {
            tensors.push((name, changed));
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Splits a checkpoint's file into two shards.
pub(crate) fn shard(folder: &Path) {
    let single = folder.join("model.safetensors");
    let bytes = fs::read(&single).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
    let mut map = BTreeMap::new();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", number + 1);
        part.iter().for_each(|(name, _)| drop(map.insert(name.clone(), file.clone())));
        safetensors::serialize_to_file(part.iter().map(|(name, view)| (name, view)), None, &folder.join(&file))
            .unwrap();
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::remove_file(single).unwrap();
}
