//! Linear regression on residue composition, or on k-mers: the example to copy.
//!
//! This file and `config.rs`, which holds the keys, are what a model plugin needs; `features.rs` and `regression.rs`
//! implement the method.

mod config;
mod features;
mod regression;

pub use config::Config;
use features::Features;
use plugin_api::{Component, Context, Epoch, Error, Evaluation, Message, Model, ModelSetup, Params, Received, Result};
use plugin_api::{PREDICTED, State, Table, Task, Tensor, Trained, metrics};
use regression::Regression;

/// The model. Its parameters are `trunk.weight`, and `regressors.T.{weight,bias,scale}` for each held task, where T is
/// the task's number.
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
    /// If a held task is not part of the experiment.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        let start = Regression::new(&config, ctx.experiment_seed().of("trunk.weight"));
        let mut model = Self { config, setup: setup.clone(), params: Params::new(), received: Params::new(), steps: 0 };
        for task in &setup.held {
            model.put(task, start.clone())?;
        }
        Ok(model)
    }

    /// Names and shapes of the tensors that predict a task.
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
        (self.params, self.received) = (params, global.params.clone());
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], Epoch { round, epoch }: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let mut trained = Trained::default();
        for Task { spec, train, .. } in tasks.iter().filter(|task| task.train.rows() > 0) {
            let (x, y) = (Features::of(spec, train, self.config.kmer)?, train.f32(&spec.target)?);
            let mut model = self.get(&spec.name)?;
            model.scale_to(y);
            let names = self.tensors(&spec.name)?;
            let seed = ctx.seed().of(&spec.name).at(round).at(epoch);
            let mut order: Vec<usize> = (0..y.len()).collect();
            order.sort_by_key(|&row| seed.at(row as u64).value());
            for batch in order.chunks(self.config.batch_size.get()) {
                ctx.check()?;
                let (loss, rate) = model.step(batch.iter().map(|&row| (&x[row], y[row])), self.config.learning_rate);
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
            trained.examples += y.len() as u64;
            self.put(&spec.name, model)?;
        }
        Ok(trained)
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let one =
            |task: &Task| metrics::regression(task, self.predict(&task.spec.name, &task.test, ctx)?.f32(PREDICTED)?);
        tasks.iter().map(one).collect()
    }

    fn predict(&mut self, task: &str, rows: &Table, _: &Context<'_>) -> Result<Table> {
        let (model, spec) = (self.get(task)?, &self.setup.tasks[self.setup.number(task)?]);
        let features = Features::of(spec, rows, self.config.kmer)?;
        Ok(Table::predicted(&features.iter().map(|x| model.predict(x)).collect::<Vec<_>>()))
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

/// The components of this plugin.
pub fn component() -> Component {
    let component = Component::model("linear", "linear regression on letter or k-mer counts", Linear::new);
    component.scored_by(metrics::SCORE).extendable::<bool>([])
}

plugin_api::export_plugin!(component());
