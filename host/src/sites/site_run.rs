//! A run as one site sees it: its client, and what the site keeps in the run's folder.
//!
//! | file | what |
//! |---|---|
//! | `offer.json`, `start.json` | the experiment as the server offered it, and what all sites agreed on |
//! | `attempts.jsonl` | the rounds that this site has started |
//! | `checkpoint/` | the client's last two states, each after a round, with the reply to that round |
//! | `answers/` | the filters' states after answers to the aggregator's questions |
//! | `model/` | the client's own model, at the end |
//! | `predictions.csv` | predictions of its rows, at the end |

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use plugin_api::{Message, Sampling};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::artefacts::journal::Journal;
use crate::artefacts::names::{CHECKPOINT, IDLE};
use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::federation::client::{BothModels, Client as _, LastEvaluation};
use crate::federation::client_entry::{ClientEntry, get_client, not_restored, not_saved, put_client};
use crate::federation::component_error::ComponentError;
use crate::federation::local_client::LocalClient;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::predictions;
use crate::federation::services::HostServices;
use crate::plugins::validate::Layout;
use crate::setup::Shared;
use crate::setup::site::SiteSetup;
use crate::sites::desk::{Rules, refused};
use crate::sites::limits;
use crate::sites::protocol::{Offer, Payload, Ready, Reply, Report, Request, Response, Start};
use crate::sites::report::Reports;
use crate::terminal::console::Console;
use crate::terminal::signals::Pause;

const OFFER: &str = "offer.json";
const START: &str = "start.json";
const ANSWERS: &str = "answers";
const MODEL: &str = "model";

/// A run as one site sees it.
pub(crate) struct SiteRun {
    folder: PathBuf,
    /// The experiment as the server offered it.
    pub offer: Offer,
    /// The name of the run.
    pub experiment_name: String,
    journal: Journal,
    stage: Stage,
}

enum Stage {
    /// The site has described its data.
    Described(Box<SiteSetup>),
    /// All sites have agreed.
    Started(Box<Started>),
    /// Starting failed.
    Failed,
}

/// A client that takes part.
struct Started {
    shared: Shared,
    client: LocalClient,
    threads: usize,
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
    round: u64,
    client: ClientEntry,
}

impl SiteRun {
    /// Creates the run's folder, or opens it again.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn new(folder: PathBuf, offer: Offer, setup: SiteSetup) -> Result<Self, CliError> {
        std::fs::create_dir_all(&folder).map_err(|e| CliError::io(&folder, "make the run's folder", &e))?;
        write_json(&folder.join(OFFER), &offer)?;
        let journal = Journal::open(&folder)?;
        let experiment_name = setup.experiment.name.clone();
        Ok(Self { folder, offer, experiment_name, journal, stage: Stage::Described(Box::new(setup)) })
    }

    /// The experiment of the run in a folder, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn offer_in(folder: &Path) -> Result<Option<Offer>, CliError> {
        read_json(&folder.join(OFFER))
    }

    /// Continues after the site's last state, in a new process.
    ///
    /// # Errors
    /// If a file cannot be read, or the state does not fit.
    pub(crate) fn resume(&mut self, console: &Console, notes: &Notes, stop: &AtomicBool) -> Result<(), CliError> {
        let Some(start) = read_json::<Start>(&self.folder.join(START))? else { return Ok(()) };
        self.start(&start, Return::Last, console, notes, stop).map(drop)
    }

    /// Does what a request asks, and returns the reply.
    ///
    /// # Errors
    /// If the site refuses; the text says why.
    pub(crate) fn handle(
        &mut self,
        request: Request,
        last_aggregated: Option<u64>,
        committed: u64,
        rules: &dyn Rules,
        console: &Console,
        stop: &AtomicBool,
    ) -> Result<Payload, String> {
        rules.computing(&self.offer.digest, Duration::ZERO)?;
        let begun = Instant::now();
        let (notes, reports) = (Notes::default(), Reports::new());
        let result = match request {
            Request::Start(start) => self
                .accept(&start, console, &notes, stop)
                .map(Response::Ready)
                .map_err(|failure| refused(failure.into_report().line())),
            Request::Leave => self.leave().map(|()| Response::Done).map_err(|f| refused(f.into_report().line())),
            request => match &mut self.stage {
                Stage::Started(started) => {
                    if let Some(reply) = started.known_reply(&request) {
                        return Ok(reply);
                    }
                    let mut services =
                        HostServices::new(console, &notes, stop, &started.shared.experiment, started.threads);
                    (services.reporter, services.journal) = (reports.reporter(), &self.journal);
                    if let Some(round) = last_aggregated {
                        started.client.update_aggregated(round);
                    }
                    let mut working = Working { folder: &self.folder, committed, services: &services };
                    let result = working.do_request(started, request);
                    drop(services);
                    result
                }
                _ => Err(refused("the run has not started here".to_owned())),
            },
        };
        let report = Report { notes: notes.list(), ..reports.collect() };
        let mut reply = Reply { report, result };
        if let (Stage::Started(started), Ok(Response::Outcome(outcome))) = (&mut self.stage, &reply.result) {
            // Nothing leaves before it is on disk.
            let saved = started.save(&self.folder, &reply, &outcome.message, console, stop);
            if let Err(fault) = saved {
                reply.result = Err(refused(fault.into_report().line()));
            }
        }
        rules.computing(&self.offer.digest, begun.elapsed())?;
        reply.into_payload().map_err(|e| Diagnostic::from(e).line())
    }

    /// Gets ready for the first round, or returns to the state from which the server resumes.
    fn accept(
        &mut self,
        start: &Start,
        console: &Console,
        notes: &Notes,
        stop: &AtomicBool,
    ) -> Result<Ready, CliError> {
        if start.digest != self.offer.digest {
            return Err(CliError::run(Diagnostic::new("the run starts with another experiment than it offered")));
        }
        if matches!(self.stage, Stage::Started(_)) {
            return Err(CliError::run(Diagnostic::new("the run has started here already")));
        }
        write_json(&self.folder.join(START), start)?;
        let back = start.resume.map_or(Return::Nothing, Return::To);
        self.start(start, back, console, notes, stop)
    }

    fn start(
        &mut self,
        start: &Start,
        back: Return,
        console: &Console,
        notes: &Notes,
        stop: &AtomicBool,
    ) -> Result<Ready, CliError> {
        let Stage::Described(setup) = std::mem::replace(&mut self.stage, Stage::Failed) else {
            return Err(CliError::run(Diagnostic::new("the run has failed to start here")));
        };
        let name = setup.client.name.clone();
        let threads = setup.experiment.federation.threads_per_client.max(1);
        let (shared, mut side, index) = setup.join(&self.offer.clients, start.tasks.clone())?;
        let mut services = HostServices::new(console, notes, stop, &shared.experiment, threads);
        services.journal = &self.journal;
        let store = Arc::new(Store::new(self.folder.join(IDLE), shared.experiment.federation.idle_memory)?);
        let failed = |fault: ComponentError| CliError::run(fault.report(""));
        let layout = Layout::from_json(&start.layout).map_err(|e| CliError::run(Diagnostic::from(e)))?;
        let factory = side.model_factory(&shared);
        let mut client = side.client(&shared, index, &factory, &store, &services).map_err(failed)?;
        client.check_layout(&layout, &services).map_err(failed)?;
        // Only a secret draw must hide which parameters a client keeps private.
        let secret_draw = matches!(shared.experiment.federation.sampling(), Sampling::Poisson(p) if p < 1.0);
        let withheld = if secret_draw { client.withheld(&services).map_err(failed)? } else { Vec::new() };
        let mut started = Started { shared, client, threads, trained: 0, open: None, reply: None };
        started.go_back(&self.folder, &name, back, &services)?;
        started.client.release(&services).map_err(failed)?;
        drop(services);
        self.stage = Stage::Started(Box::new(started));
        Ok(Ready { withheld })
    }

    /// Keeps the results and removes what only the run itself needed.
    fn leave(&mut self) -> Result<(), CliError> {
        self.stage = Stage::Failed;
        for name in [CHECKPOINT, ANSWERS, IDLE] {
            let path = self.folder.join(name);
            match std::fs::remove_dir_all(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CliError::io(&path, "remove the folder", &e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// To which state a site returns.
#[derive(Clone, Copy, Debug)]
enum Return {
    /// To none: the run begins.
    Nothing,
    /// To the last one.
    Last,
    /// To the one after this many rounds.
    To(u64),
}

/// What the client does for one request.
struct Working<'w> {
    folder: &'w Path,
    committed: u64,
    services: &'w HostServices<'w>,
}

impl Working<'_> {
    fn do_request(&mut self, started: &mut Started, request: Request) -> Result<Response, ComponentError> {
        let services = self.services;
        limits::check(&request, &started.shared.experiment.federation).map_err(refused)?;
        if let Some(round) = request.round() {
            started.open(round, self.committed, services)?;
        }
        match request {
            Request::Train(order) => {
                let outcome = started.client.round(&order, &Pause::never(), services)?;
                let outcome = outcome.ok_or_else(|| refused("the site is stopping".to_owned()))?;
                started.trained = order.round + 1;
                Ok(Response::Outcome(outcome))
            }
            Request::Answer { round, question } => {
                let message = started.client.answer(&question, round, services)?;
                started.save_answers(self.folder, round, services).map_err(|f| refused(f.into_report().line()))?;
                Ok(Response::Message(message))
            }
            Request::EvaluateIdle(order) => started.client.evaluate_idle(&order, services).map(Response::Evaluated),
            Request::Publish(order) => {
                let name = [started.client.name().to_owned()];
                services.journal.begin(order.round, &name).map_err(|f| refused(f.into_report().line()))?;
                started.client.publish(&order, services).map(Response::Message)
            }
            Request::EvaluateOther(order) => {
                let found = started.client.evaluate_other(&order, services);
                let released = started.client.release(services);
                found.and_then(|found| released.map(|()| Response::CrossEvaluated(found)))
            }
            Request::SaveModel => {
                started.client.save_model(&self.folder.join(MODEL), services).map(|()| Response::Done)
            }
            Request::Finish(order) => {
                let LastEvaluation { evaluations, predictions } = started.client.finish(&order, services)?;
                self.write_predictions(started, predictions)?;
                Ok(Response::Finished(evaluations))
            }
            Request::Describe(_) | Request::Start(_) | Request::Leave => {
                Err(refused("this is no request to a client".to_owned()))
            }
        }
    }

    /// Writes the predictions to the site's own folder. They are optional.
    fn write_predictions(
        &self,
        started: &Started,
        predictions: Option<Result<BothModels, ComponentError>>,
    ) -> Result<(), ComponentError> {
        match predictions {
            None => Ok(()),
            Some(Ok(BothModels { own, global })) => {
                let mut writer = predictions::Writer::new(self.folder, &started.shared.description.scales);
                writer.add(started.client.name(), own, global);
                writer.finish().map_err(|failure| refused(failure.into_report().line()))
            }
            Some(Err(fault)) => {
                self.services.console.log(plugin_api::Level::Warn, fault.report("predictions").message());
                Ok(())
            }
        }
    }
}

impl Started {
    /// Starts a round, unless it is open. On disk it is noted that the round starts, before anything leaves.
    fn open(&mut self, round: u64, _committed: u64, services: &HostServices<'_>) -> Result<(), ComponentError> {
        if self.open == Some(round) {
            return Ok(());
        }
        self.client.close();
        let name = [self.client.name().to_owned()];
        services.journal.begin(round, &name).map_err(|failure| refused(failure.into_report().line()))?;
        self.client.open(round, services);
        self.open = Some(round);
        self.reply = None;
        Ok(())
    }

    /// The stored reply to a training order that was answered before this process started.
    fn known_reply(&mut self, request: &Request) -> Option<Payload> {
        match request {
            Request::Train(order) if order.round + 1 == self.trained => self.reply.clone(),
            _ => None,
        }
    }

    /// Saves the client's state after a round, with the reply.
    fn save(
        &mut self,
        folder: &Path,
        reply: &Reply,
        message: &Message,
        console: &Console,
        stop: &AtomicBool,
    ) -> Result<(), CliError> {
        let notes = Notes::default();
        let services = HostServices::new(console, &notes, stop, &self.shared.experiment, self.threads);
        // The states as they are now: another process continues with them where this one would have.
        self.client.close();
        let saved = self.client.save(&services).map_err(not_saved)?;
        let mut writer = Writer::new(folder)?;
        put_client(&mut writer, 0, &saved)?;
        let tensors = Message { params: message.params.clone(), extra: message.extra.clone(), ..Message::default() };
        writer.message("reply", &tensors)?;
        let reply = serde_json::to_value(reply).map_err(|e| CliError::run(Diagnostic::new("cannot save").cause(e)))?;
        let client = ClientEntry::new(self.client.name().to_owned(), saved);
        writer.finish(&SiteIndex { trained: self.trained, client, reply })?;
        self.client.release(&services).map_err(not_saved)
    }

    /// Saves the filters' states after an answer, in a folder for the round.
    fn save_answers(&mut self, folder: &Path, round: u64, services: &HostServices<'_>) -> Result<(), CliError> {
        let filters = self.client.filter_states(services).map_err(not_saved)?;
        let saved = crate::federation::client::ClientState { filters, ..Default::default() };
        let answers = folder.join(ANSWERS);
        let own = answers.join(round.to_string());
        std::fs::create_dir_all(&own).map_err(|e| CliError::io(&own, "create the folder", &e))?;
        let mut writer = Writer::new(&own)?;
        put_client(&mut writer, 0, &saved)?;
        let client = ClientEntry::new(self.client.name().to_owned(), saved);
        writer.finish(&AnswersIndex { trained: self.trained, round, client })?;
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
    fn go_back(
        &mut self,
        folder: &Path,
        name: &str,
        back: Return,
        services: &HostServices<'_>,
    ) -> Result<(), CliError> {
        let wanted = match back {
            Return::Nothing | Return::To(0) => {
                for part in [CHECKPOINT, ANSWERS] {
                    let _ = std::fs::remove_dir_all(folder.join(part));
                }
                return Ok(());
            }
            Return::Last => None,
            Return::To(rounds) => Some(rounds),
        };
        let mut warn = |line: &str| services.console.log(plugin_api::Level::Warn, line);
        let accept = |index: &SiteIndex| wanted.is_none_or(|wanted| index.trained <= wanted);
        let found = Reader::open_if::<SiteIndex>(folder, accept, &mut warn)?;
        let trained = found.as_ref().map_or(0, |(_, index)| index.trained);
        if wanted.is_some_and(|wanted| wanted != trained) {
            let report = Diagnostic::new(format!(
                "site `{name}` has no state after round {}, from which the server resumes",
                wanted.unwrap_or_default()
            ));
            return Err(CliError::run(report.hint("start over with --force")));
        }
        if let Some((reader, SiteIndex { client, reply, .. })) = found {
            let state = get_client(&reader, 0, client)?;
            self.client.restore(state, services).map_err(not_restored)?;
            let Message { params, extra, .. } = reader.message("reply")?;
            self.reply = wanted.is_none().then_some(Payload { body: reply, params, extra });
        }
        self.trained = trained;
        // Answers after that state: those that ended its round, and in the same process's run those of the next one.
        let rounds = [trained.checked_sub(1), wanted.is_none().then_some(trained)];
        for round in rounds.into_iter().flatten() {
            let own = folder.join(ANSWERS).join(round.to_string());
            let found = Reader::open::<AnswersIndex>(&own, &mut warn)?;
            if let Some((reader, index)) = found.filter(|(_, index)| index.trained == trained) {
                let state = get_client(&reader, 0, index.client)?;
                self.client.restore_filters(&state.filters, services).map_err(not_restored)?;
                if round == trained {
                    self.open = Some(round);
                }
            }
        }
        if wanted.is_some() {
            let _ = std::fs::remove_dir_all(folder.join(ANSWERS).join(trained.to_string()));
        }
        Ok(())
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|e| CliError::io(path, "write the file", &e.into()))?;
    safetensors::write_text(path, &text)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CliError> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| CliError::io(path, "read the file", &e))?,
    };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|e| CliError::run(Diagnostic::new(format!("{}: damaged", path.display())).cause(e)))
}
