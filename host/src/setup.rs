//! An experiment and the plugins that it names, brought together: all that can be checked without training.

use std::sync::Arc;

use plugin_api::{Aggregator, ClientSpec, Component, Dataset, Description, Kind, ModelSetup, Params};
use serde_json::Value;

use crate::client::{Identity, LocalClient};
use crate::config::{Choice, Experiment, Place};
use crate::error::{Failure, Report};
use crate::filters::Chain;
use crate::idle::{Recipe, Resident, Store};
use crate::link::{Fault, Line, Link};
use crate::placement::Placement;
use crate::plugins::{Finder, Library};
use crate::trust;

/// A plugin of the experiment, found and opened.
#[derive(Clone, Debug)]
pub struct Used {
    /// What the experiment says of it.
    pub choice: Choice,
    /// Its library.
    pub library: Library,
    /// The component.
    pub component: Component,
}

/// An experiment that is ready to run.
pub struct Setup {
    /// The experiment.
    pub experiment: Experiment,
    /// The model's plugin.
    pub model: Used,
    /// The dataset's plugin.
    pub data: Used,
    /// The aggregator's plugin.
    pub aggregation: Used,
    /// The filters' plugins with their places.
    pub filters: Vec<(Place, Used)>,
    /// The dataset.
    pub dataset: Box<dyn Dataset>,
    /// What the dataset holds.
    pub description: Description,
    /// The aggregator.
    pub aggregator: Box<dyn Aggregator>,
    /// The server's filters: on what it gets, and on what it sends.
    pub server: [Chain; 2],
    /// What the models are made for.
    pub plan: ModelSetup,
    /// Which client computes where.
    pub placement: Placement,
    /// The parameters that the first round begins with.
    pub initial: Params,
}

impl Setup {
    /// Finds the plugins, checks their configurations, reads the data, makes one instance of everything.
    ///
    /// # Errors
    /// All that is wrong, so far as one thing can be checked without another.
    pub fn new(experiment: Experiment, finder: &Finder, link: &Link<'_>) -> Result<Self, Failure> {
        let found = find_all(&experiment, finder)?;
        let Found { model, dataset: data, aggregator: aggregation, filters } = found;
        let mut reports = Vec::new();
        let mut note = |used: &Used, error: plugin_api::Error| reports.push(placed(&experiment, used, error));

        let federation = &experiment.federation;
        let dataset = with_line(link, &data, |ctx| {
            let mut dataset = data.component.new_dataset(&data.choice.config, ctx)?;
            let description = dataset.describe(ctx)?;
            check_description(&description)?;
            Ok((dataset, description))
        });
        let dataset = dataset.map_err(|e| note(&data, e)).ok();
        let aggregator =
            with_line(link, &aggregation, |ctx| aggregation.component.new_aggregator(&aggregation.choice.config, ctx));
        let aggregator = aggregator.map_err(|e| note(&aggregation, e)).ok();
        let mut server = [Chain::default(), Chain::default()];
        // A client's filters are made here for the first client, to see that they can be. What is wrong with a table is
        // told once, at however many places it stands.
        let first = dataset.as_ref().map(|(_, description)| (0, description.clients[0].name.as_str()));
        let mut faulty: Option<&[String]> = None;
        for (place, used) in &filters {
            let at_client = matches!(place, Place::ClientInput | Place::ClientOutput);
            if faulty == Some(used.choice.table.as_slice()) || (at_client && first.is_none()) {
                continue;
            }
            let line = Line::new(link, &used.choice.plugin, first.filter(|_| at_client), None);
            match (used.component.new_filter(&used.choice.config, &line.context()), place) {
                (Ok(filter), Place::ServerInput) => server[0].push(used.choice.plugin.clone(), filter),
                (Ok(filter), Place::ServerOutput) => server[1].push(used.choice.plugin.clone(), filter),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    faulty = Some(used.choice.table.as_slice());
                    note(used, error);
                }
            }
        }
        let devices = model.component.devices().map_err(|e| note(&model, e)).ok();
        // Even where the dataset failed, say what is wrong with the devices and the model.
        let clients = dataset.as_ref().map_or(1, |(_, description)| description.clients.len());
        if dataset.is_some() && federation.min_clients > clients {
            let report = Report::new(format!("there are only {clients} clients"));
            let way = ["federation".to_owned(), "min-clients".to_owned()];
            reports.push(experiment.document.place(report, &way));
        }
        let placement = devices.and_then(|devices| {
            Placement::new(&federation.devices, &devices, clients, federation.threads)
                .map_err(|found| {
                    let way = ["federation".to_owned(), "devices".to_owned()];
                    reports.extend(found.into_iter().map(|report| experiment.document.place(report, &way)));
                })
                .ok()
        });
        let tasks = dataset.as_ref().map(|(_, description)| description.tasks.clone()).unwrap_or_default();
        let plan = ModelSetup::new(tasks, federation.rounds, federation.local_epochs);
        let device = placement.as_ref().and_then(|placement| placement.devices.first()).map_or("cpu", String::as_str);
        let initial = with_line_on(link, &model, device, |ctx| {
            model.component.new_model(&model.choice.config, &plan, ctx)?.parameters(ctx)
        });
        let initial = initial.map_err(|e| reports.push(placed(&experiment, &model, e))).ok();

        match (dataset, aggregator, placement, initial) {
            (Some((dataset, description)), Some(aggregator), Some(placement), Some(initial)) if reports.is_empty() => {
                Ok(Self {
                    experiment,
                    model,
                    data,
                    aggregation,
                    filters,
                    dataset,
                    description,
                    aggregator,
                    server,
                    plan,
                    placement,
                    initial,
                })
            }
            _ => Err(Failure::usage(reports)),
        }
    }

    /// Makes the clients: each with its data, its filters, and a place for its model in the store.
    ///
    /// # Errors
    /// If one of them cannot be made.
    pub fn clients(&mut self, store: &Arc<Store>, link: &Link<'_>) -> Result<Vec<LocalClient>, Failure> {
        let specs = self.description.clients.clone();
        let (component, config) = (self.model.component.clone(), self.model.choice.config.clone());
        let recipe = Arc::new(Recipe { component, config, plan: self.plan.clone() });
        let model = |spec: &ClientSpec| {
            let held = spec.tasks.iter().map(|task| task.name.clone()).collect();
            Resident::new(recipe.clone(), store.clone(), &spec.name, held)
        };
        let client = |(index, spec)| self.client(index, spec, (model(spec), store.clone()), link);
        specs.iter().enumerate().map(client).collect()
    }

    fn client(
        &mut self,
        index: usize,
        spec: &ClientSpec,
        (model, store): (Resident, Arc<Store>),
        link: &Link<'_>,
    ) -> Result<LocalClient, Failure> {
        let place = format!("client `{}`", spec.name);
        let failed = |used: &Used, error: plugin_api::Error| Failure::run(Fault::new(who(used), error).report(&place));
        let device = self.placement.devices[index].clone();
        let line = |used: &Used, act: &mut dyn FnMut(&plugin_api::Context<'_>) -> plugin_api::Result<()>| {
            let line = Line::new(link, &used.choice.plugin, Some((index, &spec.name)), None).on(&device);
            act(&line.context()).map_err(|e| failed(used, e))
        };
        let mut tasks = Vec::new();
        line(&self.data, &mut |ctx| {
            self.dataset.load(&spec.name, ctx).and_then(|all| trust::loaded(spec, all)).map(|all| tasks = all)
        })?;
        let mut chains = [Chain::default(), Chain::default()];
        for (place, used) in &self.filters {
            let chain = match place {
                Place::ClientInput => &mut chains[0],
                Place::ClientOutput => &mut chains[1],
                Place::ServerInput | Place::ServerOutput => continue,
            };
            line(used, &mut |ctx| {
                used.component
                    .new_filter(&used.choice.config, ctx)
                    .map(|filter| chain.push(used.choice.plugin.clone(), filter))
            })?;
        }
        let plugin = self.model.choice.plugin.clone();
        let identity = Arc::new(Identity { index, name: spec.name.clone(), device, plugin });
        Ok(LocalClient::new(identity, model, tasks, chains, store))
    }
}

struct Found {
    model: Used,
    dataset: Used,
    aggregator: Used,
    filters: Vec<(Place, Used)>,
}

/// Finds and opens all plugins, and lets each check its table; everything that is wrong is told at once.
fn find_all(experiment: &Experiment, finder: &Finder) -> Result<Found, Failure> {
    let mut reports = Vec::new();
    let mut note = |kind, choice| find(experiment, finder, kind, choice).map_err(|found| reports.extend(found)).ok();
    let dataset = note(Kind::Dataset, &experiment.dataset);
    let model = note(Kind::Model, &experiment.model);
    let aggregator = note(Kind::Aggregator, &experiment.aggregator);
    // A table that names several places is looked at once.
    let mut last: Option<(&[String], Option<Used>)> = None;
    let mut filters = Vec::new();
    for (place, choice) in &experiment.filters {
        if last.as_ref().is_none_or(|(table, _)| *table != choice.table.as_slice()) {
            last = Some((choice.table.as_slice(), note(Kind::Filter, choice)));
        }
        filters.extend(last.as_ref().and_then(|(_, used)| used.clone()).map(|used| (*place, used)));
    }
    match (model, dataset, aggregator) {
        (Some(model), Some(dataset), Some(aggregator)) if reports.is_empty() => {
            Ok(Found { model, dataset, aggregator, filters })
        }
        _ => Err(Failure::usage(reports)),
    }
}

/// Finds and opens one plugin, and lets it check its table.
///
/// # Errors
/// All that is wrong with the choice, at its place in the file.
pub fn find(experiment: &Experiment, finder: &Finder, kind: Kind, choice: &Choice) -> Result<Used, Vec<Report>> {
    let document = &experiment.document;
    let (library, component) = finder.find(kind, &choice.plugin).map_err(|report| {
        let way: Vec<String> = choice.table.iter().cloned().chain(["plugin".to_owned()]).collect();
        vec![document.place(report, &way)]
    })?;
    let used = Used { choice: choice.clone(), library, component };
    let problems =
        used.component.check(&choice.config).map_err(|error| vec![Report::from(error).within(&who(&used))])?;
    if problems.is_empty() {
        return Ok(used);
    }
    let table: Vec<&str> = choice.table.iter().map(String::as_str).collect();
    Err(document.reports(&table, problems))
}

fn who(used: &Used) -> String {
    format!("{} `{}`", used.component.profile().kind, used.choice.plugin)
}

fn with_line<R>(
    link: &Link<'_>,
    used: &Used,
    act: impl FnOnce(&plugin_api::Context<'_>) -> plugin_api::Result<R>,
) -> plugin_api::Result<R> {
    with_line_on(link, used, "cpu", act)
}

fn with_line_on<R>(
    link: &Link<'_>,
    used: &Used,
    device: &str,
    act: impl FnOnce(&plugin_api::Context<'_>) -> plugin_api::Result<R>,
) -> plugin_api::Result<R> {
    act(&Line::new(link, &used.choice.plugin, None, None).on(device).context())
}

/// A plugin's error, shown at the key of its table that it speaks of, or at the table.
pub fn placed(experiment: &Experiment, used: &Used, error: plugin_api::Error) -> Report {
    let mut way = used.choice.table.clone();
    let key = match error.place() {
        Some(plugin_api::Place::Key(key)) => Some(key.clone()),
        _ => None,
    };
    let report = Report::from(error).within(&who(used));
    match key {
        Some(key) => {
            way.extend(key.split('.').map(str::to_owned));
            experiment.document.place(report, &way)
        }
        None => experiment.document.place_table(report, &way),
    }
}

/// What the host relies on: names that can name folders, each once.
///
/// # Errors
/// If the dataset describes something else.
pub fn check_description(description: &Description) -> plugin_api::Result<()> {
    let wrong = |what: String| Err(plugin_api::Error::data(what));
    if description.clients.is_empty() {
        return wrong("there is no client".to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    for client in &description.clients {
        let name = &client.name;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !plain || name == crate::tracking::SERVER {
            return wrong(format!("a client is named `{name}`, which cannot name its folder"));
        }
        if !seen.insert(name) {
            return wrong(format!("two clients are named `{name}`"));
        }
        let known = |task: &str| description.tasks.iter().any(|spec| spec.name == task);
        if let Some(task) = client.tasks.iter().find(|task| !known(&task.name)) {
            return wrong(format!("client `{name}` has a task `{}`, which is none of the dataset's", task.name));
        }
    }
    Ok(())
}

impl Used {
    /// What a manifest tells of it.
    pub fn manifest(&self) -> Value {
        let profile = self.component.profile();
        serde_json::json!({
            "kind": profile.kind,
            "name": profile.name,
            "library": self.library.path,
            "about": self.library.plugin.about,
        })
    }
}
