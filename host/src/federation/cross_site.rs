//! Cross-site evaluation: every client's model on every client's data, after the last round.
//!
//! Other clients see a model as the federation would see an update. It passes the owner's filters at `client-output`,
//! the server's filters, and the evaluating client's filters at `client-input`. Parameters that filters keep at the
//! owner, such as a private head, are taken from the evaluating client, as with the global model. Some filters cannot
//! produce a model outside a round, for example because they send masked numbers. Such a message is not evaluated, and
//! the table says so.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use plugin_api::{Evaluation, Level, Message};

use crate::artefacts::names;
use crate::error::CliError;
use crate::federation::client::{Client, CrossEvaluation, Order};
use crate::federation::component_error::ComponentError;
use crate::federation::failure_policy::FailurePolicy;
use crate::federation::history::short;
use crate::federation::means::scores;
use crate::federation::orders::Orders;
use crate::federation::rounds::Federation;
use crate::federation::server::{self, Server};
use crate::federation::services::ClientRef;
use crate::plugins::validate;

/// The global model's name among the clients' models.
const GLOBAL: &str = "global";

/// The note in the file if a model was completed with parameters of the evaluating client.
const COMPLETED: &str = "completed with the client's own parameters";

/// The evaluation of one model at one client, or the reason why there is none.
struct Visit {
    model: String,
    site: String,
    found: Result<CrossEvaluation, String>,
}

impl Visit {
    fn new(model: &str, site: &str, found: Result<CrossEvaluation, String>) -> Self {
        Self { model: model.to_owned(), site: site.to_owned(), found }
    }
}

/// The evaluations of every model at every client.
pub(crate) struct CrossSite {
    names: Vec<String>,
    visits: Vec<Visit>,
}

/// Evaluates the global model and each client's published model at every client.
///
/// # Errors
/// If a component fails and the failure policy ends the run, or if the run is asked to stop.
pub(crate) fn evaluate(federation: &mut Federation<'_>) -> Result<CrossSite, CliError> {
    let (names, all) = (federation.clients.names(), federation.clients.indices());
    federation.open(federation.done, &all, "cross-site evaluation")?;
    let mut visits: Vec<Visit> = Vec::new();
    for owner in all.iter().copied().map(Some).chain([None]) {
        federation.stop_if_asked()?;
        let model = owner.map_or(GLOBAL, |owner| names[owner].as_str());
        let message = match owner {
            Some(owner) => published(federation, owner),
            None => Ok(federation.server.global.clone()),
        };
        match message {
            Ok(message) => visit_all(federation, model, &message, &mut visits)?,
            Err(fault) => {
                let at = format!("cross-site evaluation, client `{model}`");
                let why = not_evaluated(federation.clients.policy, &fault, &at)?;
                let visit = |site: &String| Visit::new(model, site, Err(why.clone()));
                visits.extend(names.iter().map(visit));
            }
        }
    }
    Ok(CrossSite { names, visits })
}

impl CrossSite {
    /// Writes [`names::CROSS_SITE`] and returns a table of the scores, with one row for each model and one column for
    /// each client.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, federation: &Federation<'_>) -> Result<String, CliError> {
        write(federation, &self.visits)?;
        Ok(table(&self.names, &self.visits))
    }
}

/// Evaluates one model at every client.
fn visit_all(
    federation: &mut Federation<'_>,
    model: &str,
    message: &Message,
    visits: &mut Vec<Visit>,
) -> Result<(), CliError> {
    let (services, policy, all) = (federation.services, federation.clients.policy, federation.clients.indices());
    services.console.log(Level::Debug, &format!("cross-site evaluation of model `{model}`"));
    let orders = Orders::new(federation.done, 0, message, &mut federation.server.filters.output, services);
    let evaluate = |client: &mut dyn Client, order: &Order| {
        let found = client.evaluate_other(order, services);
        let released = client.release(services);
        found.and_then(|found| released.map(|()| found))
    };
    federation.clients.with_orders(&all, &orders, &|| false, evaluate, |site, found| {
        let found = match found {
            Ok(found) => Ok(found),
            Err(fault) => {
                let at = format!("cross-site evaluation of `{model}` at client `{}`", site.name);
                Err(not_evaluated(policy, &fault, &at)?)
            }
        };
        visits.push(Visit::new(model, site.name, found));
        Ok(())
    })
}

/// Why a model is not evaluated.
///
/// # Errors
/// If the failure ends the run.
fn not_evaluated(policy: FailurePolicy<'_>, fault: &ComponentError, at: &str) -> Result<String, CliError> {
    if !fault.is_unsupported() {
        policy.apply(fault, at)?;
    }
    Ok(fault.report("").message().to_owned())
}

/// Returns a client's model as the server passes it to the others: after the filters at the client and at the server.
/// The message keeps the other contents of the last global model, since a method may expect them.
fn published(federation: &mut Federation<'_>, owner: usize) -> Result<Message, ComponentError> {
    let Federation { clients, server, services, done, .. } = federation;
    let client = clients.get_mut(owner);
    let name = client.name().to_owned();
    let scope = server::scope(services, Some(ClientRef { index: owner, name: &name }), Some(*done));
    let order = server.order(*done, &scope)?;
    let message = client.publish(&order, services)?;
    let Server { filters, global, layout, .. } = server;
    let message = filters.input.apply(message, global, &scope)?;
    validate::update(layout, global, &message, false).map_err(|e| ComponentError::new("model".to_owned(), e))?;
    Ok(Message { params: message.params, ..global.clone() })
}

/// Writes `model,client,task,examples,metric,value,note`: one line for each number, or one line for a model that was
/// not evaluated at a client.
fn write(federation: &Federation<'_>, visits: &[Visit]) -> Result<(), CliError> {
    let path = federation.run_dir.path().join(names::CROSS_SITE);
    let mut lines = csv::Writer::from_writer(Vec::new());
    let mut rows = vec![["model", "client", "task", "examples", "metric", "value", "note"].map(str::to_owned)];
    for Visit { model, site, found } in visits {
        let CrossEvaluation { evaluations, own } = match found {
            Ok(found) => found,
            Err(why) => {
                rows.push([model, site, "", "", "", "", &format!("not evaluated: {why}")].map(str::to_owned));
                continue;
            }
        };
        let note = if own.is_empty() { "" } else { COMPLETED };
        for evaluation in evaluations {
            let loss = ("Loss", evaluation.loss);
            let metrics = evaluation.metrics.iter().map(|metric| (metric.name.as_str(), metric.value));
            rows.extend([loss].into_iter().chain(metrics).map(|(name, value)| {
                let examples = evaluation.examples.to_string();
                [model, site, &evaluation.task, &examples, name, &value.to_string(), note].map(str::to_owned)
            }));
        }
    }
    rows.iter().try_for_each(|row| lines.write_record(row)).map_err(|e| CliError::io(&path, "write", &e.into()))?;
    let bytes = lines.into_inner().map_err(|e| CliError::io(&path, "write", &e.into_error()))?;
    std::fs::write(&path, bytes).map_err(|e| CliError::io(&path, "write the cross-site evaluation", &e))
}

/// Formats the scores. Below the table are the reasons for missing scores, and which parameters come from the
/// evaluating client.
fn table(names: &[String], visits: &[Visit]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["score of model".to_owned()].into_iter().chain(names.iter().map(|name| format!("at {name}"))));
    for model in names.iter().map(String::as_str).chain([GLOBAL]) {
        let mut at = |site: &String| {
            let found = visits.iter().find(|visit| visit.model == model && visit.site == *site);
            let cell = match found.map(|visit| &visit.found) {
                None => "-".to_owned(),
                Some(Ok(CrossEvaluation { evaluations, .. })) => score(evaluations),
                Some(Err(why)) => {
                    let number = reasons.iter().position(|known| known == why).unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!("- ({})", number + 1)
                }
            };
            Cell::new(cell).set_alignment(CellAlignment::Right)
        };
        let cells: Vec<Cell> = names.iter().map(&mut at).collect();
        table.add_row([Cell::new(model)].into_iter().chain(cells));
    }
    let mut text = table.to_string();
    for (number, why) in reasons.iter().enumerate() {
        text += &format!("\n({}) not evaluated: {why}", number + 1);
    }
    let own = visits.iter().filter_map(|visit| visit.found.as_ref().ok()).max_by_key(|found| found.own.len());
    if let Some((first, more)) = own.and_then(|found| found.own.split_first()) {
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        text += &format!("\nparameters that models do not send are the evaluating client's own: `{first}`{more}");
    }
    text
}

fn score(evaluations: &[Evaluation]) -> String {
    scores(&[(0, evaluations)]).mean().map_or_else(|| "-".to_owned(), short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(model: &str, site: &str, found: Result<(f64, &[&str]), &str>) -> Visit {
        let evaluated = |(score, own): (f64, &[&str])| {
            let task = "t".to_owned();
            let evaluation = Evaluation { task, examples: 1, loss: 1.0, score, metrics: Vec::new() };
            CrossEvaluation { evaluations: vec![evaluation], own: own.iter().map(|&name| name.to_owned()).collect() }
        };
        Visit::new(model, site, found.map(evaluated).map_err(str::to_owned))
    }

    #[test]
    fn every_missing_score_has_its_reason() {
        let names = ["a", "b"].map(str::to_owned);
        let visits = [
            visit("a", "a", Err("filter `secure`: only within a round")),
            visit("a", "b", Err("filter `secure`: only within a round")),
            visit("b", "a", Ok((-0.5, &["head.weight", "head.bias"]))),
            visit("b", "b", Err("it has not trained")),
            visit(GLOBAL, "a", Ok((-0.25, &[]))),
        ];
        let text = table(&names, &visits);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(['│', '┆']).map(str::trim).collect()).collect();
        let row = |model: &str| rows.iter().find(|row| row.get(1) == Some(&model)).unwrap()[2..4].to_vec();
        assert_eq!(row("a"), ["- (1)", "- (1)"]);
        assert_eq!((row("b")[1], row(GLOBAL)), ("- (2)", vec![short(-0.25).as_str(), "-"]));
        let below: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('(')).collect();
        let wanted = [
            "(1) not evaluated: filter `secure`: only within a round",
            "(2) not evaluated: it has not trained",
            "parameters that models do not send are the evaluating client's own: `head.weight` and 1 more",
        ];
        assert_eq!(below, wanted);
    }
}
