//! What one client needs whose server and fellow clients are elsewhere.

use plugin_api::{ClientSpec, Description, ModelSetup, TaskSpec};

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Draft, Experiment};
use crate::federation::services::HostServices;
use crate::plugins::Finder;
use crate::setup::Shared;
use crate::setup::client_side::{ClientParts, ClientSide};
use crate::setup::errors::Errors;
use crate::setup::plugins::{Plugins, Role};

/// What a site has for an experiment, before it knows the other sites.
pub(crate) struct SiteSetup {
    /// The experiment.
    pub experiment: Experiment,
    /// The plugins.
    pub plugins: Plugins,
    /// The dataset and the model.
    pub clients: ClientSide,
    /// The contents of the dataset.
    pub description: Description,
    /// The site's own entry of the description.
    pub client: ClientSpec,
}

impl SiteSetup {
    /// Finds the plugins that a client needs, checks their tables, and opens the data of the site `name`.
    ///
    /// # Errors
    /// All errors that can be found independently of one another.
    pub(crate) fn new(
        draft: Draft,
        name: &str,
        finder: &Finder,
        services: &HostServices<'_>,
    ) -> Result<Self, CliError> {
        let Draft { mut experiment, reports } = draft;
        // The number of clients is the server's business.
        experiment.federation.min_clients = 1;
        let mut errors = Errors::new(&experiment, reports);
        let plugins = Plugins::open(&experiment, Role::Client, finder, &mut errors.reports);
        plugins.warn_of_libraries(services.console);
        let ClientParts { data, placement, .. } = ClientParts::new(&experiment, &plugins, services, &mut errors);
        let reports = errors.reports;
        let Some((clients, description)) =
            ClientSide::complete(&plugins, data, placement).filter(|_| reports.is_empty())
        else {
            return Err(CliError::usage(reports));
        };
        let Some(client) = description.clients.iter().find(|client| client.name == name).cloned() else {
            let known = description.clients.iter().map(|client| format!("`{}`", client.name)).collect::<Vec<_>>();
            let report = Diagnostic::new(format!("the dataset has no client `{name}`"));
            return Err(CliError::usage(report.hint(format!("it has {}", known.join(", ")))));
        };
        Ok(Self { experiment, plugins, clients, description, client })
    }

    /// Takes a place among all clients, with the tasks that all sites have agreed on. Returns what the site's one
    /// client is made of, and its index.
    ///
    /// # Errors
    /// If the site is not among the clients.
    pub(crate) fn join(self, names: &[String], tasks: Vec<TaskSpec>) -> Result<(Shared, ClientSide, usize), CliError> {
        let Self { experiment, plugins, mut clients, client, description } = self;
        let Some(index) = names.iter().position(|name| *name == client.name) else {
            let report = Diagnostic::new(format!("`{}` is not among the run's clients", client.name));
            return Err(CliError::run(report));
        };
        let device = clients.placement.devices.first().cloned().unwrap_or_else(|| "cpu".to_owned());
        clients.placement.devices = vec![device; names.len()];
        let other = |name: &String| ClientSpec { name: name.clone(), tasks: Vec::new() };
        let all = names.iter().map(|name| if *name == client.name { client.clone() } else { other(name) }).collect();
        let joined = Description::new(tasks.clone(), all, description.sources).with_scales(description.scales);
        let federation = &experiment.federation;
        let model_setup = ModelSetup::new(tasks, federation.rounds.max(1), federation.local_epochs.max(1));
        let score_name = clients.score_name(&joined.tasks);
        Ok((Shared { experiment, plugins, description: joined, model_setup, score_name }, clients, index))
    }
}
