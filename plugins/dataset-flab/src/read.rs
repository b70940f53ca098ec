//! One CSV file: its usable rows, and a count of the others.

use std::borrow::Cow;
use std::path::Path;

use plugin_api::{Context, Error, Result, Source};
use sha2::{Digest, Sha256};

/// An antibody and what was measured of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Heavy chain, `|`, light chain.
    pub(crate) combined: String,
    pub(crate) fitness: f32,
}

/// Why a row is left out, in the order in which reasons are told.
#[derive(Clone, Copy)]
enum Reason {
    Ragged,
    NoChain,
    NoFitness,
    NotFinite,
}

const REASONS: [&str; 4] =
    ["wrong number of columns", "no heavy or light chain", "no fitness value", "fitness is not a finite number"];

/// Reads a file and warns of what is left out of it. A file without rows or without a needed column has no usable row;
/// that is for the task to judge.
pub(crate) fn read(path: &Path, target: &str, ctx: &Context<'_>) -> Result<(Vec<Row>, Source)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut source = Source { path: path.to_owned(), sha256, ..Source::default() };
    let shown = path.display();
    let (text, guessed) = decoded(&bytes);
    if guessed {
        ctx.warn(format_args!("{shown}: neither UTF-8 nor UTF-16, read as Latin-1"));
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let bad = |e: csv::Error| {
        Error::data("is not a CSV file").in_file(path, e.position().map(csv::Position::line)).because(&e)
    };
    let names: Vec<String> = reader.headers().map_err(bad)?.iter().map(|name| name.trim().to_owned()).collect();
    let wanted = ["heavy", "light", target];
    let places = wanted.map(|name| names.iter().position(|n| visible(n) == visible(name)));
    let [Some(heavy), Some(light), Some(fitness)] = places else {
        let rows = reader.records().count();
        let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let missing =
            wanted.iter().zip(places).filter(|(_, place)| place.is_none()).map(|(name, _)| (*name).to_owned());
        let (reason, detail) = match quoted(&missing.collect::<Vec<_>>()) {
            _ if text.trim().is_empty() => ("it is empty".to_owned(), String::new()),
            missing => (format!("it has no column {missing}"), format!(", only {}", quoted(&names))),
        };
        ctx.warn(format_args!("{shown}: the file is left out: {reason}{detail}"));
        source.skipped.push((reason, rows));
        return Ok((Vec::new(), source));
    };

    let (mut rows, mut skipped, mut record) = (Vec::new(), [0; REASONS.len()], csv::StringRecord::new());
    while reader.read_record(&mut record).map_err(bad)? {
        let row = if record.len() == names.len() {
            row(&record[heavy], &record[light], &record[fitness])
        } else {
            Err(Reason::Ragged)
        };
        match row {
            Ok(row) => rows.push(row),
            Err(reason) => skipped[reason as usize] += 1,
        }
    }
    source.rows = rows.len();
    source.skipped = REASONS.map(str::to_owned).into_iter().zip(skipped).filter(|(_, count)| *count > 0).collect();
    if let Some(told) = told(&source.skipped) {
        let left_out: usize = skipped.iter().sum();
        ctx.warn(format_args!("{shown}: {left_out} of {} rows left out: {told}", left_out + rows.len()));
    } else if rows.is_empty() {
        ctx.warn(format_args!("{shown}: the file is left out: it has no row"));
        source.skipped.push(("it has no row".to_owned(), 0));
    }
    Ok((rows, source))
}

/// One reason as it is; of several, each with its count.
fn told(skipped: &[(String, usize)]) -> Option<String> {
    match skipped {
        [] => None,
        [(reason, _)] => Some(reason.clone()),
        many => Some(many.iter().map(|(reason, count)| format!("{reason} ({count})")).collect::<Vec<_>>().join(", ")),
    }
}

fn row(heavy: &str, light: &str, fitness: &str) -> std::result::Result<Row, Reason> {
    let (heavy, light, fitness) = (visible(heavy), visible(light), visible(fitness));
    if heavy.is_empty() || light.is_empty() {
        return Err(Reason::NoChain);
    }
    if fitness.is_empty() {
        return Err(Reason::NoFitness);
    }
    // A number too large for f32 parses as infinite, and is as useless.
    let fitness = fitness.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or(Reason::NotFinite)?;
    Ok(Row { combined: format!("{heavy}|{light}"), fitness })
}

/// The text without white space, which neither a chain nor a number has inside, and without characters that show
/// nothing: soft hyphen, zero-width space and joiners, directional marks, word joiner and byte order mark.
fn visible(text: &str) -> String {
    let unseen = |c: char| matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.chars().filter(|&c| !c.is_whitespace() && !c.is_control() && !unseen(c)).collect()
}

/// The file's text, and whether its encoding was a guess: UTF-8, UTF-16 with a byte order mark, else Latin-1, in which
/// every byte is a character.
fn decoded(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    let utf16 = |from: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).skip(1).map(|pair| from([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
    };
    match bytes {
        [0xff, 0xfe, ..] => (utf16(u16::from_le_bytes).into(), false),
        [0xfe, 0xff, ..] => (utf16(u16::from_be_bytes).into(), false),
        _ => match str::from_utf8(bytes) {
            Ok(text) => (text.strip_prefix('\u{feff}').unwrap_or(text).into(), false),
            Err(_) => (bytes.iter().map(|&byte| char::from(byte)).collect(), true),
        },
    }
}

#[cfg(test)]
mod tests;
