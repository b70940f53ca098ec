//! A starting point for a model: predicts the mean of the training targets for each task.

use plugin_api::{
    Component, Context, Epoch, Error, Evaluation, JsonSchema, Message, Model, ModelSetup, Params,
    Received, Result, State, Table, Task, TaskSpec, Tensor, Trained, metrics,
};
use serde::Deserialize;

/// The keys of the experiment's `[model]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The fraction of the distance to the mean that one epoch covers: more than 0, at most 1.
    #[serde(default = "half")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f32,
}

fn half() -> f32 {
    0.5
}

/// A model with one parameter, `TASK.mean`, for each task that it trains.
pub struct Mean {
    learning_rate: f32,
    tasks: Vec<TaskSpec>,
    params: Params,
}

impl Mean {
    /// A model that predicts 0.
    pub fn new(config: Config, setup: &ModelSetup, _: &Context<'_>) -> Result<Self> {
        let zero = Tensor::from_slice(&[1], &[0.0_f32])?;
        let params = setup.held.iter().map(|task| (name(task), zero.clone()));
        Ok(Self {
            learning_rate: config.learning_rate,
            tasks: setup.tasks.clone(),
            params: params.collect(),
        })
    }

    fn mean(&self, task: &str) -> Result<f32> {
        Ok(self.params.elements(&name(task), &[1])?[0])
    }
}

fn name(task: &str) -> String {
    format!("{task}.mean")
}

impl Model for Mean {
    fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
        Ok(self.params.clone())
    }

    fn receive(&mut self, global: &Message, _: &Context<'_>) -> Result<Received> {
        let (mut params, mut received) = (self.params.clone(), Received::default());
        for (name, tensor) in global.params.iter() {
            if params.get(name).is_some() {
                global.params.elements::<f32>(name, &[1])?;
                params.insert(name, tensor.clone());
            } else {
                received.unexpected.push(name.to_owned());
            }
        }
        let missing = params
            .names()
            .filter(|name| global.params.get(name).is_none());
        received.missing = missing.map(str::to_owned).collect();
        self.params = params;
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], _: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let mut trained = Trained::default();
        for Task { spec, train, .. } in tasks.iter().filter(|task| task.train.rows() > 0) {
            ctx.check()?; // stops when asked to
            let targets = train.f32(&spec.target)?;
            let (old, count) = (self.mean(&spec.name)?, targets.len());
            let new = old + self.learning_rate * (targets.iter().sum::<f32>() / count as f32 - old);
            self.params
                .insert(name(&spec.name), Tensor::from_slice(&[1], &[new])?);
            trained.steps += 1;
            trained.examples += count as u64;
        }
        Ok(trained)
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let one = |task: &Task| {
            let predicted = self.predict(&task.spec.name, &task.test, ctx)?;
            metrics::evaluate(task, &predicted) // loss, RMSE, Spearman and others, and a score without a unit
        };
        tasks.iter().map(one).collect()
    }

    fn predict(&mut self, task: &str, rows: &Table, _: &Context<'_>) -> Result<Table> {
        let mean = self.mean(task)?;
        for input in self
            .tasks
            .iter()
            .filter(|spec| spec.name == task)
            .flat_map(|spec| &spec.inputs)
        {
            rows.text(input)?; // what a better model reads; an error where there is no such column
        }
        Ok(Table::predicted(&vec![mean; rows.rows()]))
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        Ok(State {
            tensors: self.params.clone(),
            ..State::default()
        })
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        match self
            .receive(&state.tensors.clone().into(), ctx)?
            .missing
            .first()
        {
            Some(name) => Err(Error::tensor(name, "is missing from the checkpoint")),
            None => Ok(()),
        }
    }
}

/// The component that this library exports.
pub fn component() -> Component {
    Component::model(
        "{{name}}",
        "predicts the mean of the training targets of each task",
        Mean::new,
    )
    .scored_by(metrics::SCORE)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::{Column, PREDICTED, context::Silent};

    #[test]
    fn it_goes_half_the_way_to_the_mean_and_keeps_its_state() -> Result<()> {
        let ctx = Context::new(&Silent);
        let spec = TaskSpec {
            name: "t".into(),
            target: "y".into(),
            ..TaskSpec::default()
        };
        let table = Table::new().with("y", Column::f32(&[1.0, 3.0]))?;
        let task = Task {
            spec: spec.clone(),
            train: table.clone(),
            test: table.clone(),
        };
        let new = || {
            let setup = ModelSetup::new(vec![spec.clone()], 1, 1);
            Mean::new(
                Config {
                    learning_rate: half(),
                },
                &setup,
                &ctx,
            )
        };
        let mut model = new()?;
        let trained = model.train(&[task], Epoch { round: 0, epoch: 0 }, &ctx)?;
        assert_eq!(
            trained,
            Trained {
                steps: 1,
                examples: 2
            }
        );
        assert_eq!(model.predict("t", &table, &ctx)?.f32(PREDICTED)?, [1.0; 2]);
        let mut other = new()?;
        other.restore(&model.state(&ctx)?, &ctx)?;
        assert_eq!(other.predict("t", &table, &ctx)?.f32(PREDICTED)?, [1.0; 2]);
        Ok(())
    }
}
