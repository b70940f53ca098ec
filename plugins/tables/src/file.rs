//! One CSV file of measurements, row after row, and a count of the rows that cannot be used.

use std::path::Path;

use csv::StringRecord;
use plugin_api::{Context, Error, Result, Source};

use crate::lines::Lines;
use crate::rows::Reader;
use crate::text::{Opened, open, visible};
use crate::{ROWS_PER_CHECK, not_csv, quoted};

/// A CSV file that is read as far as its header.
pub struct CsvFile {
    source: Source,
    header: StringRecord,
    records: Records,
}

/// The records behind the header.
enum Records {
    Any(Reader),
    Plain(Lines),
}

impl Records {
    fn next(&mut self, record: &mut StringRecord) -> csv::Result<bool> {
        match self {
            Self::Any(reader) => reader.read_record(record),
            Self::Plain(lines) => Ok(lines.read_record(record)?),
        }
    }
}

/// What a file has in place of the columns that are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Why the file cannot be used.
    pub reason: String,
    /// Which columns there are instead.
    detail: String,
    /// How many rows it has.
    rows: usize,
}

/// How rows are judged.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Why a row may be of no use, in the order in which reasons are told. A wrong number of columns comes before them.
    pub reasons: &'a [&'a str],
    /// Whether rows with too few fields are given as well.
    pub short_rows: bool,
    /// Whether a file without rows is as it should be.
    pub may_be_empty: bool,
}

/// What is wrong with a row that was given.
#[derive(Clone, Debug)]
pub enum Unusable {
    /// It is left out, for the reason of this number in [`Rules::reasons`].
    Row(usize),
    /// Nothing of the file can be used while it says such a thing.
    File(Error),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

const RAGGED: &str = "wrong number of columns";

impl CsvFile {
    /// Opens a file and reads its header. It warns of an encoding that is a guess.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(path: &Path, delimiter: u8, ctx: &Context<'_>) -> Result<Self> {
        let Opened { reader, sha256, guessed, unquoted } = open(path)?;
        let source = Source { path: path.to_owned(), sha256, ..Source::default() };
        if guessed {
            ctx.warn(format_args!("{}: neither UTF-8 nor UTF-16, read as Latin-1", path.display()));
        }
        let mut records = if unquoted && Lines::can_split_at(delimiter) {
            Records::Plain(Lines::new(reader, delimiter))
        } else {
            let mut builder = csv::ReaderBuilder::new();
            builder.delimiter(delimiter).flexible(true).has_headers(false).buffer_capacity(1 << 16);
            Records::Any(builder.from_reader(reader))
        };
        let mut header = StringRecord::new();
        records.next(&mut header).map_err(|e| not_csv(path, &e))?;
        Ok(Self { source, header, records })
    }

    /// The columns' names. One that is a wanted name but for what does not show is that name.
    pub fn names(&self, wanted: &[&str]) -> Vec<String> {
        let name = |name: &str| {
            let exact = wanted.iter().find(|wanted| **wanted == name.trim());
            let known = exact.or_else(|| wanted.iter().find(|wanted| visible(wanted) == visible(name)));
            known.map_or_else(|| name.trim().to_owned(), |known| (*known).to_owned())
        };
        self.header.iter().map(name).collect()
    }

    /// What to say of a file with these columns that misses those.
    pub fn lack(&mut self, names: &[String], missing: &[&str]) -> Lack {
        let (mut rows, mut record) = (0, StringRecord::new());
        while self.records.next(&mut record).unwrap_or_default() {
            rows += 1;
        }
        if rows == 0 && names.iter().all(String::is_empty) {
            return Lack { reason: "it is empty".to_owned(), detail: String::new(), rows };
        }
        let reason = format!("it has no column {}", quoted(missing));
        Lack { reason, detail: format!(", only {}", quoted(names)), rows }
    }

    /// Leaves the whole file out, and tells it.
    pub fn leave_out(mut self, Lack { reason, detail, rows }: Lack, ctx: &Context<'_>) -> Source {
        ctx.warn(format_args!("{}: the file is left out: {reason}{detail}", self.source.path.display()));
        self.source.skipped.push((reason, rows));
        self.source
    }

    /// Gives each row to `row`, which says whether it can be used, and warns of those that cannot.
    ///
    /// # Errors
    /// If the file is not CSV, the call shall stop, or `row` says that the file is unusable.
    pub fn rows(
        self,
        rules: Rules<'_>,
        ctx: &Context<'_>,
        mut row: impl FnMut(&StringRecord) -> Result<(), Unusable>,
    ) -> Result<Source> {
        let Self { mut source, header, mut records } = self;
        let (mut ragged, mut skipped, mut record) = (0, vec![0; rules.reasons.len()], StringRecord::new());
        for done in 0_usize.. {
            if done.is_multiple_of(ROWS_PER_CHECK) {
                ctx.check()?;
            }
            if !records.next(&mut record).map_err(|e| not_csv(&source.path, &e))? {
                break;
            }
            let blank = record.len() == 1 && header.len() > 1 && record[0].trim().is_empty();
            let short = rules.short_rows && record.len() < header.len();
            if blank {
                continue;
            } else if record.len() != header.len() && !short {
                ragged += 1;
                continue;
            }
            match row(&record) {
                Ok(()) => source.rows += 1,
                Err(Unusable::Row(reason)) => skipped[reason] += 1,
                Err(Unusable::File(error)) => return Err(error),
            }
        }
        let counts = [RAGGED].iter().chain(rules.reasons).zip([ragged].into_iter().chain(skipped));
        source.skipped =
            counts.filter(|(_, count)| *count > 0).map(|(reason, count)| ((*reason).to_owned(), count)).collect();
        tell(&mut source, rules.may_be_empty, ctx);
        Ok(source)
    }
}

/// Tells how many rows were left out, and why.
fn tell(source: &mut Source, may_be_empty: bool, ctx: &Context<'_>) {
    let shown = source.path.display();
    let left_out: usize = source.skipped.iter().map(|(_, count)| count).sum();
    let told = match &source.skipped[..] {
        [] if source.rows > 0 || may_be_empty => return,
        [] => {
            ctx.warn(format_args!("{shown}: the file is left out: it has no row"));
            source.skipped.push(("it has no row".to_owned(), 0));
            return;
        }
        [(reason, _)] => reason.clone(),
        many => many.iter().map(|(reason, count)| format!("{reason} ({count})")).collect::<Vec<_>>().join(", "),
    };
    ctx.warn(format_args!("{shown}: {left_out} of {} rows left out: {told}", left_out + source.rows));
}

/// The number that a text without unseen characters says, if it is finite in 32 bits.
///
/// By way of 64 bits, so that a number is the same before and after a program printed it that computes with those. One
/// that is too large for 32 becomes infinite, and is as useless.
pub fn number(text: &str) -> Option<f32> {
    text.parse::<f64>().ok().map(|value| value as f32).filter(|value| value.is_finite())
}

/// An error with all reasons if no file has a usable row.
///
/// # Errors
/// That one; it does not say where the files lie, nor what a row needs.
pub fn check_usable(task: &str, sources: &[Source]) -> Result<()> {
    if sources.iter().any(|source| source.rows > 0) {
        return Ok(());
    }
    let error = Error::data(format!("task `{task}` has no usable row"));
    let causes = sources.iter().flat_map(|file| {
        file.skipped.iter().map(|(reason, rows)| format!("{}: {reason} ({rows} rows)", file.path.display()))
    });
    Err(causes.fold(error, Error::because_of))
}
