//! What makes scores mean less than they seem to, counted and reported: test sequences that are also trained on, rows that
//! repeat or contradict one another, files in different units, files that are there twice.
//!
//! Nothing is dropped: whether a repeated measurement is a replicate or a mistake is for people to judge.

use plugin_api::{Context, Source};

/// How far apart medians of one task's files may lie.
const DECADE: f64 = 10.0;
/// The part of a file's values that say which side of zero it lies on.
const MOST: f64 = 0.9;

/// The rows of a task, before any is standardised or sampled.
pub struct Audit<'a> {
    /// The task.
    pub task: &'a str,
    /// The number of each row's sequence, as [`distinct`](crate::sequence_ids) gives it.
    pub sequences: &'a [usize],
    /// What was measured; not a number where the row cannot be used.
    pub values: &'a [f32],
    /// The number of each row's file.
    pub files: &'a [usize],
    /// Where a row came from, by its number.
    pub origin: &'a dyn Fn(usize) -> String,
    /// What keeps sequences from standing on both sides, if something can.
    pub advice: Option<&'a str>,
}

impl Audit<'_> {
    /// Reports all that the rows and their split show. `train` has the rows that any client trains on.
    pub fn report<'a>(
        &self,
        train: impl IntoIterator<Item = &'a usize>,
        test: impl IntoIterator<Item = &'a usize>,
        ctx: &Context<'_>,
    ) {
        let mut trained = vec![false; self.sequences.len()];
        train.into_iter().for_each(|&row| trained[self.sequences[row]] = true);
        let (mut rows, mut overlapping) = (0, 0);
        for &row in test {
            rows += 1;
            overlapping += usize::from(trained[self.sequences[row]]);
        }
        if overlapping > 0 {
            let count = format!("{overlapping} of {rows} test rows have their sequence in training");
            let advice = self.advice.map_or_else(String::new, |advice| format!("; {advice}"));
            ctx.warn(format_args!("task `{}`: {count}, so its scores are too good{advice}", self.task));
            ctx.note(&format!("overlap {}", self.task), format_args!("{count}"));
        }
        self.report_repeats(ctx);
        self.report_units(ctx);
    }

    fn report_repeats(&self, ctx: &Context<'_>) {
        let value = |row: usize| self.values[row];
        let mut rows: Vec<usize> = (0..self.values.len()).filter(|&row| !value(row).is_nan()).collect();
        rows.sort_by(|&a, &b| self.sequences[a].cmp(&self.sequences[b]).then(value(a).total_cmp(&value(b))));
        let repeated = rows
            .windows(2)
            .filter(|pair| self.sequences[pair[0]] == self.sequences[pair[1]] && value(pair[0]) == value(pair[1]));
        let (mut contradicting, mut furthest) = (0, None::<(f32, usize, usize)>);
        for same in rows.chunk_by(|&a, &b| self.sequences[a] == self.sequences[b]) {
            let (least, most) = (same[0], same[same.len() - 1]);
            let apart = value(most) - value(least);
            contradicting += usize::from(apart > 0.0);
            if apart > furthest.map_or(0.0, |(apart, ..)| apart) {
                furthest = Some((apart, least, most));
            }
        }
        let plural = |count: usize, one: &'static str, many: &'static str| if count == 1 { one } else { many };
        let repeated = repeated.count();
        if repeated > 0 {
            let rows = plural(repeated, "row repeats", "rows repeat");
            ctx.warn(format_args!("task `{}`: {repeated} {rows} a sequence with the same value", self.task));
        }
        if let Some((_, least, most)) = furthest {
            let have = plural(contradicting, "sequence has", "sequences have");
            let at = |row: usize| format!("{} in {}", value(row), (self.origin)(row));
            let assays = if self.files[least] == self.files[most] {
                ""
            } else {
                "; where files are different assays, `task-per = \"file\"` makes each a task"
            };
            ctx.warn(format_args!(
                "task `{}`: {contradicting} {have} different values, the furthest apart {} and {}{assays}",
                self.task,
                at(least),
                at(most),
            ));
        }
    }

    fn report_units(&self, ctx: &Context<'_>) {
        let mut rows: Vec<usize> = (0..self.values.len()).filter(|&row| !self.values[row].is_nan()).collect();
        rows.sort_by_key(|&row| self.files[row]);
        let files: Vec<File> =
            rows.chunk_by(|&a, &b| self.files[a] == self.files[b]).map(|rows| self.file(rows)).collect();
        let by = |key: fn(&File) -> f64| {
            let least = files.iter().min_by(|a, b| key(a).total_cmp(&key(b)))?;
            Some((least, files.iter().max_by(|a, b| key(a).total_cmp(&key(b)))?))
        };
        let sizes = by(|file| file.size).filter(|(least, most)| least.size > 0.0 && most.size >= DECADE * least.size);
        let sides = by(|file| file.side).filter(|(least, most)| least.side < 0.0 && most.side > 0.0);
        let (pair, how) = match (sizes, sides) {
            (Some(pair), _) => (pair, "decades apart"),
            (None, Some(pair)) => (pair, "on either side of zero"),
            (None, None) => return,
        };
        let shown = |file: &File| {
            let origin = (self.origin)(file.row);
            let name = origin.rsplit_once(':').map_or(origin.as_str(), |(name, _)| name);
            format!("{:e} in {name}", file.median)
        };
        ctx.warn(format_args!(
            "task `{}`: medians of its files lie {how}, {} and {}: are they in one unit? `task-per = \"file\"` makes \
             each file a task",
            self.task,
            shown(pair.0),
            shown(pair.1),
        ));
    }

    fn file(&self, rows: &[usize]) -> File {
        let median = |of: fn(f32) -> f32| {
            let mut values: Vec<f32> = rows.iter().map(|&row| of(self.values[row])).collect();
            let middle = values.len() / 2;
            *values.select_nth_unstable_by(middle, f32::total_cmp).1
        };
        let part = |side: fn(f32) -> bool| {
            rows.iter().filter(|&&row| side(self.values[row])).count() as f64 >= MOST * rows.len() as f64
        };
        let side = f64::from(u8::from(part(|value| value > 0.0))) - f64::from(u8::from(part(|value| value < 0.0)));
        File { row: rows[0], median: median(|value| value), size: median(f32::abs).into(), side }
    }
}

/// What the values of one file are like.
struct File {
    /// One of its rows.
    row: usize,
    median: f32,
    /// The median of the values without their signs.
    size: f64,
    /// On which side of zero nearly all values lie: -1, 1, or 0 for neither.
    side: f64,
}

/// Reports files of other names with the same bytes.
pub fn warn_identical_files(sources: &[Source], ctx: &Context<'_>) {
    let mut files: Vec<&Source> = sources.iter().filter(|source| source.rows > 0).collect();
    files.sort_by(|a, b| (&a.sha256, &a.path).cmp(&(&b.sha256, &b.path)));
    files.dedup_by(|a, b| a.path == b.path);
    for same in files.chunk_by(|a, b| a.sha256 == b.sha256).filter(|same| same.len() > 1) {
        let names: Vec<String> = same.iter().map(|source| source.path.display().to_string()).collect();
        ctx.warn(format_args!("files with the same bytes, all of which are used: {}", names.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use plugin_api::Level;
    use plugin_api::context::Host;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Host for Lines {
        fn enabled(&self, level: Level) -> bool {
            level <= Level::Warn
        }
        fn log(&self, _: Level, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
        fn scalar(&self, _: &str, _: u64, _: f64) {}
        fn progress(&self, _: u64, _: u64) {}
        fn note(&self, key: &str, text: &str) {
            self.log(Level::Info, &format!("note {key}: {text}"));
        }
        fn cancelled(&self) -> bool {
            false
        }
    }

    /// What is told of rows: sequence, value, file; and of a split.
    fn told(rows: &[(usize, f32, usize)], train: &[usize], test: &[usize]) -> Vec<String> {
        let lines = Lines::default();
        let sequences: Vec<usize> = rows.iter().map(|row| row.0).collect();
        let values: Vec<f32> = rows.iter().map(|row| row.1).collect();
        let files: Vec<usize> = rows.iter().map(|row| row.2).collect();
        let origin = |row: usize| format!("f{}.csv:{row}", files[row]);
        let (sequences, values) = (&sequences[..], &values[..]);
        let audit = Audit { task: "t", sequences, values, files: &files, origin: &origin, advice: Some("do so") };
        audit.report(train, test, &Context::new(&lines));
        lines.0.into_inner().unwrap()
    }

    #[test]
    fn what_is_as_it_should_be_says_nothing() {
        assert!(told(&[(0, 1.0, 0), (1, 2.0, 0), (2, 9.0, 1)], &[0, 1], &[2]).is_empty());
        assert!(told(&[], &[], &[]).is_empty());
        // Scores around zero have medians of any ratio.
        let centred: Vec<_> = (0..20).map(|i| (i, i as f32 - 9.4, i % 2)).collect();
        assert!(told(&centred, &[], &[]).is_empty());
    }

    #[test]
    fn test_rows_that_are_trained_on_are_counted() {
        let rows = [(0, 1.0, 0), (1, 2.0, 0), (0, 1.5, 0), (1, f32::NAN, 0), (2, 3.0, 0)];
        assert_eq!(
            told(&rows, &[0, 4], &[1, 2])[..2],
            [
                "task `t`: 1 of 2 test rows have their sequence in training, so its scores are too good; do so",
                "note overlap t: 1 of 2 test rows have their sequence in training",
            ]
        );
    }

    #[test]
    fn rows_that_repeat_and_contradict_one_another_are_counted_with_the_worst() {
        let rows = [(0, 75.5, 0), (1, 60.0, 0), (0, 75.5, 1), (1, 61.0, 1), (0, -75.5, 2), (0, f32::NAN, 2)];
        let told = told(&rows, &[], &[]);
        assert_eq!(told[0], "task `t`: 1 row repeats a sequence with the same value");
        let assays = "; where files are different assays, `task-per = \"file\"` makes each a task";
        assert_eq!(
            told[1],
            format!(
                "task `t`: 2 sequences have different values, the furthest apart -75.5 in f2.csv:4 and 75.5 in \
                 f1.csv:2{assays}"
            )
        );
    }

    #[test]
    fn medians_that_lie_decades_apart_or_on_either_side_of_zero_are_told() {
        let rows = |files: &[&[f32]]| -> Vec<(usize, f32, usize)> {
            let values = files.iter().enumerate().flat_map(|(file, values)| values.iter().map(move |&v| (v, file)));
            values.enumerate().map(|(row, (value, file))| (row, value, file)).collect()
        };
        let ask = ": are they in one unit? `task-per = \"file\"` makes each file a task";
        let all = |files: &[&[f32]]| told(&rows(files), &[], &[]);
        assert_eq!(
            all(&[&[8.0, 9.0, 7.0], &[1e-9, 2e-9, 3e-9], &[50.0, 60.0]]),
            [format!("task `t`: medians of its files lie decades apart, 2e-9 in f1.csv and 6e1 in f2.csv{ask}")]
        );
        assert_eq!(
            all(&[&[8.0, 9.0, 7.0], &[-8.0, -9.5, -7.0]]),
            [format!(
                "task `t`: medians of its files lie on either side of zero, -8e0 in f1.csv and 8e0 in f0.csv{ask}"
            )]
        );
        assert!(all(&[&[8.0, 9.0, 7.0], &[12.0, 70.0, 99.0, 3.0]]).is_empty());
    }

    #[test]
    fn files_of_the_same_bytes_are_told_and_one_that_is_read_twice_is_not() {
        let source = |path: &str, sha256: &str, rows| Source {
            path: path.into(),
            sha256: sha256.to_owned(),
            rows,
            ..Source::default()
        };
        let lines = Lines::default();
        let files =
            [source("b", "1", 2), source("a", "1", 2), source("c", "2", 1), source("c", "2", 1), source("d", "2", 0)];
        warn_identical_files(&files, &Context::new(&lines));
        assert_eq!(lines.0.into_inner().unwrap(), ["files with the same bytes, all of which are used: a, b"]);
    }
}
