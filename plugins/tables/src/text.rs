//! Text as files hold it: what stands for nothing, the characters that show nothing, and many texts in one piece of
//! memory.

use std::borrow::Cow;

pub use crate::open::{TextFile, open_text};

/// Many texts in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct TextBuffer {
    all: String,
    ends: Vec<usize>,
}

impl TextBuffer {
    /// Adds one text: these parts, one after the other.
    pub fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.all.push_str(part));
        self.ends.push(self.all.len());
    }

    /// The text of a number.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.all[start..self.ends[index]]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes are held for it.
    pub fn memory(&self) -> usize {
        self.all.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// The text without white space, which neither a chain nor a number has inside, and without characters that show
/// nothing: soft hyphen, zero-width space and joiners, directional marks, word joiner and byte order mark.
pub fn strip_invisible(text: &str) -> Cow<'_, str> {
    // A block at a time, without a way out inside it, so that it is one comparison of vectors.
    let plain = |block: &[u8]| block.iter().fold(true, |plain, byte| plain & byte.is_ascii_graphic());
    if text.as_bytes().chunks(32).all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|&c| !is_invisible(c)).collect())
}

/// The chain that a field holds, in upper case and [`strip_invisible`] alone; none where the field says that it
/// [is missing](is_missing), or has no letter at all, as `0` has none.
pub fn normalise_chain(text: &str) -> Option<Cow<'_, str>> {
    if is_missing(text) {
        return None;
    }
    let mut chain = strip_invisible(text);
    // As in `strip_invisible`, without a way out inside.
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

/// The text without what [`strip_invisible`] leaves out at its start and its end; what stands between is as it is.
pub fn trim_invisible(text: &str) -> &str {
    text.trim_matches(is_invisible)
}

/// What pandas reads as a missing value unless told otherwise.
pub const PANDAS_MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// What else stands for a missing value: dashes and other signs, abbreviations of "not available" and "not determined",
/// a database's null, and a spreadsheet's errors.
const ALSO_MISSING: [&str; 19] = [
    "-", "--", "---", "–", "—", ".", "?", "n.a.", "nd", "n.d.", "n/d", "(null)", "\\N", "#VALUE!", "#DIV/0!", "#REF!",
    "#NAME?", "#NUM!", "#NULL!",
];

/// Whether a text stands for a missing value: pandas' list ([`PANDAS_MISSING`]) and `-`, `--`, `---`, `–`, `—`, `.`, `?`,
/// `n.a.`, `nd`, `n.d.`, `n/d`, `(null)`, `\N`, `#VALUE!`, `#DIV/0!`, `#REF!`, `#NAME?`, `#NUM!`, `#NULL!`.
///
/// Upper and lower case are the same, and what [`trim_invisible`] removes does not count. No chain that anybody measured is
/// spelled `NA`, `ND` or `None`, so one that reads like this is missing as well.
pub fn is_missing(text: &str) -> bool {
    // None has more bytes than `#N/A N/A`, and a chain has.
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
    fn what_stands_for_a_missing_value_is_missing_in_any_case() {
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
    fn a_chain_is_in_upper_case_and_has_letters() {
        assert!(matches!(normalise_chain("EVQLVESGGG"), Some(Cow::Borrowed("EVQLVESGGG"))));
        assert_eq!(normalise_chain(" ev\u{ad}Q lv\n").as_deref(), Some("EVQLV"));
        assert_eq!(normalise_chain("evx*é").as_deref(), Some("EVX*é"));
        for text in ["", " ", "nan", "NA", "-", "0", "12.5", "----", "*"] {
            assert_eq!(normalise_chain(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_without_unseen_characters_is_not_copied() {
        assert!(matches!(strip_invisible("EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWV|-0.5"), Cow::Borrowed(_)));
        assert_eq!(strip_invisible("\u{a0}\u{202d}1.5\u{200b}\u{feff} \r\n"), "1.5");
        let late = "A".repeat(100) + "\u{ad}B";
        assert_eq!(strip_invisible(&late), "A".repeat(100) + "B");
        assert_eq!(trim_invisible("\u{feff} a\u{ad} b\u{200b}\r\n"), "a\u{ad} b");
    }
}
