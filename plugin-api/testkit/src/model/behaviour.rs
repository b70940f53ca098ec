//! Checks of what a run relies on beyond single calls. Those of unusual inputs are in `inputs`.

use super::ModelCheck;
use crate::sample::{altered, reshaped, retyped};
use crate::subject::{OTHER_SEED, SEED};
use crate::verdict::{Found, Verdict, fail, refused, same};
use crate::watcher::Watcher;
use crate::{compare, memory, states};
use plugin_api::{Context, Epoch, Message, Model, Params, Result, State, Table, Task};

pub(super) const NAMES: [&str; 16] = [
    "round-trip",
    "same-seed",
    "state-mid-way",
    "state-misfit",
    "missing-tensors",
    "wrong-shape",
    "wrong-dtype",
    "held-tasks",
    "unknown-task",
    "missing-column",
    "empty-tables",
    "odd-rows",
    "non-finite",
    "cancellation",
    "logging",
    "memory",
];

pub(super) const FIRST: Epoch = Epoch { round: 0, epoch: 0 };

impl ModelCheck {
    pub(super) fn behaviour(&self, verdict: &mut Verdict) {
        let mut run = |name, why, check: &dyn Fn(&Self) -> Found| verdict.run(name, why, || check(self));
        run("round-trip", "clients would train from another model than the server sent", &Self::round_trip);
        run("same-seed", "an experiment could not be reproduced", &Self::same_seed);
        let why = "an interrupted run would end with another model than an uninterrupted one";
        run("state-mid-way", why, &Self::state_mid_way);
        run("state-misfit", "a damaged checkpoint would be used as if nothing were wrong", &Self::state_misfit);
        run("missing-tensors", "private heads are never in the global model", &Self::missing_tensors);
        let why = "a message of another model must not be accepted in part, and the error must name the tensor";
        run("wrong-shape", why, &|this| this.misfit(reshaped, "shape"));
        run("wrong-dtype", why, &|this| this.misfit(retyped, "type"));
        run("held-tasks", "a client's instance holds the client's own tasks only", &Self::held_tasks);
        run("unknown-task", "a mistyped task must be reported, not end the process", &Self::unknown_task);
        run(
            "missing-column",
            "the data of another experiment must be reported, not end the process",
            &Self::missing_column,
        );
        run("empty-tables", "a client may have no row of a task", &Self::empty_tables);
        run("odd-rows", "files contain unforeseen values", &Self::odd_rows);
        run("non-finite", "training may diverge at one client, and the global model hold it", &Self::non_finite);
        run("cancellation", "a user who stops a run would wait for the end of the epoch", &Self::cancellation);
        run("logging", "one client's lines and scalars would bury those of the others", &Self::logging);
        verdict.watch(|| self.memory());
    }

    /// An instance's parameters, each altered.
    pub(super) fn message(&self, ctx: &Context<'_>) -> Result<Params> {
        let own = self.make(SEED)?.parameters(ctx)?;
        own.iter().map(|(name, tensor)| Ok((name, altered(tensor)?))).collect()
    }

    fn round_trip(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let given = self.message(&ctx)?;
        let mut model = self.make(OTHER_SEED)?;
        model.receive(&given.clone().into(), &ctx)?;
        same("`parameters` to give what `receive` got, bit for bit", compare::params(&given, &model.parameters(&ctx)?))
    }

    /// The message of a round. Its parameters are the same in each round. It also has the other tensors that the client
    /// sent in the round before, as if from an aggregator with no other client. A method in which both sides take part
    /// only continues if it gets an answer.
    fn global(&self, sent: Option<&Message>) -> Result<Message> {
        let watcher = Watcher::new();
        let params = self.message(&self.ctx(&watcher, 0))?;
        let extra = sent.map(|sent| sent.extra.clone()).unwrap_or_default();
        Ok(Message { params, extra, ..Message::default() })
    }

    fn two_rounds(&self) -> Result<[super::Round; 2]> {
        let mut model = self.make(SEED)?;
        let first = self.round(&mut *model, &self.global(None)?, 0)?;
        let second = self.round(&mut *model, &self.global(Some(&first.sent))?, 1)?;
        Ok([first, second])
    }

    fn same_seed(&self) -> Found {
        let (first, second) = (self.two_rounds()?, self.two_rounds()?);
        let difference = first.iter().zip(&second).find_map(|(a, b)| a.difference(b));
        same("the same bits from two instances with the same seed", difference)
    }

    fn state_mid_way(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 1);
        let [before, straight] = self.two_rounds()?;
        // Created for another experiment, so that no value is right by chance.
        let mut resumed = self.make(OTHER_SEED)?;
        resumed.restore(&before.state, &ctx)?;
        let expected = "a restored instance to have the parameters of the one whose state it got, bit for bit";
        same(expected, compare::params(&before.params, &resumed.parameters(&ctx)?))?;
        let expected = "a restored instance to have the state that it was given, bit for bit";
        same(expected, compare::states(&before.state, &resumed.state(&ctx)?))?;
        let resumed = self.round(&mut *resumed, &self.global(Some(&before.sent))?, 1)?;
        same(
            "a restored instance to continue like the one whose state it was given, bit for bit",
            straight.difference(&resumed),
        )?;
        self.state_between_epochs()
    }

    /// Uses the second round, so that a method has what it learns in the first.
    fn state_between_epochs(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 1);
        let mut model = self.make(SEED)?;
        let first = self.round(&mut *model, &self.global(None)?, 0)?;
        model.receive(&self.global(Some(&first.sent))?, &ctx)?;
        model.train(&self.tasks, Epoch { round: 1, epoch: 0 }, &ctx)?;
        let mut resumed = self.make(OTHER_SEED)?;
        resumed.restore(&model.state(&ctx)?, &ctx)?;
        let rest = |model: &mut dyn Model| -> Result<Message> {
            model.train(&self.tasks, Epoch { round: 1, epoch: 1 }, &ctx)?;
            model.send(&ctx)
        };
        let difference = compare::messages(&rest(&mut *model)?, &rest(&mut *resumed)?);
        same("an instance that was restored between two epochs to end the round in the same way", difference)
    }

    fn state_misfit(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let mut model = self.make(SEED)?;
        model.train(&self.tasks, FIRST, &ctx)?;
        let state = model.state(&ctx)?;
        refused("a state of another component to be rejected with an error", model.restore(&states::foreign()?, &ctx))?;
        same("rejected input to change nothing", compare::states(&state, &model.state(&ctx)?))?;
        let Some(name) = state.tensors.names().last().map(str::to_owned) else { return Ok(()) };
        let mut tensors = state.tensors.clone();
        tensors.remove(&name);
        let lacking = State { tensors, values: state.values.clone() };
        let expected = format!("a state without its tensor `{name}` to be refused with an error");
        refused(&expected, self.make(OTHER_SEED)?.restore(&lacking, &ctx)).map(drop)
    }

    fn cancellation(&self) -> Found {
        let asked = |call: &dyn Fn(&mut dyn Model, &Context<'_>) -> Result<()>| -> Result<u64> {
            let watcher = Watcher::new();
            call(&mut *self.make(SEED)?, &self.ctx(&watcher, 0))?;
            Ok(watcher.asked())
        };
        let train = |model: &mut dyn Model, ctx: &Context<'_>| model.train(&self.tasks, FIRST, ctx).map(drop);
        let evaluate = |model: &mut dyn Model, ctx: &Context<'_>| model.evaluate(&self.tasks, ctx).map(drop);
        let questions = asked(&train)?;
        if questions == 0 {
            return fail("`train` to ask at every step whether to stop: `ctx.check()?`", "it never asks");
        }
        let obeyed = |name, call: &dyn Fn(&mut dyn Model, &Context<'_>) -> Result<()>, noes| -> Found {
            let watcher = Watcher::stopping_after(noes);
            watcher.was_obeyed(name, call(&mut *self.make(SEED)?, &self.ctx(&watcher, 0)))
        };
        obeyed("train", &train, 0)?;
        obeyed("train", &train, questions / 2)?;
        // An evaluation may be too short to ask. If it asks, it must obey.
        if asked(&evaluate)? > 0 { obeyed("evaluate", &evaluate, 0) } else { Ok(()) }
    }

    fn logging(&self) -> Found {
        let mut model = self.make(SEED)?;
        let mut listen = |name, call: &mut dyn FnMut(&mut dyn Model, &Context<'_>) -> Result<()>| -> Found {
            let watcher = Watcher::new();
            call(&mut *model, &self.ctx(&watcher, 0))?;
            watcher.was_moderate(name)
        };
        let mut own = Params::new();
        listen("parameters", &mut |model, ctx| model.parameters(ctx).map(|found| own = found))?;
        listen("receive", &mut |model, ctx| model.receive(&own.clone().into(), ctx).map(drop))?;
        listen("train", &mut |model, ctx| model.train(&self.tasks, FIRST, ctx).map(drop))?;
        listen("evaluate", &mut |model, ctx| model.evaluate(&self.tasks, ctx).map(drop))?;
        listen("send", &mut |model, ctx| model.send(ctx).map(drop))?;
        listen("state", &mut |model, ctx| model.state(ctx).map(drop))
    }

    fn memory(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let mut model = self.make(SEED)?;
        let mut global: Message = model.parameters(&ctx)?.into();
        let few = |table: &Table| table.select(&(0..table.rows().min(2)).collect::<Vec<_>>());
        let task = |task: &Task| Task { spec: task.spec.clone(), train: few(&task.train), test: few(&task.test) };
        let tasks: Vec<Task> = self.tasks.iter().take(1).map(task).collect();
        memory::does_not_grow(|| {
            model.receive(&global, &ctx)?;
            model.train(&tasks, FIRST, &ctx)?;
            model.evaluate(&tasks, &ctx)?;
            global.extra = model.send(&ctx)?.extra;
            model.state(&ctx).map(drop)
        })
    }
}
