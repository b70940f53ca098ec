use super::*;
use crate::tests::Lines;

type Read = (Vec<(String, f32)>, Vec<(String, usize)>, Vec<String>);

/// Reads these bytes as a file `a.csv`: its rows, what was left out, and the warnings without the folder's path.
fn file(bytes: impl AsRef<[u8]>) -> Read {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, bytes).unwrap();
    let lines = Lines::default();
    let mut rows = Vec::new();
    let (_, source) = read(&path, "fitness", Form::Raw, &Context::new(&lines), |_, _, antibody| {
        rows.extend(antibody.map(|antibody| (antibody.combined.concat(), antibody.fitness)));
    })
    .unwrap();
    assert_eq!((source.rows, source.sha256.len()), (rows.len(), 64));
    (rows, source.skipped, lines.without(folder.path()))
}

fn one(text: &str, fitness: f32) -> Vec<(String, f32)> {
    vec![(text.to_owned(), fitness)]
}

#[test]
fn a_plain_file_says_nothing() {
    assert_eq!(file("heavy,light,fitness\nEV,DI,1.5\n"), (one("EV|DI", 1.5), vec![], vec![]));
}

#[test]
fn columns_stand_in_any_order_and_others_are_ignored() {
    assert_eq!(file("id,fitness,light,heavy\r\n7,-2e-1,DI,EV").0, one("EV|DI", -0.2));
}

#[test]
fn rows_are_left_out_with_their_reasons() {
    let text =
        "heavy,light,fitness\nA,B,1\n,B,1\nA,,1\nA,B,\nA,B,  \nA,B,?\nA,B,NaN\nA,B,inf\nA,B,1e99\nA,B\nA,B,1,2\n\n";
    let (rows, skipped, lines) = file(text);
    assert_eq!(rows, one("A|B", 1.0));
    let expected = [
        ("wrong number of columns", 2),
        ("no heavy or light chain", 2),
        ("no fitness value", 2),
        ("fitness is not a finite number", 4),
    ];
    assert_eq!(skipped, expected.map(|(reason, count)| (reason.to_owned(), count)));
    assert_eq!(
        lines,
        ["a.csv: 10 of 11 rows left out: wrong number of columns (2), no heavy or light chain (2), \
          no fitness value (2), fitness is not a finite number (4)"]
    );
    assert_eq!(file("heavy,light,fitness\nA,B,1\nA,B,\n").2, ["a.csv: 1 of 2 rows left out: no fitness value"]);
}

#[test]
fn invisible_characters_do_not_count() {
    let text = "\u{feff}heavy,\u{200b}light,fitness\u{a0}\nE\u{ad}V,DI,\u{a0}\u{202d}1.5\u{200b}\u{feff}\n";
    assert_eq!(file(text), (one("EV|DI", 1.5), vec![], vec![]));
}

#[test]
fn a_quoted_line_break_does_not_end_the_row() {
    assert_eq!(file("heavy,light,fitness\n\"EV\nQL\",\"DI\r\n\",\"1.5\n\"\n").0, one("EVQL|DI", 1.5));
}

#[test]
fn other_encodings_are_read() {
    let text = "heavy,light,fitness\nEV,DI,1.5\n";
    for (mark, encode) in [([0xff, 0xfe], u16::to_le_bytes as fn(u16) -> [u8; 2]), ([0xfe, 0xff], u16::to_be_bytes)] {
        let bytes: Vec<u8> = mark.into_iter().chain(text.encode_utf16().flat_map(encode)).collect();
        assert_eq!(file(bytes), (one("EV|DI", 1.5), vec![], vec![]));
    }
    let (rows, skipped, lines) = file(b"heavy,light,fitness,unit\nEV,DI,1.5,\xb0C\nEV,DI,\xa02,\xb0C\n");
    assert_eq!((rows.len(), rows[1].1, skipped), (2, 2.0, vec![]));
    assert_eq!(lines, ["a.csv: neither UTF-8 nor UTF-16, read as Latin-1"]);
}

#[test]
fn a_file_that_cannot_be_used_is_left_out_as_a_whole() {
    let (rows, skipped, lines) = file("heavy,fitness\nA,1\nB,2\n");
    assert_eq!((rows, skipped), (vec![], vec![("it has no column `light`".to_owned(), 2)]));
    assert_eq!(lines, ["a.csv: the file is left out: it has no column `light`, only `heavy`, `fitness`"]);
    for empty in ["", "\n\n", "\u{feff}"] {
        let (rows, skipped, lines) = file(empty);
        assert_eq!((rows, skipped), (vec![], vec![("it is empty".to_owned(), 0)]));
        assert_eq!(lines, ["a.csv: the file is left out: it is empty"]);
    }
    assert_eq!(file("heavy,light,fitness\n").2, ["a.csv: the file is left out: it has no row"]);
}

#[test]
fn a_row_with_too_few_fields_is_whole_where_the_reference_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "heavy,light,fitness,note\nA,B,1\nA,B\n   \nA,B,2,x,y\nNA,B,3,x\n").unwrap();
    let lines = Lines::default();
    let mut rows = Vec::new();
    let take = |record: &StringRecord, _: usize, antibody: Option<Antibody<'_>>| {
        rows.push((record.len(), antibody.map(|antibody| antibody.fitness)));
    };
    let (names, source) = read(&path, "fitness", Form::Whole, &Context::new(&lines), take).unwrap();
    assert_eq!((rows, names.len(), source.rows), (vec![(3, Some(1.0)), (2, None), (4, None)], 4, 1));
    let reasons = "wrong number of columns (1), no heavy or light chain (1), no fitness value (1)";
    assert_eq!(lines.without(folder.path()), [format!("a.csv: 3 of 4 rows left out: {reasons}")]);
}

#[test]
fn not_a_number_and_infinity_are_no_fitness() {
    for text in ["NaN", "nan", "-NaN", "inf", "-inf", "Infinity", "1e39", "-1e400"] {
        let (rows, skipped, _) = file(format!("heavy,light,fitness\nA,B,{text}\nC,D,-0.5\n"));
        assert_eq!(
            (rows, skipped),
            (one("C|D", -0.5), vec![("fitness is not a finite number".to_owned(), 1)]),
            "{text}"
        );
    }
}

#[test]
fn a_million_rows_take_little_more_memory_than_their_text() {
    use std::fmt::Write as _;
    let mut text = String::from("heavy,light,fitness\n");
    (0..1_000_000).for_each(|i| writeln!(text, "H{i},L,{}", i % 1000).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, &text).unwrap();
    let (mut texts, mut sum) = (fedplug_tables::text::Texts::default(), 0.0);
    let (_, source) =
        read(&path, "fitness", Form::Raw, &Context::new(&plugin_api::context::Silent), |_, _, antibody| {
            let Antibody { combined, fitness } = antibody.unwrap();
            texts.push(combined);
            sum += f64::from(fitness);
        })
        .unwrap();
    assert_eq!((source.rows, source.skipped, sum), (1_000_000, vec![], 499_500_000.0));
    assert_eq!((texts.get(0), texts.get(999_999)), ("H0|L", "H999999|L"));
    // Bytes: a text's own and eight for its end, each in a vector that may be twice as large as needed.
    assert!(texts.memory() <= 2 * (text.len() + 8 * 1_000_000), "{}", texts.memory());
}

#[test]
fn a_long_reading_stops_on_request() {
    struct Stop;
    impl plugin_api::context::Host for Stop {
        fn enabled(&self, _: plugin_api::Level) -> bool {
            false
        }
        fn log(&self, _: plugin_api::Level, _: &str) {}
        fn scalar(&self, _: &str, _: u64, _: f64) {}
        fn progress(&self, _: u64, _: u64) {}
        fn note(&self, _: &str, _: &str) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "heavy,light,fitness\nA,B,1\n").unwrap();
    let error = read(file.path(), "fitness", Form::Raw, &Context::new(&Stop), |_, _, _| ()).unwrap_err();
    assert_eq!(*error.kind(), plugin_api::ErrorKind::Cancelled);
}
