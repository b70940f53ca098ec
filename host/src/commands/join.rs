//! `fedplug join`: one site of runs that others serve.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use fedplug_superlink::{Event, Identity, Order, Site, SiteOptions};
use plugin_api::Level;

use crate::artefacts::lock::Lock;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Draft, Experiment};
use crate::plugins::Finder;
use crate::setup::plugins::LoadedPlugin;
use crate::sites::approvals::Approvals;
use crate::sites::computing::ComputingTime;
use crate::sites::desk::{Desk, Rules};
use crate::sites::flower_site::{FlowerSite, read_experiment};
use crate::sites::rules;
use crate::sites::site_file::SiteFile;
use crate::sites::superlink::{Link, level, pack, report, unpack};
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;

/// How long to wait for an order before looking for signals.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The folder, in a site's own, for the connection's state.
const STATE: &str = "superlink";

/// The options of a site.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The site's file.
    pub file: PathBuf,
    /// The SuperLink, instead of that of the file.
    pub superlink: Option<String>,
    /// The certificate authority, instead of that of the file.
    pub ca: Option<PathBuf>,
    /// Whether to send in the clear to another machine.
    pub insecure: bool,
    /// The most detailed level of messages that is shown.
    pub level: Level,
}

/// Notes that a person at the site has approved an experiment.
///
/// # Errors
/// If the site's file is wrong, or the approval cannot be noted.
pub(crate) fn approve(file: &Path, digest: &str) -> Result<(), CliError> {
    let site = SiteFile::read(file)?;
    site.create_state()?;
    Approvals::new(&site.state).add(digest)
}

/// Takes part in runs until it is told to stop.
///
/// # Errors
/// If the site's file is wrong, or the SuperLink refuses the site.
pub(crate) fn join(options: &Options) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let console = Console::new(options.level);
    let site = SiteFile::read(&options.file)?;
    let link = link(&site, options)?;
    site.create_state()?;
    let _lock = Lock::take(&site.state)?;
    let identity = Identity::load(&site.key)
        .map_err(|error| CliError::usage(report(&error).hint(format!("`fedplug keys {}` makes a key", site.name))))?;
    let finder = Finder::new(&[], &site.plugin_path);
    let experiment = site.flower.as_ref().map(|path| read_experiment(&site, path)).transpose()?;
    site.enter_data()?;
    let rules = SiteRules {
        approvals: Approvals::new(&site.state),
        computing: Mutex::new(ComputingTime::open(&site.state)?),
        site: &site,
        finder: &finder,
        console: &console,
    };
    let connected = connect(&site, &link, identity, options.level, &stop)?;
    console.log(Level::Info, &format!("site `{}` is ready", site.name));
    let mut desk = Desk {
        name: &site.name,
        state: &site.state,
        threads: site.threads,
        finder: &finder,
        rules: &rules,
        console: &console,
        stop: &stop.cancel,
        run: None,
    };
    let mut flower = experiment.map(|experiment| FlowerSite {
        site: &site,
        finder: &finder,
        rules: &rules,
        console: &console,
        stop: &stop.cancel,
        experiment,
        run: None,
    });
    while !stop.asked() {
        match connected.next(LOOK_EVERY) {
            Ok(Some(order)) => work(&mut desk, flower.as_mut(), order, &stop, &console)?,
            Ok(None) => {}
            Err(error) => return Err(CliError::run(report(&error))),
        }
    }
    drop(desk);
    if let Err(error) = connected.leave() {
        console.log(Level::Warn, &format!("the SuperLink does not know yet that the site has left: {error}"));
    }
    Err(stopped())
}

/// Registers at the SuperLink.
fn connect(site: &SiteFile, link: &Link, identity: Identity, shown: Level, stop: &Stop) -> Result<Site, CliError> {
    let events = Console::new(shown);
    let observer = Arc::new(move |event: &Event| events.log(level(event), &event.to_string()));
    let usual = SiteOptions::new(link.connection(), identity, site.state.join(STATE));
    let connected = Site::open(SiteOptions { cancel: Arc::clone(&stop.cancel), ..usual }, observer);
    connected.map_err(|error| match error {
        fedplug_superlink::Error::Stopped => stopped(),
        error => CliError::run(report(&error)),
    })
}

fn stopped() -> CliError {
    CliError::stopped(Diagnostic::new("stopped on request"))
}

fn link(site: &SiteFile, options: &Options) -> Result<Link, CliError> {
    let own = site.superlink.as_ref();
    let url = options.superlink.clone().or_else(|| own.map(|own| own.url.clone())).ok_or_else(|| {
        let report = Diagnostic::new(format!("{}: names no SuperLink", site.path));
        CliError::usage(report.hint("give its address with --superlink, or as `url` in the table `[superlink]`"))
    })?;
    let ca = options.ca.clone().or_else(|| own.and_then(|own| own.ca.clone()));
    // The working folder will be another.
    let ca = ca.map(|ca| std::path::absolute(&ca).unwrap_or(ca));
    Ok(Link { url, ca, insecure: options.insecure || own.is_some_and(|own| own.insecure) })
}

/// Does what an order asks, and answers it.
fn work(
    desk: &mut Desk<'_>,
    flower: Option<&mut FlowerSite<'_>>,
    mut order: Order,
    stop: &Stop,
    console: &Console,
) -> Result<(), CliError> {
    let failed = |error: fedplug_superlink::Error| CliError::run(report(&error));
    let content = std::mem::take(&mut order.content);
    let replied = match (&order.session, flower) {
        (Some(session), _) => {
            console.log(Level::Debug, &format!("order {}: {}", order.number.unwrap_or_default(), order.kind));
            unpack(content).and_then(|payload| desk.handle(session, payload)).and_then(|payload| pack(&payload))
        }
        (None, Some(flower)) => {
            console.log(Level::Debug, &format!("order of a Python server: {}", order.kind));
            flower.handle(order.run, &order.kind, content)
        }
        (None, None) => Err("this site takes orders of `fedplug serve` only".to_owned()),
    };
    if stop.asked() {
        // Unanswered, an order of `fedplug serve` comes again once the site is back.
        return Ok(());
    }
    match replied {
        Ok(content) => order.answer(content).map(drop).map_err(failed),
        Err(reason) => {
            console.log(Level::Warn, &format!("refused: {reason}"));
            order.refuse(&reason).map(drop).map_err(failed)
        }
    }
}

/// The rules of the site's file.
struct SiteRules<'s> {
    site: &'s SiteFile,
    finder: &'s Finder,
    console: &'s Console,
    approvals: Approvals,
    computing: Mutex<ComputingTime>,
}

impl SiteRules<'_> {
    /// Whether a person has approved the experiment; asks if there is a terminal.
    fn is_approved(&self, text: &str, digest: &str) -> Result<bool, CliError> {
        if !self.site.allow.confirm() || self.approvals.contain(digest)? {
            return Ok(true);
        }
        let path = self.approvals.show(text)?;
        if !std::io::stdin().is_terminal() {
            let advice = self.approvals.advice(&self.site.path, &path, digest);
            self.console.log(Level::Warn, &advice.line());
            return Ok(false);
        }
        let mut stderr = std::io::stderr();
        let mut answer = String::new();
        let _ = write!(stderr, "{text}\nSHA-256 {digest}\ntake part in this experiment? [y/N] ");
        let _ = stderr.flush();
        let _ = std::io::stdin().read_line(&mut answer);
        let yes = matches!(answer.trim(), "y" | "yes");
        if yes {
            self.approvals.add(digest)?;
        }
        Ok(yes)
    }
}

impl Rules for SiteRules<'_> {
    fn localise(&self, text: &str, digest: &str) -> Result<Draft, String> {
        let draft = rules::localise(self.site, text).map_err(|refusal| refusal.to_string())?;
        let approved = self.is_approved(text, digest).map_err(|failure| failure.into_report().line())?;
        if !approved {
            return Err(Approvals::refusal(&self.site.name, digest).to_string());
        }
        let experiment: &Experiment = &draft.experiment;
        rules::check_libraries(self.site, experiment, self.finder).map_err(|refusal| refusal.to_string())?;
        Ok(draft)
    }

    fn check_plugins(&self, plugins: &[&LoadedPlugin]) -> Result<(), String> {
        rules::check_plugins(self.site, plugins.iter().copied()).map_err(|refusal| refusal.to_string())
    }

    fn computing(&self, digest: &str, time: Duration) -> Result<(), String> {
        let mut computing = self.computing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !time.is_zero() {
            computing.add(digest, time).map_err(|failure| failure.into_report().line())?;
            return Ok(());
        }
        computing.check(self.site, digest).map_err(|refusal| refusal.to_string())
    }
}
