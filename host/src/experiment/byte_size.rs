//! Amounts of memory, as a file has them: `"8 GiB"`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(
    /// How many.
    #[schemars(with = "String", extend("pattern" = "^[0-9]+(\\.[0-9]+)? ?([kMGT]?B|[KMGT]iB)$"))]
    pub u64,
);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an amount of memory, such as `8 GiB` or `500 MB`");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit) = text.split_at(end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(wrong)?.1;
        let plain = number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.');
        let number: f64 = number.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, and is positive")]
        Ok(Self((number * unit as f64) as u64))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(bytes: ByteSize) -> Self {
        bytes.to_string()
    }
}

/// In the largest unit that leaves no remainder, so that it is read as the same number.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit) && self.0 >= *unit;
        let (name, unit) = UNITS.iter().filter(fits).max_by_key(|(_, unit)| *unit).unwrap_or(&UNITS[0]);
        write!(f, "{} {name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_as_the_same_number() {
        for (text, bytes) in
            [("8 GiB", 8 << 30), ("500MB", 500_000_000), ("0 B", 0), ("1.5 KiB", 1536), ("7 B", 7), ("24 kB", 24_000)]
        {
            let read: ByteSize = text.parse().unwrap();
            assert_eq!(read.0, bytes, "{text}");
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
        assert_eq!(ByteSize(8 << 30).to_string(), "8 GiB");
        for text in ["", "8", "GiB", "8 GIB", "-1 B", "1. B", ".5 B", "1.2.3 B", "8 GiB or so"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
