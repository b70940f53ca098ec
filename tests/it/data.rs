//! Real-world data files: other separators, compression, missing values, single chains, repeated columns.

use crate::support::{Bench, Told};

const EXPERIMENT: &str = r#"name = "data"

[federation]
rounds = 1

[dataset]
plugin = "flab"
root = "ROOT"
tasks = ["tm"]

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"
"#;

/// `heavy,light,fitness` with five rows, packed by gzip.
const PACKED: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\x4d\x2c\xab\xd4\xc9\xc9\x4c\xcf\x28\xd1\x49\xcb\x2c\
    \xc9\x4b\x2d\x2e\xe6\x72\x0d\x0b\xd4\x71\xf1\x0c\xd4\x31\xd0\x33\x05\xb1\xdd\xc1\x1c\x43\x28\x07\xc2\
    \x33\x82\xf1\x20\x5c\x63\x38\x17\xc2\x37\x01\xf2\x01\x58\xc6\x8a\xa8\x5a\x00\x00\x00";

/// The experiment with a task folder of these files, and what `check` says of it with more arguments.
fn checked(files: &[(&str, &str)], arguments: &[&str]) -> (Bench, Told) {
    let bench = Bench::new();
    for (name, text) in files {
        bench.write(&format!("data/tm/{name}"), text);
    }
    let root = bench.path("data");
    let path = bench.write("data.toml", &EXPERIMENT.replace("ROOT", root.to_str().unwrap()));
    let told = bench.fedplug(&[&["check", path.to_str().unwrap()], arguments].concat());
    (bench, told)
}

/// A table of so many rows with these between its columns and before its fractions.
fn table(rows: usize, delimiter: &str, decimal: &str) -> String {
    let rows: String = (0..rows).map(|i| format!("EVQ{},DIQ,{i};5\n", "G".repeat(i))).collect();
    ("heavy,light,fitness\n".to_owned() + &rows).replace(',', delimiter).replace(';', decimal)
}

#[test]
fn a_file_with_another_separator_names_the_key_that_reads_it() {
    let files = [("a.csv", table(10, "|", ","))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let (_, told) = checked(&files, &[]);
    assert_eq!(told.code, 2);
    let wanted = "its columns are separated by `|`, not `,`; set `delimiter = \"|\"`";
    assert!(told.stderr.contains(wanted), "{}", told.stderr);
    let (_, told) = checked(&files, &["--set", "dataset.delimiter=\"|\""]);
    assert!(told.stderr.contains("`fitness` has a decimal comma; set `decimal = \",\"`"), "{}", told.stderr);
    let (_, told) = checked(&files, &["--set", "dataset.delimiter=\"|\"", "--set", "dataset.decimal=\",\""]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!((told.stdout + &told.stderr).contains("tm 8+2"));
}

#[test]
fn compressed_files_and_tabs_are_read_and_others_named() {
    let tabs = table(5, "\t", ".");
    let (bench, _) = checked(&[("a.tsv", &tabs), ("b.xlsx", "?"), ("sub/c.csv", "?")], &[]);
    std::fs::write(bench.path("data/tm/c.csv.gz"), PACKED).unwrap();
    let told = bench.fedplug(&["check", bench.path("data.toml").to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!(told.stderr.contains("not read: `b.xlsx`, `sub/`; only "), "{}", told.stderr);
    assert!((told.stdout + &told.stderr).contains("tm 8+2"));
}

#[test]
fn missing_and_invalid_values_are_counted_with_their_lines() {
    let rows = "heavy,light,fitness\nEVQ,nan,1\nEVQ,DIQ,\nEVQ,DIQ,>100\nEVQ,DIQ,7 8\nevq,DIX,1\nEVQG,DIQ,2\n";
    let (_, told) = checked(&[("a.csv", rows)], &[]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    insta::assert_snapshot!("rows of no use", told.stderr);
}

#[test]
fn nanobodies_are_trained_on_and_predicted_on_request() {
    let rows: String = (0..10).map(|i| format!("QVQ{},{i}\n", "G".repeat(i))).collect();
    let nanobodies = format!("heavy,fitness\n{rows}");
    let (bench, told) = checked(&[("a.csv", &nanobodies)], &[]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("`chains = \"heavy\"` accepts single chains"), "{}", told.stderr);
    bench.run(&[bench.path("data.toml").to_str().unwrap(), "--set", "dataset.chains=\"heavy\""]);
    let predicted = |name: &str, text: &str| {
        let rows = bench.write(name, text);
        bench.fedplug(&["predict", bench.path("runs/data").to_str().unwrap(), rows.to_str().unwrap()])
    };
    let csv = predicted("rows.csv", "light,heavy\nnan,QVQGG\n,qvqg\n");
    assert_eq!(csv.code, 0, "{}", csv.stderr);
    assert!(csv.stdout.contains("nan,QVQGG,") && csv.stdout.contains(",qvqg,"), "{}", csv.stdout);
    assert_eq!(predicted("rows.fasta", ">1\nQVQGG\n>2\nQVQG\n").code, 0);
    let none = predicted("none.csv", "heavy\nQVQ\nNA\n");
    assert!(none.stderr.contains("none.csv:3: no `heavy`, only `NA`"), "{}", none.stderr);
}

#[test]
fn a_column_that_is_read_must_not_have_a_namesake() {
    let rows = "heavy,light,fitness,fitness\nEVQ,DIQ,1,100\nQVQ,EIV,2,200\n";
    let (bench, told) = checked(&[("a.csv", rows)], &[]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("a.csv:1: columns 3 and 4 are both named `fitness`"), "{}", told.stderr);
    bench.write("data/tm/a.csv", &table(10, ",", ".").replace('\n', ",x,x\n"));
    let told = bench.fedplug(&["check", bench.path("data.toml").to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
}
