//! The files of a run, and that they are the same each time.

use crate::support::{Bench, files, root};

const LINEAR: &str = "configs/linear.toml";

#[test]
fn a_run_leaves_what_the_readme_names() {
    let bench = Bench::new();
    let told = bench.run(&[LINEAR, "--set", "federation.rounds=3"]);
    assert_eq!(told.stdout, "", "stdout is for data");
    for wanted in ["round 3/3", "RMSE", "Spearman", "mean", "tensorboard --logdir"] {
        assert!(told.stderr.contains(wanted), "no {wanted} in {}", told.stderr);
    }
    let run = bench.path("runs/linear");
    let names: Vec<String> = files(&run)
        .iter()
        .map(|path| path.strip_prefix(&run).unwrap().display().to_string())
        .map(|name| if name.starts_with("events/") { name.rsplit_once('/').unwrap().0.to_owned() } else { name })
        .collect();
    insta::assert_snapshot!(names.join("\n"));
    let resolved = bench.text("linear", "experiment.toml").replace(root().to_str().unwrap(), "ROOT");
    insta::assert_snapshot!("resolved", resolved);
}

#[test]
fn two_runs_and_any_number_of_threads_give_the_same_bits() {
    let bench = Bench::new();
    for (name, threads) in [("one", "1"), ("again", "1"), ("three", "3"), ("many", "16")] {
        bench.run(&[LINEAR, "--name", name, "--threads", threads]);
    }
    let wanted = bench.results("one");
    for name in ["again", "three", "many"] {
        assert!(bench.results(name) == wanted, "{name} differs");
    }
    bench.run(&[LINEAR, "--name", "other-seed", "--set", "seed=43"]);
    assert!(bench.results("other-seed") != wanted, "the seed changes nothing");
}

#[test]
fn metrics_have_a_line_for_each_scalar_in_client_order() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=2", "--set", "federation.local-epochs=2"]);
    let lines: Vec<serde_json::Value> =
        bench.text("linear", "metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |client: &str, tag: &str| {
        let found = lines.iter().filter(|line| line["client"] == client && line["tag"] == tag);
        found.map(|line| (line["round"].as_u64().unwrap(), line["step"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    // Three evaluations of a global model (two rounds and the last), four of the client's own.
    let steps = of("tm", "RMSE/local_test");
    assert_eq!(steps.iter().map(|(round, _)| *round).collect::<Vec<_>>(), [0, 0, 1, 1]);
    assert!(steps.is_sorted_by_key(|(_, step)| *step) && steps[0].1 > 0);
    assert_eq!(of("tm", "RMSE/global_test").iter().map(|(round, _)| *round).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(of("server", "Score/local_test"), [(0, 0), (1, 1)]);
    let first_round: Vec<_> =
        lines.iter().filter(|line| line["round"] == 0).map(|line| line["client"].as_str().unwrap()).collect();
    let mut clients = first_round.clone();
    clients.dedup();
    assert_eq!(clients, ["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm", "server"]);
}

#[test]
fn private_parameters_stay_at_their_client_and_shared_ones_are_averaged() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=2"]);
    let names = |file: &str| {
        let bytes = bench.bytes("linear", file);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert!(names("global/model.safetensors").iter().all(|name| !name.contains("regressor")));
    for (number, client) in ["aggregation", "binding", "expression"].iter().enumerate() {
        let heads: Vec<String> = names(&format!("clients/{client}/model.safetensors"))
            .into_iter()
            .filter(|name| name.contains("regressor"))
            .collect();
        assert!(
            !heads.is_empty() && heads.iter().all(|name| name.starts_with(&format!("regressors.{number}."))),
            "{heads:?}"
        );
    }
}

#[test]
fn an_earlier_run_is_not_lost() {
    let bench = Bench::new();
    let one_round = [LINEAR, "--set", "federation.rounds=1"];
    bench.run(&one_round);
    let before = bench.results("linear");
    let told = bench.fedplug(&[&["run"], &one_round[..]].concat());
    assert_eq!(told.code, 2);
    insta::assert_snapshot!(told.stderr);
    assert!(bench.results("linear") == before);
    bench.run(&[&one_round[..], &["--name", "other"]].concat());
    bench.run(&[&one_round[..], &["--force"]].concat());
    // What is not a run is not removed even then.
    bench.write("runs/precious/thesis.txt", "years of work");
    let told = bench.fedplug(&[&["run"], &one_round[..], &["--name", "precious", "--force"]].concat());
    assert_eq!(told.code, 2, "{}", told.stderr);
    assert!(bench.path("runs/precious/thesis.txt").exists());
    // Nor is what has a manifest of somebody else's, such as a browser's extension.
    bench.write("runs/extension/manifest.json", r#"{"manifest_version": 3}"#);
    bench.write("runs/extension/thesis.txt", "years of work");
    let told = bench.fedplug(&[&["run"], &one_round[..], &["--name", "extension", "--force"]].concat());
    assert_eq!(told.code, 2, "{}", told.stderr);
    insta::assert_snapshot!("not a run", told.stderr);
    assert_eq!(files(&bench.path("runs/extension")).len(), 2);
}

#[test]
#[cfg(unix)]
fn a_run_that_is_replaced_waits_until_the_new_one_is_done() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=1"]);
    let before = bench.results("linear");
    bench.write("runs/linear/notes.txt", "mine");
    let outside = bench.write("outside/thesis.txt", "precious");
    std::os::unix::fs::symlink(outside.parent().unwrap(), bench.path("runs/linear/best/link")).unwrap();
    // A new one with a mistake changes nothing.
    let told = bench.fedplug(&["run", LINEAR, "--force", "--set", "model.hidden=1"]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    assert!(bench.results("linear").iter().zip(&before).all(|(now, then)| now == then));
    // One that is stopped tells where the old one is, and so does one that fails after that.
    let long = ["run", LINEAR, "--force", "--quiet", "--set", "federation.rounds=100000"];
    for _ in 0..2 {
        // Two runs that begin in the same second have the same manifest.
        let manifest = || std::fs::metadata(bench.path("runs/linear/manifest.json")).and_then(|it| it.modified()).ok();
        let earlier = manifest();
        let mut child = crate::resume::start(&bench, &long[1..]);
        let events = bench.path("runs/linear/events/tm");
        crate::resume::wait(&mut child, || manifest() != earlier && events.is_dir());
        let told = crate::resume::signal(&bench, child, "-TERM");
        let text = "the replaced run was not removed: BENCH/runs/linear.replaced~";
        assert!(told.code == 130 && told.stderr.contains(text), "{}", told.stderr);
        assert_eq!(bench.results("linear.replaced~"), before);
    }
    // With one that is done it goes, and what fedplug did not write stays.
    bench.run(&[LINEAR, "--force", "--set", "federation.rounds=2"]);
    assert!(!bench.path("runs/linear.replaced~").exists());
    assert!(bench.path("runs/linear/best/link").is_symlink() && outside.exists());
    assert_eq!(std::fs::read_to_string(bench.path("runs/linear/notes.txt")).unwrap(), "mine");
    assert_eq!(bench.summary("linear")["rounds"], 2);
}

#[test]
fn every_experiment_in_configs_is_in_order() {
    let bench = Bench::new();
    for path in files(&root().join("configs")) {
        // `python` has tests of its own, and not all of them are of six clients. Those of `algorithms` are run by theirs.
        if path.extension().is_none_or(|extension| extension != "toml")
            || ["python", "algorithms"].iter().any(|folder| path.starts_with(root().join("configs").join(folder)))
        {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if text.contains("\"amplify\"") && !crate::support::has_libtorch() {
            crate::support::skip("libtorch is not installed");
            continue;
        }
        let mut arguments = vec!["check", path.to_str().unwrap()];
        if text.contains("FLAb/data") {
            // Those of the full job name data and weights that are fetched first; here are small ones.
            arguments.extend(["--set", "dataset.root=configs/sample", "--set", "federation.devices=[\"cpu\"]"]);
            arguments.extend([
                "--set",
                "model.pretrained={ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 32 }",
            ]);
        }
        let told = bench.fedplug(&arguments);
        assert_eq!(told.code, 0, "{}: {}", path.display(), told.stderr);
        let clients = if path.starts_with(root().join("configs/comparison")) { "3 clients" } else { "6 clients" };
        assert!(told.stdout.contains(clients), "{}", told.stdout);
    }
}
