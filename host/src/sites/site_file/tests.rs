use plugin_api::Kind;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<SiteFile, CliError> {
    SiteFile::parse("clinic-a.toml", text, Path::new("/etc/fedplug"))
}

const LEAST: &str = "name = \"clinic-a\"\n[data]\nfolder = \"/data\"\n";

const WHOLE: &str = r#"
name = "clinic-a"
key = "keys/a.pem"
state = "/var/lib/fedplug/a"
plugin-path = ["plugins", "/opt/plugins"]
device = "cuda:0"
threads = 2

[superlink]
url = "https://fl.example.org"
ca = "ca.pem"

[data]
folder = "../data"

[replace.dataset]
files = "/data/assay-2024.csv"
[replace.model]
pretrained = "/models/AMPLIFY_120M"
[replace.filter.secure]
key-file = "/etc/fedplug/secure.pem"

[allow]
plugins = ["flab", { name = "amplify", kind = "model", version = ">=0.1, <0.3" }, { name = "csv", sha256 = "ABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCD" }]
rounds = 600
local-epochs = 5
hours = 48
confirm = false
last-filters = ["secure"]

[[filter]]
plugin = "exclude-params"
containing = "head"

[[filter]]
plugin = "privacy"
mechanism = "gaussian"
clip = 1.0
noise-multiplier = 1.0
delta = 1e-6

[privacy]
epsilon = 8
delta = 1e-5
"#;

#[test]
fn a_name_and_a_folder_are_enough() {
    let site = parse(LEAST).unwrap();
    assert_eq!(site.key, Path::new("/etc/fedplug/clinic-a.pem"));
    assert_eq!(site.state, Path::new("/etc/fedplug/clinic-a"));
    assert_eq!((site.device.as_str(), site.threads, site.superlink), ("auto", 1, None));
    assert_eq!((site.allow.confirm(), site.allow.metrics(), site.filters.len()), (true, true, 0));
    assert_eq!(site.allow.entries(Kind::Model, "any"), Some(Vec::new()));
}

#[test]
fn every_key_is_read_and_paths_are_relative_to_the_file() {
    let site = parse(WHOLE).unwrap();
    assert_eq!(site.key, Path::new("/etc/fedplug/keys/a.pem"));
    assert_eq!(site.state, Path::new("/var/lib/fedplug/a"));
    assert_eq!(site.plugin_path, [Path::new("/etc/fedplug/plugins"), Path::new("/opt/plugins")]);
    assert_eq!(site.data.folder, Path::new("/etc/fedplug/../data"));
    let link = site.superlink.unwrap();
    assert_eq!(link.ca.unwrap(), Path::new("/etc/fedplug/ca.pem"));
    assert_eq!(site.replace.filter["secure"], json!({ "key-file": "/etc/fedplug/secure.pem" }));
    let entries = |kind, name| site.allow.entries(kind, name).map(|found| found.len());
    assert_eq!((entries(Kind::Filter, "flab"), entries(Kind::Model, "amplify")), (Some(1), Some(1)));
    assert_eq!((entries(Kind::Filter, "amplify"), entries(Kind::Model, "linear")), (None, None));
    assert!(site.allow.plugins.as_ref().unwrap()[2].sha256.as_ref().unwrap().starts_with("abcdef"));
    // With a budget, the filter that counts gets it, and metrics stay at home unless the file says otherwise.
    let ledger = "/var/lib/fedplug/a/privacy.json";
    assert_eq!(site.filters[1]["budget"], json!({ "epsilon": 8.0, "delta": 1e-5, "ledger": ledger }));
    assert!(!site.filters[0].contains_key("budget") && !site.allow.metrics());
    let open = WHOLE.replace("hours = 48", "hours = 48\nmetrics = true");
    assert!(parse(&open).unwrap().allow.metrics());
}

/// The first lines of all errors.
fn errors(text: &str) -> Vec<String> {
    let failure = parse(text).unwrap_err();
    failure.reports().iter().map(|report| report.message().to_owned()).collect()
}

#[test]
fn what_is_wrong_is_reported_together_with_lines() {
    let text = "name = \"a/b\"\nthreads = 0\nrounds = 3\n[data]\n[allow]\nrounds = 0\nplugins = [\"a\", { name = \"b\", \
                version = \"new\" }, { name = \"../c\", kind = \"aggregator\", sha256 = \"12\" }]\n";
    let found = errors(text).join("\n");
    for part in [
        "clinic-a.toml:1: `name`: ",
        "clinic-a.toml:2: `threads`: must be at least 1",
        "clinic-a.toml:3: unknown key `rounds`",
        "clinic-a.toml:4: `data`: `folder` is missing",
        "clinic-a.toml:6: `allow.rounds`: must be at least 1, not 0",
        "`new` is no requirement of versions such as `>=0.1`",
        "clinic-a.toml:7: `allow.plugins.2.kind`",
        "clinic-a.toml:7: `allow.plugins.2.sha256`",
    ] {
        assert!(found.contains(part), "no `{part}` in\n{found}");
    }
    let path = LEAST.to_owned() + "[allow]\nplugins = [\"../x\"]\n";
    assert_eq!(errors(&path).len(), 1);
    assert!(errors(&path)[0].contains("`../x` is no plugin's name"), "{:?}", errors(&path));
}

#[test]
fn clear_text_needs_consent_unless_it_stays_on_the_machine() {
    let with = |url: &str, more: &str| parse(&format!("{LEAST}[superlink]\nurl = \"{url}\"\n{more}"));
    for url in ["http://127.0.0.1:8000", "http://localhost:8000/", "http://[::1]:8000", "https://fl.example.org"] {
        assert!(with(url, "").is_ok(), "{url}");
    }
    for url in [
        "http://fl.example.org",
        "http://10.0.0.1:8000",
        "http://localhost.example.org",
        "http://localhost@x",
        "http://127.0.0.1:1@x",
    ] {
        let failure = with(url, "").unwrap_err().to_string();
        assert!(failure.contains("`superlink.url`: would cross the network in the clear"), "{failure}");
        assert!(with(url, "insecure = true\n").is_ok(), "{url}");
    }
    assert!(with("ftp://localhost", "").is_err());
}

#[test]
fn a_budget_needs_exactly_one_filter_that_counts() {
    let budget = "[privacy]\nepsilon = 1\ndelta = 1e-5\n";
    let filter = |mechanism: &str| format!("[[filter]]\nplugin = \"privacy\"\nmechanism = \"{mechanism}\"\n");
    for filters in [String::new(), filter("percentile"), filter("sparse-vector")] {
        let found = errors(&format!("{LEAST}{budget}{filters}"));
        assert!(found.len() == 1 && found[0].contains("clinic-a.toml:4: `privacy`: has no effect"), "{found:?}");
    }
    let found = errors(&format!("{LEAST}{budget}{}", filter("gaussian").repeat(2)));
    assert!(found[0].contains("and there are several"), "{found:?}");
    let found = errors(&format!("{LEAST}{budget}{}budget = {{ epsilon = 1 }}\n", filter("gaussian")));
    assert!(found[0].contains("`filter.0.budget`: is set by the table `[privacy]`"), "{found:?}");
    assert!(parse(&format!("{LEAST}{budget}{}", filter("gaussian"))).is_ok());
}

#[test]
fn own_filters_have_one_place_and_replaced_keys_leave_the_choice_of_plugins() {
    let found = errors(&format!(
        "{LEAST}[replace.dataset]\nplugin = \"x\"\n[replace.filter]\nsecure = 1\n[replace.filter.privacy]\nat = \"x\"\n[[filter]]\n\
         plugin = \"p\"\nat = \"client-output\"\n[[filter]]\nclip = 1\n"
    ));
    let found = found.join("\n");
    for part in [
        "`replace.dataset.plugin`: is the experiment's choice",
        "`replace.filter.secure`: must be a table",
        "`replace.filter.privacy.at`: is the experiment's choice",
        "`at` is always `client-output`",
        "`plugin` is missing: the name of a filter",
    ] {
        assert!(found.contains(part), "no `{part}` in\n{found}");
    }
}

#[test]
fn every_key_has_a_description_in_the_schema() {
    fn described(name: &str, schema: &Value) {
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}.{key}");
        }
    }
    let schema = schemars::schema_for!(Raw).to_value();
    described("", &schema);
    for (name, schema) in
        schema["$defs"].as_object().unwrap().iter().filter(|(_, schema)| schema.get("properties").is_some())
    {
        described(name, schema);
    }
}
