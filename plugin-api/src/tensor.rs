//! Tensors: their element types, and the memory that they share.

use std::borrow::Cow;
use std::fmt;
use std::ops::BitAnd;

use half::{bf16, f16};

use crate::{Buffer, Error, Result};

/// The type of a tensor's elements, with DLPack's type codes and widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    BF16,
    /// Signed 64-bit.
    I64,
    /// Signed 32-bit.
    I32,
    /// Signed 8-bit.
    I8,
    /// Unsigned 8-bit.
    U8,
}

impl DType {
    const ALL: [(Self, u8, u8, &'static str); 8] = [
        (Self::F32, 2, 32, "f32"),
        (Self::F64, 2, 64, "f64"),
        (Self::F16, 2, 16, "f16"),
        (Self::BF16, 4, 16, "bf16"),
        (Self::I64, 0, 64, "i64"),
        (Self::I32, 0, 32, "i32"),
        (Self::I8, 0, 8, "i8"),
        (Self::U8, 1, 8, "u8"),
    ];

    fn row(self) -> (Self, u8, u8, &'static str) {
        Self::ALL[Self::ALL.iter().position(|row| row.0 == self).unwrap_or_default()]
    }

    /// DLPack's `(code, bits)`.
    pub fn dlpack(self) -> (u8, u8) {
        let (_, code, bits, _) = self.row();
        (code, bits)
    }

    /// The type with this DLPack `(code, bits)`, if this interface supports it.
    pub fn from_dlpack(code: u8, bits: u8) -> Option<Self> {
        Self::ALL.iter().find(|row| (row.1, row.2) == (code, bits)).map(|row| row.0)
    }

    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        usize::from(self.row().2) / 8
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().3)
    }
}

/// A Rust type that can be a tensor's element.
pub trait Element: bytemuck::Pod + Default {
    /// The matching [`DType`].
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i64 => I64, i32 => I32, i8 => I8, u8 => U8);

/// An [`Element`] of a floating-point type. Generic code computes in f64 and rounds once.
pub trait Float: Element {
    /// The value as f64, which is exact for every type here.
    fn wide(self) -> f64;
    /// The nearest value of this type, ties to even.
    fn narrow(value: f64) -> Self;
}

macro_rules! floats {
    ($($t:ty: $wide:expr, $narrow:expr;)*) => {
        $(impl Float for $t {
            #[inline]
            fn wide(self) -> f64 {
                $wide(self)
            }
            #[inline]
            fn narrow(value: f64) -> Self {
                $narrow(value)
            }
        })*
    };
}
floats! {
    f32: f64::from, |value| value as f32;
    f64: |value| value, |value| value;
    f16: f16::to_f64, f16::from_f64;
    bf16: bf16::to_f64, bf16::from_f64;
}

/// A dense row-major tensor. Its memory is immutable and shared, so a clone copies nothing.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    buffer: Buffer,
}

impl Tensor {
    /// A tensor over shared memory.
    ///
    /// # Errors
    /// If the buffer's length is not the product of the shape times the element size, or its address is not a multiple
    /// of that size.
    pub fn new(dtype: DType, shape: &[usize], buffer: Buffer) -> Result<Self> {
        let wanted = shape.iter().try_fold(dtype.size(), |all, &n| all.checked_mul(n));
        if wanted != Some(buffer.len()) {
            let message = format!("a {dtype} tensor of shape {shape:?} does not take {} bytes", buffer.len());
            return Err(Error::new(crate::ErrorKind::Tensor, message));
        }
        let start = buffer.as_slice().as_ptr();
        if !start.addr().is_multiple_of(dtype.size()) {
            let message = format!("starts at {start:?}, but its {dtype} elements need a multiple of {}", dtype.size());
            return Err(Error::new(crate::ErrorKind::Tensor, message));
        }
        Ok(Self { dtype, shape: shape.to_vec(), buffer })
    }

    /// A tensor with a copy of these elements, in row-major order.
    ///
    /// # Errors
    /// If their number is not the product of the shape.
    pub fn from_slice<T: Element>(shape: &[usize], elements: &[T]) -> Result<Self> {
        Self::new(T::DTYPE, shape, Buffer::copy_of(elements))
    }

    /// A tensor whose elements `fill` writes directly into zeroed memory.
    ///
    /// # Panics
    /// If the product of the shape overflows.
    pub fn build<T: Element>(shape: &[usize], fill: impl FnOnce(&mut [T])) -> Self {
        let count = shape.iter().product();
        Self { dtype: T::DTYPE, shape: shape.to_vec(), buffer: Buffer::build(count, fill) }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The elements.
    ///
    /// # Errors
    /// If they have another type.
    pub fn elements<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::new(crate::ErrorKind::Tensor, format!("holds {}, not {}", self.dtype, T::DTYPE)));
        }
        Ok(self.buffer.cast())
    }

    /// The elements of a tensor of any floating-point type as f32. Elements of type f32 are borrowed, others are
    /// converted; f64 is rounded.
    ///
    /// # Errors
    /// If they are integers.
    pub fn to_f32(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match self.dtype {
            DType::F32 => Cow::Borrowed(self.elements()?),
            DType::F64 => Cow::Owned(self.elements::<f64>()?.iter().map(|&x| x as f32).collect()),
            DType::F16 => Cow::Owned(self.elements::<f16>()?.iter().map(|x| x.to_f32()).collect()),
            DType::BF16 => Cow::Owned(self.elements::<bf16>()?.iter().map(|x| x.to_f32()).collect()),
            other => {
                return Err(Error::new(crate::ErrorKind::Tensor, format!("holds {other}, not a floating-point type")));
            }
        })
    }

    /// A tensor of a floating-point type, with these elements rounded to it.
    ///
    /// # Errors
    /// If the type is an integer type, or the number of elements is not the product of the shape.
    pub fn from_f32(dtype: DType, shape: &[usize], elements: &[f32]) -> Result<Self> {
        match dtype {
            DType::F32 => Self::from_slice(shape, elements),
            DType::F64 => Self::from_slice(shape, &elements.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()),
            DType::F16 => Self::from_slice(shape, &elements.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
            DType::BF16 => Self::from_slice(shape, &elements.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
            other => Err(Error::new(crate::ErrorKind::Tensor, format!("{other} is not a floating-point type"))),
        }
    }

    /// Whether the elements have a floating-point type.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// Whether no element is NaN or infinite. Always true for integers.
    pub fn is_finite(&self) -> bool {
        // NaN and the infinities have all exponent bits set. Each chunk is read to its end, so that the loop
        // vectorises.
        fn none<B: bytemuck::Pod + PartialEq + BitAnd<Output = B>>(words: &[B], exponent: B) -> bool {
            words.chunks(4096).all(|piece| !piece.iter().fold(false, |any, &w| any | (w & exponent == exponent)))
        }
        match self.dtype {
            DType::F32 => none(self.buffer.cast(), f32::INFINITY.to_bits()),
            DType::F64 => none(self.buffer.cast(), f64::INFINITY.to_bits()),
            DType::F16 => none(self.buffer.cast(), f16::INFINITY.to_bits()),
            DType::BF16 => none(self.buffer.cast(), bf16::INFINITY.to_bits()),
            _ => true,
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}
