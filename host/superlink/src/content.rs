//! What a message carries.

use bytes::Bytes;
use indexmap::IndexMap;

use crate::bundle::BUNDLE;
use crate::envelope::RECORD;
use crate::error::Error;

/// The records of a message, by name and in order.
pub type Content = IndexMap<String, Record>;

/// A record of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Arrays by name.
    Arrays(IndexMap<String, Array>),
    /// Numbers by name: Flower's `MetricRecord`.
    Metrics(IndexMap<String, Value>),
    /// Values by name: Flower's `ConfigRecord`.
    Config(IndexMap<String, Value>),
}

/// Whether content can be sent.
pub(crate) fn check(content: &Content) -> Result<(), String> {
    for (name, record) in content {
        if name == RECORD || name.starts_with(BUNDLE) {
            return Err(format!("record `{name}`: the name is reserved"));
        }
        if let Record::Metrics(values) = record
            && let Some((key, _)) = values.iter().find(|(_, value)| !value.is_metric())
        {
            return Err(format!("record `{name}`: the metric `{key}` is no number"));
        }
    }
    Ok(())
}

/// A value of a record. In [`Record::Metrics`] only numbers and lists of numbers are allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A double.
    Float(f64),
    /// An integer, as Python sends them.
    Int(i64),
    /// An integer without a sign.
    Uint(u64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// Doubles.
    Floats(Vec<f64>),
    /// Integers.
    Ints(Vec<i64>),
    /// Integers without a sign.
    Uints(Vec<u64>),
    /// Several of yes and no.
    Bools(Vec<bool>),
    /// Texts.
    Texts(Vec<String>),
    /// Several byte strings.
    ByteStrings(Vec<Bytes>),
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number as an integer, if it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Uint(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            Self::Uint(number) => Some(*number as f64),
            _ => None,
        }
    }

    pub(crate) fn is_metric(&self) -> bool {
        use Value::{Float, Floats, Int, Ints, Uint, Uints};
        matches!(self, Float(_) | Int(_) | Uint(_) | Floats(_) | Ints(_) | Uints(_))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// An array: little endian, in C order.
///
/// An array that was received has memory of its own, which begins at a multiple of 64. One that is sent is not copied,
/// so `data` may be memory that others hold as well ([`Bytes::from_owner`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    dtype: DType,
    shape: Vec<u64>,
    data: Bytes,
}

impl Array {
    /// An array of these bytes.
    ///
    /// # Errors
    /// If there are not as many bytes as type and shape say.
    pub fn new(dtype: DType, shape: Vec<u64>, data: Bytes) -> Result<Self, Error> {
        let expected = size(dtype, &shape);
        if expected != Some(data.len() as u64) {
            let reason = format!("{} bytes, but {} of shape {shape:?} takes {expected:?}", data.len(), dtype.name());
            return Err(Error::protocol("array", reason));
        }
        Ok(Self { dtype, shape, data })
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its shape; empty for a single number.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Its bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (DType, Vec<u64>, Bytes) {
        (self.dtype, self.shape, self.data)
    }
}

/// The bytes that an array takes; `None` if that is no 64-bit number.
pub(crate) fn size(dtype: DType, shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(dtype.size() as u64, |size, side| size.checked_mul(*side))
}

/// The type of an array's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Boolean, one byte.
    Bool,
    /// Signed 8-bit.
    I8,
    /// Signed 16-bit.
    I16,
    /// Signed 32-bit.
    I32,
    /// Signed 64-bit.
    I64,
    /// Unsigned 8-bit.
    U8,
    /// Unsigned 16-bit.
    U16,
    /// Unsigned 32-bit.
    U32,
    /// Unsigned 64-bit.
    U64,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// bfloat16, which numpy does not have: only between ends of this crate.
    BF16,
}

/// Type, numpy's name, numpy's code in a `.npy` header without the byte order, bytes.
const DTYPES: [(DType, &str, &str, usize); 13] = [
    (DType::Bool, "bool", "b1", 1),
    (DType::I8, "int8", "i1", 1),
    (DType::I16, "int16", "i2", 2),
    (DType::I32, "int32", "i4", 4),
    (DType::I64, "int64", "i8", 8),
    (DType::U8, "uint8", "u1", 1),
    (DType::U16, "uint16", "u2", 2),
    (DType::U32, "uint32", "u4", 4),
    (DType::U64, "uint64", "u8", 8),
    (DType::F16, "float16", "f2", 2),
    (DType::F32, "float32", "f4", 4),
    (DType::F64, "float64", "f8", 8),
    (DType::BF16, "bfloat16", "", 2),
];

impl DType {
    fn row(self) -> (&'static str, &'static str, usize) {
        let found = DTYPES.iter().find(|row| row.0 == self);
        found.map_or(("", "", 0), |row| (row.1, row.2, row.3))
    }

    /// numpy's name, such as `float32`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// numpy's code in a `.npy` header without the byte order; `None` if numpy does not have the type.
    pub(crate) fn code(self) -> Option<&'static str> {
        Some(self.row().1).filter(|code| !code.is_empty())
    }

    /// The bytes of one number.
    pub fn size(self) -> usize {
        self.row().2
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        DTYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    pub(crate) fn from_code(code: &str) -> Option<Self> {
        DTYPES.iter().find(|row| row.2 == code && !code.is_empty()).map(|row| row.0)
    }
}
