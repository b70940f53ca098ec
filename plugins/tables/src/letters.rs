//! Counts letters of chains that are not amino acids.

use std::collections::BTreeMap;
use std::path::Path;

use plugin_api::Context;

use crate::text::is_invisible;

/// How many different letters a warning names.
const NAMED: usize = 8;

/// Whether a byte is one of the 20 amino acids or `B` (aspartic acid or asparagine, which protein language models know), in
/// either case. Without short-circuits, so that the compiler vectorises.
fn is_usual(byte: u8) -> bool {
    let letter = byte.to_ascii_uppercase();
    (letter.wrapping_sub(b'A') < 25) & (letter != b'J') & (letter != b'O') & (letter != b'U') & (letter != b'X')
}

/// Counts of the letters in a file's chains.
#[derive(Debug, Default)]
pub struct LetterCounts {
    rows: usize,
    /// Rows with lower-case letters.
    lower: usize,
    /// Rows with letters other than the usual ones.
    unusual: usize,
    /// All letters.
    total: u64,
    /// How often each unusual letter occurs.
    others: BTreeMap<char, u64>,
}

impl LetterCounts {
    /// Counts the letters of one row's chains, as they are in the file.
    pub fn add<'a>(&mut self, chains: impl IntoIterator<Item = &'a str>) {
        self.rows += 1;
        let (mut lower, mut unusual) = (false, false);
        for chain in chains {
            let (mut plain, mut any_lower) = (true, false);
            for byte in chain.bytes() {
                plain &= is_usual(byte);
                any_lower |= byte.is_ascii_lowercase();
            }
            lower |= any_lower;
            if plain {
                self.total += chain.len() as u64;
                continue;
            }
            for letter in chain.chars().map(|letter| letter.to_ascii_uppercase()) {
                // `|` separates two chains.
                if letter == '|' || is_invisible(letter) {
                    continue;
                }
                self.total += 1;
                if !u8::try_from(letter).is_ok_and(is_usual) {
                    unusual = true;
                    *self.others.entry(letter).or_default() += 1;
                }
            }
        }
        self.lower += usize::from(lower);
        self.unusual += usize::from(unusual);
    }

    /// Warns of lower-case letters, and of letters other than the 20 amino acids and `B`.
    pub fn warn(&self, path: &Path, ctx: &Context<'_>) {
        let Self { rows, lower, unusual, .. } = self;
        if *lower > 0 {
            ctx.warn(format_args!(
                "{}: {lower} of {rows} rows have lower-case letters; read as upper case",
                path.display()
            ));
        }
        if *unusual > 0 {
            let mut others: Vec<(&char, &u64)> = self.others.iter().collect();
            others.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let more = others.len().saturating_sub(NAMED);
            let share = |count: u64| match 100.0 * count as f64 / self.total as f64 {
                share if share < 0.01 => "under 0.01%".to_owned(),
                share => format!("{share:.2}%"),
            };
            let named = others.iter().take(NAMED).map(|(letter, count)| format!("`{letter}` ({})", share(**count)));
            let mut named = named.collect::<Vec<_>>().join(", ");
            if more > 0 {
                named += &format!(" and {more} more");
            }
            ctx.warn(format_args!(
                "{}: {unusual} of {rows} rows have letters other than the 20 amino acids and `B`: {named} of all letters",
                path.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::Recorder;

    fn warnings(rows: &[&[&str]]) -> Vec<String> {
        let mut letters = LetterCounts::default();
        rows.iter().for_each(|chains| letters.add(chains.iter().copied()));
        let recorder = Recorder::default();
        letters.warn(Path::new("a.csv"), &Context::new(&recorder));
        recorder.lines()
    }

    #[test]
    fn the_usual_letters_are_the_20_amino_acids_and_b() {
        let usual: String = (0..=255).filter(|&byte| is_usual(byte)).map(char::from).collect();
        assert_eq!(usual, "ABCDEFGHIKLMNPQRSTVWYabcdefghiklmnpqrstvwy");
    }

    #[test]
    fn usual_letters_cause_no_warning() {
        assert_eq!(warnings(&[]), Vec::<String>::new());
        assert_eq!(warnings(&[&["ACDEFGHIKLMNPQRSTVWYB", "EV\u{ad}Q L\n"], &["EVQ|DIQ"]]), Vec::<String>::new());
    }

    #[test]
    fn lower_case_and_unusual_letters_are_reported_with_their_share() {
        assert_eq!(
            warnings(&[&["evq"], &["EVQ", "dIQ"]]),
            ["a.csv: 2 of 2 rows have lower-case letters; read as upper case"]
        );
        let chain = "E".repeat(96);
        assert_eq!(
            warnings(&[&[&chain, "xX"], &["V*"], &["Q"]]),
            [
                "a.csv: 1 of 3 rows have lower-case letters; read as upper case",
                "a.csv: 2 of 3 rows have letters other than the 20 amino acids and `B`: `X` (1.98%), `*` (0.99%) \
                 of all letters"
            ]
        );
        let many = &warnings(&[&[&"E".repeat(100_000), "XZUOJ*-é7"]])[0];
        assert!(
            many.ends_with(
                "`*` (under 0.01%), `-` (under 0.01%), `7` (under 0.01%), `J` (under 0.01%), `O` (under \
            0.01%), `U` (under 0.01%), `X` (under 0.01%), `Z` (under 0.01%) and 1 more of all letters"
            ),
            "{many}"
        );
    }
}
