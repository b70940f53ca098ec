//! The client of a run at its site: it works in this process, and its states go to the run's folder.
//!
//! The state after each round is on disk, with the reply to that round, before the reply leaves. So a site that is killed
//! continues where it was, and answers again what it has answered. The last two states are kept: the server writes a
//! checkpoint after every round, so it never resumes from an earlier one.

use std::path::Path;

use plugin_api::{Level, Message};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::artefacts::journal::Journal;
use crate::artefacts::names::CHECKPOINT;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Experiment;
use crate::federation::client::{BothModels, Client as _, ClientState, LastEvaluation};
use crate::federation::client_entry::{ClientEntry, get_client, not_restored, not_saved, put_client};
use crate::federation::component_error::ComponentError;
use crate::federation::local_client::LocalClient;
use crate::federation::notes::Notes;
use crate::federation::predictions;
use crate::federation::services::HostServices;
use crate::setup::Shared;
use crate::sites::desk::refused;
use crate::sites::limits;
use crate::sites::protocol::{Payload, Reply, Request, Response};
use crate::sites::site_run::Around;
use crate::terminal::signals::Pause;

/// The folder for the filters' states after answers to the aggregator's questions, one for each round.
pub(super) const ANSWERS: &str = "answers";
/// The folder for the client's own model.
const MODEL: &str = "model";

/// A client that takes part in a run.
pub(super) struct SiteClient {
    shared: Shared,
    client: LocalClient,
    /// After how many rounds the client last trained.
    trained: u64,
    /// The round that the client has started, if it has not closed it.
    open: Option<u64>,
    /// The reply to the last training order, if it was read back from disk: it may be asked for again.
    reply: Option<Payload>,
}

/// The index of a checkpoint.
#[derive(Serialize, Deserialize)]
struct SiteIndex {
    /// After how many rounds the client trained.
    trained: u64,
    client: ClientEntry,
    /// The JSON part of the reply to the training order.
    reply: Value,
}

/// The index of filters' states.
#[derive(Serialize, Deserialize)]
struct AnswersIndex {
    trained: u64,
    client: ClientEntry,
}

/// To which state a site returns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Return {
    /// To none: the run begins.
    Nothing,
    /// To the last one.
    Last,
    /// To the one after this many rounds.
    To(u64),
}

impl SiteClient {
    /// Takes a client that has done nothing yet.
    pub(super) fn new(shared: Shared, client: LocalClient) -> Self {
        Self { shared, client, trained: 0, open: None, reply: None }
    }

    /// The site's form of the experiment.
    pub(super) fn experiment(&self) -> &Experiment {
        &self.shared.experiment
    }

    /// How many threads the client computes with.
    pub(super) fn threads(&self) -> usize {
        self.experiment().federation.threads_per_client.max(1)
    }

    /// Notes the last round in which the client's update was aggregated into the global model.
    pub(super) fn last_aggregated(&mut self, round: Option<u64>) {
        if let Some(round) = round {
            self.client.update_aggregated(round);
        }
    }

    /// The stored reply to a training order that was answered before this process started.
    pub(super) fn known_reply(&self, request: &Request) -> Option<Payload> {
        match request {
            Request::Train(order) if order.round + 1 == self.trained => self.reply.clone(),
            _ => None,
        }
    }

    /// Does what a request asks. Files go to the run's folder.
    ///
    /// # Errors
    /// If the experiment does not provide for it, or the client fails.
    pub(super) fn work(
        &mut self,
        request: Request,
        folder: &Path,
        services: &HostServices<'_>,
    ) -> Result<Response, ComponentError> {
        limits::check(&request, &self.shared.experiment.federation).map_err(refused)?;
        if let Some(round) = request.round() {
            self.open(round, services)?;
        }
        match request {
            Request::Train(order) => {
                let outcome = self.client.round(&order, &Pause::never(), services)?;
                let outcome = outcome.ok_or_else(|| refused("the site is stopping".to_owned()))?;
                self.trained = order.round + 1;
                Ok(Response::Outcome(outcome))
            }
            Request::Answer { round, question } => {
                let message = self.client.answer(&question, round, services)?;
                self.save_answers(folder, round, services).map_err(failed)?;
                Ok(Response::Message(message))
            }
            Request::EvaluateIdle(order) => self.client.evaluate_idle(&order, services).map(Response::Evaluated),
            Request::Publish(order) => {
                services.journal.begin(order.round, &[self.client.name().to_owned()]).map_err(failed)?;
                self.client.publish(&order, services).map(Response::Message)
            }
            Request::EvaluateOther(order) => {
                let found = self.client.evaluate_other(&order, services);
                let released = self.client.release(services);
                found.and_then(|found| released.map(|()| Response::CrossEvaluated(found)))
            }
            Request::SaveModel => self.client.save_model(&folder.join(MODEL), services).map(|()| Response::Done),
            Request::Finish(order) => {
                let LastEvaluation { evaluation, predictions } = self.client.finish(&order, services)?;
                self.write_predictions(folder, predictions, services)?;
                Ok(Response::Finished(evaluation))
            }
            Request::Describe(_) | Request::Start(_) | Request::Leave => {
                Err(refused("this is no request to a client".to_owned()))
            }
        }
    }

    /// Starts a round, unless it is open. The disk holds that the round starts before anything of it leaves.
    fn open(&mut self, round: u64, services: &HostServices<'_>) -> Result<(), ComponentError> {
        if self.open == Some(round) {
            return Ok(());
        }
        self.client.close();
        services.journal.begin(round, &[self.client.name().to_owned()]).map_err(failed)?;
        self.client.open(round, services);
        self.open = Some(round);
        self.reply = None;
        Ok(())
    }

    /// Writes the predictions to the run's folder. They are optional.
    fn write_predictions(
        &self,
        folder: &Path,
        predictions: Option<Result<BothModels, ComponentError>>,
        services: &HostServices<'_>,
    ) -> Result<(), ComponentError> {
        match predictions {
            None => Ok(()),
            Some(Ok(BothModels { own, global })) => {
                let mut writer = predictions::Writer::new(folder, &self.shared.description.scales);
                writer.add(self.client.name(), own, global);
                writer.finish().map_err(failed)
            }
            Some(Err(fault)) => {
                services.console.log(Level::Warn, fault.report("predictions").message());
                Ok(())
            }
        }
    }

    /// Saves the client's state after a training order, with the reply.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn save(&mut self, folder: &Path, reply: &Reply, services: &HostServices<'_>) -> Result<(), CliError> {
        // The states as they are now: another process continues with them where this one would have.
        self.client.close();
        let saved = self.client.save(services).map_err(not_saved)?;
        let mut writer = Writer::new(folder)?;
        put_client(&mut writer, 0, &saved)?;
        let tensors = match &reply.result {
            Ok(Response::Outcome(outcome)) => outcome.message.clone(),
            _ => Message::default(),
        };
        writer.message("reply", &Message { values: serde_json::Map::default(), ..tensors })?;
        let reply = serde_json::to_value(reply)
            .map_err(|e| CliError::run(Diagnostic::new("cannot save the reply").cause(e)))?;
        let client = ClientEntry::new(self.client.name().to_owned(), saved);
        writer.finish(&SiteIndex { trained: self.trained, client, reply })?;
        self.client.release(services).map_err(not_saved)
    }

    /// Saves the filters' states after an answer, in a folder for the round.
    fn save_answers(&mut self, folder: &Path, round: u64, services: &HostServices<'_>) -> Result<(), CliError> {
        let filters = self.client.filter_states(services).map_err(not_saved)?;
        let saved = ClientState { filters, ..ClientState::default() };
        let answers = folder.join(ANSWERS);
        let own = answers.join(round.to_string());
        std::fs::create_dir_all(&own).map_err(|e| CliError::io(&own, "create the folder", &e))?;
        let mut writer = Writer::new(&own)?;
        put_client(&mut writer, 0, &saved)?;
        let client = ClientEntry::new(self.client.name().to_owned(), saved);
        writer.finish(&AnswersIndex { trained: self.trained, client })?;
        // A run resumes from the end of the previous round at the earliest.
        for entry in std::fs::read_dir(&answers).map_err(|e| CliError::io(&answers, "read the folder", &e))?.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| number + 1 < round) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// Returns to a saved state.
    ///
    /// # Errors
    /// If there is no such state, or it does not fit.
    pub(super) fn go_back(
        &mut self,
        folder: &Path,
        back: Return,
        around: Around<'_>,
        journal: &Journal,
    ) -> Result<(), CliError> {
        let (notes, experiment) = (Notes::default(), self.experiment().clone());
        let mut services = HostServices::new(around.console, &notes, around.stop, &experiment, self.threads());
        services.journal = journal;
        let wanted = match back {
            Return::Nothing | Return::To(0) => {
                for part in [CHECKPOINT, ANSWERS] {
                    let _ = std::fs::remove_dir_all(folder.join(part));
                }
                return self.client.release(&services).map_err(not_restored);
            }
            Return::Last => None,
            Return::To(rounds) => Some(rounds),
        };
        self.restore_round(folder, wanted, &services)?;
        self.restore_answers(folder, wanted.is_none(), &services)?;
        self.client.release(&services).map_err(not_restored)
    }

    /// Returns to the state after this many rounds, or to the last one.
    fn restore_round(
        &mut self,
        folder: &Path,
        wanted: Option<u64>,
        services: &HostServices<'_>,
    ) -> Result<(), CliError> {
        let accept = |index: &SiteIndex| wanted.is_none_or(|wanted| index.trained <= wanted);
        let mut warn = |line: &str| services.console.log(Level::Warn, line);
        let found = Reader::open_if::<SiteIndex>(folder, accept, &mut warn)?;
        self.trained = found.as_ref().map_or(0, |(_, index)| index.trained);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != self.trained) {
            let report = Diagnostic::new(format!(
                "site `{}` has no state after round {wanted}, from which the server resumes",
                self.client.name()
            ));
            return Err(CliError::run(report.hint("start over with --force")));
        }
        if let Some((reader, SiteIndex { client, reply, .. })) = found {
            let state = get_client(&reader, 0, client)?;
            self.client.restore(state, services).map_err(not_restored)?;
            let Message { params, extra, .. } = reader.message("reply")?;
            self.reply = wanted.is_none().then_some(Payload { body: reply, params, extra });
        }
        Ok(())
    }

    /// Restores the filters' states after the answers that followed: those that ended the round, and, for the `next`
    /// process of the same run, those that have begun another.
    fn restore_answers(&mut self, folder: &Path, next: bool, services: &HostServices<'_>) -> Result<(), CliError> {
        let trained = self.trained;
        for round in [trained.checked_sub(1), next.then_some(trained)].into_iter().flatten() {
            let own = folder.join(ANSWERS).join(round.to_string());
            let mut warn = |line: &str| services.console.log(Level::Warn, line);
            let found = Reader::open::<AnswersIndex>(&own, &mut warn)?;
            if let Some((reader, index)) = found.filter(|(_, index)| index.trained == trained) {
                let state = get_client(&reader, 0, index.client)?;
                self.client.restore_filters(&state.filters, services).map_err(not_restored)?;
                self.open = (round == trained).then_some(round);
            }
        }
        if !next {
            let _ = std::fs::remove_dir_all(folder.join(ANSWERS).join(trained.to_string()));
        }
        Ok(())
    }
}

fn failed(failure: CliError) -> ComponentError {
    refused(failure.into_report().line())
}
