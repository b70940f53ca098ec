//! Flower's own apps at the other end: clients in a run of fedplug, and a server of fedplug's sites.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use test_support::superlink::{Program, SuperLink, free_port, wait_for};

use super::{LONG, terminate};
use crate::support::{Bench, root};

mod orders;

/// Clients of the experiment.
const HOSPITALS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Everything of a test in one folder.
struct Setting {
    bench: Bench,
    link: SuperLink,
}

impl Setting {
    /// With the data of `a` and some more hospitals.
    fn new(link: Option<SuperLink>, hospitals: usize) -> Option<Self> {
        let setting = Self { bench: Bench::new(), link: link? };
        setting.python(&["initial"], &[&setting.bench.path("initial.safetensors")]);
        let mut rows = "hospital,heavy,fitness\n".to_owned();
        for row in 0..80usize {
            // All sequences differ, so a quarter of each hospital's rows is for testing.
            let letter = |place: usize| char::from(b"ACDEFGHIKLMNPQRSTVWY"[(row + 1) * (row + 3 * place) % 83 % 20]);
            let (text, hospital): (String, _) = ((0..12).map(letter).collect(), HOSPITALS[row % hospitals]);
            let _ = writeln!(rows, "{hospital},{text},{}", (row % 11) as f64 / 4.0);
        }
        setting.bench.write("data.csv", &rows);
        Some(setting)
    }

    /// Runs `flower.py`.
    fn python(&self, words: &[&str], paths: &[&Path]) {
        let output = self.python_command().args(words).args(paths).output().unwrap();
        assert!(output.status.success(), "{words:?}\n{}\n{}", String::from_utf8_lossy(&output.stderr), self.logs());
    }

    fn python_command(&self) -> Command {
        let mut command = test_support::superlink::python().unwrap();
        command.arg(root().join("tests/it/flower.py"));
        command
    }

    fn bundle(&self, kind: &str) -> PathBuf {
        let path = self.bench.path(format!("{kind}.fab"));
        self.python(&["bundle", kind], &[&self.bench.path(""), &path]);
        path
    }

    fn url(&self) -> String {
        let scheme = if self.link.folder().join("ca.pem").exists() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.link.port)
    }

    /// Makes a site's key and file, and returns the fingerprint.
    fn site(&self, name: &str, more: &str) -> String {
        let key = self.bench.path(format!("{name}.pem"));
        let made = self.bench.fedplug(&["keys", name, "--output", key.to_str().unwrap()]);
        let ca = self.link.folder().join("ca.pem");
        let ca = if ca.exists() { format!("ca = {ca:?}\n") } else { String::new() };
        let (url, folder) = (self.url(), self.bench.path(""));
        let text = format!(
            "name = \"{name}\"\n[superlink]\nurl = \"{url}\"\n{ca}[data]\nfolder = {folder:?}\n[allow]\nconfirm = \
             false\n{more}"
        );
        self.bench.write(&format!("{name}.toml"), &text);
        made.stdout.split("sha256:").nth(1).unwrap().chars().take(64).collect()
    }

    fn join(&self, name: &str) -> Program {
        let file = self.bench.path(format!("{name}.toml"));
        let program = Program::start(
            &self.bench.command(&[Path::new("-v"), Path::new("join"), &file]),
            &self.bench.path(format!("{name}.log")),
        );
        self.wait_for_line(name, "is ready");
        program
    }

    /// A SuperNode with a site's key, which that site has registered. A SuperNode does not register a key of its own.
    fn supernode(&self, name: &str) -> Command {
        let key = self.bench.path(format!("{name}.ssh"));
        self.python(&["key"], &[&self.bench.path(format!("{name}.pem")), &key]);
        terminate(self.join(name));
        let mut node = test_support::superlink::python().unwrap();
        node.arg(test_support::superlink::packages().join("bin/flower-supernode"))
            .args(["--superlink", &format!("127.0.0.1:{}", self.link.port), "--port", &free_port().to_string()])
            .arg("--root-certificates")
            .arg(self.link.folder().join("ca.pem"))
            .arg("--auth-supernode-private-key")
            .arg(&key)
            .env("FLWR_HOME", self.bench.path("home"));
        node
    }

    fn start(&self, node: &Command) -> Program {
        Program::start(node, &self.bench.path("node.log"))
    }

    /// Serves a run of a site with this key, `a`, and a plain app, `b`.
    fn serve(&self, name: &str, app: &str, own: &str, plain: &str) -> Command {
        let (bench, bundle) = (&self.bench, self.bundle(app));
        let text = format!(
            "{}initial = {:?}\n[federation.sites]\na = \"sha256:{own}\"\nb = {{ key = \"sha256:{plain}\", flower = \
             \"{app}\" }}\n",
            experiment(name),
            bench.path("initial.safetensors")
        );
        let file = bench.write("experiment.toml", &text);
        let mut serve = bench.command(&["-v", "serve", file.to_str().unwrap(), "--superlink", &self.url()]);
        serve.arg("--ca").arg(self.link.folder().join("ca.pem")).arg("--bundle").arg(&bundle);
        serve.arg("--output").arg(bench.path("runs"));
        serve
    }

    fn wait_for_line(&self, log: &str, text: &str) {
        let path = self.bench.path(format!("{log}.log"));
        let seen = || std::fs::read_to_string(&path).unwrap_or_default().contains(text).then_some(());
        wait_for(&format!("`{text}` in {log}: {}", self.logs()), LONG, seen);
    }

    fn logs(&self) -> String {
        let log = |name: &&str| std::fs::read_to_string(self.bench.path(format!("{name}.log"))).unwrap_or_default();
        HOSPITALS.iter().chain(&["node", "server"]).map(|name| format!("== {name}\n{}", log(name))).collect()
    }
}

/// An experiment without the names of sites. Batches are small, so that the order of rows shows in the result.
fn experiment(name: &str) -> String {
    format!(
        "name = \"{name}\"\nseed = 4\n[dataset]\nplugin = \"csv\"\nfiles = \"data.csv\"\ninputs = [\"heavy\"]\ntarget = \
         \"fitness\"\nclients = {{ column = \"hospital\" }}\ntest-fraction = 0.25\n[model]\nplugin = \
         \"linear\"\nhidden-size = 2\nbatch-size = 8\n[aggregator]\nplugin = \"fedavg\"\nweight-by = \
         \"examples\"\n[federation]\nrounds = 2\n"
    )
}

#[test]
fn python_clients_beside_a_site() {
    // SuperNodes have lasting keys with TLS only.
    let Some(setting) = Setting::new(SuperLink::start_tls(), 2) else { return };
    let bench = &setting.bench;
    let (own, plain) = (setting.site("a", ""), setting.site("b", ""));
    let node = setting.supernode("b");
    let _site = setting.join("a");
    let _node = setting.start(&node);
    for app in ["message", "numpy"] {
        let mut serve = setting.serve(app, app, &own, &plain);
        let output = serve.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}\n{}", setting.logs());
        let examples = told.contains("site `b` reports no metric `steps`, so its examples count as steps");
        let order = "order of arrays without names: `regressors.0.bias`, `regressors.0.scale`";
        assert_eq!((examples, told.contains(order)), (app == "numpy", app == "numpy"), "{told}");
        let runs = bench.path("a/runs");
        let [session] = &std::fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..]
        else {
            panic!("{runs:?}")
        };
        let global = bench.path("runs").join(app).join("global/model.safetensors");
        let paths = [&bench.path(""), &session.join("model/model.safetensors"), &global];
        let output = setting.python_command().arg("check").args(paths).args(["30", "10"]).output().unwrap();
        assert!(output.status.success(), "{app}: {}\n{}", String::from_utf8_lossy(&output.stderr), setting.logs());
        std::fs::remove_dir_all(runs).unwrap();
        let summary = bench.summary(app);
        let of_app = summary["clients"]["b"][0]["global_test"].to_string();
        assert!(of_app.contains("RMSE") && of_app.contains("2.0"), "{summary}");
        assert_eq!(bench.text(app, "metrics.jsonl").contains("drift/train"), app == "message");
    }
}

/// It comes back with its key, and trains the order that it has lost. The SuperLink takes it back only after a minute, when it
/// has noticed that the node was gone.
#[test]
#[ignore = "takes two minutes: cargo test -p fedplug --test it -- --ignored supernode"]
fn a_supernode_killed_in_training_changes_no_bit() {
    let Some(setting) = Setting::new(SuperLink::start_tls(), 2) else { return };
    let bench = &setting.bench;
    let (own, plain) = (setting.site("a", ""), setting.site("b", ""));
    let node = setting.supernode("b");
    let _site = setting.join("a");
    let mut running = setting.start(&node);
    let hold = bench.path("hold");
    for name in ["healthy", "killed"] {
        let serve = setting.serve(name, "message", &own, &plain);
        if name == "killed" {
            bench.write("hold", "");
        }
        let mut server = Program::start(&serve, &bench.path("server.log"));
        if name == "killed" {
            wait_for("the training", LONG, || bench.path("held").exists().then_some(()));
            running.kill();
            std::fs::remove_file(&hold).unwrap();
            setting.wait_for_line("server", "again: the SuperLink says");
            running = setting.start(&node);
        }
        let summary = bench.path("runs").join(name).join("summary.json");
        wait_for(&format!("the end of {name}: {}", setting.logs()), LONG, || summary.exists().then_some(()));
        server.wait(LONG);
    }
    let model = |name: &str| bench.bytes(name, "global/model.safetensors");
    assert_eq!(model("healthy"), model("killed"));
}

/// Sites with an experiment of their own, in runs of Python servers; the same in one process gives the same models.
fn serve_from_python(strategies: &[(&str, &str)], hospitals: usize) {
    let link = SuperLink::start(&["--insecure", "--disable-runtime-dependency-installation"]);
    let Some(setting) = Setting::new(link, hospitals) else { return };
    let bench = &setting.bench;
    // The site's aggregator is not used.
    bench.write("own.toml", &experiment("own"));
    let mut sites = Vec::new();
    for name in &HOSPITALS[..hospitals] {
        setting.site(name, "[flower]\nexperiment = \"own.toml\"\n");
        sites.push(setting.join(name));
    }
    for (strategy, aggregator) in strategies {
        let text = experiment(strategy).replace("data.csv", bench.path("data.csv").to_str().unwrap());
        let text = text.replace(FEDAVG, aggregator);
        let file = bench.write("local.toml", &format!("{text}initial = {:?}\n", bench.path("initial.safetensors")));
        bench.run(&[file.to_str().unwrap()]);
        let local = bench.path("runs").join(strategy).join("global/model.safetensors");
        std::fs::copy(&local, bench.path("order.safetensors")).unwrap();
        let bundle = setting.bundle(strategy);
        setting.python(&["run", &setting.link.port.to_string()], &[&bundle]);
        let result = bench.path("result.json");
        let log = || std::fs::read_to_string(setting.link.folder().join("superlink.log")).unwrap_or_default();
        let found = std::fs::read_to_string(&result).unwrap_or_default();
        let found: serde_json::Value = serde_json::from_str(&found)
            .unwrap_or_else(|error| panic!("{strategy}: {error}\n{found}\n{}\n{}", log(), setting.logs()));
        setting.python(&["same"], &[&bench.path(""), &local]);
        for kind in ["train", "evaluate"] {
            for metric in ["loss", "RMSE"] {
                assert!(found[kind]["2"][metric].as_f64().unwrap() > 0.0, "{strategy}: {found}");
            }
        }
        std::fs::remove_file(result).unwrap();
    }
    let log = std::fs::read_to_string(bench.path("a.log")).unwrap();
    assert_eq!(log.matches("takes part in the Flower run").count(), strategies.len(), "{log}");
}

const FEDAVG: &str = "plugin = \"fedavg\"\nweight-by = \"examples\"\n";

#[test]
fn a_python_server_of_sites() {
    serve_from_python(&[("fedavg", FEDAVG)], 2);
}

#[test]
#[ignore = "takes minutes: cargo test -p fedplug --test it -- --ignored strategies"]
fn other_strategies_of_python_servers() {
    let adam = "plugin = \"fedopt\"\noptimizer = \"adam\"\nlearning-rate = 0.05\nbeta1 = 0.0\nbeta2 = \
                0.0\nweight-by = \"examples\"\n";
    let krum = "plugin = \"robust\"\nmethod = \"krum\"\nbyzantine = 1\n";
    serve_from_python(&[("fedadam", adam), ("krum", krum), ("numpy", FEDAVG)], 5);
}

#[test]
fn what_rules_out_plain_clients_is_said_before_anyone_is_waited_for() {
    let bench = Bench::new();
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    let serve = |sites: &str, filters: &str, more: &[&str]| {
        let text = format!("{}[federation.sites]\n{sites}\n{filters}", experiment("refused"));
        let file = bench.write("experiment.toml", &text);
        let told =
            bench.fedplug(&[&["serve", file.to_str().unwrap(), "--superlink", "http://127.0.0.1:1"], more].concat());
        assert_eq!(told.code, 2, "{}", told.stderr);
        assert!(!root().join("runs/refused").exists());
        told.stderr
    };
    let own = format!("a = \"sha256:{a}\"");
    let plain = format!("b = {{ key = \"sha256:{b}\", flower = \"message\" }}");
    let filter = "[[filter]]\nplugin = \"exclude-params\"\nat = \"client-output\"\ncontaining = \"regressor\"\n";
    let told = serve(&format!("{own}\n{plain}"), filter, &[]);
    assert!(told.contains("site `b` is a plain Flower client, which applies no filters"), "{told}");
    assert!(told.contains("site `b` is a plain Flower client, and there is no bundle"), "{told}");
    let told = serve(&own, "", &["--bundle", "app.fab"]);
    assert!(told.contains("app.fab: the experiment names no plain Flower client that would run it"), "{told}");
    let told = serve(&format!("{own}\nc = \"sha256:12\"\nd = {{ key = \"{a}\", flower = \"message\" }}"), "", &[]);
    assert!(told.contains("`sha256:12` is no fingerprint") && told.contains("has the key of `a`"), "{told}");
}
