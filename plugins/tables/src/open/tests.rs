use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;

use super::*;

fn at(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn text(opened: &mut TextFile) -> String {
    let mut text = String::new();
    opened.reader.read_to_string(&mut text).unwrap();
    text
}

fn read(bytes: &[u8]) -> (String, Option<&'static str>) {
    let (_folder, path) = at("a.csv", bytes);
    let mut opened = open_text(&path).unwrap();
    (text(&mut opened), opened.encoding_warning)
}

fn refused(name: &str, bytes: &[u8]) -> String {
    let (_folder, path) = at(name, bytes);
    open_text(&path).err().unwrap().message().to_owned()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(members: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in members {
        match name.strip_suffix('/') {
            Some(folder) => writer.add_directory(folder, SimpleFileOptions::default()).unwrap(),
            None => {
                writer.start_file(*name, SimpleFileOptions::default()).unwrap();
                writer.write_all(text.as_bytes()).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn characters_across_two_chunks_are_decoded() {
    for before in CHUNK - 4..=CHUNK {
        for character in ["é", "€", "🧬"] {
            let text = "A".repeat(before) + character + &"B".repeat(CHUNK);
            assert_eq!(read(text.as_bytes()), (text, None));
        }
    }
    let mut torn = "A".repeat(CHUNK - 1).into_bytes();
    torn.extend(b"\xe2\x82");
    let (text, encoding_warning) = read(&torn);
    assert_eq!((text, encoding_warning.is_some()), ("A".repeat(CHUNK - 1) + "â\u{201a}", true));
}

#[test]
fn encodings_are_detected_by_the_first_bytes() {
    let text = "Fitneß €,1\n";
    let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
    for bytes in [
        text.as_bytes().to_vec(),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        [&[0xff, 0xfe], &little[..]].concat(),
        [&[0xfe, 0xff], &big[..]].concat(),
        little,
        big,
    ] {
        assert_eq!(read(&bytes), (text.to_owned(), None), "{bytes:x?}");
    }
    let (western, encoding_warning) = read(b"\x80C,\xb0C\x96\n");
    assert_eq!(
        (western.as_str(), encoding_warning),
        ("€C,°C–\n", Some("neither UTF-8 nor UTF-16, read as Windows-1252"))
    );
    // A byte order mark with an invalid text.
    assert_eq!(read(b"\xef\xbb\xbfa\xb0\n").0, "a\u{fffd}\n");
    assert!(read(b"\xef\xbb\xbfa\xb0\n").1.is_some() && read(b"\xff\xfea\0\x00\xd8b\0").1.is_some());
}

#[test]
fn the_hash_is_of_the_bytes_in_the_file() {
    let (_folder, path) = at("a.csv", b"\xef\xbb\xbfabc");
    // printf '\xef\xbb\xbfabc' | sha256sum
    let expected = "1c28dc3f1f804a1ad9c9b4b4cf5e2658d16ad4ed08e3020d04a8d2865018947c";
    assert_eq!(open_text(&path).unwrap().sha256, expected);
    let packed = gz(b"abc");
    let (_folder, path) = at("a.csv.gz", &packed);
    let sha256: String = Sha256::digest(&packed).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(open_text(&path).unwrap().sha256, sha256);
}

#[test]
fn compressed_files_are_read_whatever_their_names() {
    let table = "a\tb\n1\t2\n";
    let mac =
        [("x/", ""), ("x/data.tsv", table), ("__MACOSX/x/._data.tsv", "?"), ("x/.b.csv", "?"), ("x/note.md", "?")];
    let twice = [gz(b"a\tb\n"), gz(b"1\t2\n")].concat();
    for (name, bytes, tabs) in [
        ("a.csv", table.as_bytes().to_vec(), false),
        ("a.TSV", table.as_bytes().to_vec(), true),
        ("a.csv.gz", gz(table.as_bytes()), false),
        ("a.tsv.gz", gz(table.as_bytes()), true),
        ("a.csv", gz(table.as_bytes()), false),
        ("a.csv.gz", table.as_bytes().to_vec(), false),
        ("a.tsv.gz", table.as_bytes().to_vec(), true),
        ("a.csv.gz", twice, false),
        ("a.csv.gz", gz(&[b"\xef\xbb\xbf", table.as_bytes()].concat()), false),
        ("a.zip", zip(&mac), true),
        ("a.csv.zip", zip(&[("b.csv", table)]), false),
        ("a.csv", zip(&[("b.TXT", table)]), false),
        ("a.tsv.zip", zip(&[("b.csv", table)]), false),
    ] {
        let (_folder, path) = at(name, &bytes);
        let mut opened = open_text(&path).unwrap();
        assert_eq!(
            (text(&mut opened).as_str(), opened.tab_separated, opened.encoding_warning),
            (table, tabs, None),
            "{name}"
        );
    }
    let packed = gz(b"\xb0C\n");
    assert_eq!(read(&packed).0, "°C\n");
}

#[test]
fn files_that_are_not_tables_are_named() {
    for (bytes, reason) in [
        (zip(&[]), "the archive contains no CSV file"),
        (zip(&[("a.png", "?")]), "the archive contains no CSV file"),
        (zip(&[("b.csv", "?"), ("a.tsv", "?")]), "the archive contains several files (`a.tsv`, `b.csv`); extract them"),
        (
            zip(&[("[Content_Types].xml", "?"), ("xl/x.xml", "?")]),
            "it is a workbook or document; save the table as CSV",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), "it is an Excel workbook; save the table as CSV"),
        (b"PAR1\x15\x04".to_vec(), "it is a Parquet file; save the table as CSV"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(),
            "it is a Git LFS pointer, not the file itself; `git lfs pull` fetches that",
        ),
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html>\n".to_vec(),
            "it is a web page or XML, not the file itself; download the file again",
        ),
        (b"\xfd7zXZ\0\0\x04".to_vec(), "it is compressed in a format that is not supported; decompress it"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "it is not a text file"),
        (b"a,b\n1\0,2\n".to_vec(), "it is not a text file"),
    ] {
        assert_eq!(refused("a.csv", &bytes), reason);
    }
}

#[test]
fn broken_compressed_files_are_errors() {
    let whole = gz("EVQLV".repeat(1000).as_bytes());
    let mut flipped = whole.clone();
    let place = whole.len() - 6;
    flipped[place] ^= 1;
    for bytes in [&whole[..whole.len() - 9], &flipped, &zip(&[("a.csv", "a,b")])[..40]] {
        let (_folder, path) = at("a.csv.gz", bytes);
        let error = open_or_explain(&path).err().unwrap();
        assert_eq!((error.message(), error.causes().len()), ("cannot be decompressed", 1));
    }
}

#[test]
fn tables_are_recognised_by_their_names() {
    for name in ["a.csv", "A.CSV", "a.tsv", "a.tab", "a.csv.gz", "a.tsv.gz", "a.csv.zip", "a.zip"] {
        assert!(is_table_file(Path::new(name)), "{name}");
    }
    for name in ["a.txt", "a.gz", "a.tar.gz", "a.xlsx", "csv", "a.csv.bak", "README.md"] {
        assert!(!is_table_file(Path::new(name)), "{name}");
    }
}
