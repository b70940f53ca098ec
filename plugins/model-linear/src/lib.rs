//! Linear regression on residue composition, or on k-mers: the example to copy.
//!
//! This file is what a model plugin needs; `features.rs` and `regression.rs` are the method.

mod features;
mod regression;

use std::num::NonZeroUsize;

use features::Features;
use plugin_api::{Component, Context, Epoch, Error, Evaluation, Message, Model, ModelSetup, Params, Received, Result};
use plugin_api::{State, Table, Task, Tensor, Trained};
use regression::{Regression, evaluation};
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of the model's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The part of the error that a step takes away: more than 0, less than 2.
    pub learning_rate: f32,
    /// Rows in a step.
    pub batch_size: NonZeroUsize,
    /// Numbers that the trunk makes of a text's features.
    pub hidden_size: NonZeroUsize,
    /// The length of the words that are counted in a text: from 1, its letters, to 4. A hidden number has 27^kmer weights.
    pub kmer: usize,
}

impl Default for Config {
    fn default() -> Self {
        let size = |n: usize| NonZeroUsize::MIN.saturating_add(n - 1);
        Self { learning_rate: 0.5, batch_size: size(16), hidden_size: size(8), kmer: 1 }
    }
}

/// The model. Its parameters are `trunk.weight`, and `regressors.T.{weight,bias,scale}` for each held task of number T.
#[derive(Debug)]
pub struct Linear {
    config: Config,
    setup: ModelSetup,
    params: Params,
    steps: u64,
}

impl Linear {
    /// A model with a random trunk, equal at all clients, that predicts 0.
    ///
    /// # Errors
    /// If the learning rate or the k-mers' length is out of bounds, or a held task is not one of the experiment's.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        if !(config.learning_rate > 0.0 && config.learning_rate < 2.0) {
            return Err(Error::config("must be more than 0 and less than 2").at_key("learning-rate"));
        }
        if !(1..=4).contains(&config.kmer) {
            return Err(Error::config("must be 1, 2, 3 or 4").at_key("kmer"));
        }
        let start = Regression::new(&config, ctx.experiment_seed().of("trunk.weight"));
        let mut model = Self { config, setup: setup.clone(), params: Params::new(), steps: 0 };
        for task in &setup.held {
            model.put(task, start.clone())?;
        }
        Ok(model)
    }

    /// Names and shapes of what predicts a task.
    fn tensors(&self, task: &str) -> Result<[(String, Vec<usize>); 4]> {
        let (number, hidden) = (self.setup.number(task)?, self.config.hidden_size.get());
        let head = |name, size| (format!("regressors.{number}.{name}"), vec![size]);
        let trunk = ("trunk.weight".to_owned(), vec![hidden, Features::number(self.config.kmer)]);
        Ok([trunk, head("weight", hidden), head("bias", 1), head("scale", 2)])
    }

    fn get(&self, task: &str) -> Result<Regression> {
        let read = |(name, shape): (String, Vec<usize>)| self.params.elements(&name, &shape).map(Vec::from);
        let [trunk, weight, bias, scale] = self.tensors(task)?.map(read);
        Ok(Regression { trunk: trunk?, weight: weight?, bias: bias?, scale: scale? })
    }

    fn put(&mut self, task: &str, Regression { trunk, weight, bias, scale }: Regression) -> Result<()> {
        for ((name, shape), values) in self.tensors(task)?.into_iter().zip([trunk, weight, bias, scale]) {
            self.params.insert(name, Tensor::from_slice(&shape, &values)?);
        }
        Ok(())
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
                global.params.elements::<f32>(name, own.shape())?;
                params.insert(name, tensor.clone());
            } else {
                received.unexpected.push(name.to_owned());
            }
        }
        received.missing = params.names().filter(|name| global.params.get(name).is_none()).map(str::to_owned).collect();
        self.params = params;
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], Epoch { round, epoch }: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let mut trained = Trained::default();
        for Task { spec, train, .. } in tasks.iter().filter(|task| task.train.rows() > 0) {
            let (x, y) = (Features::of(spec, train, self.config.kmer)?, train.f32(&spec.target)?);
            let mut model = self.get(&spec.name)?;
            model.scale_to(y);
            let seed = ctx.seed().of(&spec.name).at(round).at(epoch);
            let mut order: Vec<usize> = (0..y.len()).collect();
            order.sort_by_key(|&row| seed.at(row as u64).value());
            for batch in order.chunks(self.config.batch_size.get()) {
                ctx.check()?;
                let loss = model.step(batch.iter().map(|&row| (&x[row], y[row])), self.config.learning_rate);
                ctx.scalar("Loss/train", self.steps, loss);
                self.steps += 1;
                trained.steps += 1;
            }
            trained.examples += y.len() as u64;
            self.put(&spec.name, model)?;
        }
        Ok(trained)
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let one = |Task { spec, test, .. }: &Task| {
            Ok(evaluation(&spec.name, &self.predict(&spec.name, test, ctx)?, test.f32(&spec.target)?))
        };
        tasks.iter().map(one).collect()
    }

    fn predict(&mut self, task: &str, rows: &Table, _: &Context<'_>) -> Result<Vec<f32>> {
        let (model, spec) = (self.get(task)?, &self.setup.tasks[self.setup.number(task)?]);
        Ok(Features::of(spec, rows, self.config.kmer)?.iter().map(|x| model.predict(x)).collect())
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let values = [("steps".to_owned(), self.steps.into())].into_iter().collect();
        Ok(State { tensors: self.params.clone(), values })
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let steps = state.value("steps")?;
        let received = self.receive(&state.tensors.clone().into(), ctx)?;
        self.steps = steps;
        received.missing.first().map_or(Ok(()), |name| Err(Error::tensor(name, "is missing in the checkpoint")))
    }
}

plugin_api::export_plugin!(Component::model("linear", "linear regression on letter or k-mer counts", Linear::new));
