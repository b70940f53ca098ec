//! Every client's model on every client's data, after the last round.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use plugin_api::{Evaluation, Message, Params};

use crate::error::CliError;
use crate::federation::history::short;
use crate::federation::means::scores;
use crate::federation::ordered_pool::{ahead, in_order};
use crate::federation::rounds::{Federation, handle_client_failure};

/// The file in the run directory.
pub const FILE: &str = "cross_site.csv";

/// The name under which the global model stands among the clients' models.
const GLOBAL: &str = "global";

/// What one model did at one client.
struct Visit {
    model: String,
    site: String,
    evaluations: Vec<Evaluation>,
}

/// Lets each client evaluate the models of all, and the global one where it is complete or the client's own heads fill
/// it up; writes [`FILE`] and gives a table of the scores: a row a model, a column a client.
///
/// # Errors
/// If a component fails, or the file cannot be written.
pub fn evaluate(federation: &mut Federation<'_>) -> Result<String, CliError> {
    let services = federation.services;
    let names: Vec<String> = federation.clients.iter().map(|client| client.name().to_owned()).collect();
    let mut visits = Vec::new();
    for (owner, model) in names.iter().cloned().map(Some).chain([None]).enumerate() {
        federation.stop_if_asked()?;
        let params: Params = match &model {
            Some(name) => match federation.clients[owner].parameters(services) {
                Ok(params) => params,
                Err(fault) => {
                    handle_client_failure(
                        &fault,
                        &format!("cross-site evaluation, client `{name}`"),
                        federation.plan.on_client_failure,
                        services,
                    )?;
                    continue;
                }
            },
            None => federation.global.params.clone(),
        };
        let message = Message { params, ..federation.global.clone() };
        let model = model.unwrap_or_else(|| GLOBAL.to_owned());
        services.console.log(plugin_api::Level::Debug, &format!("cross-site evaluation of model `{model}`"));
        let policy = federation.plan.on_client_failure;
        in_order(
            (federation.workers, ahead(federation.workers, 0)),
            &mut federation.clients,
            |_, client| {
                let found = client.judge(&message, services);
                let rested = client.release(services);
                found.and_then(|found| rested.map(|()| found))
            },
            |site, evaluations| match evaluations {
                Ok(evaluations) => {
                    visits.push(Visit { model: model.clone(), site: names[site].clone(), evaluations });
                    Ok(())
                }
                Err(fault) => handle_client_failure(
                    &fault,
                    &format!("cross-site evaluation of `{model}` at client `{}`", names[site]),
                    policy,
                    services,
                ),
            },
        )?;
    }
    write(federation, &visits)?;
    Ok(table(&names, &visits))
}

/// A line a model, client, task and number: `model,client,task,examples,metric,value`.
fn write(federation: &Federation<'_>, visits: &[Visit]) -> Result<(), CliError> {
    let path = federation.run_dir.path().join(FILE);
    let mut lines = csv::Writer::from_writer(Vec::new());
    let mut rows = vec![["model", "client", "task", "examples", "metric", "value"].map(str::to_owned)];
    for Visit { model, site, evaluations } in visits {
        for evaluation in evaluations {
            let loss = ("Loss", evaluation.loss);
            let metrics = evaluation.metrics.iter().map(|metric| (metric.name.as_str(), metric.value));
            rows.extend([loss].into_iter().chain(metrics).map(|(name, value)| {
                let examples = evaluation.examples.to_string();
                [model, site, &evaluation.task, &examples, name, &value.to_string()].map(str::to_owned)
            }));
        }
    }
    rows.iter().try_for_each(|row| lines.write_record(row)).map_err(|e| CliError::io(&path, "write", &e.into()))?;
    let bytes = lines.into_inner().map_err(|e| CliError::io(&path, "write", &e.into_error()))?;
    std::fs::write(&path, bytes).map_err(|e| CliError::io(&path, "write the cross-site evaluation", &e))
}

fn table(names: &[String], visits: &[Visit]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["score of model".to_owned()].into_iter().chain(names.iter().map(|name| format!("at {name}"))));
    for model in names.iter().map(String::as_str).chain([GLOBAL]) {
        let at = |site: &String| {
            let found = visits.iter().find(|visit| visit.model == model && visit.site == *site);
            let score = found.and_then(|visit| scores(&[(0, &visit.evaluations[..])]).mean());
            Cell::new(score.map_or_else(|| "-".to_owned(), short)).set_alignment(CellAlignment::Right)
        };
        table.add_row([Cell::new(model)].into_iter().chain(names.iter().map(at)));
    }
    table.to_string()
}
