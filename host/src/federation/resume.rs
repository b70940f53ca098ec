//! Writing a federation to a checkpoint and restoring it.

use plugin_api::State;
use serde::{Deserialize, Serialize};

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::artefacts::tracking::Positions;
use crate::error::{CliError, Diagnostic};
use crate::federation::best_models::KeptRanking;
use crate::federation::checkpoint_entries::{FailureEntry, ProgressEntry};
use crate::federation::client::ClientState;
use crate::federation::early_stopping::Patience;
use crate::federation::history::History;
use crate::federation::notes::Note;
use crate::federation::rounds::{Federation, handle_client_failure};
use crate::federation::services::{CallScope, ComponentError};
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
    record: History,
    patience: Patience,
    notes: Vec<Note>,
    best: KeptRanking,
    clients: Vec<ClientEntry>,
}

#[derive(Serialize, Deserialize)]
struct ClientEntry {
    name: String,
    position: u64,
    /// The number of states of filters on incoming and on outgoing messages.
    filters: [usize; 2],
    /// Whether the client's model has changed. Only then does the checkpoint hold its state.
    changed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressEntry>,
    /// Whether the model has made its message of this round.
    #[serde(default)]
    sent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<FailureEntry>,
    /// The last round in which this client's update was aggregated into the global model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taken: Option<u64>,
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

impl Federation<'_> {
    /// Writes a checkpoint. Within a round it holds the server's state from the start of the round.
    ///
    /// # Errors
    /// If a component cannot return its state, or a file cannot be written.
    pub(crate) fn save(&mut self) -> Result<(), CliError> {
        let told = |fault: ComponentError| CliError::run(fault.report("checkpoint"));
        let mut writer = Writer::new(self.run_dir.path())?;
        let scope = CallScope::new(self.services, "server", None, None);
        let ctx = scope.context();
        writer.message("global", &self.global)?;
        let best = self.best.save(&mut writer)?;
        let (plugin, aggregator) = &mut self.aggregator;
        let (aggregator, server) = match self.opening.clone() {
            Some(opening) => (Ok(opening.aggregator), opening.server.map(Ok)),
            None => (aggregator.state(&ctx), self.server.each_mut().map(|chain| chain.states(&scope))),
        };
        let aggregator = aggregator.map_err(|e| told(ComponentError::new(format!("aggregator `{plugin}`"), e)))?;
        writer.state("aggregator", &aggregator)?;
        for (side, states) in server.into_iter().enumerate() {
            put_states(&mut writer, &format!("server.{side}"), &states.map_err(told)?)?;
        }
        let mut clients = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            let name = client.name().to_owned();
            // Save one client at a time, so that at most one state is in memory besides the models.
            let saved = match client.save(self.services) {
                Ok(saved) => saved,
                Err(fault) => {
                    let place = format!("checkpoint, client `{name}`");
                    handle_client_failure(&fault, &place, self.plan.on_client_failure, self.services)?;
                    client.save(self.services).map_err(told)?
                }
            };
            let name_of = |part: &str| format!("client.{number}.{part}");
            if let Some(state) = &saved.model {
                writer.state(&name_of("model"), state)?;
            }
            for (side, states) in saved.filters.iter().enumerate() {
                put_states(&mut writer, &name_of(&side.to_string()), states)?;
            }
            if let Some(progress) = &saved.progress {
                let trace = progress.trace.state().map_err(|e| told(ComponentError::new("metrics".to_owned(), e)))?;
                writer.state(&name_of("trace"), &trace)?;
            }
            if let Some(message) = &saved.sent {
                writer.message(&name_of("sent"), message)?;
            }
            clients.push(ClientEntry {
                name,
                position: saved.position,
                filters: saved.filters.each_ref().map(Vec::len),
                changed: saved.model.is_some(),
                progress: saved.progress.as_ref().map(ProgressEntry::of),
                sent: saved.sent.is_some(),
                failed: saved.failed.as_ref().map(FailureEntry::of),
                taken: saved.taken,
            });
        }
        writer.finish(&CheckpointIndex {
            done: self.done,
            positions: self.positions.clone(),
            totals: self.totals.keep(),
            record: self.record.clone(),
            patience: self.patience.clone(),
            notes: self.services.notes.list(),
            best,
            clients,
        })
    }

    /// Restores a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint does not fit the experiment, or cannot be read.
    pub(crate) fn restore(&mut self, reader: &Reader, kept: CheckpointIndex) -> Result<(), CliError> {
        let told = |fault: ComponentError| CliError::run(fault.report("resuming from the checkpoint"));
        let scope = CallScope::new(self.services, "server", None, None);
        let ctx = scope.context();
        if !kept.clients.iter().map(|client| client.name.as_str()).eq(self.clients.iter().map(|client| client.name())) {
            let report = Diagnostic::new("the checkpoint was written by a run with other clients");
            return Err(CliError::usage(report.hint("has the data changed since? start over with --force")));
        }
        self.global = reader.message("global")?;
        self.best.restore(reader, kept.best)?;
        let (plugin, aggregator) = &mut self.aggregator;
        let fault = |e| told(ComponentError::new(format!("aggregator `{plugin}`"), e));
        aggregator.restore(&reader.state("aggregator")?, &ctx).map_err(fault)?;
        for (side, chain) in self.server.iter_mut().enumerate() {
            let count = chain.states(&scope).map_err(told)?.len();
            chain.restore(&get_states(reader, &format!("server.{side}"), count)?, &scope).map_err(told)?;
        }
        for (number, (client, kept)) in self.clients.iter_mut().zip(kept.clients).enumerate() {
            let ClientEntry { position, filters, changed, progress, sent, failed, taken, .. } = kept;
            let name_of = |part: &str| format!("client.{number}.{part}");
            let states = |side: usize| get_states(reader, &name_of(&side.to_string()), filters[side]);
            let trace = |state| Trace::read(&state).map_err(|e| told(ComponentError::new("metrics".to_owned(), e)));
            let progress = match progress {
                Some(progress) => Some(progress.with(reader.state(&name_of("trace")).and_then(trace)?)),
                None => None,
            };
            let saved = ClientState {
                model: changed.then(|| reader.state(&name_of("model"))).transpose()?,
                filters: [states(0)?, states(1)?],
                position,
                progress,
                sent: sent.then(|| reader.message(&name_of("sent"))).transpose()?,
                failed: failed.map(FailureEntry::whole),
                taken,
            };
            client.restore(saved, self.services).map_err(told)?;
        }
        self.done = kept.done;
        self.totals.resume(kept.totals);
        self.positions = kept.positions;
        self.record = kept.record;
        self.patience = kept.patience;
        kept.notes.iter().for_each(|note| self.services.notes.set(&note.client, &note.who, &note.key, &note.text));
        Ok(())
    }
}

fn put_states(writer: &mut Writer, name: &str, states: &[State]) -> Result<(), CliError> {
    states.iter().enumerate().try_for_each(|(index, state)| writer.state(&format!("{name}.{index}"), state))
}

fn get_states(reader: &Reader, name: &str, count: usize) -> Result<Vec<State>, CliError> {
    (0..count).map(|index| reader.state(&format!("{name}.{index}"))).collect()
}
