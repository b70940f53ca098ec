//! The head of a `.npy` stream: magic, version, a Python dictionary.
//!
//! Format: numpy, *NEP 1*, and the documentation of `numpy.lib.format`.

use crate::content::DType;
use crate::error::Error;

const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest head that is read. numpy itself refuses more than 10,000 bytes.
const LONGEST: usize = 16 << 10;

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    /// The numbers are in Fortran's order: the first index varies fastest.
    pub(crate) fortran: bool,
    pub(crate) big_endian: bool,
}

/// The head of version 1.0 that numpy would write for an array in C order, padded to a multiple of 64 bytes. `None` if
/// numpy does not have the type.
pub(crate) fn write(dtype: DType, shape: &[u64]) -> Option<Vec<u8>> {
    let code = dtype.code()?;
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let sides: Vec<String> = shape.iter().map(u64::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '{order}{code}', 'fortran_order': False, 'shape': ({}{comma}), }}", sides.join(", "));
    // numpy leaves room for the first side to grow to 21 digits.
    if let Some(first) = sides.first() {
        text.push_str(&" ".repeat(21usize.saturating_sub(first.len())));
    }
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(64 - unpadded % 64)); // never none, as numpy pads
    text.push('\n');
    let mut head = MAGIC.to_vec();
    head.extend([1, 0]);
    // At most 16 dimensions of 20 digits.
    head.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    head.extend(text.as_bytes());
    Some(head)
}

/// The length of the head that a stream begins with; `None` if more bytes are needed to tell.
pub(crate) fn length(stream: &[u8]) -> Result<Option<usize>, Error> {
    let known = stream.len().min(MAGIC.len());
    if stream[..known] != MAGIC[..known] {
        return Err(wrong("no `.npy` stream"));
    }
    let Some(major) = stream.get(6) else { return Ok(None) };
    let length = match (major, stream.get(8..10), stream.get(8..12)) {
        (1, Some(bytes), _) => 10 + usize::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        (2 | 3, _, Some(bytes)) => {
            let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            12usize.saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
        }
        (1..=3, _, _) => return Ok(None),
        (major, _, _) => return Err(wrong(format!("`.npy` version {major} is unknown"))),
    };
    if length > LONGEST { Err(wrong(format!("a head of {length} bytes"))) } else { Ok(Some(length)) }
}

/// Reads a whole head, as long as [`length`] says.
pub(crate) fn read(head: &[u8], dimensions: usize) -> Result<Head, Error> {
    let start = if head.get(6) == Some(&1) { 10 } else { 12 };
    let text = head.get(start..).and_then(|text| std::str::from_utf8(text).ok());
    let text = text.ok_or_else(|| wrong("the head is not text"))?;
    let mut parser = Parser { rest: text.trim_end() };
    parser.dictionary(dimensions).ok_or_else(|| wrong(format!("the head `{}` cannot be read", text.trim_end())))?
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::protocol("array", reason)
}

/// Reads the dictionary. Methods give `None` where the text is not what it should be.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn dictionary(&mut self, dimensions: usize) -> Option<Result<Head, Error>> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.take("{")?;
        while self.take("}").is_none() {
            let key = self.string()?;
            self.take(":")?;
            match key {
                "descr" if descr.is_none() => descr = Some(self.string()?),
                "fortran_order" if fortran.is_none() => {
                    fortran = Some(self.take("True").is_some() || self.take("False").map(|()| false)?);
                }
                "shape" if shape.is_none() => shape = Some(self.tuple(dimensions)?),
                _ => return None,
            }
            if self.take(",").is_none() && !self.rest.starts_with('}') {
                return None;
            }
        }
        let (descr, fortran, shape) = (descr?, fortran?, shape?);
        if !self.rest.is_empty() {
            return None;
        }
        let (order, code) = descr.split_at_checked(1)?;
        let Some(dtype) = DType::from_code(code) else {
            return Some(Err(wrong(format!("arrays of type `{descr}` are not supported"))));
        };
        let big_endian = match order {
            "<" => false,
            ">" => true,
            "|" if dtype.size() == 1 => false,
            _ => return None,
        };
        Some(Ok(Head { dtype, shape, fortran, big_endian }))
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?.trim_start();
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let quote = self.rest.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
        let (text, rest) = self.rest[1..].split_once(quote)?;
        self.rest = rest.trim_start();
        Some(text)
    }

    fn tuple(&mut self, dimensions: usize) -> Option<Vec<u64>> {
        let mut sides = Vec::new();
        self.take("(")?;
        while self.take(")").is_none() {
            let digits = self.rest.find(|c: char| !c.is_ascii_digit())?;
            sides.push(self.rest[..digits].parse().ok()?);
            self.rest = self.rest[digits..].trim_start();
            // Python 2 wrote `3L`.
            let _ = self.take("L");
            if sides.len() > dimensions || self.take(",").is_none() && !self.rest.starts_with(')') {
                return None;
            }
        }
        Some(sides)
    }
}

/// Turns the numbers of `data` around, from big to little endian.
pub(crate) fn swap_bytes(data: &mut [u8], size: usize) {
    if size > 1 {
        data.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
}

/// Copies an array in Fortran's order to C order: `to[i, j, …] = from[…, j, i]`.
pub(crate) fn from_fortran(from: &[u8], to: &mut [u8], shape: &[u64], size: usize) {
    // How far apart in `from` neighbours along each axis are.
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = size;
    for side in shape {
        strides.push(stride);
        stride *= usize::try_from(*side).unwrap_or(0);
    }
    let mut index = vec![0u64; shape.len()];
    let mut at = 0;
    for number in to.chunks_exact_mut(size) {
        number.copy_from_slice(&from[at..at + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * usize::try_from(shape[axis]).unwrap_or(0);
            index[axis] = 0;
        }
    }
}
