use std::io::Write as _;

use test_support::fuzz::{Memory, fuzz, overwrite};

use super::messages::{Metadata, PluginData, Summary};
use super::*;

#[test]
fn a_tensor_with_one_element_is_a_number_however_it_is_written() {
    let all = [
        Tensor { dtype: messages::FLOAT, float_val: vec![2.5], ..Tensor::default() },
        Tensor { dtype: messages::FLOAT, tensor_content: 2.5_f32.to_le_bytes().to_vec(), ..Tensor::default() },
        Tensor { dtype: messages::DOUBLE, double_val: vec![2.5], ..Tensor::default() },
        Tensor { dtype: messages::DOUBLE, tensor_content: 2.5_f64.to_le_bytes().to_vec(), ..Tensor::default() },
    ];
    assert!(all.iter().all(|tensor| only_element(tensor) == Some(2.5)));
    let seven = Tensor { dtype: messages::INT64, int64_val: vec![7], ..Tensor::default() };
    assert_eq!(only_element(&seven), Some(7.0));
    let text = Tensor { dtype: 7, tensor_content: vec![1], ..Tensor::default() };
    assert_eq!(only_element(&text), None);
}

fn value(tag: &str) -> Value {
    Value { tag: tag.to_owned(), ..Value::default() }
}

fn event(step: i64, value: Value) -> Event {
    Event { wall_time: 1.0, step, summary: Some(Summary { value: vec![value] }) }
}

#[test]
fn tensors_count_once_their_plugin_is_known() {
    let mut scalars = Scalars::default();
    for (plugin, step) in [("histograms", 0), (SCALARS, 1), ("", 2)] {
        let tensor = Tensor { dtype: messages::FLOAT, float_val: vec![1.0], ..Tensor::default() };
        let metadata = Metadata { plugin_data: Some(PluginData { plugin_name: plugin.to_owned() }) };
        let value = Value { tensor: Some(tensor.into()), metadata: Some(metadata.into()), ..value("loss") };
        scalars.take(&event(step, value));
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

/// A record with valid checksums.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// A record with one scalar.
fn scalar(step: i64) -> Vec<u8> {
    record(&event(step, Value { simple_value: Some(0.5), ..value("x") }).encode_to_vec())
}

/// The steps that are read and the warnings, without the file's name.
fn read(parts: &[Vec<u8>]) -> (Vec<i64>, Vec<String>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    parts.iter().for_each(|part| file.write_all(part).unwrap());
    read_file(file.path())
}

fn read_file(path: &Path) -> (Vec<i64>, Vec<String>) {
    let mut warnings = Vec::new();
    let curves = read_files(&[path.to_owned()], &mut warnings).unwrap();
    let steps = curves.get("x").map_or_else(Vec::new, |curve| curve.iter().map(|point| point.step).collect());
    (steps, warnings.iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect())
}

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    [field, bytes.to_vec()].concat()
}

#[test]
fn messages_within_messages_cost_no_stack() {
    let refused = "the record at byte 0 is not a TensorBoard event; skipped".to_owned();
    // A hundred thousand starts of a group with an unknown field number, with and without the matching ends.
    let open = vec![15 << 3 | 3; 100_000];
    let closed = [open.clone(), vec![15 << 3 | 4; 100_000]].concat();
    for data in [open, closed] {
        let data = record(&data);
        let next = scalar(1);
        assert_eq!(read(&[data, next]), (vec![1], vec![refused.clone()]));
    }
    // Tensors nested in variants of tensors; only a reader that knows variants recurses into them.
    let mut tensor = Vec::new();
    for _ in 0..10_000 {
        tensor = field(15, &field(3, &tensor));
    }
    let nested = record(&field(5, &field(1, &field(8, &tensor))));
    assert_eq!(read(&[nested, scalar(1)]), (vec![1], vec![]));
}

#[test]
fn a_length_is_not_believed() {
    for length in [LONGEST + 1, 1 << 40, u64::MAX - 3, u64::MAX] {
        let length = length.to_le_bytes();
        let head = [&length[..], &masked(&length).to_le_bytes()].concat();
        // The file is shorter than this record, so a writer may still be working on it.
        assert_eq!(read(&[scalar(1), head, scalar(2)]), (vec![1], vec![]));
    }
    // Inside a message: a string, and packed numbers.
    for inner in [[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], [0x2a, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
        let (steps, warnings) = read(&[record(&field(5, &field(1, &inner))), scalar(2)]);
        assert_eq!((steps, warnings.len()), (vec![2], 1));
    }
}

/// The file is sparse: 8 GiB that take no disk space and would not fit into the memory of a test.
#[test]
#[cfg(target_os = "linux")]
fn a_record_that_is_longer_than_any_scalar_is_passed_over_unread() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let length = (8_u64 << 30).to_le_bytes();
    file.write_all(&[&scalar(1)[..], &length, &masked(&length).to_le_bytes()].concat()).unwrap();
    let end = file.as_file().metadata().unwrap().len() + (8 << 30) + 4;
    file.as_file().set_len(end).unwrap();
    file.seek(std::io::SeekFrom::Start(end)).unwrap();
    file.write_all(&scalar(2)).unwrap();
    let told = format!("the record at byte {} is longer than any scalar; skipped", scalar(1).len());
    assert_eq!(read_file(file.path()), (vec![1, 2], vec![told]));
}

#[test]
fn damage_is_told_and_what_can_be_read_is_read() {
    let at = |byte: usize, what: &str| vec![format!("the record at byte {byte} {what}")];
    let len = scalar(1).len();
    let mut data = scalar(2);
    data[12] ^= 1;
    assert_eq!(read(&[scalar(1), data, scalar(3)]), (vec![1, 3], at(len, "is damaged; skipped")));
    let mut sum = scalar(2);
    sum[len - 1] ^= 1;
    assert_eq!(read(&[scalar(1), sum, scalar(3)]), (vec![1, 3], at(len, "is damaged; skipped")));
    let mut length = scalar(2);
    length[0] ^= 1;
    let told = at(len, "is damaged, so the rest of the file cannot be read");
    assert_eq!(read(&[scalar(1), length, scalar(3)]), (vec![1], told));
    // Truncated anywhere in the last record: it is still being written.
    for cut in 0..len {
        assert_eq!(read(&[scalar(1), scalar(2)[..cut].to_vec()]), (vec![1], vec![]));
    }
    assert_eq!(read(&[record(&[0xff; 40]), scalar(2)]).0, [2]);
    assert_eq!(read(&[vec![0; 4096]]).1.len(), 1);
}

/// The scalars of a file with these bytes.
fn scalars(file: &Path, bytes: &[u8]) -> bool {
    overwrite(file, bytes);
    let mut warnings = Vec::new();
    let curves = read_files(&[file.to_owned()], &mut warnings).unwrap();
    !curves.is_empty()
}

/// Two bytes make a value.
const MEMORY: Memory = Memory { base: 32 << 10, per_byte: 150 };

#[test]
fn any_file_of_events_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fuzz("event-file", 500, MEMORY, |input| scalars(file.path(), input));
}

#[test]
fn any_event_with_the_right_checksum_is_read_or_skipped() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let known = scalar(0);
    fuzz("event", 500, MEMORY, |input| {
        assert!(scalars(file.path(), &[&record(input)[..], &known].concat()), "what follows it is read");
        Event::decode(input).is_ok()
    });
}
