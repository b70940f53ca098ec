//! A site in the run of a Python `ServerApp`: its orders name nothing but arrays, so the experiment is the site's own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fedplug_superlink::{Content, Dialect, Evaluated, Task, Trained, Value, read_task};
use indexmap::IndexMap;
use plugin_api::{Evaluation, Level, Message, Sampling};

use crate::artefacts::journal::Journal;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Draft;
use crate::federation::client::{Client as _, Order, Outcome};
use crate::federation::component_error::ComponentError;
use crate::federation::local_client::LocalClient;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::services::HostServices;
use crate::plugins::Finder;
use crate::plugins::validate::Layout;
use crate::setup::Shared;
use crate::setup::site::SiteSetup;
use crate::sites::approvals;
use crate::sites::desk::Rules;
use crate::sites::flower::FlowerModel;
use crate::sites::rules;
use crate::sites::site_file::SiteFile;
use crate::terminal::console::Console;
use crate::terminal::signals::Pause;

/// The folder, in a site's own, for the runs of Python servers.
const RUNS: &str = "flower";

/// A site that takes orders of Python servers.
pub(crate) struct FlowerSite<'a> {
    /// The site's file.
    pub site: &'a SiteFile,
    /// Finds plugins.
    pub finder: &'a Finder,
    /// What the site decides.
    pub rules: &'a dyn Rules,
    /// Shows log lines.
    pub console: &'a Console,
    /// Whether the site should stop.
    pub stop: &'a AtomicBool,
    /// The site's own experiment.
    pub experiment: String,
    /// The run at work.
    pub run: Option<FlowerRun>,
}

/// A run of a Python server.
pub(crate) struct FlowerRun {
    id: u64,
    shared: Shared,
    client: LocalClient,
    model: FlowerModel,
    layout: Layout,
    journal: Journal,
    /// The number of rounds that the client has started.
    begun: u64,
}

/// Reads the experiment of a site's file and checks it against the site's rules.
///
/// # Errors
/// If it cannot be read, is no experiment, or breaks a rule.
pub(crate) fn read_experiment(site: &SiteFile, path: &Path) -> Result<String, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::io(path, "read the experiment", &e))?;
    localise(site, &text)
        .map(|_| text)
        .map_err(|why| CliError::usage(Diagnostic::new(format!("{}: {why}", path.display()))))
}

/// The site's form of its own experiment. Nobody has to approve it.
fn localise(site: &SiteFile, text: &str) -> Result<Draft, String> {
    let draft = rules::localise(site, text).map_err(|refusal| refusal.to_string())?;
    if draft.experiment.federation.sampling() != Sampling::Fixed {
        return Err("a Python server draws the clients, so `federation.sampling` must be `fixed`".to_owned());
    }
    Ok(draft)
}

impl FlowerSite<'_> {
    /// Does what an order of the run `id` asks, and returns the reply.
    ///
    /// # Errors
    /// If the site refuses or its client fails; the text says why.
    pub(crate) fn handle(&mut self, id: u64, kind: &str, content: Content) -> Result<Content, String> {
        if !matches!(kind, "train" | "evaluate") {
            return Err(format!("this site takes the orders `train` and `evaluate` of a Python server, not `{kind}`"));
        }
        let task = read_task(content).map_err(|error| error.to_string())?;
        let digest = approvals::digest(&self.experiment);
        self.rules.computing(&digest, Duration::ZERO)?;
        if self.run.as_ref().is_none_or(|run| run.id != id) {
            self.run = None;
            self.run = Some(self.start(id)?);
        }
        let Some(run) = &mut self.run else { return Err("there is no run".to_owned()) };
        let started = Instant::now();
        let reply = run.handle(kind == "train", task, (self.console, self.stop));
        self.rules.computing(&digest, started.elapsed())?;
        reply
    }

    /// Creates the client for a run.
    fn start(&self, id: u64) -> Result<FlowerRun, String> {
        let line = |failure: CliError| failure.into_report().line();
        let draft = localise(self.site, &self.experiment)?;
        rules::check_libraries(self.site, &draft.experiment, self.finder).map_err(|refusal| refusal.to_string())?;
        let (name, notes) = (&self.site.name, Notes::default());
        let experiment = draft.experiment.clone();
        let mut services = HostServices::new(self.console, &notes, self.stop, &experiment, self.site.threads);
        let setup = SiteSetup::new(draft, name, self.finder, &services).map_err(line)?;
        self.rules.check_plugins(&setup.plugins.iter().collect::<Vec<_>>())?;
        let tasks = setup.description.tasks.clone();
        let (shared, mut side, index) = setup.join(std::slice::from_ref(name), tasks).map_err(line)?;
        let folder = self.site.state.join(RUNS).join(format!("{id:016x}"));
        std::fs::create_dir_all(&folder).map_err(|e| line(CliError::io(&folder, "create the run's folder", &e)))?;
        let journal = Journal::open(&folder).map_err(line)?;
        services.journal = &journal;
        let (factory, store) = (side.model_factory(&shared), Arc::new(Store::in_memory()));
        let mut client = side.client(&shared, index, &factory, &store, &services).map_err(|fault| said(&fault))?;
        let params = client.parameters(&services).map_err(|fault| said(&fault))?;
        let (model, layout) = (FlowerModel::of(&params), Layout::of(&params));
        let begun = journal.attempts(Some(name)).unwrap_or_default();
        self.console.log(Level::Debug, &model.order());
        self.console.log(Level::Info, &format!("takes part in the Flower run {id} with `{}`", shared.experiment.name));
        if begun > 0 {
            let what = "its private parameters and its optimiser begin anew";
            self.console.log(Level::Warn, &format!("the site restarted after {begun} rounds of this run: {what}"));
        }
        drop(services);
        Ok(FlowerRun { id, shared, client, model, layout, journal, begun })
    }
}

impl FlowerRun {
    /// Trains or evaluates, and returns the reply.
    fn handle(
        &mut self,
        trains: bool,
        task: Task,
        (console, stop): (&Console, &AtomicBool),
    ) -> Result<Content, String> {
        let Self { shared, client, model, layout, journal, begun, .. } = self;
        let (federation, notes) = (&shared.experiment.federation, Notes::default());
        let threads = federation.threads_per_client.max(1);
        let mut services = HostServices::new(console, &notes, stop, &shared.experiment, threads);
        services.journal = journal;
        let (global, dialect) = global(task, model, layout)?;
        let several = shared.description.tasks.len() > 1;
        if !trains {
            if !federation.reports() {
                return Err("the site reports no metrics: its experiment has `federation.report = \"none\"`".to_owned());
            }
            let order = Order { round: *begun, epochs: 0, global };
            let found = client.evaluate_idle(&order, &services).map_err(|fault| said(&fault))?.global.test;
            let examples = found.iter().map(|evaluation| evaluation.examples).sum();
            let (loss, metrics) = (loss(&found), numbers(&found, several));
            return Ok(dialect.evaluated(&Evaluated { loss: Some(loss), examples, metrics }));
        }
        let (round, rounds) = (*begun, federation.rounds);
        if round >= rounds {
            return Err(format!("the site's experiment has {rounds} rounds, and all were trained in this run"));
        }
        journal.begin(round, &[client.name().to_owned()]).map_err(|failure| failure.into_report().line())?;
        *begun += 1;
        // A Python server uses every reply, or ends the run.
        if let Some(last) = round.checked_sub(1) {
            client.update_aggregated(last);
        }
        client.open(round, &services);
        let order = Order { round, epochs: federation.local_epochs, global };
        let outcome = client.round(&order, &Pause::never(), &services);
        client.close();
        let outcome = outcome.map_err(|fault| said(&fault))?.ok_or("the site is stopping")?;
        reply(model, dialect, outcome, several, federation.reports())
    }
}

/// The global model of an order.
fn global(task: Task, model: &FlowerModel, layout: &Layout) -> Result<(Message, Dialect), String> {
    let Task { dialect, arrays, .. } = task;
    let params = model.params(dialect, arrays).and_then(|params| layout.holds(&params).map(|()| params));
    let params = params.map_err(|error| Diagnostic::from(error).line())?;
    if params.is_empty() {
        return Err("the order has no parameters".to_owned());
    }
    Ok((params.into(), dialect))
}

/// The reply to a training order.
fn reply(
    model: &FlowerModel,
    dialect: Dialect,
    outcome: Outcome,
    several: bool,
    reports: bool,
) -> Result<Content, String> {
    let Outcome { message: Message { params, extra, values, .. }, examples, local, .. } = outcome;
    if let Some(name) = extra.names().chain(values.keys().map(String::as_str)).next() {
        return Err(format!("the client also sends `{name}`, and a Python server takes nothing but the parameters"));
    }
    let arrays = model.arrays(dialect, &params).map_err(|error| Diagnostic::from(error).line())?;
    let mut metrics = IndexMap::new();
    if reports {
        let last = local.last().map(|found| &found.test[..]).unwrap_or_default();
        metrics = numbers(last, several);
        metrics.insert("loss".to_owned(), Value::Float(loss(last)));
    }
    Ok(dialect.trained(&Trained { arrays, examples, metrics }))
}

/// The loss over all tasks, weighted by their examples; NaN if there are none.
fn loss(found: &[Evaluation]) -> f64 {
    let of = |evaluation: &&Evaluation| evaluation.examples > 0;
    let weighted = |evaluation: &Evaluation| evaluation.loss * evaluation.examples as f64;
    let sum: f64 = found.iter().filter(of).map(weighted).sum();
    sum / found.iter().map(|evaluation| evaluation.examples as f64).sum::<f64>()
}

/// The metrics of the only task. Strategies want the same ones from all sites in all rounds, so undefined ones go as NaN; and
/// sites may hold different tasks, so with several there are none.
fn numbers(found: &[Evaluation], several: bool) -> IndexMap<String, Value> {
    let only = found.iter().filter(|_| !several).flat_map(|evaluation| &evaluation.metrics);
    only.map(|metric| (metric.name.clone(), Value::Float(metric.value))).collect()
}

fn said(fault: &ComponentError) -> String {
    fault.report("").line()
}

#[cfg(test)]
mod tests {
    use plugin_api::{Goal, Metric, Params, Tensor};

    use super::*;
    use crate::federation::model_evaluation::ModelEvaluation;
    use crate::federation::usage::{Spent, Traffic};

    fn evaluation(task: &str, examples: u64, loss: f64) -> Evaluation {
        let metrics = vec![Metric { name: "RMSE".into(), value: loss.sqrt(), goal: Goal::Lower }];
        Evaluation { task: task.into(), examples, loss, score: 0.0, metrics }
    }

    #[test]
    fn a_loss_is_weighted_and_metrics_are_always_the_same() {
        let (a, b, empty) = (evaluation("a", 1, 4.0), evaluation("b", 3, 8.0), evaluation("c", 0, f64::NAN));
        assert_eq!(loss(&[a.clone(), b.clone(), empty.clone()]), 7.0);
        assert!(loss(&[]).is_nan() && loss(std::slice::from_ref(&empty)).is_nan());
        assert_eq!(numbers(std::slice::from_ref(&a), false)["RMSE"], Value::Float(2.0));
        let undefined = numbers(&[empty], false);
        assert!(undefined["RMSE"].as_f64().unwrap().is_nan());
        assert!(numbers(&[a, b], true).is_empty() && numbers(&[], true).is_empty());
    }

    #[test]
    fn a_reply_holds_one_record_of_each_kind_and_nothing_that_a_strategy_refuses() {
        let params: Params = [("w", Tensor::from_slice(&[1], &[1f32]).unwrap())].into_iter().collect();
        let model = FlowerModel::of(&params);
        let outcome = |extra: Params| Outcome {
            message: Message { params: params.clone(), extra, ..Message::default() },
            withheld: Vec::new(),
            steps: 2,
            examples: 10,
            global: ModelEvaluation::default(),
            local: vec![vec![evaluation("a", 5, 9.0)].into(), vec![evaluation("a", 5, 4.0)].into()],
            traffic: Traffic::default(),
            spent: Spent::default(),
            place: None,
        };
        let content = reply(&model, Dialect::Message, outcome(Params::new()), false, true).unwrap();
        let trained = Dialect::Message.read_trained(content).unwrap();
        assert_eq!((trained.arrays.keys().collect::<Vec<_>>(), trained.examples), (vec![&"w".to_owned()], 10));
        assert_eq!((&trained.metrics["loss"], &trained.metrics["RMSE"]), (&Value::Float(4.0), &Value::Float(2.0)));
        let content = reply(&model, Dialect::Message, outcome(Params::new()), false, false).unwrap();
        assert!(Dialect::Message.read_trained(content).unwrap().metrics.is_empty());
        let told = reply(&model, Dialect::Message, outcome(params.clone()), false, true).unwrap_err();
        assert_eq!(told, "the client also sends `w`, and a Python server takes nothing but the parameters");
    }

    #[test]
    fn the_sites_own_experiment_obeys_its_rules() {
        let folder = tempfile::tempdir().unwrap();
        let own = "name = \"x\"\n[federation]\nrounds = 4\nREST[dataset]\nplugin = \"csv\"\nfiles = \"a.csv\"\n[model]\nplugin = \
                   \"linear\"\n[aggregator]\nplugin = \"fedavg\"\n";
        let text = "name = \"a\"\n[data]\nfolder = \"d\"\n[allow]\nrounds = 3\n[flower]\nexperiment = \"own.toml\"\n";
        let read = |text: &str, rest: &str| {
            let site = SiteFile::parse("a.toml", text, folder.path()).unwrap();
            let path = site.flower.clone().unwrap();
            assert_eq!(path, folder.path().join("own.toml"));
            std::fs::write(&path, own.replace("REST", rest)).unwrap();
            read_experiment(&site, &path).map_err(|failure| failure.into_report().line())
        };
        let told = read(text, "").unwrap_err();
        assert!(told.ends_with("own.toml: a: rule `allow.rounds`: 4 rounds, and at most 3 are allowed"), "{told}");
        // Nobody has to approve it.
        let text = text.replace("rounds = 3", "confirm = true");
        assert!(read(&text, "").is_ok());
        let told = read(&text, "sampling = \"poisson\"\nfraction = 0.5\n").unwrap_err();
        assert!(told.contains("a Python server draws the clients"), "{told}");
        let site = SiteFile::parse("a.toml", &text, folder.path()).unwrap();
        let told = read_experiment(&site, Path::new("none.toml")).unwrap_err().into_report().line();
        assert!(told.starts_with("none.toml: cannot read the experiment"), "{told}");
    }
}
