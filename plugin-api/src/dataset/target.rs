//! What the targets of a task are.

use serde::{Deserialize, Serialize};

use crate::{Column, Error, Result, Table, TaskSpec};

/// The type of a task's target column. A later interface may add variants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TargetKind {
    /// One number per row.
    #[default]
    Number,
    /// One of these classes per row: its index in this list if the column holds integers, or its name if the column
    /// holds text. Of two classes, the second is the positive one.
    Class(Vec<String>),
    /// This many numbers per row, in a column of lists.
    Numbers(usize),
    /// Nothing: rows have inputs only, and [`TaskSpec::target`] is empty. For models that
    /// [learn without targets](crate::Component::learns_without_targets).
    None,
}

impl TargetKind {
    /// The classes, or nothing if the targets are numbers.
    pub fn classes(&self) -> Option<&[String]> {
        match self {
            Self::Class(classes) => Some(classes),
            Self::Number | Self::Numbers(_) | Self::None => None,
        }
    }
}

impl TaskSpec {
    /// The class of each row of a table, as an index in the task's list of [classes](TargetKind::Class).
    ///
    /// ```
    /// use plugin_api::{Column, Table, TargetKind, TaskSpec};
    ///
    /// let classes = ["no", "yes"].map(str::to_owned).to_vec();
    /// let spec = TaskSpec { target_kind: TargetKind::Class(classes), ..TaskSpec::new("binds", ["text"], "binds") };
    /// let table = Table::new().with("binds", Column::text(["yes", "no", "yes"]))?;
    /// assert_eq!(spec.class_indices(&table)?, [1, 0, 1]);
    /// # Ok::<(), plugin_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the task has no classes, the table lacks the target, or a row has none of the classes.
    pub fn class_indices(&self, table: &Table) -> Result<Vec<usize>> {
        let Some(classes) = self.target_kind.classes() else {
            return Err(Error::data(format!("the targets of task `{}` are numbers, not classes", self.name)));
        };
        let found: Vec<Option<usize>> = match table.column(&self.target) {
            Some(Column::Text(_)) => {
                let class = |name: &str| classes.iter().position(|class| class == name);
                table.text(&self.target)?.iter().map(class).collect()
            }
            _ => {
                let known = |&class: &usize| class < classes.len();
                let class = |&class: &i64| usize::try_from(class).ok().filter(known);
                table.i64(&self.target)?.iter().map(class).collect()
            }
        };
        let row = found.iter().position(Option::is_none);
        found.into_iter().collect::<Option<_>>().ok_or_else(|| {
            let row = row.map_or(0, |row| row + 1);
            let what = format!("column `{}`: row {row} has none of the classes of task `{}`", self.target, self.name);
            Error::data(what).help(format!("its classes: {}", classes.join(", ")))
        })
    }

    /// The number of values from which a model's prediction of a row is made: one logit for each class, or one number.
    ///
    /// # Errors
    /// If there are fewer than two classes; if the target is several numbers, of which no prediction is made here; or if
    /// there is no target.
    pub fn outputs(&self) -> Result<usize> {
        match &self.target_kind {
            TargetKind::Number => Ok(1),
            TargetKind::Class(classes) if classes.len() < 2 => {
                Err(Error::data(format!("task `{}` has fewer than two classes", self.name)))
            }
            TargetKind::Class(classes) => Ok(classes.len()),
            TargetKind::Numbers(_) => {
                let what = format!("the target of task `{}` is several numbers, which no model here learns", self.name);
                Err(Error::unsupported(what).help("make each of them a task"))
            }
            TargetKind::None => Err(Error::unsupported(format!("task `{}` has no target to predict", self.name))),
        }
    }

    /// The table that [`Model::predict`](crate::Model::predict) returns, from [`outputs`](Self::outputs) values for each
    /// row, row by row. Numbers stand as they are. The logits `z` of classes become probabilities, `exp zₖ / Σ exp z`, with
    /// one column for each class.
    ///
    /// # Errors
    /// If the target is several numbers, or there is none.
    pub fn predictions(&self, values: &[f32]) -> Result<Table> {
        let Some(classes) = self.target_kind.classes() else {
            return self.outputs().map(|_| Table::predicted(values));
        };
        let mut columns = vec![Vec::with_capacity(values.len() / classes.len().max(1)); classes.len()];
        for row in values.chunks_exact(classes.len().max(1)) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let odds: Vec<f64> = row.iter().map(|z| f64::from(z - largest).exp()).collect();
            let sum: f64 = odds.iter().sum();
            columns.iter_mut().zip(odds).for_each(|(column, odds)| column.push((odds / sum) as f32));
        }
        let with = |table: Table, (class, column): (&String, Vec<f32>)| table.with(class, Column::f32(&column));
        classes.iter().zip(columns).try_fold(Table::new(), with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_classes_by_name_or_by_index() {
        let classes = TargetKind::Class(vec!["a".to_owned(), "b".to_owned()]);
        let spec = TaskSpec { target_kind: classes, ..TaskSpec::new("t", ["x"], "y") };
        let of = |column| spec.class_indices(&Table::new().with("y", column).unwrap());
        assert_eq!(of(Column::text(["b", "a"])).unwrap(), [1, 0]);
        assert_eq!(of(Column::i64(&[0, 1, 1])).unwrap(), [0, 1, 1]);
        for column in [Column::text(["a", "c"]), Column::i64(&[0, 2]), Column::i64(&[1, -1])] {
            let error = of(column).unwrap_err();
            let told = "column `y`: row 2 has none of the classes of task `t`\nhint: its classes: a, b";
            assert_eq!(format!("{}\nhint: {}", error.message(), error.hint().unwrap_or_default()), told);
        }
        assert_eq!(of(Column::f32(&[1.0])).unwrap_err().message(), "column `y` holds f32, not i64");
        assert_eq!(spec.outputs().unwrap(), 2);
        let predicted = spec.predictions(&[0.0, 0.0, 1000.0, -1000.0, 0.0, 3.0_f32.ln()]).unwrap();
        assert_eq!(predicted.f32("b").unwrap(), [0.5, 0.0, 0.75]);
        assert_eq!(predicted.f32("a").unwrap(), [0.5, 1.0, 0.25]);
        let several = TaskSpec { target_kind: TargetKind::Numbers(2), ..spec.clone() };
        let none = TaskSpec { target_kind: TargetKind::None, ..spec.clone() };
        for spec in [&several, &none] {
            assert!(spec.outputs().is_err() && spec.predictions(&[1.0]).is_err());
        }
        let numbers = TaskSpec { target_kind: TargetKind::Number, ..spec.clone() };
        assert_eq!(numbers.predictions(&[4.0]).unwrap().f32(crate::PREDICTED).unwrap(), [4.0]);
        assert!(numbers.class_indices(&Table::new()).unwrap_err().message().contains("are numbers, not classes"));
    }
}
