//! Models across the boundary: the wire trait, a model behind it, and it as a model again.

use std::path::Path;

use abi_stable::sabi_trait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RStr, RString, RVec};

use super::context::{WireContext, borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Context, Epoch, Evaluation, Message, Model, Params, Received, Result, State, Table, Task, Trained};

/// [`Model`] as the other side sees it.
#[sabi_trait]
pub trait WireModel: Send {
    /// As [`Model::parameters`].
    fn parameters(&mut self, ctx: &WireContext<'_>) -> Wired<WireParams>;
    /// As [`Model::receive`], answered in JSON.
    fn receive(&mut self, global: WireMessage, ctx: &WireContext<'_>) -> Wired<RString>;
    /// As [`Model::train`], answered as steps and examples.
    fn train(&mut self, tasks: RVec<WireTask>, round: u64, epoch: u64, ctx: &WireContext<'_>) -> Wired<[u64; 2]>;
    /// As [`Model::evaluate`].
    fn evaluate(&mut self, tasks: RVec<WireTask>, ctx: &WireContext<'_>) -> Wired<RVec<WireEvaluation>>;
    /// As [`Model::send`].
    fn send(&mut self, ctx: &WireContext<'_>) -> Wired<WireMessage>;
    /// As [`Model::predict`].
    fn predict(&mut self, task: RStr<'_>, rows: WireTable, ctx: &WireContext<'_>) -> Wired<RVec<f32>>;
    /// As [`Model::export`].
    fn export(&mut self, folder: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<RString>>;
    /// As [`Model::state`].
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState>;
    /// As [`Model::restore`].
    #[sabi(last_prefix_field)]
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()>;
}

/// A model on its way.
pub type ModelBox = WireModel_TO<'static, RBox<()>>;

pub(crate) fn export(model: Box<dyn Model>) -> ModelBox {
    WireModel_TO::from_value(Guarded::new(model), TD_Opaque)
}

pub(crate) fn import(wire: ModelBox) -> Box<dyn Model> {
    Box::new(Imported(wire))
}

impl WireModel for Guarded<dyn Model> {
    fn parameters(&mut self, ctx: &WireContext<'_>) -> Wired<WireParams> {
        self.call("parameters", |model| Ok(export_params(&borrow(ctx, |ctx| model.parameters(ctx))?)))
    }
    fn receive(&mut self, global: WireMessage, ctx: &WireContext<'_>) -> Wired<RString> {
        self.call("receive", |model| {
            let global = import_message(global)?;
            Ok(to_json(&borrow(ctx, |ctx| model.receive(&global, ctx))?))
        })
    }
    fn train(&mut self, tasks: RVec<WireTask>, round: u64, epoch: u64, ctx: &WireContext<'_>) -> Wired<[u64; 2]> {
        self.call("train", |model| {
            let tasks = import_tasks(tasks)?;
            let Trained { steps, examples } = borrow(ctx, |ctx| model.train(&tasks, Epoch { round, epoch }, ctx))?;
            Ok([steps, examples])
        })
    }
    fn evaluate(&mut self, tasks: RVec<WireTask>, ctx: &WireContext<'_>) -> Wired<RVec<WireEvaluation>> {
        self.call("evaluate", |model| {
            let tasks = import_tasks(tasks)?;
            Ok(borrow(ctx, |ctx| model.evaluate(&tasks, ctx))?.into_iter().map(export_evaluation).collect())
        })
    }
    fn send(&mut self, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("send", |model| Ok(export_message(&borrow(ctx, |ctx| model.send(ctx))?)))
    }
    fn predict(&mut self, task: RStr<'_>, rows: WireTable, ctx: &WireContext<'_>) -> Wired<RVec<f32>> {
        self.call("predict", |model| {
            let rows = import_table(rows)?;
            Ok(borrow(ctx, |ctx| model.predict(task.as_str(), &rows, ctx))?.into())
        })
    }
    fn export(&mut self, folder: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<RString>> {
        self.call("export", |model| {
            Ok(export_strings(borrow(ctx, |ctx| model.export(Path::new(folder.as_str()), ctx))?))
        })
    }
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState> {
        self.call("state", |model| Ok(export_state(&borrow(ctx, |ctx| model.state(ctx))?)))
    }
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("restore", |model| {
            let state = import_state(state)?;
            borrow(ctx, |ctx| model.restore(&state, ctx))
        })
    }
}

struct Imported(ModelBox);

impl Model for Imported {
    fn parameters(&mut self, ctx: &Context<'_>) -> Result<Params> {
        import_params(lend(ctx, |ctx| self.0.parameters(ctx)).into_result()?)
    }
    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received> {
        from_json(&lend(ctx, |ctx| self.0.receive(export_message(global), ctx)).into_result()?)
    }
    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let tasks = export_tasks(tasks);
        let [steps, examples] = lend(ctx, |ctx| self.0.train(tasks, epoch.round, epoch.epoch, ctx)).into_result()?;
        Ok(Trained { steps, examples })
    }
    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let tasks = export_tasks(tasks);
        Ok(lend(ctx, |ctx| self.0.evaluate(tasks, ctx)).into_result()?.into_iter().map(import_evaluation).collect())
    }
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        import_message(lend(ctx, |ctx| self.0.send(ctx)).into_result()?)
    }
    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Vec<f32>> {
        let rows = export_table(rows);
        Ok(lend(ctx, |ctx| self.0.predict(task.into(), rows, ctx)).into_result()?.into())
    }
    fn export(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<String>> {
        let folder = text(folder)?;
        Ok(import_strings(lend(ctx, |ctx| self.0.export(folder.into(), ctx)).into_result()?))
    }
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        import_state(lend(ctx, |ctx| self.0.state(ctx)).into_result()?)
    }
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        Ok(lend(ctx, |ctx| self.0.restore(export_state(state), ctx)).into_result()?)
    }
}
