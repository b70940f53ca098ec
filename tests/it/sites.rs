//! Clients at their own sites, over a real SuperLink: the same results as in one process, also after losses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use test_support::superlink::{LONG, Program, SuperLink};

use crate::support::{Bench, files, root};

mod faults;
mod flower;
mod results;
mod secrecy;

/// Sites of the sample data, by task.
const TASKS: [&str; 4] = ["aggregation", "binding", "expression", "tm"];

/// An experiment with clients at sites, each of which is a process.
struct Sites {
    bench: Bench,
    link: SuperLink,
    /// Where the SuperLink is reached, by way of a proxy if there is one.
    port: u16,
    names: Vec<String>,
    programs: Vec<Option<Program>>,
    experiment: PathBuf,
}

impl Sites {
    /// Makes keys and files for these sites, and of `experiment` one that names them. `own` is added to each site's file,
    /// given its index.
    fn new(names: &[&str], experiment: &str, own: impl Fn(usize) -> String) -> Option<Self> {
        let link = SuperLink::start(&["--insecure", "--isolation", "process"])?;
        let port = link.port;
        Some(Self::at(link, port, names, experiment, own))
    }

    /// The same, with a SuperLink that is reached at this port.
    fn at(link: SuperLink, port: u16, names: &[&str], experiment: &str, own: impl Fn(usize) -> String) -> Self {
        let bench = Bench::new();
        let mut lines = String::new();
        for (index, name) in names.iter().enumerate() {
            let key = bench.path(format!("{name}.pem"));
            let made = bench.fedplug(&["keys", name, "--output", key.to_str().unwrap()]);
            assert_eq!(made.code, 0, "{}", made.stderr);
            let print = made.stdout.split("sha256:").nth(1).unwrap().chars().take(64).collect::<String>();
            lines += &format!("{name} = \"sha256:{print}\"\n");
            let (url, data) = (format!("http://127.0.0.1:{port}"), root().display());
            bench.write(
                &format!("{name}.toml"),
                &format!(
                    "name = \"{name}\"\nthreads = {}\n{}\n[superlink]\nurl = \"{url}\"\n[data]\nfolder = \"{data}\"\n\
                     [allow]\nconfirm = false\n",
                    1 + index % 2,
                    own(index)
                ),
            );
        }
        let text = format!("{experiment}\n[federation.sites]\n{lines}");
        let experiment = bench.write("experiment.toml", &text);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let programs = names.iter().map(|_| None).collect();
        Self { bench, link, port, names, programs, experiment }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.bench.path(format!("{name}.log"))
    }

    /// Starts all sites.
    fn join_all(&mut self) {
        for index in 0..self.names.len() {
            self.join(index);
        }
    }

    fn join(&mut self, index: usize) {
        let name = &self.names[index];
        let file = self.bench.path(format!("{name}.toml"));
        let command = self.bench.command(&[Path::new("-v"), Path::new("join"), &file]);
        self.programs[index] = Some(Program::start(&command, &self.log(name)));
    }

    /// SIGKILL.
    fn kill(&mut self, index: usize) {
        self.programs[index].take().unwrap().kill();
    }

    /// SIGTERM, on which a site tells the SuperLink that it goes. Of a killed one the SuperLink notices after two minutes.
    fn stop(&mut self, index: usize) {
        terminate(self.programs[index].take().unwrap());
    }

    fn serve_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bench.command(&["-v", "serve"]);
        command.arg(&self.experiment).args(["--superlink", &format!("http://127.0.0.1:{}", self.port)]);
        command.arg("--output").arg(self.bench.path("runs")).args(arguments);
        command
    }

    /// Starts the server, with its output in `server.log`.
    fn start_server(&self, arguments: &[&str]) -> Program {
        Program::start(&self.serve_command(arguments), &self.log("server"))
    }

    /// Serves to the end, and returns what went to stderr.
    fn serve(&self, arguments: &[&str]) -> String {
        let output = self.serve_command(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}\n{}", self.logs());
        text
    }

    /// Runs the experiment in one process, as `NAME-local`.
    fn run_locally(&self, name: &str) {
        let text = std::fs::read_to_string(&self.experiment).unwrap();
        let (text, _) = text.split_once("\n[federation.sites]").unwrap();
        let file = self.bench.write("local.toml", text);
        self.bench.run(&[file.to_str().unwrap(), "--name", &format!("{name}-local")]);
    }

    fn logs(&self) -> String {
        let all = self.names.iter().map(String::as_str).chain(["server"]);
        all.map(|name| format!("== {name}\n{}", std::fs::read_to_string(self.log(name)).unwrap_or_default())).collect()
    }

    /// Waits until a log has a line with this text.
    fn wait_for_line(&self, log: &str, text: &str) {
        self.wait_for_lines(log, text, 1);
    }

    /// Waits until a log has this many lines with this text.
    fn wait_for_lines(&self, log: &str, text: &str, count: usize) {
        let path = self.log(log);
        let mut seen = String::new();
        let until = std::time::Instant::now() + LONG;
        while seen.lines().filter(|line| line.contains(text)).count() < count {
            assert!(std::time::Instant::now() < until, "no `{text}` in {log}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
            seen = std::fs::read_to_string(&path).unwrap_or_default();
        }
    }

    /// Waits until a program that was started ends.
    fn wait(&self, mut program: Program) {
        program.wait(LONG);
    }

    /// Asserts that the run through sites left the same results as the one in one process: global models, metrics, and the
    /// clients' own models, which are at the sites.
    fn assert_same(&self, name: &str) {
        let runs = self.bench.path("runs");
        let (here, there) = (runs.join(format!("{name}-local")), runs.join(name));
        let mut compared = 0;
        for path in files(&here) {
            let relative = path.strip_prefix(&here).unwrap();
            let text = relative.to_str().unwrap();
            let other = match text.strip_prefix("clients/").and_then(|rest| rest.split_once('/')) {
                Some((site, rest)) => self.at_site(site, &format!("model/{rest}")),
                None if text.ends_with(".safetensors") => there.join(relative),
                None => continue,
            };
            assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap(), "{text}\n{}", self.logs());
            compared += 1;
        }
        assert!(compared > self.names.len(), "{compared}");
        assert_eq!(self.bench.metrics(&format!("{name}-local")), self.bench.metrics(name));
        let table = |name: &str| {
            let mut summary = self.bench.summary(name);
            for key in ["name", "seconds", "time", "peak-memory-bytes"] {
                summary.as_object_mut().unwrap().remove(key);
            }
            summary
        };
        assert_eq!(table(&format!("{name}-local")), table(name));
    }

    /// A file of the only run at a site.
    fn at_site(&self, site: &str, file: &str) -> PathBuf {
        let runs = self.bench.path(site).join("runs");
        let folders: Vec<PathBuf> = std::fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [folder] = folders.as_slice() else { panic!("{folders:?}") };
        folder.join(file)
    }
}

/// The sample data by task, with a small linear model and private heads.
fn linear(tasks: &[&str], name: &str, rounds: u64, more: &str) -> String {
    format!(
        "name = \"{name}\"\nseed = 3\n[federation]\nrounds = {rounds}\n{more}\n[dataset]\nplugin = \"flab\"\nroot = \
         \"configs/sample\"\nclients = \"by-task\"\ntasks = {tasks:?}\n[model]\nplugin = \"linear\"\n[aggregator]\nplugin = \
         \"fedavg\"\n[[filter]]\nplugin = \"exclude-params\"\nat = \"client-output\"\ncontaining = \"regressor\"\n"
    )
}

/// SIGTERM, and waits for the end.
fn terminate(mut program: Program) {
    assert!(Command::new("kill").args(["-TERM", &program.pid.to_string()]).status().unwrap().success());
    program.wait(LONG);
}

/// No lines of a site's own.
fn nothing(_: usize) -> String {
    String::new()
}
