//! How plugins describe their configuration: `fedplug schema`, checked by an independent validator, and
//! `plugin inspect`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{Bench, files, has_libtorch, library, python, root, skip};

/// What an independent validator finds wrong with each file, by the schema beside it; none where it is not installed.
fn faults(pairs: &[(PathBuf, PathBuf)]) -> Option<Vec<Vec<String>>> {
    let mut child = python()?
        .arg(root().join("tests/it/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(pairs).unwrap().as_bytes()).unwrap();
    let told = child.wait_with_output().unwrap();
    assert!(told.status.success());
    Some(serde_json::from_slice(&told.stdout).unwrap())
}

/// Writes the schema of an experiment into the bench.
fn schema(bench: &Bench, file: &Path, name: &str) -> PathBuf {
    let told = bench.fedplug(&["schema", file.to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    bench.write(name, &told.stdout)
}

#[test]
fn every_configuration_here_fits_its_schema() {
    let bench = Bench::new();
    let (mut pairs, mut schemas) = (Vec::new(), BTreeMap::new());
    let mut left_out = 0;
    for file in files(&root().join("configs")) {
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        if !has_libtorch() && text.contains("\"amplify\"") {
            left_out += 1;
            continue;
        }
        // It imports torch: `python` has its test.
        if file.ends_with("configs/python/transformer.toml") {
            continue;
        }
        // A schema depends on the plugins' names, and on where they stand.
        let plugins: Vec<String> =
            text.lines().filter(|line| line.starts_with('[') || line.contains("plugin")).map(str::to_owned).collect();
        let number = schemas.len();
        let schema = schemas.entry(plugins).or_insert_with(|| schema(&bench, &file, &format!("{number}.json")));
        pairs.push((schema.clone(), file));
    }
    if left_out > 0 {
        skip(format_args!("{left_out} configurations name `amplify`, and libtorch is not installed"));
    }
    assert!(!pairs.is_empty());
    let Some(found) = faults(&pairs) else { return };
    for ((_, file), faults) in pairs.iter().zip(found) {
        assert!(faults.is_empty(), "{}: {faults:?}", file.display());
    }
}

/// Every sort of table: nested keys, words, two plugins of one kind, one of them at several places.
const GOOD: &str = r#"name = "good"
seed = 1

[federation]
rounds = 2
devices = ["cpu"]
on-client-failure = "leave-out"
early-stopping = { patience = 3 }

[dataset]
plugin = "flab"
root = "configs/sample"
clients = { count = 2, alpha = 1.0 }

[model]
plugin = "linear"
batch-size = 8

[aggregator]
plugin = "fedavg"
weight-by = "examples"

[[filter]]
plugin = "exclude-params"
at = "client-output"
containing = "bias"

[[filter]]
plugin = "suite"
at = ["client-output", "client-input"]
side = "client"
inner = { numbers = [1, 2.5] }

[[filter]]
plugin = "exclude-params"
at = "server-output"
containing = "regressor"
"#;

#[test]
fn what_the_host_would_refuse_the_schema_refuses() {
    let bench = Bench::new();
    let good = bench.write("good.toml", GOOD);
    let schema = schema(&bench, &good, "good.json");
    let told = bench.fedplug(&["check", good.to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let cases = [
        ("", "", ""),
        ("seed = 1", "sead = 1", " additionalProperties"),
        ("seed = 1", "seed = \"one\"", "seed type"),
        ("seed = 1", "seed = -1", "seed minimum"),
        ("\"good\"", "\"a/b\"", "name pattern"),
        ("name = \"good\"", "", " required"),
        ("rounds = 2", "rounds = 0", "federation.rounds minimum"),
        ("rounds = 2", "rounds = 2\nfraction = 0.0", "federation.fraction exclusiveMinimum"),
        ("[\"cpu\"]", "[]", "federation.devices minItems"),
        ("devices", "device", "federation additionalProperties"),
        ("leave-out", "leave", "federation.on-client-failure oneOf"),
        ("root = \"configs/sample\"", "", "dataset required"),
        ("count = 2", "count = 0", "dataset.clients oneOf"),
        ("\"linear\"", "\"quadratic\"", "model.plugin const"),
        ("batch-size = 8", "batch-size = \"many\"", "model.batch-size type"),
        ("batch-size = 8", "batch-sise = 8", "model additionalProperties"),
        ("\"examples\"", "\"example\"", "aggregator.weight-by oneOf"),
        ("weight-by", "at = \"client-output\"\nweight-by", "aggregator additionalProperties"),
        ("containing", "containin", "filter.0 oneOf"),
        ("at = \"server-output\"", "at = \"server\"", "filter.2 oneOf"),
        ("at = \"server-output\"", "", "filter.2 oneOf"),
        ("[\"client-output\", \"client-input\"]", "[]", "filter.1 oneOf"),
        ("side = \"client\"", "side = \"left\"", "filter.1 oneOf"),
        ("side = \"client\"", "containing = \"x\"", "filter.1 oneOf"),
    ];
    let pairs: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(number, (from, to, _))| {
            assert!(GOOD.contains(from), "{from} is not in the experiment");
            let file = bench.write(&format!("{number}.toml"), &GOOD.replacen(from, to, 1));
            // Each is refused by the host too: the schema is no stricter.
            let told = bench.fedplug(&["check", file.to_str().unwrap()]);
            assert_eq!(told.code, if number == 0 { 0 } else { 2 }, "{to}: {}", told.stderr);
            (schema.clone(), file)
        })
        .collect();
    let Some(found) = faults(&pairs) else { return };
    for ((from, to, wanted), faults) in cases.iter().zip(found) {
        let wanted: Vec<&str> = Some(*wanted).filter(|wanted| !wanted.is_empty()).into_iter().collect();
        assert_eq!(faults, wanted, "{from} → {to}");
    }
}

#[test]
fn a_schema_is_made_of_an_experiment_that_is_not_whole_yet() {
    let bench = Bench::new();
    let file = bench.write("begun.toml", "rounds = 1\n[model]\nplugin = \"linear\"\nbatch = 1\n[dataset]\n");
    let schema = schema(&bench, &file, "begun.json");
    let other = bench.write("other.toml", &GOOD.replace("batch-size", "batch"));
    if let Some(found) = faults(&[(schema.clone(), file), (schema, other)]) {
        // Of the tables that name no plugin yet only the host's keys are known.
        assert_eq!(
            found[0],
            [
                " additionalProperties",
                " required",
                " required",
                " required",
                "dataset required",
                "model additionalProperties"
            ]
        );
        assert_eq!(found[1], ["model additionalProperties"]);
    }
    let file = bench.write("lost.toml", "[model]\nplugin = \"linea\"\n[aggregator]\nplugin = \"nobody\"\n");
    let told = bench.fedplug(&["schema", file.to_str().unwrap()]);
    assert_eq!(told.code, 2);
    assert!(
        told.stderr.contains("BENCH/lost.toml:2: ") && told.stderr.contains("did you mean `linear`?"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("there is no aggregator plugin `nobody`"), "{}", told.stderr);
}

#[test]
fn a_plugin_tells_what_it_is() {
    let bench = Bench::new();
    let path = library("filter-suite").canonicalize().unwrap();
    let told = bench.fedplug(&["plugin", "inspect", "suite"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let by_path = bench.fedplug(&["plugin", "inspect", path.to_str().unwrap()]);
    assert_eq!(told.stdout, by_path.stdout);
    let text = told.stdout.replace(path.to_str().unwrap(), "LIBRARY");
    let build = format!("-{}", std::env::consts::OS);
    assert!(text.lines().any(|line| line.starts_with("  build ") && line.ends_with(&build)), "{text}");
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("  build ")).collect();
    insta::assert_snapshot!("inspect", text.join("\n"));

    let told = bench.fedplug(&["plugin", "inspect", "suite", "--format", "json", "--kind", "aggregator"]);
    let json: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(json["about"]["package"], "fixture-suite");
    assert_eq!(json["components"][0]["about"], "Changes nothing");
    assert_eq!(json["components"][0]["schema"]["additionalProperties"], false);
    for (name, snapshot) in [("linea", "inspect a near name"), ("./no/such.so", "inspect no file")] {
        let told = bench.fedplug(&["plugin", "inspect", name]);
        assert_eq!(told.code, 2);
        let hint = told.stderr.lines().filter(|line| !line.contains("caused by")).collect::<Vec<_>>();
        insta::assert_snapshot!(snapshot, hint.join("\n"));
    }
}
