//! Writing a federation to a checkpoint and restoring it.

use plugin_api::State;
use serde::{Deserialize, Serialize};

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::artefacts::tracking::Positions;
use crate::error::{CliError, Diagnostic};
use crate::federation::best_models::RankingEntry;
use crate::federation::client::{ClientState, Failed, Progress};
use crate::federation::component_error::ComponentError;
use crate::federation::early_stopping::Patience;
use crate::federation::filters::{FilterStates, Filters};
use crate::federation::history::History;
use crate::federation::notes::Note;
use crate::federation::rounds::Federation;
use crate::federation::server::{self, Server};
use crate::federation::totals::TotalsEntry;
use crate::federation::trace::Trace;

/// The host's part of a checkpoint, without the components' states.
#[derive(Serialize, Deserialize)]
pub(crate) struct CheckpointIndex {
    /// The number of finished rounds.
    pub done: u64,
    /// The lengths of the metrics files at the end of the last finished round.
    pub positions: Positions,
    totals: TotalsEntry,
    #[serde(rename = "record")]
    history: History,
    patience: Patience,
    notes: Vec<Note>,
    best: RankingEntry,
    clients: Vec<ClientEntry>,
}

#[derive(Serialize, Deserialize)]
struct ClientEntry {
    name: String,
    position: u64,
    /// The numbers of states of the filters on incoming and on outgoing messages.
    filters: [usize; 2],
    /// Whether the client's model has changed. Only then does the checkpoint hold its state.
    changed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    /// Whether the model has made its message of this round.
    #[serde(default)]
    sent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Failed>,
    /// The last round in which this client's update was aggregated into the global model.
    #[serde(rename = "taken", default, skip_serializing_if = "Option::is_none")]
    last_aggregated: Option<u64>,
}

impl CheckpointIndex {
    /// The least number of rounds of a run resumed from here: the finished ones, and one that was interrupted.
    pub(crate) fn least_rounds(&self) -> u64 {
        self.done + u64::from(self.clients.iter().any(|client| client.progress.is_some()))
    }

    /// The number of epochs that clients have finished in the interrupted round.
    pub(crate) fn epochs(&self) -> u64 {
        self.clients.iter().filter_map(|client| Some(client.progress.as_ref()?.epochs)).sum()
    }
}

impl ClientEntry {
    /// What the index holds of a client's state. The trace is in a file of its own.
    fn new(name: String, saved: ClientState) -> Self {
        Self {
            name,
            position: saved.position,
            filters: [saved.filters.input.len(), saved.filters.output.len()],
            changed: saved.model.is_some(),
            progress: saved.progress.map(|progress| Progress { trace: Trace::default(), ..progress }),
            sent: saved.sent.is_some(),
            failed: saved.failed,
            last_aggregated: saved.last_aggregated,
        }
    }
}

impl Federation<'_> {
    /// Writes a checkpoint. Within a round it holds the server's state from the start of the round.
    ///
    /// # Errors
    /// If a component cannot return its state, or a file cannot be written.
    pub(crate) fn save(&mut self) -> Result<(), CliError> {
        let mut writer = Writer::new(self.run_dir.path())?;
        writer.message("global", &self.server.global)?;
        let best = self.best.save(&mut writer)?;
        let states = match self.round_start.clone() {
            Some(states) => states,
            None => self.server_states(None).map_err(not_saved)?,
        };
        writer.state("aggregator", &states.aggregator)?;
        put_filters(&mut writer, "server", &states.filters)?;
        let mut clients = Vec::new();
        for index in self.clients.indices() {
            // Save one client at a time, so that at most one state is in memory besides the models.
            let saved = self.save_client(index)?;
            put_client(&mut writer, index, &saved)?;
            clients.push(ClientEntry::new(self.clients.name(index).to_owned(), saved));
        }
        writer.finish(&CheckpointIndex {
            done: self.done,
            positions: self.positions.clone(),
            totals: self.totals.entry(),
            history: self.history.clone(),
            patience: self.patience.clone(),
            notes: self.services.notes.list(),
            best,
            clients,
        })
    }

    /// Returns a client's state. A client that cannot be saved has failed, and its state says so.
    fn save_client(&mut self, index: usize) -> Result<ClientState, CliError> {
        let (services, policy) = (self.services, self.clients.policy);
        let client = self.clients.get_mut(index);
        client.save(services).or_else(|fault| {
            policy.apply(&fault, &format!("checkpoint, client `{}`", client.name()))?;
            client.save(services).map_err(not_saved)
        })
    }

    /// Restores a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint does not fit the experiment, or cannot be read.
    pub(crate) fn restore(&mut self, reader: &Reader, saved: CheckpointIndex) -> Result<(), CliError> {
        if saved.clients.iter().map(|client| &client.name).ne(&self.clients.names()) {
            let report = Diagnostic::new("the checkpoint is of a run with other clients");
            return Err(CliError::usage(report.hint("has the data changed since? start over with --force")));
        }
        self.server.global = reader.message("global")?;
        self.best.restore(reader, saved.best)?;
        self.restore_server(reader)?;
        for (index, entry) in saved.clients.into_iter().enumerate() {
            let state = get_client(reader, index, entry)?;
            self.clients.get_mut(index).restore(state, self.services).map_err(not_restored)?;
        }
        self.done = saved.done;
        self.totals.resume(saved.totals);
        self.positions = saved.positions;
        self.history = saved.history;
        self.patience = saved.patience;
        saved.notes.iter().for_each(|note| self.services.notes.set(&note.client, &note.who, &note.key, &note.text));
        Ok(())
    }

    /// Restores the aggregator and the server's filters.
    fn restore_server(&mut self, reader: &Reader) -> Result<(), CliError> {
        let Server { aggregator, filters: Filters { input, output }, .. } = &mut self.server;
        let state = reader.state("aggregator")?;
        aggregator
            .call(None, self.services, |aggregator, ctx| aggregator.restore(&state, ctx))
            .map_err(not_restored)?;
        let scope = server::scope(self.services, None, None);
        for (side, chain) in [input, output].into_iter().enumerate() {
            let states = get_states(reader, &format!("server.{side}"), chain.len())?;
            chain.restore(&states, &scope).map_err(not_restored)?;
        }
        Ok(())
    }
}

fn not_saved(fault: ComponentError) -> CliError {
    CliError::run(fault.report("checkpoint"))
}

fn not_restored(fault: ComponentError) -> CliError {
    CliError::run(fault.report("resuming from the checkpoint"))
}

/// The error if a client's scalars cannot be saved or restored.
fn of_trace(error: plugin_api::Error) -> ComponentError {
    ComponentError::new("metrics".to_owned(), error)
}

/// The name in the checkpoint of a part of a client.
fn client_part(index: usize, part: &str) -> String {
    format!("client.{index}.{part}")
}

/// Writes what the index does not hold of a client's state.
fn put_client(writer: &mut Writer, index: usize, saved: &ClientState) -> Result<(), CliError> {
    if let Some(state) = &saved.model {
        writer.state(&client_part(index, "model"), state)?;
    }
    put_filters(writer, &format!("client.{index}"), &saved.filters)?;
    if let Some(progress) = &saved.progress {
        let trace = progress.trace.state().map_err(|e| not_saved(of_trace(e)))?;
        writer.state(&client_part(index, "trace"), &trace)?;
    }
    if let Some(message) = &saved.sent {
        writer.message(&client_part(index, "sent"), message)?;
    }
    Ok(())
}

/// Reads a client's state.
fn get_client(reader: &Reader, index: usize, entry: ClientEntry) -> Result<ClientState, CliError> {
    let ClientEntry { position, filters: [inputs, outputs], changed, progress, sent, failed, last_aggregated, .. } =
        entry;
    let trace = || {
        let state = reader.state(&client_part(index, "trace"))?;
        Trace::read(&state).map_err(|e| not_restored(of_trace(e)))
    };
    Ok(ClientState {
        model: changed.then(|| reader.state(&client_part(index, "model"))).transpose()?,
        filters: FilterStates {
            input: get_states(reader, &client_part(index, "0"), inputs)?,
            output: get_states(reader, &client_part(index, "1"), outputs)?,
        },
        position,
        progress: progress.map(|progress| Ok::<_, CliError>(Progress { trace: trace()?, ..progress })).transpose()?,
        sent: sent.then(|| reader.message(&client_part(index, "sent"))).transpose()?,
        failed,
        last_aggregated,
    })
}

/// Writes the states of the filters at one end.
fn put_filters(writer: &mut Writer, name: &str, filters: &FilterStates) -> Result<(), CliError> {
    for (side, states) in [&filters.input, &filters.output].into_iter().enumerate() {
        for (index, state) in states.iter().enumerate() {
            writer.state(&format!("{name}.{side}.{index}"), state)?;
        }
    }
    Ok(())
}

fn get_states(reader: &Reader, name: &str, count: usize) -> Result<Vec<State>, CliError> {
    (0..count).map(|index| reader.state(&format!("{name}.{index}"))).collect()
}
