//! What the server and the sites agree on before the first round: tasks, data, and the layout of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use plugin_api::{ClientSpec, ClientTask, Description, Level, ModelSetup, Scale, Source, TaskSpec};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Draft, Experiment, Site};
use crate::federation::client::Client as _;
use crate::federation::services::HostServices;
use crate::plugins::Finder;
use crate::plugins::validate::Layout;
use crate::setup::errors::Errors;
use crate::setup::plugins::{Plugins, Role};
use crate::setup::server_side::ServerSide;
use crate::setup::{Shared, description, targets};
use crate::sites::protocol::{Contribution, Offer, Ready, Request, Response, Start};
use crate::sites::remote_client::RemoteClient;

/// A run that all sites have described their part of.
pub(crate) struct Agreement {
    /// What server and sites share.
    pub shared: Shared,
    /// What the server needs.
    pub server: ServerSide,
    /// The device of each client.
    pub devices: Vec<String>,
    /// What each site uses, for the manifest.
    pub sites: Value,
    digest: String,
}

/// The experiment as it is offered to the sites: without what concerns the server only.
fn offered(experiment: &Experiment) -> Result<String, CliError> {
    let failed = |what: String| CliError::run(Diagnostic::new("cannot offer the experiment").cause(what));
    let mut table: toml::Table = toml::from_str(&experiment.resolved()).map_err(|e| failed(e.to_string()))?;
    // At a site, paths are relative to its data folder.
    table.remove("folder");
    table.remove("plugin-path");
    if let Some(federation) = table.get_mut("federation").and_then(toml::Value::as_table_mut) {
        for key in
            ["initial", "sites", "site-timeout", "devices", "clients-per-device", "threads", "threads-per-client"]
        {
            federation.remove(key);
        }
    }
    toml::to_string_pretty(&table).map_err(|e| failed(e.to_string()))
}

/// Calls all sites of fedplug at the same time, and returns their responses in order, or all errors. `request` gets the
/// index of a site's client.
fn call_all(
    clients: &[RemoteClient],
    request: impl Fn(usize) -> Request + Sync,
    stops: &(dyn Fn() -> bool + Sync),
    services: &HostServices<'_>,
) -> Result<Vec<Response>, CliError> {
    let replies: Vec<_> = std::thread::scope(|scope| {
        let call = |client| {
            let request = &request;
            scope.spawn(move || RemoteClient::call(client, request(client.index()), stops, services))
        };
        let threads: Vec<_> = clients.iter().map(call).collect();
        threads.into_iter().map(|thread| thread.join().expect("a call does not panic")).collect()
    });
    let (mut responses, mut reports) = (Vec::new(), Vec::new());
    for reply in replies {
        match reply {
            Ok(response) => responses.push(response),
            Err(fault) => reports.push(fault.report("")),
        }
    }
    if reports.is_empty() {
        Ok(responses)
    } else if services.stop.load(Ordering::Relaxed) || stops() {
        Err(CliError::stopped(Diagnostic::new("stopped on request before the run started")))
    } else {
        Err(CliError::usage(reports))
    }
}

impl Agreement {
    /// Offers the experiment to all sites of fedplug, whose clients these are, and joins what they describe.
    ///
    /// # Errors
    /// If a plugin of the server fails, a site refuses or cannot be reached, or the sites contradict one another.
    pub(crate) fn reach(
        draft: Draft,
        finder: &Finder,
        clients: &[RemoteClient],
        services: &HostServices<'_>,
    ) -> Result<Self, CliError> {
        let Draft { experiment, reports } = draft;
        let mut errors = Errors::new(&experiment, reports);
        let role = Role::Server { model: experiment.federation.initial.is_none() };
        let plugins = Plugins::open(&experiment, role, finder, &mut errors.reports);
        plugins.warn_of_libraries(services.console);
        let federation = &experiment.federation;
        if federation.min_clients > federation.sites.len() {
            let report = Diagnostic::new(format!("there are only {} sites", federation.sites.len()));
            errors.add_at("min-clients", report);
        }
        if !errors.reports.is_empty() {
            return Err(CliError::usage(errors.reports));
        }
        let sites = federation.site_list();
        let names = sites.iter().map(|site| site.name.clone()).collect();
        let text = offered(&experiment)?;
        let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let offer = Offer { experiment: text, digest: digest.clone(), clients: names, version };
        let responses = call_all(clients, |_| Request::Describe(offer.clone()), &|| false, services)?;
        let contributions = responses.into_iter().zip(clients).map(|(response, client)| match response {
            Response::Contribution(contribution) if contribution.client.name == client.name() => Ok(contribution),
            _ => Err(CliError::run(Diagnostic::new(format!("site `{}` does not describe its data", client.name())))),
        });
        let contributions = contributions.collect::<Result<Vec<_>, _>>()?;
        let description = join(&sites, &contributions)?;
        let checked = description::check(&description);
        checked.map_err(|e| CliError::usage(Diagnostic::from(e).within("what the sites describe")))?;
        let model_setup =
            ModelSetup::new(description.tasks.clone(), federation.rounds.max(1), federation.local_epochs.max(1));
        let server = ServerSide::new(&experiment, &plugins, &model_setup, "cpu", services, &mut errors);
        errors.reports.extend(targets::check_score(&experiment, &description.tasks));
        let reports = errors.reports;
        let Some(server) = server.filter(|_| reports.is_empty()) else { return Err(CliError::usage(reports)) };
        let scores = contributions.iter().filter_map(|contribution| contribution.score.as_deref());
        let scores: BTreeSet<&str> = scores.flat_map(|name| name.split(" or ")).collect();
        let score_name = scores.into_iter().map(str::to_owned).reduce(|a, b| format!("{a} or {b}"));
        let (mut devices, mut used) = (Vec::new(), Map::new());
        for Site { name, flower, .. } in sites {
            let contribution = contributions.iter().find(|contribution| contribution.client.name == name);
            devices.push(contribution.map_or_else(|| "cpu".to_owned(), |contribution| contribution.device.clone()));
            let app = flower.map(|app| json!({ "flower": app.name() }));
            used.insert(name, contribution.map(|contribution| contribution.plugins.clone()).or(app).into());
        }
        let shared = Shared { experiment, plugins, description, model_setup, score_name };
        Ok(Self { shared, server, devices, sites: Value::Object(used), digest })
    }
}

/// What the sites are asked to start with.
pub(crate) struct Beginning {
    digest: String,
    tasks: Vec<TaskSpec>,
    layout: Value,
}

impl Agreement {
    /// What the sites are asked to start with.
    pub(crate) fn beginning(&self) -> Beginning {
        let layout = Layout::of(&self.server.initial).to_json();
        Beginning { digest: self.digest.clone(), tasks: self.shared.description.tasks.clone(), layout }
    }
}

impl Beginning {
    /// Has all sites get ready for the first round, or return to the state from which the run resumes: after how many
    /// of its own rounds each. Returns the parameters that their filters withhold.
    ///
    /// # Errors
    /// If a site cannot.
    pub(crate) fn start(
        &self,
        clients: &[RemoteClient],
        resume: &[Option<u64>],
        stops: &(dyn Fn() -> bool + Sync),
        services: &HostServices<'_>,
    ) -> Result<BTreeSet<String>, CliError> {
        let request = |index: usize| {
            let Self { digest, tasks, layout } = self;
            let resume = resume.get(index).copied().flatten();
            Request::Start(Start { digest: digest.clone(), tasks: tasks.clone(), layout: layout.clone(), resume })
        };
        let mut withheld = BTreeSet::new();
        for response in call_all(clients, request, stops, services)? {
            if let Response::Ready(Ready { withheld: own }) = response {
                withheld.extend(own);
            }
        }
        services.console.log(Level::Debug, "all sites are ready");
        Ok(withheld)
    }
}

/// Joins what the sites describe. A plain Flower client describes nothing, so it has all tasks, without rows.
fn join(sites: &[Site], contributions: &[Contribution]) -> Result<Description, CliError> {
    let (mut tasks, mut scales, mut sources) = (Vec::new(), BTreeMap::new(), Vec::new());
    for contribution in contributions {
        let site = &contribution.client.name;
        let wrong = |what: String| CliError::usage(Diagnostic::new(format!("site `{site}`: {what}")));
        add_tasks(&mut tasks, &contribution.tasks).map_err(wrong)?;
        add_scales(&mut scales, site, &contribution.scales)?;
        sources.extend(
            contribution
                .sources
                .iter()
                .map(|source| Source { path: format!("{site}/{}", source.path.display()).into(), ..source.clone() }),
        );
    }
    let without_rows = |task: &TaskSpec| ClientTask { name: task.name.clone(), ..ClientTask::default() };
    let client = |Site { name, .. }: &Site| {
        let described =
            contributions.iter().map(|contribution| &contribution.client).find(|client| client.name == *name);
        let plain = || ClientSpec { name: name.clone(), tasks: tasks.iter().map(without_rows).collect() };
        described.cloned().unwrap_or_else(plain)
    };
    let clients = sites.iter().map(client).collect();
    let scales = scales.into_iter().map(|(task, (_, scale))| (task, scale));
    Ok(Description::new(tasks, clients, sources).with_scales(scales))
}

/// Adds a site's tasks. A new one is put after the one that it follows at its site, so tasks keep the order that each
/// site gives them, and otherwise have that of the sites.
fn add_tasks(tasks: &mut Vec<TaskSpec>, new: &[TaskSpec]) -> Result<(), String> {
    let mut next = None;
    for task in new {
        let at = match tasks.iter().position(|known| known.name == task.name) {
            Some(at) if tasks[at] != *task => {
                if let [Some(there), Some(here)] = [&tasks[at], task].map(|task| task.target_kind.classes())
                    && there != here
                {
                    let (name, here, there) = (&task.name, here.join(", "), there.join(", "));
                    return Err(format!("task `{name}` has the classes {here}, but {there} at an earlier site"));
                }
                return Err(format!("task `{}` has other inputs or another target than at an earlier site", task.name));
            }
            Some(at) => at,
            None => {
                let at = next.unwrap_or(tasks.len());
                tasks.insert(at, task.clone());
                at
            }
        };
        next = Some(at + 1);
    }
    Ok(())
}

/// Adds the scales of a site's targets, each with the site's name.
fn add_scales<'n>(
    scales: &mut BTreeMap<String, (&'n str, Scale)>,
    site: &'n str,
    new: &BTreeMap<String, Scale>,
) -> Result<(), CliError> {
    for (task, scale) in new {
        match scales.get(task) {
            Some((other, known)) if known != scale => {
                let what = format!("task `{task}` is standardised by other numbers than at site `{other}`");
                let report = Diagnostic::new(format!("site `{site}`: {what}"));
                let hint = "give the numbers in the experiment: `standardise = { mean = 60.0, deviation = 10.0 }`";
                return Err(CliError::usage(report.hint(hint)));
            }
            Some(_) => {}
            None => drop(scales.insert(task.clone(), (site, *scale))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::config::FlowerApp;

    fn contribution(site: &str, tasks: &[&str]) -> Contribution {
        let held = tasks
            .iter()
            .map(|name| ClientTask { name: (*name).to_owned(), train: 1, test: 1, validation: 0 })
            .collect();
        Contribution {
            tasks: tasks.iter().map(|name| TaskSpec::new(*name, ["x"], "y")).collect(),
            client: ClientSpec { name: site.to_owned(), tasks: held },
            scales: BTreeMap::new(),
            sources: Vec::new(),
            plugins: Value::Null,
            device: "cpu".to_owned(),
            score: None,
        }
    }

    /// Sites of fedplug.
    fn sites(names: &[&str]) -> Vec<Site> {
        let site = |name: &&str| Site { name: (*name).to_owned(), fingerprint: String::new(), flower: None };
        names.iter().map(site).collect()
    }

    fn order(all: &[&[&str]]) -> Vec<String> {
        let names: Vec<String> = (0..all.len()).map(|site| site.to_string()).collect();
        let contributions: Vec<_> = names.iter().zip(all).map(|(name, tasks)| contribution(name, tasks)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        join(&sites(&names), &contributions).unwrap().tasks.into_iter().map(|task| task.name).collect()
    }

    #[test]
    fn tasks_keep_the_order_of_each_site() {
        assert_eq!(order(&[&["a"], &["b"], &["c"]]), ["a", "b", "c"]);
        assert_eq!(order(&[&["a", "c"], &["a", "b", "c"]]), ["a", "b", "c"]);
        assert_eq!(order(&[&["b"], &["b", "c"], &["a"]]), ["b", "c", "a"]);
    }

    #[test]
    fn sites_that_contradict_one_another_are_named() {
        let names = sites(&["p", "q"]);
        let (p, mut q) = (contribution("p", &["a"]), contribution("q", &["a"]));
        q.tasks[0].target = "z".to_owned();
        let told = join(&names, &[p.clone(), q]).unwrap_err().to_string();
        assert!(told.contains("site `q`: task `a` has other inputs or another target"), "{told}");
        let scaled = |site: &str, mean: f64| {
            let scales = [("a".to_owned(), Scale { mean, deviation: 1.0 })].into_iter().collect();
            Contribution { scales, ..contribution(site, &["a"]) }
        };
        let told = join(&names, &[scaled("p", 1.0), scaled("q", 2.0)]).unwrap_err().to_string();
        assert!(told.contains("site `q`: task `a` is standardised by other numbers than at site `p`"), "{told}");
        assert!(join(&names, &[scaled("p", 1.0), scaled("q", 1.0)]).is_ok());
    }

    #[test]
    fn a_plain_flower_client_has_all_tasks_without_rows() {
        let mut all = sites(&["p", "q", "r"]);
        all[1].flower = Some(FlowerApp::Message);
        let described = join(&all, &[contribution("p", &["a"]), contribution("r", &["b"])]).unwrap();
        let told = |client: &ClientSpec| {
            let tasks = client.tasks.iter().map(|task| (task.name.clone(), task.train + task.test)).collect::<Vec<_>>();
            (client.name.clone(), tasks)
        };
        let clients: Vec<(String, Vec<(String, usize)>)> = described.clients.iter().map(told).collect();
        let [a, b] = ["a", "b"].map(str::to_owned);
        let wanted = [("p", vec![(a.clone(), 2)]), ("q", vec![(a, 0), (b.clone(), 0)]), ("r", vec![(b, 2)])];
        assert_eq!(clients, wanted.map(|(name, tasks)| (name.to_owned(), tasks)));
    }
}
