//! Parses numbers in table fields.

use plugin_api::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{is_missing, trim_invisible};

/// The decimal mark of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
    /// The shortest text that parses as the same number.
    pub fn format(self, number: f32) -> String {
        let text = number.to_string();
        if self == Self::Comma { text.replace('.', ",") } else { text }
    }
}

/// Why a field is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// The value [is missing](is_missing).
    Missing,
    /// The value is a bound or an estimate: `>100`, `<=0.1`, `~7`.
    Censored,
    /// The number has the other decimal mark.
    WrongDecimalMark,
    /// Anything else, and what is not finite as `f32`.
    NotFinite,
}

impl NumberError {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Censored, Self::WrongDecimalMark, Self::NotFinite];

    /// The reason for skipping a row whose field in this column has the error.
    pub fn reason(self, column: &str, decimal: DecimalMark) -> String {
        match (self, decimal) {
            (Self::Missing, _) => format!("no `{column}`"),
            (Self::Censored, _) => format!("`{column}` is censored or approximate (`>`, `<`, `~`)"),
            (Self::WrongDecimalMark, DecimalMark::Point) => {
                format!("`{column}` has a decimal comma; set `decimal = \",\"`")
            }
            (Self::WrongDecimalMark, DecimalMark::Comma) => {
                format!("`{column}` has a decimal point, but `decimal` is `,`")
            }
            (Self::NotFinite, _) => format!("`{column}` is not a finite number"),
        }
    }
}

/// Parses a number that is finite as `f32`. White space and invisible characters at the ends are ignored, but not within:
/// `7 8`, `1,000` and `5%` are not numbers.
///
/// The text is parsed as `f64` and then rounded, so that a number is the same before and after a program that computes in
/// `f64` has printed it.
///
/// # Errors
/// If the field is not such a number.
pub fn parse_number(text: &str, decimal: DecimalMark) -> Result<f32, NumberError> {
    let text = trim_invisible(text);
    let finite = |text: &str| text.parse::<f64>().ok().map(|value| value as f32).filter(|value| value.is_finite());
    let with_point = |text: &str| finite(&text.replacen(',', ".", 1)).filter(|_| !text.contains('.'));
    let (value, other) = match decimal {
        DecimalMark::Point => (finite(text), with_point(text).is_some() && !may_be_thousands(text)),
        DecimalMark::Comma => (with_point(text), finite(text).is_some()),
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

/// Whether the comma of a number may separate thousands: three digits follow it, and one to three, not beginning with 0,
/// come before it.
fn may_be_thousands(text: &str) -> bool {
    let Some((whole, rest)) = text.trim_start_matches(['+', '-']).split_once(',') else { return false };
    (1..=3).contains(&whole.len()) && !whole.starts_with('0') && rest.len() == 3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_support::cases;

    use super::*;

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn formatted_numbers_are_parsed_to_the_same_bits(value: f32, spaces in "[ \t\u{a0}\u{200b}]{0,2}") {
            for decimal in [DecimalMark::Point, DecimalMark::Comma] {
                let parsed = parse_number(&(spaces.clone() + &decimal.format(value) + &spaces), decimal);
                if value.is_finite() {
                    prop_assert_eq!(parsed.unwrap().to_bits(), value.to_bits());
                } else {
                    prop_assert!(parsed.is_err());
                }
            }
        }

        #[test]
        fn any_text_is_a_finite_number_or_an_error(text in prop_oneof![any::<String>(), "[-+0-9.,eE ]{0,12}"]) {
            for decimal in [DecimalMark::Point, DecimalMark::Comma] {
                prop_assert!(parse_number(&text, decimal).is_ok_and(f32::is_finite) || parse_number(&text, decimal).is_err());
            }
        }
    }

    #[test]
    fn numbers_are_trimmed_at_their_ends_only() {
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
    fn decimal_commas_are_parsed_on_request() {
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
    }
}
