//! What the clients of an experiment need.

use std::sync::Arc;

use plugin_api::{Context, Dataset, Description, TaskSpec};

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Experiment, Federation};
use crate::federation::component_error::ComponentError;
use crate::federation::local_client::{Identity, LocalClient};
use crate::federation::model_evaluation::ClientTasks;
use crate::federation::model_handle::ModelHandle;
use crate::federation::model_store::{ModelFactory, Store};
use crate::federation::services::{CallScope, ClientRef, HostServices};
use crate::plugins::validate;
use crate::setup::Shared;
use crate::setup::errors::Errors;
use crate::setup::filters::{End, new_filters, try_filters};
use crate::setup::placement::Placement;
use crate::setup::plugins::{LoadedPlugin, Plugins};
use crate::setup::{description, targets};

/// What the clients of an experiment need.
pub(crate) struct ClientSide {
    /// The dataset's plugin.
    pub dataset_plugin: LoadedPlugin,
    /// The dataset.
    pub dataset: Box<dyn Dataset>,
    /// The model's plugin.
    pub model: LoadedPlugin,
    /// The device of each client.
    pub placement: Placement,
}

/// An open dataset.
pub(super) struct Data {
    pub(super) dataset: Box<dyn Dataset>,
    pub(super) description: Description,
}

impl Data {
    fn open(plugin: &LoadedPlugin, services: &HostServices<'_>) -> plugin_api::Result<Self> {
        plugin.call(services, "cpu", |ctx: &Context<'_>| {
            let mut dataset = plugin.component.new_dataset(&plugin.plugin_ref.config, ctx)?;
            let description = dataset.describe(ctx)?;
            description::check(&description)?;
            description::warn_of_untrained(&description, ctx);
            description::warn_of_untested(&description, ctx);
            Ok(Self { dataset, description })
        })
    }
}

/// Those parts of the clients' side that could be made.
pub(super) struct ClientParts {
    pub(super) data: Option<Data>,
    /// The tasks; none if the dataset failed, or if the model cannot learn them, so that it need not say so again.
    pub(super) tasks: Vec<TaskSpec>,
    pub(super) placement: Option<Placement>,
}

impl ClientParts {
    /// Opens the dataset, chooses the clients' devices, and creates the filters of the first client, to check that this
    /// works; if the dataset failed, of a placeholder client.
    pub(super) fn new(
        experiment: &Experiment,
        plugins: &Plugins,
        services: &HostServices<'_>,
        errors: &mut Errors<'_>,
    ) -> Self {
        let data = plugins.dataset.as_ref().and_then(|plugin| errors.take(plugin, Data::open(plugin, services)));
        let clients = data.as_ref().map(|data| data.description.clients.as_slice());
        let name = clients.map_or("client", |clients| clients[0].name.as_str());
        let first = End::Client { client: ClientRef { index: 0, name }, device: "cpu" };
        try_filters(&plugins.filters, first, services, errors);
        let mut tasks = data.as_ref().map(|data| data.description.tasks.clone()).unwrap_or_default();
        if let Some(model) = &plugins.model {
            let (profile, table) = (model.component.profile(), &model.plugin_ref.config);
            if errors.take(model, targets::check_model(profile, table, &tasks)).is_none() {
                tasks.clear();
            }
        }
        let devices = plugins.model.as_ref().and_then(|model| errors.take(model, model.component.devices()));
        if let Some(clients) = clients.map(<[_]>::len)
            && errors.host_keys_are_valid
            && experiment.federation.min_clients > clients
        {
            errors.add_at("min-clients", Diagnostic::new(format!("there are only {clients} clients")));
        }
        let count = clients.map_or(1, <[_]>::len);
        let placement = devices.and_then(|devices| {
            let Federation { devices: wanted, threads, clients_per_device, .. } = &experiment.federation;
            Placement::new(wanted, &devices, count, *threads, *clients_per_device)
                .map_err(|found| found.into_iter().for_each(|report| errors.add_at("devices", report)))
                .ok()
        });
        Self { data, tasks, placement }
    }
}

impl ClientSide {
    /// Puts the parts together, if all could be made. Also returns the contents of the dataset.
    pub(super) fn complete(
        plugins: &Plugins,
        data: Option<Data>,
        placement: Option<Placement>,
    ) -> Option<(Self, Description)> {
        let (dataset_plugin, model) = (plugins.dataset.clone()?, plugins.model.clone()?);
        let (Data { dataset, description }, placement) = (data?, placement?);
        Some((Self { dataset_plugin, dataset, model, placement }, description))
    }

    /// What the score of the model measures for these tasks, if the model says it.
    pub(crate) fn score_name(&self, tasks: &[TaskSpec]) -> Option<String> {
        targets::score_name(self.model.component.profile(), &self.model.plugin_ref.config, tasks)
    }

    /// The identity of a client.
    pub(crate) fn identity(&self, shared: &Shared, index: usize) -> Arc<Identity> {
        let name = shared.description.clients[index].name.clone();
        let (device, plugin) = (self.placement.devices[index].clone(), self.model.plugin_ref.plugin.clone());
        Arc::new(Identity { index, name, device, plugin })
    }

    /// Loads a client's data from the dataset, with the rows for validation apart.
    ///
    /// # Errors
    /// If the data cannot be read, or do not match their description.
    pub(crate) fn tasks(
        &mut self,
        shared: &Shared,
        index: usize,
        services: &HostServices<'_>,
    ) -> Result<ClientTasks, ComponentError> {
        let (spec, plugin) = (&shared.description.clients[index], &self.dataset_plugin);
        let client = ClientRef { index, name: &spec.name };
        let scope = CallScope::new(services, &plugin.plugin_ref.plugin, Some(client), None);
        let scope = scope.on(&self.placement.devices[index]);
        let loaded = self.dataset.load(&spec.name, &scope.context());
        loaded
            .and_then(|all| validate::loaded(spec, all))
            .and_then(ClientTasks::new)
            .map_err(|error| plugin.fault(error))
    }

    /// Creates all clients, which share a recipe for models.
    ///
    /// # Errors
    /// If one of them cannot be created.
    pub(crate) fn clients(
        &mut self,
        shared: &Shared,
        store: &Arc<Store>,
        services: &HostServices<'_>,
    ) -> Result<Vec<LocalClient>, CliError> {
        let factory = self.model_factory(shared);
        let client = |index: usize| {
            self.client(shared, index, &factory, store, services).map_err(|fault| {
                let name = &shared.description.clients[index].name;
                CliError::run(fault.report(&format!("client `{name}`")))
            })
        };
        (0..shared.description.clients.len()).map(client).collect()
    }

    /// Creates one client with its data, its filters, and a model handle in the store.
    ///
    /// # Errors
    /// If the data cannot be read, or a filter cannot be created.
    pub(crate) fn client(
        &mut self,
        shared: &Shared,
        index: usize,
        factory: &Arc<ModelFactory>,
        store: &Arc<Store>,
        services: &HostServices<'_>,
    ) -> Result<LocalClient, ComponentError> {
        let identity = self.identity(shared, index);
        let tasks = self.tasks(shared, index, services)?;
        let filters = new_filters(&shared.plugins.filters, End::of(&identity), services)?;
        let held = tasks.all.iter().map(|task| task.spec.name.clone()).collect();
        let model = ModelHandle::new(factory.clone(), store.clone(), &identity.name, held);
        Ok(LocalClient::new(identity, model, tasks, filters, store.clone()))
    }

    /// The recipe for the models of all clients.
    pub(crate) fn model_factory(&self, shared: &Shared) -> Arc<ModelFactory> {
        let (component, config) = (self.model.component.clone(), self.model.plugin_ref.config.clone());
        Arc::new(ModelFactory { component, config, plan: shared.model_setup.clone() })
    }
}
