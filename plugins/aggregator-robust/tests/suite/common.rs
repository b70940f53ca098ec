//! What the tests of the robust methods share.

use std::sync::Mutex;

use aggregator_robust::{Config, Robust};
use plugin_api::config::read;
use plugin_api::context::Host;
use plugin_api::{Aggregator, Cohort, Context, Element, Level, Params, Result, Tensor, Update};
use serde_json::Value;

/// Takes down the warnings and the scalars.
#[derive(Default)]
pub(crate) struct Noting(Mutex<Vec<String>>);

impl Noting {
    pub(crate) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Host for Noting {
    fn enabled(&self, level: Level) -> bool {
        level <= Level::Warn
    }
    fn log(&self, _: Level, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, tag: &str, _: u64, value: f64) {
        self.0.lock().unwrap().push(format!("{tag} {value}"));
    }
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        self.0.lock().unwrap().push(format!("{key}: {text}"));
    }
    fn cancelled(&self) -> bool {
        false
    }
}

pub(crate) fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

pub(crate) fn params(tensors: Vec<(&str, Tensor)>) -> Params {
    tensors.into_iter().collect()
}

/// A model of one tensor.
pub(crate) fn w(values: &[f32]) -> Params {
    params(vec![("w", tensor(values))])
}

pub(crate) fn robust(config: Value) -> Result<Robust> {
    Robust::new(read::<Config>(&config).unwrap(), &Context::new(&plugin_api::context::Silent))
}

pub(crate) fn name(place: usize) -> String {
    format!("c{place}")
}

/// A round of these clients, and what was told in it.
pub(crate) fn told(config: Value, global: &Params, clients: Vec<Params>) -> (Result<Params>, Vec<String>) {
    let host = Noting::default();
    let ctx = Context::new(&host).with_round(3);
    let mut aggregator = robust(config).unwrap();
    let next = (|| {
        let cohort = Cohort::new((0..clients.len()).map(name).collect(), clients.len());
        aggregator.begin(&global.clone().into(), &cohort, &ctx)?;
        for (place, params) in clients.into_iter().enumerate() {
            let update = Update { client: name(place), message: params.into(), steps: 1, examples: 1 };
            aggregator.add(update, &ctx)?;
        }
        Ok(aggregator.finish(&ctx)?.params)
    })();
    (next, host.lines())
}

/// A round of these clients without a global model.
pub(crate) fn aggregated(config: Value, clients: Vec<Params>) -> Result<Params> {
    told(config, &Params::new(), clients).0
}
