//! Checks of what a run relies on beyond single calls.

use super::ModelCheck;
use crate::sample::{altered, reshaped, retyped, spoilt};
use crate::subject::{OTHER_SEED, SEED};
use crate::verdict::{Found, Verdict, fail, no_panic, refused, same, skip, tells_of};
use crate::watcher::Watcher;
use crate::{compare, memory, states};
use plugin_api::{Column, Context, Epoch, Message, Model, Params, Result, State, Table, Task, Tensor};

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

const FIRST: Epoch = Epoch { round: 0, epoch: 0 };

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
    fn message(&self, ctx: &Context<'_>) -> Result<Params> {
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

    fn missing_tensors(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let mut model = self.make(SEED)?;
        let own = model.parameters(&ctx)?;
        let strange: Params = [("no such tensor", Tensor::from_slice(&[1], &[1.0_f32])?)].into_iter().collect();
        let received = model.receive(&strange.into(), &ctx)?;
        let mut missing: Vec<&str> = received.missing.iter().map(String::as_str).collect();
        let mut names: Vec<&str> = own.names().collect();
        missing.sort_unstable();
        names.sort_unstable();
        if missing != names || received.unexpected != ["no such tensor"] {
            let expected = "all of its own to be reported as missing, and `no such tensor` as unexpected";
            return fail(expected, format!("{received:?}"));
        }
        same("missing parameters to stay unchanged", compare::params(&own, &model.parameters(&ctx)?))
    }

    /// A message in which all tensors are new and one does not fit.
    fn misfit(&self, bend: fn(&Tensor) -> Result<Tensor>, what: &str) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let given = self.message(&ctx)?;
        let names: Vec<&str> = given.names().collect();
        for name in [names.first(), names.last()].into_iter().flatten() {
            let mut model = self.make(SEED)?;
            let before = model.parameters(&ctx)?;
            let mut bad = given.clone();
            if let Some(tensor) = given.get(name) {
                bad.insert(*name, bend(tensor)?);
            }
            let expected = format!("an error that names `{name}`, which has another {what}");
            let error = refused(&expected, model.receive(&bad.into(), &ctx))?;
            if !tells_of(&error, name) {
                return fail(expected, crate::verdict::told(&error));
            }
            same("rejected input to change nothing", compare::params(&before, &model.parameters(&ctx)?))?;
        }
        Ok(())
    }

    fn held_tasks(&self) -> Found {
        let [first, _, ..] = &self.tasks[..] else { return skip("it takes data of two tasks") };
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let global = self.make(SEED)?.parameters(&ctx)?;
        let mut model = self.make_for(&self.setup.holding(vec![first.spec.name.clone()]), SEED)?;
        let tasks = std::slice::from_ref(first);
        model.receive(&global.into(), &ctx)?;
        model.train(tasks, FIRST, &ctx)?;
        match model.evaluate(tasks, &ctx)?.len() {
            1 => Ok(()),
            n => fail("one evaluation for the only task given", format!("{n}")),
        }
    }

    fn unknown_task(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let Some(task) = self.tasks.first() else { return skip("there is no task") };
        refused(
            "an error for a task that the experiment does not have",
            self.make(SEED)?.predict("no such task", &task.test, &ctx),
        )
        .map(drop)
    }

    fn missing_column(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let bare = |table: &Table| Table::new().with("no such column", Column::f32(&vec![1.0; table.rows()]));
        let task = |task: &Task| -> Result<Task> {
            Ok(Task { spec: task.spec.clone(), train: bare(&task.train)?, test: bare(&task.test)? })
        };
        let tasks = self.tasks.iter().map(task).collect::<Result<Vec<_>>>()?;
        let expected = |call: &str| format!("`{call}` to return an error where the columns of a task are missing");
        refused(&expected("train"), self.make(SEED)?.train(&tasks, FIRST, &ctx))?;
        refused(&expected("evaluate"), self.make(SEED)?.evaluate(&tasks, &ctx))?;
        for task in &tasks {
            refused(&expected("predict"), self.make(SEED)?.predict(&task.spec.name, &task.test, &ctx))?;
        }
        Ok(())
    }

    fn empty_tables(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let (mut model, tasks) = (self.make(SEED)?, self.empty_tasks());
        let trained = model.train(&tasks, FIRST, &ctx)?;
        if trained.examples != 0 {
            return fail("no example seen of tables without rows", format!("{trained:?}"));
        }
        let found = model.evaluate(&tasks, &ctx)?;
        self.answered_each(&found)?;
        if let Some(evaluation) = found.iter().find(|evaluation| evaluation.examples != 0) {
            return fail("evaluations on 0 examples", format!("{evaluation:?}"));
        }
        for task in &tasks {
            let found = model.predict(&task.spec.name, &task.test, &ctx)?.rows();
            if found != 0 {
                return fail("no prediction for no row", format!("{found} predictions"));
            }
        }
        model.train(&[], FIRST, &ctx)?;
        model.evaluate(&[], &ctx)?;
        Ok(())
    }

    fn odd_rows(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN_POSITIVE];
        let odd = |table: &Table| -> Result<Table> {
            let rows: Vec<usize> = (0..table.rows()).collect();
            let column = |column: &Column| match column {
                Column::F32(_) => Column::f32(&rows.iter().map(|&i| numbers[i % numbers.len()]).collect::<Vec<_>>()),
                Column::I64(_) => {
                    Column::i64(&rows.iter().map(|&i| [i64::MIN, i64::MAX, 0][i % 3]).collect::<Vec<_>>())
                }
                Column::F64(_) => {
                    Column::f64(&rows.iter().map(|&i| numbers[i % numbers.len()].into()).collect::<Vec<_>>())
                }
                Column::Text(_) => {
                    let texts = ["", " ", "äöü \u{1F9EC}", "\0", "||||", "0123-*.\n", &"A".repeat(300)];
                    Column::text(rows.iter().map(|&i| texts[i % texts.len()]))
                }
                other => other.clone(),
            };
            table.columns().try_fold(Table::new(), |odd, (name, old)| odd.with(name, column(old)))
        };
        let task = |task: &Task| -> Result<Task> {
            Ok(Task { spec: task.spec.clone(), train: odd(&task.train)?, test: odd(&task.test)? })
        };
        let tasks = self.tasks.iter().map(task).collect::<Result<Vec<_>>>()?;
        let expected = "a result or an error, but no panic, for NaN, infinity and odd texts";
        let mut model = self.make(SEED)?;
        no_panic(expected, model.evaluate(&tasks, &ctx))?;
        for task in &tasks {
            no_panic(expected, model.predict(&task.spec.name, &task.test, &ctx))?;
        }
        no_panic(expected, model.train(&tasks, FIRST, &ctx))?;
        no_panic(expected, model.evaluate(&self.tasks, &ctx))?;
        no_panic(expected, model.send(&ctx)).map(drop)
    }

    fn non_finite(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let own = self.make(SEED)?.parameters(&ctx)?;
        for value in [f32::NAN, f32::INFINITY] {
            let mut model = self.make(SEED)?;
            let spoil = |(name, tensor): (&str, &Tensor)| -> Result<(String, Tensor)> {
                Ok((name.to_owned(), if tensor.is_float() { spoilt(tensor, value)? } else { tensor.clone() }))
            };
            let spoilt = own.iter().map(spoil).collect::<Result<Params>>()?;
            let expected = format!("a result or an error, but no panic, for parameters with {value}");
            if no_panic(&expected, model.receive(&spoilt.into(), &ctx))?.is_none() {
                continue;
            }
            if let Some(found) = no_panic(&expected, model.evaluate(&self.tasks, &ctx))? {
                self.answered_each(&found)?;
            }
            no_panic(&expected, model.train(&self.tasks, FIRST, &ctx))?;
            no_panic(&expected, model.send(&ctx))?;
        }
        Ok(())
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
