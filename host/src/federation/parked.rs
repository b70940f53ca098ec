//! A message whose tensors lie in a file, so that they take no memory while nobody reads them.

use std::fs::File;
use std::io::{BufWriter, Error, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{Mmap, UncheckedAdvice};
use plugin_api::{Buffer, Message, Params, Tensor};

use crate::error::CliError;

/// The alignment of tensors in the file, which is that of tensors in memory.
const ALIGNMENT: usize = 64;

/// The file of a parked message, mapped into memory. It has no name, so nothing is left of it when the process ends.
#[derive(Debug)]
pub(crate) struct Parked {
    map: Arc<Mmap>,
}

impl Parked {
    /// Moves a message's tensors to a file in `folder`, which is created if it is missing. Returns the same message, whose
    /// tensors read from the file. The memory that they had is free once nobody else holds it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn new(message: &Message, folder: &Path) -> Result<(Self, Message), CliError> {
        let map = store(message, folder).map_err(|e| CliError::io(folder, "write the global model to a file", &e))?;
        let map = Arc::new(map);
        let mut start = 0;
        let mut moved = |params: &Params| -> Params {
            let moved = params.iter().map(|(name, tensor)| (name.to_owned(), placed(tensor, &map, &mut start)));
            moved.collect()
        };
        let (params, extra) = (moved(&message.params), moved(&message.extra));
        Ok((Self { map }, Message { params, extra, values: message.values.clone() }))
    }

    /// Takes the tensors out of memory. The next reader gets them from the file again.
    pub(crate) fn leave_memory(&self) {
        // SAFETY: the mapping is of a file that nobody can change, so the same bytes come back.
        let left = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // Without it, more memory is used than necessary, and nothing else happens.
        let _ = left;
    }
}

/// The place of the message that is parked now, if one is. Those who receive updates have it as well.
#[derive(Debug, Default)]
pub(crate) struct Parking(Mutex<Option<Parked>>);

impl Parking {
    /// Whether no message is parked.
    pub(crate) fn is_free(&self) -> bool {
        self.lock().is_none()
    }

    /// Another message is parked now, or none.
    pub(crate) fn set(&self, parked: Option<Parked>) {
        *self.lock() = parked;
    }

    /// Takes what is parked out of memory.
    pub(crate) fn leave_memory(&self) {
        self.lock().iter().for_each(Parked::leave_memory);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tensor of the file.
fn placed(tensor: &Tensor, map: &Arc<Mmap>, start: &mut usize) -> Tensor {
    let len = tensor.buffer().len();
    let data = map[*start..*start + len].as_ptr();
    *start = (*start + len).next_multiple_of(ALIGNMENT);
    // SAFETY: the mapping has these bytes, nobody can change them, and the buffer keeps it.
    let buffer = unsafe { Buffer::from_owner(data, len, map.clone()) };
    Tensor::new(tensor.dtype(), tensor.shape(), buffer).expect("as many bytes as before")
}

fn store(message: &Message, folder: &Path) -> Result<Mmap, Error> {
    std::fs::create_dir_all(folder)?;
    let file = tempfile::tempfile_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    for (_, tensor) in message.params.iter().chain(message.extra.iter()) {
        let bytes = tensor.buffer().as_slice();
        out.write_all(bytes)?;
        out.write_all(&[0; ALIGNMENT][..bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
    }
    out.flush()?;
    drop(out);
    mapped(&file)
}

fn mapped(file: &File) -> Result<Mmap, Error> {
    // SAFETY: the file has no name, so that nobody else can open it, and this process writes to it no more.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn message(elements: usize) -> Message {
        let ramp: Vec<f32> = (0..elements).map(|k| k as f32).collect();
        let tensors = [
            ("w", Tensor::from_slice(&[elements], &ramp).unwrap()),
            ("none", Tensor::from_slice::<f32>(&[0, 3], &[]).unwrap()),
            ("steps", Tensor::from_slice(&[], &[7_i64]).unwrap()),
        ];
        let extra: Params = [("mask", Tensor::from_slice(&[3], &[1_u8, 0, 1]).unwrap())].into_iter().collect();
        Message {
            params: tensors.into_iter().collect(),
            extra,
            values: [("scale".to_owned(), Value::from(0.1))].into_iter().collect(),
        }
    }

    fn assert_same(a: &Message, b: &Message) {
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
        let tensors = |m: &Message| -> Vec<Vec<u8>> {
            m.params.iter().chain(m.extra.iter()).map(|(_, tensor)| tensor.buffer().as_slice().to_vec()).collect()
        };
        assert_eq!(tensors(a), tensors(b));
    }

    #[test]
    fn a_parked_message_is_the_same_and_leaves_nothing_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let idle = folder.path().join("idle");
        let before = message(1000);
        let (parked, after) = Parked::new(&before, &idle).unwrap();
        assert_same(&before, &after);
        parked.leave_memory();
        assert_same(&before, &after);
        assert_eq!(std::fs::read_dir(&idle).unwrap().count(), 0);
        drop(parked);
        assert_same(&before, &after);
        let (_parked, empty) = Parked::new(&Message::default(), &idle).unwrap();
        assert_same(&empty, &Message::default());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_has_left_memory_takes_none() {
        let folder = tempfile::tempdir().unwrap();
        let (parked, after) = Parked::new(&message(1 << 20), folder.path()).unwrap();
        // The kilobytes of the mapping that are in memory.
        let resident = || {
            let start = format!("{:x}-", parked.map.as_ptr().addr());
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let own = maps.split(&start).nth(1).unwrap().lines().find_map(|line| line.strip_prefix("Rss:"));
            own.unwrap().trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let sum = || after.params.elements::<f32>("w", &[1 << 20]).unwrap().iter().map(|&x| f64::from(x)).sum::<f64>();
        let expected = sum();
        assert!(resident() >= 4096, "{}", resident());
        parked.leave_memory();
        assert_eq!(resident(), 0);
        assert_eq!(sum(), expected);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_that_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("idle");
        std::fs::write(&taken, "").unwrap();
        let error = Parked::new(&message(4), &taken).unwrap_err().to_string();
        assert!(error.contains("idle: cannot write the global model to a file"), "{error}");
    }
}
