//! Incompatible settings are found before training, by both `check` and `run`. The texts are snapshots.

use crate::support::{Bench, has_libtorch, skip};

/// Six clients with a task each, whose heads stay with them.
const FILE: &str = r#"name = "rehearsed"

[federation]
rounds = 3

[dataset]
plugin = "flab"
root = "configs/sample"

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"

[[filter]]
plugin = "exclude-params"
at = "client-output"
containing = "regressor"
"#;

const FEDAVG: &str = "[aggregator]\nplugin = \"fedavg\"\n";
const KRUM: &str = "[aggregator]\nplugin = \"robust\"\nmethod = \"krum\"\nbyzantine = 2\n";
const SECURE: &str = "[aggregator]\nplugin = \"secure\"\nthreshold = 4\n";
const MASK: &str = "\n[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\n";
const NOISE: &str = "\n[[filter]]\nplugin = \"privacy\"\nat = \"client-output\"\nmechanism = \"gaussian\"\nclip = 1.0\n\
                     noise-multiplier = 0.1\ndelta = 1e-5\n";

/// The experiment with some texts in the place of others.
fn with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(FILE.to_owned(), |file, (from, to)| {
        assert!(file.contains(from), "{from} is not in the experiment");
        file.replace(from, to)
    })
}

/// The experiment without its filter, and then with others.
fn shared(more: &str) -> String {
    FILE.split("\n[[filter]]").next().unwrap().to_owned() + more
}

fn compress(at: &str) -> String {
    format!("\n[[filter]]\nplugin = \"compress\"\nat = {at}\nmethod = \"int8\"\nof = \"values\"\n")
}

/// What `check` says of an experiment that is at fault. `run` says the same, and leaves nothing.
fn refused(file: &str) -> String {
    let bench = Bench::new();
    let path = bench.write("rehearsed.toml", file);
    let told = bench.fedplug(&["check", path.to_str().unwrap()]);
    assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{}", told.stderr);
    let run = bench.fedplug(&["run", path.to_str().unwrap()]);
    assert_eq!((run.code, &run.stderr), (2, &told.stderr));
    assert!(!bench.path("runs").exists(), "{}", run.stderr);
    told.stderr
}

/// What `check` says of an experiment that is in order.
fn accepted(file: &str) -> String {
    let bench = Bench::new();
    let path = bench.write("rehearsed.toml", file);
    let told = bench.fedplug(&["check", path.to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    told.stderr
}

macro_rules! refused_snapshot {
    ($name:literal, $file:expr) => {
        insta::assert_snapshot!($name, refused($file))
    };
}

#[test]
fn a_filter_that_matches_nothing_or_everything_is_an_error() {
    assert_eq!(accepted(FILE), "");
    refused_snapshot!("a name that matches nothing", &with(&[("\"regressor\"", "\"regresor\"")]));
    refused_snapshot!("a name that matches everything", &with(&[("\"regressor\"", "\"r\"")]));
}

#[test]
fn too_many_byzantine_clients_are_an_error() {
    refused_snapshot!("too many attackers", &with(&[(FEDAVG, KRUM)]));
    // Each round has three clients.
    refused_snapshot!(
        "a share with too few clients",
        &with(&[(FEDAVG, &KRUM.replace("= 2", "= 1")), ("rounds = 3", "rounds = 3\nfraction = 0.5")])
    );
    accepted(&with(&[(FEDAVG, &KRUM.replace("= 2", "= 1"))]));
}

#[test]
fn compression_at_one_end_is_an_error() {
    refused_snapshot!("compressed and never restored", &(FILE.to_owned() + &compress("\"client-output\"")));
    refused_snapshot!("restored and never compressed", &(FILE.to_owned() + &compress("\"server-input\"")));
    refused_snapshot!("compressed for the clients alone", &(FILE.to_owned() + &compress("\"server-output\"")));
    refused_snapshot!("restored for the clients alone", &(FILE.to_owned() + &compress("\"client-input\"")));
    assert_eq!(accepted(&(FILE.to_owned() + &compress("[\"client-output\", \"server-input\"]"))), "");
    assert_eq!(accepted(&(FILE.to_owned() + &compress("[\"server-output\", \"client-input\"]"))), "");
}

#[test]
fn noise_after_compression_is_an_error() {
    let both = compress("[\"client-output\", \"server-input\"]") + NOISE;
    refused_snapshot!("noise on what is compressed", &(FILE.to_owned() + &both));
    accepted(&(FILE.to_owned() + NOISE + &compress("[\"client-output\", \"server-input\"]")));
}

#[test]
fn half_of_a_method_is_an_error() {
    refused_snapshot!("masks without the aggregator", &(FILE.to_owned() + MASK));
    refused_snapshot!("the aggregator without masks", &with(&[(FEDAVG, SECURE)]));
    refused_snapshot!(
        "too few clients for the threshold",
        &(with(&[(FEDAVG, SECURE), ("rounds = 3", "rounds = 3\nfraction = 0.5")]) + MASK)
    );
    assert_eq!(accepted(&(with(&[(FEDAVG, SECURE)]) + MASK)), "");
    refused_snapshot!("control variates of nobody", &with(&[(FEDAVG, "[aggregator]\nplugin = \"scaffold\"\n")]));
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let amplify = "plugin = \"amplify\"\nscaffold = true\n\
                   pretrained = { hidden-size = 16, layers = 1, heads = 2, intermediate-size = 16 }\n";
    refused_snapshot!("control variates for nobody", &with(&[("plugin = \"linear\"\n", amplify)]));
    accepted(&with(&[("plugin = \"linear\"\n", amplify), (FEDAVG, "[aggregator]\nplugin = \"scaffold\"\n")]));
}

#[test]
fn heads_that_a_method_cannot_take_are_an_error() {
    refused_snapshot!("heads that are not for all", &shared("").replace(FEDAVG, &KRUM.replace("= 2", "= 1")));
    refused_snapshot!("heads that cannot be masked", &(shared("").replace(FEDAVG, SECURE) + MASK));
    // In the second round there are clients whose heads nobody sent in the first: they have their global values still.
    assert_eq!(accepted(&shared(NOISE).replace("rounds = 3", "rounds = 3\nfraction = 0.5")), "");
    assert_eq!(accepted(&shared(NOISE)), "");
}

#[test]
fn an_unknown_metric_is_an_error() {
    let stopping = |metric: &str| {
        with(&[(
            "rounds = 3",
            &format!("rounds = 3\n\n[federation.early-stopping]\npatience = 2\nmetric = \"{metric}\""),
        )])
    };
    refused_snapshot!("an unknown metric", &stopping("RMSE/test"));
    for metric in ["RMSE/local_test_tm", "Pearson/global_test_binding", "Score/global_test"] {
        assert_eq!(accepted(&stopping(metric)), "");
    }
}

#[test]
fn data_that_the_model_cannot_read_is_an_error() {
    let data = "plugin = \"misbehaving\"\nhow = \"no-target\"";
    refused_snapshot!("no target", &with(&[("plugin = \"flab\"\nroot = \"configs/sample\"", data)]));
    let data = "plugin = \"misbehaving\"\nhow = \"other-shapes\"";
    refused_snapshot!("other rows", &with(&[("plugin = \"flab\"\nroot = \"configs/sample\"", data)]));
}

#[test]
fn all_problems_are_reported_together() {
    let stopping = "rounds = 3\nearly-stopping = { patience = 2, metric = \"R2/local_test\" }";
    let file = with(&[("rounds = 3", stopping), (FEDAVG, KRUM), ("\"regressor\"", "\"regresor\"")]);
    refused_snapshot!("all problems of a rehearsal", &file);
    let file = with(&[
        ("rounds = 3", "rounds = \"three\"\nfractoin = 0.5"),
        ("configs/sample", "no/such/folder"),
        (FEDAVG, &(FEDAVG.to_owned() + "weigh-by = 1\n")),
        ("\"regressor\"", "\"\""),
    ]);
    refused_snapshot!("problems of the host and of plugins", &file);
}

#[test]
fn a_warning_is_shown_once_and_no_trace_is_left() {
    // So small a `clip` that a step of training is clamped, at each of six clients and in each round.
    let file = with(&[(FEDAVG, &(SECURE.to_owned() + "clip = 1e-5\n"))]) + MASK;
    let told = accepted(&file);
    assert_eq!(told.matches("warning: ").count(), 1, "{told}");
    assert!(told.starts_with("warning: client aggregation, secure: ") && told.contains("were clamped"), "{told}");
    // The account of a run is that of its rounds.
    let bench = Bench::new();
    let path = bench.write("rehearsed.toml", &(FILE.to_owned() + NOISE));
    let told = bench.run(&[path.to_str().unwrap()]);
    assert!(!told.stderr.contains("rehearsal"), "{}", told.stderr);
    let notes = bench.summary("rehearsed")["notes"].clone();
    let notes: Vec<_> = notes.as_array().unwrap().iter().filter(|note| note["key"] == "privacy").collect();
    assert!(notes.len() == 6 && notes.iter().all(|note| note["text"].to_string().contains("3 rounds")), "{notes:?}");
    let told = bench.metrics("rehearsed").iter().filter(|line| line.contains("Privacy/norm")).count();
    assert_eq!(told, 6 * 3);
}

/// Where no client's update passes, noise protects nothing, and an account of it would say that it does.
#[test]
fn noise_where_no_update_passes_is_an_error() {
    refused_snapshot!("noise where no update passes", &shared(&NOISE.replace("client-output", "server-output")));
}
