//! The table of a sweep: the best choice first.

use std::path::Path;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::Value;

use super::file;
use crate::artefacts::names;
use crate::artefacts::series::Choice;
use crate::commands::batch::Ended;
use crate::error::{CliError, Diagnostic};
use crate::federation::history::{UNDEFINED, short};
use crate::federation::summary::{ScoredModel, Summary};

/// Formats one row per run, sorted by the validation score of its best model, and below it what the best one reaches on the
/// test rows. The others' scores on the test rows are not shown: whoever chooses by them measures nothing with them.
///
/// # Errors
/// If no finished run has rows for validation.
pub(super) fn table(folder: &Path, runs: &[Choice], ended: &[Ended]) -> Result<String, CliError> {
    let best = |run: &Choice| -> Option<(ScoredModel, u64)> {
        let summary =
            file(folder, &run.folder, names::SUMMARY).is_file().then(|| Summary::read(&folder.join(&run.folder)));
        let Summary { best, rounds, .. } = summary?.ok()?;
        Some((best?, rounds))
    };
    let score = |found: &Option<(ScoredModel, u64)>| found.as_ref().and_then(|(best, _)| best.validation_score);
    let mut rows: Vec<_> = runs.iter().zip(ended).map(|(run, end)| (run, end, best(run))).collect();
    if rows.iter().all(|(.., found)| score(found).is_none()) {
        let report = Diagnostic::new("no run has a score on rows for validation, so there is nothing to choose by");
        return Err(CliError::run(report.hint("the runs' logs say which clients or tasks lack such rows")));
    }
    let key = |found: &Option<(ScoredModel, u64)>| score(found).unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|(.., a), (.., b)| key(b).total_cmp(&key(a)));
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let keys: Vec<&String> = runs.first().into_iter().flat_map(|run| run.values.keys()).collect();
    let titles = keys.iter().map(|key| key.as_str()).chain(["validation score", "after round", "rounds", ""]);
    table.set_header(["run"].into_iter().chain(titles));
    for (run, end, found) in &rows {
        let number = |number: Option<String>| number.unwrap_or_else(|| UNDEFINED.to_owned());
        let values = keys.iter().map(|key| run.values.get(*key).map_or_else(String::new, shown));
        let end = match end {
            Ended::Finished => String::new(),
            Ended::Stopped => "stopped".to_owned(),
            Ended::GivenUp(_) => "given up".to_owned(),
            Ended::Failed(..) => "failed".to_owned(),
        };
        let results = [
            number(score(found).map(short)),
            number(found.as_ref().map(|(best, _)| best.rounds.to_string())),
            number(found.as_ref().map(|(_, rounds)| rounds.to_string())),
            end,
        ];
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(&run.folder)].into_iter().chain(values.chain(results).map(right)));
    }
    let mut text = format!("{table}\n");
    if let Some((run, _, Some((best, _)))) = rows.first() {
        let values: Vec<String> = run.values.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect();
        let test = best.score.map_or_else(|| UNDEFINED.to_owned(), short);
        text += &format!("best: {} ({}), with score {test} on the test rows\n", run.folder, values.join(", "));
    }
    Ok(text)
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
