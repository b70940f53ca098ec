use serde_json::{Value, json};

use super::*;
use crate::tests::lines_below;
use test_support::Recorder;

type Read = (Vec<(String, f32)>, Vec<(String, usize)>, Vec<String>);

/// Reads these bytes as a file `a.csv`: its rows, the skipped rows by reason, and the warnings.
fn file(bytes: impl AsRef<[u8]>) -> Read {
    file_with(json!({}), bytes)
}

fn config(keys: Value) -> Config {
    let mut table = json!({ "root": "" });
    table.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    plugin_api::config::read(&table).unwrap()
}

/// The same with these keys.
fn file_with(keys: Value, bytes: impl AsRef<[u8]>) -> Read {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, bytes).unwrap();
    let recorder = Recorder::default();
    let mut rows = Vec::new();
    let config = config(keys);
    let mut classes = ClassNames::new(&config.classes);
    let (_, source) = read(&path, &config, ReadMode::Raw, &mut classes, &Context::new(&recorder), |_, _, antibody| {
        rows.extend(antibody.map(|antibody| (antibody.combined.concat(), antibody.fitness)));
    })
    .unwrap();
    assert_eq!((source.rows, source.sha256.len()), (rows.len(), 64));
    (rows, source.skipped, lines_below(&recorder, folder.path()))
}

fn one(text: &str, fitness: f32) -> Vec<(String, f32)> {
    vec![(text.to_owned(), fitness)]
}

#[test]
fn a_plain_file_causes_no_warning() {
    assert_eq!(file("heavy,light,fitness\nEV,DI,1.5\n"), (one("EV|DI", 1.5), vec![], vec![]));
}

#[test]
fn columns_may_be_in_any_order_and_others_are_ignored() {
    assert_eq!(file("id,fitness,light,heavy\r\n7,-2e-1,DI,EV").0, one("EV|DI", -0.2));
}

#[test]
fn unusable_rows_are_skipped_with_their_reasons() {
    let text =
        "heavy,light,fitness\nA,B,1\n,B,1\nA,,1\nA,B,\nA,B,  \nA,B,?\nA,B,NaN\nA,B,inf\nA,B,1e99\nA,B\nA,B,1,2\n\n";
    let (rows, skipped, lines) = file(text);
    assert_eq!(rows, one("A|B", 1.0));
    let expected = [
        ("wrong number of columns", 2),
        ("no heavy chain; `chains = \"any\"` accepts single chains", 1),
        ("no light chain; `chains = \"any\"` accepts single chains", 1),
        ("no `fitness`", 4),
        ("`fitness` is not a finite number", 2),
    ];
    assert_eq!(skipped, expected.map(|(reason, count)| (reason.to_owned(), count)));
    assert_eq!(
        lines,
        [
            "a.csv: 10 of 11 rows skipped: wrong number of columns (2, first on line 11), no heavy chain; `chains = \"any\"` \
          accepts single chains (line 3), no light chain; `chains = \"any\"` accepts single chains (line 4), no `fitness` (4, \
          first on line 5), `fitness` is not a finite number (2, first on line 9)"
        ]
    );
    let one = file_with(json!({ "target": "log Kd" }), "heavy,light,log Kd\nA,B,1\nA,B,\n");
    assert_eq!(one.2, ["a.csv: 1 of 2 rows skipped: no `log Kd` (line 3)"]);
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
    assert_eq!(lines, ["a.csv: neither UTF-8 nor UTF-16, read as Windows-1252"]);
}

#[test]
fn unusable_files_are_skipped_as_a_whole() {
    let (rows, skipped, lines) = file("heavy,fitness\nA,1\nB,2\n");
    let (reason, advice) = ("it has no column `light`", "; `chains = \"heavy\"` accepts single chains");
    assert_eq!((rows, skipped), (vec![], vec![(format!("{reason}{advice}"), 2)]));
    assert_eq!(lines, [format!("a.csv: file skipped: {reason}, only `heavy`, `fitness`{advice}")]);
    let lines = file("heavy,light,Kd\nA,B,1\n").2;
    assert_eq!(lines, ["a.csv: file skipped: it has no column `fitness`, only `heavy`, `light`, `Kd`"]);
    for empty in ["", "\n\n", "\u{feff}"] {
        let (rows, skipped, lines) = file(empty);
        assert_eq!((rows, skipped), (vec![], vec![("it is empty".to_owned(), 0)]));
        assert_eq!(lines, ["a.csv: file skipped: it is empty"]);
    }
    assert_eq!(file("heavy,light,fitness\n").2, ["a.csv: file skipped: it has no rows"]);
}

#[test]
fn a_column_with_a_namesake_is_an_error_only_if_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let problem = |chains: &str, mode: ReadMode, header: &str| {
        std::fs::write(&path, format!("{header}\nA,B,1,C,2\n")).unwrap();
        let ctx = Context::new(&plugin_api::context::Silent);
        let read =
            read(&path, &config(json!({ "chains": chains })), mode, &mut ClassNames::default(), &ctx, |_, _, _| ());
        read.err().map(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    };
    for mode in [ReadMode::Raw, ReadMode::KeepUnusable] {
        assert_eq!(problem("paired", mode, "heavy,light,fitness,note,note"), None);
        assert_eq!(problem("paired", mode, "heavy,light,fitness,combined,combined"), None);
        assert_eq!(problem("heavy", mode, "heavy,light,fitness,light,id"), None);
        let twice = problem("light", mode, "heavy,light,fitness, Light,light");
        assert_eq!(twice.unwrap(), "a.csv:1: columns 2 and 5 are both named `light`");
        let twice = problem("paired", mode, "heavy,light,fitness,note,\u{200b}fitness");
        assert_eq!(twice.unwrap(), "a.csv:1: columns 3 and 5 are both named `fitness`");
    }
    let twice = problem("paired", ReadMode::Prepared, "heavy,heavy,fitness,combined,combined");
    assert_eq!(twice.unwrap(), "a.csv:1: columns 4 and 5 are both named `combined`");
}

#[test]
fn short_rows_are_kept_for_the_published_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "heavy,light,fitness,note\nA,B,1\nA,B\n   \nA,B,2,x,y\nNA,B,3,x\n").unwrap();
    let recorder = Recorder::default();
    let mut rows = Vec::new();
    let take = |record: &StringRecord, _: usize, antibody: Option<Antibody<'_>>| {
        rows.push((record.len(), antibody.map(|antibody| antibody.fitness)));
    };
    let (names, source) = read(
        &path,
        &config(json!({})),
        ReadMode::KeepUnusable,
        &mut ClassNames::default(),
        &Context::new(&recorder),
        take,
    )
    .unwrap();
    assert_eq!((rows, names.len(), source.rows), (vec![(3, Some(1.0)), (2, None), (4, None)], 4, 1));
    let reasons = "wrong number of columns (line 5), no heavy chain; `chains = \"any\"` accepts single chains (line 6), \
                   no `fitness` (line 3)";
    assert_eq!(lines_below(&recorder, folder.path()), [format!("a.csv: 3 of 4 rows skipped: {reasons}")]);
}

#[test]
fn fitness_must_be_a_finite_number() {
    for (text, reason) in [
        ("NaN", "no `fitness`"),
        ("-nan", "no `fitness`"),
        ("N/A", "no `fitness`"),
        ("-", "no `fitness`"),
        ("inf", "`fitness` is not a finite number"),
        ("1e39", "`fitness` is not a finite number"),
        ("-1e400", "`fitness` is not a finite number"),
        ("7 8", "`fitness` is not a finite number"),
        ("\"1,000\"", "`fitness` is not a finite number"),
        (">100", "`fitness` is censored or approximate (`>`, `<`, `~`)"),
        ("\"75,5\"", "`fitness` has a decimal comma; set `decimal = \",\"`"),
    ] {
        let (rows, skipped, _) = file(format!("heavy,light,fitness\nA,B,{text}\nC,D,-0.5\n"));
        assert_eq!((rows, skipped), (one("C|D", -0.5), vec![(reason.to_owned(), 1)]), "{text}");
    }
}

#[test]
fn missing_chains_are_recognised() {
    for text in ["NaN", "nan", "NA", "None", "n/a", "NULL", "#N/A", "<NA>", "-", ".", "?", "0", "\u{a0}na "] {
        let reason = "no light chain; `chains = \"any\"` accepts single chains";
        let (rows, skipped, _) = file(format!("heavy,light,fitness\nA,{text},1\nC,D,2\n"));
        assert_eq!((rows, skipped), (one("C|D", 2.0), vec![(reason.to_owned(), 1)]), "{text}");
        let (rows, skipped, _) = file_with(json!({ "chains": "any" }), format!("heavy,light,fitness\nA,{text},1\n"));
        assert_eq!((rows, skipped), (one("A", 1.0), vec![]), "{text}");
    }
}

#[test]
fn single_chains_are_read_on_request() {
    let nanobodies = "heavy,fitness\nEVQ,1\n,2\nQVQ,3\n";
    let both = "heavy,light,fitness\nA,B,1\nC,,2\n,D,3\n,,4\n";
    for (chains, text, expected, skipped) in [
        ("heavy", nanobodies, vec!["EVQ", "QVQ"], vec!["no heavy chain"]),
        ("any", nanobodies, vec!["EVQ", "QVQ"], vec!["no heavy or light chain"]),
        ("heavy", both, vec!["A", "C"], vec!["no heavy chain"]),
        ("light", both, vec!["B", "D"], vec!["no light chain"]),
        ("any", both, vec!["A|B", "C", "D"], vec!["no heavy or light chain"]),
        ("light", nanobodies, vec![], vec!["it has no column `light`"]),
    ] {
        let (rows, reasons, _) = file_with(json!({ "chains": chains }), text);
        assert_eq!(rows.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), expected, "{chains}");
        assert_eq!(reasons.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>(), skipped, "{chains}");
    }
    assert_eq!(file_with(json!({ "chains": "any" }), "fitness\n1\n").1[0].0, "it has no column `heavy`, `light`");
}

#[test]
fn chains_are_read_in_upper_case_and_unusual_letters_reported() {
    let (rows, skipped, lines) = file("heavy,light,fitness\nevq,DIQ,1\nEVQ,diX,2\nE V*,DIQ,3\nEVQ,,4\n");
    let texts: Vec<_> = rows.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!((texts, skipped.len()), (vec!["EVQ|DIQ", "EVQ|DIX", "EV*|DIQ"], 1));
    assert_eq!(
        lines[1..],
        [
            "a.csv: 2 of 3 rows have lower-case letters; read as upper case",
            "a.csv: 2 of 3 rows have letters other than the 20 amino acids and `B`: `*` (5.56%), `X` (5.56%) of all letters"
        ]
    );
}

#[test]
fn only_letters_of_chains_that_are_read_are_reported() {
    let text = "heavy,light,fitness\nEVQ,nan,1\nQVQ,x*,2\n";
    assert_eq!(file_with(json!({ "chains": "heavy" }), text).2, Vec::<String>::new());
    let lines = file_with(json!({ "chains": "any" }), text).2;
    assert_eq!(
        lines,
        [
            "a.csv: 1 of 2 rows have lower-case letters; read as upper case",
            "a.csv: 1 of 2 rows have letters other than the 20 amino acids and `B`: `*` (12.50%), `X` (12.50%) of all letters"
        ]
    );
}

#[test]
fn other_delimiters_are_read_on_request_and_otherwise_named() {
    let semicolons = "\u{feff}\"heavy\";\"light\";fitness\r\nA;B;\"7,25\"\r\nC;D;8\r\n";
    let (rows, skipped, lines) = file(semicolons);
    let reason = "its columns are separated by `;`, not `,`; set `delimiter = \";\"`";
    assert_eq!((rows, skipped), (vec![], vec![(reason.to_owned(), 2)]));
    assert_eq!(lines, [format!("a.csv: file skipped: {reason}")]);
    let keys = json!({ "delimiter": ";", "decimal": "," });
    let (rows, skipped, lines) = file_with(keys.clone(), semicolons);
    assert_eq!((rows, skipped, lines), ([one("A|B", 7.25), one("C|D", 8.0)].concat(), vec![], vec![]));
    let other = "its columns are separated by `,`, not `;`; set `delimiter = \",\"`";
    assert_eq!(file_with(keys, "heavy,light,fitness\nA,B,1\n").1[0].0, other);
    assert!(file("heavy\tlight\tfitness\nA\tB\t1\n").1[0].0.ends_with("set `delimiter = \"\\t\"`"));
}

#[test]
fn surplus_separators_cost_no_row() {
    for text in [
        "heavy,light,fitness\nA,B,1,\nC,D,2\nE,F,3,,\u{a0}\n",
        "heavy,light,fitness,\nA,B,1\nC,D,2,\nE,F,3,,\n",
        "heavy,light,fitness,,\nA,B,1\nC,D,2,,\nE,F,3,x\n",
    ] {
        assert_eq!(
            file(text),
            ([one("A|B", 1.0), one("C|D", 2.0), one("E|F", 3.0)].concat(), vec![], vec![]),
            "{text}"
        );
    }
    // Thousands without quotes are a column too many, and a column with a name is needed.
    for text in ["heavy,light,fitness\nA,B,1,000\n", "heavy,light,fitness,unit\nA,B,1\n"] {
        assert_eq!(file(text).1, [("wrong number of columns".to_owned(), 1)], "{text}");
    }
}

#[test]
fn files_that_are_not_tables_are_skipped_and_named() {
    let lines = file("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n").2;
    assert_eq!(
        lines,
        ["a.csv: file skipped: it is a Git LFS pointer, not the file itself; `git lfs pull` fetches that"]
    );
}

#[test]
fn a_million_rows_take_little_more_memory_than_their_text() {
    use std::fmt::Write as _;
    let mut text = String::from("heavy,light,fitness\n");
    (0..1_000_000).for_each(|i| writeln!(text, "H{i},L,{}", i % 1000).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, &text).unwrap();
    let (mut texts, mut sum) = (fedplug_tables::text::TextBuffer::default(), 0.0);
    let (_, source) = read(
        &path,
        &config(json!({})),
        ReadMode::Raw,
        &mut ClassNames::default(),
        &Context::new(&plugin_api::context::Silent),
        |_, _, antibody| {
            let Antibody { combined, fitness } = antibody.unwrap();
            texts.push(combined);
            sum += f64::from(fitness);
        },
    )
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
    let error = read(
        file.path(),
        &config(json!({})),
        ReadMode::Raw,
        &mut ClassNames::default(),
        &Context::new(&Stop),
        |_, _, _| (),
    )
    .unwrap_err();
    assert_eq!(*error.kind(), plugin_api::ErrorKind::Cancelled);
}
