//! Reading TensorBoard event files: ours, and those of other programs.
//!
//! A file is a row of records: a length, its checksum, an `Event` message, its checksum. Scalars stand in two forms:
//! as a plain number, and, from newer writers, as a tensor that the plugin `scalars` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use protobuf::Message as _;
use tensorboard_proto::event::Event;
use tensorboard_proto::summary::Summary_Value;
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::types::DataType;

use crate::error::Failure;

/// The name of the TensorBoard plugin whose tensors are scalars.
const SCALARS: &str = "scalars";

/// A scalar at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The step, in the writer's own count.
    pub step: i64,
    /// When it was written, in seconds since 1970.
    pub time: f64,
    /// The value; NaN and infinities as they were written.
    pub value: f64,
}

/// Scalars by tag, each curve in the order of its steps.
pub type Curves = BTreeMap<String, Vec<Point>>;

/// Whether a file is an event file, by its name.
pub fn is_event_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"))
}

/// Reads the files of one folder, the names' order being the order in time. Where a later file, of a resumed run, has
/// a step again, it counts and the earlier one does not. What cannot be read of a damaged file goes to `warnings`.
///
/// # Errors
/// If a file cannot be read at all.
pub fn read_files(files: &[PathBuf], warnings: &mut Vec<String>) -> Result<Curves, Failure> {
    let mut curves = Curves::new();
    for path in files {
        let file = File::open(path).map_err(|e| Failure::io(path, "read the events", &e))?;
        let mut records = Records { source: BufReader::new(file), offset: 0 };
        let mut scalars = Scalars::default();
        loop {
            let start = records.offset;
            let damage = match records.next().map_err(|e| Failure::io(path, "read the events", &e))? {
                Record::Whole(data) => match Event::parse_from_bytes(&data) {
                    Ok(event) => {
                        scalars.take(&event);
                        continue;
                    }
                    Err(_) => "is no TensorBoard event and is left out",
                },
                Record::DamagedData => "is damaged and left out",
                Record::DamagedLength => "is damaged, and what follows cannot be read",
                // A writer may be at work: the last record can be there in part.
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

/// Adds later curves to earlier ones; of a step that both have, the later one's stays.
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
    DamagedLength,
    End,
}

/// The records of a file, one after the other.
struct Records<R> {
    source: R,
    offset: u64,
}

impl<R: Read> Records<R> {
    fn next(&mut self) -> std::io::Result<Record> {
        let Some(head) = self.take(12)? else { return Ok(Record::End) };
        let (length, sum) = head.split_at(8);
        if masked(length).to_le_bytes() != sum {
            return Ok(Record::DamagedLength);
        }
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        let Some(data) = self.take(length)? else { return Ok(Record::End) };
        let Some(sum) = self.take(4)? else { return Ok(Record::End) };
        Ok(if masked(&data).to_le_bytes() == *sum { Record::Whole(data) } else { Record::DamagedData })
    }

    /// The next bytes, if there are as many.
    fn take(&mut self, count: u64) -> std::io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(count).read_to_end(&mut bytes)? as u64;
        self.offset += read;
        Ok((read == count).then_some(bytes))
    }
}

/// The format's checksum: CRC-32C, rotated and shifted so that checksums of checksums keep their worth.
pub fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The scalars of one file.
#[derive(Default)]
struct Scalars {
    curves: Curves,
    /// Tags whose tensors are scalars: writers may say so with the first one only.
    tensors: BTreeSet<String>,
}

impl Scalars {
    fn take(&mut self, event: &Event) {
        for value in event.get_summary().get_value() {
            if let Some(number) = self.number(value) {
                let point = Point { step: event.get_step(), time: event.get_wall_time(), value: number };
                self.curves.entry(value.get_tag().to_owned()).or_default().push(point);
            }
        }
    }

    fn number(&mut self, value: &Summary_Value) -> Option<f64> {
        if value.has_simple_value() {
            return Some(f64::from(value.get_simple_value()));
        }
        if value.get_metadata().get_plugin_data().get_plugin_name() == SCALARS {
            self.tensors.insert(value.get_tag().to_owned());
        }
        (value.has_tensor() && self.tensors.contains(value.get_tag())).then(|| only_element(value.get_tensor()))?
    }
}

/// The number of a tensor that has one element.
fn only_element(tensor: &TensorProto) -> Option<f64> {
    let bytes = tensor.get_tensor_content();
    match tensor.get_dtype() {
        DataType::DT_FLOAT => match bytes.try_into() {
            Ok(bytes) => Some(f64::from(f32::from_le_bytes(bytes))),
            Err(_) => tensor.get_float_val().first().map(|&value| f64::from(value)),
        },
        DataType::DT_DOUBLE => match bytes.try_into() {
            Ok(bytes) => Some(f64::from_le_bytes(bytes)),
            Err(_) => tensor.get_double_val().first().copied(),
        },
        DataType::DT_INT32 => match bytes.try_into() {
            Ok(bytes) => Some(f64::from(i32::from_le_bytes(bytes))),
            Err(_) => tensor.get_int_val().first().map(|&value| f64::from(value)),
        },
        DataType::DT_INT64 => match bytes.try_into() {
            Ok(bytes) => Some(i64::from_le_bytes(bytes) as f64),
            Err(_) => tensor.get_int64_val().first().map(|&value| value as f64),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DataType, fill: impl FnOnce(&mut TensorProto)) -> TensorProto {
        let mut tensor = TensorProto::new();
        tensor.set_dtype(dtype);
        fill(&mut tensor);
        tensor
    }

    #[test]
    fn a_tensor_with_one_element_is_a_number_however_it_is_written() {
        let all = [
            tensor(DataType::DT_FLOAT, |t| t.set_float_val(vec![2.5])),
            tensor(DataType::DT_FLOAT, |t| t.set_tensor_content(2.5_f32.to_le_bytes().to_vec())),
            tensor(DataType::DT_DOUBLE, |t| t.set_double_val(vec![2.5])),
            tensor(DataType::DT_DOUBLE, |t| t.set_tensor_content(2.5_f64.to_le_bytes().to_vec())),
        ];
        assert!(all.iter().all(|tensor| only_element(tensor) == Some(2.5)));
        assert_eq!(only_element(&tensor(DataType::DT_INT64, |t| t.set_int64_val(vec![7]))), Some(7.0));
        assert_eq!(only_element(&tensor(DataType::DT_STRING, |t| t.set_string_val(vec![vec![1]].into()))), None);
    }

    #[test]
    fn tensors_count_once_their_plugin_is_known() {
        let mut scalars = Scalars::default();
        let event = |plugin: &str, step| {
            let mut value = Summary_Value::new();
            value.set_tag("loss".to_owned());
            value.set_tensor(tensor(DataType::DT_FLOAT, |t| t.set_float_val(vec![1.0])));
            value.mut_metadata().mut_plugin_data().set_plugin_name(plugin.to_owned());
            let mut event = Event::new();
            event.set_step(step);
            event.mut_summary().set_value(vec![value].into());
            event
        };
        for (plugin, step) in [("histograms", 0), (SCALARS, 1), ("", 2)] {
            scalars.take(&event(plugin, step));
        }
        assert_eq!(scalars.curves["loss"].iter().map(|point| point.step).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn of_a_step_that_was_written_again_the_later_value_stays() {
        let curve = |values: &[(i64, f64)]| {
            let points = values.iter().map(|&(step, value)| Point { step, time: 0.0, value });
            Curves::from([("x".to_owned(), points.collect())])
        };
        let mut curves = curve(&[(1, 1.0), (2, 2.0), (3, 3.0)]);
        merge(&mut curves, curve(&[(2, 20.0), (4, 40.0)]));
        assert_eq!(curves, curve(&[(1, 1.0), (2, 20.0), (3, 3.0), (4, 40.0)]));
    }
}
