//! Checkpoints that are written, damaged and read.

use plugin_api::Tensor;

use super::*;

fn write(run: &Path, number: f64) {
    let mut writer = Writer::new(run).unwrap();
    let params: Params = [("w", Tensor::from_slice(&[1], &[number]).unwrap())].into_iter().collect();
    // Names that would be the same file, and one that no file could have.
    for name in ["client.1.1.0", "client.1", &"x".repeat(1000)] {
        let values = [("exact".to_owned(), number.into())].into_iter().collect();
        writer.state(name, &State { tensors: params.clone(), values }).unwrap();
    }
    writer.message("global", &Message { extra: params, ..Message::default() }).unwrap();
    writer.finish(&number).unwrap();
}

fn open(run: &Path) -> (Option<(Reader, f64)>, Vec<String>) {
    let mut warnings = Vec::new();
    let found = Reader::open(run, &mut |line| warnings.push(line.to_owned())).unwrap();
    (found, warnings)
}

#[test]
fn what_was_written_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    // Of the numbers between 0 and 1, serde_json reads one in ten a bit off unless it is told to be exact.
    let number = 0.456_943_763_567_021_9;
    write(folder.path(), number);
    let (reader, kept) = open(folder.path()).0.unwrap();
    assert_eq!(f64::to_bits(kept), number.to_bits());
    let state = reader.state(&"x".repeat(1000)).unwrap();
    assert_eq!(state.value::<f64>("exact").unwrap().to_bits(), number.to_bits());
    assert_eq!(state.tensors.elements::<f64>("w", &[1]).unwrap(), [number]);
    let message = reader.message("global").unwrap();
    assert!(message.params.is_empty());
    assert_eq!(message.extra.elements::<f64>("w", &[1]).unwrap(), [number]);
}

#[test]
fn the_last_whole_one_counts_and_the_one_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    assert!(open(folder.path()).0.is_none());
    (1..=3).for_each(|number| write(folder.path(), f64::from(number)));
    assert_eq!(open(folder.path()).0.unwrap().1, 3.0);
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path().join(names::CHECKPOINT)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["00000002", "00000003"]);
    // Killed while it was written: it has no sums, and goes when the next is begun.
    drop(Writer::new(folder.path()).unwrap());
    assert_eq!(open(folder.path()).0.unwrap().1, 3.0);
    write(folder.path(), 5.0);
    assert_eq!(names(), ["00000003", "00000005"]);
}

#[test]
fn a_changed_bit_of_any_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1.0);
    write(folder.path(), 2.0);
    let last = folder.path().join(names::CHECKPOINT).join("00000002");
    for entry in std::fs::read_dir(&last).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 2] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&path, changed).unwrap();
            let (found, warnings) = open(folder.path());
            assert_eq!(found.unwrap().1, 1.0, "{} at {at}", path.display());
            assert!(warnings[0].contains("damaged checkpoint"), "{warnings:?}");
            std::fs::rename(last.with_extension("damaged"), &last).unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
    }
    // Two files in each other's parent.
    let [one, two] = ["1.safetensors", "4.safetensors"].map(|name| last.join(name));
    let bytes = std::fs::read(&one).unwrap();
    std::fs::write(&two, [bytes, vec![0]].concat()).unwrap();
    assert_eq!(open(folder.path()).0.unwrap().1, 1.0);
    std::fs::remove_dir_all(folder.path().join(names::CHECKPOINT).join("00000001")).unwrap();
    std::fs::rename(last.with_extension("damaged"), &last).unwrap();
    let failure = Reader::open::<f64>(folder.path(), &mut |_| ()).unwrap_err();
    assert!(failure.to_string().contains("every checkpoint is damaged"), "{failure}");
}
