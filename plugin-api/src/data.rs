//! Tables of typed columns, which dataset plugins return and model plugins read.

mod column;
mod rows;

pub use column::{Column, NullableColumn};
pub use rows::{BytesColumn, ListColumn, TextColumn};

use crate::{Error, Result};

/// The column of [`Model::predict`](crate::Model::predict) that holds the predicted numbers.
pub const PREDICTED: &str = "predicted";

/// The column of [`Model::predict`](crate::Model::predict) that holds the model's estimate of each prediction's
/// standard deviation.
pub const DEVIATION: &str = "deviation";

/// Named columns of equal length.
///
/// ```
/// use plugin_api::{Column, Table};
///
/// let table = Table::new()
///     .with("combined", Column::text(["EVQ|DIQ", "QVQ|EIV"]))?
///     .with("fitness", Column::f32(&[1.5, 2.0]))?;
/// assert_eq!(table.rows(), 2);
/// assert_eq!(table.f32("fitness")?, [1.5, 2.0]);
/// assert_eq!(table.select(&[1]).text("combined")?.get(0), "QVQ|EIV");
/// # Ok::<(), plugin_api::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(String, Column)>,
}

impl Table {
    /// A table without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// A table with one column of predictions, [`PREDICTED`].
    pub fn predicted(numbers: &[f32]) -> Self {
        Self { columns: vec![(PREDICTED.to_owned(), Column::f32(numbers))] }
    }

    /// Adds a column.
    ///
    /// # Errors
    /// If the name is taken, the length differs from that of the other columns, or the column's memory does not hold
    /// whole rows of its type.
    pub fn with(mut self, name: impl Into<String>, column: Column) -> Result<Self> {
        let name = name.into();
        column.check().map_err(|e| Error::data(format!("column `{name}`: {}", e.message())))?;
        if self.column(&name).is_some() {
            return Err(Error::data(format!("two columns are named `{name}`")));
        }
        if !self.columns.is_empty() && column.len() != self.rows() {
            return Err(Error::data(format!(
                "column `{name}` has {} rows, but the others have {}",
                column.len(),
                self.rows()
            )));
        }
        self.columns.push((name, column));
        Ok(self)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }

    /// The names and columns, in order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, column)| column)
    }

    /// The text column of this name.
    ///
    /// # Errors
    /// If there is no such column, or it has another type.
    pub fn text(&self, name: &str) -> Result<&TextColumn> {
        match self.wanted(name)? {
            Column::Text(column) => Ok(column),
            other => Err(wrong_type(name, "text", other)),
        }
    }

    /// The values of a column of 32-bit floats.
    ///
    /// # Errors
    /// If there is no such column, or it has another type.
    pub fn f32(&self, name: &str) -> Result<&[f32]> {
        match self.wanted(name)? {
            Column::F32(buffer) => Ok(buffer.cast()),
            other => Err(wrong_type(name, "f32", other)),
        }
    }

    /// The values of a column of 64-bit integers.
    ///
    /// # Errors
    /// If there is no such column, or it has another type.
    pub fn i64(&self, name: &str) -> Result<&[i64]> {
        match self.wanted(name)? {
            Column::I64(buffer) => Ok(buffer.cast()),
            other => Err(wrong_type(name, "i64", other)),
        }
    }

    /// The values of a column of 64-bit floats.
    ///
    /// # Errors
    /// If there is no such column, or it has another type.
    pub fn f64(&self, name: &str) -> Result<&[f64]> {
        match self.wanted(name)? {
            Column::F64(buffer) => Ok(buffer.cast()),
            other => Err(wrong_type(name, "f64", other)),
        }
    }

    /// The values of a column of booleans, each 0 or 1.
    ///
    /// # Errors
    /// If there is no such column, or it has another type.
    pub fn bool(&self, name: &str) -> Result<&[u8]> {
        match self.wanted(name)? {
            Column::Bool(buffer) => Ok(buffer.as_slice()),
            other => Err(wrong_type(name, "bool", other)),
        }
    }

    /// The table without a column, if it has one of this name. The other columns are shared, not copied.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self { columns: self.columns.iter().filter(|(other, _)| other != name).cloned().collect() }
    }

    /// A table of the rows at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`rows`](Self::rows).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        Self { columns: self.columns.iter().map(|(name, column)| (name.clone(), column.select(indices))).collect() }
    }

    fn wanted(&self, name: &str) -> Result<&Column> {
        self.column(name).ok_or_else(|| {
            let known: Vec<_> = self.columns().map(|(name, _)| format!("`{name}`")).collect();
            Error::data(format!("the table has no column `{name}`")).help(format!("its columns: {}", known.join(", ")))
        })
    }
}

fn wrong_type(name: &str, wanted: &str, column: &Column) -> Error {
    Error::data(format!("column `{name}` holds {}, not {wanted}", column.kind()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Buffer;

    /// A column of each type, with two rows each.
    pub(crate) fn all() -> Vec<(&'static str, Column)> {
        let lists = ListColumn::new([2, 0], Column::f64(&[0.5, f64::NAN])).unwrap();
        vec![
            ("text", Column::text(["ä", ""])),
            ("f32", Column::f32(&[1.0, f32::NAN])),
            ("i64", Column::i64(&[i64::MIN, 7])),
            ("f64", Column::f64(&[1.0, -0.0])),
            ("bool", Column::bool(&[true, false])),
            ("bytes", Column::bytes([&[0_u8, 255][..], &[]])),
            ("lists", Column::List(lists)),
            ("nulls", Column::f64(&[3.0, 4.0]).with_nulls(Buffer::copy_of(&[0_u8, 1])).unwrap()),
        ]
    }

    #[test]
    fn columns_of_every_type_select_rows_and_tell_numbers() {
        for (name, column) in all() {
            assert_eq!(column.len(), 2, "{name}");
            let swapped = column.select(&[1, 0, 1]);
            assert_eq!((swapped.len(), swapped.kind()), (3, column.kind()));
            let back = swapped.select(&[1, 0]);
            assert!(back.is_equal(&column) && !swapped.is_equal(&column), "{name}");
            if let (Column::List(back), Column::List(lists)) = (&back, &column) {
                assert_eq!((back.range(0), back.range(1), lists.range(0)), (0..2, 2..2, 0..2));
            }
        }
        let nulls = &all()[7].1;
        assert!(nulls.numbers()[0].is_nan() && nulls.numbers()[1] == 4.0);
        let table = Table::new().with("y", nulls.clone()).unwrap();
        assert_eq!(table.f64("y").unwrap_err().to_string(), "column `y` holds rows without a value, not f64");
    }

    #[test]
    fn memory_that_is_no_column_is_refused_with_its_name() {
        let odd = Buffer::copy_of(&[7_u8; 9]);
        let columns = [Column::F32(odd.clone()), Column::I64(odd.clone()), Column::F64(odd.clone()), Column::Bool(odd)];
        for column in columns {
            let told = format!("are no column of {}", column.kind());
            let error = Table::new().with("x", column).unwrap_err();
            assert!(
                error.message().starts_with("column `x`: 9 bytes at ") && error.message().ends_with(&told),
                "{error}"
            );
        }
        assert!(ListColumn::new([1, 1], Column::i64(&[1])).is_err());
        assert!(Column::i64(&[1]).with_nulls(Buffer::copy_of(&[1_u8, 1])).is_err());
        assert!(BytesColumn::from_parts(Buffer::copy_of(&[3_i64]), Buffer::copy_of(&[0_u8; 2])).is_err());
    }
}
