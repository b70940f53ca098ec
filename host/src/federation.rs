//! The rounds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plugin_api::{Aggregator, Cohort, Evaluation, Goal, Message, Stage, Update};

use crate::client::{Client, Order, Outcome};
use crate::config::{self, OnClientFailure, SCORE};
use crate::dialogue::{Asked, pick};
use crate::error::{Failure, Report};
use crate::filters::Chain;
use crate::idle::Waiting;
use crate::link::{Fault, Line, Link};
use crate::participation::select;
use crate::predictions;
use crate::report::{Record, mean_metrics, mean_score, short};
use crate::run_dir::RunDir;
use crate::stopping::Patience;
use crate::summary::Time;
use crate::tracking::{Scalar, Tracker};
use crate::trust;
use crate::workers::{ahead, in_order};

/// How long a run goes on without a checkpoint where the experiment does not say.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// A global model that did best so far.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// After how many rounds it was made.
    pub rounds: u64,
    /// The mean of the clients' scores.
    pub score: f64,
}

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
    /// Which global model was the best so far.
    pub best: Option<Best>,
    /// That model.
    pub best_model: Waiting,
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
            let outcomes = self.round(self.done)?;
            self.judge(self.done, &outcomes, begun)?;
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
    fn round(&mut self, round: u64) -> Result<Vec<(String, Outcome)>, Failure> {
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
        let mut asked = Asked { clients: &mut self.clients, round, link, workers: self.workers, policy };
        asked.dialogue(&mut **aggregator, Stage::Opening, &mut chosen, &ctx, &failed)?;
        let orders = self.orders(round, &chosen)?;

        let aggregator = &mut self.aggregator.1;
        let mut outcomes = Vec::new();
        let mut heard = Vec::new();
        let work = |place: usize, client: &mut &mut Box<dyn Client>| {
            let outcome = client.round(&orders[place], link);
            link.reporter.client_done(chosen[place]);
            outcome
        };
        let (input, global) = (&mut self.server[0], &self.global);
        let mut at_work: Vec<_> = pick(&mut self.clients, &chosen);
        let names: Vec<String> = at_work.iter().map(|client| client.name().to_owned()).collect();
        let ahead = ahead(self.workers, global.bytes());
        let taken = in_order((self.workers, ahead), &mut at_work, work, |index, outcome: Result<Outcome, Fault>| {
            let client = &names[index];
            let line = Line::new(link, "server", Some((chosen[index], client)), Some(round));
            let filtered = outcome.and_then(|mut outcome| {
                let message = input.apply(std::mem::take(&mut outcome.message), global, &line)?;
                Ok((message, outcome))
            });
            let (message, outcome) = match filtered {
                Ok(filtered) => filtered,
                Err(fault) => {
                    bear(&fault, &format!("{place}, client `{client}`"), policy, link)?;
                    return Ok(());
                }
            };
            heard.push(chosen[index]);
            let update = Update { client: client.clone(), message, steps: outcome.steps, examples: outcome.examples };
            aggregator.add(update, &ctx).map_err(failed)?;
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
        let mut asked = Asked { clients: &mut self.clients, round, link, workers: self.workers, policy };
        asked.dialogue(&mut **aggregator, Stage::Closing, &mut heard, &ctx, &failed)?;
        let next = aggregator.finish(&ctx).and_then(|next| trust::aggregated(&self.global, next)).map_err(failed)?;
        self.note_score(round, outcomes.iter().map(|(_, outcome)| &outcome.global[..]))?;
        self.global = next;
        self.best_model.rest();
        Ok(outcomes)
    }

    /// What each of these clients is told: the global model, through the server's filters.
    fn orders(&mut self, round: u64, chosen: &[usize]) -> Result<Vec<Order>, Failure> {
        let mut orders = Vec::new();
        for &index in chosen {
            let name = self.clients[index].name();
            let line = Line::new(self.link, "server", Some((index, name)), Some(round));
            let global = self.server[1]
                .apply(self.global.clone(), &self.global, &line)
                .map_err(|fault| Failure::run(fault.report(&format!("round {}, client `{name}`", round + 1))))?;
            orders.push(Order { round, epochs: self.plan.local_epochs, global });
        }
        Ok(orders)
    }

    /// Takes down the score of the present global model, and keeps the model if it does better than any before.
    ///
    /// # Errors
    /// If the best model before could not be written where it waits.
    fn note_score<'e>(&mut self, rounds: u64, clients: impl Iterator<Item = &'e [Evaluation]>) -> Result<(), Failure> {
        self.score = mean_score(clients);
        let Some(score) = self.score else { return Ok(()) };
        self.link.reporter.scalar(Scalar {
            client: None,
            round: rounds,
            tag: SCORE.to_owned(),
            step: rounds,
            value: score,
        });
        if self.best.as_ref().is_none_or(|best| score > best.score) {
            self.best = Some(Best { rounds, score });
            self.best_model.put(self.global.clone())?;
        }
        Ok(())
    }

    /// Takes down what a round showed, and shows it.
    fn judge(&mut self, round: u64, outcomes: &[(String, Outcome)], begun: Instant) -> Result<(), Failure> {
        for (client, outcome) in outcomes {
            self.record.add_traffic(client, outcome.traffic);
            self.time.models.training += outcome.spent.training;
            self.time.models.evaluation += outcome.spent.evaluation;
            self.record.add_global(client, &outcome.global);
            outcome.local.iter().for_each(|evaluations| self.record.add_local(client, evaluations));
        }
        let server = |tag: String, value: f64| {
            self.link.reporter.scalar(Scalar { client: None, round, tag, step: round, value });
        };
        for (name, value) in mean_metrics(outcomes.iter().map(|(_, outcome)| &outcome.global[..])) {
            server(format!("{name}/global_test"), value);
        }
        let local = mean_metrics(outcomes.iter().filter_map(|(_, outcome)| outcome.local.last().map(Vec::as_slice)));
        let mut line = format!("round {}/{}", round + 1, self.plan.rounds);
        for (name, value) in local {
            line += &format!(", {name} {}", short(value));
            server(format!("{name}/local_test"), value);
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.time.rounds += seconds;
        self.link.console.round(&format!("{line} ({seconds:.1} s)"));
        self.watch(outcomes)
    }

    /// Notes the number that early stopping watches.
    fn watch(&mut self, outcomes: &[(String, Outcome)]) -> Result<(), Failure> {
        let Some(rule) = &self.plan.early_stopping else { return Ok(()) };
        if rule.metric == SCORE {
            self.patience.note(self.score.unwrap_or(f64::NAN), Goal::Higher, rule);
            return Ok(());
        }
        let global = || outcomes.iter().map(|(_, outcome)| &outcome.global[..]);
        let local = || outcomes.iter().filter_map(|(_, outcome)| outcome.local.last().map(Vec::as_slice));
        let known = |at: &str| {
            let metrics = || global().chain(local()).flatten().flat_map(|evaluation| &evaluation.metrics);
            metrics().map(|metric| (format!("{}/{at}", metric.name), metric.goal)).collect::<Vec<_>>()
        };
        let all = [known("global_test"), known("local_test")].concat();
        let Some((_, goal)) = all.iter().find(|(tag, _)| *tag == rule.metric) else {
            let mut tags: Vec<&str> = [SCORE].into_iter().chain(all.iter().map(|(tag, _)| tag.as_str())).collect();
            tags.sort_unstable();
            tags.dedup();
            let report =
                Report::new(format!("`federation.early-stopping.metric`: the model reports no `{}`", rule.metric));
            return Err(Failure::usage(report.hint(format!("there are: {}", tags.join(", ")))));
        };
        let means = if rule.metric.ends_with("/local_test") { mean_metrics(local()) } else { mean_metrics(global()) };
        let value =
            means.iter().find(|(name, _)| rule.metric.starts_with(&format!("{name}/"))).map(|(_, value)| *value);
        self.patience.note(value.unwrap_or(f64::NAN), *goal, rule);
        Ok(())
    }

    /// Evaluates the last global model at every client, in the clients' order, and writes what it and the clients' own
    /// models predict. It is the last that they do.
    ///
    /// # Errors
    /// If a component fails, or metrics or predictions cannot be written.
    pub fn evaluate(&mut self, predictions: &mut predictions::Writer<'_>) -> Result<(), Failure> {
        let all: Vec<usize> = (0..self.clients.len()).collect();
        let orders = self.orders(self.done, &all)?;
        let link = self.link;
        let names: Vec<String> = self.clients.iter().map(|client| client.name().to_owned()).collect();
        let work = |index: usize, client: &mut Box<dyn Client>| {
            let own = client.predict(link);
            let found = match (own, client.evaluate(&orders[index], link)) {
                (Ok(own), Ok(found)) => Ok((found, client.predict(link).map(|global| (own, global)))),
                (Err(fault), Ok(found)) => Ok((found, Err(fault))),
                // A model that panicked answers nothing more, and the first fault is the one to tell.
                (Err(fault), Err(_)) if !fault.is_unsupported() => Err(fault),
                (_, Err(fault)) => Err(fault),
            };
            client.retire(link);
            link.reporter.client_done(index);
            found
        };
        let (mut all, on_failure) = (Vec::new(), self.plan.on_client_failure);
        let ahead = ahead(self.workers, 0);
        in_order((self.workers, ahead), &mut self.clients, work, |index, found| match found {
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
        for (name, value) in mean_metrics(all.iter().map(|(_, evaluations)| &evaluations[..])) {
            let tag = format!("{name}/global_test");
            link.reporter.scalar(Scalar { client: None, round: self.done, tag, step: self.done, value });
        }
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
