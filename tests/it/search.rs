//! Where plugins are searched for, which of several is used, and the output of `fedplug plugin list`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Bench, Told, library};

const FILE: &str = r#"name = "search"
plugin-path = ["PATH"]

[federation]
rounds = 1

[dataset]
plugin = "flab"
root = "configs/sample"

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"
"#;

/// Puts a copy of a built library into a folder of the bench, maybe under another name.
fn put(bench: &Bench, folder: &str, built: &str, name: &str) -> PathBuf {
    let path = bench.path(folder).join(library(name).file_name().unwrap());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(library(built), &path).unwrap();
    path
}

/// What `plugin list --format json` says of all components of this kind and name: the library's path, and the note.
fn listed(told: &Told, kind: &str, name: &str) -> Vec<(PathBuf, bool, String)> {
    assert_eq!(told.code, 0, "{}", told.stderr);
    let folders: Vec<Value> = serde_json::from_str(&told.stdout).unwrap();
    let mut found = Vec::new();
    for folder in &folders {
        for library in folder["libraries"].as_array().unwrap() {
            let path = Path::new(folder["folder"].as_str().unwrap()).join(library["file"].as_str().unwrap());
            for offer in library["components"].as_array().unwrap() {
                if offer["kind"] == kind && offer["name"] == name {
                    let note = offer["note"].as_str().unwrap().to_owned();
                    found.push((path.clone(), offer["used"].as_bool().unwrap(), note));
                }
            }
        }
    }
    found
}

#[test]
fn of_two_plugins_of_one_name_the_first_in_the_order_of_folders_is_used() {
    let bench = Bench::new();
    let [argument, file, variable] =
        ["argument", "file", "variable"].map(|folder| put(&bench, folder, "aggregator-fedavg", "aggregator-fedavg"));
    let with_path = bench.write("with.toml", &FILE.replace("PATH", bench.path("file").to_str().unwrap()));
    let without = bench.write("without.toml", &FILE.replace("\"PATH\"", ""));
    let folder = bench.path("argument").to_str().unwrap().to_owned();
    let beside = library("aggregator-fedavg");
    for (number, (experiment, arguments, variables, wanted)) in [
        (&with_path, &["--plugin-dir", &folder][..], true, &argument),
        (&with_path, &[], true, &file),
        (&without, &[], true, &variable),
        (&without, &[], false, &beside),
    ]
    .into_iter()
    .enumerate()
    {
        let does = |words: &[&str]| {
            let mut command = bench.command(&[words, &[experiment.to_str().unwrap()], arguments].concat());
            if variables {
                // An empty entry names no folder.
                let folders = ["".into(), bench.path("nowhere"), bench.path("variable")];
                command.env("FEDPLUG_PLUGIN_PATH", std::env::join_paths(folders).unwrap());
            }
            Told::new(&bench, command.output().unwrap())
        };
        let name = number.to_string();
        let told = does(&["run", "--quiet", "--name", &name]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        let manifest: Value = serde_json::from_str(&bench.text(&name, "manifest.json")).unwrap();
        let path = wanted.canonicalize().unwrap();
        assert!(manifest.to_string().contains(path.to_str().unwrap()), "{manifest}");
        // The list says the same, of each of the others by what it is shadowed, and in the same order.
        let found = listed(&does(&["plugin", "list", "--format", "json"]), "aggregator", "fedavg");
        let (first, others) = found.split_first().unwrap();
        assert_eq!(first, &(wanted.clone(), true, String::new()));
        assert!(others.iter().all(|(_, used, note)| !used && *note == format!("shadowed by {}", path.display())));
        assert_eq!(others.len(), 3 - number);
    }
}

#[test]
fn the_list_goes_on_past_libraries_that_cannot_be_loaded() {
    let bench = Bench::new();
    for fixture in ["model-foreign", "model-newer", "model-unstartable"] {
        put(&bench, "bad", fixture, fixture);
    }
    let junk = bench.write("bad/libaggregator_fedavg.so", "not an ELF file");
    bench.write("bad/libsomething.so", "not opened");
    bench.write("bad/notes.txt", "no library");
    let bad = bench.path("bad").to_str().unwrap().to_owned();
    let told = bench.fedplug(&["plugin", "list", "--plugin-dir", &bad, "--plugin-dir", &bad]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let (first, _) = told.stdout.split_once("\n3. ").unwrap();
    insta::assert_snapshot!("bad libraries", first.replace(&bad, "BENCH/bad"));
    // The first of a name is the one that counts, even if it is of no use.
    let told = bench.fedplug(&["plugin", "list", "--plugin-dir", &bad, "--format", "json"]);
    let note = format!("shadowed by {}, which does not offer it", junk.display());
    assert_eq!(listed(&told, "aggregator", "fedavg"), [(library("aggregator-fedavg"), false, note)]);
    let told = bench.fedplug(&["plugin", "list", "no-such-file.toml"]);
    assert_eq!(told.code, 2, "{}", told.stdout);
}

#[test]
#[cfg(target_os = "linux")]
fn a_library_that_was_cut_short_is_told_and_kills_nothing() {
    let bench = Bench::new();
    let cut = put(&bench, "cut", "aggregator-fedavg", "aggregator-fedavg");
    let folder = bench.path("cut").to_str().unwrap().to_owned();
    let whole = fs::metadata(&cut).unwrap().len();
    let file = bench.write("cut.toml", &FILE.replace("PATH", &folder));
    // At the start of the code, in the middle, and where only what a debugger reads is lost.
    for len in [100, 5000, whole / 2, whole - 1] {
        fs::File::options().write(true).open(&cut).unwrap().set_len(len).unwrap();
        let sentence = "the library is truncated";
        let told = bench.fedplug(&["plugin", "list", "--plugin-dir", &folder]);
        assert!(told.code == 0 && told.stdout.contains(sentence), "{len}: {told:?}");
        let path = cut.to_str().unwrap();
        for command in [["plugin", "inspect", path].as_slice(), &["check", file.to_str().unwrap()]] {
            let told = bench.fedplug(command);
            assert!(told.code == 2 && told.stderr.contains(sentence), "{len}: {told:?}");
            let cause = format!("caused by: the file has {len} bytes, but its headers refer to data up to byte ");
            assert!(told.stderr.contains(&cause), "{len}: {told:?}");
        }
        put(&bench, "cut", "aggregator-fedavg", "aggregator-fedavg");
    }
    assert_eq!(bench.fedplug(&["check", file.to_str().unwrap()]).code, 0);
}

#[test]
fn a_library_may_offer_several_components() {
    let bench = Bench::new();
    let inspect = |name: &str, more: &[&str]| {
        let told = bench.fedplug(&[&["plugin", "inspect", name, "--format", "json"], more].concat());
        let told =
            if told.code == 0 { Ok(serde_json::from_str::<Value>(&told.stdout).unwrap()) } else { Err(told.stderr) };
        told.map(|told| {
            (PathBuf::from(told["library"].as_str().unwrap()), told["components"].as_array().unwrap().len())
        })
    };
    let suite = library("filter-suite").canonicalize().unwrap();
    // By the name of the library: the filter, and the aggregator, of which no library is named so.
    assert_eq!(inspect("suite", &[]), Ok((suite.clone(), 3)));
    assert_eq!(inspect("suite", &["--kind", "filter"]), Ok((suite.clone(), 2)));
    assert_eq!(inspect("suite", &["--kind", "aggregator"]), Ok((suite.clone(), 1)));
    // By its path: the only aggregator, and neither of two filters.
    let path = suite.to_str().unwrap();
    assert_eq!(inspect(path, &["--kind", "aggregator"]), Ok((suite.clone(), 1)));
    insta::assert_snapshot!("two of a kind by their path", inspect(path, &["--kind", "filter"]).unwrap_err());
    // The other filter is found where its library has its name.
    assert!(inspect("spare", &[]).unwrap_err().contains("there is no plugin `spare`"));
    put(&bench, "linked", "filter-suite", "filter-spare");
    let linked = bench.path("linked");
    let (found, _) = inspect("spare", &["--kind", "filter", "--plugin-dir", linked.to_str().unwrap()]).unwrap();
    assert_eq!(found, linked.join(library("filter-spare").file_name().unwrap()).canonicalize().unwrap());
    let told = bench.fedplug(&["plugin", "list", "--format", "json"]);
    let spare = listed(&told, "filter", "spare");
    assert!(spare[0].2.contains("found by the library's path only"), "{spare:?}");
    // A namesake that offers no such component is passed over, in an earlier folder too.
    put(&bench, "namesake", "model-linear", "model-suite");
    let namesake = bench.path("namesake");
    let namesake = ["--kind", "aggregator", "--plugin-dir", namesake.to_str().unwrap()];
    assert_eq!(inspect("suite", &namesake), Ok((suite, 1)));
    // A name alone does not say which of two libraries is meant.
    let two = inspect("suite", &namesake[2..]).unwrap_err();
    assert!(two.contains("2 plugins are named `suite`") && two.contains("--kind"), "{two}");
}

#[test]
fn a_misspelt_name_is_recognised_in_a_library_of_another_kind() {
    let bench = Bench::new();
    let said = |name: &str| {
        let text =
            format!("{}\n[[filter]]\nplugin = \"{name}\"\nat = \"client-output\"\n", FILE.replace("\"PATH\"", ""));
        let told = bench.fedplug(&["check", bench.write("misspelt.toml", &text).to_str().unwrap()]);
        assert_eq!(told.code, 2, "{}", told.stderr);
        told.stderr
    };
    assert!(said("secur").contains("did you mean `secure`?"));
    // That of `fedavg` offers no filter.
    let told = said("fedavgg");
    assert!(!told.contains("did you mean") && told.contains("available: "), "{told}");
}

#[test]
fn a_filter_knows_its_side_and_its_faults_are_told_once() {
    let bench = Bench::new();
    let check = |table: &str| {
        let text = format!("{}\n[[filter]]\nplugin = \"suite\"\n{table}\n", FILE.replace("\"PATH\"", ""));
        bench.fedplug(&["check", bench.write("sides.toml", &text).to_str().unwrap()])
    };
    let client = check("at = [\"client-input\", \"client-output\"]\nside = \"client\"");
    assert_eq!(client.code, 0, "{}", client.stderr);
    let server = check("at = [\"server-input\", \"server-output\"]\nside = \"server\"");
    assert_eq!(server.code, 0, "{}", server.stderr);
    let once = |table: &str, what: &str| {
        let told = check(table);
        assert_eq!(told.code, 2);
        assert_eq!(
            (told.stderr.matches("error: ").count(), told.stderr.matches(what).count()),
            (1, 1),
            "{}",
            told.stderr
        );
    };
    once("at = [\"client-output\", \"client-input\"]\nside = \"server\"", "made for aggregation");
    once("at = [\"client-output\", \"server-input\"]\nside = \"client\"", "made for the server");
    once("at = [\"client-output\", \"server-input\"]\nside = \"client\"\nsied = 1", "unknown key `sied`");
}
