//! Linear and logistic regression on residue composition, or on k-mers: the example to copy.
//!
//! This file and `config.rs`, which holds the keys, are what a model plugin needs; `features.rs`, `regression.rs` and
//! `classification.rs` implement the method.
//!
//! A task of numbers is learnt by its squared error. A task of classes is learnt by the cross entropy of their
//! probabilities, with a logit for each class, two for two classes. There is no penalty on the weights. So where enough
//! values are hidden, the result of full batches is that of logistic regression without a penalty.

mod classification;
mod config;
mod features;
mod regression;

use classification::Row;
pub use config::Config;
use features::Features;
use plugin_api::{ClassWeights, State, Table, Task, TaskSpec, Tensor, Trained, metrics};
use plugin_api::{Component, Context, Epoch, Error, Evaluation, Message, Model, ModelSetup, Params, Received, Result};
use regression::Weights;

/// The most weights of the trunk: 1 GiB of them.
const MAX_WEIGHTS: usize = 1 << 28;

/// The model. Its parameters are `trunk.weight`, and `regressors.T.{weight,bias,scale}` for each held task, where T is
/// the task's number. A task of classes has a row of `weight` and a `bias` for each class, and no `scale`.
#[derive(Debug)]
pub struct Linear {
    config: Config,
    setup: ModelSetup,
    params: Params,
    /// The parameters of the round's global message; FedProx pulls the client towards them.
    received: Params,
    steps: u64,
}

impl Linear {
    /// Creates a model that predicts 0, with a random trunk that is the same at all clients.
    ///
    /// # Errors
    /// If a held task is not part of the experiment or has several numbers as its target, or a class with a weight does
    /// not exist.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        let weights = Features::number(config.kmer).saturating_mul(config.hidden_size.get());
        if weights > MAX_WEIGHTS {
            let what = format!("with `kmer` {} the trunk has {weights} weights; at most {MAX_WEIGHTS}", config.kmer);
            return Err(Error::config(what).at_key("hidden-size"));
        }
        if let Some(weights) = &config.class_weights {
            weights.check(&setup.tasks).map_err(|error| error.at_key("class-weights"))?;
        }
        let mut model = Self { config, setup: setup.clone(), params: Params::new(), received: Params::new(), steps: 0 };
        for task in &setup.held {
            let outputs = setup.tasks[setup.number(task)?].outputs()?;
            let start = Weights::new(&model.config, outputs, ctx.experiment_seed().of("trunk.weight"));
            model.put(task, start)?;
        }
        Ok(model)
    }

    /// Names and shapes of the tensors that predict a task.
    fn tensors(&self, task: &str) -> Result<Vec<(String, Vec<usize>)>> {
        let (number, hidden) = (self.setup.number(task)?, self.config.hidden_size.get());
        let head = |name, shape| (format!("regressors.{number}.{name}"), shape);
        let trunk = ("trunk.weight".to_owned(), vec![hidden, Features::number(self.config.kmer)]);
        Ok(match self.setup.tasks[number].target_kind.classes().map(<[_]>::len) {
            None => vec![trunk, head("weight", vec![hidden]), head("bias", vec![1]), head("scale", vec![2])],
            Some(classes) => vec![trunk, head("weight", vec![classes, hidden]), head("bias", vec![classes])],
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
        (self.params, self.received) = (params, global.params.clone());
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], Epoch { round, epoch }: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let mut trained = Trained::default();
        for Task { spec, train, .. } in tasks.iter().filter(|task| task.train.rows() > 0) {
            let x = Features::of(spec, train, self.config.kmer)?;
            let mut model = self.get(&spec.name)?;
            let targets = Targets::of(spec, train, self.config.class_weights.as_ref())?;
            if let Targets::Numbers(y) = targets {
                model.scale_to(y);
            }
            let names = self.tensors(&spec.name)?;
            let seed = ctx.seed().of(&spec.name).at(round).at(epoch);
            let mut order: Vec<usize> = (0..x.len()).collect();
            order.sort_by_key(|&row| seed.at(row as u64).value());
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
                for ((name, shape), values) in names.iter().zip([&mut model.trunk, &mut model.weight, &mut model.bias])
                {
                    let held = self.config.proximal_mu > 0.0 && self.received.get(name).is_some();
                    if held {
                        let global = self.received.elements(name, shape)?;
                        regression::pull(values, global, rate * self.config.proximal_mu);
                    }
                }
                ctx.scalar("Loss/train", self.steps, loss);
                self.steps += 1;
                trained.steps += 1;
            }
            trained.examples += x.len() as u64;
            self.put(&spec.name, model)?;
        }
        Ok(trained)
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let one = |task: &Task| metrics::evaluate(task, &self.predict(&task.spec.name, &task.test, ctx)?);
        tasks.iter().map(one).collect()
    }

    fn predict(&mut self, task: &str, rows: &Table, _: &Context<'_>) -> Result<Table> {
        let (model, spec) = (self.get(task)?, &self.setup.tasks[self.setup.number(task)?]);
        let features = Features::of(spec, rows, self.config.kmer)?;
        let outputs = |x: &Features| match spec.target_kind.classes() {
            None => vec![model.predict(x)],
            Some(_) => model.logits(&model.project(x)),
        };
        spec.predictions(&features.iter().flat_map(outputs).collect::<Vec<_>>())
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
    let about = "linear or logistic regression on letter or k-mer counts";
    let component = Component::model("linear", about, Linear::new);
    component.scored_by(metrics::SCORE).classes_scored_by(metrics::CLASS_SCORE).extendable::<bool>([])
}

plugin_api::export_plugin!(component());
