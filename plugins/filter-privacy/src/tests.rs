//! Shared test helpers: a recording host, messages, and the reference that `tests/reference.py` wrote.

mod audit;
mod budget;
mod configuration;
mod counting;
mod noising;
mod refusals;
mod sharing;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use plugin_api::context::Host;
use plugin_api::{Context, Element, Filter, Level, Message, Params, Result, Seed, State, Tensor};
use serde_json::{Value, json};

use super::*;

/// A host that records what it receives.
#[derive(Default)]
struct Recorder {
    lines: Mutex<Vec<(Level, String)>>,
    scalars: Mutex<Vec<(String, u64, f64)>>,
    notes: Mutex<Vec<(String, String)>>,
    stop: AtomicBool,
    position: Option<&'static str>,
    /// The number of started rounds, if the host counts.
    attempts: Mutex<Option<u64>>,
    rehearsal: bool,
}

impl Host for Recorder {
    fn enabled(&self, _: Level) -> bool {
        true
    }
    fn log(&self, level: Level, line: &str) {
        self.lines.lock().unwrap().push((level, line.to_owned()));
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.scalars.lock().unwrap().push((tag.to_owned(), step, value));
    }
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        self.notes.lock().unwrap().push((key.to_owned(), text.to_owned()));
    }
    fn property(&self, key: &str) -> Option<Value> {
        match key {
            "attempts" => self.attempts.lock().unwrap().map(Value::from),
            "rehearsal" => self.rehearsal.then_some(Value::from(true)),
            "filter.position" => self.position.map(Value::from),
            _ => None,
        }
    }
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Recorder {
    fn ctx<'a>(&'a self, client: &'a str, round: u64) -> Context<'a> {
        Context::new(self).with_seed(Seed::new(42)).with_client(client).with_round(round)
    }

    /// The scalars with this tag: round and value.
    fn scalars(&self, tag: &str) -> Vec<(u64, f64)> {
        let all = self.scalars.lock().unwrap();
        all.iter().filter(|scalar| scalar.0 == tag).map(|scalar| (scalar.1, scalar.2)).collect()
    }

    fn last_note(&self) -> String {
        self.last_note_of("privacy")
    }

    fn last_note_of(&self, wanted: &str) -> String {
        let notes = self.notes.lock().unwrap();
        notes.iter().rev().find(|(key, _)| key == wanted).unwrap().1.clone()
    }

    fn warnings(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.0 == Level::Warn).map(|line| line.1.clone()).collect()
    }

    fn is_untouched(&self) -> bool {
        self.scalars.lock().unwrap().is_empty() && self.notes.lock().unwrap().is_empty()
    }
}

fn privacy(config: Value) -> Result<Privacy> {
    let config = plugin_api::config::read(&config).unwrap();
    Privacy::new(config, &Context::new(&Recorder::default()))
}

fn gaussian(clip: f64, noise_multiplier: f64) -> Privacy {
    let config = json!({
        "mechanism": "gaussian", "clip": clip, "noise-multiplier": noise_multiplier, "delta": 1e-5, "reproducible": true,
    });
    privacy(config).unwrap()
}

fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

fn message<const N: usize>(tensors: [(&str, Tensor); N]) -> Message {
    tensors.into_iter().collect::<Params>().into()
}

fn applied(filter: &mut Privacy, message: &Message, base: &Message) -> Result<Message> {
    let host = Recorder::default();
    filter.apply(message.clone(), base, &host.ctx("tm", 0))
}

/// The elements of all tensors, in order.
fn elements(message: &Message) -> Vec<f64> {
    message.params.iter().flat_map(|(_, tensor)| wide(tensor)).collect()
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    match tensor.elements::<f64>() {
        Ok(elements) => elements.to_vec(),
        Err(_) => tensor.to_f32().unwrap().iter().map(|&x| x.into()).collect(),
    }
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../tests/reference.json")).unwrap();
    all[name].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap()
}

/// The message of the reference's two f32 tensors.
fn from_reference(tensors: &Value) -> Message {
    let of = |name: &str, shape: &[usize]| {
        let elements: Vec<f32> = numbers(&tensors[name]).iter().map(|&x| x as f32).collect();
        Tensor::from_slice(shape, &elements).unwrap()
    };
    message([("a", of("a", &[40])), ("b", of("b", &[8, 5]))])
}

/// The largest difference between a message and the reference's tensors.
fn largest_difference(got: &Message, wanted: &Value) -> f64 {
    let wanted = [numbers(&wanted["a"]), numbers(&wanted["b"])].concat();
    let got = elements(got);
    assert_eq!(got.len(), wanted.len());
    got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
