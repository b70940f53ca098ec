//! Combining an experiment with its plugins: everything that can be checked without training.
//!
//! A setup has three parts. What the [server](ServerSide) needs and what the [clients](ClientSide) need is made
//! independently of one another, from what both [share](Shared), so that they can be on different machines.

pub(crate) mod changes;
pub(crate) mod client_side;
pub(crate) mod description;
pub(crate) mod dry_run;
pub(crate) mod errors;
pub(crate) mod filters;
pub(crate) mod manifest;
pub(crate) mod placement;
pub(crate) mod plugins;
pub(crate) mod server_side;
pub(crate) mod site;
pub(crate) mod targets;

use plugin_api::{Description, ModelSetup, Seed};

use crate::error::CliError;
use crate::experiment::config::{Draft, Experiment, PluginRef};
use crate::federation::model_evaluation::Validation;
use crate::federation::sampling;
use crate::federation::services::HostServices;
use crate::plugins::Finder;
use crate::setup::client_side::{ClientParts, ClientSide};
use crate::setup::errors::Errors;
use crate::setup::plugins::{LoadedPlugin, Plugins, Role};
use crate::setup::server_side::ServerSide;

/// What server and clients both need. Nothing of it holds data or a model.
pub(crate) struct Shared {
    /// The experiment.
    pub experiment: Experiment,
    /// The plugins.
    pub plugins: Plugins,
    /// The contents of the dataset.
    pub description: Description,
    /// The setup that the models are created with.
    pub model_setup: ModelSetup,
    /// The name of the model's score, if the model names it.
    pub score_name: Option<String>,
}

impl Shared {
    /// Whether the best model and early stopping go by rows for validation.
    pub(crate) fn validation(&self) -> Validation {
        let Self { experiment, description, .. } = self;
        let (clients, seed) = (&description.clients, Seed::new(u64::from(experiment.seed)));
        let evaluators = sampling::evaluators(clients.len(), &experiment.federation, seed);
        Validation::of(evaluators.iter().map(|&index| &clients[index]))
    }

    /// The experiment as the run's directory keeps it: with its folder, so that it means the same files from anywhere.
    ///
    /// # Errors
    /// If the folder's name cannot be written as TOML.
    pub(crate) fn recorded(&self) -> Result<String, CliError> {
        let schemas = |plugin: &LoadedPlugin| {
            let LoadedPlugin { plugin_ref: PluginRef { table, config, .. }, component, .. } = plugin;
            component.schema(config).ok().map(|schema| (table.clone(), schema.into_owned()))
        };
        self.experiment.recorded(&self.plugins.iter().filter_map(schemas).collect::<Vec<_>>())
    }

    /// The names of the clients.
    pub(crate) fn client_names(&self) -> Vec<String> {
        self.description.clients.iter().map(|client| client.name.clone()).collect()
    }
}

/// An experiment that is ready to run.
pub(crate) struct Setup {
    /// What both sides need.
    pub shared: Shared,
    /// What only the server needs.
    pub server: ServerSide,
    /// What only the clients need.
    pub clients: ClientSide,
}

impl Setup {
    /// Finds the plugins, checks their configurations, reads the data, and creates one instance of each component.
    ///
    /// # Errors
    /// All errors that can be found independently of one another, including those in the host's keys.
    pub(crate) fn new(draft: Draft, finder: &Finder, services: &HostServices<'_>) -> Result<Self, CliError> {
        let Draft { experiment, reports } = draft;
        let mut errors = Errors::new(&experiment, reports);
        let plugins = Plugins::open(&experiment, Role::Both, finder, &mut errors.reports);
        plugins.warn_of_libraries(services.console);
        let ClientParts { data, tasks, placement } = ClientParts::new(&experiment, &plugins, services, &mut errors);
        // Even if the dataset failed, report errors in the devices, the model and the server's components.
        let federation = &experiment.federation;
        let model_setup = ModelSetup::new(tasks, federation.rounds.max(1), federation.local_epochs.max(1));
        let device = placement.as_ref().and_then(|placement| placement.devices.first()).map_or("cpu", String::as_str);
        let server = ServerSide::new(&experiment, &plugins, &model_setup, device, services, &mut errors);
        errors.reports.extend(targets::check_score(&experiment, &model_setup.tasks));
        let reports = errors.reports;
        let clients = ClientSide::complete(&plugins, data, placement);
        match (clients, server) {
            (Some((clients, description)), Some(server)) if reports.is_empty() => {
                let score_name = clients.score_name(&description.tasks);
                let shared = Shared { experiment, plugins, description, model_setup, score_name };
                Ok(Self { shared, server, clients })
            }
            _ => Err(CliError::usage(reports)),
        }
    }
}
