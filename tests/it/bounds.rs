//! The bounds in a plugin's schema are enforced, whatever the plugin does, and `--set` errors say what to write.

use std::fmt::Write as _;

use crate::support::{Bench, Told, library};

/// An experiment with a filter whose struct and constructor check no bound of its schema.
const GOOD: &str = r#"name = "good"

[federation]
rounds = 2

[dataset]
plugin = "flab"
root = "configs/sample"

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"

[[filter]]
plugin = "bounded"
at = "server-output"
share = 0.5
"#;

fn check(text: &str, arguments: &[&str]) -> Told {
    let bench = Bench::new();
    let path = bench.write("bounds.toml", text);
    bench.fedplug(&[&["check", path.to_str().unwrap()], arguments].concat())
}

fn refused(text: &str, arguments: &[&str]) -> String {
    let told = check(text, arguments);
    assert_eq!(told.code, 2, "{}", told.stderr);
    told.stderr
}

#[test]
fn a_plugins_schema_is_kept_by_the_host() {
    let told = check(GOOD, &[]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let keys = r#"share = 1.0
copies = 300
narrow = 1e300
mode = "sideways"
names = ["a", "b", "", 7]
word = "Two words"
layers = [{ width = 12 }, { width = 0 }, { widht = 8 }]
limits = { low = -1.0 }
colour = "red"
"#;
    insta::assert_snapshot!("a plugin's bounds", refused(&GOOD.replace("share = 0.5\n", keys), &[]));
    insta::assert_snapshot!(
        "types of TOML",
        refused(&GOOD.replace("share = 0.5\n", "share = \"half\"\nnames = \"a\"\nlayers = { width = 8 }\ncopies = 1.5\nlimits = []\nmode = 3\nloud = 1\n"), &[])
    );
    // A dataset's bound, which once held by the dataset's doing alone.
    insta::assert_snapshot!("a dataset's bound", refused(GOOD, &["--set", "dataset.test-fraction=7"]));
}

#[test]
fn the_hosts_own_bounds_stand_in_its_schema() {
    let keys = "rounds = 0\nlocal-epochs = -1\nthreads-per-client = 100_000\nfraction = 0\ndevices = []\nmin-clients = 1.5\n\
                early-stopping = { patience = 0, min-delta = -1 }\non-client-failure = \"ignore\"\nidle-memory = 8";
    insta::assert_snapshot!("the host's bounds", refused(&GOOD.replace("rounds = 2", keys), &[]));
    let told = refused(&GOOD.replace("rounds = 2", "rounds = \"two\"").replace("\"server-output\"", "3"), &[]);
    assert!(told.contains("must be a whole number, not the text `two`"), "{told}");
    assert!(told.contains("`at` must be a position"), "{told}");
}

/// What no machine has is refused before memory is taken for it.
#[test]
fn absurd_sizes_are_refused_at_once() {
    let bench = Bench::new();
    let begun = std::time::Instant::now();
    for (set, told) in [
        ("dataset.clients={ count = 2147483648, alpha = 1.0 }", "must be at least 1 and at most 1000000"),
        ("model.hidden-size=2147483648", "must be at least 1 and at most 65536"),
        ("model={ plugin = \"linear\", hidden-size = 65536, kmer = 4 }", "weights; at most 268435456"),
        ("federation.threads-per-client=10000", "must be at least 1 and at most 4096"),
    ] {
        let found = bench.fedplug(&["check", "configs/linear.toml", "--set", set]);
        assert_eq!(found.code, 2, "{set}: {}", found.stderr);
        assert!(found.stderr.contains(told), "{set}: {}", found.stderr);
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn set_says_what_to_write() {
    let told = |argument: &str| refused(GOOD, &["--set", argument]);
    insta::assert_snapshot!("set a filter that is not there", told("filter.1.share=0.1"));
    insta::assert_snapshot!("set an item of no list", told("model.layers.0=8"));
    insta::assert_snapshot!("set through a value", told("federation.rounds.more=8"));
    let deep = format!("{}b=1", "a.".repeat(30_000));
    insta::assert_snapshot!("set thirty thousand tables deep", told(&deep));
    // What the file lacks is not the argument's fault.
    let lacking = GOOD.replace("[federation]\nrounds = 2\n", "");
    insta::assert_snapshot!(
        "set a key of a table that is not there",
        refused(&lacking, &["--set", "federation.threads=1"])
    );
    let told = refused(GOOD, &["--set", "filter.0.share=2"]);
    assert!(told.starts_with("error: --set filter.0.share=2: must be more than 0 and less than 1, not 2"), "{told}");
}

#[test]
fn thousands_of_unknown_keys_end_in_a_page() {
    let mut text = GOOD.to_owned();
    for key in 0..20_000 {
        let _ = writeln!(text, "key-{key} = 1");
    }
    let begun = std::time::Instant::now();
    let told = refused(&text, &[]);
    // It took minutes when each was found by a reading of its own.
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(
        told.contains("unknown key `key-0`") && told.ends_with("error: 19900 more errors are not shown\n"),
        "{}",
        &told[told.len() - 200..]
    );
    // A file whose tables lie deeper than anybody's ends in a sentence too.
    let told = refused(&format!("{}b = 1\n", "a.".repeat(30_000)), &[]);
    assert!(told.starts_with("error: BENCH/bounds.toml"), "{}", &told[..200]);
}

/// The filter `spare` is of a library of another name, so a link leads to it.
#[cfg(unix)]
#[test]
fn a_key_decides_what_other_keys_there_are() {
    let bench = Bench::new();
    let link = bench.path("plugins").join(library("filter-spare").file_name().unwrap());
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(library("filter-suite"), &link).unwrap();
    let check = |keys: &str| {
        let filter = format!("plugin = \"spare\"\nat = \"server-output\"\n{keys}\n");
        let text = GOOD.split("plugin = \"bounded\"").next().unwrap().to_owned() + &filter;
        let path = bench.write("hosted.toml", &text);
        bench.fedplug(&["check", path.to_str().unwrap(), "--plugin-dir", link.parent().unwrap().to_str().unwrap()])
    };
    let told = check("hosted = \"clamp\"\nmost = 0.5");
    assert_eq!(told.code, 0, "{}", told.stderr);
    for (keys, sentences) in [
        ("hosted = \"clamp\"", vec!["`most` is missing"]),
        ("hosted = \"clamp\"\nmost = -1.0\nleast = 0", vec!["unknown key `least`", "most = -1.0"]),
        ("hosted = \"other\"\nmost = 0.5", vec!["nothing of this name is hosted", "there is `clamp`", "hosted.toml:"]),
        ("most = 0.5", vec!["`hosted` is missing"]),
    ] {
        let told = check(keys);
        assert_eq!(told.code, 2, "{keys}");
        assert!(sentences.iter().all(|sentence| told.stderr.contains(sentence)), "{keys}: {}", told.stderr);
    }
}
