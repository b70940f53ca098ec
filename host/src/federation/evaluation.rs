//! Scores of models, from the clients' evaluations.
//!
//! The same clients, the evaluators, evaluate the global model in every round, whether they train in it or not. A mean
//! over the clients that train would vary with the draw as much as with the model.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::{Evaluation, Level};

use crate::artefacts::tracking::Scalar;
use crate::error::CliError;
use crate::experiment::config::{LOCAL_SCORE, LOCAL_VALIDATION_SCORE, OnClientFailure};
use crate::federation::client::{BothModels, Client, EvaluationOutcome, Order};
use crate::federation::component_error::ComponentError;
use crate::federation::early_stopping;
use crate::federation::history::{SHOWN_METRICS, short};
use crate::federation::means::{Evaluated, Number, numbers, scores};
use crate::federation::model_evaluation::ModelEvaluation;
use crate::federation::orders::Orders;
use crate::federation::predictions;
use crate::federation::rounds::{Federation, Outcomes};
use crate::federation::server;

/// Evaluations of one model, by the clients' indices.
type Evaluations = BTreeMap<usize, ModelEvaluation>;

impl Federation<'_> {
    /// Evaluates the round's global model, which the `drawn` clients trained. Records its score, keeps the model if it
    /// beats all earlier ones, and returns the server's numbers.
    ///
    /// # Errors
    /// If a component fails, a file cannot be written, or the run is asked to stop.
    pub(crate) fn evaluate_round(
        &mut self,
        round: u64,
        drawn: &[usize],
        outcomes: &Outcomes,
    ) -> Result<Vec<Number>, CliError> {
        let idle = self.evaluate_idle(round, drawn)?;
        let mut all: Evaluations = outcomes.iter().map(|(&index, outcome)| (index, outcome.global.clone())).collect();
        for (index, found) in idle {
            let name = self.clients.name(index);
            self.history.add_traffic(name, found.traffic);
            self.history.add_global(name, &found.global);
            self.totals.computed(found.spent);
            all.insert(index, found.global);
        }
        self.note_score(round, &all)
    }

    /// Evaluates the global model at the evaluators that were not drawn. Afterwards the filters of the server and of
    /// these clients are as before, so later training does not depend on the evaluation.
    fn evaluate_idle(&mut self, round: u64, drawn: &[usize]) -> Result<BTreeMap<usize, EvaluationOutcome>, CliError> {
        let idle = self.evaluators.outside(drawn);
        let mut all = BTreeMap::new();
        if idle.is_empty() {
            return Ok(all);
        }
        let (services, pause, policy, evaluators) =
            (self.services, &self.pause, self.clients.policy, &mut self.evaluators);
        let what = format!("evaluation in round {}", round + 1);
        let failed = |fault: ComponentError| CliError::run(fault.report(&what));
        let (scope, filters) = (server::scope(services, None, Some(round)), &mut self.server.filters.output);
        let states = filters.states(&scope).map_err(failed)?;
        let orders = Orders::new(round, 0, &self.server.global, filters, services);
        let evaluate = |client: &mut dyn Client, order: &Order| client.evaluate_idle(order, services);
        self.clients.with_orders(&idle, &orders, &|| pause.is_stop(), evaluate, |client, found| {
            services.reporter.client_done(client.index);
            match found {
                Ok(found) => drop(all.insert(client.index, found)),
                Err(fault) if fault.is_cancelled() || evaluators.fails_first(client.index) => {
                    policy.apply(&fault, &format!("{what}, client `{}`", client.name))?;
                }
                Err(_) => {}
            }
            Ok(())
        })?;
        filters.restore(&states, &scope).map_err(failed)?;
        self.stop_if_asked()?;
        Ok(all)
    }

    /// Records the score of the current global model, over those of these clients that are evaluators. Keeps the model
    /// if it beats all earlier ones, and returns the server's numbers.
    ///
    /// # Errors
    /// If a previously best model could not be written to the store.
    fn note_score(&mut self, rounds: u64, clients: &Evaluations) -> Result<Vec<Number>, CliError> {
        if self.evaluators.is_empty() {
            return Ok(Vec::new());
        }
        let of = |rows: fn(&ModelEvaluation) -> &[Evaluation]| -> Vec<Evaluated<'_>> {
            self.evaluators.only(clients.iter().map(|(&index, found)| (index, rows(found))))
        };
        let (test, validation) = (of(|found| &found.test), of(|found| &found.validation));
        if let Some(line) = self.evaluators.warning(test.len(), rounds) {
            self.services.console.log(Level::Warn, &line);
        }
        (self.score, self.validation_score) = (scores(&test).mean(), scores(&validation).mean());
        let by_validation = self.evaluators.by_validation();
        let is_best = self.best.note(rounds, &self.server.global, &test, by_validation.then_some(&validation[..]))?;
        if is_best && by_validation {
            test.iter().for_each(|&(index, found)| self.history.set_best(self.clients.name(index), found));
        }
        let mut all = numbers("global_test", self.several_tasks, &test);
        all.extend(validation_numbers("global_validation", self.several_tasks, &validation));
        self.report(rounds, &all);
        Ok(all)
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
    pub(crate) fn finish_round(
        &mut self,
        round: u64,
        outcomes: &Outcomes,
        mut all: Vec<Number>,
    ) -> Result<(), CliError> {
        let mut line = format!("round {}/{}", round + 1, self.plan.rounds);
        if self.plan.reports() {
            self.record(outcomes);
            let of = |rows: fn(&ModelEvaluation) -> &[Evaluation]| -> Vec<Evaluated<'_>> {
                outcomes.iter().filter_map(|(&index, outcome)| Some((index, rows(outcome.local.last()?)))).collect()
            };
            let local = numbers("local_test", self.several_tasks, &of(|found| &found.test));
            let validation = validation_numbers("local_validation", self.several_tasks, &of(|found| &found.validation));
            self.report(round, &local);
            self.report(round, &validation);
            // With several tasks, show only the score: their metrics would not fit on the line and have no common mean.
            let shown = if self.several_tasks { 1 } else { 1 + SHOWN_METRICS };
            line.extend(local.iter().take(shown).chain(validation.first()).map(shown_number));
            all.extend(local.into_iter().chain(validation));
        }
        let seconds = self.totals.round_ends();
        self.services.console.round(&format!("{line} ({seconds:.1} s)"));
        self.watch(&all)
    }

    /// Adds what the round's clients reported to the history and the totals.
    fn record(&mut self, outcomes: &Outcomes) {
        for (&index, outcome) in outcomes {
            let client = self.clients.name(index);
            self.history.add_traffic(client, outcome.traffic);
            self.totals.computed(outcome.spent);
            self.history.add_global(client, &outcome.global);
            outcome.local.iter().for_each(|evaluations| self.history.add_local(client, evaluations));
        }
    }

    /// Passes the watched number to early stopping.
    fn watch(&mut self, numbers: &[Number]) -> Result<(), CliError> {
        let Some(rule) = &self.plan.early_stopping else { return Ok(()) };
        let number = early_stopping::watched(rule, numbers, self.evaluators.by_validation())
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
        let (services, policy, clients) = (self.services, self.clients.policy, self.clients.indices());
        let Self { server, plan, .. } = self;
        let orders = Orders::new(self.done, plan.local_epochs, &server.global, &mut server.filters.output, services);
        let (mut all, mut late, mut unsupported) = (Evaluations::new(), None, BTreeSet::new());
        let last = |client: &mut dyn Client, order: &Order| client.finish(order, services);
        self.clients.with_orders(&clients, &orders, &|| false, last, |client, found| {
            services.reporter.client_done(client.index);
            let found = match found {
                Ok(found) => found,
                Err(fault) => return policy.apply(&fault, &format!("last evaluation, client `{}`", client.name)),
            };
            all.insert(client.index, found.evaluation);
            let what = format!("predictions, client `{}`", client.name);
            match found.predictions {
                None => {}
                Some(Ok(BothModels { own, global })) => predictions.add(client.name, own, global),
                // It is the model that does not predict, so once is enough.
                Some(Err(fault)) if fault.is_unsupported() => {
                    let report = fault.report("predictions");
                    if unsupported.insert(report.message().to_owned()) {
                        services.console.log(Level::Warn, report.message());
                    }
                }
                Some(Err(fault)) if policy.on_failure == OnClientFailure::LeaveOut || fault.is_of_host() => {
                    policy.apply(&fault, &what)?;
                }
                Some(Err(fault)) => drop(late.get_or_insert_with(|| CliError::run(fault.report(&what)))),
            }
            Ok(())
        })?;
        for (&index, evaluations) in &all {
            self.history.add_global(self.clients.name(index), evaluations);
        }
        self.note_score(self.done, &all)?;
        self.tracker.sync().map(|_| late)
    }

    /// Tells all clients that the run is over.
    pub(crate) fn leave(&mut self) {
        let (services, clients) = (self.services, self.clients.indices());
        let leave = |_: usize, client: &mut dyn Client| client.leave(services);
        let Ok(()) = self.clients.in_order(&clients, 0, leave, |_, ()| Ok::<_, std::convert::Infallible>(()));
    }
}

/// The numbers of the rows for validation; none if no client has such rows.
fn validation_numbers(suffix: &str, several: bool, clients: &[Evaluated<'_>]) -> Vec<Number> {
    if clients.iter().all(|(_, found)| found.is_empty()) { Vec::new() } else { numbers(suffix, several, clients) }
}

/// A number in the line for a round.
fn shown_number(number: &Number) -> String {
    let (tag, value) = (&number.tag, number.value());
    let name = match tag.as_str() {
        LOCAL_SCORE => "score",
        LOCAL_VALIDATION_SCORE => "validation score",
        tag => tag.strip_suffix("/local_test").unwrap_or(tag),
    };
    let value = if value.is_finite() { short(value) } else { "-".to_owned() };
    format!(", {name} {value}")
}
