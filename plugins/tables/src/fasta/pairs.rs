//! Rows of records: each on its own, or heavy and light chains in pairs.

use std::collections::BTreeMap;
use std::path::Path;

use csv::StringRecord;
use plugin_api::{Error, Result};

use super::Record;
use crate::chain_names::{Chain, ChainName};

/// A row for each record.
///
/// # Errors
/// If a record is another chain than the wanted one, or has two.
pub(super) fn single_rows(path: &Path, records: &[Record], wanted: Option<Chain>) -> Result<Vec<StringRecord>> {
    let mut seen: BTreeMap<String, Chain> = BTreeMap::new();
    let mut row = |record: &Record| {
        if wanted.is_some() && record.has_both() {
            return Err(record.error(path, "two chains, but the model reads one"));
        }
        if let ChainName { antibody, chain: Some(chain) } = record.chain_name(path)? {
            let other = wanted.is_some_and(|wanted| wanted != chain);
            if other || *seen.entry(antibody).or_insert(chain) != chain {
                let error = record.error(path, format!("a {} chain, but the model reads one chain", chain.word()));
                let wanted = wanted.map_or("either heavy or light", Chain::word);
                return Err(error.help(format!("use a file with {wanted} chains only")));
            }
        }
        Ok(record.row(&[&record.name, &record.sequence]))
    };
    records.iter().map(&mut row).collect()
}

/// The records of one antibody, as far as they have been read.
#[derive(Default)]
struct Pair<'a> {
    heavy: Option<&'a Record>,
    light: Option<&'a Record>,
}

/// A row for each pair of chains and, where allowed, each single chain.
///
/// # Errors
/// If a chain cannot be paired.
pub(super) fn rows(path: &Path, records: &[Record], allow_single: bool) -> Result<Vec<StringRecord>> {
    let pairs = paired(path, records, allow_single)?;
    pairs.iter().map(|pair| row(path, pair, allow_single)).collect()
}

/// The records by antibody, in the order of their first records.
fn paired<'a>(path: &Path, records: &'a [Record], allow_single: bool) -> Result<Vec<Pair<'a>>> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    // The index of each antibody's pair.
    let mut indices: BTreeMap<String, usize> = BTreeMap::new();
    let mut rest = records.iter().peekable();
    while let Some(record) = rest.next() {
        if record.has_both() {
            pairs.push(Pair { heavy: Some(record), light: Some(record) });
            continue;
        }
        let ChainName { antibody, chain } = record.chain_name(path)?;
        let index = *indices.entry(antibody).or_insert(pairs.len());
        let new = index == pairs.len();
        if new {
            pairs.push(Pair::default());
        }
        let pair = &mut pairs[index];
        let (slot, word) = match chain {
            Some(chain @ Chain::Heavy) => (&mut pair.heavy, chain.word()),
            Some(chain @ Chain::Light) => (&mut pair.light, chain.word()),
            None => {
                // Only the very next record, with the same name, can be its light chain.
                let light = rest.next_if(|next| new && next.name == record.name && !next.has_both());
                if light.is_none() && !(allow_single && new) {
                    let what = "the name does not say the chain, and no neighbouring record has the same name";
                    return Err(record.error(path, what).help(NAMES));
                }
                *pair = Pair { heavy: Some(record), light };
                continue;
            }
        };
        if let Some(first) = slot.replace(record) {
            let what = format!("a second {word} chain for the antibody of `{}` in line {}", first.name, first.line);
            return Err(record.error(path, what));
        }
    }
    Ok(pairs)
}

fn row(path: &Path, pair: &Pair<'_>, allow_single: bool) -> Result<StringRecord> {
    match pair {
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
    }
}

const NAMES: &str =
    "the model reads pairs: name them such as `ab0_H` and `ab0_L`, or put both into one record as `HEAVY|LIGHT`";
