//! The rounds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plugin_api::{Aggregator, Cohort, ErrorKind, Evaluation, Message, Stage, Update};

use crate::best::BestModels;
use crate::client::{Client, Outcome};
use crate::config::{self, LOCAL_SCORE, OnClientFailure};
use crate::dialogue::{Asked, pick};
use crate::error::{Failure, Report};
use crate::filters::Chain;
use crate::link::{Fault, Line, Link};
use crate::means::{Number, mean_score, numbers};
use crate::orders::Orders;
use crate::participation::select;
use crate::predictions;
use crate::report::{Record, short};
use crate::run_dir::RunDir;
use crate::stopping::{self, Patience};
use crate::summary::Time;
use crate::tracking::{Scalar, Tracker};
use crate::trust::{self, Layout};
use crate::workers::{ahead, in_order};

/// How long a run goes on without a checkpoint where the experiment does not say.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// What the clients of a round did, by their names, in their order.
type Outcomes = Vec<(String, Outcome)>;

/// The federation between two rounds.
pub struct Federation<'a> {
    /// The clients, in the order of aggregation.
    pub clients: Vec<Box<dyn Client>>,
    /// The aggregator and its plugin's name.
    pub aggregator: (String, Box<dyn Aggregator>),
    /// The server's filters: on what it gets, and on what it sends.
    pub server: [Chain; 2],
    /// The global model.
    pub global: Message,
    /// The mean of the clients' scores of the global model that was evaluated last.
    pub score: Option<f64>,
    /// What updates and global models have to fit.
    pub layout: Layout,
    /// The global models that were the best so far.
    pub best: BestModels,
    /// Whether the run has several tasks, whose metrics have units of their own.
    pub several_tasks: bool,
    /// How the clients' models did so far.
    pub record: Record,
    /// How many rounds are done.
    pub done: u64,
    /// Whether it still gets better.
    pub patience: Patience,
    /// What the experiment says of rounds and clients.
    pub plan: &'a config::Federation,
    /// How many clients work at the same time.
    pub workers: usize,
    /// Where the time of the rounds went.
    pub time: Time,
    /// Where scalars go.
    pub tracker: &'a Tracker,
    /// What the components may call.
    pub link: &'a Link<'a>,
    /// Where checkpoints go.
    pub run_dir: &'a RunDir,
}

impl Federation<'_> {
    /// Runs all rounds that are left, then evaluates the last global model.
    ///
    /// # Errors
    /// If a component fails, a file cannot be written, or the run is asked to stop.
    pub fn run(&mut self) -> Result<(), Failure> {
        let mut checkpointed = Instant::now();
        while !self.is_over() {
            let begun = Instant::now();
            let (outcomes, numbers) = self.round(self.done)?;
            self.judge(self.done, &outcomes, numbers, begun)?;
            self.done += 1;
            let positions = self.tracker.sync()?;
            let due = match self.plan.checkpoint_every {
                0 => checkpointed.elapsed() >= CHECKPOINT_AFTER,
                every => self.done.is_multiple_of(every),
            };
            if due && !self.is_over() {
                self.save(&positions)?;
                checkpointed = Instant::now();
            }
        }
        if let (true, Some(rule)) = (self.done < self.plan.rounds, &self.plan.early_stopping) {
            let line =
                format!("stopped after round {}: {} rounds without a better {}", self.done, rule.patience, rule.metric);
            self.link.console.log(plugin_api::Level::Info, &line);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.done >= self.plan.rounds || self.patience.is_over(self.plan.early_stopping.as_ref())
    }

    /// One round: clients are selected; each gets the global model through the filters, evaluates, trains and evaluates;
    /// its update comes back through the filters and is aggregated in the clients' order; the aggregate is the next
    /// global model. Before and after the clients' work the aggregator may ask them for more.
    fn round(&mut self, round: u64) -> Result<(Outcomes, Vec<Number>), Failure> {
        let link = self.link;
        let place = format!("round {}", round + 1);
        let mut chosen = select(self.clients.len(), self.plan.fraction, self.plan.min_clients, link.seed, round);
        let cohort =
            Cohort::new(chosen.iter().map(|&k| self.clients[k].name().to_owned()).collect(), self.clients.len());
        let plugin = self.aggregator.0.clone();
        let aggregator = &mut self.aggregator.1;
        let at_server = Line::new(link, &plugin, None, Some(round));
        let ctx = at_server.context();
        let failed = |error| Failure::run(Fault::new(format!("aggregator `{plugin}`"), error).report(&place));
        aggregator.begin(&self.global, &cohort, &ctx).map_err(failed)?;
        let policy = self.plan.on_client_failure;
        let lost = |fault: Fault, client: &str| bear(&fault, &format!("{place}, client `{client}`"), policy, link);
        let mut asked = Asked { clients: &mut self.clients, round, link, workers: self.workers };
        let encoded = asked.dialogue(&mut **aggregator, Stage::Opening, &mut chosen, &ctx, &failed, &lost)?;

        let aggregator = &mut self.aggregator.1;
        let mut outcomes = Vec::new();
        let mut heard = Vec::new();
        let ([input, output], global) = (&mut self.server, &self.global);
        let orders = Orders::new(round, self.plan.local_epochs, global, output, link);
        let work = |place: usize, client: &mut &mut Box<dyn Client>| {
            let order = orders.order(place, (chosen[place], client.name()))?;
            let outcome = client.round(&order, link);
            link.reporter.client_done(chosen[place]);
            Ok(outcome)
        };
        let layout = &self.layout;
        let mut at_work: Vec<_> = pick(&mut self.clients, &chosen);
        let names: Vec<String> = at_work.iter().map(|client| client.name().to_owned()).collect();
        let ahead = ahead(self.workers, global.bytes());
        let taken = in_order((self.workers, ahead), &mut at_work, work, |index, outcome: Result<_, Failure>| {
            let client = &names[index];
            let line = Line::new(link, "server", Some((chosen[index], client)), Some(round));
            let filtered =
                outcome.inspect_err(|_| link.stop.store(true, Ordering::Relaxed))?.and_then(|mut outcome| {
                    let message = input.apply(std::mem::take(&mut outcome.message), global, &line)?;
                    trust::update(layout, global, &message, encoded).map_err(|e| Fault::new("update".to_owned(), e))?;
                    Ok((message, outcome))
                });
            let (message, outcome) = match filtered {
                Ok(filtered) => filtered,
                Err(fault) => return lost(fault, client),
            };
            let update = Update { client: client.clone(), message, steps: outcome.steps, examples: outcome.examples };
            match aggregator.add(update, &ctx) {
                Ok(()) => {}
                Err(error) if *error.kind() == ErrorKind::Panic => return Err(failed(error)),
                // What it refuses leaves no trace, by its contract: it is the client that has failed.
                Err(error) => return lost(Fault::new(format!("aggregator `{plugin}`"), error), client),
            }
            heard.push(chosen[index]);
            outcomes.push((client.clone(), outcome));
            Ok(())
        });
        taken?;
        if outcomes.is_empty() {
            return Err(Failure::run(Report::new(format!("{place}: every client failed"))));
        }
        if outcomes.len() < self.plan.min_clients {
            let report = Report::new(format!("{place}: only {} clients sent an update", outcomes.len()));
            return Err(Failure::run(report.hint(format!("`federation.min-clients` is {}", self.plan.min_clients))));
        }
        let mut asked = Asked { clients: &mut self.clients, round, link, workers: self.workers };
        asked.dialogue(&mut **aggregator, Stage::Closing, &mut heard, &ctx, &failed, &lost)?;
        let next = aggregator.finish(&ctx).and_then(|next| trust::aggregated(&self.layout, next)).map_err(failed)?;
        let numbers = self.note_score(round, outcomes.iter().map(|(_, outcome)| &outcome.global[..]))?;
        self.global = next;
        self.best.rest();
        Ok((outcomes, numbers))
    }

    /// Takes down how well the present global model does at these clients, and keeps it if it does better than any before.
    ///
    /// # Errors
    /// If a model that was best before could not be written where it waits.
    fn note_score<'e>(
        &mut self,
        rounds: u64,
        clients: impl Iterator<Item = &'e [Evaluation]> + Clone,
    ) -> Result<Vec<Number>, Failure> {
        self.score = mean_score(clients.clone());
        self.best.note(rounds, &self.global, clients.clone())?;
        let numbers = numbers("global_test", self.several_tasks, clients);
        self.report(rounds, &numbers);
        Ok(numbers)
    }

    /// Reports the server's numbers; those that are not defined are no points of a curve.
    fn report(&self, round: u64, numbers: &[Number]) {
        for Number { tag, value, .. } in numbers.iter().filter(|number| number.value.is_finite()) {
            let (tag, value) = (tag.clone(), *value);
            self.link.reporter.scalar(Scalar { client: None, round, tag, step: round, value });
        }
    }

    /// Takes down what a round showed, and shows it.
    fn judge(
        &mut self,
        round: u64,
        outcomes: &[(String, Outcome)],
        mut all: Vec<Number>,
        begun: Instant,
    ) -> Result<(), Failure> {
        for (client, outcome) in outcomes {
            self.record.add_traffic(client, outcome.traffic);
            self.time.models.training += outcome.spent.training;
            self.time.models.evaluation += outcome.spent.evaluation;
            self.record.add_global(client, &outcome.global);
            outcome.local.iter().for_each(|evaluations| self.record.add_local(client, evaluations));
        }
        let last = outcomes.iter().filter_map(|(_, outcome)| outcome.local.last().map(Vec::as_slice));
        let local = numbers("local_test", self.several_tasks, last);
        self.report(round, &local);
        let mut line = format!("round {}/{}", round + 1, self.plan.rounds);
        // Of several tasks the score alone: their metrics fill no line, and have no mean.
        for Number { tag, value, .. } in local.iter().take(if self.several_tasks { 1 } else { local.len() }) {
            let name = tag.strip_suffix("/local_test").unwrap_or(tag);
            let name = if tag == LOCAL_SCORE { "score" } else { name };
            let value = if value.is_finite() { short(*value) } else { "-".to_owned() };
            line += &format!(", {name} {value}");
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.time.rounds += seconds;
        self.link.console.round(&format!("{line} ({seconds:.1} s)"));
        all.extend(local);
        self.watch(&all)
    }

    /// Notes the number that early stopping watches.
    fn watch(&mut self, numbers: &[Number]) -> Result<(), Failure> {
        let Some(rule) = &self.plan.early_stopping else { return Ok(()) };
        let number = stopping::watched(rule, numbers)
            .map_err(|report| Failure::run(report.within("`federation.early-stopping.metric`")))?;
        self.patience.note(number.value, number.goal, rule);
        Ok(())
    }

    /// Evaluates the last global model at every client, in the clients' order, and writes what it and the clients' own
    /// models predict. It is the last that they do.
    ///
    /// # Errors
    /// If a component fails, or metrics or predictions cannot be written.
    pub fn evaluate(&mut self, predictions: &mut predictions::Writer<'_>) -> Result<(), Failure> {
        let link = self.link;
        let orders = Orders::new(self.done, self.plan.local_epochs, &self.global, &mut self.server[1], link);
        let names: Vec<String> = self.clients.iter().map(|client| client.name().to_owned()).collect();
        let work = |index: usize, client: &mut Box<dyn Client>| {
            let order = orders.order(index, (index, client.name()))?;
            let own = client.predict(link);
            let evaluations = client.evaluate(&order, link);
            let found = evaluations.map(|found| (found, own.and_then(|own| Ok((own, client.predict(link)?)))));
            client.retire(link);
            link.reporter.client_done(index);
            Ok(found)
        };
        let (mut all, on_failure) = (Vec::new(), self.plan.on_client_failure);
        let ahead = ahead(self.workers, 0);
        in_order((self.workers, ahead), &mut self.clients, work, |index, found: Result<_, Failure>| match found? {
            Ok((evaluations, predicted)) => {
                all.push((names[index].clone(), evaluations));
                let place = format!("predictions, client `{}`", names[index]);
                match predicted {
                    Ok((own, global)) => predictions.add(&names[index], &own, &global),
                    Err(fault) if fault.is_unsupported() => {
                        link.console.log(plugin_api::Level::Warn, fault.report(&place).message());
                        Ok(())
                    }
                    Err(fault) => bear(&fault, &place, on_failure, link),
                }
            }
            Err(fault) => bear(&fault, &format!("last evaluation, client `{}`", names[index]), on_failure, link),
        })?;
        for (client, evaluations) in &all {
            self.record.add_global(client, evaluations);
        }
        self.note_score(self.done, all.iter().map(|(_, evaluations)| &evaluations[..]))?;
        self.tracker.sync().map(drop)
    }
}

/// What becomes of the run when a client fails: it goes on without the client, with a warning, or it ends.
///
/// # Errors
/// If it ends.
pub fn bear(fault: &Fault, place: &str, policy: OnClientFailure, link: &Link<'_>) -> Result<(), Failure> {
    let report = fault.report(place);
    if policy == OnClientFailure::LeaveOut && !fault.is_cancelled() {
        link.console.log(plugin_api::Level::Warn, &format!("left out: {}", report.message()));
        return Ok(());
    }
    // The others need not finish what nobody will take.
    let asked = link.stop.swap(true, Ordering::Relaxed);
    Err(if asked && fault.is_cancelled() {
        let hint = "go on with --resume, from the last checkpoint if there is one";
        Failure::run(Report::new("stopped on request").hint(hint))
    } else {
        Failure::run(report)
    })
}
