//! Secure aggregation through real libraries: one library with two components, queries to the clients, and clients that
//! drop out.

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
    let text = "round 1, aggregator `secure`: only 5 of the round's 6 clients sent an update, but 6 are needed";
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
    assert!(alone.contains("no filter answers the aggregator's queries"), "{alone}");
    // A namesake of another kind is opened, and says what it offers instead.
    let other = said(&with("plugin = \"secure\"\nat", "plugin = \"fedavg\"\nat"), "namesake");
    assert!(
        other.contains("contains no filter of this name") && other.contains("it contains: aggregator `fedavg`"),
        "{other}"
    );
}

/// The clients of the experiment, each with the two lines of PEM of a long-term key that protects nobody: its secret is
/// one byte 32 times over, from 1 on.
const KEYS: [(&str, &str, &str); 6] = [
    ("aggregation", "EBAQ", "MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="),
    ("binding", "ICAg", "MCowBQYDK2VwAyEAgTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q="),
    ("expression", "MDAw", "MCowBQYDK2VwAyEA7UkoxijRwsbq6QM4kFmVYSlZJzpcY/k2NsFGFKyHN9E="),
    ("immunogenicity", "QEBA", "MCowBQYDK2VwAyEAypOsFwUYcHHWe4PH/w7+gQjo7EUwV113JoeTM9vavnw="),
    ("polyreactivity", "UFBQ", "MCowBQYDK2VwAyEAbnoc3Smwt4/ROvTFWY/v9O8qlxZuPKby5Pv8zYBQW/E="),
    ("tm", "YGBg", "MCowBQYDK2VwAyEAiodf/x6zhFFXes1a/uQFRWVo3XyJ4JCGOgVXvHr0nxc="),
];

#[test]
fn signed_rounds_give_the_same_models_and_a_strange_key_is_refused() {
    let bench = Bench::new();
    for (name, period, _) in KEYS {
        // Of the 43 digits that follow the header the first is the header's.
        let digits = period.repeat(11);
        let line = format!("MC4CAQAwBQYDK2VwBCIEIA{}", &digits[..42]);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n");
        bench.write(&format!("{name}.pem"), &pem);
    }
    let identities: Vec<String> = KEYS.iter().map(|(name, _, public)| format!("{name} = \"{public}\"")).collect();
    let keys = bench.path("{client}.pem");
    let signed = format!("{FILE}key-file = '{}'\nidentities = {{ {} }}\n", keys.display(), identities.join(", "));
    bench.run(&[bench.write("plain.toml", FILE).to_str().unwrap(), "--name", "plain"]);
    bench.run(&[bench.write("signed.toml", &signed).to_str().unwrap(), "--name", "signed"]);
    assert!(bench.results("signed") == bench.results("plain"), "signatures change the result");
    let said = |run: &str| bench.summary(run)["notes"].to_string();
    assert!(said("plain").contains("keys are not signed"), "{}", said("plain"));
    assert!(said("signed").contains("keys and lists of arrived updates are signed"), "{}", said("signed"));
    for run in ["plain", "signed"] {
        assert!(said(run).contains("all other clients together learn the last one's update"), "{}", said(run));
        assert!(said(run).contains("in one process, whose owner can see everything"), "{}", said(run));
    }
    // The key of another client: told before anything is sent.
    std::fs::copy(bench.path("binding.pem"), bench.path("tm.pem")).unwrap();
    let told = bench.fedplug(&["check", bench.path("signed.toml").to_str().unwrap()]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    assert!(told.stderr.contains("is not that of `tm` here"), "{}", told.stderr);
}

#[test]
fn a_sum_over_one_client_that_trained_is_refused_before_the_run() {
    let bench = Bench::new();
    let mut rows = String::from("site,split,seq,y\n");
    for (k, site) in ["a", "b", "c"].iter().cycle().take(60).enumerate() {
        let split = if *site == "b" && k < 45 { "train" } else { "test" };
        let letter = ["A", "C", "D", "E"][k / 3 % 4];
        rows += &format!("{site},{split},{}{k},{}.5\n", letter.repeat(k / 12 + 1), k % 7);
    }
    let rows = bench.write("rows.csv", &rows);
    let file = format!(
        "name = \"floor\"\nseed = 1\n[federation]\nrounds = 1\n[dataset]\nplugin = \"csv\"\nfiles = '{}'\ninputs = [\"seq\"]\n\
         target = \"y\"\ntest-column = \"split\"\nclients = {{ column = \"site\" }}\n[model]\nplugin = \"linear\"\n[aggregator]\n\
         plugin = \"secure\"\n[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\n",
        rows.display()
    );
    let path = bench.write("floor.toml", &file);
    for command in ["check", "run"] {
        let told = bench.fedplug(&[command, path.to_str().unwrap()]);
        assert_ne!(told.code, 0);
        let text = "only 1 of the round's 3 clients trained and sent an update, but 3 are needed";
        assert!(told.stderr.contains(text), "{command}: {}", told.stderr);
    }
    assert!(!bench.path("runs/floor/global").exists());
}

#[test]
#[cfg(unix)]
fn noise_is_in_the_sum_and_its_account_goes_on_after_an_interruption() {
    let bench = Bench::new();
    let noise = "clip-norm = 2.0\nnoise-multiplier = 1.0\ndelta = 1e-5\ncolluding = 0";
    let file = with("clip = 2.0", noise).replace("rounds = 3", "rounds = 40");
    let file = file.replace("on-client-failure", "checkpoint-every = 2\non-client-failure");
    let path = bench.write("noise.toml", &format!("{file}reproducible = true\n"));
    let arguments = |name: &'static str| [path.to_str().unwrap(), "--name", name, "--threads", "2"];
    bench.run(&arguments("whole"));
    crate::resume::interrupt(&bench, &arguments("killed"), "killed", "-KILL");
    bench.run(&[&arguments("killed")[..], &["--resume"]].concat());
    assert!(
        bench.results_but_the_account("killed") == bench.results_but_the_account("whole"),
        "a resumed run draws other noise"
    );
    let notes = bench.summary("whole")["notes"].as_array().unwrap().clone();
    let accounts = notes.iter().filter(|note| note["key"] == "privacy").map(|note| note["text"].as_str().unwrap());
    let accounts: Vec<&str> = accounts.collect();
    // That of a Gaussian mechanism of multiplier 1 / √40, and a little for the rounding.
    let wanted = "no protection, since the noise is reproducible; else epsilon 46.2";
    assert_eq!(accounts.len(), 6);
    for account in accounts {
        assert!(
            account.starts_with(wanted) && account.contains("at delta 1e-5 for the sums of 40 rounds"),
            "{account}"
        );
    }
    // Noise of 2 / 6 on every value of the mean in each round: the model is mostly that.
    let model = bench.bytes("whole", "global/model.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&model).unwrap();
    let floats =
        |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let values: Vec<f32> = tensors.tensors().iter().flat_map(|(_, tensor)| floats(tensor.data())).collect();
    let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(norm > 1.0, "{norm} of {} values", values.len());
    let system = bench.write("system.toml", &file.replace("rounds = 40", "rounds = 2"));
    for name in ["one", "other"] {
        bench.run(&[system.to_str().unwrap(), "--name", name]);
    }
    assert!(bench.results("one") != bench.results("other"), "the noise comes again");
    assert!(!bench.summary("one")["notes"].to_string().contains("no protection"));
}
