//! The types that pandas infers for columns, and how it prints their values: `read_csv`, `concat`, `to_csv`.
//!
//! The published preparation uses pandas, so its files have `8.52` for a measurement `8.5200`, and an empty field for `NA`.

use std::borrow::Cow;

use fedplug_tables::text::PANDAS_MISSING;

/// The type of a column of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PandasType {
    Int,
    Float,
    Bool,
    Text,
}

/// Whether pandas reads the text as a missing value, which it prints as an empty field. Its list is shorter than that of
/// [`is_missing`](fedplug_tables::text::is_missing), and case matters.
fn is_missing(text: &str) -> bool {
    // The longest, `#N/A N/A`, has 8 bytes, and most chains have more.
    text.len() <= 8 && PANDAS_MISSING.contains(&text)
}

impl PandasType {
    /// The narrowest type for all values. Whole numbers with a missing value among them are floats, since integers have no
    /// NaN. A column without rows is text.
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

    /// How a value of this type is printed.
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

/// Converts the types of a column in several files as `concat` does; `None` is a file without the column. Whole numbers become
/// floats if other files have floats or lack the column. Other types do not change.
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
    // Rust also parses `nan`, which is already a missing value.
    let text = text.trim_matches([' ', '\t']);
    let numeric = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let infinite =
        ["inf", "infinity"].iter().any(|word| text.trim_start_matches(['+', '-']).eq_ignore_ascii_case(word));
    text.parse().ok().filter(|_| numeric || infinite)
}

/// Whether a number has only digits, but too many for 64 bits: pandas reads a column of such numbers as text.
fn too_large(text: &str) -> bool {
    text.trim_matches([' ', '\t', '+', '-']).bytes().all(|byte| byte.is_ascii_digit()) && int(text).is_none()
}

/// Python's `repr`: the shortest digits that parse as the same number. Rust's format differs only in the exponent.
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
    fn columns_are_printed_as_by_pandas() {
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
    fn an_empty_column_is_text_and_missing_values_are_floats() {
        assert_eq!(
            (PandasType::of([].into_iter()), PandasType::of(["", "NA"].into_iter())),
            (PandasType::Text, PandasType::Float)
        );
    }

    /// `pandas.concat` of such columns.
    #[test]
    fn columns_of_several_files_are_joined_as_by_pandas() {
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
