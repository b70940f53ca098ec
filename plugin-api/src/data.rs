//! Tables of typed columns: what a dataset plugin hands out and a model plugin reads.

use crate::abi::Buffer;
use crate::{Error, Result};

/// A column of a [`Table`]. Columns share their memory: a clone copies nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Column {
    /// UTF-8 text.
    Text(TextColumn),
    /// 32-bit floats.
    F32(Buffer),
    /// 64-bit integers.
    I64(Buffer),
}

impl Column {
    /// A column of texts.
    pub fn text<S: AsRef<str>>(rows: impl IntoIterator<Item = S>) -> Self {
        Self::Text(TextColumn::new(rows))
    }

    /// A column of floats.
    pub fn f32(rows: &[f32]) -> Self {
        Self::F32(Buffer::copy_of(rows))
    }

    /// A column of integers.
    pub fn i64(rows: &[i64]) -> Self {
        Self::I64(Buffer::copy_of(rows))
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(column) => column.len(),
            Self::F32(buffer) => buffer.len() / size_of::<f32>(),
            Self::I64(buffer) => buffer.len() / size_of::<i64>(),
        }
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column of the rows at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        match self {
            Self::Text(column) => Self::text(indices.iter().map(|&i| column.get(i))),
            Self::F32(buffer) => {
                let all: &[f32] = buffer.cast();
                Self::f32(&indices.iter().map(|&i| all[i]).collect::<Vec<_>>())
            }
            Self::I64(buffer) => {
                let all: &[i64] = buffer.cast();
                Self::i64(&indices.iter().map(|&i| all[i]).collect::<Vec<_>>())
            }
        }
    }

    /// The numbers of a column of numbers; none of a column of texts.
    pub fn numbers(&self) -> Vec<f64> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::F32(buffer) => buffer.cast::<f32>().iter().map(|&x| x.into()).collect(),
            Self::I64(buffer) => buffer.cast::<i64>().iter().map(|&x| x as f64).collect(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::F32(_) => "f32",
            Self::I64(_) => "i64",
        }
    }
}

/// Texts in one piece of memory: the bytes of all rows, and the place where each row ends.
#[derive(Clone, Debug)]
pub struct TextColumn {
    ends: Buffer,
    bytes: Buffer,
}

impl TextColumn {
    /// Copies the rows into one column.
    pub fn new<S: AsRef<str>>(rows: impl IntoIterator<Item = S>) -> Self {
        let (mut ends, mut bytes) = (Vec::new(), Vec::new());
        for row in rows {
            bytes.extend_from_slice(row.as_ref().as_bytes());
            ends.push(bytes.len() as i64);
        }
        Self { ends: Buffer::copy_of(&ends), bytes: Buffer::copy_of(&bytes) }
    }

    /// Checks memory that came from elsewhere.
    pub(crate) fn from_parts(ends: Buffer, bytes: Buffer) -> Result<Self> {
        let wrong = |what: &str| Error::data(format!("a text column {what}"));
        let text = std::str::from_utf8(bytes.as_slice()).map_err(|e| wrong("is not UTF-8").because(&e))?;
        let mut last = 0;
        for &end in ends.try_cast::<i64>().ok_or_else(|| wrong("has row ends that are not 64-bit integers"))? {
            let end = usize::try_from(end).map_err(|_| wrong("has a row that ends before its start"))?;
            if end < last || end > text.len() || !text.is_char_boundary(end) {
                return Err(wrong("has a row that ends before its start, inside a character or past its bytes"));
            }
            last = end;
        }
        Ok(Self { ends, bytes })
    }

    pub(crate) fn parts(&self) -> (&Buffer, &Buffer) {
        (&self.ends, &self.bytes)
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.ends.len() / size_of::<i64>()
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text of one row.
    ///
    /// # Panics
    /// If `row` is not below [`len`](Self::len).
    pub fn get(&self, row: usize) -> &str {
        let ends: &[i64] = self.ends.cast();
        let start = if row == 0 { 0 } else { ends[row - 1] as usize };
        std::str::from_utf8(&self.bytes.as_slice()[start..ends[row] as usize])
            .expect("checked when the column was made")
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Whether the two are the same memory: a cheap key for what was computed from a column.
    pub fn is_same(&self, other: &Self) -> bool {
        self.ends.is_same(&other.ends) && self.bytes.is_same(&other.bytes)
    }
}

/// Named columns of one length.
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

    /// Adds a column.
    ///
    /// # Errors
    /// If the name is taken, or the length is not that of the columns before.
    pub fn with(mut self, name: impl Into<String>, column: Column) -> Result<Self> {
        let name = name.into();
        if self.column(&name).is_some() {
            return Err(Error::data(format!("two columns are named `{name}`")));
        }
        if !self.columns.is_empty() && column.len() != self.rows() {
            return Err(Error::data(format!(
                "column `{name}` has {} rows and the others have {}",
                column.len(),
                self.rows()
            )));
        }
        self.columns.push((name, column));
        Ok(self)
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }

    /// The columns in order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// One column.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, column)| column)
    }

    /// A text column.
    ///
    /// # Errors
    /// If there is no such column, or it is of another type.
    pub fn text(&self, name: &str) -> Result<&TextColumn> {
        match self.wanted(name)? {
            Column::Text(column) => Ok(column),
            other => Err(wrong_type(name, "text", other)),
        }
    }

    /// A column of floats.
    ///
    /// # Errors
    /// If there is no such column, or it is of another type.
    pub fn f32(&self, name: &str) -> Result<&[f32]> {
        match self.wanted(name)? {
            Column::F32(buffer) => Ok(buffer.cast()),
            other => Err(wrong_type(name, "f32", other)),
        }
    }

    /// A column of integers.
    ///
    /// # Errors
    /// If there is no such column, or it is of another type.
    pub fn i64(&self, name: &str) -> Result<&[i64]> {
        match self.wanted(name)? {
            Column::I64(buffer) => Ok(buffer.cast()),
            other => Err(wrong_type(name, "i64", other)),
        }
    }

    /// The table of the rows at `indices`, in that order.
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
