//! A federation's way into a checkpoint and back.

use plugin_api::State;
use serde::{Deserialize, Serialize};

use crate::best::Ranking;
use crate::checkpoint::{Reader, Writer};
use crate::client::Saved;
use crate::error::{Failure, Report};
use crate::federation::{Federation, bear};
use crate::link::{Fault, Line};
use crate::notes::Note;
use crate::report::Record;
use crate::stopping::Patience;
use crate::tracking::Positions;

/// What the host keeps in a checkpoint besides the components' states.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// How many rounds are done.
    pub done: u64,
    /// How far the files of metrics were written.
    pub positions: Positions,
    record: Record,
    patience: Patience,
    notes: Vec<Note>,
    best: Ranking,
    clients: Vec<KeptClient>,
}

#[derive(Serialize, Deserialize)]
struct KeptClient {
    name: String,
    position: u64,
    /// How many filters it has on what it gets and on what it sends; none for a client that failed and was left out.
    filters: Option<[usize; 2]>,
    /// Whether it had changed its model; only then there is a state of it.
    changed: bool,
}

impl Federation<'_> {
    /// Writes a checkpoint.
    ///
    /// # Errors
    /// If a component cannot tell its state, or a file cannot be written.
    pub fn save(&mut self, positions: &Positions) -> Result<(), Failure> {
        let told = |fault: Fault| Failure::run(fault.report("checkpoint"));
        let mut writer = Writer::new(self.run_dir.path())?;
        let line = Line::new(self.link, "server", None, None);
        let ctx = line.context();
        writer.message("global", &self.global)?;
        let best = self.best.save(&mut writer)?;
        let (plugin, aggregator) = &mut self.aggregator;
        let state = aggregator.state(&ctx).map_err(|e| told(Fault::new(format!("aggregator `{plugin}`"), e)))?;
        writer.state("aggregator", &state)?;
        for (side, chain) in self.server.iter_mut().enumerate() {
            put_states(&mut writer, &format!("server.{side}"), &chain.states(&line).map_err(told)?)?;
        }
        let mut clients = Vec::new();
        for client in &mut self.clients {
            let name = client.name().to_owned();
            // One after the other, so that no more than one client's state is held besides the models.
            let saved = match client.save(self.link) {
                Ok(saved) => saved,
                Err(fault) => {
                    bear(&fault, &format!("checkpoint, client `{name}`"), self.plan.on_client_failure, self.link)?;
                    clients.push(KeptClient { name, position: 0, filters: None, changed: false });
                    continue;
                }
            };
            if let Some(state) = &saved.model {
                writer.state(&format!("client.{name}"), state)?;
            }
            for (side, states) in saved.filters.iter().enumerate() {
                put_states(&mut writer, &format!("client.{name}.{side}"), states)?;
            }
            let filters = Some([saved.filters[0].len(), saved.filters[1].len()]);
            clients.push(KeptClient { name, position: saved.position, filters, changed: saved.model.is_some() });
        }
        let (record, positions) = (self.record.clone(), positions.clone());
        let (patience, notes) = (self.patience.clone(), self.link.notes.list());
        writer.finish(&Kept { done: self.done, positions, record, patience, notes, best, clients })
    }

    /// Goes back to a checkpoint.
    ///
    /// # Errors
    /// If it does not fit the experiment.
    pub fn restore(&mut self, reader: &Reader, kept: Kept) -> Result<(), Failure> {
        let told = |fault: Fault| Failure::run(fault.report("going on from the checkpoint"));
        let line = Line::new(self.link, "server", None, None);
        let ctx = line.context();
        if !kept.clients.iter().map(|client| client.name.as_str()).eq(self.clients.iter().map(|client| client.name())) {
            let report = Report::new("the checkpoint is of a run with other clients");
            return Err(Failure::usage(report.hint("has the data changed since? begin anew with --force")));
        }
        self.global = reader.message("global")?;
        self.best.restore(reader, kept.best)?;
        let (plugin, aggregator) = &mut self.aggregator;
        let fault = |e| told(Fault::new(format!("aggregator `{plugin}`"), e));
        aggregator.restore(&reader.state("aggregator")?, &ctx).map_err(fault)?;
        for (side, chain) in self.server.iter_mut().enumerate() {
            let count = chain.states(&line).map_err(told)?.len();
            chain.restore(&get_states(reader, &format!("server.{side}"), count)?, &line).map_err(told)?;
        }
        for (client, KeptClient { name, position, filters, changed }) in self.clients.iter_mut().zip(kept.clients) {
            let Some(filters) = filters else { continue };
            let states = |side: usize| get_states(reader, &format!("client.{name}.{side}"), filters[side]);
            let model = changed.then(|| reader.state(&format!("client.{name}"))).transpose()?;
            let saved = Saved { model, filters: [states(0)?, states(1)?], position };
            client.restore(saved, self.link).map_err(told)?;
        }
        self.done = kept.done;
        self.record = kept.record;
        self.patience = kept.patience;
        kept.notes.iter().for_each(|note| self.link.notes.set(&note.client, &note.who, &note.key, &note.text));
        Ok(())
    }
}

fn put_states(writer: &mut Writer, name: &str, states: &[State]) -> Result<(), Failure> {
    states.iter().enumerate().try_for_each(|(index, state)| writer.state(&format!("{name}.{index}"), state))
}

fn get_states(reader: &Reader, name: &str, count: usize) -> Result<Vec<State>, Failure> {
    (0..count).map(|index| reader.state(&format!("{name}.{index}"))).collect()
}
