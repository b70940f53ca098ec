//! Text fields: missing values, invisible characters, and a buffer for many texts.

use std::borrow::Cow;

pub use crate::open::{TextFile, open_text};

/// Many texts in one allocation: their bytes one after the other, and where each ends.
#[derive(Clone, Debug, Default)]
pub struct TextBuffer {
    all: String,
    ends: Vec<usize>,
}

impl TextBuffer {
    /// Adds one text, the concatenation of these parts.
    pub fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.all.push_str(part));
        self.ends.push(self.all.len());
    }

    /// The text at an index.
    ///
    /// # Panics
    /// If the index is not less than [`len`](Self::len).
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.all[start..self.ends[index]]
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The allocated memory in bytes.
    pub fn memory(&self) -> usize {
        self.all.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// The text without white space and invisible characters: soft hyphen, zero-width space and joiners, directional marks,
/// word joiner, byte order mark and control characters.
pub fn strip_invisible(text: &str) -> Cow<'_, str> {
    // Whole blocks without an early exit, so that the compiler vectorises.
    let plain = |block: &[u8]| block.iter().fold(true, |plain, byte| plain & byte.is_ascii_graphic());
    if text.as_bytes().chunks(32).all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|&c| !is_invisible(c)).collect())
}

/// The chain in a field, in upper case and without [invisible characters](strip_invisible). `None` if the value
/// [is missing](is_missing) or has no letters, as `0`.
pub fn normalise_chain(text: &str) -> Option<Cow<'_, str>> {
    if is_missing(text) {
        return None;
    }
    let mut chain = strip_invisible(text);
    // Without an early exit, so that the compiler vectorises.
    let (mut lower, mut upper) = (false, false);
    for byte in chain.bytes() {
        lower |= byte.is_ascii_lowercase();
        upper |= byte.is_ascii_uppercase();
    }
    if lower {
        chain.to_mut().make_ascii_uppercase();
    }
    (lower | upper).then_some(chain)
}

/// The text without white space and invisible characters at its start and end. See [`strip_invisible`].
pub fn trim_invisible(text: &str) -> &str {
    text.trim_matches(is_invisible)
}

/// The missing values of `pandas.read_csv`.
pub const PANDAS_MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// More missing values: dashes and other signs, abbreviations of "not available" and "not determined", database nulls, and
/// spreadsheet errors.
const ALSO_MISSING: [&str; 19] = [
    "-", "--", "---", "–", "—", ".", "?", "n.a.", "nd", "n.d.", "n/d", "(null)", "\\N", "#VALUE!", "#DIV/0!", "#REF!",
    "#NAME?", "#NUM!", "#NULL!",
];

/// Whether a text means a missing value: the list of pandas ([`PANDAS_MISSING`]) and `-`, `--`, `---`, `–`, `—`, `.`, `?`,
/// `n.a.`, `nd`, `n.d.`, `n/d`, `(null)`, `\N`, `#VALUE!`, `#DIV/0!`, `#REF!`, `#NAME?`, `#NUM!`, `#NULL!`.
///
/// Case does not matter, nor does what [`trim_invisible`] removes. The list holds for chains too: nobody measures a chain
/// `NA` or `ND`.
pub fn is_missing(text: &str) -> bool {
    // The longest, `#N/A N/A`, has 8 bytes, and most chains have more.
    let text = trim_invisible(text);
    text.len() <= 8 && PANDAS_MISSING.iter().chain(&ALSO_MISSING).any(|missing| missing.eq_ignore_ascii_case(text))
}

pub(crate) fn is_invisible(c: char) -> bool {
    let shows_nothing = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_whitespace() || c.is_control() || shows_nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_are_recognised_in_any_case() {
        for text in PANDAS_MISSING.iter().chain(&ALSO_MISSING) {
            for text in [(*text).to_owned(), text.to_uppercase(), text.to_lowercase(), format!("\u{feff} {text}\u{a0}")]
            {
                assert!(is_missing(&text), "{text:?}");
            }
        }
        for text in ["0", "A", "NAN A", "EVQ", "-1", ".5", "NANA", "none of these", "n\u{ad}a", "EVQLVESGG"] {
            assert!(!is_missing(text), "{text:?}");
        }
    }

    #[test]
    fn chains_are_normalised_to_upper_case_and_need_letters() {
        assert!(matches!(normalise_chain("EVQLVESGGG"), Some(Cow::Borrowed("EVQLVESGGG"))));
        assert_eq!(normalise_chain(" ev\u{ad}Q lv\n").as_deref(), Some("EVQLV"));
        assert_eq!(normalise_chain("evx*é").as_deref(), Some("EVX*é"));
        for text in ["", " ", "nan", "NA", "-", "0", "12.5", "----", "*"] {
            assert_eq!(normalise_chain(text), None, "{text}");
        }
    }

    #[test]
    fn invisible_characters_are_removed_and_other_text_is_not_copied() {
        assert!(matches!(strip_invisible("EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWV|-0.5"), Cow::Borrowed(_)));
        assert_eq!(strip_invisible("\u{a0}\u{202d}1.5\u{200b}\u{feff} \r\n"), "1.5");
        let late = "A".repeat(100) + "\u{ad}B";
        assert_eq!(strip_invisible(&late), "A".repeat(100) + "B");
        assert_eq!(trim_invisible("\u{feff} a\u{ad} b\u{200b}\r\n"), "a\u{ad} b");
    }
}
