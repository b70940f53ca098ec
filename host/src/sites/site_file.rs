//! A site's file: who the site is, where its data and its device are, and what it allows. It says nothing about any
//! experiment, and no experiment can change what it says.

use std::path::{Path, PathBuf};

use plugin_api::config::{self, Problem};
use schemars::JsonSchema;
use semver::VersionReq;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{MOST_THREADS, check_name};
use crate::experiment::document::Document;
pub(crate) use allow::{Allow, AllowedPlugin};

mod allow;

/// The filter that keeps a privacy budget, and its mechanism that has an account.
const PRIVACY: (&str, &str) = ("privacy", "gaussian");

/// The keys of the file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    /// The site's name, by which experiments know it: letters, digits, `-`, `_` and `.`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"))]
    name: String,
    /// The file with the site's private key, as `fedplug keys` writes it; by default `NAME.pem`. This and all paths
    /// outside the tables of plugins are relative to the folder of the site's file.
    key: Option<PathBuf>,
    /// The folder for what the site keeps: its identity at the SuperLink, its last answers, checkpoints, its own models,
    /// approved experiments, computing time and the privacy account; by default `NAME`.
    state: Option<PathBuf>,
    /// Folders to search for plugins before the default ones.
    #[serde(default)]
    plugin_path: Vec<PathBuf>,
    /// Where the site computes: `cpu`, `cuda:N`, or `auto` for the first GPU that the model finds, or the CPU.
    #[serde(default = "auto")]
    device: String,
    /// The number of threads that the site computes with. Results may depend on it.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MOST_THREADS))]
    threads: usize,
    /// The SuperLink; may also be given on the command line.
    superlink: Option<SuperLink>,
    /// The site's data.
    data: Data,
    /// Keys that replace those of an experiment's tables.
    #[serde(default)]
    replace: Replace,
    /// What an experiment may ask for.
    #[serde(default)]
    allow: Allow,
    /// Filters of the site's own, in order. They are applied to everything that leaves the site (`client-output`), after
    /// all filters of an experiment.
    #[serde(default)]
    filter: Vec<Map<String, Value>>,
    /// A privacy budget for the site's whole life. Needs a filter `privacy` with the mechanism `gaussian` among the
    /// site's own, which refuses to send once the budget would be exceeded.
    privacy: Option<Budget>,
    /// Lets the site take part in the runs of Python servers. Without it, only orders of `fedplug serve` are taken.
    flower: Option<Flower>,
}

/// The table `[flower]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Flower {
    /// The site's own experiment, since a Python server sends none: a TOML file as for `fedplug run`. The site's rules apply
    /// to it, and nobody has to approve it. `federation.rounds` is the most rounds in one run.
    pub(crate) experiment: PathBuf,
}

/// The table `[superlink]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SuperLink {
    /// Its address, such as `https://fl.example.org`.
    #[schemars(extend("pattern" = "^https?://"))]
    pub(crate) url: String,
    /// The certificate authority that its certificate must come from, in PEM; by default those of the Web.
    pub(crate) ca: Option<PathBuf>,
    /// Whether to allow an address that starts with `http://` and is not of this machine. Everything then crosses the
    /// network in the clear, and anyone on the way can act in the site's name.
    #[serde(default)]
    pub(crate) insecure: bool,
}

/// The table `[data]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Data {
    /// The folder of the site's data. Relative paths in the tables of plugins, an experiment's `[dataset]` above all, are
    /// relative to it. An experiment cannot name a path outside it.
    pub(crate) folder: PathBuf,
}

/// The table `[replace]`. Its values replace those of the experiment, key by key, so they may contain any path.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Replace {
    /// Keys of `[dataset]`.
    #[serde(default)]
    pub(crate) dataset: Map<String, Value>,
    /// Keys of `[model]`.
    #[serde(default)]
    pub(crate) model: Map<String, Value>,
    /// Keys of the experiment's filters, in a table for each filter's name.
    #[serde(default)]
    pub(crate) filter: Map<String, Value>,
}

/// The table `[privacy]`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Budget {
    /// The largest epsilon of everything that the site ever sends.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub(crate) epsilon: f64,
    /// The delta at which epsilon is computed.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub(crate) delta: f64,
}

/// A site's file whose keys are valid. All paths outside the tables of plugins are absolute.
#[derive(Clone, Debug)]
pub(crate) struct SiteFile {
    /// The site's name.
    pub(crate) name: String,
    /// The file with its private key.
    pub(crate) key: PathBuf,
    /// The folder for what it keeps.
    pub(crate) state: PathBuf,
    /// Folders to search for plugins first.
    pub(crate) plugin_path: Vec<PathBuf>,
    /// Where it computes.
    pub(crate) device: String,
    /// How many threads it computes with.
    pub(crate) threads: usize,
    /// The SuperLink.
    pub(crate) superlink: Option<SuperLink>,
    /// Its data.
    pub(crate) data: Data,
    /// What replaces keys of an experiment.
    pub(crate) replace: Replace,
    /// What an experiment may ask for.
    pub(crate) allow: Allow,
    /// The tables of its own filters, each with `plugin` and without `at`; the one that keeps the budget also has
    /// `budget`.
    pub(crate) filters: Vec<Map<String, Value>>,
    /// The experiment for runs of Python servers.
    pub(crate) flower: Option<PathBuf>,
    /// The file's path, as it was given.
    pub(crate) path: String,
}

impl SiteFile {
    /// Reads a site's file.
    ///
    /// # Errors
    /// If it cannot be read, or something in it is wrong; reports all of it together.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let shown = path.display();
        let failed = |e: std::io::Error| Diagnostic::new(format!("{shown}: cannot read the site's file")).cause(e);
        let text = std::fs::read_to_string(path).map_err(|e| CliError::usage(failed(e)))?;
        let absolute = std::path::absolute(path).map_err(|e| CliError::usage(failed(e)))?;
        Self::parse(&shown.to_string(), &text, absolute.parent().unwrap_or(Path::new("/")))
    }

    /// Parses the text of the file `path`, whose paths are relative to `folder`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn parse(path: &str, text: &str, folder: &Path) -> Result<Self, CliError> {
        let document = Document::parse(path.to_owned(), text)?;
        let mut raw = None;
        let own = |rest: &Value| {
            Ok(config::read::<Raw>(rest).map_or_else(
                |problems| problems,
                |read| {
                    let problems = [check_name(&read.name), read.problems()].concat();
                    raw = Some(read);
                    problems
                },
            ))
        };
        let schema = schemars::schema_for!(Raw).to_value();
        let problems =
            config::check(&schema, document.value(), own).map_err(|e| CliError::usage(Diagnostic::from(e)))?;
        match raw {
            Some(raw) if problems.is_empty() => raw.within(path, folder),
            _ => Err(document.failure(&[], problems)),
        }
    }

    /// The default name of the file with the private key of a site.
    pub(crate) fn default_key(name: &str) -> PathBuf {
        PathBuf::from(format!("{name}.pem"))
    }

    /// Creates the folder for what the site keeps, which only its owner can enter.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn create_state(&self) -> Result<(), CliError> {
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&self.state).map_err(|e| CliError::io(&self.state, "create the site's folder", &e))
    }

    /// Makes the data folder the current directory of the process. All relative paths of an experiment
    /// then lie in it, also those of keys that a plugin does not declare as paths.
    ///
    /// # Errors
    /// If it is not a folder that can be entered.
    pub(crate) fn enter_data(&self) -> Result<(), CliError> {
        let folder = &self.data.folder;
        std::env::set_current_dir(folder).map_err(|e| CliError::io(folder, "enter the site's data folder", &e))
    }
}

impl Raw {
    /// Problems that the schema does not see.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.allow.problems();
        if let Some(SuperLink { url, insecure: false, .. }) = &self.superlink
            && !is_private(url)
        {
            let message = "would cross the network in the clear: use `https`, or set `insecure = true`";
            problems.push(problem(&["superlink", "url"], message));
        }
        problems.extend(self.problems_of_replacements());
        for (index, filter) in self.filter.iter().enumerate() {
            problems.extend(self.problems_of_filter(&index.to_string(), filter));
        }
        if self.privacy.is_some() {
            match self.filter.iter().filter(|filter| is_accountant(filter)).count() {
                1 => {}
                0 => {
                    let message = "has no effect without a filter of the site's own that adds noise and counts it: a \
                                   `[[filter]]` with `plugin = \"privacy\"` and `mechanism = \"gaussian\"`";
                    problems.push(problem(&["privacy"], message));
                }
                _ => {
                    problems.push(problem(&["privacy"], "must be kept by one filter `privacy`, and there are several"))
                }
            }
        }
        problems
    }

    /// A site replaces keys of the experiment's components, never the components.
    fn problems_of_replacements(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (table, keys) in [("dataset", &self.replace.dataset), ("model", &self.replace.model)] {
            if keys.contains_key("plugin") {
                let message = "is the experiment's choice; `allow.plugins` limits it";
                problems.push(problem(&["replace", table, "plugin"], message));
            }
        }
        for (name, keys) in &self.replace.filter {
            let Some(keys) = keys.as_object() else {
                problems.push(problem(&["replace", "filter", name], "must be a table of the filter's keys"));
                continue;
            };
            for key in ["plugin", "at"].into_iter().filter(|key| keys.contains_key(*key)) {
                problems.push(problem(&["replace", "filter", name, key], "is the experiment's choice"));
            }
        }
        problems
    }

    fn problems_of_filter(&self, index: &str, filter: &Map<String, Value>) -> Vec<Problem> {
        let mut problems = Vec::new();
        match filter.get("plugin") {
            Some(Value::String(plugin)) if !plugin.is_empty() => {}
            Some(_) => problems.push(problem(&["filter", index, "plugin"], "`plugin` must be a name or a path")),
            None => problems.push(problem(&["filter", index], "`plugin` is missing: the name of a filter")),
        }
        if filter.contains_key("at") {
            let message = "`at` is always `client-output` for a site's own filters: remove the key";
            problems.push(problem(&["filter", index, "at"], message));
        }
        if self.privacy.is_some() && is_accountant(filter) && filter.contains_key("budget") {
            problems.push(problem(&["filter", index, "budget"], "is set by the table `[privacy]`"));
        }
        problems
    }

    fn within(self, path: &str, folder: &Path) -> Result<SiteFile, CliError> {
        let Self { name, key, state, plugin_path, device, threads, superlink, data, replace, mut allow, .. } = self;
        let state = folder.join(state.unwrap_or_else(|| PathBuf::from(&name)));
        let mut filters = self.filter;
        if let Some(Budget { epsilon, delta }) = self.privacy {
            let ledger = state.join("privacy.json");
            let Some(ledger) = ledger.to_str() else {
                let text = "is not UTF-8, and the privacy account needs a path that is";
                return Err(CliError::usage(Diagnostic::new(format!("{}: {text}", state.display()))));
            };
            for filter in filters.iter_mut().filter(|filter| is_accountant(filter)) {
                let budget = serde_json::json!({ "epsilon": epsilon, "delta": delta, "ledger": ledger });
                filter.insert("budget".to_owned(), budget);
            }
            // Metrics cross without noise, so they would undermine the guarantee.
            allow.metrics = Some(allow.metrics.unwrap_or(false));
        }
        Ok(SiteFile {
            key: folder.join(key.unwrap_or_else(|| SiteFile::default_key(&name))),
            plugin_path: plugin_path.into_iter().map(|path| folder.join(path)).collect(),
            superlink: superlink.map(|link| SuperLink { ca: link.ca.map(|ca| folder.join(ca)), ..link }),
            data: Data { folder: folder.join(data.folder) },
            flower: self.flower.map(|flower| folder.join(flower.experiment)),
            path: path.to_owned(),
            name,
            state,
            device,
            threads,
            replace,
            allow,
            filters,
        })
    }
}

fn problem(path: &[&str], message: &str) -> Problem {
    let path = path.iter().map(|&step| step.to_owned()).collect();
    Problem { path, message: message.to_owned(), known: Vec::new() }
}

/// Whether a filter keeps an account that a budget can limit.
fn is_accountant(filter: &Map<String, Value>) -> bool {
    let is = |key: &str, wanted: &str| filter.get(key).and_then(Value::as_str) == Some(wanted);
    is("plugin", PRIVACY.0) && is("mechanism", PRIVACY.1)
}

/// Whether what is sent to this address cannot be read on the way: it is encrypted, or stays on this machine.
fn is_private(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return true };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = |address: std::net::IpAddr| address.is_loopback();
    !authority.contains('@') && (host == "localhost" || host.parse().is_ok_and(loopback))
}

fn auto() -> String {
    "auto".to_owned()
}

fn one() -> usize {
    1
}

/// Reads a requirement of versions, such as `>=0.1`.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<VersionReq>, D::Error> {
    let text = String::deserialize(deserializer)?;
    VersionReq::parse(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is no requirement of versions such as `>=0.1`: {error}"))
    })
}

#[cfg(test)]
mod tests;
