//! Linear and logistic regression on residue composition, on k-mers, or on letters by position; ridge regression and the
//! mean, the baselines. The example to copy.
//!
//! This file and `config.rs`, which holds the keys, are what a model plugin needs; `features.rs`, `regression.rs`,
//! `classification.rs` and `ridge.rs` implement the methods.
//!
//! # Gradient descent
//! A task of numbers is learnt by its squared error. A task of classes is learnt by the cross entropy of their
//! probabilities, with a logit for each class, two for two classes. There is no penalty on the weights. So where enough
//! values are hidden, the result of full batches is that of logistic regression without a penalty.
//!
//! # Baselines
//! `method = "ridge"` and `method = "mean"` are what a model has to beat. Each epoch computes them anew from all rows, so one
//! round with one epoch is enough.
//!
//! | method | what a client sends | what FedAvg makes of it, with `weight-by` `steps` or `examples` |
//! |---|---|---|
//! | `ridge` | weights and intercept | their mean, which is not ridge regression on all rows |
//! | `pooled-ridge` | sums over its rows, of `x xᵀ` and of `y x` | the sums over all clients: ridge regression on all rows |
//! | `mean` | the number of its rows and the sum of their targets | the mean of all targets |
//!
//! The sums are divided by the number of the client's rows of all tasks, and FedAvg multiplies by it: `steps` and `examples`
//! are both the rows of the epoch. `weight-by = "uniform"` weighs clients alike whatever their rows. A model predicts by the
//! sums that it holds: after training by its own, after a message by those of all. So with `pooled-ridge`, the results of the
//! local model are those of ridge regression on the client's own rows.
//!
//! Sums of a few rows show these rows: use secure aggregation or noise where that matters. Of `pooled-ridge` and `mean`, all
//! numbers are f64, and as exact as these.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod baselines;
mod classification;
mod config;
mod features;
mod regression;
mod ridge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use classification::Row;
pub use config::{Config, FeatureKind, Method};
use features::{FeatureMap, Features};
use plugin_api::{ClassWeights, DType, State, Table, Task, TaskSpec, Tensor, Trained, metrics};
use plugin_api::{Component, Context, Epoch, Error, Evaluation, Message, Model, ModelSetup, Params, Received, Result};
use regression::Weights;
use ridge::Solution;

/// The most weights of the trunk: 1 GiB of them.
const MAX_WEIGHTS: usize = 1 << 28;

/// The model. Its parameters are those of the tasks that it holds, where T is the task's number:
///
/// - `gradient-descent`: `trunk.weight`, and `regressors.T.{weight,bias,scale}`. A task of classes has a row of `weight` and
///   a `bias` for each class, and no `scale`.
/// - `ridge`: `regressors.T.{weight,bias}`.
/// - `pooled-ridge`, `mean`: `regressors.T.{gram,moment}`, the sums over rows.
#[derive(Debug)]
pub struct Linear {
    config: Config,
    features: FeatureMap,
    setup: ModelSetup,
    params: Params,
    /// The parameters of the round's global message; FedProx pulls the client towards them.
    received: Params,
    steps: u64,
    /// What the sums of a task predict, from their first use on.
    solved: BTreeMap<String, Solution>,
}

impl Linear {
    /// Creates a model that predicts 0, with a random trunk that is the same at all clients.
    ///
    /// # Errors
    /// If a held task is not part of the experiment or has several numbers as its target, a class with a weight does not
    /// exist, or keys do not fit together.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        config.check(setup)?;
        let features = FeatureMap::new(&config);
        let weights = features.number().saturating_mul(config.hidden_size.get());
        if config.method == Method::GradientDescent && weights > MAX_WEIGHTS {
            let what = format!("these features give the trunk {weights} weights; at most {MAX_WEIGHTS}");
            return Err(Error::config(what).at_key("hidden-size"));
        }
        let mut model = Self {
            config,
            features,
            setup: setup.clone(),
            params: Params::new(),
            received: Params::new(),
            steps: 0,
            solved: BTreeMap::new(),
        };
        for task in &setup.held {
            let outputs = setup.tasks[setup.number(task)?].outputs()?;
            if model.config.method == Method::GradientDescent {
                let start = Weights::new(&model.config, outputs, ctx.experiment_seed().of("trunk.weight"));
                model.put(task, start)?;
            } else {
                model.start_baseline(task, outputs)?;
            }
        }
        Ok(model)
    }

    /// Names and shapes of the tensors that predict a task.
    fn tensors(&self, task: &str) -> Result<Vec<(String, Vec<usize>)>> {
        let (number, features) = (self.setup.number(task)?, self.features.number());
        let head = |name, shape| (format!("regressors.{number}.{name}"), shape);
        let classes = self.setup.tasks[number].target_kind.classes().map(<[_]>::len);
        let (hidden, size) = (self.config.hidden_size.get(), features + 1);
        let trunk = ("trunk.weight".to_owned(), vec![hidden, features]);
        Ok(match (self.config.method, classes) {
            (Method::GradientDescent, None) => {
                vec![trunk, head("weight", vec![hidden]), head("bias", vec![1]), head("scale", vec![2])]
            }
            (Method::GradientDescent, Some(classes)) => {
                vec![trunk, head("weight", vec![classes, hidden]), head("bias", vec![classes])]
            }
            (Method::Ridge, _) => vec![head("weight", vec![features]), head("bias", vec![1])],
            (Method::PooledRidge | Method::Mean, _) => {
                vec![head("gram", vec![size, size]), head("moment", vec![classes.unwrap_or(1), size])]
            }
        })
    }

    fn get(&self, task: &str) -> Result<Weights> {
        let read = |(name, shape): (String, Vec<usize>)| self.params.elements(&name, &shape).map(Vec::from);
        let mut values = self.tensors(task)?.into_iter().map(read);
        let mut next = || values.next().unwrap_or_else(|| Ok(Vec::new()));
        Ok(Weights { trunk: next()?, weight: next()?, bias: next()?, scale: next()? })
    }

    fn put(&mut self, task: &str, Weights { trunk, weight, bias, scale }: Weights) -> Result<()> {
        for ((name, shape), values) in self.tensors(task)?.into_iter().zip([trunk, weight, bias, scale]) {
            self.params.insert(name, Tensor::from_slice(&shape, &values)?);
        }
        Ok(())
    }

    /// One epoch of gradient steps. Returns their number.
    fn descend(&mut self, Task { spec, train, .. }: &Task, at: Epoch, ctx: &Context<'_>) -> Result<u64> {
        let x = self.features.of(spec, train)?;
        let mut model = self.get(&spec.name)?;
        let targets = Targets::of(spec, train, self.config.class_weights.as_ref())?;
        if let Targets::Numbers(y) = targets {
            model.scale_to(y);
        }
        let names = self.tensors(&spec.name)?;
        let seed = ctx.seed().of(&spec.name).at(at.round).at(at.epoch);
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by_key(|&row| seed.at(row as u64).value());
        let mut steps = 0;
        for batch in order.chunks(self.config.batch_size.get()) {
            ctx.check()?;
            let rate = self.config.learning_rate;
            let (loss, rate) = match &targets {
                Targets::Numbers(y) => model.step(batch.iter().map(|&row| (&x[row], y[row])), rate),
                Targets::Classes(classes, weights) => {
                    let row = |&row: &usize| {
                        let class = classes[row];
                        Row { features: &x[row], class, weight: weights[class] }
                    };
                    model.class_step(&batch.iter().map(row).collect::<Vec<_>>(), rate)
                }
            };
            for ((name, shape), values) in names.iter().zip([&mut model.trunk, &mut model.weight, &mut model.bias]) {
                let held = self.config.proximal_mu > 0.0 && self.received.get(name).is_some();
                if held {
                    let global = self.received.elements(name, shape)?;
                    regression::pull(values, global, rate * self.config.proximal_mu);
                }
            }
            ctx.scalar("Loss/train", self.steps, loss);
            self.steps += 1;
            steps += 1;
        }
        self.put(&spec.name, model)?;
        Ok(steps)
    }
}

impl Model for Linear {
    fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
        Ok(self.params.clone())
    }

    fn receive(&mut self, global: &Message, _: &Context<'_>) -> Result<Received> {
        let (mut params, mut received) = (self.params.clone(), Received::default());
        for (name, tensor) in global.params.iter() {
            if let Some(own) = self.params.get(name) {
                match own.dtype() {
                    DType::F64 => global.params.elements::<f64>(name, own.shape()).map(drop),
                    _ => global.params.elements::<f32>(name, own.shape()).map(drop),
                }?;
                params.insert(name, tensor.clone());
            } else {
                received.unexpected.push(name.to_owned());
            }
        }
        received.missing = params.names().filter(|name| global.params.get(name).is_none()).map(str::to_owned).collect();
        (self.params, self.received) = (params, global.params.clone());
        self.solved.clear();
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], at: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let mut trained = Trained::default();
        let rows = tasks.iter().map(|task| task.train.rows()).sum();
        for task in tasks.iter().filter(|task| task.train.rows() > 0) {
            trained.steps += match self.config.method {
                Method::GradientDescent => self.descend(task, at, ctx)?,
                Method::Ridge | Method::PooledRidge | Method::Mean => {
                    self.compute(task, rows, ctx)?;
                    task.train.rows() as u64
                }
            };
            trained.examples += task.train.rows() as u64;
        }
        self.solved.clear();
        Ok(trained)
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let one = |task: &Task| metrics::evaluate(task, &self.predict(&task.spec.name, &task.test, ctx)?);
        tasks.iter().map(one).collect()
    }

    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table> {
        let spec = &self.setup.tasks[self.setup.number(task)?];
        let features = self.features.of(spec, rows)?;
        let outputs: Vec<f32> = if self.config.method == Method::GradientDescent {
            let model = self.get(task)?;
            let outputs = |x: &Features| match spec.target_kind.classes() {
                None => vec![model.predict(x)],
                Some(_) => model.logits(&model.project(x)),
            };
            features.iter().flat_map(outputs).collect()
        } else {
            let solution = self.solution(task, ctx)?;
            features.iter().flat_map(|x| solution.outputs(x)).collect()
        };
        self.setup.tasks[self.setup.number(task)?].predictions(&outputs)
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let values = [("steps".to_owned(), self.steps.into())].into_iter().collect();
        Ok(State { tensors: self.params.clone(), values })
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let steps = state.value("steps")?;
        let received = self.receive(&state.tensors.clone().into(), ctx)?;
        self.steps = steps;
        received.missing.first().map_or(Ok(()), |name| Err(Error::tensor(name, "is missing from the checkpoint")))
    }
}

/// The targets of a training table.
enum Targets<'a> {
    Numbers(&'a [f32]),
    /// The class of each row, and the weight of each class.
    Classes(Vec<usize>, Vec<f32>),
}

impl<'a> Targets<'a> {
    fn of(spec: &TaskSpec, train: &'a Table, weights: Option<&ClassWeights>) -> Result<Self> {
        let Some(classes) = spec.target_kind.classes() else { return Ok(Self::Numbers(train.f32(&spec.target)?)) };
        let rows = spec.class_indices(train)?;
        let weights = weights.map_or_else(|| vec![1.0; classes.len()], |weights| weights.of(spec, &rows));
        Ok(Self::Classes(rows, weights))
    }
}

/// The components of this plugin.
pub fn component() -> Component {
    let about = "linear or logistic regression on letter or k-mer counts; ridge regression and the mean";
    let component = Component::model("linear", about, Linear::new);
    component.scored_by(metrics::SCORE).classes_scored_by(metrics::CLASS_SCORE).extendable::<bool>([])
}

plugin_api::export_plugin!(component());
