//! Numbers as tables hold them.

use plugin_api::JsonSchema;
use serde::Deserialize;

use crate::text::{is_missing, trim_invisible};

/// What stands between the whole and the fraction of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum DecimalMark {
    /// A point, as in `7.25`.
    #[default]
    #[serde(rename = ".")]
    Point,
    /// A comma, as in `7,25`.
    #[serde(rename = ",")]
    Comma,
}

impl DecimalMark {
    /// The fewest digits that read as the same number.
    pub fn format(self, number: f32) -> String {
        let text = number.to_string();
        if self == Self::Comma { text.replace('.', ",") } else { text }
    }
}

/// Why a field gives no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// It [is missing](is_missing).
    Missing,
    /// It says that the number is larger, smaller or about so: `>100`, `<=0.1`, `~7`.
    Censored,
    /// It is a number with the other decimal mark.
    WrongDecimalMark,
    /// It is anything else, or not finite in 32 bits.
    NotFinite,
}

impl NumberError {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Censored, Self::WrongDecimalMark, Self::NotFinite];

    /// What to say of a field in this column.
    pub fn reason(self, column: &str, decimal: DecimalMark) -> String {
        match (self, decimal) {
            (Self::Missing, _) => format!("no `{column}`"),
            (Self::Censored, _) => format!("`{column}` is censored or approximate (`>`, `<`, `~`)"),
            (Self::WrongDecimalMark, DecimalMark::Point) => {
                format!("`{column}` has a decimal comma; set `decimal = \",\"`")
            }
            (Self::WrongDecimalMark, DecimalMark::Comma) => {
                format!("`{column}` has a decimal point, and `decimal` is `,`")
            }
            (Self::NotFinite, _) => format!("`{column}` is not a finite number"),
        }
    }
}

/// The number that a field says, if it is finite in 32 bits. White space and characters without a glyph do not count at its
/// ends; within it they do, and so do separators of thousands: `7 8`, `1,000` and `5%` are no numbers.
///
/// By way of 64 bits, so that a number is the same before and after a program printed it that computes with those. One
/// that is too large for 32 becomes infinite, and is as useless.
///
/// # Errors
/// Why there is none.
pub fn parse_number(text: &str, decimal: DecimalMark) -> Result<f32, NumberError> {
    let text = trim_invisible(text);
    let parsed = |text: &str| text.parse::<f64>().ok().map(|value| value as f32).filter(|value| value.is_finite());
    let with_point = |text: &str| parsed(&text.replacen(',', ".", 1)).filter(|_| !text.contains('.'));
    let (value, other) = match decimal {
        DecimalMark::Point => (parsed(text), with_point(text).is_some() && !may_be_thousands(text)),
        DecimalMark::Comma => (with_point(text), parsed(text).is_some()),
    };
    match value {
        Some(value) => Ok(value),
        None if is_missing(text) => Err(NumberError::Missing),
        None if text.starts_with(['<', '>', '≤', '≥', '~', '≈', '⩽', '⩾', '≲', '≳']) => {
            Err(NumberError::Censored)
        }
        None if other => Err(NumberError::WrongDecimalMark),
        None => Err(NumberError::NotFinite),
    }
}

/// Whether the comma of a number may separate thousands: three digits follow, and one to three are before, not `0` alone.
fn may_be_thousands(text: &str) -> bool {
    let Some((whole, rest)) = text.trim_start_matches(['+', '-']).split_once(',') else { return false };
    (1..=3).contains(&whole.len()) && !whole.starts_with('0') && rest.len() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_trimmed_at_their_ends_and_nowhere_else() {
        for (text, wanted) in [
            ("7", Ok(7.0)),
            ("+5.0", Ok(5.0)),
            ("-.5", Ok(-0.5)),
            ("1e-9", Ok(1e-9)),
            ("1.7E+05", Ok(170_000.0)),
            ("\u{feff}\u{202d} 1.5\u{a0}\u{200b}\r\n", Ok(1.5)),
            ("16777217", Ok(16_777_216.0)),
            ("", Err(NumberError::Missing)),
            ("NaN", Err(NumberError::Missing)),
            (" - ", Err(NumberError::Missing)),
            (">100", Err(NumberError::Censored)),
            ("<0.1", Err(NumberError::Censored)),
            ("~7", Err(NumberError::Censored)),
            ("≥ 5", Err(NumberError::Censored)),
            ("> LOD", Err(NumberError::Censored)),
            ("75,5", Err(NumberError::WrongDecimalMark)),
            ("-0,125", Err(NumberError::WrongDecimalMark)),
            ("1,5e-3", Err(NumberError::WrongDecimalMark)),
            ("12,3456", Err(NumberError::WrongDecimalMark)),
            ("1,000", Err(NumberError::NotFinite)),
            ("1,000.5", Err(NumberError::NotFinite)),
            ("1.000,5", Err(NumberError::NotFinite)),
            ("7 8", Err(NumberError::NotFinite)),
            ("12. 5", Err(NumberError::NotFinite)),
            ("1\u{200b}2", Err(NumberError::NotFinite)),
            ("5%", Err(NumberError::NotFinite)),
            ("74.5 C", Err(NumberError::NotFinite)),
            ("62.5±0.1", Err(NumberError::NotFinite)),
            ("\u{2212}5", Err(NumberError::NotFinite)),
            ("３.５", Err(NumberError::NotFinite)),
            ("٣٤", Err(NumberError::NotFinite)),
            ("0x10", Err(NumberError::NotFinite)),
            ("1_000", Err(NumberError::NotFinite)),
            ("inf", Err(NumberError::NotFinite)),
            ("-Infinity", Err(NumberError::NotFinite)),
            ("1e39", Err(NumberError::NotFinite)),
            ("TRUE", Err(NumberError::NotFinite)),
        ] {
            assert_eq!(parse_number(text, DecimalMark::Point), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_decimal_comma_is_read_where_it_is_asked_for() {
        for (text, wanted) in [
            ("75,5", Ok(75.5)),
            ("-0,125", Ok(-0.125)),
            ("1,000", Ok(1.0)),
            ("7", Ok(7.0)),
            ("1,5e-3", Ok(0.0015)),
            ("75.5", Err(NumberError::WrongDecimalMark)),
            ("1.000,5", Err(NumberError::NotFinite)),
            ("1,000,5", Err(NumberError::NotFinite)),
            (">7,5", Err(NumberError::Censored)),
            (".", Err(NumberError::Missing)),
        ] {
            assert_eq!(parse_number(text, DecimalMark::Comma), wanted, "{text:?}");
        }
        for value in [0.1, -2.0, 1e-30, f32::MAX] {
            for decimal in [DecimalMark::Point, DecimalMark::Comma] {
                assert_eq!(parse_number(&decimal.format(value), decimal), Ok(value));
            }
        }
    }
}
