//! Shared test helpers: a server's host, clients, and rounds.

mod accounting;
mod configuration;
mod mechanism;
mod refusals;

use std::cell::RefCell;
use std::sync::Mutex;

use plugin_api::context::Host;
use plugin_api::{Element, Level, Seed, Tensor};
use serde_json::{Value, json};

use super::*;

/// A host that reports how clients are sampled and how many rounds started, and records what it receives.
#[derive(Default)]
struct Server {
    sampling: Option<Sampling>,
    attempts: Mutex<Option<u64>>,
    warnings: Mutex<Vec<String>>,
    scalars: Mutex<Vec<(String, u64, f64)>>,
    notes: Mutex<Vec<String>>,
    /// Data that no account covers.
    clear: Mutex<Vec<String>>,
}

impl Host for Server {
    fn enabled(&self, _: Level) -> bool {
        true
    }
    fn log(&self, level: Level, line: &str) {
        assert_eq!(level, Level::Warn);
        self.warnings.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.scalars.lock().unwrap().push((tag.to_owned(), step, value));
    }
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        let notes = if key == "privacy" { &self.notes } else { &self.clear };
        notes.lock().unwrap().push(text.to_owned());
    }
    fn property(&self, key: &str) -> Option<Value> {
        match key {
            "sampling" => self.sampling.map(|sampling| serde_json::to_value(sampling).unwrap()),
            "attempts" => self.attempts.lock().unwrap().map(Value::from),
            _ => None,
        }
    }
    fn cancelled(&self) -> bool {
        false
    }
}

impl Server {
    fn poisson(rate: f64) -> Self {
        Self { sampling: Some(Sampling::Poisson(rate)), ..Self::default() }
    }

    fn ctx(&self, round: u64) -> Context<'_> {
        Context::new(self).with_seed(Seed::new(7)).with_round(round)
    }

    fn last_note(&self) -> String {
        self.notes.lock().unwrap().last().unwrap().clone()
    }

    fn scalars(&self, tag: &str) -> Vec<f64> {
        self.scalars.lock().unwrap().iter().filter(|scalar| scalar.0 == tag).map(|scalar| scalar.2).collect()
    }
}

fn central(keys: Value) -> Result<Central> {
    let mut config = json!({ "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "reproducible": true });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Central::new(plugin_api::config::read(&config).unwrap(), &Context::new(&Server::default()))
}

fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

fn message<const N: usize>(tensors: [(&str, Tensor); N]) -> Message {
    tensors.into_iter().collect::<Params>().into()
}

fn sent(client: &str, message: Message) -> Sent {
    Sent { client: client.to_owned(), message, steps: 1, examples: 1 }
}

fn cohort(clients: &[&str], population: usize) -> Cohort {
    Cohort::new(clients.iter().map(|&client| client.to_owned()).collect(), population)
}

/// The f64 elements of a parameter.
fn elements(message: &Message, name: &str) -> Vec<f64> {
    message.params.get(name).unwrap().elements::<f64>().unwrap().to_vec()
}

/// A round in which each of these clients sends the parameter `w`; a client without one fails.
fn round(
    aggregator: &mut Central,
    server: &Server,
    number: u64,
    global: &[f64],
    updates: &[(&str, Option<&[f64]>)],
) -> Vec<f64> {
    let ctx = server.ctx(number);
    let names: Vec<&str> = updates.iter().map(|(client, _)| *client).collect();
    let global = message([("w", tensor(global))]);
    aggregator.begin(&global, &cohort(&names, 4), &ctx).unwrap();
    for (client, w) in updates {
        if let Some(w) = w {
            aggregator.add(sent(client, message([("w", tensor(w))])), &ctx).unwrap();
        }
    }
    elements(&aggregator.finish(&ctx).unwrap(), "w")
}
