//! Paired tests between experiments that were run with the same seeds and folds.

use super::columns::{Column, Columns};
use super::entry::Entry;
use super::statistics::Sample;
use super::{Cells, Format, number};
use crate::federation::means::mean;

/// Differences of an experiment from the first one.
pub(super) struct Paired {
    pub(super) table: Cells,
    /// What there is to say about them.
    pub(super) notes: Vec<String>,
}

/// The paired tests of each experiment with the first one, for each column that measures a model; `None` if no two share
/// two seeds or folds.
pub(super) fn paired(entries: &[Entry], columns: &Columns, format: Format) -> Option<Paired> {
    let (first, others) = entries.split_first()?;
    let measures = || columns.all.iter().filter(|column| matches!(column, Column::Score(..) | Column::Metric(..)));
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for other in others.iter().filter(|other| are_comparable(first, other)) {
        for column in measures() {
            let of = |run| mean(columns.values(column, run).into_iter().flatten());
            let differences: Vec<f64> = other
                .runs
                .iter()
                .filter_map(|(key, run)| {
                    let (_, before) = first.runs.iter().find(|(there, _)| there == key)?;
                    Some(of(run)? - of(before)?)
                })
                .collect();
            if differences.len() < 2 {
                continue;
            }
            let sample = Sample::new(differences, first.folds());
            let value = |value: Option<f64>| number(value, format);
            let (interval, test) = (sample.interval(), sample.test());
            rows.push(vec![
                other.name.clone(),
                columns.title(column),
                sample.count().to_string(),
                value(sample.mean()),
                value(interval.map(|interval| interval.low)),
                value(interval.map(|interval| interval.high)),
                value(test.map(|test| test.t)),
                value(test.map(|test| test.p)),
            ]);
        }
        if first.repeats.as_ref().map(|one| &one.dataset) != other.repeats.as_ref().map(|one| &one.dataset) {
            let (first, other) = (&first.name, &other.name);
            notes.push(format!("the datasets of {first} and {other} differ, so their pairs may have other rows"));
        }
    }
    if rows.is_empty() {
        return None;
    }
    notes.insert(0, match first.folds() {
        None => "paired t-tests of the mean difference over shared seeds".to_owned(),
        Some(folds) => format!(
            "paired t-tests of the mean difference over shared folds; folds share training rows, so the variance is \
             s² (1/n + 1/{}) (Nadeau and Bengio 2003)",
            folds - 1
        ),
    });
    let from = format!("minus {}", first.name);
    let header = [from.as_str(), "of", "pairs", "mean", "95% from", "95% to", "t", "p"].map(str::to_owned).to_vec();
    Some(Paired { table: Cells { header, rows }, notes })
}

/// Whether runs of both with the same seed and fold have the same test rows, as far as that is known.
fn are_comparable(first: &Entry, other: &Entry) -> bool {
    first.repeats.is_some() && other.repeats.is_some() && first.folds() == other.folds()
}
