//! Columns with rows of varying length: texts, bytes, lists.

use super::Column;
use crate::{Buffer, Error, Result};

/// The end of each row in a column with concatenated rows. The first row starts at 0.
fn ends(buffer: &Buffer) -> &[i64] {
    buffer.cast()
}

/// The range of a row's values.
fn range(buffer: &Buffer, row: usize) -> std::ops::Range<usize> {
    let ends = ends(buffer);
    let start = if row == 0 { 0 } else { ends[row - 1] as usize };
    start..ends[row] as usize
}

/// Checks that these are valid row ends for `len` values, and that `may_end` allows each of them.
fn check_ends(what: &str, buffer: &Buffer, len: usize, may_end: impl Fn(usize) -> bool) -> Result<()> {
    let wrong = |how: &str| Error::data(format!("a column of {what} {how}"));
    let mut last = 0;
    for &end in buffer.try_cast::<i64>().ok_or_else(|| wrong("has row ends that are not 64-bit integers"))? {
        let end = usize::try_from(end).map_err(|_| wrong("has a row that ends before its start"))?;
        if end < last || end > len || !may_end(end) {
            return Err(wrong("has a row that ends before its start, inside a character or past its values"));
        }
        last = end;
    }
    Ok(())
}

/// Texts in one piece of memory: the bytes of all rows, and the end of each row.
#[derive(Clone, Debug)]
pub struct TextColumn {
    ends: Buffer,
    bytes: Buffer,
}

impl TextColumn {
    /// Copies the rows into one column.
    pub fn new<S: AsRef<str>>(rows: impl IntoIterator<Item = S>) -> Self {
        let BytesColumn { ends, bytes } = BytesColumn::new(rows.into_iter().map(|row| Text(row)));
        Self { ends, bytes }
    }

    /// A column over shared memory: the end of each row in the bytes, as 64-bit integers, and the UTF-8 bytes of all
    /// rows. Arrow's `large_utf8` has both, with a zero before the ends.
    ///
    /// # Errors
    /// If the bytes are not UTF-8, or a row ends before its start, inside a character or past the bytes.
    pub fn from_parts(ends: Buffer, bytes: Buffer) -> Result<Self> {
        let text = std::str::from_utf8(bytes.as_slice())
            .map_err(|e| Error::data("a column of text is not UTF-8").because(&e))?;
        check_ends("text", &ends, text.len(), |end| text.is_char_boundary(end))?;
        Ok(Self { ends, bytes })
    }

    /// The memory: the end of each row, and the bytes.
    pub fn parts(&self) -> (&Buffer, &Buffer) {
        (&self.ends, &self.bytes)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        ends(&self.ends).len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text of one row.
    ///
    /// # Panics
    /// If `row` is not below [`len`](Self::len).
    pub fn get(&self, row: usize) -> &str {
        std::str::from_utf8(&self.bytes.as_slice()[range(&self.ends, row)]).expect("checked when the column was made")
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Whether both share the same memory: a cheap cache key for results computed from a column.
    pub fn is_same(&self, other: &Self) -> bool {
        self.ends.is_same(&other.ends) && self.bytes.is_same(&other.bytes)
    }
}

/// Views a text as its bytes.
struct Text<S>(S);

impl<S: AsRef<str>> AsRef<[u8]> for Text<S> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_bytes()
    }
}

/// Rows of bytes in one piece of memory: images, encoded tensors.
#[derive(Clone, Debug)]
pub struct BytesColumn {
    ends: Buffer,
    bytes: Buffer,
}

impl BytesColumn {
    /// Copies the rows into one column.
    pub fn new<B: AsRef<[u8]>>(rows: impl IntoIterator<Item = B>) -> Self {
        let (mut ends, mut bytes) = (Vec::new(), Vec::new());
        for row in rows {
            bytes.extend_from_slice(row.as_ref());
            ends.push(bytes.len() as i64);
        }
        Self { ends: Buffer::copy_of(&ends), bytes: Buffer::copy_of(&bytes) }
    }

    /// A column over shared memory: the end of each row, as 64-bit integers, and the bytes of all rows.
    ///
    /// # Errors
    /// If a row ends before its start or past the bytes.
    pub fn from_parts(ends: Buffer, bytes: Buffer) -> Result<Self> {
        check_ends("bytes", &ends, bytes.len(), |_| true)?;
        Ok(Self { ends, bytes })
    }

    /// The memory: the end of each row, and the bytes.
    pub fn parts(&self) -> (&Buffer, &Buffer) {
        (&self.ends, &self.bytes)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        ends(&self.ends).len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of one row.
    ///
    /// # Panics
    /// If `row` is not below [`len`](Self::len).
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes.as_slice()[range(&self.ends, row)]
    }
}

/// A list in each row: all items in one column, and the end of each row's list.
#[derive(Clone, Debug)]
pub struct ListColumn {
    ends: Buffer,
    items: Box<Column>,
}

impl ListColumn {
    /// Lists of these lengths, whose items are concatenated in `items`.
    ///
    /// # Errors
    /// If the lengths do not add up to the number of items.
    pub fn new(lengths: impl IntoIterator<Item = usize>, items: Column) -> Result<Self> {
        let ends: Vec<i64> = lengths
            .into_iter()
            .scan(0_i64, |end, length| {
                *end = end.saturating_add(i64::try_from(length).unwrap_or(i64::MAX));
                Some(*end)
            })
            .collect();
        let all = ends.last().copied().unwrap_or_default();
        if usize::try_from(all) != Ok(items.len()) {
            return Err(Error::data(format!("lists of {all} items together were given {}", items.len())));
        }
        Self::from_parts(Buffer::copy_of(&ends), items)
    }

    /// A column over shared memory: the end of each list, as 64-bit integers, and all items.
    ///
    /// # Errors
    /// If a list ends before its start or past the items, or the items are not a valid column.
    pub fn from_parts(ends: Buffer, items: Column) -> Result<Self> {
        items.check()?;
        check_ends("lists", &ends, items.len(), |_| true)?;
        Ok(Self { ends, items: Box::new(items) })
    }

    /// The memory: the end of each list, and the items.
    pub fn parts(&self) -> (&Buffer, &Column) {
        (&self.ends, &self.items)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        ends(&self.ends).len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The range of one row's items in the column of all items.
    ///
    /// # Panics
    /// If `row` is not below [`len`](Self::len).
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        range(&self.ends, row)
    }

    /// The column with the items of all rows.
    pub fn items(&self) -> &Column {
        &self.items
    }

    pub(super) fn select(&self, indices: &[usize]) -> Self {
        let chosen: Vec<usize> = indices.iter().flat_map(|&row| self.range(row)).collect();
        let ends: Vec<i64> = indices
            .iter()
            .scan(0, |end, &row| {
                *end += self.range(row).len() as i64;
                Some(*end)
            })
            .collect();
        Self { ends: Buffer::copy_of(&ends), items: Box::new(self.items.select(&chosen)) }
    }
}
