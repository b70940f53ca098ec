//! Columns of one type.

use super::rows::{BytesColumn, ListColumn, TextColumn};
use crate::{Buffer, Error, Result};

/// A column of a [`Table`](super::Table). Columns share their memory, so a clone copies nothing.
///
/// A plugin need not support every type. A model asks its table for the types that it reads, and gets an error for any
/// other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Column {
    /// UTF-8 text.
    Text(TextColumn),
    /// 32-bit floats.
    F32(Buffer),
    /// 64-bit integers.
    I64(Buffer),
    /// 64-bit floats.
    F64(Buffer),
    /// Booleans: one byte per row, 0 or 1.
    Bool(Buffer),
    /// Bytes.
    Bytes(BytesColumn),
    /// A list in each row.
    List(ListColumn),
    /// Any of the others, with rows that may have no value.
    Nullable(NullableColumn),
}

/// A column whose rows may have no value.
#[derive(Clone, Debug)]
pub struct NullableColumn {
    present: Buffer,
    values: Box<Column>,
}

impl NullableColumn {
    /// Whether a row has a value.
    ///
    /// # Panics
    /// If `row` is not below the number of rows.
    pub fn is_present(&self, row: usize) -> bool {
        self.present.as_slice()[row] != 0
    }

    /// The values. The data of a row without a value has no meaning.
    pub fn values(&self) -> &Column {
        &self.values
    }

    /// Whether each row has a value: one byte per row.
    pub fn present(&self) -> &Buffer {
        &self.present
    }
}

impl Column {
    /// A column of texts.
    pub fn text<S: AsRef<str>>(rows: impl IntoIterator<Item = S>) -> Self {
        Self::Text(TextColumn::new(rows))
    }

    /// A column of 32-bit floats.
    pub fn f32(rows: &[f32]) -> Self {
        Self::F32(Buffer::copy_of(rows))
    }

    /// A column of 64-bit integers.
    pub fn i64(rows: &[i64]) -> Self {
        Self::I64(Buffer::copy_of(rows))
    }

    /// A column of 64-bit floats.
    pub fn f64(rows: &[f64]) -> Self {
        Self::F64(Buffer::copy_of(rows))
    }

    /// A column of booleans.
    pub fn bool(rows: &[bool]) -> Self {
        Self::Bool(Buffer::copy_of(&rows.iter().copied().map(u8::from).collect::<Vec<_>>()))
    }

    /// A column of bytes.
    pub fn bytes<B: AsRef<[u8]>>(rows: impl IntoIterator<Item = B>) -> Self {
        Self::Bytes(BytesColumn::new(rows))
    }

    /// The same column, in which only rows with a non-zero byte in `present` have a value.
    ///
    /// # Errors
    /// If the number of bytes is not the number of rows, or the column already has rows without a value.
    pub fn with_nulls(self, present: Buffer) -> Result<Self> {
        if matches!(self, Self::Nullable(_)) {
            return Err(Error::data("the column already says which rows have a value"));
        }
        if present.len() != self.len() {
            let (told, rows) = (present.len(), self.len());
            return Err(Error::data(format!("the presence of a value is given for {told} of {rows} rows")));
        }
        Ok(Self::Nullable(NullableColumn { present, values: Box::new(self) }))
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(column) => column.len(),
            Self::Bytes(column) => column.len(),
            Self::List(column) => column.len(),
            Self::Nullable(column) => column.present.len(),
            Self::F32(buffer) => buffer.len() / size_of::<f32>(),
            Self::I64(buffer) | Self::F64(buffer) => buffer.len() / size_of::<i64>(),
            Self::Bool(buffer) => buffer.len(),
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column of the rows at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        fn chosen<T: bytemuck::Pod>(buffer: &Buffer, indices: &[usize]) -> Buffer {
            let all: &[T] = buffer.cast();
            Buffer::copy_of(&indices.iter().map(|&i| all[i]).collect::<Vec<_>>())
        }
        match self {
            Self::Text(column) => Self::text(indices.iter().map(|&i| column.get(i))),
            Self::Bytes(column) => Self::bytes(indices.iter().map(|&i| column.get(i))),
            Self::List(column) => Self::List(column.select(indices)),
            Self::Nullable(column) => Self::Nullable(NullableColumn {
                present: chosen::<u8>(&column.present, indices),
                values: Box::new(column.values.select(indices)),
            }),
            Self::F32(buffer) => Self::F32(chosen::<f32>(buffer, indices)),
            Self::I64(buffer) => Self::I64(chosen::<i64>(buffer, indices)),
            Self::F64(buffer) => Self::F64(chosen::<f64>(buffer, indices)),
            Self::Bool(buffer) => Self::Bool(chosen::<u8>(buffer, indices)),
        }
    }

    /// The numbers of a column of numbers or booleans, with NaN for rows without a value. Empty for other columns.
    pub fn numbers(&self) -> Vec<f64> {
        match self {
            Self::Text(_) | Self::Bytes(_) | Self::List(_) => Vec::new(),
            Self::F32(buffer) => buffer.cast::<f32>().iter().map(|&x| x.into()).collect(),
            Self::I64(buffer) => buffer.cast::<i64>().iter().map(|&x| x as f64).collect(),
            Self::F64(buffer) => buffer.cast::<f64>().to_vec(),
            Self::Bool(buffer) => buffer.as_slice().iter().map(|&x| f64::from(x)).collect(),
            Self::Nullable(column) => {
                let numbers = column.values.numbers().into_iter().enumerate();
                numbers.map(|(row, x)| if column.is_present(row) { x } else { f64::NAN }).collect()
            }
        }
    }

    /// Whether both have the same type, rows and bits, wherever their memory is.
    pub fn is_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.iter().eq(b.iter()),
            (Self::Bytes(a), Self::Bytes(b)) => a.len() == b.len() && (0..a.len()).all(|row| a.get(row) == b.get(row)),
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len()
                    && (0..a.len()).all(|row| a.range(row) == b.range(row))
                    && a.items().is_equal(b.items())
            }
            (Self::Nullable(a), Self::Nullable(b)) => {
                a.present.as_slice() == b.present.as_slice() && a.values.is_equal(&b.values)
            }
            (Self::F32(a), Self::F32(b)) | (Self::I64(a), Self::I64(b)) => a.as_slice() == b.as_slice(),
            (Self::F64(a), Self::F64(b)) | (Self::Bool(a), Self::Bool(b)) => a.as_slice() == b.as_slice(),
            _ => false,
        }
    }

    /// One word for the type of its rows.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::F32(_) => "f32",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "lists",
            Self::Nullable(_) => "rows without a value",
        }
    }

    /// Returns an error unless its memory holds whole rows of its type.
    pub(crate) fn check(&self) -> Result<()> {
        let whole = |right: bool, buffer: &Buffer| {
            let (kind, data) = (self.kind(), buffer.as_slice());
            let fault = || format!("{} bytes at {:?} are no column of {kind}", data.len(), data.as_ptr());
            if right { Ok(()) } else { Err(Error::data(fault())) }
        };
        match self {
            Self::F32(buffer) => whole(buffer.try_cast::<f32>().is_some(), buffer),
            Self::I64(buffer) => whole(buffer.try_cast::<i64>().is_some(), buffer),
            Self::F64(buffer) => whole(buffer.try_cast::<f64>().is_some(), buffer),
            Self::Bool(buffer) => whole(buffer.as_slice().iter().all(|&x| x < 2), buffer),
            Self::Nullable(column) => column.values.check(),
            Self::Text(_) | Self::Bytes(_) | Self::List(_) => Ok(()),
        }
    }
}
