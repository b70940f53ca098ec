//! How pandas reads a column of text into a type, and how it prints the values again: `read_csv`, `concat`, `to_csv`.
//!
//! The published preparation goes through pandas, so its files say `8.52` where the measurements say `8.5200`, and
//! nothing where they say `NA`.

use std::borrow::Cow;

use fedplug_tables::text::PANDAS_MISSING;

/// What pandas takes the values of one column of one file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PandasType {
    Int,
    Float,
    Bool,
    Text,
}

/// Whether pandas takes the text for a missing value, which it prints as nothing. It takes fewer than
/// [`is_missing`](fedplug_tables::text::is_missing) does, and none of another case.
fn is_missing(text: &str) -> bool {
    // None is longer than `#N/A N/A`, and a chain is.
    text.len() <= 8 && PANDAS_MISSING.contains(&text)
}

impl PandasType {
    /// The narrowest kind that all values fit in. A whole number beside a missing value is a float, since that has a
    /// value that is none. A column without rows is text.
    pub(crate) fn of<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let (mut narrowest, mut missing) = (None, false);
        for value in values {
            if is_missing(value) {
                missing = true;
                continue;
            }
            narrowest = match (narrowest, Self::of_value(value)) {
                (_, Self::Text) => return Self::Text,
                (None, kind) => Some(kind),
                (Some(before), kind) if before == kind => Some(kind),
                (Some(Self::Bool), _) | (_, Self::Bool) => return Self::Text,
                (Some(_), _) => Some(Self::Float),
            };
        }
        match narrowest {
            Some(Self::Int) if missing => Self::Float,
            Some(kind) => kind,
            None if missing => Self::Float,
            None => Self::Text,
        }
    }

    fn of_value(value: &str) -> Self {
        if int(value).is_some() {
            Self::Int
        } else if float(value).is_some() && !too_large(value) {
            Self::Float
        } else if matches!(value, "True" | "TRUE" | "true" | "False" | "FALSE" | "false") {
            Self::Bool
        } else {
            Self::Text
        }
    }

    /// The text of a value of this kind.
    pub(crate) fn printed(self, value: &str) -> Cow<'_, str> {
        if is_missing(value) {
            return Cow::Borrowed("");
        }
        match self {
            Self::Int => int(value).map(|value| value.to_string().into()),
            Self::Float => float(value).map(|value| repr(value).into()),
            Self::Bool => Some(if value.starts_with(['t', 'T']) { "True" } else { "False" }.into()),
            Self::Text => None,
        }
        .unwrap_or(Cow::Borrowed(value))
    }
}

/// What `concat` makes of a column whose files have these kinds; none for a file that has no such column. Whole numbers
/// become floats beside floats and missing values. Beside other kinds every value stays what it is.
pub(crate) fn joined(kinds: &mut [Option<PandasType>]) {
    let numbers = kinds.iter().all(|kind| !matches!(kind, Some(PandasType::Bool | PandasType::Text)));
    if numbers && kinds.iter().any(|kind| *kind != Some(PandasType::Int)) {
        kinds.iter_mut().flatten().for_each(|kind| *kind = PandasType::Float);
    }
}

fn int(text: &str) -> Option<i64> {
    text.trim_matches([' ', '\t']).parse().ok()
}

fn float(text: &str) -> Option<f64> {
    // Rust also reads `nan`, which is missing already where pandas reads it.
    let text = text.trim_matches([' ', '\t']);
    let numeric = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let infinite =
        ["inf", "infinity"].iter().any(|word| text.trim_start_matches(['+', '-']).eq_ignore_ascii_case(word));
    text.parse().ok().filter(|_| numeric || infinite)
}

/// Whether a number has digits alone, and too many for 64 bits: pandas leaves a column of such numbers as it is.
fn too_large(text: &str) -> bool {
    text.trim_matches([' ', '\t', '+', '-']).bytes().all(|byte| byte.is_ascii_digit()) && int(text).is_none()
}

/// Python's `repr`: the shortest digits that read as the same number. Rust's differ in the exponent alone.
fn repr(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(column: &[&'static str]) -> Vec<Cow<'static, str>> {
        let kind = PandasType::of(column.iter().copied());
        column.iter().map(|value| kind.printed(value)).collect()
    }

    /// `pandas.read_csv` of a column `a` beside another one, then `to_csv`.
    #[test]
    fn a_column_is_printed_as_pandas_prints_it() {
        for (read, expected) in [
            (["1e16", "1"], ["1e+16", "1.0"]),
            (["123456789012345678", "1"], ["123456789012345678", "1"]),
            (["1e-5", "0.0001"], ["1e-05", "0.0001"]),
            (["1.5e-300", "1e22"], ["1.5e-300", "1e+22"]),
            (["-0", "007"], ["0", "7"]),
            (["-0.0", "+5"], ["-0.0", "5.0"]),
            (["1.", ".5"], ["1.0", "0.5"]),
            ([" 5 ", "\t2"], ["5", "2"]),
            (["5", ""], ["5.0", ""]),
            (["NaN", "1"], ["", "1.0"]),
            (["inf", "-Infinity"], ["inf", "-inf"]),
            (["INF", "1E5"], ["inf", "100000.0"]),
            (["1e400", "5e-324"], ["inf", "5e-324"]),
            (["true", "FALSE"], ["True", "False"]),
            (["true", "NA"], ["True", ""]),
            (["1", "true"], ["1", "true"]),
            (["2.50", "x"], ["2.50", "x"]),
            (["0x10", "1_0"], ["0x10", "1_0"]),
            (["nAn", "1.0"], ["nAn", "1.0"]),
            (["1e", "1.50"], ["1e", "1.50"]),
            (["9007199254740993", "NA"], ["9007199254740992.0", ""]),
            (["99999999999999999999", "1"], ["99999999999999999999", "1"]),
        ] {
            assert_eq!(printed(&read), expected, "{read:?}");
        }
    }

    #[test]
    fn no_value_at_all_is_something_else_than_missing_values() {
        assert_eq!(
            (PandasType::of([].into_iter()), PandasType::of(["", "NA"].into_iter())),
            (PandasType::Text, PandasType::Float)
        );
    }

    /// `pandas.concat` of such columns.
    #[test]
    fn columns_of_several_files_are_joined_as_pandas_joins_them() {
        use PandasType::{Bool, Float, Int, Text};
        for (before, after) in [
            ([Some(Int), Some(Int)], [Some(Int), Some(Int)]),
            ([Some(Int), Some(Float)], [Some(Float), Some(Float)]),
            ([Some(Int), None], [Some(Float), None]),
            ([Some(Int), Some(Text)], [Some(Int), Some(Text)]),
            ([Some(Bool), Some(Int)], [Some(Bool), Some(Int)]),
        ] {
            let mut kinds = before;
            joined(&mut kinds);
            assert_eq!(kinds, after, "{before:?}");
        }
    }
}
