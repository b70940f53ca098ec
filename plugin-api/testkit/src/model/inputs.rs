//! Checks with messages that do not fit, and with data that is missing, empty or odd.

use super::behaviour::FIRST;
use super::{ModelCheck, predictions};
use crate::compare;
use crate::sample::spoilt;
use crate::subject::SEED;
use crate::verdict::{Found, fail, no_panic, refused, same, skip, tells_of};
use crate::watcher::Watcher;
use plugin_api::{Column, Params, Result, Table, Task, Tensor};

impl ModelCheck {
    pub(super) fn missing_tensors(&self) -> Found {
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
    pub(super) fn misfit(&self, bend: fn(&Tensor) -> Result<Tensor>, what: &str) -> Found {
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

    pub(super) fn held_tasks(&self) -> Found {
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

    pub(super) fn unknown_task(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, 0);
        let Some(task) = self.tasks.first() else { return skip("there is no task") };
        refused(
            "an error for a task that the experiment does not have",
            self.make(SEED)?.predict("no such task", &task.test, &ctx),
        )
        .map(drop)
    }

    pub(super) fn missing_column(&self) -> Found {
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

    pub(super) fn empty_tables(&self) -> Found {
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
            let found = predictions(&mut *model, task, &ctx)?.map_or(0, |found| found.rows());
            if found != 0 {
                return fail("no prediction for no row", format!("{found} predictions"));
            }
        }
        model.train(&[], FIRST, &ctx)?;
        model.evaluate(&[], &ctx)?;
        Ok(())
    }

    pub(super) fn odd_rows(&self) -> Found {
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

    pub(super) fn non_finite(&self) -> Found {
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
}
