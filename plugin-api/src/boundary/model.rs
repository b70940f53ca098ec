//! Models across the boundary: the wire trait, its exporting side and its importing side.

use std::path::Path;

use fedplug_abi::{
    ModelBox, RStr, RString, RVec, TD_Opaque, WireContext, WireEvaluation, WireMessage, WireModel, WireModel_TO,
    WireParams, WireState, WireTable, WireTask, Wired,
};

use super::context::{borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Context, Epoch, Evaluation, Message, Model, Params, Received, Result, State, Table, Task, Trained};

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
    fn train(&mut self, tasks: RVec<WireTask>, round: u64, epoch: u64, ctx: &WireContext<'_>) -> Wired<RString> {
        self.call("train", |model| {
            let tasks = import_tasks(tasks)?;
            Ok(to_json(&borrow(ctx, |ctx| model.train(&tasks, Epoch { round, epoch }, ctx))?))
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
    fn predict(&mut self, task: RStr<'_>, rows: WireTable, ctx: &WireContext<'_>) -> Wired<WireTable> {
        self.call("predict", |model| {
            let rows = import_table(rows)?;
            Ok(export_table(&borrow(ctx, |ctx| model.predict(task.as_str(), &rows, ctx))?))
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
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("extension", |inner| {
            let input = import_message(input)?;
            Ok(export_message(&borrow(ctx, |ctx| inner.extension(name.as_str(), &input, ctx))?))
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
        from_json(&lend(ctx, |ctx| self.0.train(tasks, epoch.round, epoch.epoch, ctx)).into_result()?)
    }
    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let tasks = export_tasks(tasks);
        Ok(lend(ctx, |ctx| self.0.evaluate(tasks, ctx)).into_result()?.into_iter().map(import_evaluation).collect())
    }
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        import_message(lend(ctx, |ctx| self.0.send(ctx)).into_result()?)
    }
    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table> {
        let rows = export_table(rows);
        import_table(lend(ctx, |ctx| self.0.predict(task.into(), rows, ctx)).into_result()?)
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
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let input = export_message(input);
        import_message(lend(ctx, |ctx| self.0.extension(name.into(), input, ctx)).into_result()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::context::Host;
    use crate::{Column, Error, Goal, Level, Metric, TaskSpec, Tensor};

    /// A model with one weight. Each epoch changes it by one.
    struct One(f32);

    impl Model for One {
        fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
            Ok([("w", Tensor::from_slice(&[], &[self.0])?)].into_iter().collect())
        }
        fn receive(&mut self, global: &Message, _: &Context<'_>) -> Result<Received> {
            self.0 = global.params.elements::<f32>("w", &[])?[0];
            Ok(Received { missing: vec!["head".to_owned()], unexpected: Vec::new() })
        }
        fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
            ctx.check()?;
            ctx.info(format_args!("epoch {} on {} with {}", epoch.epoch, ctx.device(), ctx.threads()));
            ctx.debug(format_args!("never shown"));
            ctx.scalar("Loss/train", 3, 0.5);
            ctx.progress(1, 2);
            self.0 += 1.0;
            Ok(Trained { steps: 1, examples: tasks[0].train.rows() as u64 })
        }
        fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
            assert!(tasks[0].test.rows() == 0, "test rows at seed {}", ctx.seed().value());
            let metrics = vec![Metric { name: "R".to_owned(), value: f64::INFINITY, goal: Goal::Higher }];
            Ok(vec![Evaluation { task: "t".to_owned(), examples: 0, loss: 0.5, score: f64::NEG_INFINITY, metrics }])
        }
        fn predict(&mut self, task: &str, rows: &Table, _: &Context<'_>) -> Result<Table> {
            if task != "t" {
                return Err(Error::data("no such task"));
            }
            Table::predicted(&vec![self.0; rows.rows()]).with("sure", Column::bool(&vec![true; rows.rows()]))
        }
        fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
            match name {
                "echo" => Ok(input.clone()),
                _ => Err(Error::unsupported(format!("{name} for {:?}", ctx.client()))),
            }
        }
        fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
            Ok(State { tensors: self.parameters(ctx)?, ..State::default() })
        }
        fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
            self.receive(&state.tensors.clone().into(), ctx).map(drop)
        }
    }

    /// Records what a model reports.
    #[derive(Default)]
    struct Noting(Mutex<Vec<String>>);

    impl Host for Noting {
        fn enabled(&self, level: Level) -> bool {
            level <= Level::Info
        }
        fn log(&self, level: Level, line: &str) {
            self.0.lock().unwrap().push(format!("{level:?}: {line}"));
        }
        fn scalar(&self, tag: &str, step: u64, value: f64) {
            self.0.lock().unwrap().push(format!("{tag} {step} {value}"));
        }
        fn progress(&self, done: u64, total: u64) {
            self.0.lock().unwrap().push(format!("{done}/{total}"));
        }
        fn note(&self, key: &str, text: &str) {
            self.0.lock().unwrap().push(format!("{key}: {text}"));
        }
        fn cancelled(&self) -> bool {
            self.0.lock().unwrap().len() > 3
        }
    }

    #[test]
    fn a_model_is_the_same_behind_the_boundary() {
        let host = Noting::default();
        let ctx = Context::new(&host).with_device("cuda:1").with_threads(3);
        let table = Table::new().with("x", Column::text(["a"])).unwrap();
        let spec = TaskSpec::new("t", ["x"], "y");
        let mut tasks = vec![Task { spec, train: table.clone(), test: table.select(&[]) }];
        let mut there = import(super::export(Box::new(One(1.0))));

        let epoch = Epoch { round: 0, epoch: 4 };
        assert_eq!(there.train(&tasks, epoch, &ctx).unwrap(), Trained { steps: 1, examples: 1 });
        let told = host.0.lock().unwrap().clone();
        assert_eq!(told, ["Info: epoch 4 on cuda:1 with 3", "Loss/train 3 0.5", "1/2"]);
        assert_eq!(there.send(&ctx).unwrap().params.elements::<f32>("w", &[]).unwrap(), [2.0]);
        assert_eq!(there.evaluate(&tasks, &ctx).unwrap(), One(0.0).evaluate(&tasks, &ctx).unwrap());
        let predicted = there.predict("t", &table, &ctx).unwrap();
        assert_eq!((predicted.f32(crate::PREDICTED).unwrap(), predicted.columns().len()), (&[2.0][..], 2));
        let message = there.send(&ctx).unwrap();
        let echo = there.extension("echo", &message, &ctx).unwrap();
        assert!(echo.params.get("w").unwrap().buffer().is_same(message.params.get("w").unwrap().buffer()));
        let error = there.extension("x", &message, &ctx.clone().with_client("c")).unwrap_err();
        assert_eq!((error.kind(), error.message()), (&crate::ErrorKind::Unsupported, "x for Some(\"c\")"));
        assert_eq!(there.predict("u", &table, &ctx).unwrap_err().message(), "no such task");
        assert_eq!(there.export(Path::new("x"), &ctx).unwrap(), Vec::<String>::new());

        let mut other = import(super::export(Box::new(One(0.0))));
        other.restore(&there.state(&ctx).unwrap(), &ctx).unwrap();
        let received = other.receive(&there.send(&ctx).unwrap(), &ctx).unwrap();
        assert_eq!(received.missing, ["head"]);
        host.0.lock().unwrap().push("enough".to_owned());
        assert_eq!(*there.train(&tasks, epoch, &ctx).unwrap_err().kind(), crate::ErrorKind::Cancelled);

        tasks[0].test = table;
        let error = there.evaluate(&tasks, &ctx).unwrap_err();
        assert!(error.message().starts_with("`evaluate` panicked: test rows"), "{error}");
        assert!(there.send(&ctx).is_err(), "a model that panicked answers no more");
    }
}
