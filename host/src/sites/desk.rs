//! A site's desk: it does what the server asks, with a client in this process, and keeps what must survive.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use plugin_api::{ClientSpec, Level, Source};
use serde_json::Value;

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Draft;
use crate::federation::component_error::ComponentError;
use crate::federation::notes::Notes;
use crate::federation::services::HostServices;
use crate::plugins::Finder;
use crate::setup::manifest;
use crate::setup::plugins::LoadedPlugin;
use crate::setup::site::SiteSetup;
use crate::sites::approvals;
use crate::sites::protocol::{Call, Contribution, Offer, Payload, Reply, Request, Response};
use crate::sites::site_run::{Around, SiteRun};
use crate::terminal::console::Console;

/// What a site decides about experiments.
pub(crate) trait Rules {
    /// The site's own form of an offered experiment.
    ///
    /// # Errors
    /// If the site does not allow it. The text names the rule.
    fn localise(&self, experiment: &str, digest: &str) -> Result<Draft, String>;

    /// Checks the plugins that the experiment would use.
    ///
    /// # Errors
    /// If the site does not allow one of them. The text names the rule.
    fn check_plugins(&self, plugins: &[&LoadedPlugin]) -> Result<(), String>;

    /// Counts the time that the site has computed for the experiment with this digest. Without any time it checks
    /// whether the site may compute more.
    ///
    /// # Errors
    /// If it may not. The text names the rule.
    fn computing(&self, digest: &str, time: Duration) -> Result<(), String>;
}

/// A site's desk.
pub(crate) struct Desk<'a> {
    /// The site's name.
    pub name: &'a str,
    /// The folder for what the site keeps.
    pub state: &'a Path,
    /// How many threads the site computes with.
    pub threads: usize,
    /// Finds plugins.
    pub finder: &'a Finder,
    /// What the site decides.
    pub rules: &'a dyn Rules,
    /// Shows log lines.
    pub console: &'a Console,
    /// Whether the site should stop.
    pub stop: &'a AtomicBool,
    /// The run at work, with its session. Others are on disk.
    pub run: Option<(String, SiteRun)>,
}

impl<'a> Desk<'a> {
    /// Does what a call asks, and returns the reply.
    ///
    /// # Errors
    /// If the site refuses; the text says why.
    pub(crate) fn handle(&mut self, session: &str, payload: Payload) -> Result<Payload, String> {
        let Call { request, last_aggregated } = Call::read(payload).map_err(|e| one_line(&e))?;
        if let Request::Describe(offer) = &request {
            let contribution = self.describe(session, offer)?;
            return Reply::plain(Ok(Response::Contribution(contribution))).into_payload().map_err(|e| one_line(&e));
        }
        if self.run.as_ref().is_none_or(|(known, _)| known != session) {
            self.reopen(session)?;
        }
        let around = self.around();
        let Some((_, run)) = &mut self.run else { return Err("there is no such run here".to_owned()) };
        let leaves = matches!(request, Request::Leave);
        let reply = run.handle(request, last_aggregated, around);
        if leaves {
            self.run = None;
        }
        reply
    }

    fn around(&self) -> Around<'a> {
        Around { rules: self.rules, console: self.console, stop: self.stop }
    }

    /// The folder of a run. `session` comes from the network.
    fn folder(&self, session: &str) -> Result<PathBuf, String> {
        let plain = (8..=64).contains(&session.len()) && session.bytes().all(|b| b.is_ascii_hexdigit());
        if plain { Ok(self.state.join("runs").join(session)) } else { Err("the session is malformed".to_owned()) }
    }

    /// Considers an experiment: opens its plugins and the site's data.
    fn describe(&mut self, session: &str, offer: &Offer) -> Result<Contribution, String> {
        if approvals::digest(&offer.experiment) != offer.digest {
            return Err("the experiment is not the one that its digest names".to_owned());
        }
        let folder = self.folder(session)?;
        self.run = None;
        let setup = self.set_up(offer)?;
        let contribution = contribution(&setup).map_err(|failure| failure.into_report().line())?;
        let run = SiteRun::new(folder, offer.clone(), setup).map_err(|failure| failure.into_report().line())?;
        let name = &run.experiment_name;
        self.console.log(Level::Info, &format!("takes part in `{name}` (SHA-256 {}…)", &offer.digest[..12]));
        self.run = Some((session.to_owned(), run));
        Ok(contribution)
    }

    /// Returns to a run that an earlier process of this site took part in.
    fn reopen(&mut self, session: &str) -> Result<(), String> {
        // Only one run is in memory.
        self.run = None;
        let folder = self.folder(session)?;
        let Some(offer) = SiteRun::offer_in(&folder).map_err(|failure| failure.into_report().line())? else {
            return Err("this site knows nothing of the run; was its state removed?".to_owned());
        };
        let setup = self.set_up(&offer)?;
        let mut run = SiteRun::new(folder, offer, setup).map_err(|failure| failure.into_report().line())?;
        run.resume(self.around()).map_err(|failure| failure.into_report().line())?;
        self.run = Some((session.to_owned(), run));
        Ok(())
    }

    /// What the server may hear of an error: not what a dataset says, which may name files and quote their rows.
    fn withhold_data(&self, line: &str) -> String {
        if !line.contains("dataset `") {
            return line.to_owned();
        }
        self.console.log(Level::Error, line);
        "it cannot read its data, and its log says why".to_owned()
    }

    fn set_up(&self, offer: &Offer) -> Result<SiteSetup, String> {
        let draft = self.rules.localise(&offer.experiment, &offer.digest)?;
        let notes = Notes::default();
        let services = HostServices::new(self.console, &notes, self.stop, &draft.experiment, self.threads);
        let setup = SiteSetup::new(draft, self.name, self.finder, &services);
        let setup = setup.map_err(|failure| self.withhold_data(&failure.into_report().line()))?;
        self.rules.check_plugins(&setup.plugins.iter().collect::<Vec<_>>())?;
        Ok(setup)
    }
}

/// An error in one line, for the server.
fn one_line(error: &plugin_api::Error) -> String {
    Diagnostic::from(error.clone()).line()
}

/// What the server learns of the site's data and plugins.
fn contribution(setup: &SiteSetup) -> Result<Contribution, CliError> {
    let SiteSetup { plugins, clients, description, client, .. } = setup;
    // A path says more than others need to know.
    let file = |source: &Source| Source {
        path: source.path.file_name().map(PathBuf::from).unwrap_or_default(),
        sha256: source.sha256.clone(),
        rows: source.rows,
        skipped: source.skipped.clone(),
    };
    let plugin = |plugin: &LoadedPlugin| -> Result<Value, CliError> {
        let mut plugin = manifest::plugin(plugin)?;
        if let Some(table) = plugin.as_object_mut() {
            table.remove("library");
        }
        Ok(plugin)
    };
    let held = |name: &String| client.tasks.iter().any(|task| task.name == *name);
    let ClientSpec { name, tasks } = client.clone();
    Ok(Contribution {
        tasks: description.tasks.clone(),
        scales: description.scales.iter().filter(|(task, _)| held(task)).map(|(k, v)| (k.clone(), *v)).collect(),
        client: ClientSpec { name, tasks },
        sources: description.sources.iter().map(file).collect(),
        plugins: plugins.iter().map(plugin).collect::<Result<Vec<_>, _>>()?.into(),
        device: clients.placement.devices.first().cloned().unwrap_or_default(),
        score: clients.score_name(&description.tasks),
    })
}

/// A refusal as the error of a component.
pub(super) fn refused(text: String) -> ComponentError {
    ComponentError::new(String::new(), plugin_api::Error::other(text))
}
