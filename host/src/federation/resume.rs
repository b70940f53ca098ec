//! Writing a federation to a checkpoint and restoring it.

use serde::{Deserialize, Serialize};

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::artefacts::tracking::Positions;
use crate::error::{CliError, Diagnostic};
use crate::federation::best_models::RankingEntry;
use crate::federation::client::ClientState;
use crate::federation::client_entry::{
    ClientEntry, get_client, get_states, not_restored, not_saved, put_client, put_filters,
};
use crate::federation::early_stopping::Patience;
use crate::federation::filters::Filters;
use crate::federation::history::History;
use crate::federation::notes::Note;
use crate::federation::rounds::Federation;
use crate::federation::server::{self, Server};
use crate::federation::totals::TotalsEntry;

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

impl CheckpointIndex {
    /// The least number of rounds of a run resumed from here: the finished ones, and one that was interrupted.
    pub(crate) fn least_rounds(&self) -> u64 {
        self.done + u64::from(self.clients.iter().any(|client| client.progress.is_some()))
    }

    /// After how many rounds each client at a site last trained.
    pub(crate) fn trained_at_sites(&self) -> Vec<Option<u64>> {
        self.clients.iter().map(|client| client.trained_at_site).collect()
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
        self.positions.force(self.run_dir.path(), &self.forced)?;
        self.forced = self.positions.clone();
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
            let report = Diagnostic::new("the checkpoint was written by a run with other clients");
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
        self.forced = saved.positions.clone();
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
