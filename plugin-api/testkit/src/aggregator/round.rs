//! Plays a round as the host does.

use super::AggregatorCheck;
use crate::subject::{SEED, context};
use crate::watcher::Watcher;
use plugin_api::{Aggregator, Cohort, Error, Filter, Message, Query, Reply, Result, Stage, Update};

/// How many times an aggregator may ask in one stage.
const DIALOGUE: usize = 100;

/// How a round differs from an ordinary one. Messages can be changed before or after the filter.
#[derive(Default)]
pub(super) struct Plan<'p> {
    pub(super) round: u64,
    /// Changes a client's message before its filter.
    pub(super) before: Option<&'p dyn Fn(usize, Message) -> Result<Message>>,
    /// Changes a client's message after its filter.
    pub(super) on_the_way: Option<&'p dyn Fn(usize, Message) -> Result<Message>>,
    /// This client sends no update.
    pub(super) absent: Option<usize>,
    /// If the aggregator refuses an update, continue without it.
    pub(super) goes_on: bool,
    /// Clients report that they did not train.
    pub(super) idle: bool,
    /// No client takes part.
    pub(super) nobody: bool,
}

/// A round that failed: in which call, and why.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) call: &'static str,
    pub(super) error: Error,
}

fn at(call: &'static str) -> impl Fn(Error) -> Broken {
    move |error| Broken { call, error }
}

/// An aggregator and its clients' filters.
pub(super) struct Table {
    pub(super) aggregator: Box<dyn Aggregator>,
    filters: Option<Vec<Box<dyn Filter>>>,
}

impl AggregatorCheck {
    /// A new aggregator and new filters, for an experiment with this seed.
    pub(super) fn table(&self, seed: u64) -> Result<Table> {
        Ok(Table { aggregator: self.make(seed)?, filters: self.filters()? })
    }

    /// Plays a round. The aggregator's output goes to `watcher`.
    pub(super) fn play(&self, table: &mut Table, plan: &Plan<'_>, watcher: &Watcher) -> Result<Message, Broken> {
        let ctx = context(watcher, SEED).with_round(plan.round);
        let Table { aggregator, filters } = table;
        let mut present: Vec<usize> = if plan.nobody { Vec::new() } else { (0..self.clients.len()).collect() };
        let cohort = Cohort::new(present.iter().map(|&k| self.clients[k].clone()).collect(), self.clients.len());
        aggregator.begin(&self.global, &cohort, &ctx).map_err(at("begin"))?;
        self.dialogue(aggregator, filters, Stage::Opening, &mut present, plan, watcher)?;
        let mut heard = Vec::new();
        for &k in present.iter().filter(|k| plan.absent != Some(**k)) {
            let mut message = self.update(k, plan.round);
            if let Some(change) = plan.before {
                message = change(k, message).map_err(at("the check itself"))?;
            }
            if let Some(filter) = filters.as_mut().map(|all| &mut all[k]) {
                let quiet = Watcher::new();
                let ctx = context(&quiet, SEED).with_round(plan.round).with_client(&self.clients[k]);
                match filter.apply(message, &self.global, &ctx) {
                    Ok(filtered) => message = filtered,
                    Err(_) if plan.goes_on => continue,
                    Err(error) => return Err(at("the filter's apply")(error)),
                }
            }
            if let Some(change) = plan.on_the_way {
                message = change(k, message).map_err(at("the check itself"))?;
            }
            let (steps, examples) = if plan.idle { (0, 0) } else { (3 + k as u64, 30 + 7 * k as u64) };
            let update = Update { client: self.clients[k].clone(), message, steps, examples };
            match aggregator.add(update, &ctx) {
                Ok(()) => heard.push(k),
                Err(error) if plan.goes_on && *error.kind() != plugin_api::ErrorKind::Panic => {}
                Err(error) => return Err(at("add")(error)),
            }
        }
        self.dialogue(aggregator, filters, Stage::Closing, &mut heard, plan, watcher)?;
        aggregator.finish(&ctx).map_err(at("finish"))
    }

    fn dialogue(
        &self,
        aggregator: &mut Box<dyn Aggregator>,
        filters: &mut Option<Vec<Box<dyn Filter>>>,
        stage: Stage,
        present: &mut Vec<usize>,
        plan: &Plan<'_>,
        watcher: &Watcher,
    ) -> Result<(), Broken> {
        let ctx = context(watcher, SEED).with_round(plan.round);
        let wrong = |what: String| at("ask")(Error::other(what));
        let mut questions = aggregator.ask(stage, Vec::new(), &ctx).map_err(at("ask"))?;
        for _ in 0..DIALOGUE {
            if questions.is_empty() {
                return Ok(());
            }
            let (mut answers, mut last) = (Vec::new(), None);
            for Query { client, message } in questions {
                let place = present
                    .iter()
                    .copied()
                    .find(|&k| self.clients[k] == client)
                    .filter(|&k| last.is_none_or(|l| l < k));
                let Some(k) = place else {
                    return Err(wrong(format!("it queries client `{client}`, which is unknown or out of order")));
                };
                last = Some(k);
                let Some(filters) = filters.as_mut() else {
                    return Err(at("a question")(Error::unsupported(
                        "it sends a query, and there is no filter to answer",
                    )));
                };
                let quiet = Watcher::new();
                let ctx = context(&quiet, SEED).with_round(plan.round).with_client(&client);
                match filters[k].answer(&message, &ctx) {
                    Ok(Some(message)) => answers.push(Reply { client, message }),
                    Ok(None) => {
                        return Err(wrong(format!("the filter of client `{client}` does not answer its query")));
                    }
                    Err(_) if plan.goes_on => present.retain(|&other| other != k),
                    Err(error) => return Err(at("the filter's answer")(error)),
                }
            }
            questions = aggregator.ask(stage, answers, &ctx).map_err(at("ask"))?;
        }
        Err(wrong(format!("it still sends queries after {DIALOGUE} exchanges")))
    }
}
