use proptest::collection::vec;
use proptest::prelude::*;
use test_support::cases;

use super::*;

const PAIRS: FastaColumns<'_> = FastaColumns::Pairs { heavy: "heavy", light: "light", allow_single: false };

fn rows(fasta: FastaColumns<'_>, text: &str) -> Result<Vec<String>> {
    let rows = fasta.rows(Path::new("x.fa"), text.as_bytes())?;
    Ok(rows.iter().map(|row| row.iter().collect::<Vec<_>>().join(",")).collect())
}

#[test]
fn chains_are_paired_by_name_wherever_they_stand() {
    let wanted = ["ab0_H,ab0_L,EVQ,DIQ", "ab1_H,ab1_L,QVQ,EIV"];
    for text in [
        ">ab0_H\nEV\nQ\n>ab1_H\nQVQ*\n>ab0_L\nDIQ\n\n>ab1_L\nEIV\n",
        ">ab0_H\r\nEVQ\r\n>ab0_L\r\nDI Q\r\n>ab1_L\r\nEIV\r\n>ab1_H\r\nQVQ",
    ] {
        assert_eq!(rows(PAIRS, text).unwrap(), wanted);
    }
    // The order is that of the first record of each, whichever chain it is.
    let text = ">b light\nEIV\n>both\nAC|DE\n>a heavy\nEVQ\n>a kappa\nDIQ\n>b heavy\nQVQ\n>c\nQVT\n>c\nSYE\n";
    let wanted = ["b heavy,b light,QVQ,EIV", "both,,AC,DE", "a heavy,a kappa,EVQ,DIQ", "c,c,QVT,SYE"];
    assert_eq!(rows(PAIRS, text).unwrap(), wanted);
    assert!(rows(PAIRS, "").unwrap().is_empty());
}

#[test]
fn what_would_be_a_guess_is_refused_with_its_line() {
    for (text, wanted) in [
        ("EVQ\n", "x.fa:1: a sequence before the first `>`"),
        (">a\n>b\nEVQ\n", "x.fa:1: `a`: no sequence"),
        (">a\nEVQ\n", "x.fa:1: `a`: the name does not say the chain, and no neighbouring record has the same name"),
        (
            ">a\nEVQ\n>b\nDIQ\n",
            "x.fa:1: `a`: the name does not say the chain, and no neighbouring record has the same name",
        ),
        (
            ">a\nE\n>a\nD\n>a\nE\n>a\nD\n",
            "x.fa:5: `a`: the name does not say the chain, and no neighbouring record has the same name",
        ),
        (">a_H\nEVQ\n>a_H\nQVQ\n", "x.fa:3: `a_H`: a second heavy chain for the antibody of `a_H` in line 1"),
        (
            ">a_H\nE\n>a_L\nD\n>a_kappa\nD\n",
            "x.fa:5: `a_kappa`: a second light chain for the antibody of `a_L` in line 3",
        ),
        (">a_H\nEVQ\n>b_L\nDIQ\n", "x.fa:1: `a_H`: a heavy chain without its light chain"),
        (">a_H\nE\n>a_L\nD\n>b_L\nDIQ\n", "x.fa:5: `b_L`: a light chain without its heavy chain"),
        (
            ">a_H\nEVQ\n>a\nDIQ\n",
            "x.fa:3: `a`: the name does not say the chain, and no neighbouring record has the same name",
        ),
        (">a_VH_VL\nEVQ\n", "x.fa:1: `a_VH_VL`: the name says both a heavy and a light chain"),
        (">a\nE|D|Q\n", "x.fa:1: `a`: not two chains with one `|` between them"),
    ] {
        assert_eq!(rows(PAIRS, text).unwrap_err().to_string(), wanted, "{text:?}");
    }
}

#[test]
fn each_single_chain_is_a_row() {
    let text = ">a some words\nEVQ\n>b_H\nQVQ\n";
    assert_eq!(rows(FastaColumns::Single("heavy"), text).unwrap(), ["a some words,EVQ", "b_H,QVQ"]);
    assert_eq!(rows(FastaColumns::Single("seq"), ">a\nEVQ|DIQ\n>b_L\nDIQ\n").unwrap(), ["a,EVQ|DIQ", "b_L,DIQ"]);
    assert_eq!(FastaColumns::Single("name").columns(), ["header", "name"]);
    let columns =
        |names: &[&str]| FastaColumns::of_columns(names).map(FastaColumns::columns).unwrap_or_default().join(",");
    assert_eq!(columns(&["seq"]), "name,seq");
    assert_eq!(columns(&["VL", "VH"]), "name,light_name,VH,VL");
    assert_eq!(columns(&["VH", "antigen"]) + &columns(&["heavy", "VH"]) + &columns(&[]), "");
    for (column, text, wanted) in [
        ("heavy", ">a_H\nEVQ\n>a_L\nDIQ\n", "x.fa:3: `a_L`: a light chain, but the model reads one chain"),
        ("seq", ">a_H\nEVQ\n>a_L\nDIQ\n", "x.fa:3: `a_L`: a light chain, but the model reads one chain"),
        ("heavy", ">a\nEVQ|DIQ\n", "x.fa:1: `a`: two chains, but the model reads one"),
    ] {
        assert_eq!(rows(FastaColumns::Single(column), text).unwrap_err().to_string(), wanted);
    }
}

#[test]
fn pairs_are_found_where_single_chains_are_allowed() {
    let any = FastaColumns::Pairs { heavy: "heavy", light: "light", allow_single: true };
    let text = ">a_L\nDIQ\n>vhh\nEVQ\n>b_kappa\nEIV\n>a_H\nQVQ\n>c_H\nQVT\n";
    assert_eq!(rows(any, text).unwrap(), ["a_H,a_L,QVQ,DIQ", "vhh,,EVQ,", ",b_kappa,,EIV", "c_H,,QVT,"]);
    let error = rows(any, ">a\nEVQ\n>b_H\nEVQ\n>a\nDIQ\n").unwrap_err().to_string();
    assert_eq!(error, "x.fa:5: `a`: the name does not say the chain, and no neighbouring record has the same name");
    assert!(rows(any, ">a_H\nEVQ\n>a_H\nDIQ\n").is_err());
}

#[test]
fn fasta_files_are_recognised_by_their_name_or_first_character() {
    for (name, start, wanted) in [
        ("x.fasta", "a,b", true),
        ("x.FA.gz", "", true),
        ("x.csv", "heavy,light", false),
        ("x.txt", "\n >ab0", true),
        ("fasta", "", false),
    ] {
        assert_eq!(is_fasta(Path::new(name), start.as_bytes()), wanted, "{name}");
    }
}

/// FASTA text of these records with lines of this width.
fn write(records: &[(String, String)], width: usize, line_end: &str) -> String {
    let lines = |sequence: &str| {
        let lines = sequence.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line).into_owned() + line_end);
        lines.collect::<String>()
    };
    records.iter().map(|(name, sequence)| format!(">{name}{line_end}{}", lines(sequence))).collect()
}

fn chain() -> impl Strategy<Value = String> {
    "[ACDEFGHIKLMNPQRSTVWY]{1,90}"
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn written_records_are_read_again(
        records in vec(("[a-z0-9][a-z0-9 _.-]{0,10}[a-z0-9]", chain()), 0..8),
        width in 1_usize..100,
        line_end in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let text = write(&records, width, line_end);
        let read = read(Path::new("x.fa"), text.as_bytes()).unwrap();
        let read: Vec<(String, String)> = read.into_iter().map(|record| (record.name, record.sequence)).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn pairs_are_found_in_any_order_of_their_records(
        pairs in vec((chain(), chain()), 1..8), order in any::<u64>(), words in prop::sample::select(vec![("_H", "_L"), (" heavy", " kappa"), ("|VH", "|VL")]),
    ) {
        let records = pairs.iter().enumerate().flat_map(|(i, (heavy, light))| {
            [(format!("ab{i}{}", words.0), heavy.clone()), (format!("ab{i}{}", words.1), light.clone())]
        });
        let mut records: Vec<(String, String)> = records.collect();
        // A shuffle that depends on the drawn number.
        let len = records.len();
        (0..len).for_each(|i| records.swap(i, (order.rotate_left(7 * i as u32) % len as u64) as usize));
        let rows = PAIRS.rows(Path::new("x.fa"), write(&records, 60, "\n").as_bytes()).unwrap();
        let mut found: Vec<(String, String)> = rows.iter().map(|row| (row[2].to_owned(), row[3].to_owned())).collect();
        let mut expected = pairs;
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}
