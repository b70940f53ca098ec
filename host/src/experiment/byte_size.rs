//! Amounts of memory, as an experiment has them: `"8 GiB"`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(
    #[schemars(with = "String", extend("pattern" = "^[0-9]+(\\.[0-9]+)? ?([kMGT]?B|[KMGT]iB)$"))] pub u64,
);

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = text.parse::<bytesize::ByteSize>();
        bytes.map(|bytes| Self(bytes.0)).map_err(|_| format!("`{text}` is not an amount of memory, such as `8 GiB`"))
    }
}

impl From<ByteSize> for String {
    /// In a larger unit where that is exact.
    fn from(ByteSize(bytes): ByteSize) -> Self {
        let short = bytesize::ByteSize(bytes).display().iec().to_string();
        if short.parse() == Ok(bytesize::ByteSize(bytes)) { short } else { format!("{bytes} B") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_as_the_same_number() {
        for (text, bytes) in
            [("8 GiB", 8 << 30), ("500MB", 500_000_000), ("0 B", 0), ("1.5 KiB", 1536), ("7 B", 7), ("1537 B", 1537)]
        {
            let read = ByteSize::try_from(text.to_owned()).unwrap();
            assert_eq!(read.0, bytes, "{text}");
            assert_eq!(ByteSize::try_from(String::from(read)), Ok(read), "{text}");
        }
        assert_eq!(String::from(ByteSize(8 << 30)), "8.0 GiB");
        for text in ["", "GiB", "-1 B", "1.2.3 B", "8 GiB or so"] {
            assert!(ByteSize::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
