//! Parameters as safetensors files, and atomic writes of files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use plugin_api::{Arena, DType, Params, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::artefacts::durable;
use crate::error::{CliError, Diagnostic};

/// The format's name of a tensor's type.
fn dtype(tensor: &Tensor) -> Dtype {
    names().iter().find(|(ours, _)| *ours == tensor.dtype()).map_or(Dtype::U8, |&(_, theirs)| theirs)
}

const fn names() -> &'static [(DType, Dtype)] {
    &[
        (DType::F32, Dtype::F32),
        (DType::F64, Dtype::F64),
        (DType::F16, Dtype::F16),
        (DType::BF16, Dtype::BF16),
        (DType::I64, Dtype::I64),
        (DType::I32, Dtype::I32),
        (DType::I8, Dtype::I8),
        (DType::U8, Dtype::U8),
    ]
}

/// Writes parameters as a safetensors file. Tensors are sorted by type and name. The header holds `metadata` and, under
/// `order`, the original order of the parameters.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, params: &Params, metadata: &[(&str, String)]) -> Result<(), CliError> {
    let order = serde_json::to_string(&params.names().collect::<Vec<_>>()).unwrap_or_default();
    // A single entry, because the format keeps metadata in a hash map, whose order changes from run to run.
    let mut entries: serde_json::Map<String, serde_json::Value> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
    entries.insert("order".to_owned(), order.into());
    let header = HashMap::from([("fedplug".to_owned(), serde_json::Value::Object(entries).to_string())]);
    let part = partial(path);
    write_file(&part, params, header).and_then(|()| std::fs::rename(&part, path)).map_err(|e| {
        // The incomplete file is of no use, and the disk may be full.
        let _ = std::fs::remove_file(&part);
        CliError::io(path, "write the parameters", &e)
    })
}

/// The largest header that other readers of the format take.
const LONGEST_HEADER: usize = 100_000_000;

/// Writes the file itself. `safetensors::serialize_to_file` writes to a file of a random name, which a killed process
/// leaves behind, and which only its owner may read.
fn write_file(path: &Path, params: &Params, metadata: HashMap<String, String>) -> std::io::Result<()> {
    let mut tensors: Vec<_> = params.iter().map(|(name, tensor)| (dtype(tensor), name, tensor)).collect();
    tensors.sort_by(|(a, one, _), (b, other, _)| b.cmp(a).then(one.cmp(other)));
    let mut end = 0;
    let info = |&(dtype, name, tensor): &(Dtype, &str, &Tensor)| {
        let start = end;
        end += tensor.buffer().len();
        (name.to_owned(), TensorInfo { dtype, shape: tensor.shape().to_vec(), data_offsets: (start, end) })
    };
    let infos = tensors.iter().map(info).collect();
    let header = Metadata::new(Some(metadata), infos).map_err(std::io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() > LONGEST_HEADER {
        let what = format!("its header would have {} bytes; the format allows {LONGEST_HEADER}", header.len());
        return Err(std::io::Error::other(what));
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    tensors.iter().try_for_each(|(_, _, tensor)| file.write_all(tensor.buffer().as_slice()))?;
    file.flush()
}

/// Reads parameters from a file that [`write`](write()) created, in their original order.
///
/// # Errors
/// If the file cannot be read, or was not written by [`write`](write()).
pub fn read(path: &Path) -> Result<Params, CliError> {
    let mut file = File::open(path).map_err(|e| CliError::io(path, "read the parameters", &e))?;
    parse(&mut file).map_err(|what| {
        CliError::run(Diagnostic::new(format!("{}: not a complete safetensors file", path.display())).cause(what))
    })
}

/// The size in bytes of the buffers that tensors are read into: large enough to be cheap, and small enough that a
/// caller who takes tensors one by one frees memory along the way.
const PIECE: usize = 32 << 20;

/// Reads the tensors one by one into their final memory, so that no data is held twice.
fn parse(file: &mut File) -> Result<Params, String> {
    let text = |e: std::io::Error| e.to_string();
    let all = file.metadata().map_err(text)?.len();
    let mut head = vec![0; 8];
    file.read_exact(&mut head).map_err(text)?;
    let length = u64::from_le_bytes(head[..8].try_into().unwrap_or_default());
    if length > all.saturating_sub(8) {
        return Err("it ends within its header".to_owned());
    }
    file.take(length).read_to_end(&mut head).map_err(text)?;
    // Deserialising this type validates offsets and sizes.
    let header: Metadata = serde_json::from_slice(&head[8..]).map_err(|e| e.to_string())?;
    let data = head.len() as u64;
    if data + header.data_len() as u64 != all {
        return Err(format!("it has {all} bytes, but its header describes {}", data + header.data_len() as u64));
    }
    let ours = header.metadata().as_ref().and_then(|entries| entries.get("fedplug"));
    let ours: Option<serde_json::Value> = ours.and_then(|text| serde_json::from_str(text).ok());
    let order = ours.as_ref().and_then(|entries| entries.get("order")?.as_str());
    let order: Vec<String> = match order {
        Some(text) => serde_json::from_str(text).map_err(|e| e.to_string())?,
        None => header.offset_keys(),
    };
    let mut params = Params::new();
    let (mut arena, mut left) = (Arena::default(), header.data_len());
    for name in order {
        let info = header.info(&name).ok_or_else(|| format!("there is no tensor `{name}`"))?;
        let dtype = names().iter().find(|(_, theirs)| *theirs == info.dtype).map(|&(ours, _)| ours);
        let dtype = dtype.ok_or_else(|| format!("tensor `{name}` has elements of type {:?}", info.dtype))?;
        let (start, end) = info.data_offsets;
        if arena.left() < Arena::bytes::<u8>(end - start) {
            arena = Arena::of([left.min(PIECE).max(end - start)]);
        }
        left -= (end - start).min(left);
        let mut bytes = arena.alloc::<u8>(end - start);
        file.seek(SeekFrom::Start(data + start as u64)).map_err(text)?;
        file.read_exact(bytes.as_mut_slice()).map_err(text)?;
        params.insert(name, Tensor::new(dtype, &info.shape, bytes.into_buffer()).map_err(|e| e.to_string())?);
    }
    Ok(params)
}

/// Writes a text file atomically: it appears complete or not at all, and is on the disk when this returns.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), CliError> {
    let part = partial(path);
    let written = std::fs::File::create(&part)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&part, path))
        .and_then(|()| path.parent().map_or(Ok(()), durable::sync_folder));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&part);
        CliError::io(path, "write the file", &e)
    })
}

/// The temporary name of a file that replaces `path` once it is complete.
pub fn partial(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_back_in_their_order_and_the_file_is_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let params: Params = [
            ("z", Tensor::from_slice(&[2], &[1.5_f32, f32::NAN]).unwrap()),
            ("a", Tensor::from_slice::<i64>(&[0, 3], &[]).unwrap()),
            ("m", Tensor::from_slice(&[], &[7_u8]).unwrap()),
        ]
        .into_iter()
        .collect();
        let paths = ["one", "two"].map(|name| folder.path().join(name));
        for path in &paths {
            write(path, &params, &[("round", "3".to_owned()), ("score", "1".to_owned())]).unwrap();
        }
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
        // The same bytes as the format's own library writes, and a file that others may read as the umask allows.
        let viewed = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(safetensors::serialize(all.tensors(), header.metadata().clone()).unwrap(), bytes);
        };
        viewed(&paths[0]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
            let plain = folder.path().join("plain");
            std::fs::write(&plain, "").unwrap();
            assert_eq!(mode(&paths[0]), mode(&plain));
        }
        let back = read(&paths[0]).unwrap();
        assert_eq!(back.names().collect::<Vec<_>>(), ["z", "a", "m"]);
        for (name, tensor) in params.iter() {
            let other = back.get(name).unwrap();
            assert_eq!((tensor.shape(), tensor.buffer().as_slice()), (other.shape(), other.buffer().as_slice()));
        }
        std::fs::write(&paths[1], b"junk").unwrap();
        assert!(read(&paths[1]).unwrap_err().to_string().contains("not a complete safetensors file"));
    }
}
