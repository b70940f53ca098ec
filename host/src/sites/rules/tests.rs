use std::path::Path;

use super::*;
use crate::experiment::config::FilterPosition;

const SITE: &str =
    "name = \"clinic-a\"\ndevice = \"cpu\"\nthreads = 2\nplugin-path = [\"own\"]\n[data]\nfolder = \"/data\"\n";

const OFFER: &str = r#"name = "trial"
seed = 7
folder = "/tmp/evil"
plugin-path = ["/tmp/evil"]

[federation]
rounds = 1000
local-epochs = 3
devices = ["cuda:3"]
threads = 64
threads-per-client = 32
min-clients = 3

[federation.sites]
clinic-a = "sha256:00"

[dataset]
plugin = "flab"
root = "antibodies"
files = ["*.csv"]

[model]
plugin = "amplify"
pretrained = "chandar-lab/AMPLIFY_120M"

[aggregator]
plugin = "fedavg"
key-file = "/etc/server.pem"
"#;

fn site(more: &str) -> SiteFile {
    SiteFile::parse("/secret/clinic-a.toml", &format!("{SITE}{more}"), Path::new("/etc/fedplug")).unwrap()
}

fn experiment(site: &SiteFile, offered: &str) -> Experiment {
    localise(site, offered).unwrap_or_else(|refusal| panic!("{refusal}")).whole().unwrap()
}

/// The lines of a refusal.
fn refusal(site: &SiteFile, offered: &str) -> Vec<String> {
    let refusal = localise(site, offered).map(drop).unwrap_err().to_string();
    assert!(!refusal.contains("/secret") && !refusal.contains("/data"), "{refusal}");
    refusal.lines().map(str::to_owned).collect()
}

#[test]
fn the_site_decides_where_it_computes_and_the_server_where_it_agrees() {
    let own = experiment(&site(""), OFFER);
    let federation = &own.federation;
    assert_eq!((federation.rounds, federation.local_epochs, own.seed), (1000, 3, 7));
    assert_eq!(
        (&federation.devices[..], federation.threads, federation.threads_per_client),
        (&["cpu".to_owned()][..], 1, 2)
    );
    assert_eq!((federation.min_clients, &own.plugin_path[..]), (1, &[Path::new("/etc/fedplug/own").to_owned()][..]));
    assert_eq!(own.dataset.config["root"], "antibodies");
    let resolved = own.resolved();
    assert!(!resolved.contains("evil") && !resolved.contains("sha256"), "{resolved}");
}

#[test]
fn limits_are_named_with_both_numbers_and_all_together() {
    let site = site("[allow]\nrounds = 600\nlocal-epochs = 2\nmetrics = false\nplugins = [\"amplify\"]\n");
    let wanted = [
        "clinic-a: rule `allow.plugins`: the dataset `flab` may not run",
        "clinic-a: rule `allow.rounds`: 1000 rounds, and at most 600 are allowed",
        "clinic-a: rule `allow.local-epochs`: 3 epochs in a round, and at most 2 are allowed",
        "clinic-a: rule `allow.metrics`: metrics may not leave the site, and the experiment collects them: \
         `federation.report` must be `none`",
    ];
    assert_eq!(refusal(&site, OFFER), wanted);
    let within = OFFER.replace("1000", "600").replace("local-epochs = 3", "local-epochs = 2\nreport = \"none\"");
    let within = within.replace("\"flab\"", "\"amplify\"");
    experiment(&site, &within);
}

#[test]
fn paths_are_refused_wherever_they_stand_unless_they_are_the_sites_own() {
    let plain = site("");
    for (from, to) in [
        ("\"antibodies\"", "\"/etc\""),
        ("[\"*.csv\"]", "[\"a.csv\", \"../b.csv\"]"),
        ("[\"*.csv\"]", "{ deep = [{ at = \"~/x\" }] }"),
        ("chandar-lab/AMPLIFY_120M", "/models/x"),
        ("[aggregator]", "[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\nkey-file = \"/k\"\n[aggregator]"),
    ] {
        let found = refusal(&plain, &OFFER.replace(from, to));
        assert!(found.len() == 1 && found[0].starts_with("clinic-a: rule `data.folder`: "), "{found:?}");
    }
    let found = refusal(&plain, &OFFER.replace("\"antibodies\"", "\"/etc\""));
    let wanted = "clinic-a: rule `data.folder`: `dataset.root`: `/etc` could be a path outside the site's data folder; a site \
                  sets such a key itself, in `[replace.dataset]`";
    assert_eq!(found, [wanted]);
    // What the site replaces may be any path, and what was there does not matter.
    let own = site(
        "[replace.dataset]\nroot = \"/data/own\"\nchains = \"heavy\"\n[replace.model]\npretrained = \"/models/y\"\n[replace.filter.secure]\nkey-file \
         = \"/own.pem\"\n",
    );
    let offer = OFFER.replace("\"antibodies\"", "\"/etc\"").replace("chandar-lab/AMPLIFY_120M", "/models/x");
    let offer = offer.replace(
        "[aggregator]",
        "[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\nkey-file = \"/k\"\n[aggregator]",
    );
    let own = experiment(&own, &offer);
    assert_eq!((&own.dataset.config["root"], &own.dataset.config["chains"]), (&"/data/own".into(), &"heavy".into()));
    assert_eq!(own.model.config["pretrained"], "/models/y");
    assert_eq!(own.filters[0].plugin.config["key-file"], "/own.pem");
    let blamed = own.document.report(&["dataset", "root"].map(str::to_owned), "is bad");
    assert_eq!(blamed.message(), "the site's file: `replace.dataset.root`: is bad");
}

#[test]
fn libraries_are_never_named_by_path() {
    for (from, to) in [
        ("\"flab\"", "\"./libdataset_evil.so\""),
        ("\"amplify\"", "\"libmodel_evil.so\""),
        ("\"amplify\"", "\"..\\\\evil\""),
        ("\"fedavg\"", "\"/tmp/libaggregator_evil.so\""),
        ("[aggregator]", "[[filter]]\nplugin = \"/x.so\"\nat = \"client-input\"\n[aggregator]"),
        ("[aggregator]", "[[filter]]\nplugin = \"/x.so\"\nat = \"server-input\"\n[aggregator]"),
    ] {
        let found = refusal(&site(""), &OFFER.replace(from, to));
        assert!(found.len() == 1 && found[0].contains("is the path of a library"), "{found:?}");
    }
}

/// The names of the filters where messages leave, in order.
fn output(experiment: &Experiment) -> Vec<&str> {
    let leaves = experiment.filters.iter().filter(|filter| filter.position == FilterPosition::ClientOutput);
    leaves.map(|filter| filter.plugin.plugin.as_str()).collect()
}

const FILTERS: &str = r#"
[[filter]]
plugin = "privacy"
at = "server-output"
[[filter]]
plugin = "compress"
at = ["client-output", "server-input"]
[[filter]]
plugin = "secure"
at = "client-output"
[[filter]]
plugin = "compress"
at = ["server-output", "client-input"]
"#;

#[test]
fn the_sites_own_filters_have_the_last_word() {
    let offer = format!("{OFFER}{FILTERS}");
    let own =
        "[[filter]]\nplugin = \"exclude-params\"\ncontaining = \"head\"\n[[filter]]\nplugin = \"privacy\"\nclip = 1\n";
    let last = experiment(&site(own), &offer);
    assert_eq!(output(&last), ["compress", "secure", "exclude-params", "privacy"]);
    let positions: Vec<_> = last.filters.iter().map(|filter| filter.position).collect();
    assert!(!positions.contains(&FilterPosition::ServerInput) && !positions.contains(&FilterPosition::ServerOutput));
    assert_eq!(positions.iter().filter(|position| **position == FilterPosition::ClientInput).count(), 1);
    // Each is blamed where it stands.
    let message = |filter: &crate::experiment::config::FilterRef, key: &str| {
        let path = [&filter.plugin.table[..], &[key.to_owned()]].concat();
        last.document.report(&path, "is bad").message().to_owned()
    };
    let of = |name: &str| last.filters.iter().find(|filter| filter.plugin.plugin == name).unwrap();
    assert_eq!(message(of("privacy"), "clip"), "the site's file: `filter.1.clip`: is bad");
    let line = offer.lines().position(|line| line == "plugin = \"secure\"").unwrap() + 1;
    assert_eq!(
        message(of("secure"), "plugin"),
        format!("experiment:{line}: `{}.plugin`: is bad", of("secure").plugin.table.join("."))
    );
    // What masks may come after, if it does come last and the site allows it.
    let masked = experiment(&site(&format!("[allow]\nlast-filters = [\"secure\"]\n{own}")), &offer);
    assert_eq!(output(&masked), ["compress", "exclude-params", "privacy", "secure"]);
    let swapped =
        offer.replace("\"secure\"", "\"x\"").replacen("\"compress\"", "\"secure\"", 1).replace("\"x\"", "\"compress\"");
    let not_last = experiment(&site(&format!("[allow]\nlast-filters = [\"secure\"]\n{own}")), &swapped);
    assert_eq!(output(&not_last), ["secure", "compress", "exclude-params", "privacy"]);
    // Without filters of the experiment, and with a list of allowed plugins that lacks the site's own.
    let alone = experiment(&site(&format!("[allow]\nplugins = [\"flab\", \"amplify\"]\n{own}")), OFFER);
    assert_eq!(output(&alone), ["exclude-params", "privacy"]);
    let found = refusal(&site("[allow]\nplugins = [\"flab\", \"amplify\", \"compress\"]\n"), &offer);
    assert_eq!(found, ["clinic-a: rule `allow.plugins`: the filter `secure` may not run"]);
}

#[test]
fn what_is_no_experiment_is_refused_without_a_panic() {
    let nested = |open: &str, close: &str, count: usize| format!("a = {}{}", open.repeat(count), close.repeat(count));
    let dotted = (0..79).map(|_| "a").collect::<Vec<_>>().join(".");
    let bomb = format!("long{} = [{}]", "g".repeat(60_000), "1,".repeat(90_000));
    for text in [
        String::new(),
        "\0".to_owned(),
        OFFER.replace("seed = 7", "seed = 7 # \u{202E}7 = dees"),
        OFFER.replace("seed = 7", "seed = 7 # \u{1b}[2J"),
        "=\n".repeat(100_000),
        "x".repeat(MOST_BYTES + 1),
        nested("[", "]", 60),
        nested("[", "]", 100_000),
        nested("{a=", "1}", 30_000),
        format!("{dotted} = 1"),
        format!("{} = 1", "a.".repeat(100_000)),
        (0..78).fold("1".to_owned(), |inner, _| format!("{{ {dotted} = {inner} }}")).replacen('{', "a = {", 1),
        bomb,
        "name = 1\nfederation = 2\ndataset = 3\nmodel = []\nfilter = \"x\"\naggregator = 1.5\nplugin-path = {}\n"
            .to_owned(),
        OFFER.replace("rounds = 1000", "rounds = 99999999999999999999999"),
        OFFER.replace("\"trial\"", "\"../trial\""),
        format!("{OFFER}[[filter]]\nplugin = 1\nat = [1, {{}}]\n[[filter]]\nat = []\n"),
        format!("filter = [1, 2]\n{OFFER}"),
    ] {
        let found = refusal(&site("[[filter]]\nplugin = \"privacy\"\n"), &text);
        assert!(found.iter().all(|line| line.starts_with("clinic-a: rule `")), "{found:?}");
        assert!(found.join("\n").len() < 30_000, "{}", found.join("\n").len());
    }
}

#[test]
fn libraries_with_another_digest_are_found_before_they_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        folder.path().join(format!("{}dataset_flab{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    std::fs::write(&path, "no library").unwrap();
    let finder = Finder::new(&[folder.path().to_owned()], &[]);
    let digest = crate::artefacts::checkpoint::sha256(&path).unwrap();
    let check = |plugins: &str| {
        let site = site(&format!("[allow]\nplugins = [\"amplify\", {plugins}]\n"));
        check_libraries(&site, &experiment(&site, OFFER), &finder)
    };
    let (zeros, upper) = ("0".repeat(64), digest.to_uppercase());
    check("\"flab\"").unwrap();
    check(&format!("{{ name = \"flab\", sha256 = \"{upper}\" }}")).unwrap();
    check(&format!("{{ name = \"flab\", sha256 = \"{zeros}\" }}, {{ name = \"flab\", sha256 = \"{digest}\" }}"))
        .unwrap();
    let refusal = check(&format!("{{ name = \"flab\", sha256 = \"{zeros}\" }}")).unwrap_err();
    let wanted =
        format!("clinic-a: rule `allow.plugins`: the library of the dataset `flab` has another SHA-256: {digest}");
    assert_eq!(refusal.to_string(), wanted);
}

#[test]
fn versions_are_compared_as_cargo_does() {
    let entry = |version: &str| AllowedPlugin {
        version: Some(version.parse().unwrap()),
        ..AllowedPlugin::from("x".to_owned())
    };
    assert!(is_version(&entry(">=0.1, <0.3"), "0.2.9") && !is_version(&entry(">=0.1, <0.3"), "0.3.0"));
    assert!(!is_version(&entry("0.1"), "no version") && is_version(&AllowedPlugin::from("x".to_owned()), "no version"));
}
