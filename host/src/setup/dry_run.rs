//! A dry run before the first round, called rehearsal in messages: finds components that do not fit together before
//! anything is trained.
//!
//! Creates new instances of all components except the dataset, runs them, and drops them. Nothing is trained, so a dry
//! run costs almost nothing, while the first round of the run may take hours:
//!
//! - For each set of tasks that clients hold, one model is created (`Parts`). It receives the first global model,
//!   evaluates two rows of one client's data, and sends its message.
//! - The clients' filters and the aggregator process these messages (`rounds`), with values changed slightly, as by
//!   training. Tensors of more than `MOST` elements are cut to their first rows, at the server and at the clients
//!   alike. If that fails, the dry run is repeated with complete tensors, and only this result counts, so that no error
//!   mentions the shape of a cut tensor.
//! - Clients with the same tasks send the same message, so only the first of them applies its filters, unless the
//!   aggregator queries the clients.
//! - There are two rounds, because the second one starts from what the aggregator returned: the first round of the run,
//!   and the first round with other clients.
//!
//! Scalars, notes and progress are discarded, and nothing is written. If one part fails, the parts that do not depend
//! on it continue.

mod rounds;
mod stand_in;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use plugin_api::{Evaluation, Message, Seed, Task};

use crate::error::{CliError, Diagnostic};
use crate::federation::component_error::ComponentError;
use crate::federation::early_stopping;
use crate::federation::means::numbers;
use crate::federation::model_evaluation::Validation;
use crate::federation::sampling;
use crate::federation::services::HostServices;
use crate::plugins::validate::{self, Layout};
use crate::setup::{Setup, Shared};
use rounds::DryRun;

/// Tensors with more elements are cut.
const MOST: usize = 256;

/// The number of rows that a model evaluates.
const ROWS: usize = 2;

/// Performs a dry run of an experiment. Returns the parameters that the clients of these rounds kept private.
///
/// # Errors
/// All errors, with their positions in the file.
pub(crate) fn rehearse(setup: &mut Setup, services: &HostServices<'_>) -> Result<BTreeSet<String>, CliError> {
    let mut faults = Faults::default();
    let parts = Parts::new(setup, services, &mut faults);
    let mut result = DryRun { setup, parts: &parts, most: MOST }.run(services);
    if !result.faults.is_empty() && setup.server.initial.iter().any(|(_, tensor)| tensor.len() > MOST) {
        result = DryRun { setup, parts: &parts, most: usize::MAX }.run(services);
    }
    if services.stop.load(Ordering::Relaxed) {
        return Err(CliError::run(Diagnostic::new("stopped on request")));
    }
    let document = &setup.shared.experiment.document;
    let mut reports: Vec<Diagnostic> = check_score(&setup.shared, &parts).into_iter().collect();
    reports.extend(check_watched(&setup.shared, &parts, services.seed));
    let all = faults.0.iter().chain(&result.faults.0);
    reports.extend(all.map(|LocatedFault { at, fault }| fault.located(at, document)));
    if reports.is_empty() { Ok(result.withheld) } else { Err(CliError::usage(reports)) }
}

/// Checks that the metric of early stopping is one that the models report.
fn check_watched(shared: &Shared, parts: &Parts, seed: Seed) -> Option<Diagnostic> {
    let Shared { experiment, description, .. } = shared;
    let federation = &experiment.federation;
    let rule = federation.early_stopping.as_ref()?;
    if parts.evaluations.iter().all(Option::is_none) {
        return None;
    }
    let clients = description.clients.len();
    // The names of metrics on rows for validation are those on test rows, and each client that has such rows reports them.
    let validates = |k: usize| description.clients[k].tasks.iter().any(|task| task.validation > 0);
    let of = |model: &str, clients: Vec<usize>| {
        let evaluated = |k: usize| Some((k, parts.evaluations[parts.of_client[k]].as_deref()?));
        let of_rows = |rows: &str, clients: Vec<usize>| {
            let found: Vec<_> = clients.into_iter().filter_map(evaluated).collect();
            numbers(&format!("{model}_{rows}"), description.tasks.len() > 1, &found)
        };
        let validating: Vec<usize> = clients.iter().copied().filter(|&k| validates(k)).collect();
        let mut all = of_rows("test", clients);
        if !validating.is_empty() {
            all.extend(of_rows("validation", validating));
        }
        all
    };
    let mut all = of("global", sampling::evaluators(clients, federation, seed));
    // If other clients train in every round, metrics of the clients' own models cannot be watched.
    if federation.fraction >= 1.0 {
        all.extend(of("local", (0..clients).collect()));
    }
    let key = ["federation", "early-stopping", "metric"].map(str::to_owned);
    early_stopping::watched(rule, &all, shared.validation() == Validation::Whole)
        .err()
        .map(|report| experiment.document.locate(report, &key))
}

/// Checks that the metric that is the score is one that the models report.
fn check_score(shared: &Shared, parts: &Parts) -> Option<Diagnostic> {
    let name = shared.experiment.federation.score.as_deref()?;
    let mut all = parts.evaluations.iter().flatten().flatten().cloned();
    let error = all.find_map(|mut evaluation| validate::score_by(name, &mut evaluation).err())?;
    Some(shared.experiment.document.locate(Diagnostic::from(error), &["federation", "score"].map(str::to_owned)))
}

/// An error and where it occurred.
struct LocatedFault {
    at: String,
    fault: ComponentError,
}

/// Errors. Each is listed once, for the first client affected.
#[derive(Default)]
struct Faults(Vec<LocatedFault>);

impl Faults {
    fn add(&mut self, new: LocatedFault) {
        let same = |LocatedFault { fault, .. }: &LocatedFault| {
            fault.table() == new.fault.table() && fault.error().message() == new.fault.error().message()
        };
        if !self.0.iter().any(same) {
            self.0.push(new);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the clients' models send and report in a round.
struct Parts {
    /// For each client, the index of its set of tasks.
    of_client: Vec<usize>,
    /// For each set of tasks, the message of a model that holds it; `None` if it failed.
    sent: Vec<Option<Message>>,
    /// For each set of tasks, the reports of that model; `None` if it failed.
    evaluations: Vec<Option<Vec<Evaluation>>>,
}

impl Parts {
    fn new(setup: &mut Setup, services: &HostServices<'_>, faults: &mut Faults) -> Self {
        let (mut numbers, mut of_client) = (BTreeMap::new(), Vec::new());
        let (mut sent, mut reported) = (Vec::new(), Vec::new());
        for index in 0..setup.shared.description.clients.len() {
            let client = &setup.shared.description.clients[index];
            let held: Vec<String> = client.tasks.iter().map(|task| task.name.clone()).collect();
            let at = format!("rehearsal, client `{}`", client.name);
            let number = *numbers.entry(held.clone()).or_insert(sent.len());
            of_client.push(number);
            if number < sent.len() {
                continue;
            }
            let led = lead(setup, index, held, services).map_err(|fault| faults.add(LocatedFault { at, fault })).ok();
            let (message, evaluations) = led.unzip();
            sent.push(message);
            reported.push(evaluations);
        }
        Self { of_client, sent, evaluations: reported }
    }
}

/// Creates a client's model, and returns what it sends and reports before training.
fn lead(
    setup: &mut Setup,
    index: usize,
    held: Vec<String>,
    services: &HostServices<'_>,
) -> Result<(Message, Vec<Evaluation>), ComponentError> {
    let Setup { shared, server, clients } = setup;
    let tasks: Vec<Task> = clients.tasks(shared, index, services)?.all.into_iter().map(sample).collect();
    let (model, identity) = (clients.model.clone(), clients.identity(shared, index));
    let scope = identity.scope(services, Some(0));
    let (ctx, global) = (scope.context(), Message::from(server.initial.clone()));
    let act = || {
        let mut instance =
            model.component.new_model(&model.plugin_ref.config, &shared.model_setup.holding(held), &ctx)?;
        instance.receive(&global, &ctx)?;
        let evaluations = validate::evaluations(&tasks, instance.evaluate(&tasks, &ctx)?, None)?;
        let sent = instance.send(&ctx)?;
        validate::update(&Layout::of(&server.initial), &global, &sent, false)?;
        Ok((sent, evaluations))
    };
    act().map_err(|e| model.fault(e))
}

/// Up to `ROWS` test rows, or training rows if there are none.
fn sample(Task { spec, train, test }: Task) -> Task {
    let from = if test.rows() > 0 { &test } else { &train };
    let rows: Vec<usize> = (0..from.rows().min(ROWS)).collect();
    Task { spec, test: from.select(&rows), train: train.select(&[]) }
}
