//! Makes a site's own experiment of the one that a server offers, or refuses it.
//!
//! What the server sends is a stranger's text. The site's file decides: where the data is, which plugins run, on which
//! device, and which filters have the last word on what leaves. Keys that concern only the server are dropped.

use plugin_api::Kind;
use serde_json::{Map, Value};

use crate::experiment::config::{Draft, Experiment};
use crate::experiment::document::{Document, FOLDER, Item};
use crate::plugins::Finder;
use crate::setup::plugins::LoadedPlugin;
use crate::sites::refusal::{Broken, Refusal};
use crate::sites::site_file::{AllowedPlugin, SiteFile};
use paths::PathCheck;

mod paths;

/// The most bytes of an experiment that a site reads.
pub(crate) const MOST_BYTES: usize = 1 << 18;

/// The name of the offered text in errors.
const OFFERED: &str = "experiment";

/// The rule that an experiment must be a valid one.
const VALID: &str = "experiment";

/// Keys of `[federation]` that concern only the server.
const SERVER_KEYS: [&str; 2] = ["sites", "initial"];

/// The site's own experiment, made of the text that a server offers. All of the host's keys are valid.
///
/// # Errors
/// If it is no experiment, or asks for what the site's file does not allow: all such rules.
pub(crate) fn localise(site: &SiteFile, offered: &str) -> Result<Draft, Refusal> {
    let refuse = |broken| Refusal::new(&site.name, broken);
    if offered.len() > MOST_BYTES {
        let reason = format!("it has {} bytes, and at most {MOST_BYTES} are read", offered.len());
        return Err(refuse(vec![Broken::new(VALID, reason)]));
    }
    if let Some(hidden) = offered.chars().find(|c| is_hidden(*c)) {
        let reason =
            format!("it has the invisible character U+{:04X}, so that it may not say what it shows", hidden as u32);
        return Err(refuse(vec![Broken::new(VALID, reason)]));
    }
    let document = Document::parse(OFFERED.to_owned(), offered)
        .map_err(|error| refuse(error.reports().iter().map(|report| Broken::new(VALID, report.line())).collect()))?;
    let mut offer = Offer { site, document, broken: Vec::new() };
    offer.check_plugin("dataset", Kind::Dataset);
    offer.check_plugin("model", Kind::Model);
    offer.check_aggregator();
    offer.replace_keys("dataset", &site.replace.dataset);
    offer.replace_keys("model", &site.replace.model);
    offer.arrange_filters();
    offer.set_federation();
    let Offer { document, mut broken, .. } = offer;
    let mut draft = Draft::of(document);
    draft.experiment.plugin_path.clone_from(&site.plugin_path);
    broken.extend(draft.reports.iter().map(|report| Broken::new(VALID, report.line())));
    if draft.is_whole() {
        broken.extend(beyond_limits(site, &draft.experiment));
    }
    Refusal::unless_empty(&site.name, broken).map(|()| draft)
}

/// Whether a character changes how a text looks to the person who approves it, and is not seen itself: control characters
/// of terminals, and those that turn the direction of writing or have no width (Boucher and Anderson, *Trojan Source*,
/// 2021).
fn is_hidden(c: char) -> bool {
    let turns = matches!(c, '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}');
    turns || (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// Checks the libraries of an experiment that [`localise`] returned, before any of them is opened, which would run its
/// code.
///
/// # Errors
/// If the file of a plugin that the site's file names with a SHA-256 has another one, or cannot be read.
pub(crate) fn check_libraries(site: &SiteFile, experiment: &Experiment, finder: &Finder) -> Result<(), Refusal> {
    let filters = experiment.filters.iter().map(|filter| (Kind::Filter, &filter.plugin));
    let plugins = [(Kind::Dataset, &experiment.dataset), (Kind::Model, &experiment.model)].into_iter().chain(filters);
    let mut broken = Vec::new();
    for (kind, choice) in plugins {
        // The site's own filters need no entry.
        let entries = site.allow.entries(kind, &choice.plugin).unwrap_or_default();
        for path in finder.candidates(kind, &choice.plugin) {
            broken.extend(another_library(&entries, kind, &choice.plugin, &path).err());
        }
    }
    Refusal::unless_empty(&site.name, broken)
}

/// Checks the versions of opened plugins, and their libraries once more.
///
/// # Errors
/// If the site's file allows a plugin by name, and not this version of it.
pub(crate) fn check_plugins<'p>(
    site: &SiteFile,
    plugins: impl IntoIterator<Item = &'p LoadedPlugin>,
) -> Result<(), Refusal> {
    let mut broken = Vec::new();
    for plugin in plugins {
        let (kind, name) = (plugin.component.profile().kind, &plugin.plugin_ref.plugin);
        let entries = site.allow.entries(kind, name).unwrap_or_default();
        let version = &plugin.library.plugin.about.version;
        match another_library(&entries, kind, name, &plugin.library.path) {
            Err(found) => broken.push(found),
            Ok(entries) if !entries.is_empty() && !entries.iter().any(|entry| is_version(entry, version)) => {
                broken.push(Broken::new(
                    "allow.plugins",
                    format!("version {version} of the {kind} `{name}` may not run"),
                ));
            }
            Ok(_) => {}
        }
    }
    Refusal::unless_empty(&site.name, broken)
}

/// The entries that the library at `path` fits; without entries, any does.
fn another_library<'e>(
    entries: &[&'e AllowedPlugin],
    kind: Kind,
    name: &str,
    path: &std::path::Path,
) -> Result<Vec<&'e AllowedPlugin>, Broken> {
    if entries.iter().all(|entry| entry.sha256.is_none()) {
        return Ok(entries.to_vec());
    }
    let rule = "allow.plugins";
    let digest = crate::artefacts::checkpoint::sha256(path)
        .map_err(|e| Broken::new(rule, format!("the library of the {kind} `{name}` cannot be read: {e}")))?;
    let fits = |entry: &&&AllowedPlugin| entry.sha256.as_ref().is_none_or(|wanted| *wanted == digest);
    let fitting: Vec<_> = entries.iter().filter(fits).copied().collect();
    if fitting.is_empty() {
        return Err(Broken::new(rule, format!("the library of the {kind} `{name}` has another SHA-256: {digest}")));
    }
    Ok(fitting)
}

fn is_version(entry: &AllowedPlugin, version: &str) -> bool {
    entry
        .version
        .as_ref()
        .is_none_or(|wanted| semver::Version::parse(version).is_ok_and(|found| wanted.matches(&found)))
}

/// The limits of the site's file that an experiment exceeds.
fn beyond_limits(site: &SiteFile, experiment: &Experiment) -> Vec<Broken> {
    let (allow, federation) = (&site.allow, &experiment.federation);
    let mut broken = Vec::new();
    let mut limit = |rule, asked: u64, most: Option<u64>, what: &str| {
        if let Some(most) = most.filter(|most| asked > *most) {
            broken.push(Broken::new(rule, format!("{asked} {what}, and at most {most} are allowed")));
        }
    };
    limit("allow.rounds", federation.rounds, allow.rounds, "rounds");
    limit("allow.local-epochs", federation.local_epochs, allow.local_epochs, "epochs in a round");
    if federation.reports() && !allow.metrics() {
        let reason =
            "metrics may not leave the site, and the experiment collects them: `federation.report` must be `none`";
        broken.push(Broken::new("allow.metrics", reason));
    }
    broken
}

/// An experiment on its way to becoming the site's own.
struct Offer<'s> {
    site: &'s SiteFile,
    document: Document,
    broken: Vec<Broken>,
}

impl Offer<'_> {
    fn break_rule(&mut self, rule: &'static str, reason: String) {
        self.broken.push(Broken::new(rule, reason));
    }

    /// Checks that the plugin of the table at the top named `key` may run at the site.
    fn check_plugin(&mut self, key: &str, kind: Kind) {
        let plugin = self.document.value().get(key).and_then(|table| table.get("plugin")).and_then(Value::as_str);
        if let Some(plugin) = plugin.map(str::to_owned) {
            self.check_name(&[key], kind, &plugin);
        }
    }

    /// The aggregator does not run here, but a library's path must not come from outside in any table.
    fn check_aggregator(&mut self) {
        let aggregator = self.document.value().get("aggregator").and_then(|table| table.get("plugin"));
        if let Some(plugin) = aggregator.and_then(Value::as_str).filter(|plugin| paths::is_library(plugin)) {
            let reason = by_path("aggregator", plugin);
            self.break_rule("allow.plugins", reason);
        }
    }

    fn check_name(&mut self, table: &[&str], kind: Kind, plugin: &str) {
        if paths::is_library(plugin) {
            self.break_rule("allow.plugins", by_path(&table.join("."), plugin));
        } else if self.site.allow.entries(kind, plugin).is_none() {
            self.break_rule("allow.plugins", format!("the {kind} `{plugin}` may not run"));
        }
    }

    /// Replaces keys of a table at the top, and checks that no other one could be a path out of the data folder.
    fn replace_keys(&mut self, table: &str, own: &Map<String, Value>) {
        self.replace_in(&[table], own, table);
    }

    fn replace_in(&mut self, table: &[&str], own: &Map<String, Value>, name: &str) {
        let found = table.iter().try_fold(self.document.value(), |value, step| match value {
            Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
            other => other.get(step),
        });
        let Some(found) = found.and_then(Value::as_object) else { return };
        let others =
            found.iter().filter(|(key, _)| !["plugin", "at"].contains(&key.as_str()) && !own.contains_key(*key));
        let mut check = PathCheck::new(&table.join("."));
        others.for_each(|(key, value)| check.entry(key, value));
        for (key, text) in check.found {
            let what = "could be a path outside the site's data folder";
            let cure = format!("a site sets such a key itself, in `[replace.{name}]`");
            self.break_rule("data.folder", format!("`{key}`: `{text}` {what}; {cure}"));
        }
        for (key, value) in own {
            self.document.replace(table, key, value.clone(), &format!("the site's file: `replace.{name}.{key}`"));
        }
    }

    /// Drops the server's filters, checks those of the clients, and adds the site's own at the end.
    fn arrange_filters(&mut self) {
        let count = match self.document.value().get("filter") {
            None => 0,
            Some(Value::Array(list)) if list.iter().all(Value::is_object) => list.len(),
            // Not a list of tables: reported as such.
            Some(_) => return,
        };
        let mut kept = Vec::new();
        let mut end = 0;
        for index in 0..count {
            let place = index.to_string();
            let table = &self.document.value()["filter"][index];
            let plugin = table.get("plugin").and_then(Value::as_str).unwrap_or_default().to_owned();
            let (at, output) = positions(table.get("at"));
            if paths::is_library(&plugin) {
                self.break_rule("allow.plugins", by_path(&format!("filter.{index}"), &plugin));
            }
            let Some(at) = at else { continue };
            if !paths::is_library(&plugin) && !plugin.is_empty() {
                self.check_name(&["filter", &place], Kind::Filter, &plugin);
            }
            if let Some(at) = at {
                self.document.replace(&["filter", &place], "at", at, &format!("{OFFERED}: `filter.{index}.at`"));
            }
            let own = self.site.replace.filter.get(&plugin).and_then(Value::as_object).cloned().unwrap_or_default();
            self.replace_in(&["filter", &place], &own, &format!("filter.{plugin}"));
            kept.push(Item::Kept(index));
            if output && !self.site.allow.last_filters.contains(&plugin) {
                end = kept.len();
            }
        }
        let own = self.site.filters.iter().enumerate().map(|(index, table)| {
            let mut table = table.clone();
            table.insert("at".to_owned(), "client-output".into());
            Item::New(table, format!("the site's file: `filter.{index}"))
        });
        kept.splice(end..end, own.collect::<Vec<_>>());
        self.document.rearrange("filter", kept);
    }

    /// Drops what concerns only the server, and sets what the site decides.
    fn set_federation(&mut self) {
        let site = self.site;
        self.document.remove(None, FOLDER);
        self.document.remove(None, "plugin-path");
        SERVER_KEYS.into_iter().for_each(|key| self.document.remove(Some("federation"), key));
        let mut set = |key: &str, value: Value, own: &str| {
            self.document.replace(&["federation"], key, value, &format!("the site's file: `{own}`"));
        };
        set("devices", vec![site.device.clone()].into(), "device");
        set("threads-per-client", site.threads.into(), "threads");
        set("threads", 1.into(), "threads");
        // There is one client here, and how many the server waits for is its own affair.
        set("min-clients", 1.into(), "name");
    }
}

/// Which of a filter's positions are at a client: `None` if none is; otherwise those, if there are others besides. Also
/// whether one of them is where messages leave. An `at` that is not valid stays, and is reported as such.
fn positions(at: Option<&Value>) -> (Option<Option<Value>>, bool) {
    let is = |value: &Value, names: &[&str]| value.as_str().is_some_and(|name| names.contains(&name));
    let server = |value: &Value| is(value, &["server-input", "server-output"]);
    let output = |value: &Value| is(value, &["client-output"]);
    match at {
        Some(Value::Array(all)) if all.iter().any(server) => {
            let rest: Vec<Value> = all.iter().filter(|value| !server(value)).cloned().collect();
            let leaves = rest.iter().any(output);
            ((!rest.is_empty()).then(|| Some(rest.into())), leaves)
        }
        Some(Value::Array(all)) => (Some(None), all.iter().any(output)),
        Some(value) if server(value) => (None, false),
        Some(value) => (Some(None), output(value)),
        None => (Some(None), false),
    }
}

fn by_path(table: &str, plugin: &str) -> String {
    format!("`{table}.plugin`: `{plugin}` is the path of a library, and an experiment may only name plugins")
}

#[cfg(test)]
mod tests;
