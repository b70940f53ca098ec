//! The rounds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plugin_api::{Aggregator, Evaluation, Message, Update};

use crate::client::{Client, Fault, Line, Link, Order, Outcome};
use crate::config::OnClientFailure;
use crate::error::{Failure, Report};
use crate::filters::Chain;
use crate::report::{Record, mean_metrics, mean_score, short};
use crate::run_dir::RunDir;
use crate::tracking::{Scalar, Tracker};
use crate::workers::in_order;

/// How long a run goes on without a checkpoint where the experiment does not say.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

/// A global model that did best so far.
#[derive(Clone, Debug)]
pub struct Best {
    /// After how many rounds it was made.
    pub rounds: u64,
    /// The mean of the clients' scores.
    pub score: f64,
    /// The model.
    pub global: Message,
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
    /// The best global model so far.
    pub best: Option<Best>,
    /// How the clients' models did so far.
    pub record: Record,
    /// How many rounds are done.
    pub done: u64,
    /// How many rounds there are.
    pub rounds: u64,
    /// Epochs of a client in a round.
    pub epochs: u64,
    /// How many clients work at the same time.
    pub workers: usize,
    /// What happens when a client fails.
    pub on_failure: OnClientFailure,
    /// After how many rounds a checkpoint is written; 0 by time.
    pub checkpoint_every: u64,
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
        while self.done < self.rounds {
            let begun = Instant::now();
            let evaluations = self.round(self.done)?;
            self.judge(self.done, &evaluations, begun);
            self.done += 1;
            let positions = self.tracker.sync()?;
            let due = match self.checkpoint_every {
                0 => checkpointed.elapsed() >= CHECKPOINT_AFTER,
                every => self.done.is_multiple_of(every),
            };
            if due && self.done < self.rounds {
                self.save(&positions)?;
                checkpointed = Instant::now();
            }
        }
        Ok(())
    }

    /// One round: every client gets the global model through the filters, evaluates, trains and evaluates; its update
    /// comes back through the filters and is aggregated in the clients' order; the aggregate is the next global model.
    fn round(&mut self, round: u64) -> Result<Vec<(String, Outcome)>, Failure> {
        let names: Vec<String> = self.clients.iter().map(|client| client.name().to_owned()).collect();
        let orders = self.orders(round)?;
        let link = self.link;
        let place = format!("round {}", round + 1);
        let (plugin, aggregator) = (&self.aggregator.0, &mut self.aggregator.1);
        let at_server = Line::new(link, plugin, None, Some(round));
        let ctx = at_server.context("cpu");
        let failed = |error| Failure::run(Fault::new(format!("aggregator `{plugin}`"), error).report(&place));
        aggregator.begin(&self.global, &names, &ctx).map_err(failed)?;

        let mut outcomes = Vec::new();
        let work = |index: usize, client: &mut Box<dyn Client>| {
            let outcome = client.round(&orders[index], link);
            link.reporter.client_done(index);
            outcome
        };
        let input = &mut self.server[0];
        let on_failure = self.on_failure;
        let taken = in_order(self.workers, &mut self.clients, work, |index, outcome: Result<Outcome, Fault>| {
            let client = &names[index];
            let line = Line::new(link, "server", Some((index, client)), Some(round));
            let filtered = outcome.and_then(|outcome| {
                let message = input.apply(outcome.message.clone(), &line.context("cpu"))?;
                Ok((message, outcome))
            });
            let (message, outcome) = match filtered {
                Ok(filtered) => filtered,
                Err(fault) => {
                    bear(&fault, &format!("{place}, client `{client}`"), on_failure, link)?;
                    return Ok(());
                }
            };
            let update = Update { client: client.clone(), message, steps: outcome.steps, examples: outcome.examples };
            aggregator.add(update, &ctx).map_err(failed)?;
            outcomes.push((client.clone(), Outcome { message: Message::default(), ..outcome }));
            Ok(())
        });
        taken?;
        if outcomes.is_empty() {
            return Err(Failure::run(Report::new(format!("{place}: every client failed"))));
        }
        let next = aggregator.finish(&ctx).map_err(failed)?;
        self.note_score(round, outcomes.iter().map(|(_, outcome)| &outcome.global[..]));
        self.global = next;
        Ok(outcomes)
    }

    /// What each client is told: the global model, through the server's filters.
    fn orders(&mut self, round: u64) -> Result<Vec<Order>, Failure> {
        let mut orders = Vec::new();
        for (index, client) in self.clients.iter().enumerate() {
            let line = Line::new(self.link, "server", Some((index, client.name())), Some(round));
            let global = self.server[1].apply(self.global.clone(), &line.context("cpu")).map_err(|fault| {
                Failure::run(fault.report(&format!("round {}, client `{}`", round + 1, client.name())))
            })?;
            orders.push(Order { round, epochs: self.epochs, global });
        }
        Ok(orders)
    }

    /// Takes down the score of the present global model, and keeps the model if it does better than any before.
    fn note_score<'e>(&mut self, rounds: u64, clients: impl Iterator<Item = &'e [Evaluation]>) {
        self.score = mean_score(clients);
        let Some(score) = self.score else { return };
        self.link.reporter.scalar(Scalar {
            client: None,
            round: rounds,
            tag: "Score/global_test".to_owned(),
            step: rounds,
            value: score,
        });
        if self.best.as_ref().is_none_or(|best| score > best.score) {
            self.best = Some(Best { rounds, score, global: self.global.clone() });
        }
    }

    /// Takes down what a round showed, and shows it.
    fn judge(&mut self, round: u64, outcomes: &[(String, Outcome)], begun: Instant) {
        for (client, outcome) in outcomes {
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
        let mut line = format!("round {}/{}", round + 1, self.rounds);
        for (name, value) in local {
            line += &format!(", {name} {}", short(value));
            server(format!("{name}/local_test"), value);
        }
        self.link.console.round(&format!("{line} ({:.1} s)", begun.elapsed().as_secs_f64()));
    }

    /// Evaluates the last global model at every client, in the clients' order.
    ///
    /// # Errors
    /// If a component fails, or the metrics cannot be written.
    pub fn evaluate(&mut self) -> Result<(), Failure> {
        let orders = self.orders(self.done)?;
        let link = self.link;
        let names: Vec<String> = self.clients.iter().map(|client| client.name().to_owned()).collect();
        let work = |index: usize, client: &mut Box<dyn Client>| {
            let evaluations = client.evaluate(&orders[index], link);
            link.reporter.client_done(index);
            evaluations
        };
        let (mut all, on_failure) = (Vec::new(), self.on_failure);
        in_order(self.workers, &mut self.clients, work, |index, evaluations| match evaluations {
            Ok(evaluations) => {
                all.push((names[index].clone(), evaluations));
                Ok(())
            }
            Err(fault) => bear(&fault, &format!("last evaluation, client `{}`", names[index]), on_failure, link),
        })?;
        for (client, evaluations) in &all {
            self.record.add_global(client, evaluations);
        }
        self.note_score(self.done, all.iter().map(|(_, evaluations)| &evaluations[..]));
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
