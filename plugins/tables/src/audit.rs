//! Checks of the data that make scores mean less than they seem to: test sequences that are also trained on, by the same
//! task or by another, repeated and contradicting rows, files in different units, identical files.
//!
//! Nothing is dropped: whether a repeated measurement is a replicate or a mistake is for people to decide.

use std::collections::HashSet;

use plugin_api::{Context, Source};

use crate::group::SequenceIds;
use crate::quoted;

/// The ratio of two files' medians from which their units are in doubt.
const DECADE: f64 = 10.0;
/// The share of a file's values that decides its sign.
const MAJORITY: f64 = 0.9;
/// How many tasks a message names.
const TASKS_NAMED: usize = 3;

/// The rows of a task, before they are standardised or sampled.
pub struct AuditedTask<'a> {
    /// The task's name.
    pub name: &'a str,
    /// The sequence of a row, as text.
    pub sequence: &'a dyn Fn(usize) -> String,
    /// The target of each row; NaN where the row cannot be used.
    pub values: &'a [f32],
    /// The index of each row's file.
    pub files: &'a [usize],
    /// The file and line of a row, `FILE:LINE`.
    pub origin: &'a dyn Fn(usize) -> String,
    /// How to keep a sequence on one side of the split, if that is possible.
    pub advice: Option<&'a str>,
}

/// Audits tasks one by one, and remembers their sequences to compare tasks with each other.
#[derive(Default)]
pub struct Audit {
    ids: SequenceIds,
    tasks: Vec<TaskSequences>,
}

struct TaskSequences {
    task: String,
    /// The sequences that some client trains on.
    train: HashSet<usize>,
    /// The sequence of each test row.
    test: Vec<usize>,
}

impl Audit {
    /// Warns of what the rows of a task and their split show, and adds the count of overlapping test rows to the run's
    /// summary. `train` has the rows that any client trains on.
    pub fn task<'a>(
        &mut self,
        task: &AuditedTask<'_>,
        train: impl IntoIterator<Item = &'a usize>,
        test: impl IntoIterator<Item = &'a usize>,
        ctx: &Context<'_>,
    ) {
        let ids = self.ids.of((0..task.values.len()).map(task.sequence));
        let train: HashSet<usize> = train.into_iter().map(|&row| ids[row]).collect();
        let test: Vec<usize> = test.into_iter().map(|&row| ids[row]).collect();
        let overlapping = test.iter().filter(|id| train.contains(id)).count();
        if overlapping > 0 {
            let count = format!("{overlapping} of {} test rows have their sequence in training", test.len());
            let advice = task.advice.map_or_else(String::new, |advice| format!("; {advice}"));
            ctx.warn(format_args!("task `{}`: {count}, so its scores are too good{advice}", task.name));
            ctx.note(&format!("overlap {}", task.name), format_args!("{count}"));
        }
        task.warn_of_repeats(&ids, ctx);
        task.warn_of_units(ctx);
        self.tasks.push(TaskSequences { task: task.name.to_owned(), train, test });
    }

    /// Warns of test rows whose sequence another task trains on: a trunk that tasks share has seen it, though with
    /// another target. Adds the counts to the run's summary.
    pub fn across_tasks(&self, ctx: &Context<'_>) {
        for TaskSequences { task, test, .. } in &self.tasks {
            let others: Vec<&TaskSequences> = self.tasks.iter().filter(|other| other.task != *task).collect();
            let seen = |other: &&TaskSequences| test.iter().any(|id| other.train.contains(id));
            let names: Vec<&str> =
                others.iter().copied().filter(|other| seen(other)).map(|other| other.task.as_str()).collect();
            if names.is_empty() {
                continue;
            }
            let count = test.iter().filter(|id| others.iter().any(|other| other.train.contains(id))).count();
            let more = match names.len().saturating_sub(TASKS_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let named = quoted(&names[..names.len().min(TASKS_NAMED)]);
            let count = format!("{count} of {} test rows have a sequence that other tasks train on", test.len());
            ctx.warn(format_args!("task `{task}`: {count}: {named}{more}; a trunk that tasks share has seen it"));
            ctx.note(&format!("overlap across tasks {task}"), format_args!("{count}: {named}{more}"));
        }
    }
}

impl AuditedTask<'_> {
    /// The rows that can be used.
    fn usable(&self) -> Vec<usize> {
        (0..self.values.len()).filter(|&row| !self.values[row].is_nan()).collect()
    }

    fn warn_of_repeats(&self, ids: &[usize], ctx: &Context<'_>) {
        let value = |row: usize| self.values[row];
        let mut rows = self.usable();
        rows.sort_by(|&a, &b| ids[a].cmp(&ids[b]).then(value(a).total_cmp(&value(b))));
        let repeated =
            rows.windows(2).filter(|pair| ids[pair[0]] == ids[pair[1]] && value(pair[0]) == value(pair[1])).count();
        let (mut contradicting, mut furthest) = (0, None::<(f32, usize, usize)>);
        for same in rows.chunk_by(|&a, &b| ids[a] == ids[b]) {
            let (least, most) = (same[0], same[same.len() - 1]);
            let difference = value(most) - value(least);
            contradicting += usize::from(difference > 0.0);
            if difference > furthest.map_or(0.0, |(furthest, ..)| furthest) {
                furthest = Some((difference, least, most));
            }
        }
        let plural = |count: usize, one: &'static str, many: &'static str| if count == 1 { one } else { many };
        if repeated > 0 {
            let rows = plural(repeated, "row repeats", "rows repeat");
            ctx.warn(format_args!("task `{}`: {repeated} {rows} a sequence with the same value", self.name));
        }
        if let Some((_, least, most)) = furthest {
            let have = plural(contradicting, "sequence has", "sequences have");
            let at = |row: usize| format!("{} in {}", value(row), (self.origin)(row));
            let assays = if self.files[least] == self.files[most] {
                ""
            } else {
                "; if the files are different assays, `task-per = \"file\"` makes each a task"
            };
            ctx.warn(format_args!(
                "task `{}`: {contradicting} {have} different values, the furthest apart {} and {}{assays}",
                self.name,
                at(least),
                at(most),
            ));
        }
    }

    fn warn_of_units(&self, ctx: &Context<'_>) {
        let mut rows = self.usable();
        rows.sort_by_key(|&row| self.files[row]);
        let files: Vec<FileStatistics> =
            rows.chunk_by(|&a, &b| self.files[a] == self.files[b]).map(|rows| self.statistics(rows)).collect();
        let extremes = |key: fn(&FileStatistics) -> f64| {
            let least = files.iter().min_by(|a, b| key(a).total_cmp(&key(b)))?;
            Some((least, files.iter().max_by(|a, b| key(a).total_cmp(&key(b)))?))
        };
        let decades = extremes(|file| file.magnitude)
            .filter(|(least, most)| least.magnitude > 0.0 && most.magnitude >= DECADE * least.magnitude);
        let signs = extremes(|file| file.sign).filter(|(least, most)| least.sign < 0.0 && most.sign > 0.0);
        let ((least, most), how) = match (decades, signs) {
            (Some(pair), _) => (pair, "differ by a factor of ten or more"),
            (None, Some(pair)) => (pair, "have different signs"),
            (None, None) => return,
        };
        let shown = |file: &FileStatistics| {
            let origin = (self.origin)(file.row);
            let name = origin.rsplit_once(':').map_or(origin.as_str(), |(name, _)| name);
            format!("{:e} in {name}", file.median)
        };
        ctx.warn(format_args!(
            "task `{}`: the medians of its files {how}, {} and {}: are they in one unit? `task-per = \"file\"` makes each \
             file a task",
            self.name,
            shown(least),
            shown(most),
        ));
    }

    /// The statistics of a file that has these rows, one at least.
    fn statistics(&self, rows: &[usize]) -> FileStatistics {
        let median = |of: fn(f32) -> f32| {
            let mut values: Vec<f32> = rows.iter().map(|&row| of(self.values[row])).collect();
            let middle = values.len() / 2;
            *values.select_nth_unstable_by(middle, f32::total_cmp).1
        };
        let most = |of: fn(f32) -> bool| {
            rows.iter().filter(|&&row| of(self.values[row])).count() as f64 >= MAJORITY * rows.len() as f64
        };
        let sign = f64::from(u8::from(most(|value| value > 0.0))) - f64::from(u8::from(most(|value| value < 0.0)));
        FileStatistics { row: rows[0], median: median(|value| value), magnitude: median(f32::abs).into(), sign }
    }
}

struct FileStatistics {
    /// One of the file's rows.
    row: usize,
    median: f32,
    /// The median of the absolute values.
    magnitude: f64,
    /// The sign of nearly all values: -1 or 1, or 0 where they have both.
    sign: f64,
}

/// Warns of files with different names and the same bytes.
pub fn warn_identical_files(sources: &[Source], ctx: &Context<'_>) {
    let mut files: Vec<&Source> = sources.iter().filter(|source| source.rows > 0).collect();
    files.sort_by(|a, b| (&a.sha256, &a.path).cmp(&(&b.sha256, &b.path)));
    files.dedup_by(|a, b| a.path == b.path);
    for same in files.chunk_by(|a, b| a.sha256 == b.sha256).filter(|same| same.len() > 1) {
        let names: Vec<String> = same.iter().map(|source| source.path.display().to_string()).collect();
        ctx.warn(format_args!("identical files, all of them used: {}", names.join(", ")));
    }
}

#[cfg(test)]
mod tests;
