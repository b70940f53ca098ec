//! The rounds over clients that are plain functions and an aggregator that adds up.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier, Mutex};

use plugin_api::{
    Aggregator, Cohort, Context, Error, Evaluation, Params, Query, Reply, Result as PluginResult, Stage, State, Tensor,
    Update,
};

use super::*;
use crate::artefacts::journal::Journal;
use crate::artefacts::run_dir::Existing;
use crate::federation::admission::{Admission, Place};
use crate::federation::aggregation::NamedAggregator;
use crate::federation::client::{Client, ClientState, CrossEvaluation, EvaluationOutcome, LastEvaluation, Order};
use crate::federation::failure_policy::FailurePolicy;
use crate::federation::filters::Filters;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::usage::{Spent, Traffic};
use crate::plugins::validate::Layout;
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;

/// Sends the global model with the parameter of its own name increased by 1.
struct Adding {
    name: String,
    /// The parameters that it holds.
    holds: Vec<String>,
    /// The round in which it fails.
    fails: Option<u64>,
    /// Whether its filters take its own parameter out.
    private: bool,
    /// Whether it fails to answer queries.
    silent: bool,
    /// If it is at its own site.
    remote: Option<Remote>,
    /// Where it notes that its update is admitted, and the aggregator whose update it takes.
    log: Log,
}

/// What a client at its own site has.
struct Remote {
    /// Where its update is admitted, with its place.
    admission: Arc<Admission>,
    place: Option<Arc<Place>>,
    /// Where it waits until all of them have begun.
    begun: Arc<Barrier>,
}

/// What happened to the clients' updates.
type Log = Arc<Mutex<Vec<String>>>;

fn evaluation(params: &Params) -> Vec<Evaluation> {
    let sum: f32 = params.iter().map(|(_, tensor)| tensor.elements::<f32>().unwrap()[0]).sum();
    let score = f64::from(sum);
    vec![Evaluation { task: "t".to_owned(), examples: 1, loss: -score, score, metrics: Vec::new() }]
}

impl Client for Adding {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, _: u64, _: &HostServices<'_>) {}

    fn round(&mut self, order: &Order, _: &Pause, _: &HostServices<'_>) -> Result<Option<Outcome>, ComponentError> {
        if self.fails == Some(order.round) {
            return Err(ComponentError::new("model `adding`".to_owned(), Error::data("it failed")));
        }
        let place = self.remote.as_mut().and_then(|Remote { admission, place, begun }| {
            begun.wait();
            admission.wait(usize::from(self.name == "b"));
            self.log.lock().unwrap().push(format!("{} is admitted", self.name));
            place.take()
        });
        let mut params = Params::new();
        for name in &self.holds {
            let before = order.global.params.elements::<f32>(name, &[1]).map_or(0.0, |all| all[0]);
            params.insert(name.clone(), Tensor::from_slice(&[1], &[before + 1.0]).unwrap());
        }
        let mut withheld = Vec::new();
        if self.private {
            params.retain(|name, _| name == "shared");
            withheld = self.holds.iter().filter(|name| *name != "shared").cloned().collect();
        }
        let global = evaluation(&order.global.params).into();
        let (traffic, spent) = (Traffic::default(), Spent::default());
        let message = params.into();
        Ok(Some(Outcome { message, withheld, steps: 1, examples: 1, global, local: Vec::new(), traffic, spent, place }))
    }

    fn close(&mut self) {}

    fn evaluate_idle(&mut self, order: &Order, _: &HostServices<'_>) -> Result<EvaluationOutcome, ComponentError> {
        let (traffic, spent) = (Traffic::default(), Spent::default());
        Ok(EvaluationOutcome { global: evaluation(&order.global.params).into(), traffic, spent })
    }

    fn answer(&mut self, question: &Message, _: u64, _: &HostServices<'_>) -> Result<Message, ComponentError> {
        if self.silent {
            return Err(ComponentError::new("filter `adding`".to_owned(), Error::data("it does not answer")));
        }
        Ok(question.clone())
    }

    fn publish(&mut self, order: &Order, _: &HostServices<'_>) -> Result<Message, ComponentError> {
        Ok(order.global.clone())
    }

    fn evaluate_other(&mut self, order: &Order, _: &HostServices<'_>) -> Result<CrossEvaluation, ComponentError> {
        Ok(CrossEvaluation { evaluations: evaluation(&order.global.params), own: Vec::new() })
    }

    fn update_aggregated(&mut self, _: u64) {}

    fn save_model(&mut self, _: &Path, _: &HostServices<'_>) -> Result<(), ComponentError> {
        Ok(())
    }

    fn finish(&mut self, order: &Order, _: &HostServices<'_>) -> Result<LastEvaluation, ComponentError> {
        Ok(LastEvaluation { evaluation: evaluation(&order.global.params).into(), predictions: None })
    }

    fn leave(&mut self, _: &HostServices<'_>) {}

    fn save(&mut self, _: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        Ok(ClientState::default())
    }

    fn restore(&mut self, _: ClientState, _: &HostServices<'_>) -> Result<(), ComponentError> {
        Ok(())
    }

    fn release(&mut self, _: &HostServices<'_>) -> Result<(), ComponentError> {
        Ok(())
    }
}

/// The last value of each parameter that anybody sent, and in which order clients were added.
#[derive(Default)]
struct Last {
    params: Params,
    added: Log,
    /// The clients that it queries at each stage.
    queried: Vec<String>,
    /// The clients that replied, with the stage.
    replied: Arc<Mutex<Vec<(Stage, String)>>>,
}

impl Aggregator for Last {
    fn begin(&mut self, _: &Message, _: &Cohort, _: &Context<'_>) -> PluginResult<()> {
        self.params = Params::new();
        Ok(())
    }

    fn ask(&mut self, stage: Stage, replies: Vec<Reply>, _: &Context<'_>) -> PluginResult<Vec<Query>> {
        if replies.is_empty() {
            let query = |client: &String| Query { client: client.clone(), message: Message::default() };
            return Ok(self.queried.iter().map(query).collect());
        }
        self.replied.lock().unwrap().extend(replies.into_iter().map(|reply| (stage, reply.client)));
        Ok(Vec::new())
    }

    fn add(&mut self, update: Update, _: &Context<'_>) -> PluginResult<()> {
        self.added.lock().unwrap().push(update.client);
        for (name, tensor) in update.message.params.iter() {
            self.params.insert(name, tensor.clone());
        }
        Ok(())
    }

    fn finish(&mut self, _: &Context<'_>) -> PluginResult<Message> {
        Ok(std::mem::take(&mut self.params).into())
    }

    fn state(&mut self, _: &Context<'_>) -> PluginResult<State> {
        Ok(State::default())
    }
}

/// Clients `a`, `b`, `c` with a head each, and a parameter that they share.
fn client(name: &str) -> Adding {
    Adding {
        name: name.to_owned(),
        holds: vec!["shared".to_owned(), name.to_owned()],
        fails: None,
        private: false,
        silent: false,
        remote: None,
        log: Log::default(),
    }
}

/// Clients `a` and `b` at their own sites, which work at the same time.
fn at_their_sites() -> [Adding; 2] {
    let (admission, begun, log) = (Arc::new(Admission::default()), Arc::new(Barrier::new(2)), Log::default());
    [(0, "a"), (1, "b")].map(|(index, name)| {
        let place = Some(Arc::new(admission.enter(index)));
        let remote = Some(Remote { admission: admission.clone(), place, begun: begun.clone() });
        Adding { remote, log: log.clone(), ..client(name) }
    })
}

/// What came of a run: how it ended, the global model, and the clients in the order of aggregation.
struct Ran {
    outcome: Result<(), CliError>,
    global: BTreeMap<String, f32>,
    added: Vec<String>,
    replied: Vec<(Stage, String)>,
    /// Whether the global model was in a file.
    parked: bool,
}

/// Runs an experiment's rounds over these clients.
fn run(clients: Vec<Adding>, plan: &str) -> Ran {
    run_with_queries(clients, plan, &[])
}

/// Runs an experiment's rounds, in which the aggregator queries some of the clients.
fn run_with_queries(clients: Vec<Adding>, plan: &str, queried: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let plan: config::Federation = toml::from_str(plan).unwrap();
    let names: Vec<String> = clients.iter().map(|client| client.name.clone()).collect();
    let (console, notes, stop) = (Console::new(Level::Error), Notes::default(), AtomicBool::new(false));
    let run_dir = RunDir::claim(folder.path(), "r", Existing::Refuse, &mut |_| ()).unwrap();
    let tracker = Tracker::new(run_dir.path(), &names, None).unwrap();
    let journal = Journal::open(run_dir.path()).unwrap();
    let services = HostServices {
        console: &console,
        reporter: tracker.reporter(),
        notes: &notes,
        journal: &journal,
        stop: &stop,
        activity: None,
        seed: plugin_api::Seed::new(1),
        terms: plan.terms(),
        threads: 1,
    };
    let initial: Params = ["shared"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .map(|name| (name.to_owned(), Tensor::from_slice(&[1], &[0.0_f32]).unwrap()))
        .collect();
    let added = clients[0].log.clone();
    let replied = Arc::new(Mutex::new(Vec::new()));
    let queried = queried.iter().map(|&name| name.to_owned()).collect();
    let aggregator = Last { added: added.clone(), queried, replied: replied.clone(), ..Last::default() };
    let mut federation = Federation {
        evaluators: Evaluators::new((0..clients.len()).collect(), false),
        clients: Clients::new(
            clients.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect(),
            2,
            FailurePolicy { on_failure: plan.on_client_failure, services: &services },
        ),
        server: Server {
            aggregator: NamedAggregator::new("last".to_owned(), Vec::new(), Box::new(aggregator)),
            filters: Filters::default(),
            layout: Layout::of(&initial),
            global: initial.into(),
        },
        parking: Some((Arc::new(Store::new(run_dir.path().join("idle"), plan.idle_memory).unwrap()), Arc::default())),
        empty_rounds: false,
        draws: Draws::of(run_dir.path()).unwrap(),
        score: None,
        validation_score: None,
        best: BestModels::new(Arc::new(Store::in_memory()), &["t".to_owned()]),
        several_tasks: false,
        history: History::new(names),
        done: 0,
        patience: Patience::default(),
        plan: &plan,
        totals: Totals::new(Instant::now(), 2),
        pause: Pause::new(Stop::default(), None, 2),
        round_start: None,
        positions: tracker.sync().unwrap(),
        forced: Positions::default(),
        tracker: &tracker,
        services: &services,
        run_dir: &run_dir,
    };
    let outcome = federation.run();
    let params = federation.server.global.params.iter();
    let global = params.map(|(name, tensor)| (name.to_owned(), tensor.elements::<f32>().unwrap()[0])).collect();
    let (added, replied) = (added.lock().unwrap().clone(), replied.lock().unwrap().clone());
    Ran { outcome, global, added, replied, parked: run_dir.path().join("idle").is_dir() }
}

fn of(values: &[(&str, f32)]) -> BTreeMap<String, f32> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn every_client_trains_the_last_global_model_and_updates_arrive_in_order() {
    let Ran { outcome, global, added, .. } = run(["a", "b", "c"].map(client).into(), "rounds = 3");
    outcome.unwrap();
    assert_eq!(global, of(&[("shared", 3.0), ("a", 3.0), ("b", 3.0), ("c", 3.0)]));
    assert_eq!(added, ["a", "b", "c"].repeat(3));
}

#[test]
fn an_update_is_admitted_once_the_one_before_it_is_aggregated() {
    let ran = run(at_their_sites().into(), "rounds = 1");
    ran.outcome.unwrap();
    assert_eq!(ran.added, ["a is admitted", "a", "b is admitted", "b"]);
}

#[test]
fn an_update_that_ends_the_run_keeps_nobody_waiting() {
    let [a, b] = at_their_sites();
    let ran = run(vec![Adding { holds: vec!["shared".to_owned(), "strange".to_owned()], ..a }, b], "rounds = 1");
    let error = ran.outcome.unwrap_err().to_string();
    assert!(error.starts_with("error: round 1, client `a`, update: tensor `strange`: "), "{error}");
    assert_eq!(ran.added, ["a is admitted", "b is admitted"]);
}

#[test]
fn a_global_model_that_waits_in_a_file_is_the_same() {
    let clients = || vec![client("a"), Adding { fails: Some(1), ..client("b") }, client("c")];
    let plan = "rounds = 4\non-client-failure = \"leave-out\"";
    let [there, here] =
        ["idle-memory = \"0 B\"", "idle-memory = \"16 B\""].map(|more| run(clients(), &format!("{plan}\n{more}")));
    assert!(there.parked && !here.parked);
    there.outcome.and(here.outcome).unwrap();
    assert_eq!((there.global, there.added), (here.global, here.added));
}

#[test]
fn a_client_that_fails_ends_the_run_or_is_left_out_as_the_file_says() {
    let clients = || vec![client("a"), Adding { fails: Some(1), ..client("b") }, client("c")];
    let Ran { outcome, global, .. } = run(clients(), "rounds = 3");
    assert_eq!(outcome.unwrap_err().to_string(), "error: round 2, client `b`, model `adding`: it failed");
    assert_eq!(global["shared"], 1.0, "the model of the last whole round");
    let Ran { outcome, global, added, .. } = run(clients(), "rounds = 3\non-client-failure = \"leave-out\"");
    outcome.unwrap();
    // The head of the client that was left out keeps its value in that round.
    assert_eq!(global, of(&[("shared", 3.0), ("a", 3.0), ("b", 2.0), ("c", 3.0)]));
    assert_eq!(added, ["a", "b", "c", "a", "c", "a", "b", "c"]);
}

#[test]
fn too_few_updates_end_the_run() {
    let clients = vec![client("a"), Adding { fails: Some(0), ..client("b") }];
    let plan = "rounds = 1\nmin-clients = 2\non-client-failure = \"leave-out\"";
    let error = run(clients, plan).outcome.unwrap_err().to_string();
    assert_eq!(error, "error: round 1: only 1 clients sent an update\nhint: `federation.min-clients` is 2");
    let all = ["a", "b"].map(|name| Adding { fails: Some(0), ..client(name) });
    let error = run(all.into(), "rounds = 1\non-client-failure = \"leave-out\"").outcome.unwrap_err().to_string();
    assert_eq!(error, "error: round 1: every client failed");
}

#[test]
fn private_parameters_leave_the_global_model_and_those_of_absent_clients_stay() {
    let private = ["a", "b"].map(|name| Adding { private: true, ..client(name) });
    let Ran { outcome, global, .. } = run(private.into(), "rounds = 2");
    outcome.unwrap();
    assert_eq!(global, of(&[("shared", 2.0)]));
    // One of four in each round: all heads stay, and have moved as often as their clients took part.
    let clients = ["a", "b", "c", "d"].map(client);
    let Ran { outcome, global, added, .. } = run(clients.into(), "rounds = 6\nfraction = 0.25");
    outcome.unwrap();
    assert_eq!(added.len(), 6);
    for name in ["a", "b", "c", "d"] {
        assert_eq!(global[name] as usize, added.iter().filter(|client| *client == name).count(), "{name}");
    }
    assert_eq!(global["shared"], 6.0);
}

#[test]
fn the_score_of_the_last_judged_model_stops_the_run_early() {
    let still = Adding { holds: vec!["shared".to_owned()], ..client("a") };
    // Its score rises by 1 in each round, and the rule asks for 2.
    let plan = "rounds = 9\nearly-stopping = { patience = 2, min-delta = 2.0 }";
    let Ran { outcome, added, .. } = run(vec![still], plan);
    outcome.unwrap();
    assert!((3..9).contains(&added.len()), "{added:?}");
}

#[test]
fn queries_reach_their_clients_before_and_after_training() {
    let ran = run_with_queries(["a", "b", "c"].map(client).into(), "rounds = 1", &["a", "c"]);
    ran.outcome.unwrap();
    let replied: Vec<(Stage, &str)> = ran.replied.iter().map(|(stage, client)| (*stage, client.as_str())).collect();
    let wanted = [(Stage::Opening, "a"), (Stage::Opening, "c"), (Stage::Closing, "a"), (Stage::Closing, "c")];
    assert_eq!(replied, wanted);
    assert_eq!(ran.added, ["a", "b", "c"]);
}

#[test]
fn a_client_that_does_not_reply_has_failed() {
    let clients = vec![client("a"), Adding { silent: true, ..client("b") }, client("c")];
    let ran = run_with_queries(clients, "rounds = 1", &["b"]);
    assert_eq!(ran.outcome.unwrap_err().to_string(), "error: round 1, client `b`, filter `adding`: it does not answer");
    assert!(ran.added.is_empty());
}

#[test]
fn queries_out_of_order_or_to_strangers_are_the_aggregators_error() {
    for (queried, client_name) in [(["c", "a"], "a"), (["a", "x"], "x")] {
        let ran = run_with_queries(["a", "b", "c"].map(client).into(), "rounds = 1", &queried);
        let why = format!("it queries client `{client_name}`, which is unknown or out of order");
        assert_eq!(ran.outcome.unwrap_err().to_string(), format!("error: round 1, aggregator `last`: {why}"));
    }
}
