//! Combining an experiment with its plugins: everything that can be checked without training.

pub(crate) mod changes;
pub(crate) mod dry_run;
pub(crate) mod manifest;
pub(crate) mod placement;
pub(crate) mod selection;

use std::sync::Arc;

use plugin_api::{Aggregator, ClientSpec, Dataset, Description, ModelSetup, Params, Task, TaskSpec};

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Draft, Experiment, FilterPosition};
use crate::federation::filters::FilterChain;
use crate::federation::local_client::{Identity, LocalClient};
use crate::federation::model_store::{ModelFactory, ModelHandle, Store};
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::plugins::Finder;
use crate::plugins::validate;
use crate::setup::placement::Placement;
use crate::setup::selection::Found;
pub(crate) use crate::setup::selection::{LoadedPlugin, find, placed};

/// An experiment that is ready to run.
pub(crate) struct Setup {
    /// The experiment.
    pub experiment: Experiment,
    /// The model plugin.
    pub model: LoadedPlugin,
    /// The dataset plugin.
    pub data: LoadedPlugin,
    /// The aggregator plugin.
    pub aggregation: LoadedPlugin,
    /// The filter plugins with their positions.
    pub filters: Vec<(FilterPosition, LoadedPlugin)>,
    /// The dataset.
    pub dataset: Box<dyn Dataset>,
    /// The contents of the dataset.
    pub description: Description,
    /// The aggregator.
    pub aggregator: Box<dyn Aggregator>,
    /// The server's filters: for received messages, and for sent ones.
    pub server: [FilterChain; 2],
    /// The setup that the models are created with.
    pub plan: ModelSetup,
    /// The device of each client.
    pub placement: Placement,
    /// The parameters of the first global model.
    pub initial: Params,
}

impl Setup {
    /// Finds the plugins, checks their configurations, reads the data, and creates one instance of each component.
    ///
    /// # Errors
    /// All errors that can be found independently of one another, including those in the host's keys.
    pub(crate) fn new(draft: Draft, finder: &Finder, services: &HostServices<'_>) -> Result<Self, CliError> {
        let Draft { experiment, mut reports } = draft;
        let host_is_fine = reports.is_empty();
        let Found { model, dataset: data, aggregator: aggregation, filters } =
            Found::all(&experiment, finder, &mut reports);
        let used = [&model, &data, &aggregation].into_iter().flatten().chain(filters.iter().map(|(_, used)| used));
        let libraries: std::collections::BTreeMap<_, _> =
            used.map(|used| (&used.library.path, &used.library)).collect();
        for (path, line) in libraries.iter().flat_map(|(path, lib)| lib.strange().into_iter().map(move |l| (path, l))) {
            services.console.log(plugin_api::Level::Warn, &format!("{}: {line}", path.display()));
        }
        let mut note = |used: &LoadedPlugin, error: plugin_api::Error| reports.push(placed(&experiment, used, error));

        let federation = &experiment.federation;
        let dataset = data.as_ref().and_then(|data| {
            let made = data.with_line(services, "cpu", |ctx| {
                let mut dataset = data.component.new_dataset(&data.choice.config, ctx)?;
                let description = dataset.describe(ctx)?;
                check_description(&description)?;
                warn_of_untrained(&description, ctx);
                tell_untested(&description, ctx);
                Ok((dataset, description))
            });
            made.map_err(|e| note(data, e)).ok()
        });
        let aggregator = aggregation.as_ref().and_then(|used| {
            let made = used.with_line(services, "cpu", |ctx| used.component.new_aggregator(&used.choice.config, ctx));
            made.map_err(|e| note(used, e)).ok()
        });
        let mut server = [FilterChain::default(), FilterChain::default()];
        // Creates a client's filters for the first client, to check that this works; if the dataset failed, for a
        // placeholder client. An error in a table is reported once, no matter how many positions it names.
        let first = dataset.as_ref().map_or("client", |(_, description)| description.clients[0].name.as_str());
        let mut faulty: Option<&[String]> = None;
        for (place, used) in &filters {
            let at_client = matches!(place, FilterPosition::ClientInput | FilterPosition::ClientOutput);
            if faulty == Some(used.choice.table.as_slice()) {
                continue;
            }
            let scope = CallScope::new(services, &used.choice.plugin, at_client.then_some((0, first)), None).at(*place);
            let made = used.component.new_filter(&used.choice.config, &scope.context());
            let push = |chain: &mut FilterChain, filter| {
                chain.push(used.choice.plugin.clone(), used.choice.table.clone(), filter);
            };
            match (made, place) {
                (Ok(filter), FilterPosition::ServerInput) => push(&mut server[0], filter),
                (Ok(filter), FilterPosition::ServerOutput) => push(&mut server[1], filter),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    faulty = Some(used.choice.table.as_slice());
                    note(used, error);
                }
            }
        }
        let devices = model.as_ref().and_then(|model| model.component.devices().map_err(|e| note(model, e)).ok());
        // Even if the dataset failed, report errors in the devices and the model.
        let clients = dataset.as_ref().map_or(1, |(_, description)| description.clients.len());
        if dataset.is_some() && host_is_fine && federation.min_clients > clients {
            let report = Diagnostic::new(format!("there are only {clients} clients"));
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
        let plan = ModelSetup::new(tasks, federation.rounds.max(1), federation.local_epochs.max(1));
        let device = placement.as_ref().and_then(|placement| placement.devices.first()).map_or("cpu", String::as_str);
        let initial = model.as_ref().and_then(|model| {
            let made = model.with_line(services, device, |ctx| {
                model.component.new_model(&model.choice.config, &plan, ctx)?.parameters(ctx)
            });
            made.map_err(|e| reports.push(placed(&experiment, model, e))).ok()
        });

        match (model, data, aggregation, dataset, aggregator, placement, initial) {
            (
                Some(model),
                Some(data),
                Some(aggregation),
                Some((dataset, description)),
                Some(aggregator),
                Some(placement),
                Some(initial),
            ) if reports.is_empty() => Ok(Self {
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
            }),
            _ => Err(CliError::usage(reports)),
        }
    }

    /// Creates new filters for two positions: for a client, or for the server if `client` is `None`.
    ///
    /// # Errors
    /// If one of them cannot be created.
    pub(crate) fn chains(
        &self,
        places: [FilterPosition; 2],
        client: Option<(usize, &str)>,
        services: &HostServices<'_>,
    ) -> Result<[FilterChain; 2], ComponentError> {
        let device = client.map_or("cpu", |(index, _)| self.placement.devices[index].as_str());
        let mut chains = [FilterChain::default(), FilterChain::default()];
        for (place, used) in &self.filters {
            let Some(chain) = places.iter().position(|at| at == place) else { continue };
            let scope = CallScope::new(services, &used.choice.plugin, client, None).on(device).at(*place);
            let filter = used.component.new_filter(&used.choice.config, &scope.context()).map_err(|e| used.fault(e))?;
            chains[chain].push(used.choice.plugin.clone(), used.choice.table.clone(), filter);
        }
        Ok(chains)
    }

    /// Loads a client's data from the dataset.
    ///
    /// # Errors
    /// If the data cannot be read, or do not match their description.
    pub(crate) fn tasks(&mut self, index: usize, services: &HostServices<'_>) -> Result<Vec<Task>, ComponentError> {
        let spec = &self.description.clients[index];
        let scope = CallScope::new(services, &self.data.choice.plugin, Some((index, &spec.name)), None);
        let scope = scope.on(&self.placement.devices[index]);
        let loaded = self.dataset.load(&spec.name, &scope.context()).and_then(|all| validate::loaded(spec, all));
        loaded.map_err(|e| self.data.fault(e))
    }

    /// The identity of a client.
    pub(crate) fn identity(&self, index: usize) -> Arc<Identity> {
        let (name, device) = (self.description.clients[index].name.clone(), self.placement.devices[index].clone());
        Arc::new(Identity { index, name, device, plugin: self.model.choice.plugin.clone() })
    }

    /// Creates the clients: each with its data, its filters, and a model handle in the store.
    ///
    /// # Errors
    /// If one of them cannot be created.
    pub(crate) fn clients(
        &mut self,
        store: &Arc<Store>,
        services: &HostServices<'_>,
    ) -> Result<Vec<LocalClient>, CliError> {
        let (component, config) = (self.model.component.clone(), self.model.choice.config.clone());
        let recipe = Arc::new(ModelFactory { component, config, plan: self.plan.clone() });
        (0..self.description.clients.len()).map(|index| self.client(index, &recipe, store, services)).collect()
    }

    fn client(
        &mut self,
        index: usize,
        recipe: &Arc<ModelFactory>,
        store: &Arc<Store>,
        services: &HostServices<'_>,
    ) -> Result<LocalClient, CliError> {
        let identity = self.identity(index);
        let failed = |fault: ComponentError| CliError::run(fault.report(&format!("client `{}`", identity.name)));
        let tasks = self.tasks(index, services).map_err(failed)?;
        let places = [FilterPosition::ClientInput, FilterPosition::ClientOutput];
        let [input, output] = self.chains(places, Some((index, &identity.name)), services).map_err(failed)?;
        let held = tasks.iter().map(|task| task.spec.name.clone()).collect();
        let model = ModelHandle::new(recipe.clone(), store.clone(), &identity.name, held);
        Ok(LocalClient::new(identity, model, tasks, [input, output], store.clone()))
    }
}

/// Checks what the host relies on: names that are unique and valid as folder names.
///
/// # Errors
/// If the dataset's description is invalid.
pub(crate) fn check_description(description: &Description) -> plugin_api::Result<()> {
    let wrong = |what: String| Err(plugin_api::Error::data(what));
    if description.clients.is_empty() {
        return wrong("there is no client".to_owned());
    }
    let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    // If there are several tasks, each has a folder for its best model.
    if let Some(task) = description.tasks.iter().find(|task| description.tasks.len() > 1 && !plain(&task.name)) {
        return wrong(format!("task `{}`: the name cannot be that of a folder", task.name));
    }
    let mut seen = std::collections::BTreeSet::new();
    for client in &description.clients {
        let name = &client.name;
        if !plain(name) || name == crate::artefacts::tracking::SERVER {
            return wrong(format!("client `{name}`: the name cannot be that of a folder"));
        }
        if !seen.insert(name) {
            return wrong(format!("two clients are named `{name}`"));
        }
        let known = |task: &str| description.tasks.iter().any(|spec| spec.name == task);
        if let Some(task) = client.tasks.iter().find(|task| !known(&task.name)) {
            return wrong(format!("client `{name}` has a task `{}`, which the dataset does not have", task.name));
        }
    }
    Ok(())
}

/// Warns of clients without training rows for any task: they take part in rounds but never train.
fn warn_of_untrained(description: &Description, ctx: &plugin_api::Context<'_>) {
    const SHOWN: usize = 5;
    let untrained: Vec<&ClientSpec> =
        description.clients.iter().filter(|client| client.tasks.iter().all(|task| task.train == 0)).collect();
    if untrained.is_empty() {
        return;
    }
    let names: Vec<_> = untrained.iter().take(SHOWN).map(|client| format!("`{}`", client.name)).collect();
    let more = match untrained.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    ctx.warn(format_args!("clients without training rows never train: {}{more}", names.join(", ")));
}

/// Warns of tasks without test rows at some clients or at all of them, because their scores would be missing silently.
fn tell_untested(description: &Description, ctx: &plugin_api::Context<'_>) {
    const SHOWN: usize = 5;
    for TaskSpec { name, .. } in &description.tasks {
        let of_task = |client: &ClientSpec| client.tasks.iter().find(|task| task.name == *name).map(|task| task.test);
        let with_it = description.clients.iter().filter_map(|client| Some((&client.name, of_task(client)?)));
        let (without, with): (Vec<_>, Vec<_>) = with_it.partition(|(_, test)| *test == 0);
        if without.is_empty() {
            continue;
        }
        let names = without.iter().take(SHOWN).map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = without.len().saturating_sub(SHOWN);
        let clients = match (with.is_empty(), more) {
            (true, _) => "anywhere".to_owned(),
            (false, 0) => format!("at {names}"),
            (false, more) => format!("at {names} and {more} more clients"),
        };
        ctx.warn(format_args!("task `{name}` has no test rows {clients}"));
    }
}
