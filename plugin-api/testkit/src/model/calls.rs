//! Checks each call of a model on ordinary input, each with a new instance.

use super::{ModelCheck, predictions};
use crate::folder::Folder;
use crate::subject::{OTHER_SEED, SEED};
use crate::verdict::{Found, Verdict, fail, skip};
use crate::watcher::Watcher;
use crate::{compare, verdict};
use plugin_api::{Epoch, Evaluation, Trained};

pub(super) const NAMES: [&str; 9] =
    ["parameters", "receive", "train", "evaluate", "send", "predict", "export", "state", "restore"];

/// The most optimiser steps per example.
const STEPS_AN_EXAMPLE: u64 = 1000;

const FIRST: Epoch = Epoch { round: 0, epoch: 0 };

impl ModelCheck {
    /// Runs the checks of single calls. Returns false if one failed.
    pub(super) fn calls(&self, verdict: &mut Verdict) -> bool {
        let [parameters, receive, train, evaluate, send, predict, export, state, restore] = NAMES;
        let all = [
            verdict.run(parameters, "the first global model is the parameters of the server's instance", || {
                self.parameters()
            }),
            verdict.run(receive, "each round begins with it", || self.receive()),
            verdict.run(train, "steps and examples are what aggregators weigh a client by", || self.train()),
            verdict.run(evaluate, "curves, tables and the choice of the best model come from it", || self.evaluate()),
            verdict.run(send, "a client's update with a NaN spoils the global model of all", || self.send()),
            verdict.run(predict, "a user's file would have a wrong prediction, or none, for a row", || self.predict()),
            verdict.run(export, "the run reports these files to the user", || self.export()),
            verdict.run(state, "a checkpoint contains it", || self.state()),
            verdict.run(restore, "an interrupted run resumes from it", || self.restore()),
        ];
        all.into_iter().all(|fine| fine)
    }

    fn parameters(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        let first = model.parameters(&ctx)?;
        if first.is_empty() {
            return fail("at least one tensor", "there is none");
        }
        if let Some(name) = compare::not_finite(&first.clone().into()) {
            return fail("finite numbers", format!("tensor `{name}` holds others"));
        }
        verdict::same("the same when it is asked twice", compare::params(&first, &model.parameters(&ctx)?))
    }

    fn receive(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        let own = model.parameters(&ctx)?;
        let received = model.receive(&own.into(), &ctx)?;
        if received.missing.is_empty() && received.unexpected.is_empty() {
            return Ok(());
        }
        fail("its own parameters to be neither missing nor unexpected", format!("{received:?}"))
    }

    fn train(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let Trained { steps, examples } = model.train(&self.tasks, FIRST, &self.ctx(&watcher, 0))?;
        let rows: u64 = self.tasks.iter().map(|task| task.train.rows() as u64).sum();
        let plausible = steps > 0 && examples > 0 && examples <= rows && steps / STEPS_AN_EXAMPLE <= examples;
        if rows == 0 || plausible {
            return Ok(());
        }
        let expected = format!("of {rows} rows, 1 to {rows} examples and 1 to {STEPS_AN_EXAMPLE} steps an example");
        fail(expected, format!("{steps} steps and {examples} examples"))
    }

    fn evaluate(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        model.train(&self.tasks, FIRST, &ctx)?;
        let found = model.evaluate(&self.tasks, &ctx)?;
        self.answered_each(&found)?;
        for (task, Evaluation { task: name, examples, loss, score, metrics }) in self.tasks.iter().zip(&found) {
            let rows = task.test.rows() as u64;
            if *examples != rows {
                return fail(
                    format!("task `{name}` to be evaluated on {rows} examples"),
                    format!("{examples} examples"),
                );
            }
            if rows > 0 && !(loss.is_finite() && score.is_finite()) {
                return fail(
                    format!("a finite loss and score of task `{name}`, which has data"),
                    format!("the loss {loss} and the score {score}"),
                );
            }
            let twice =
                |(k, metric): (usize, &plugin_api::Metric)| metrics[..k].iter().any(|other| other.name == metric.name);
            if metrics.iter().any(|metric| metric.name.is_empty()) || metrics.iter().enumerate().any(twice) {
                return fail("metrics with names, each once", format!("{metrics:?}"));
            }
        }
        Ok(())
    }

    /// Checks that there is one evaluation per task, in order.
    pub(super) fn answered_each(&self, found: &[Evaluation]) -> Found {
        let tasks: Vec<&str> = self.tasks.iter().map(|task| task.spec.name.as_str()).collect();
        let answered: Vec<&str> = found.iter().map(|evaluation| evaluation.task.as_str()).collect();
        if answered == tasks {
            return Ok(());
        }
        fail(format!("one evaluation for each of {tasks:?}, in this order"), format!("evaluations of {answered:?}"))
    }

    fn send(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        model.train(&self.tasks, FIRST, &ctx)?;
        let sent = model.send(&ctx)?;
        if let Some(name) = compare::not_finite(&sent) {
            return fail("finite numbers after an epoch on finite data", format!("tensor `{name}` holds others"));
        }
        // What one client sends, another must be able to receive: FedAvg of one client returns it unchanged.
        self.make(OTHER_SEED)?.receive(&sent, &ctx)?;
        Ok(())
    }

    fn predict(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        model.train(&self.tasks, FIRST, &ctx)?;
        for task in &self.tasks {
            let (name, rows) = (&task.spec.name, task.test.rows());
            let Some(found) = predictions(&mut *model, task, &ctx)? else { return skip("it does not predict") };
            if found.rows() != rows {
                return fail(
                    format!("{rows} predictions of task `{name}` for {rows} rows"),
                    format!("{} predictions", found.rows()),
                );
            }
            let numbers = found.columns().flat_map(|(_, column)| column.numbers());
            if let Some(number) = numbers.into_iter().find(|number| !number.is_finite()) {
                return fail("finite predictions of rows like those it was trained on", format!("{number}"));
            }
        }
        Ok(())
    }

    fn export(&self) -> Found {
        let (watcher, mut model, folder) = (Watcher::new(), self.make(SEED)?, Folder::new()?);
        let files = model.export(folder.path(), &self.ctx(&watcher, 0))?;
        match files.iter().find(|file| !folder.path().join(file).is_file()) {
            None => Ok(()),
            Some(file) => fail("the files that it names to be in the folder", format!("`{file}` is not there")),
        }
    }

    fn state(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        model.train(&self.tasks, FIRST, &ctx)?;
        let first = model.state(&ctx)?;
        verdict::same("the same when it is asked twice", compare::states(&first, &model.state(&ctx)?))
    }

    fn restore(&self) -> Found {
        let (watcher, mut model) = (Watcher::new(), self.make(SEED)?);
        let ctx = self.ctx(&watcher, 0);
        let state = model.state(&ctx)?;
        Ok(self.make(OTHER_SEED)?.restore(&state, &ctx)?)
    }
}
