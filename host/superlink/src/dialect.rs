//! The records that Flower's Python apps exchange.
//!
//! Plain functions between [`Content`] and what a round needs, for a [`Server`](crate::Server) of plain Flower nodes and for
//! a [`Site`](crate::Site) in the run of a Python `ServerApp`.

use indexmap::IndexMap;

use crate::content::{Array, Content, Record, Value};
use crate::error::Error;

/// The two ways in which Python apps name their records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `@app.train()` and `@app.evaluate()`: records `arrays`, `config`, `metrics`; arrays keep their names.
    Message,
    /// `ClientApp(client_fn=…)` with a `NumPyClient`: records `fitins.…`, `fitres.…`, `evaluateins.…`, `evaluateres.…`; arrays
    /// have no names, but an order.
    NumPyClient,
}

/// What a client is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// How it was asked, and is to answer.
    pub dialect: Dialect,
    /// The parameters in order. In [`Dialect::NumPyClient`] their names are `0`, `1`, ….
    pub arrays: IndexMap<String, Array>,
    /// The configuration, such as `server-round`.
    pub config: IndexMap<String, Value>,
}

/// What training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The parameters in order.
    pub arrays: IndexMap<String, Array>,
    /// How many examples it was trained with: its weight.
    pub examples: u64,
    /// Other metrics.
    pub metrics: IndexMap<String, Value>,
}

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The loss; a `NumPyClient` always gives one.
    pub loss: Option<f64>,
    /// How many examples were evaluated: its weight.
    pub examples: u64,
    /// Other metrics.
    pub metrics: IndexMap<String, Value>,
}

impl Dialect {
    /// The content of a `train` order.
    pub fn train(self, arrays: &IndexMap<String, Array>, config: IndexMap<String, Value>) -> Content {
        self.order("fitins", arrays, config)
    }

    /// The content of an `evaluate` order.
    pub fn evaluate(self, arrays: &IndexMap<String, Array>, config: IndexMap<String, Value>) -> Content {
        self.order("evaluateins", arrays, config)
    }

    fn order(self, prefix: &str, arrays: &IndexMap<String, Array>, config: IndexMap<String, Value>) -> Content {
        let (first, second) = match self {
            Self::Message => ("arrays".to_owned(), "config".to_owned()),
            Self::NumPyClient => (format!("{prefix}.parameters"), format!("{prefix}.config")),
        };
        Content::from([(first, Record::Arrays(self.named(arrays))), (second, Record::Config(config))])
    }

    fn named(self, arrays: &IndexMap<String, Array>) -> IndexMap<String, Array> {
        match self {
            Self::Message => arrays.clone(),
            Self::NumPyClient => {
                arrays.values().enumerate().map(|(place, array)| (place.to_string(), array.clone())).collect()
            }
        }
    }

    /// The content of the answer to a `train` order. All clients of a run must give the same metrics.
    pub fn trained(self, trained: &Trained) -> Content {
        let arrays = Record::Arrays(self.named(&trained.arrays));
        match self {
            Self::Message => Content::from([
                ("arrays".to_owned(), arrays),
                ("metrics".to_owned(), Record::Metrics(with_examples(&trained.metrics, trained.examples))),
            ]),
            Self::NumPyClient => Content::from([
                ("fitres.parameters".to_owned(), arrays),
                ("fitres.num_examples".to_owned(), one("num_examples", integer(trained.examples))),
                ("fitres.metrics".to_owned(), Record::Config(trained.metrics.clone())),
                ("fitres.status".to_owned(), success()),
            ]),
        }
    }

    /// The content of the answer to an `evaluate` order. All clients of a run must give the same metrics.
    pub fn evaluated(self, evaluated: &Evaluated) -> Content {
        match self {
            Self::Message => {
                let mut metrics = with_examples(&evaluated.metrics, evaluated.examples);
                if let Some(loss) = evaluated.loss {
                    metrics.insert("loss".into(), Value::Float(loss));
                }
                Content::from([("metrics".to_owned(), Record::Metrics(metrics))])
            }
            Self::NumPyClient => Content::from([
                ("evaluateres.loss".to_owned(), one("loss", Value::Float(evaluated.loss.unwrap_or(f64::NAN)))),
                ("evaluateres.num_examples".to_owned(), one("num_examples", integer(evaluated.examples))),
                ("evaluateres.metrics".to_owned(), Record::Config(evaluated.metrics.clone())),
                ("evaluateres.status".to_owned(), success()),
            ]),
        }
    }

    /// Reads the answer to a `train` order.
    ///
    /// # Errors
    /// If the client reports a failure, or the records are not those of this dialect.
    pub fn read_trained(self, mut content: Content) -> Result<Trained, Error> {
        match self {
            Self::Message => {
                let (arrays, (mut metrics, examples)) = (only_arrays(&mut content)?, only_metrics(&mut content)?);
                metrics.shift_remove("num-examples");
                Ok(Trained { arrays, examples, metrics })
            }
            Self::NumPyClient => {
                check_status(&content, "fitres.status")?;
                let Some(Record::Arrays(arrays)) = content.shift_remove("fitres.parameters") else {
                    return Err(missing("fitres.parameters"));
                };
                let examples = number(&content, "fitres.num_examples", "num_examples")?;
                let examples = examples.as_u64().ok_or_else(|| missing("fitres.num_examples"))?;
                Ok(Trained { arrays, examples, metrics: config(&mut content, "fitres.metrics") })
            }
        }
    }

    /// Reads the answer to an `evaluate` order.
    ///
    /// # Errors
    /// If the client reports a failure, or the records are not those of this dialect.
    pub fn read_evaluated(self, mut content: Content) -> Result<Evaluated, Error> {
        match self {
            Self::Message => {
                let (mut metrics, examples) = only_metrics(&mut content)?;
                metrics.shift_remove("num-examples");
                let loss = metrics.get("loss").and_then(Value::as_f64);
                if loss.is_some() {
                    metrics.shift_remove("loss");
                }
                Ok(Evaluated { loss, examples, metrics })
            }
            Self::NumPyClient => {
                check_status(&content, "evaluateres.status")?;
                let examples = number(&content, "evaluateres.num_examples", "num_examples")?;
                let examples = examples.as_u64().ok_or_else(|| missing("evaluateres.num_examples"))?;
                let loss = number(&content, "evaluateres.loss", "loss")?.as_f64();
                Ok(Evaluated { loss, examples, metrics: config(&mut content, "evaluateres.metrics") })
            }
        }
    }
}

/// Reads an order of a Python `ServerApp`, of either dialect.
///
/// # Errors
/// If its records are of neither.
pub fn read_task(mut content: Content) -> Result<Task, Error> {
    for prefix in ["fitins", "evaluateins"] {
        if let Some(Record::Arrays(arrays)) = content.shift_remove(&format!("{prefix}.parameters")) {
            let config = config(&mut content, &format!("{prefix}.config"));
            return Ok(Task { dialect: Dialect::NumPyClient, arrays, config });
        }
    }
    let arrays = only_arrays(&mut content)?;
    let found = content
        .into_iter()
        .find_map(|(_, record)| if let Record::Config(config) = record { Some(config) } else { None });
    Ok(Task { dialect: Dialect::Message, arrays, config: found.unwrap_or_default() })
}

fn missing(record: &str) -> Error {
    Error::protocol("message", format!("no record `{record}`, or not of the kind that it should be"))
}

fn one(key: &str, value: Value) -> Record {
    Record::Metrics(IndexMap::from([(key.to_owned(), value)]))
}

fn success() -> Record {
    let values = [("code".to_owned(), Value::Int(0)), ("message".to_owned(), Value::Text("Success".into()))];
    Record::Config(IndexMap::from(values))
}

/// Integers go as Python sends them.
fn integer(number: u64) -> Value {
    i64::try_from(number).map_or(Value::Uint(number), Value::Int)
}

fn with_examples(metrics: &IndexMap<String, Value>, examples: u64) -> IndexMap<String, Value> {
    let mut all = metrics.clone();
    all.insert("num-examples".into(), integer(examples));
    all
}

/// The one record of arrays, whatever its name.
fn only_arrays(content: &mut Content) -> Result<IndexMap<String, Array>, Error> {
    let is_arrays = |record: &Record| matches!(record, Record::Arrays(_));
    if content.values().filter(|record| is_arrays(record)).count() != 1 {
        return Err(Error::protocol("message", "exactly one record of arrays is expected"));
    }
    let place = content.values().position(is_arrays).unwrap_or_default();
    match content.shift_remove_index(place) {
        Some((_, Record::Arrays(arrays))) => Ok(arrays),
        _ => Err(missing("arrays")),
    }
}

/// The one record of metrics, whatever its name, and the number of examples.
fn only_metrics(content: &mut Content) -> Result<(IndexMap<String, Value>, u64), Error> {
    let mut found =
        content.values().filter_map(|record| if let Record::Metrics(metrics) = record { Some(metrics) } else { None });
    let (Some(metrics), None) = (found.next(), found.next()) else {
        return Err(Error::protocol("message", "exactly one record of metrics is expected"));
    };
    // Python's strategies take any number as a weight.
    let examples = metrics.get("num-examples").and_then(|value| {
        value.as_u64().or_else(|| {
            value.as_f64().filter(|v| *v >= 0.0 && v.fract() == 0.0 && *v < 2f64.powi(53)).map(|v| v as u64)
        })
    });
    match examples {
        Some(examples) => Ok((metrics.clone(), examples)),
        None => Err(Error::protocol("message", "the metric `num-examples` is missing or no whole number")),
    }
}

fn number(content: &Content, record: &str, key: &str) -> Result<Value, Error> {
    match content.get(record) {
        Some(Record::Metrics(metrics)) => metrics.get(key).cloned().ok_or_else(|| missing(record)),
        _ => Err(missing(record)),
    }
}

fn config(content: &mut Content, record: &str) -> IndexMap<String, Value> {
    match content.shift_remove(record) {
        Some(Record::Config(config)) => config,
        _ => IndexMap::new(),
    }
}

fn check_status(content: &Content, record: &str) -> Result<(), Error> {
    let Some(Record::Config(status)) = content.get(record) else { return Err(missing(record)) };
    match status.get("code") {
        Some(Value::Int(0)) => Ok(()),
        _ => {
            let text = status.get("message").and_then(Value::as_text).unwrap_or("no message");
            Err(Error::protocol("the client reports a failure", text))
        }
    }
}
