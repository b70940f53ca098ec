//! What the contract asks of the model.

use std::path::Path;

use plugin_api::{
    Context, Epoch, Evaluation, Message, Model, Params, Received, Result, State, Table, Task, Trained, metrics,
};

use super::Amplify;
use crate::checkpoint::Checkpoint;
use crate::export::Folder;
use crate::heads::{Heads, number};
use crate::network::Work;
use crate::noise::{Noise, shuffled};
use crate::trainer::{Lesson, Trainer, decay_steps};

/// Under which the personal model stands in a state.
const PERSONAL: &str = "personal.";

impl Model for Amplify {
    fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
        let _on = self.begin()?;
        self.snapshot()
    }

    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received> {
        let _on = self.enter()?;
        let received = self.trainer.receive(global, ctx.property("update.taken")?)?;
        if let Some(personal) = &mut self.personal {
            personal.anchor(global)?;
        }
        self.is_own = false;
        self.heads.received(&self.trainer.network.parameters, &received.missing);
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let _on = self.begin()?;
        let size = self.config.batch_size;
        let total = tasks.iter().map(|task| task.train.rows().div_ceil(size) as u64).sum();
        let decay = decay_steps(total, &self.setup);
        let seed = ctx.seed().at(epoch.round).at(epoch.epoch);
        let mut trained = Trained::default();
        let mut work = Work::within(&self.spaces, ctx.threads())?;
        for task in tasks.iter().filter(|task| task.train.rows() > 0) {
            let name = task.spec.name.as_str();
            self.must_hold(name)?;
            let number = self.setup.number(name)?;
            let rows = self.rows(&task.spec, &task.train, ctx)?;
            let targets = task.train.f32(&task.spec.target)?;
            for picked in shuffled(rows.len(), seed.of("shuffle").of(name)).chunks(size) {
                ctx.check()?;
                let batch = self.batch(&picked.iter().map(|&i| rows[i].as_slice()).collect::<Vec<_>>())?;
                let targets: Vec<f32> = picked.iter().map(|&i| targets[i]).collect();
                let noise = || Noise::new(seed.of("dropout").at(trained.steps));
                // Steps are numbered from zero over all rounds.
                let step = self.trainer.steps();
                let lesson = Lesson { task: name, batch: &batch, targets: &targets };
                let place = (epoch.round, decay);
                let mut stepped = self.trainer.step(lesson, place, &mut noise(), &mut work)?;
                // Of two models the personal one is the client's own.
                if let Some(personal) = &mut self.personal {
                    stepped = personal.step(lesson, place, &mut noise(), &mut work)?;
                }
                self.heads.trained(number);
                self.record(name, step, &stepped, epoch, ctx);
                trained.steps += 1;
                trained.examples += picked.len() as u64;
                ctx.progress(trained.steps, total);
            }
        }
        self.is_own = true;
        self.trainer.rest()?;
        self.personal.as_mut().map_or(Ok(()), Trainer::rest)?;
        self.account(ctx)?;
        Ok(trained)
    }

    /// The shared model, and what SCAFFOLD has to say.
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let _on = self.begin()?;
        let params = self.trainer.network.parameters.snapshot()?;
        let extra = self.trainer.extra(ctx.round())?;
        self.trainer.close();
        self.personal.iter_mut().for_each(Trainer::close);
        Ok(Message { params, extra, ..Message::default() })
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let _on = self.begin()?;
        let mut evaluations = Vec::with_capacity(tasks.len());
        for task in tasks {
            self.must_hold(&task.spec.name)?;
            let rows = self.rows(&task.spec, &task.test, ctx)?;
            let predictions = self.predictions(&task.spec.name, &rows, ctx)?;
            evaluations.push(metrics::regression(task, &predictions)?);
        }
        Ok(evaluations)
    }

    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table> {
        let _on = self.begin()?;
        self.must_hold(task)?;
        let spec = self.setup.tasks[self.setup.number(task)?].clone();
        let rows = self.rows(&spec, rows, ctx)?;
        Ok(Table::predicted(&self.predictions(task, &rows, ctx)?))
    }

    fn export(&mut self, folder: &Path, _: &Context<'_>) -> Result<Vec<String>> {
        let _on = self.begin()?;
        let mut trunk = self.snapshot()?;
        let mut regressors = trunk.clone();
        trunk.retain(|name, _| name.starts_with("trunk."));
        regressors.retain(|name, _| number(name).is_some_and(|head| self.heads.known(head)));
        let Checkpoint { architecture, tokenizer, companions, .. } = &self.checkpoint;
        let mut folder = Folder::new(folder);
        folder.trunk(&trunk, architecture, tokenizer, companions)?;
        folder.regressors(&regressors, &self.heads, &self.config, &self.setup)?;
        folder.readme(architecture)?;
        Ok(folder.finish())
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let _on = self.begin()?;
        let mut state = self.trainer.state()?;
        if let Some(personal) = &mut self.personal {
            let State { tensors, values } = personal.state()?;
            for (name, tensor) in tensors.iter() {
                state.tensors.insert(format!("{PERSONAL}{name}"), tensor.clone());
            }
            state.values.insert(PERSONAL.to_owned(), values.into());
        }
        state.values.insert("is-own".to_owned(), self.is_own.into());
        self.heads.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        let _on = self.enter()?;
        let (heads, is_own) = (Heads::read(state)?, state.value("is-own")?);
        let personal = match &self.personal {
            Some(_) => {
                let tensors = state.tensors.iter();
                let tensors = tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(PERSONAL)?, tensor.clone())));
                Some(State { tensors: tensors.collect(), values: state.value(PERSONAL)? })
            }
            None => None,
        };
        let before = personal.is_some().then(|| self.trainer.state()).transpose()?;
        self.trainer.restore(state)?;
        if let (Some(own), Some(state), Some(before)) = (&mut self.personal, personal, before)
            && let Err(error) = own.restore(&state)
        {
            self.trainer.restore(&before)?;
            return Err(error);
        }
        (self.heads, self.is_own, self.whole) = (heads, is_own, true);
        Ok(())
    }
}
