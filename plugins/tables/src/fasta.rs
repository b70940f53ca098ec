//! FASTA records as rows: of single chains, or of a heavy chain and its light chain, paired by their names.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use csv::{Position, StringRecord};
use plugin_api::{Error, Result};

use crate::chain_names::{Chain, ChainName, parse_name};
use crate::text::strip_invisible;

/// Which columns the records of a FASTA file fill.
#[derive(Clone, Copy, Debug)]
pub enum FastaColumns<'a> {
    /// A row is a heavy chain and its light chain, or may be one of them `allow_single`.
    ///
    /// They are paired by their names, wherever they stand: `ab0_H` and `ab0_L`, `ab0 heavy` and `ab0 light`, `ab0|VH` and
    /// `ab0|VL`, `kappa` and `lambda` for the latter. Names that tell no chain pair two records only where one follows the
    /// other and both have the same name, first the heavy one. A record may also hold both chains, with a `|` between them.
    Pairs {
        /// The column of heavy chains.
        heavy: &'a str,
        /// The column of light chains.
        light: &'a str,
        /// Whether a record without another of its name is a row. It is a heavy chain unless its name tells a light one.
        allow_single: bool,
    },
    /// Each record is a row. If the column's name tells a chain, no record may be the other one.
    Single(&'a str),
}

impl<'a> FastaColumns<'a> {
    /// What fills these columns of text: one of any name, or two whose names tell a heavy and a light chain.
    pub fn of_columns(columns: &[&'a str]) -> Option<Self> {
        match *columns {
            [column] => Some(Self::Single(column)),
            [one, other] => match (Chain::of_column(one)?, Chain::of_column(other)?) {
                (Chain::Heavy, Chain::Light) => Some(Self::Pairs { heavy: one, light: other, allow_single: false }),
                (Chain::Light, Chain::Heavy) => Some(Self::Pairs { heavy: other, light: one, allow_single: false }),
                _ => None,
            },
            _ => None,
        }
    }

    /// The columns of all rows. The records' names stand first.
    pub(crate) fn columns(self) -> Vec<String> {
        match self {
            Self::Pairs { heavy, light, .. } => vec![NAME, LIGHT_NAME, heavy, light],
            Self::Single(column) => vec![if column == NAME { "header" } else { NAME }, column],
        }
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// All rows of a file, in the order of their first records. Each knows its line.
    pub(crate) fn rows(self, path: &Path, reader: impl BufRead) -> Result<Vec<StringRecord>> {
        let records = read(path, reader)?;
        match self {
            Self::Pairs { allow_single, .. } => pairs(path, &records, allow_single),
            Self::Single(column) => single(path, &records, Chain::of_column(column)),
        }
    }
}

/// The names of single records and of heavy chains.
const NAME: &str = "name";
const LIGHT_NAME: &str = "light_name";

/// Whether a file is FASTA, by its name or by its first character.
pub(crate) fn is_fasta(path: &Path, start: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let named = [".fasta", ".fa", ".faa", ".fas"].iter().any(|ending| name.ends_with(ending));
    named || start.trim_ascii_start().first() == Some(&b'>')
}

struct Record {
    name: String,
    sequence: String,
    line: u64,
}

impl Record {
    fn has_both(&self) -> bool {
        self.sequence.contains('|')
    }

    fn chain_name(&self, path: &Path) -> Result<ChainName> {
        parse_name(&self.name).ok_or_else(|| self.error(path, "the name tells of a heavy and of a light chain"))
    }

    fn error(&self, path: &Path, what: impl std::fmt::Display) -> Error {
        Error::data(format!("`{}`: {what}", self.name)).in_file(path, Some(self.line))
    }

    fn row(&self, fields: &[&str]) -> StringRecord {
        let mut row = StringRecord::from(fields);
        let mut position = Position::new();
        position.set_line(self.line);
        row.set_position(Some(position));
        row
    }
}

fn read(path: &Path, reader: impl BufRead) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for (line, number) in reader.lines().zip(1..) {
        let line = line.map_err(|e| Error::io(path, &e))?;
        if let Some(name) = line.trim_start().strip_prefix('>') {
            records.push(Record { name: name.trim().to_owned(), sequence: String::new(), line: number });
            continue;
        }
        let letters = strip_invisible(&line);
        match records.last_mut() {
            Some(record) => record.sequence += &letters,
            None if letters.is_empty() => {}
            None => {
                let error = Error::data("a sequence before the first `>`").in_file(path, Some(number));
                return Err(
                    error.help("a FASTA file ends in .fasta or .fa, or begins with `>`; any other is read as CSV")
                );
            }
        }
    }
    for record in &mut records {
        // The end of a translated sequence.
        let length = record.sequence.trim_end_matches('*').len();
        record.sequence.truncate(length);
        if record.sequence.is_empty() {
            return Err(record.error(path, "no sequence"));
        }
    }
    Ok(records)
}

fn single(path: &Path, records: &[Record], wanted: Option<Chain>) -> Result<Vec<StringRecord>> {
    let mut seen: BTreeMap<String, Chain> = BTreeMap::new();
    let mut row = |record: &Record| {
        if wanted.is_some() && record.has_both() {
            return Err(record.error(path, "two chains, and the model reads one"));
        }
        if let ChainName { antibody, chain: Some(chain) } = record.chain_name(path)? {
            let other = wanted.is_some_and(|wanted| wanted != chain);
            if other || *seen.entry(antibody).or_insert(chain) != chain {
                let error = record.error(path, format!("a {} chain, and the model reads one chain", chain.word()));
                let wanted = wanted.map_or("either", Chain::word);
                return Err(error.help(format!("give it a file of {wanted} chains only")));
            }
        }
        Ok(record.row(&[&record.name, &record.sequence]))
    };
    records.iter().map(&mut row).collect()
}

/// Two records of one antibody, as far as they were found.
#[derive(Default)]
struct Pair<'a> {
    heavy: Option<&'a Record>,
    light: Option<&'a Record>,
}

fn pairs(path: &Path, records: &[Record], allow_single: bool) -> Result<Vec<StringRecord>> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    // Where each antibody stands among them.
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut rest = records.iter().peekable();
    while let Some(record) = rest.next() {
        if record.has_both() {
            pairs.push(Pair { heavy: Some(record), light: Some(record) });
            continue;
        }
        let ChainName { antibody, chain } = record.chain_name(path)?;
        let place = *places.entry(antibody).or_insert(pairs.len());
        let new = place == pairs.len();
        if new {
            pairs.push(Pair::default());
        }
        let pair = &mut pairs[place];
        let (slot, word) = match chain {
            Some(chain @ Chain::Heavy) => (&mut pair.heavy, chain.word()),
            Some(chain @ Chain::Light) => (&mut pair.light, chain.word()),
            None => {
                // Only a record of the same name at once behind it makes its place tell what it is.
                let light = rest.next_if(|next| new && next.name == record.name && !next.has_both());
                let Some(light) = light else {
                    if allow_single && new {
                        pair.heavy = Some(record);
                        continue;
                    }
                    let error =
                        record.error(path, "the name tells no chain, and no record next to it has the same name");
                    return Err(error.help(NAMES));
                };
                *pair = Pair { heavy: Some(record), light: Some(light) };
                continue;
            }
        };
        if let Some(before) = slot.replace(record) {
            let what = format!("a second {word} chain of the antibody of `{}` in line {}", before.name, before.line);
            return Err(record.error(path, what));
        }
    }
    let row = |pair: &Pair<'_>| match pair {
        Pair { heavy: Some(heavy), light: Some(light) } if std::ptr::eq(*heavy, *light) => {
            match heavy.sequence.split('|').collect::<Vec<_>>()[..] {
                [first, second] if !first.is_empty() && !second.is_empty() => {
                    Ok(heavy.row(&[&heavy.name, "", first, second]))
                }
                _ => Err(heavy.error(path, "not two chains with one `|` between them")),
            }
        }
        Pair { heavy: Some(heavy), light: Some(light) } => {
            Ok(heavy.row(&[&heavy.name, &light.name, &heavy.sequence, &light.sequence]))
        }
        Pair { heavy: Some(heavy), light: None } if allow_single => {
            Ok(heavy.row(&[&heavy.name, "", &heavy.sequence, ""]))
        }
        Pair { heavy: None, light: Some(light) } if allow_single => {
            Ok(light.row(&["", &light.name, "", &light.sequence]))
        }
        Pair { heavy: Some(heavy), .. } => Err(heavy.error(path, "a heavy chain without its light chain").help(NAMES)),
        Pair { light: Some(light), .. } => Err(light.error(path, "a light chain without its heavy chain").help(NAMES)),
        Pair { heavy: None, light: None } => Err(Error::other("a pair without a record")),
    };
    pairs.iter().map(row).collect()
}

const NAMES: &str =
    "the model reads pairs: name them such as `ab0_H` and `ab0_L`, or put both into one record as `HEAVY|LIGHT`";

#[cfg(test)]
mod tests {
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
            (">a\nEVQ\n", "x.fa:1: `a`: the name tells no chain, and no record next to it has the same name"),
            (">a\nEVQ\n>b\nDIQ\n", "x.fa:1: `a`: the name tells no chain, and no record next to it has the same name"),
            (
                ">a\nE\n>a\nD\n>a\nE\n>a\nD\n",
                "x.fa:5: `a`: the name tells no chain, and no record next to it has the same name",
            ),
            (">a_H\nEVQ\n>a_H\nQVQ\n", "x.fa:3: `a_H`: a second heavy chain of the antibody of `a_H` in line 1"),
            (
                ">a_H\nE\n>a_L\nD\n>a_kappa\nD\n",
                "x.fa:5: `a_kappa`: a second light chain of the antibody of `a_L` in line 3",
            ),
            (">a_H\nEVQ\n>b_L\nDIQ\n", "x.fa:1: `a_H`: a heavy chain without its light chain"),
            (">a_H\nE\n>a_L\nD\n>b_L\nDIQ\n", "x.fa:5: `b_L`: a light chain without its heavy chain"),
            (
                ">a_H\nEVQ\n>a\nDIQ\n",
                "x.fa:3: `a`: the name tells no chain, and no record next to it has the same name",
            ),
            (">a_VH_VL\nEVQ\n", "x.fa:1: `a_VH_VL`: the name tells of a heavy and of a light chain"),
            (">a\nE|D|Q\n", "x.fa:1: `a`: not two chains with one `|` between them"),
        ] {
            assert_eq!(rows(PAIRS, text).unwrap_err().to_string(), wanted, "{text:?}");
        }
    }

    #[test]
    fn single_chains_are_a_row_each() {
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
            ("heavy", ">a_H\nEVQ\n>a_L\nDIQ\n", "x.fa:3: `a_L`: a light chain, and the model reads one chain"),
            ("seq", ">a_H\nEVQ\n>a_L\nDIQ\n", "x.fa:3: `a_L`: a light chain, and the model reads one chain"),
            ("heavy", ">a\nEVQ|DIQ\n", "x.fa:1: `a`: two chains, and the model reads one"),
        ] {
            assert_eq!(rows(FastaColumns::Single(column), text).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn where_chains_may_stand_alone_pairs_are_still_found() {
        let any = FastaColumns::Pairs { heavy: "heavy", light: "light", allow_single: true };
        let text = ">a_L\nDIQ\n>vhh\nEVQ\n>b_kappa\nEIV\n>a_H\nQVQ\n>c_H\nQVT\n";
        assert_eq!(rows(any, text).unwrap(), ["a_H,a_L,QVQ,DIQ", "vhh,,EVQ,", ",b_kappa,,EIV", "c_H,,QVT,"]);
        let error = rows(any, ">a\nEVQ\n>b_H\nEVQ\n>a\nDIQ\n").unwrap_err().to_string();
        assert_eq!(error, "x.fa:5: `a`: the name tells no chain, and no record next to it has the same name");
        assert!(rows(any, ">a_H\nEVQ\n>a_H\nDIQ\n").is_err());
    }

    #[test]
    fn a_fasta_file_is_known_by_its_name_or_its_start() {
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
}
