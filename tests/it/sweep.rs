//! Many choices of values, sorted by their validation score.

use crate::support::{Bench, Told};

/// The linear experiment with a table `[sweep]` and a fifth of the training rows for validation.
fn experiment(bench: &Bench, sweep: &str) -> String {
    let text = std::fs::read_to_string(crate::support::root().join("configs/linear.toml")).unwrap();
    let text = text.replace("[dataset]", "[dataset]\nvalidation-fraction = 0.2").replace("rounds = 20", "rounds = 4");
    bench.write("swept.toml", &text.replace("[federation]", &format!("{sweep}\n[federation]"))).display().to_string()
}

fn sweep(bench: &Bench, arguments: &[&str]) -> Told {
    let runs = bench.path("runs").display().to_string();
    bench.fedplug(&[&["sweep"], arguments, &["--output", &runs]].concat())
}

/// The rows of the table, without its lines.
fn rows(told: &Told) -> Vec<Vec<String>> {
    let rows = told.stdout.lines().filter(|line| line.starts_with('│'));
    rows.map(|line| line.trim_matches('│').split('┆').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn each_combination_is_run_and_the_best_on_validation_rows_comes_first() {
    let bench = Bench::new();
    let grid = "[sweep.grid]\nmodel.learning-rate = [0.0001, 0.1]\nfederation.local-epochs = [1, 2]";
    let file = experiment(&bench, grid);
    let told = sweep(&bench, &[&file]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let rows = rows(&told);
    assert_eq!(
        rows[0],
        ["run", "model.learning-rate", "federation.local-epochs", "validation score", "after round", "rounds", ""]
    );
    assert_eq!(rows.len(), 5, "{}", told.stdout);
    let score = |run: &str| bench.summary(&format!("linear/{run}"))["best"]["validation-score"].as_f64().unwrap();
    let scores: Vec<f64> = rows[1..].iter().map(|row| score(&row[0])).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] > scores[3], "{scores:?}");
    let mut names: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["run-01", "run-02", "run-03", "run-04"]);
    let test = bench.summary(&format!("linear/{}", rows[1][0]))["best"]["score"].as_f64().unwrap();
    assert!(told.stdout.contains(&format!("best: {} (", rows[1][0])), "{}", told.stdout);
    assert!(told.stdout.contains(&format!("with score {test:.3} on the test rows")), "{} {test}", told.stdout);
    let experiment = bench.text("linear/run-04", "experiment.toml");
    assert!(experiment.contains("learning-rate = 0.1") && experiment.contains("local-epochs = 2"), "{experiment}");
    // A value more is one run more for each of the others.
    let more = self::experiment(&bench, &grid.replace("[1, 2]", "[1, 2, 3]"));
    let told = sweep(&bench, &[&more, "--resume"]);
    assert_eq!((told.code, self::rows(&told).len()), (0, 7), "{}", told.stderr);
    assert!(told.stderr.contains("run-06: finished") && !told.stderr.contains("run-01: finished"), "{}", told.stderr);
}

#[test]
fn without_rows_for_validation_or_values_there_is_no_sweep() {
    let bench = Bench::new();
    let error = |file: &str, arguments: &[&str], wanted: &str| {
        let told = sweep(&bench, &[&[file], arguments].concat());
        assert!(told.code == 2 && told.stderr.contains(wanted), "{}", told.stderr);
        assert!(!bench.path("runs").exists());
    };
    error("configs/linear.toml", &[], "the experiment has no values to choose from");
    let file = experiment(&bench, "[sweep.grid]\nseed = [1, 2]");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("validation-fraction = 0.2", "")).unwrap();
    error(&file, &[], "there are no rows for validation to choose by");
    let file = experiment(&bench, "[repeats]\nseeds = [1, 2]\n[sweep.grid]\nseed = [1, 2]");
    error(&file, &[], "the file has a table `[repeats]`");
    let file = experiment(&bench, "[sweep.grid]\nseed = 1\nmodel.learning-rate = []");
    error(&file, &[], "must be a list of values");
}

#[test]
fn a_bad_run_is_given_up_by_the_median_rule() {
    let bench = Bench::new();
    let rates = "[sweep]\nmedian-rule = 2\n[sweep.grid]\nmodel.learning-rate = [0.1, 0.05, 0.03, 1e-9]";
    let file = experiment(&bench, rates);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("rounds = 4", "rounds = 300")).unwrap();
    let told = sweep(&bench, &[&file, "--jobs", "1"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!(told.stderr.contains("run-04: given up: its best validation score in "), "{}", told.stderr);
    let last = rows(&told).pop().unwrap();
    assert_eq!((last[0].as_str(), last[2].as_str(), last.last().unwrap().as_str()), ("run-04", "-", "given up"));
}
