//! The same results as in one process.

use std::process::Command;

use super::{Sites, TASKS, linear, nothing};
use crate::support::{binary, library};

/// Splits the sample data over this many sites, so that all have all tasks.
fn mixed(name: &str, federation: &str, rest: &str) -> String {
    format!(
        "name = \"{name}\"\nseed = 5\n[federation]\nrounds = 3\n{federation}\n[dataset]\nplugin = \"flab\"\nroot = \
         \"configs/sample\"\nclients = {{ count = 3, alpha = 1.0 }}\n{rest}"
    )
}

const LINEAR: &str = "[model]\nplugin = \"linear\"\n";
const MIXED: [&str; 3] = ["site-1", "site-2", "site-3"];

fn assert_same_through_sites(names: &[&str], name: &str, experiment: &str) {
    let Some(mut sites) = Sites::new(names, experiment, nothing) else { return };
    sites.join_all();
    sites.run_locally(name);
    sites.serve(&[]);
    sites.assert_same(name);
}

#[test]
fn private_heads_and_cross_site_evaluation_are_the_same_through_sites() {
    let experiment = linear(&TASKS, "heads", 3, "cross-site = true");
    let Some(mut sites) = Sites::new(&TASKS, &experiment, nothing) else { return };
    sites.join_all();
    sites.run_locally("heads");
    let told = sites.serve(&[]);
    sites.assert_same("heads");
    let table = |run: &str| sites.bench.text(run, "cross_site.csv");
    assert_eq!(table("heads"), table("heads-local"));
    // Predictions stay at the sites, where they are the same lines.
    let all = sites.bench.text("heads-local", "predictions.csv");
    for site in TASKS {
        let own = std::fs::read_to_string(sites.at_site(site, "predictions.csv")).unwrap();
        assert!(own.lines().skip(1).all(|line| all.contains(line)), "{own}");
        assert_eq!(own.lines().count() - 1, all.lines().filter(|line| line.starts_with(&format!("{site},"))).count());
    }
    assert!(!sites.bench.path("runs/heads/predictions.csv").exists());
    assert!(told.contains("4 clients, 3 rounds"), "{told}");
}

#[test]
fn rows_for_validation_stay_at_their_sites_and_choose_the_same_model() {
    let experiment = linear(&TASKS, "chosen", 4, "fraction = 0.7")
        .replace("clients = \"by-task\"", "clients = \"by-task\"\nvalidation-fraction = 0.2");
    let Some(mut sites) = Sites::new(&TASKS, &experiment, nothing) else { return };
    sites.join_all();
    sites.run_locally("chosen");
    sites.serve(&[]);
    sites.assert_same("chosen");
    assert!(sites.bench.summary("chosen")["best"]["validation-score"].is_number());
}

#[test]
fn scaffold_is_the_same_through_sites_with_other_numbers_of_threads() {
    let rest = "[model]\nplugin = \"amplify\"\npretrained = { hidden-size = 16, layers = 1, heads = 2, intermediate-size \
                = 32 }\nlayer-sizes = [8]\nschedule = \"constant\"\nscaffold = true\n[aggregator]\nplugin = \"scaffold\"\n";
    if crate::support::has_libtorch() {
        assert_same_through_sites(&MIXED, "scaffold", &mixed("scaffold", "", rest));
    }
}

#[test]
fn a_filter_with_a_memory_and_a_fraction_of_clients_are_the_same_through_sites() {
    let rest = format!(
        "{LINEAR}[aggregator]\nplugin = \"fedavg\"\n[[filter]]\nplugin = \"compress\"\nat = [\"client-output\", \
         \"server-input\"]\nmethod = \"top-k\"\nkeep = 0.1\n"
    );
    assert_same_through_sites(&MIXED, "top-k", &mixed("top-k", "fraction = 0.7", &rest));
}

#[test]
fn secure_aggregation_is_the_same_through_sites() {
    let rest = format!(
        "{LINEAR}[aggregator]\nplugin = \"secure\"\nthreshold = 2\n[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\nminimum = 2\n"
    );
    assert_same_through_sites(&MIXED, "secure", &mixed("secure", "", &rest));
}

/// The server has neither data nor the library of the model; its first global model is a file.
#[test]
fn a_server_that_has_only_a_first_model_gives_the_same_results() {
    let Some(mut sites) =
        Sites::new(&MIXED, &mixed("bare", "", &format!("{LINEAR}[aggregator]\nplugin = \"fedavg\"\n")), nothing)
    else {
        return;
    };
    // The first model is one that has learnt, so that a fresh one in its place would be noticed.
    sites.run_locally("first");
    let first = sites.bench.path("first.safetensors");
    std::fs::copy(sites.bench.path("runs/first-local/global/model.safetensors"), &first).unwrap();
    let text = std::fs::read_to_string(&sites.experiment).unwrap();
    std::fs::write(
        &sites.experiment,
        text.replacen("[federation]\n", &format!("[federation]\ninitial = {first:?}\n"), 1),
    )
    .unwrap();
    let bare = sites.bench.path("bare");
    std::fs::create_dir(&bare).unwrap();
    for file in [binary().to_owned(), library("aggregator-fedavg")] {
        std::fs::copy(&file, bare.join(file.file_name().unwrap())).unwrap();
    }
    sites.join_all();
    sites.run_locally("bare");
    let full = sites.serve_command(&[]);
    let mut serve = Command::new(bare.join(binary().file_name().unwrap()));
    let output = serve.args(full.get_args()).current_dir(&bare).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{}", sites.logs());
    sites.assert_same("bare");
    assert_ne!(sites.bench.metrics("first-local"), sites.bench.metrics("bare"));
}
