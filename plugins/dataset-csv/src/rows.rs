//! Rows to be predicted.

use std::path::Path;

use fedplug_tables::{Decimal, RowFile, number, quoted};
use plugin_api::{Column, Error, Result, Table};

use crate::config::{Config, Text};
use crate::plan::Plan;

/// A file of rows, read so far.
pub(crate) struct Rows {
    file: RowFile,
    text: Text,
    decimal: Decimal,
    /// The columns of text with their names and places.
    texts: Vec<(String, usize)>,
    /// The columns of numbers.
    numbers: Vec<(String, usize)>,
}

impl Rows {
    /// Begins to read a file, which has the inputs of one task at least.
    pub(crate) fn open(path: &Path, plans: &[Plan], config: &Config) -> Result<Self> {
        let file = RowFile::open(path, config.delimiter)?;
        let whole = |plan: &Plan| plan.texts.iter().chain(&plan.numbers).all(|name| file.place(name).is_some());
        if !plans.iter().any(whole) {
            let mut missing: Vec<&String> =
                plans.iter().flat_map(|plan| plan.texts.iter().chain(&plan.numbers)).collect();
            missing.retain(|name| file.place(name).is_none());
            missing.sort_unstable();
            missing.dedup();
            let error = file.at_header(Error::data(format!("has no column {}", quoted(&missing))));
            return Err(error.help(format!("its columns: {}", quoted(file.names()))));
        }
        let places = |names: &dyn Fn(&Plan) -> Vec<String>| {
            let mut places: Vec<(String, usize)> = Vec::new();
            for name in plans.iter().filter(|plan| whole(plan)).flat_map(names) {
                if let Some(place) = file.place(&name).filter(|_| places.iter().all(|(other, _)| *other != name)) {
                    places.push((name, place));
                }
            }
            places
        };
        let (texts, numbers) = (places(&|plan| plan.texts.clone()), places(&|plan| plan.numbers.clone()));
        Ok(Self { file, text: config.text, decimal: config.decimal, texts, numbers })
    }

    /// The next rows, `at_most` so many.
    pub(crate) fn next(&mut self, at_most: u64) -> Result<Table> {
        let mut texts = vec![Vec::new(); self.texts.len()];
        let mut numbers = vec![Vec::new(); self.numbers.len()];
        for _ in 0..at_most {
            let Some(row) = self.file.next_row()? else { break };
            let bad = |what: String| {
                let help = "every row is predicted, so every row needs it; take the others out of the file";
                self.file.at_row(&row, Error::data(what)).help(help)
            };
            let field = |place: usize| row.get(place).unwrap_or_default();
            for (column, (name, place)) in texts.iter_mut().zip(&self.texts) {
                let text = self.text.of(field(*place)).ok_or_else(|| bad(format!("no `{name}`")))?;
                column.push(text.into_owned());
            }
            for (column, (name, place)) in numbers.iter_mut().zip(&self.numbers) {
                let value = number(field(*place), self.decimal).map_err(|lack| bad(lack.reason(name, self.decimal)))?;
                column.push(value);
            }
        }
        let mut table = Table::new();
        for ((name, _), texts) in self.texts.iter().zip(&texts) {
            table = table.with(name, Column::text(texts))?;
        }
        for ((name, _), numbers) in self.numbers.iter().zip(&numbers) {
            table = table.with(name, Column::f32(numbers))?;
        }
        Ok(table)
    }
}
