//! Secure aggregation through real libraries: one library with two components, questions to the clients, and clients
//! that are lost on the way.

use crate::support::Bench;

const FILE: &str = r#"name = "secure"
seed = 42

[federation]
rounds = 3
on-client-failure = "leave-out"

[dataset]
plugin = "flab"
root = "configs/sample"

[model]
plugin = "linear"

[aggregator]
plugin = "secure"
threshold = 4
clip = 2.0

[[filter]]
plugin = "exclude-params"
at = "client-output"
containing = "regressor"

[[filter]]
plugin = "secure"
at = "client-output"
"#;

/// The experiment with one text in the place of another.
fn with(from: &str, to: &str) -> String {
    assert!(FILE.contains(from), "{from} is not in the experiment");
    FILE.replace(from, to)
}

#[test]
fn masks_change_nothing_of_a_run() {
    let bench = Bench::new();
    let masked = bench.write("masked.toml", FILE);
    let seeded = bench.write("seeded.toml", &format!("{FILE}reproducible = true\n"));
    let clear = FILE.split("\n[[filter]]\nplugin = \"secure\"").next().unwrap();
    let clear = clear.replace("\"secure\"\nthreshold = 4\nclip = 2.0", "\"fedavg\"\nweight-by = \"uniform\"");
    let clear = bench.write("clear.toml", &clear);
    for (file, name, threads) in
        [(&masked, "one", "1"), (&masked, "many", "6"), (&seeded, "seeded", "2"), (&clear, "clear", "1")]
    {
        bench.run(&[file.to_str().unwrap(), "--name", name, "--threads", threads]);
    }
    let wanted = bench.results("one");
    for name in ["many", "seeded"] {
        assert!(bench.results(name) == wanted, "{name} differs");
    }
    let score = |run: &str| bench.summary(run)["last"]["score"].as_f64().unwrap();
    // Steps of 2.4e-7 in each of three rounds.
    assert!((score("one") - score("clear")).abs() < 1e-5, "{} {}", score("one"), score("clear"));
    let said = |run: &str| bench.summary(run)["notes"].to_string();
    assert!(said("one").contains("at least 4 of a round's 6 clients") && !said("one").contains("no protection"));
    assert!(said("seeded").contains("no protection"));
}

#[test]
fn lost_clients_are_not_in_the_sum_until_too_many_are_lost() {
    let bench = Bench::new();
    let model = |client: &str| format!("plugin = \"misbehaving\"\nhow = \"fail-in-train\"\n{client}");
    let private = "[[filter]]\nplugin = \"exclude-params\"\nat = \"client-output\"\ncontaining = \"regressor\"\n";
    let file = with("plugin = \"linear\"", &model("client = \"tm\"")).replace(private, "");
    let told = bench.run(&[bench.write("one.toml", &file).to_str().unwrap()]);
    assert!(told.stderr.contains("left out: round 1, client `tm`"), "{}", told.stderr);
    let model_after = safetensors::SafeTensors::deserialize(&bench.bytes("secure", "global/model.safetensors"))
        .map(|tensors| tensors.tensor("weight").unwrap().data().to_vec());
    // Each client adds 1 in each of three rounds.
    assert_eq!(model_after.unwrap(), 4.0_f32.to_le_bytes());

    let file = file.replace("threshold = 4", "threshold = 6");
    let told = bench.fedplug(&["run", bench.write("all.toml", &file).to_str().unwrap(), "--name", "all", "--quiet"]);
    assert_eq!(told.code, 1, "{}", told.stderr);
    let text = "round 1, aggregator `secure`: only 5 of the round's 6 clients sent an update, and it takes 6";
    assert!(told.stderr.contains(text), "{}", told.stderr);
}

#[test]
fn each_half_says_what_it_is_without_the_other() {
    let bench = Bench::new();
    let said = |file: &str, name: &str| {
        let path = bench.write(&format!("{name}.toml"), file);
        let told = bench.fedplug(&["run", path.to_str().unwrap(), "--name", name, "--quiet", "--threads", "1"]);
        assert_ne!(told.code, 0);
        told.stderr
    };
    let alone = said(&with("\"secure\"\nthreshold = 4\nclip = 2.0", "\"fedavg\""), "filter");
    assert!(alone.contains("nobody asked this client to agree on masks"), "{alone}");
    let alone = said(FILE.split("\n[[filter]]\nplugin = \"secure\"").next().unwrap(), "aggregator");
    assert!(alone.contains("no filter answers what the aggregator asks"), "{alone}");
    // A namesake of another kind is opened, and says what it offers instead.
    let other = said(&with("plugin = \"secure\"\nat", "plugin = \"fedavg\"\nat"), "namesake");
    assert!(
        other.contains("offers no filter of this name") && other.contains("it offers: aggregator `fedavg`"),
        "{other}"
    );
}
