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

use plugin_api::Sampling;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::artefacts::journal::Journal;
use crate::artefacts::names::{CHECKPOINT, IDLE};
use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::federation::component_error::ComponentError;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::services::HostServices;
use crate::plugins::validate::Layout;
use crate::setup::site::SiteSetup;
use crate::sites::desk::{Rules, refused};
use crate::sites::protocol::{Offer, Payload, Ready, Reply, Report, Request, Response, Start};
use crate::sites::report::Reports;
use crate::sites::site_client::{ANSWERS, Return, SiteClient};
use crate::terminal::console::Console;

const OFFER: &str = "offer.json";
const START: &str = "start.json";

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
    Started(Box<SiteClient>),
    /// The run is over, or starting failed.
    Over,
}

/// What surrounds a run at a site.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    /// What the site decides.
    pub rules: &'a dyn Rules,
    /// Shows log lines.
    pub console: &'a Console,
    /// Whether the site should stop.
    pub stop: &'a AtomicBool,
}

impl SiteRun {
    /// Creates the run's folder, or opens it again.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn new(folder: PathBuf, offer: Offer, setup: SiteSetup) -> Result<Self, CliError> {
        std::fs::create_dir_all(&folder).map_err(|e| CliError::io(&folder, "create the run's folder", &e))?;
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
    pub(crate) fn resume(&mut self, around: Around<'_>) -> Result<(), CliError> {
        let Some(start) = read_json::<Start>(&self.folder.join(START))? else { return Ok(()) };
        self.start(&start, Return::Last, around).map(drop)
    }

    /// Does what a request asks, and returns the reply.
    ///
    /// # Errors
    /// If the site refuses; the text says why.
    pub(crate) fn handle(
        &mut self,
        request: Request,
        last_aggregated: Option<u64>,
        around: Around<'_>,
    ) -> Result<Payload, String> {
        around.rules.computing(&self.offer.digest, Duration::ZERO)?;
        let begun = Instant::now();
        let failed = |failure: CliError| refused(failure.into_report().line());
        let reply = match request {
            Request::Start(start) => Ok(Reply::plain(self.accept(&start, around).map(Response::Ready).map_err(failed))),
            Request::Leave => Ok(Reply::plain(self.leave().map(|()| Response::Done).map_err(failed))),
            request => self.work(request, last_aggregated, around),
        };
        around.rules.computing(&self.offer.digest, begun.elapsed())?;
        reply.and_then(Reply::into_payload).map_err(|e| Diagnostic::from(e).line())
    }

    /// Has the client do its part.
    fn work(
        &mut self,
        request: Request,
        last_aggregated: Option<u64>,
        around: Around<'_>,
    ) -> plugin_api::Result<Reply> {
        let Stage::Started(client) = &mut self.stage else {
            return Ok(Reply::plain(Err(refused("the run has not started here".to_owned()))));
        };
        if let Some(reply) = client.known_reply(&request) {
            return Reply::read(reply);
        }
        let (notes, reports) = (Notes::default(), Reports::new());
        let experiment = client.experiment().clone();
        let mut services = HostServices::new(around.console, &notes, around.stop, &experiment, client.threads());
        (services.reporter, services.journal) = (reports.reporter(), &self.journal);
        client.last_aggregated(last_aggregated);
        let trains = matches!(request, Request::Train(_));
        let result = client.work(request, &self.folder, &services);
        drop(services);
        let mut reply = Reply { report: Report { notes: notes.list(), ..reports.collect() }, result };
        if trains && !around.stop.load(std::sync::atomic::Ordering::Relaxed) {
            // Nothing leaves before it is on disk.
            let services = HostServices::new(around.console, &notes, around.stop, &experiment, client.threads());
            if let Err(failure) = client.save(&self.folder, &reply, &services) {
                reply.result = Err(refused(failure.into_report().line()));
            }
        }
        Ok(reply)
    }

    /// Gets ready for the first round, or returns to the state from which the server resumes.
    fn accept(&mut self, start: &Start, around: Around<'_>) -> Result<Ready, CliError> {
        if start.digest != self.offer.digest {
            return Err(CliError::run(Diagnostic::new("the run starts with another experiment than it offered")));
        }
        write_json(&self.folder.join(START), start)?;
        self.start(start, start.resume.map_or(Return::Nothing, Return::To), around)
    }

    fn start(&mut self, start: &Start, back: Return, around: Around<'_>) -> Result<Ready, CliError> {
        let Stage::Described(setup) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(CliError::run(Diagnostic::new("the run has started here already, or could not")));
        };
        let threads = setup.experiment.federation.threads_per_client.max(1);
        let (shared, mut side, index) = setup.join(&self.offer.clients, start.tasks.clone())?;
        let notes = Notes::default();
        let mut services = HostServices::new(around.console, &notes, around.stop, &shared.experiment, threads);
        services.journal = &self.journal;
        // `idle-memory` is for a process of many clients: this one has one, which would be read back in each round.
        let store = Arc::new(Store::new(self.folder.join(IDLE), None)?);
        let failed = |fault: ComponentError| CliError::run(fault.report(""));
        let layout = Layout::from_json(&start.layout).map_err(|e| CliError::run(Diagnostic::from(e)))?;
        let factory = side.model_factory(&shared);
        let mut client = side.client(&shared, index, &factory, &store, &services).map_err(failed)?;
        client.check_layout(&layout, &services).map_err(failed)?;
        // Only a secret draw must hide which parameters a client keeps private.
        let secret_draw = matches!(shared.experiment.federation.sampling(), Sampling::Poisson(p) if p < 1.0);
        let withheld = if secret_draw { client.withheld(&services).map_err(failed)? } else { Vec::new() };
        drop(services);
        let mut client = SiteClient::new(shared, client);
        client.go_back(&self.folder, back, around, &self.journal)?;
        self.stage = Stage::Started(Box::new(client));
        Ok(Ready { withheld })
    }

    /// Keeps the results and removes what only the run itself needed.
    fn leave(&mut self) -> Result<(), CliError> {
        self.stage = Stage::Over;
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
