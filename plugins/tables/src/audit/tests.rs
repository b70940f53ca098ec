use test_support::Recorder;

use super::*;

/// A row: its sequence, its value and its file.
type Row = (usize, f32, usize);

/// Audits these rows as the task `t`, and returns the warnings and notes.
fn audit(rows: &[Row], train: &[usize], test: &[usize]) -> Vec<String> {
    let recorder = Recorder::default();
    audit_task(&mut Audit::default(), "t", rows, train, test, &Context::new(&recorder));
    recorder.lines()
}

fn audit_task(audit: &mut Audit, name: &str, rows: &[Row], train: &[usize], test: &[usize], ctx: &Context<'_>) {
    let values: Vec<f32> = rows.iter().map(|row| row.1).collect();
    let files: Vec<usize> = rows.iter().map(|row| row.2).collect();
    let (sequence, origin) = (|row: usize| rows[row].0.to_string(), |row: usize| format!("f{}.csv:{row}", rows[row].2));
    let task = AuditedTask {
        name,
        sequence: &sequence,
        values: &values,
        files: &files,
        origin: &origin,
        advice: Some("do so"),
    };
    audit.task(&task, train, test, ctx);
}

#[test]
fn sound_data_causes_no_warning() {
    assert!(audit(&[(0, 1.0, 0), (1, 2.0, 0), (2, 9.0, 1)], &[0, 1], &[2]).is_empty());
    assert!(audit(&[], &[], &[]).is_empty());
    // The medians of scores around zero have any ratio.
    let centred: Vec<_> = (0..20).map(|i| (i, i as f32 - 9.4, i % 2)).collect();
    assert!(audit(&centred, &[], &[]).is_empty());
}

#[test]
fn test_rows_with_a_trained_sequence_are_counted() {
    let rows = [(0, 1.0, 0), (1, 2.0, 0), (0, 1.5, 0), (1, f32::NAN, 0), (2, 3.0, 0)];
    assert_eq!(
        audit(&rows, &[0, 4], &[1, 2])[..2],
        [
            "task `t`: 1 of 2 test rows have their sequence in training, so its scores are too good; do so",
            "note overlap t: 1 of 2 test rows have their sequence in training",
        ]
    );
}

#[test]
fn test_rows_whose_sequence_another_task_trains_on_are_counted() {
    let (recorder, mut all) = (Recorder::default(), Audit::default());
    let ctx = Context::new(&recorder);
    let rows: Vec<Row> = (0..4).map(|i| (i, i as f32, 0)).collect();
    audit_task(&mut all, "a", &rows, &[0, 1], &[2, 3], &ctx);
    audit_task(&mut all, "b", &[(2, 5.0, 0), (9, 6.0, 0), (8, 7.0, 0)], &[0, 1], &[2], &ctx);
    audit_task(&mut all, "c", &[(2, 5.0, 0), (7, 6.0, 0)], &[0], &[1], &ctx);
    for name in ["d", "e", "f"] {
        audit_task(&mut all, name, &[(3, 1.0, 0), (6, 2.0, 0)], &[0], &[1], &ctx);
    }
    all.across_tasks(&ctx);
    let count = "2 of 2 test rows have a sequence that other tasks train on: `b`, `c`, `d` and 2 more";
    assert_eq!(
        recorder.lines(),
        [
            format!("task `a`: {count}; a trunk that tasks share has seen it"),
            format!("note overlap across tasks a: {count}")
        ]
    );
}

#[test]
fn repeated_and_contradicting_rows_are_counted_with_the_furthest_pair() {
    let rows = [(0, 75.5, 0), (1, 60.0, 0), (0, 75.5, 1), (1, 61.0, 1), (0, -75.5, 2), (0, f32::NAN, 2)];
    let lines = audit(&rows, &[], &[]);
    assert_eq!(lines[0], "task `t`: 1 row repeats a sequence with the same value");
    let assays = "; if the files are different assays, `task-per = \"file\"` makes each a task";
    assert_eq!(
        lines[1],
        format!(
            "task `t`: 2 sequences have different values, the furthest apart -75.5 in f2.csv:4 and 75.5 in \
             f1.csv:2{assays}"
        )
    );
}

#[test]
fn files_whose_medians_differ_by_decades_or_in_sign_are_reported() {
    let rows = |files: &[&[f32]]| -> Vec<Row> {
        let values = files.iter().enumerate().flat_map(|(file, values)| values.iter().map(move |&v| (v, file)));
        values.enumerate().map(|(row, (value, file))| (row, value, file)).collect()
    };
    let ask = ": are they in one unit? `task-per = \"file\"` makes each file a task";
    let all = |files: &[&[f32]]| audit(&rows(files), &[], &[]);
    assert_eq!(
        all(&[&[8.0, 9.0, 7.0], &[1e-9, 2e-9, 3e-9], &[50.0, 60.0]]),
        [format!(
            "task `t`: the medians of its files differ by a factor of ten or more, 2e-9 in f1.csv and 6e1 in f2.csv{ask}"
        )]
    );
    assert_eq!(
        all(&[&[8.0, 9.0, 7.0], &[-8.0, -9.5, -7.0]]),
        [format!("task `t`: the medians of its files have different signs, -8e0 in f1.csv and 8e0 in f0.csv{ask}")]
    );
    assert!(all(&[&[8.0, 9.0, 7.0], &[12.0, 70.0, 99.0, 3.0]]).is_empty());
}

#[test]
fn identical_files_are_reported_unless_they_are_one_file_read_twice() {
    let source = |path: &str, sha256: &str, rows| Source {
        path: path.into(),
        sha256: sha256.to_owned(),
        rows,
        ..Source::default()
    };
    let recorder = Recorder::default();
    let files =
        [source("b", "1", 2), source("a", "1", 2), source("c", "2", 1), source("c", "2", 1), source("d", "2", 0)];
    warn_identical_files(&files, &Context::new(&recorder));
    assert_eq!(recorder.lines(), ["identical files, all of them used: a, b"]);
}
