//! Reading TensorBoard event files, written by fedplug or by other programs.
//!
//! A file is a sequence of records: a length, its checksum, an `Event` message, its checksum. Scalars have two forms: a
//! plain number, or, in newer writers, a tensor with the plugin name `scalars`.
//!
//! Files are untrusted. A length in a file is compared with the size of the file before any memory is allocated for it,
//! and `prost`, which decodes the messages, recurses at most 100 levels. `messages` declares only what a scalar needs;
//! everything else in an event is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use prost::Message as _;

use self::messages::{Event, Tensor, Value};
use crate::error::Error;

mod messages;

/// The client name under which a server's scalars are stored.
pub const SERVER: &str = "server";

/// The TensorBoard plugin whose tensors are scalars.
const SCALARS: &str = "scalars";

/// The longest record that is read, in bytes; longer ones are skipped. A scalar takes about a hundred bytes, but a
/// record of images may be large.
const LONGEST: u64 = 16 << 20;

/// A scalar at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The step, as counted by the writer.
    pub step: i64,
    /// The time of writing, in seconds since 1970.
    pub time: f64,
    /// The value, including NaN and infinities as written.
    pub value: f64,
}

/// Scalars by tag, each curve sorted by step.
pub type Curves = BTreeMap<String, Vec<Point>>;

/// Whether a file name is that of an event file.
pub fn is_event_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"))
}

/// Reads the files of one folder; the order of their names is their order in time. If a later file, from a resumed run,
/// repeats a step, the later value replaces the earlier one. Unreadable parts of damaged files are reported in
/// `warnings`.
///
/// # Errors
/// If a file cannot be read at all.
pub fn read_files(files: &[PathBuf], warnings: &mut Vec<String>) -> Result<Curves, Error> {
    let mut curves = Curves::new();
    for path in files {
        let file = File::open(path).map_err(Error::io(path, "read the events"))?;
        let len = file.metadata().map_err(Error::io(path, "read the events"))?.len();
        let mut records = Records { source: BufReader::new(file), offset: 0, len };
        let mut scalars = Scalars::default();
        loop {
            let start = records.offset;
            let damage = match records.next().map_err(Error::io(path, "read the events"))? {
                Record::Whole(data) => match Event::decode(data.as_slice()) {
                    Ok(event) => {
                        scalars.take(&event);
                        continue;
                    }
                    Err(_) => "is not a TensorBoard event; skipped",
                },
                Record::DamagedData => "is damaged; skipped",
                Record::TooLong => "is longer than any scalar; skipped",
                Record::DamagedLength => "is damaged, so the rest of the file cannot be read",
                // The file may still be written to, so the last record may be incomplete.
                Record::End => break,
            };
            warnings.push(format!("{}: the record at byte {start} {damage}", path.display()));
            if damage.ends_with("cannot be read") {
                break;
            }
        }
        merge(&mut curves, scalars.curves);
    }
    Ok(curves)
}

/// Merges later curves into earlier ones. If both have a step, the later value wins.
pub fn merge(curves: &mut Curves, later: Curves) {
    for (tag, points) in later {
        let curve = curves.entry(tag).or_default();
        let steps: BTreeSet<i64> = points.iter().map(|point| point.step).collect();
        curve.retain(|point| !steps.contains(&point.step));
        curve.extend(points);
        curve.sort_by_key(|point| point.step);
    }
}

enum Record {
    Whole(Vec<u8>),
    DamagedData,
    TooLong,
    DamagedLength,
    End,
}

/// Iterates over the records of a file.
struct Records<R> {
    source: R,
    offset: u64,
    /// The size of the source in bytes.
    len: u64,
}

impl<R: Read + Seek> Records<R> {
    fn next(&mut self) -> std::io::Result<Record> {
        let Some(head) = self.take(12)? else { return Ok(Record::End) };
        let (length, sum) = head.split_at(8);
        if masked(length).to_le_bytes() != sum {
            return Ok(Record::DamagedLength);
        }
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        if length > LONGEST && length.saturating_add(4) <= self.len.saturating_sub(self.offset) {
            self.source.seek_relative((length + 4).cast_signed())?;
            self.offset += length + 4;
            return Ok(Record::TooLong);
        }
        let Some(data) = self.take(length)? else { return Ok(Record::End) };
        let Some(sum) = self.take(4)? else { return Ok(Record::End) };
        Ok(if masked(&data).to_le_bytes() == *sum { Record::Whole(data) } else { Record::DamagedData })
    }

    /// The next `count` bytes, or `None` if there are fewer.
    fn take(&mut self, count: u64) -> std::io::Result<Option<Vec<u8>>> {
        if count > self.len.saturating_sub(self.offset) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(count).read_to_end(&mut bytes)? as u64;
        self.offset += read;
        Ok((read == count).then_some(bytes))
    }
}

/// The format's checksum: CRC-32C, rotated and offset so that checksums of checksums remain useful.
pub fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The scalars of one file.
#[derive(Default)]
struct Scalars {
    curves: Curves,
    /// Tags whose tensors are scalars. Some writers state this only with the first one.
    tensors: BTreeSet<String>,
}

impl Scalars {
    fn take(&mut self, event: &Event) {
        for value in event.summary.iter().flat_map(|summary| &summary.value) {
            if let Some(number) = self.number(value) {
                let point = Point { step: event.step, time: event.wall_time, value: number };
                self.curves.entry(value.tag.clone()).or_default().push(point);
            }
        }
    }

    fn number(&mut self, value: &Value) -> Option<f64> {
        if let Some(number) = value.simple_value {
            return Some(f64::from(number));
        }
        if value.plugin_name() == SCALARS {
            self.tensors.insert(value.tag.clone());
        }
        value.tensor.as_ref().filter(|_| self.tensors.contains(&value.tag)).and_then(|tensor| only_element(tensor))
    }
}

/// The value of a tensor with exactly one element.
fn only_element(tensor: &Tensor) -> Option<f64> {
    let bytes = tensor.tensor_content.as_slice();
    match tensor.dtype {
        messages::FLOAT => match bytes.try_into() {
            Ok(bytes) => Some(f64::from(f32::from_le_bytes(bytes))),
            Err(_) => tensor.float_val.first().map(|&value| f64::from(value)),
        },
        messages::DOUBLE => match bytes.try_into() {
            Ok(bytes) => Some(f64::from_le_bytes(bytes)),
            Err(_) => tensor.double_val.first().copied(),
        },
        messages::INT32 => match bytes.try_into() {
            Ok(bytes) => Some(f64::from(i32::from_le_bytes(bytes))),
            Err(_) => tensor.int_val.first().map(|&value| f64::from(value)),
        },
        messages::INT64 => match bytes.try_into() {
            Ok(bytes) => Some(i64::from_le_bytes(bytes) as f64),
            Err(_) => tensor.int64_val.first().map(|&value| value as f64),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
