//! Reads rows for prediction.

use std::path::Path;

use fedplug_tables::{DecimalMark, FastaColumns, NumberError, PredictionFile, parse_number};
use plugin_api::{Column, Result, Table};

use crate::config::{Config, Text};
use crate::task_plan::TaskPlan;

/// A file of rows for prediction, read row by row.
pub(crate) struct PredictionRows {
    file: PredictionFile,
    text: Text,
    decimal: DecimalMark,
    /// The names and indices of the text columns.
    texts: Vec<(String, usize)>,
    /// The names and indices of the number columns.
    numbers: Vec<(String, usize)>,
}

impl PredictionRows {
    /// Opens a file with the inputs of at least one task.
    ///
    /// # Errors
    /// If it cannot be read, lacks columns of every task, or has two of one name.
    pub(crate) fn open(path: &Path, plans: &[TaskPlan], config: &Config) -> Result<Self> {
        let all = |of: fn(&TaskPlan) -> &[String]| {
            let mut names: Vec<&str> = Vec::new();
            for name in plans.iter().flat_map(of) {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            names
        };
        let (texts, numbers) = (all(|plan| &plan.texts), all(|plan| &plan.numbers));
        let known = [&texts[..], &numbers[..]].concat();
        let fasta = FastaColumns::of_columns(&texts).filter(|_| numbers.is_empty());
        let file = PredictionFile::open(path, config.delimiter, &known, &config.predict_columns, fasta)?;
        let whole = |plan: &&TaskPlan| plan.texts.iter().chain(&plan.numbers).all(|name| file.position(name).is_some());
        let held: Vec<&String> =
            plans.iter().filter(whole).flat_map(|plan| plan.texts.iter().chain(&plan.numbers)).collect();
        if held.is_empty() {
            return Err(file.missing_columns(&known));
        }
        let columns = |names: &[&str]| -> Vec<(String, usize)> {
            let held = names.iter().filter(|name| held.iter().any(|held| held == *name));
            held.filter_map(|name| Some(((*name).to_owned(), file.position(name)?))).collect()
        };
        let (texts, numbers) = (columns(&texts), columns(&numbers));
        file.check_unique(texts.iter().chain(&numbers).map(|(_, column)| *column))?;
        Ok(Self { file, text: config.text, decimal: config.decimal, texts, numbers })
    }

    /// The next rows, at most this many.
    ///
    /// # Errors
    /// If a row cannot be predicted.
    pub(crate) fn next(&mut self, at_most: u64) -> Result<Table> {
        let mut texts = vec![Vec::new(); self.texts.len()];
        let mut numbers = vec![Vec::new(); self.numbers.len()];
        for _ in 0..at_most {
            let Some(row) = self.file.next_row()? else { break };
            let file = &self.file;
            for (values, (_, column)) in texts.iter_mut().zip(&self.texts) {
                let text = self.text.of(&row[*column]).ok_or_else(|| file.missing_value(&row, *column))?;
                values.push(text.into_owned());
            }
            for (values, (name, column)) in numbers.iter_mut().zip(&self.numbers) {
                let value = parse_number(&row[*column], self.decimal).map_err(|error| match error {
                    NumberError::Missing => file.missing_value(&row, *column),
                    error => file.row_error(&row, error.reason(name, self.decimal)),
                });
                values.push(value?);
            }
        }
        let mut table = Table::new();
        for ((name, _), texts) in self.texts.iter().zip(&texts) {
            table = table.with(name, Column::text(texts))?;
        }
        for ((name, _), numbers) in self.numbers.iter().zip(&numbers) {
            table = table.with(name, Column::f32(numbers))?;
        }
        self.file.with_original_cells(table)
    }
}
