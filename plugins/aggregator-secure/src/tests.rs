//! A small host plays whole rounds; the tests check the results that a user relies on.

use plugin_api::context::{Host, Silent};
use plugin_api::{
    Aggregator, Cohort, Context, Filter, Level, Message, Params, Query, Reply, Result, Seed, Stage, Tensor, Update,
};
use serde_json::json;

use crate::aggregator::Secure;
use crate::config::{AggregatorConfig, FilterConfig};
use crate::filter::Mask;
use crate::letters::Question;

mod account;
mod dropouts;
mod faults;
mod floor;
mod identities;
mod noise;
mod reference;
mod signing;
mod sums;

/// The names of the clients, by position.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The outcome of a client's step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Keys,
    Sign,
    Shares,
    Keep,
    Update,
    Agree,
    Unmask,
    /// An answer was given.
    Given,
}

impl Step {
    fn of(question: &Message) -> Self {
        match Question::of(question).unwrap().unwrap() {
            Question::Keys => Self::Keys,
            Question::Sign { .. } => Self::Sign,
            Question::Shares { .. } => Self::Shares,
            Question::Keep { .. } => Self::Keep,
            Question::Agree { .. } => Self::Agree,
            Question::Unmask { .. } => Self::Unmask,
        }
    }
}

/// An aggregator and its clients.
struct Bench {
    server: Secure,
    clients: Vec<Mask>,
    round: u64,
    seed: u64,
    /// A client that receives a different global model from the server than the rest.
    misled: Option<(usize, Message)>,
}

/// The messages of a round.
#[derive(Default)]
struct Heard {
    /// The answers of each step, in the clients' order.
    answers: Vec<Vec<Reply>>,
    updates: Vec<Update>,
}

type Change<'c> = &'c mut dyn FnMut(Step, &str, &mut Message);

impl Bench {
    fn new(clients: usize, config: serde_json::Value, reproducible: bool) -> Self {
        Self::with(clients, config, &|_| json!({ "reproducible": reproducible }))
    }

    /// Creates a bench with a table for each client's filter.
    fn with(clients: usize, config: serde_json::Value, filter: &dyn Fn(usize) -> serde_json::Value) -> Self {
        let ctx = Context::new(&Silent);
        let config: AggregatorConfig = serde_json::from_value(config).unwrap();
        let client = |k| {
            let config: FilterConfig = serde_json::from_value(filter(k)).unwrap();
            Mask::new(config, &ctx.clone().with_client(NAMES[k])).unwrap()
        };
        Self {
            server: Secure::new(config, &ctx).unwrap(),
            clients: (0..clients).map(client).collect(),
            round: 0,
            seed: 7,
            misled: None,
        }
    }

    /// Plays a round like the host. `fails` decides at which step a client fails; `change` may change the messages to a
    /// client (queries) and from it (updates, and shares at the end).
    fn play(
        &mut self,
        global: &Message,
        updates: &[(Params, u64)],
        fails: &dyn Fn(Step, usize) -> bool,
        change: Change<'_>,
        host: &dyn Host,
    ) -> Result<(Message, Heard)> {
        let (round, seed) = (self.round, Seed::new(self.seed));
        self.round += 1;
        let ctx = Context::new(host).with_round(round).with_seed(seed);
        let mut present: Vec<usize> = (0..self.clients.len()).collect();
        let cohort = Cohort::new(present.iter().map(|&k| NAMES[k].to_owned()).collect(), 6);
        self.server.begin(global, &cohort, &ctx)?;
        let mut heard = Heard::default();
        self.ask(Stage::Opening, &mut present, &mut heard, fails, change, &ctx)?;
        for k in present.clone() {
            let base = self.misled.as_ref().filter(|(misled, _)| *misled == k).map_or(global, |(_, other)| other);
            let message = self.clients[k].apply(updates[k].0.clone().into(), base, &ctx.clone().with_client(NAMES[k]));
            if fails(Step::Update, k) {
                present.retain(|&other| other != k);
                continue;
            }
            let mut message = message?;
            change(Step::Update, NAMES[k], &mut message);
            let update = Update { client: NAMES[k].into(), message, steps: updates[k].1, examples: 1 };
            heard.updates.push(update.clone());
            self.server.add(update, &ctx)?;
        }
        self.ask(Stage::Closing, &mut present, &mut heard, fails, change, &ctx)?;
        Ok((self.server.finish(&ctx)?, heard))
    }

    fn ask(
        &mut self,
        stage: Stage,
        present: &mut Vec<usize>,
        heard: &mut Heard,
        fails: &dyn Fn(Step, usize) -> bool,
        change: Change<'_>,
        ctx: &Context<'_>,
    ) -> Result<()> {
        let mut answers = Vec::new();
        loop {
            let questions = self.server.ask(stage, answers, ctx)?;
            let Some(first) = questions.first() else { return Ok(()) };
            let step = Step::of(&first.message);
            let asked: Vec<_> = questions.iter().map(|query| query.client.as_str()).collect();
            assert_eq!(asked, present.iter().map(|&k| NAMES[k]).collect::<Vec<_>>(), "{step:?} is asked of others");
            answers = Vec::new();
            for (mut query, k) in questions.into_iter().zip(present.clone()) {
                change(step, NAMES[k], &mut query.message);
                let answer = self.clients[k].answer(&query.message, &ctx.clone().with_client(NAMES[k]))?;
                let mut message = answer.expect("the question is for the filter");
                if step == Step::Unmask {
                    change(Step::Given, NAMES[k], &mut message);
                }
                if fails(step, k) {
                    present.retain(|&other| other != k);
                } else {
                    answers.push(Reply { client: query.client, message });
                }
            }
            heard.answers.push(answers.clone());
        }
    }

    /// A round in which no client fails.
    fn round(&mut self, global: &Message, updates: &[(Params, u64)]) -> Result<(Message, Heard)> {
        self.play(global, updates, &|_, _| false, &mut |_, _, _| {}, &Silent)
    }
}

fn params(tensors: &[(&str, &[f32])]) -> Params {
    let tensor =
        |(name, values): &(&str, &[f32])| (name.to_string(), Tensor::from_slice(&[values.len()], values).unwrap());
    tensors.iter().map(tensor).collect()
}

fn values(params: &Params, name: &str) -> Vec<f32> {
    params.get(name).unwrap().elements::<f32>().unwrap().to_vec()
}

/// A global model of two parameters with `n` values each, and the updates of 6 clients.
fn model(n: usize, round: u64) -> (Message, Vec<(Params, u64)>) {
    let noise =
        |client: u64, i: usize| (Seed::new(round).at(client).at(i as u64).value() >> 40) as f32 / 2_f32.powi(24) - 0.5;
    let base = |at: u64| (0..n).map(|i| 2.0 * noise(at, i)).collect::<Vec<f32>>();
    let (w, b) = (base(100), base(200));
    let client = |k: u64| {
        let moved =
            |from: &[f32], at| from.iter().enumerate().map(|(i, x)| x + 0.1 * noise(at, i)).collect::<Vec<f32>>();
        (params(&[("w", &moved(&w, k)), ("b", &moved(&b, 10 + k))]), k + 1)
    };
    (params(&[("w", &w), ("b", &b)]).into(), (0..6).map(client).collect())
}

/// The reported scalars, notes and warnings.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Told {
    fn has(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|told| told.contains(line))
    }
    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Host for Told {
    fn enabled(&self, level: Level) -> bool {
        level <= Level::Warn
    }
    fn log(&self, _: Level, line: &str) {
        self.push(line.to_owned());
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.push(format!("{tag} {step} {value}"));
    }
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        self.push(format!("{key}: {text}"));
    }
    fn cancelled(&self) -> bool {
        false
    }
}

fn five(threshold: usize) -> Bench {
    Bench::new(5, json!({ "threshold": threshold }), false)
}
