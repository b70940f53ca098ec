//! A model's evaluation at a client: on the test rows, and on the rows for validation if there are any.
//!
//! A dataset may mark training rows for validation. They are taken out of the training tables here, once, before any model
//! sees them. The best model and early stopping then go by them, so that the numbers of the test rows are those of a model
//! that was not chosen by them.

use plugin_api::{ClientSpec, Evaluation, Result, Table, Task, VALIDATION};
use serde::{Deserialize, Serialize};

use crate::federation::exact;

/// A model's evaluation at a client, one for each task.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ModelEvaluation {
    /// On the test rows.
    #[serde(with = "exact")]
    pub test: Vec<Evaluation>,
    /// On the rows for validation, for the tasks that have some.
    #[serde(with = "exact", default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<Evaluation>,
}

impl ModelEvaluation {
    /// The evaluations with the names of their rows, as in tags.
    pub(crate) fn named(&self) -> [(&'static str, &[Evaluation]); 2] {
        [("test", &self.test), ("validation", &self.validation)]
    }
}

impl From<Vec<Evaluation>> for ModelEvaluation {
    fn from(test: Vec<Evaluation>) -> Self {
        Self { test, validation: Vec::new() }
    }
}

/// A client's tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTasks {
    /// Those to train on and to test.
    pub all: Vec<Task>,
    /// Those with rows for validation, each with these rows as its test table.
    pub validation: Vec<Task>,
}

impl ClientTasks {
    /// Takes the rows for validation out of the training tables.
    ///
    /// # Errors
    /// If the column that marks them holds no booleans.
    pub(crate) fn new(loaded: Vec<Task>) -> Result<Self> {
        let mut tasks = Self::default();
        for task in loaded {
            let rows = task.validation_rows()?;
            let Task { spec, train, test } = task;
            let all = train.without(VALIDATION);
            let mut marked = vec![false; all.rows()];
            rows.iter().for_each(|&row| marked[row] = true);
            let rest: Vec<usize> = (0..all.rows()).filter(|&row| !marked[row]).collect();
            let train = if rows.is_empty() { all.clone() } else { all.select(&rest) };
            if !rows.is_empty() {
                let (spec, train, test) = (spec.clone(), train.clone(), all.select(&rows));
                tasks.validation.push(Task { spec, train, test });
            }
            tasks.all.push(Task { spec, train, test: without_marks(test) });
        }
        Ok(tasks)
    }
}

fn without_marks(table: Table) -> Table {
    if table.column(VALIDATION).is_some() { table.without(VALIDATION) } else { table }
}

/// How far the clients have rows for validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    /// There are none.
    None,
    /// All that evaluate have some, of every task that one of them tests: the best model goes by them.
    Whole,
    /// These clients or tasks lack some, so the best model goes by the test rows.
    Lacking(String),
}

impl Validation {
    /// Of these clients, which evaluate every round's model.
    pub(crate) fn of<'c>(evaluators: impl Iterator<Item = &'c ClientSpec> + Clone) -> Self {
        let rows = |client: &ClientSpec| client.tasks.iter().map(|task| task.validation).sum::<usize>();
        if evaluators.clone().all(|client| rows(client) == 0) {
            return Self::None;
        }
        if let Some(client) = evaluators.clone().find(|client| rows(client) == 0) {
            return Self::Lacking(format!("client `{}` has", client.name));
        }
        let tasks = || evaluators.clone().flat_map(|client| &client.tasks);
        let has = |name: &str| tasks().any(|task| task.name == name && task.validation > 0);
        match tasks().find(|task| task.test > 0 && !has(&task.name)) {
            Some(task) => Self::Lacking(format!("task `{}` has", task.name)),
            None => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::{ClientTask, Column, TaskSpec};

    use super::*;

    fn table(values: &[f32]) -> Table {
        Table::new().with("y", Column::f32(values)).unwrap()
    }

    #[test]
    fn marked_rows_are_taken_out_and_the_mark_with_them() {
        let marked = table(&[0.0, 1.0, 2.0, 3.0]).with(VALIDATION, Column::bool(&[false, true, false, true])).unwrap();
        let unmarked = table(&[5.0]).with(VALIDATION, Column::bool(&[false])).unwrap();
        let task =
            |name: &str, train: Table| Task { spec: TaskSpec::new(name, ["x"], "y"), train, test: table(&[9.0]) };
        let tasks = ClientTasks::new(vec![task("a", marked), task("b", unmarked), task("c", table(&[7.0]))]).unwrap();
        let shown = |tasks: &[Task]| {
            let of = |task: &Task| {
                let tables = [&task.train, &task.test];
                assert!(tables.iter().all(|table| table.columns().len() == 1));
                (task.spec.name.clone(), tables.map(|table| table.f32("y").unwrap().to_vec()))
            };
            tasks.iter().map(of).collect::<Vec<_>>()
        };
        let row = |name: &str, train: &[f32], test: &[f32]| (name.to_owned(), [train.to_vec(), test.to_vec()]);
        let wanted = [row("a", &[0.0, 2.0], &[9.0]), row("b", &[5.0], &[9.0]), row("c", &[7.0], &[9.0])];
        assert_eq!(shown(&tasks.all), wanted);
        assert_eq!(shown(&tasks.validation), [row("a", &[0.0, 2.0], &[1.0, 3.0])]);
        let wrong = table(&[1.0]).with(VALIDATION, Column::f32(&[1.0])).unwrap();
        assert!(ClientTasks::new(vec![task("a", wrong)]).is_err());
    }

    #[test]
    fn the_best_model_goes_by_validation_rows_if_all_that_evaluate_have_some() {
        let client = |name: &str, tasks: &[(&str, usize, usize)]| {
            let task = |&(name, test, validation): &(&str, usize, usize)| ClientTask {
                name: name.to_owned(),
                train: 1,
                test,
                validation,
            };
            ClientSpec { name: name.to_owned(), tasks: tasks.iter().map(task).collect() }
        };
        let of = |clients: &[ClientSpec]| Validation::of(clients.iter());
        assert_eq!(of(&[client("a", &[("t", 1, 0)]), client("b", &[("t", 1, 0)])]), Validation::None);
        assert_eq!(of(&[client("a", &[("t", 1, 2)]), client("b", &[("t", 1, 1)])]), Validation::Whole);
        // A task without test rows needs none, and another client's rows do for a task.
        let both = [client("a", &[("t", 1, 2), ("u", 0, 0)]), client("b", &[("t", 1, 0), ("v", 1, 1)])];
        assert_eq!(of(&both), Validation::Whole);
        let lacking = of(&[client("a", &[("t", 1, 2)]), client("b", &[("t", 1, 0)])]);
        assert_eq!(lacking, Validation::Lacking("client `b` has".to_owned()));
        let lacking = of(&[client("a", &[("t", 1, 2), ("u", 1, 0)])]);
        assert_eq!(lacking, Validation::Lacking("task `u` has".to_owned()));
    }
}
