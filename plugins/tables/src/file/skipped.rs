//! Counts and reports skipped rows.

use csv::StringRecord;
use plugin_api::{Context, Error, Result, Source};

/// The reason of rows with more or fewer fields than columns.
const RAGGED: &str = "wrong number of columns";

/// The skipped rows: for each reason their number, and the line of the first.
pub(super) struct Skipped<'a> {
    reasons: Vec<&'a str>,
    counts: Vec<(usize, u64)>,
}

impl<'a> Skipped<'a> {
    pub(super) fn new(reasons: &'a [String]) -> Self {
        let reasons: Vec<&str> = [RAGGED].into_iter().chain(reasons.iter().map(String::as_str)).collect();
        Self { counts: vec![(0, 0); reasons.len()], reasons }
    }

    pub(super) fn add(&mut self, reason: usize, record: &StringRecord) {
        let (count, first) = &mut self.counts[reason];
        if *count == 0 {
            *first = super::line(record);
        }
        *count += 1;
    }

    /// Adds the counts to the source, and warns of them.
    pub(super) fn report(self, source: &mut Source, allow_empty: bool, ctx: &Context<'_>) {
        let shown = source.path.display();
        let found: Vec<_> = self.reasons.iter().zip(self.counts).filter(|(_, (count, _))| *count > 0).collect();
        let skipped: usize = found.iter().map(|(_, (count, _))| count).sum();
        if skipped > 0 {
            let reason = |(reason, (count, line)): &(&&str, (usize, u64))| match count {
                1 => format!("{reason} (line {line})"),
                _ => format!("{reason} ({count}, first on line {line})"),
            };
            let reasons = found.iter().map(reason).collect::<Vec<_>>().join(", ");
            ctx.warn(format_args!("{shown}: {skipped} of {} rows skipped: {reasons}", skipped + source.rows));
            source.skipped = found.into_iter().map(|(reason, (count, _))| ((*reason).to_owned(), count)).collect();
        } else if source.rows == 0 && !allow_empty {
            ctx.warn(format_args!("{shown}: file skipped: it has no rows"));
            source.skipped.push(("it has no rows".to_owned(), 0));
        }
    }
}

/// Checks that at least one file has a usable row.
///
/// # Errors
/// If none has, with the reasons file by file. The caller adds the folder and what a row needs.
pub fn require_usable_rows(task: &str, sources: &[Source]) -> Result<()> {
    if sources.iter().any(|source| source.rows > 0) {
        return Ok(());
    }
    let error = Error::data(format!("task `{task}` has no usable rows"));
    let causes = sources.iter().flat_map(|file| {
        file.skipped.iter().map(|(reason, rows)| format!("{}: {reason} ({rows} rows)", file.path.display()))
    });
    Err(causes.fold(error, Error::because_of))
}
