//! What the tests of the server optimisers share.

use aggregator_fedopt::{Config, FedOpt};
use plugin_api::config::read;
use plugin_api::context::Silent;
use plugin_api::{Aggregator, Cohort, Context, Element, Params, Result, Tensor, Update};
use serde_json::Value;

pub(crate) fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

pub(crate) fn params(tensors: Vec<(&str, Tensor)>) -> Params {
    tensors.into_iter().collect()
}

pub(crate) fn server(config: Value) -> FedOpt {
    FedOpt::new(read::<Config>(&config).unwrap(), &Context::new(&Silent)).unwrap()
}

/// A client's update.
pub(crate) fn update(place: usize, steps: u64, examples: u64, params: Params) -> Update {
    Update { client: format!("c{place}"), message: params.into(), steps, examples }
}

/// The global model after a round of these updates.
pub(crate) fn aggregated(server: &mut FedOpt, global: &Params, updates: Vec<Update>) -> Result<Params> {
    let ctx = Context::new(&Silent);
    server.begin(&global.clone().into(), &Cohort::default(), &ctx)?;
    updates.into_iter().try_for_each(|update| server.add(update, &ctx))?;
    Ok(server.finish(&ctx)?.params)
}

/// What `reference.py` wrote.
pub(crate) fn reference() -> Value {
    serde_json::from_str(include_str!("../reference.json")).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// A model of the reference: `w` in f32, `b` in f64.
pub(crate) fn model(value: &Value) -> Params {
    let w: Vec<f32> = numbers(&value["w"]).into_iter().map(|x| x as f32).collect();
    params(vec![("w", Tensor::from_slice(&[2, 3], &w).unwrap()), ("b", tensor(&numbers(&value["b"])))])
}

/// The updates of a round of the reference.
pub(crate) fn updates(reference: &Value, round: usize) -> Vec<Update> {
    let models = reference["rounds"][round].as_array().unwrap().iter().enumerate();
    let count = |of: &str, k: usize| reference[of][k].as_u64().unwrap();
    models.map(|(k, m)| update(k, count("steps", k), count("examples", k), model(m))).collect()
}
