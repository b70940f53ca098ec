//! `fedplug init`: an experiment for one's own data, which runs as it is.

use crate::support::{Bench, has_libtorch};

/// Rows of antibodies of three hospitals, all with other sequences.
fn antibodies(bench: &Bench) -> String {
    let mut rows = "id,heavy,light,hospital,fitness,binder\n".to_owned();
    for row in 0..90usize {
        let letters = |salt: usize| -> String {
            let letter =
                |place: usize| char::from(b"ACDEFGHIKLMNPQRSTVWY"[(row * 7 + salt + 3 * place * (row + 1)) % 97 % 20]);
            (0..12).map(letter).collect()
        };
        let (hospital, binder) = (["leeds", "oslo", "rome"][row % 3], ["no", "yes"][row / 3 % 2]);
        rows += &format!("{row},{},{},{hospital},{},{binder}\n", letters(0), letters(5), (row % 11) as f64 / 4.0);
    }
    bench.write("my data.csv", &rows).to_str().unwrap().to_owned()
}

#[test]
fn an_experiment_for_a_csv_file_runs_as_it_is() {
    let bench = Bench::new();
    let data = antibodies(&bench);
    let file = bench.path("experiment.toml");
    let made = bench.fedplug(&["init", &data, "--output", file.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let plan = "predicts the number `fitness` from `heavy`, `light`; a client for each value of `hospital`";
    assert!(made.stdout.contains(plan), "{}", made.stdout);
    bench.run(&[file.to_str().unwrap()]);
    let summary = bench.summary("my-data");
    let clients: Vec<&String> = summary["clients"].as_object().unwrap().keys().collect();
    assert_eq!(clients, ["leeds", "oslo", "rome"]);
    // It is never overwritten unasked.
    let again = bench.fedplug(&["init", &data, "--output", file.to_str().unwrap()]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("already exists") && again.stderr.contains("--force"), "{}", again.stderr);
}

#[test]
fn options_choose_the_target_the_inputs_the_clients_and_the_model() {
    let bench = Bench::new();
    let data = antibodies(&bench);
    let file = bench.path("experiment.toml");
    let file = file.to_str().unwrap();
    let classes = ["init", &data, "--target", "binder", "--inputs", "heavy", "--clients", "2", "--output", file];
    let made = bench.fedplug(&classes);
    assert!(
        made.stdout.contains("predicts the class `binder` from `heavy`; 2 clients"),
        "{}{}",
        made.stdout,
        made.stderr
    );
    bench.run(&[file, "--set", "federation.rounds=2"]);
    assert_eq!(bench.summary("my-data")["clients"].as_object().unwrap().len(), 2);
    if has_libtorch() {
        let made = bench.fedplug(&["init", &data, "--model", "amplify", "--output", file, "--force"]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        bench.run(&[file, "--name", "trunk", "--set", "federation.rounds=1"]);
    }
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_file() {
    let bench = Bench::new();
    let empty = bench.write("empty.csv", "a,b\n");
    for (path, name, message) in
        [(empty.to_str().unwrap(), "empty.csv", "no rows"), ("none.csv", "none.csv", "No such file")]
    {
        let told = bench.fedplug(&["init", path]);
        assert_ne!(told.code, 0);
        assert!(told.stderr.contains(name) && told.stderr.contains(message), "{}", told.stderr);
    }
}
