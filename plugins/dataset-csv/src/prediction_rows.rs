//! PredictionRows to be predicted.

use std::path::Path;

use fedplug_tables::{DecimalMark, FastaColumns, NumberError, PredictionFile, parse_number};
use plugin_api::{Column, Result, Table};

use crate::config::{Config, Text};
use crate::task_plan::TaskPlan;

/// A file of rows, read so far.
pub(crate) struct PredictionRows {
    file: PredictionFile,
    text: Text,
    decimal: DecimalMark,
    /// The columns of text with their names and places.
    texts: Vec<(String, usize)>,
    /// The columns of numbers.
    numbers: Vec<(String, usize)>,
}

impl PredictionRows {
    /// Begins to read a file, which has the inputs of one task at least.
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
        let places = |names: &[&str]| {
            let held = names.iter().filter(|name| held.iter().any(|held| held == *name));
            held.filter_map(|name| Some(((*name).to_owned(), file.position(name)?))).collect()
        };
        let (texts, numbers) = (places(&texts), places(&numbers));
        Ok(Self { file, text: config.text, decimal: config.decimal, texts, numbers })
    }

    /// The next rows, `at_most` so many.
    pub(crate) fn next(&mut self, at_most: u64) -> Result<Table> {
        let mut texts = vec![Vec::new(); self.texts.len()];
        let mut numbers = vec![Vec::new(); self.numbers.len()];
        for _ in 0..at_most {
            let Some(row) = self.file.next_row()? else { break };
            let file = &self.file;
            for (column, (_, place)) in texts.iter_mut().zip(&self.texts) {
                let text = self.text.of(&row[*place]).ok_or_else(|| file.missing_value(&row, *place))?;
                column.push(text.into_owned());
            }
            for (column, (name, place)) in numbers.iter_mut().zip(&self.numbers) {
                let value = parse_number(&row[*place], self.decimal).map_err(|lack| match lack {
                    NumberError::Missing => file.missing_value(&row, *place),
                    lack => file.row_error(&row, lack.reason(name, self.decimal)),
                });
                column.push(value?);
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
