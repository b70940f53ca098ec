use plugin_api::context::Silent;
use test_support::Recorder;

use super::*;

/// The line and first field of each row, the skipped rows by reason, and the warnings.
type Read = (Vec<(u64, String)>, Vec<(String, usize)>, Vec<String>);

fn read(name: &str, bytes: &[u8]) -> Read {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let (recorder, mut rows) = (Recorder::default(), Vec::new());
    let ctx = Context::new(&recorder);
    let reasons = ["bad".to_owned()];
    let rules = RowPolicy { reasons: &reasons, allow_short_rows: false, allow_empty: false };
    let file = CsvFile::open(&path, b',', &ctx).unwrap();
    let source = file.rows(rules, &ctx, |record| {
        rows.push((line(record), record[0].to_owned()));
        if &record[0] == "bad" { Err(RowError::Skip(0)) } else { Ok(()) }
    });
    (rows, source.unwrap().skipped, recorder.lines_below(folder.path()))
}

#[test]
fn a_row_comes_with_the_line_on_which_it_begins() {
    let text = "\u{feff}h,n\r\n\r\na,1\r\n\"b\r\nb\",2\r\n\r\n\r\nc,3,\r\n , \r\nbad,4\r\nd,5";
    let (rows, skipped, warnings) = read("a.csv", text.as_bytes());
    let wanted = [(3, "a"), (4, "b\r\nb"), (8, "c"), (9, " "), (10, "bad"), (11, "d")];
    assert_eq!(rows, wanted.map(|(line, text)| (line, text.to_owned())));
    assert_eq!(skipped, [("bad".to_owned(), 1)]);
    assert_eq!(warnings, ["a.csv: 1 of 6 rows skipped: bad (line 10)"]);
    // The same in an encoding that is decoded first.
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read("a.csv", &utf16).0, rows);
}

#[test]
fn surplus_separators_cost_no_row() {
    for text in ["h,n\na,1,\nb,2\n", "h,n,\na,1\nb,2,\n", "h,n,,\na,1,,,\nb,2\n"] {
        let (rows, skipped, _) = read("a.csv", text.as_bytes());
        assert_eq!((rows.len(), skipped.len()), (2, 0), "{text}");
    }
    assert_eq!(read("a.csv", b"h,n\na,1,000\nb\n").1, [("wrong number of columns".to_owned(), 2)]);
}

#[test]
fn an_unclosed_quote_causes_a_warning() {
    let rows = "x,1,n\n".repeat(20);
    for (text, skipped, line) in [
        (format!("h,n,note\nx,1,n\nx,1,\"n\n{rows}"), 0, 3),
        (format!("h,n,note\nx,\"1,n\n{rows}"), 1, 2),
        ("h,n,note\nbad,\"1\n2\",n\n".to_owned(), 1, 2),
    ] {
        let (_, all, warnings) = read("a.csv", text.as_bytes());
        assert_eq!(all.len(), skipped);
        let wanted = format!("a.csv:{line}: this row spans ");
        assert!(warnings.iter().any(|warning| warning.starts_with(&wanted)), "{warnings:?}");
    }
    assert_eq!(read("a.csv", b"h,n,note\nx,1,\"a\n\nb\"\n").2, Vec::<String>::new());
}

#[test]
fn files_named_tsv_or_tab_have_tabs_between_columns() {
    for name in ["a.tsv", "a.TAB"] {
        assert_eq!(read(name, b"h\tn\na,b\t1\n").0, [(2, "a,b".to_owned())]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tsv");
    std::fs::write(&path, "h,n\n1,2\n").unwrap();
    let ctx = Context::new(&Silent);
    let mut file = CsvFile::open(&path, b',', &ctx).unwrap();
    let names = file.names(&["h", "n"]);
    let reason = file.missing_columns(&names, &["h", "n"]).reason;
    assert_eq!(reason, "its columns are separated by `,`, but its name says tabs; rename it to `.csv`");
}
