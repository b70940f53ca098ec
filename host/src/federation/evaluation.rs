//! Scores of models, from the clients' evaluations.
//!
//! The same clients, the evaluators, evaluate the global model in every round, whether they train in it or not. A mean
//! over the clients that train would vary with the draw as much as with the model.

use plugin_api::{Evaluation, Level};

use crate::artefacts::tracking::Scalar;
use crate::error::CliError;
use crate::experiment::config::{LOCAL_SCORE, OnClientFailure};
use crate::federation::client::{Client, EvaluationOutcome};
use crate::federation::early_stopping;
use crate::federation::exchange::pick;
use crate::federation::history::short;
use crate::federation::means::{Evaluated, Number, numbers, scores};
use crate::federation::ordered_pool::{ahead, in_order};
use crate::federation::orders::Orders;
use crate::federation::predictions;
use crate::federation::rounds::{Evaluators, Federation, Outcomes, handle_client_failure};
use crate::federation::services::{CallScope, ComponentError};

impl Federation<'_> {
    /// Evaluates the round's global model, which the `drawn` clients trained. Records its score, keeps the model if it
    /// beats all earlier ones, and returns the server's numbers.
    ///
    /// # Errors
    /// If a component fails, a file cannot be written, or the run is asked to stop.
    pub(crate) fn judge_global(
        &mut self,
        round: u64,
        drawn: &[usize],
        outcomes: &Outcomes,
    ) -> Result<Vec<Number>, CliError> {
        let idle = self.evaluate_idle(round, drawn)?;
        let trained = outcomes.iter().map(|(place, outcome)| (*place, outcome.global.clone()));
        let mut all: Vec<(usize, Vec<Evaluation>)> = trained.collect();
        for (place, found) in idle {
            let name = self.clients[place].name();
            self.record.add_traffic(name, found.traffic);
            self.record.add_global(name, &found.global);
            self.totals.computed(found.spent);
            all.push((place, found.global));
        }
        all.sort_by_key(|(place, _)| *place);
        self.note_score(round, &all)
    }

    /// Evaluates the global model at the evaluators that were not drawn. Afterwards the filters of the server and of
    /// these clients are as before, so later training does not depend on the evaluation.
    fn evaluate_idle(&mut self, round: u64, drawn: &[usize]) -> Result<Vec<(usize, EvaluationOutcome)>, CliError> {
        let idle = self.evaluators.places.iter().copied().filter(|place| drawn.binary_search(place).is_err());
        let idle: Vec<usize> = idle.collect();
        if idle.is_empty() {
            return Ok(Vec::new());
        }
        let (services, pause, policy) = (self.services, &self.pause, self.plan.on_client_failure);
        let place = format!("evaluation in round {}", round + 1);
        let told = |fault: ComponentError| CliError::run(fault.report(&place));
        let scope = CallScope::new(services, "server", None, Some(round));
        let states = self.server[1].states(&scope).map_err(told)?;
        let orders = Orders::new(round, 0, &self.global, &mut self.server[1], services);
        let names: Vec<String> = idle.iter().map(|&place| self.clients[place].name().to_owned()).collect();
        let work = |index: usize, client: &mut &mut Box<dyn Client>| {
            let Some(order) = orders.order(index, (idle[index], client.name()), &|| pause.is_stop())? else {
                return Ok(None);
            };
            let found = client.evaluate_aside(&order, services);
            services.reporter.client_done(idle[index]);
            Ok(Some(found))
        };
        let mut all = Vec::new();
        let failed = &mut self.evaluators.failed;
        let take = |index: usize, found: Result<Option<Result<EvaluationOutcome, ComponentError>>, CliError>| {
            match found? {
                None => {}
                Some(Ok(found)) => all.push((idle[index], found)),
                Some(Err(fault)) if fault.is_cancelled() || failed.insert(idle[index]) => {
                    handle_client_failure(&fault, &format!("{place}, client `{}`", names[index]), policy, services)?;
                }
                Some(Err(_)) => {}
            }
            Ok(())
        };
        let mut at_work = pick(&mut self.clients, &idle);
        in_order((self.workers, ahead(self.workers, 0)), &mut at_work, work, take)?;
        self.server[1].restore(&states, &scope).map_err(told)?;
        self.stop_if_asked()?;
        Ok(all)
    }

    /// Records the score of the current global model, over those of these clients that are evaluators. Keeps the model
    /// if it beats all earlier ones, and returns the server's numbers.
    ///
    /// # Errors
    /// If a previously best model could not be written to the store.
    pub(crate) fn note_score(
        &mut self,
        rounds: u64,
        clients: &[(usize, Vec<Evaluation>)],
    ) -> Result<Vec<Number>, CliError> {
        let Evaluators { places, told, .. } = &mut self.evaluators;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let judges = clients.iter().filter(|(place, _)| places.binary_search(place).is_ok());
        let judges: Vec<Evaluated<'_>> = judges.map(|(place, evaluations)| (*place, &evaluations[..])).collect();
        if judges.len() < places.len() && !std::mem::replace(told, true) {
            let (came, all) = (judges.len(), places.len());
            let line = format!(
                "the global model after {rounds} rounds was evaluated by {came} of {all} clients; from now on, models \
                 are compared over the clients that evaluated both"
            );
            self.services.console.log(Level::Warn, &line);
        }
        self.score = scores(&judges).mean();
        self.best.note(rounds, &self.global, &judges)?;
        let numbers = numbers("global_test", self.several_tasks, &judges);
        self.report(rounds, &numbers);
        Ok(numbers)
    }

    /// Reports the server's numbers as scalars, without undefined ones.
    fn report(&self, round: u64, numbers: &[Number]) {
        for (tag, value) in numbers.iter().map(|number| (number.tag.clone(), number.value())) {
            if value.is_finite() {
                self.services.reporter.scalar(Scalar { client: None, round, tag, step: round, value });
            }
        }
    }

    /// Records the round's other results, shows a line for the round and updates early stopping.
    ///
    /// # Errors
    /// If early stopping watches a number that does not exist.
    pub(crate) fn judge(&mut self, round: u64, outcomes: &Outcomes, mut all: Vec<Number>) -> Result<(), CliError> {
        for (place, outcome) in outcomes.iter().filter(|_| self.plan.reports()) {
            let client = self.clients[*place].name();
            self.record.add_traffic(client, outcome.traffic);
            self.totals.computed(outcome.spent);
            self.record.add_global(client, &outcome.global);
            outcome.local.iter().for_each(|evaluations| self.record.add_local(client, evaluations));
        }
        let mut line = format!("round {}/{}", round + 1, self.plan.rounds);
        if self.plan.reports() {
            let last = outcomes.iter().filter_map(|(place, outcome)| Some((*place, &outcome.local.last()?[..])));
            let local = numbers("local_test", self.several_tasks, &last.collect::<Vec<_>>());
            self.report(round, &local);
            // With several tasks, show only the score: their metrics would not fit on the line and have no common mean.
            for number in local.iter().take(if self.several_tasks { 1 } else { local.len() }) {
                let (tag, value) = (&number.tag, number.value());
                let name = tag.strip_suffix("/local_test").unwrap_or(tag);
                let name = if tag == LOCAL_SCORE { "score" } else { name };
                let value = if value.is_finite() { short(value) } else { "-".to_owned() };
                line += &format!(", {name} {value}");
            }
            all.extend(local);
        }
        let seconds = self.totals.round_ends();
        self.services.console.round(&format!("{line} ({seconds:.1} s)"));
        self.watch(&all)
    }

    /// Passes the watched number to early stopping.
    fn watch(&mut self, numbers: &[Number]) -> Result<(), CliError> {
        let Some(rule) = &self.plan.early_stopping else { return Ok(()) };
        let number = early_stopping::watched(rule, numbers)
            .map_err(|report| CliError::run(report.within("`federation.early-stopping.metric`")))?;
        self.patience.note(&number.by_client, number.goal, rule);
        Ok(())
    }

    /// Evaluates the last global model at every client, in the order of clients, and collects the predictions of this
    /// model and of the clients' own models. The clients are not called afterwards. Predictions are optional: if a
    /// model fails to predict, the evaluation continues. The first such error is returned, unless a warning is enough.
    ///
    /// # Errors
    /// If a component fails to evaluate, or metrics cannot be written.
    pub(crate) fn evaluate(&mut self, predictions: &mut predictions::Writer<'_>) -> Result<Option<CliError>, CliError> {
        let services = self.services;
        let orders = Orders::new(self.done, self.plan.local_epochs, &self.global, &mut self.server[1], services);
        let names: Vec<String> = self.clients.iter().map(|client| client.name().to_owned()).collect();
        let work = |index: usize, client: &mut Box<dyn Client>| {
            let Some(order) = orders.order(index, (index, client.name()), &|| false)? else { return Ok(None) };
            let own = client.predict(services);
            let found = match (own, client.evaluate(&order, services)) {
                (Ok(own), Ok(found)) => Ok((found, client.predict(services).map(|global| (own, global)))),
                (Err(fault), Ok(found)) => Ok((found, Err(fault))),
                // A model that panicked cannot be called again, so report its first error.
                (Err(fault), Err(_)) if !fault.is_unsupported() => Err(fault),
                (_, Err(fault)) => Err(fault),
            };
            client.retire(services);
            services.reporter.client_done(index);
            Ok(Some(found))
        };
        let (mut all, mut late, on_failure) = (Vec::new(), None, self.plan.on_client_failure);
        let ahead = ahead(self.workers, 0);
        in_order((self.workers, ahead), &mut self.clients, work, |index, found: Result<_, CliError>| match found? {
            None => Ok(()),
            Some(Ok((evaluations, predicted))) => {
                all.push((index, evaluations));
                let place = format!("predictions, client `{}`", names[index]);
                match predicted {
                    Ok((own, global)) => {
                        predictions.add(&names[index], own, global);
                        Ok(())
                    }
                    Err(fault) if fault.is_unsupported() => {
                        services.console.log(Level::Warn, fault.report(&place).message());
                        Ok(())
                    }
                    Err(fault) if on_failure == OnClientFailure::LeaveOut => {
                        handle_client_failure(&fault, &place, on_failure, services)
                    }
                    Err(fault) => {
                        late.get_or_insert_with(|| CliError::run(fault.report(&place)));
                        Ok(())
                    }
                }
            }
            Some(Err(fault)) => handle_client_failure(
                &fault,
                &format!("last evaluation, client `{}`", names[index]),
                on_failure,
                services,
            ),
        })?;
        for (place, evaluations) in &all {
            self.record.add_global(&names[*place], evaluations);
        }
        self.note_score(self.done, &all)?;
        self.tracker.sync().map(|_| late)
    }
}
